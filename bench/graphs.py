"""Time per operation as a graph grows: small and large graphs of the same form, in turns.

Three forms: a chain of operations, one value with many consumers, and stacked diamonds
x = x·x + x, in which the number of paths grows threefold with every storey. Forward pass, backward
pass and deletion are timed apart. A ratio near 1 means linear time; caches make it larger than 1
once a graph no longer fits into them.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import numpy as np

import dp

ROUNDS = 7


def chain(x: dp.Node, size: int) -> dp.Node:
    """`size` operations, one after the other."""
    for _ in range(size // 2):
        x = x * 0.5 + 1.0
    return x


def fan_out(x: dp.Node, size: int) -> dp.Node:
    """`size` consumers of one value, added up."""
    total = x
    for _ in range(size // 2):
        total = total + x.tanh()
    return total


def diamonds(x: dp.Node, size: int) -> dp.Node:
    """Storeys of two operations each, both of which use the storey below twice in all."""
    for _ in range(size // 2):
        x = x * x + x
    return x


FORMS: dict[str, tuple[Callable[[dp.Node, int], dp.Node], int, int]] = {
    "chain": (chain, 1_000, 100_000),
    "fan-out": (fan_out, 1_000, 20_000),
    "diamonds": (diamonds, 200, 2_000),
}


def once(build: Callable[[dp.Node, int], dp.Node], size: int) -> tuple[float, float, float]:
    """Nanoseconds per operation: forward, backward, deletion."""
    # negative and small: x·x + x neither overflows nor settles
    x = dp.Node(np.full((4, 4), -0.1))
    began = time.perf_counter()
    y = build(x, size)
    built = time.perf_counter()
    (gradient,) = dp.gradients(y.sum(), [x])
    swept = time.perf_counter()
    del y
    deleted = time.perf_counter()
    if not np.isfinite(gradient).all():
        raise RuntimeError(f"{build.__name__} of {size}: the gradient is not finite")
    return tuple(1e9 * t / size for t in (built - began, swept - built, deleted - swept))  # type: ignore[return-value]


def main(rounds: int = ROUNDS) -> None:
    """Print a Markdown table."""
    gc.collect()
    print("| graph | operations | forward ns | backward ns | delete ns | all, ratio |")
    print("|---|---|---|---|---|---|")
    for name, (build, small, large) in FORMS.items():
        once(build, small)
        times: dict[int, list[tuple[float, float, float]]] = {small: [], large: []}
        for _ in range(rounds):
            for size in (small, large):
                times[size].append(once(build, size))
        medians = {
            size: [statistics.median(part) for part in zip(*rows, strict=True)]
            for size, rows in times.items()
        }
        ratio = statistics.median(
            sum(b) / sum(a) for a, b in zip(times[small], times[large], strict=True)
        )
        for size in (small, large):
            row = " | ".join(f"{value:,.0f}" for value in medians[size])
            shown = f"{ratio:.2f}" if size == large else ""
            print(f"| {name} | {size:,} | {row} | {shown} |")


if __name__ == "__main__":
    main()
