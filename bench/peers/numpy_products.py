"""The matrix products of a step alone: the time that no step can beat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training import Steps, Training
from dp.program.products import in_parts

Array = NDArray[Any]


def product(a: Array, b: Array, out: Array) -> tuple[Callable[..., Any], Array, Array]:
    """The quickest call for a b, and what to call it with; in parts, where that is quicker."""
    parts = in_parts(a, b, out)
    return (a.dot, b, out) if parts is None else (partial(np.matmul, a), *parts)


def products(work: Training) -> Steps:
    """The matrix products of a step alone, batch-major: the time that no step can beat."""
    a = _noise([(work.batch, n) for n in work.widths], work.dtype)
    out, w = [np.empty_like(v) for v in a], work.weights
    calls = [(a[i].dot, w[i], out[i + 1]) for i in range(len(w))]
    for i in reversed(range(len(w))):
        calls.append((a[i].T.dot, a[i + 1], np.empty_like(w[i])))
        if i:
            calls.append((a[i + 1].dot, w[i].T, out[i]))
    return Steps(_repeat(calls))


def products_feature_major(work: Training) -> Steps:
    """The same products, feature-major; which of the two is faster depends on the machine."""
    a = _noise([(n, work.batch) for n in work.widths], work.dtype)
    out, w = [np.empty_like(v) for v in a], [v.T.copy() for v in work.weights]
    calls = [(w[i].dot, a[i], out[i + 1]) for i in range(len(w))]
    for i in reversed(range(len(w))):
        calls.append((a[i + 1].dot, a[i].T, np.empty_like(w[i])))
        if i:
            calls.append((w[i].T.dot, a[i + 1], out[i]))
    return Steps(_repeat(calls))


def products_in_parts(work: Training) -> Steps:
    """The same products as programs make them: feature-major, in parts where that is quicker."""
    a = _noise([(n, work.batch) for n in work.widths], work.dtype)
    out, w = [np.empty_like(v) for v in a], work.weights
    calls = [product(w[i].T, a[i], out[i + 1]) for i in range(len(w))]
    for i in reversed(range(len(w))):
        calls.append((a[i].dot, a[i + 1].T, np.empty_like(w[i])))
        if i:
            calls.append(product(w[i], a[i + 1], out[i]))
    return Steps(_repeat(calls))


def _noise(shapes: list[tuple[int, int]], dtype: Any) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def _repeat(calls: list[tuple[Callable[..., Any], Array, Array]]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            for dot, other, out in calls:
                dot(other, out)

    return run
