"""The workloads: data, initial weights and batches, the same for every peer, and what they give.

`bench.training` says what a training is, `bench.reference` what its result must be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.checks import check, check_change
from bench.reference import plain_training
from bench.training import Sweep, Training

ACTIVATIONS = ("sigmoid", "tanh", "relu")
DEPTHS = range(1, 11)
SEEDS = range(20)


def lesson(dtype: str, steps: int = 100) -> Training:
    """Ten hidden sigmoid layers of ten on Iris: mean |dL/dW| of all matrices at every step."""
    return _iris("sigmoid", 10, 0, dtype, steps)


def sweep(
    dtype: str,
    activations: Sequence[str] = ACTIVATIONS,
    depths: Sequence[int] = DEPTHS,
    seeds: Sequence[int] = SEEDS,
    steps: int = 100,
) -> Sweep:
    """Train 3 activation functions × 10 depths × 20 seeds, recorded as in the lesson."""
    return Sweep(
        {
            (activation, depth): _iris(activation, depth, list(seeds), dtype, steps)
            for activation in activations
            for depth in depths
        }
    )


def wide(dtype: str = "float32") -> Training:
    """784-1024-1024-10, relu, batches of 256: large matrix products."""
    return random_labels([784, 1024, 1024, 10], "relu", 256, dtype)


def deep(dtype: str = "float32") -> Training:
    """100 features, 50 tanh layers of 100, 10 classes, batches of 128: many small products."""
    return random_labels([100] * 51 + [10], "tanh", 128, dtype)


@dataclass(frozen=True)
class Workload:
    """What is measured under one name.

    Attributes
    ----------
    kind : str
        How a peer prepares it; see `bench.peers`.
    make : callable
        dtype -> what it is given.
    dtypes : tuple of str
        Measured if no dtype is asked for.
    unit : str
        What the time is the time of, and in what: "ms per run".
    units : int
        Of them in a timed run.
    """

    kind: str
    make: Callable[[str], Any]
    dtypes: tuple[str, ...]
    unit: str
    units: int = 1

    def checker(self, dtype: str) -> Callable[[Any, str], tuple[str, float]]:
        """Make the function that compares a peer's result with the reference.

        It is given the result and the peer's name, raises ValueError unless they agree, and
        returns a note and the factor by which the peer's time is to be multiplied.
        """
        work = self.make(dtype)
        if self.kind == "lesson":
            lesson_means, _ = plain_training(work.exactly())
            return lambda found, who: (check(found, lesson_means, dtype, who) or "", 1.0)
        if self.kind == "steps":
            _, after = plain_training(work.exactly())
            first = [p for pair in zip(work.weights, work.biases, strict=True) for p in pair]

            def check_steps(found: Any, who: str) -> tuple[str, float]:
                if found is not None:
                    check_change(found, first, after, dtype, who)
                return "", 1.0

            return check_steps
        if self.kind == "sweep":
            cells = {
                cell: plain_training(training.exactly())[0]
                for cell, training in work.trainings.items()
            }

            def check_sweep(found: Any, who: str) -> tuple[str, float]:
                members = len(next(iter(found.values())))
                for cell, right in cells.items():
                    share = 0.9 if cell[0] == "relu" and dtype == "float32" else 1.0
                    check(found[cell], right[:members], dtype, f"{who} {cell}", share)
                if members == len(SEEDS):
                    return "", 1.0
                return f"scaled from {members} of {len(SEEDS)} seeds", len(SEEDS) / members

            return check_sweep
        size, _ = work
        gradient = np.full((4, 4), 0.999 ** (size // 2))
        return lambda found, who: (check(found, gradient, dtype, who) or "", 1.0)


def _iris(activation: str, depth: int, seed: int | list[int], dtype: str, steps: int) -> Training:
    import dp
    from gradiometer.data import load

    data = load("iris2")
    parameters = list(dp.Net(4, 10, depth, activation, seed=seed, dtype=dtype).get_param().values())
    return Training(
        data.x.astype(dtype),
        data.y.astype(dtype),
        parameters[0::2],
        parameters[1::2],
        activation,
        0.001,
        steps,
        128,
        seed,
    )


def random_labels(widths: list[int], activation: str, batch: int, dtype: str) -> Training:
    """Random data with random labels; a rate so small that the numbers stay as they begin."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, widths[-1], size=4 * batch)
    bounds = [np.sqrt(6.0 / (i + o)) for i, o in itertools.pairwise(widths)]
    return Training(
        rng.normal(size=(4 * batch, widths[0])).astype(dtype),
        np.eye(widths[-1], dtype=dtype)[labels],
        [
            rng.uniform(-b, b, (i, o)).astype(dtype)
            for b, i, o in zip(bounds, widths, widths[1:], strict=False)
        ],
        [rng.uniform(-0.1, 0.1, (1, o)).astype(dtype) for o in widths[1:]],
        activation,
        1e-5,
        3,
        batch,
    )


WORKLOADS: dict[str, Workload] = {
    "lesson": Workload("lesson", lesson, ("float64", "float32"), "ms per run"),
    "wide": Workload("steps", wide, ("float32",), "ms per step", 16),
    "deep": Workload("steps", deep, ("float32",), "ms per step", 60),
    "sweep": Workload("sweep", sweep, ("float32", "float64"), "s"),
    "graphs": Workload(
        "chain", lambda dtype: (1_000, dtype), ("float64",), "µs per operation", 1_000
    ),
}
