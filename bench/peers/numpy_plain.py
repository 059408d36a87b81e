"""NumPy as a student would write it; the loop itself is the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from bench.reference import plain_training
from bench.training import Steps, Training

Array = NDArray[Any]


def plain(work: Training) -> Callable[[], Array]:
    """The lesson's net as a student would write it."""
    return lambda: plain_training(work)[0]


def plain_steps(work: Training) -> Steps:
    """The same, trained on and on; every call begins with the parameters of the one before."""
    state = work

    def run(count: int) -> None:
        nonlocal state
        _, after = plain_training(state, count)
        state = replace(state, weights=after[0::2], biases=after[1::2])

    return Steps(
        run, lambda: [p for w, b in zip(state.weights, state.biases, strict=True) for p in (w, b)]
    )
