"""From what was measured to a ranking: the best remedy first, and which of them works."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dp.typing import Array
from gradiometer.remedies.candidates import Candidate
from gradiometer.remedies.effects import Effect, against_random, effect
from gradiometer.remedies.results import Tried

MATTERS = 0.02  # improvement of an accuracy or R², or share of the loss, from which on it counts

Measured = tuple[Candidate, Array]  # what each seed reached


def ranked(
    measured: Sequence[Measured],
    unchanged: Array,
    outcome: str,
    promise: Sequence[Candidate],
    code: Callable[[Candidate], str],
) -> tuple[Tried, ...]:
    """The best first; those that are about as good as the best by how promising they are.

    Parameters
    ----------
    measured : sequence of (Candidate, array (seeds,))
    unchanged : array (seeds,)
    outcome : str
        "accuracy", "R²" or "loss"; the latter is better if it is smaller.
    promise : sequence of Candidate
        The most promising first.
    code : callable
        How to make a candidate's change.
    """
    if not measured:
        return ()
    sign = -1.0 if outcome == "loss" else 1.0
    scores = sign * np.array([values for _, values in measured])
    before, means = sign * unchanged, scores.mean(axis=1)
    matters = MATTERS if sign > 0 else MATTERS * abs(float(before.mean()))
    nothing = [effect(own, before, len(scores)) for own in scores]
    random = against_random(scores, len(scores))

    found = [
        Tried(
            candidate.name,
            candidate.words,
            plain(values),
            nothing[i],
            random[i],
            _works(nothing[i], random[i], matters),
            code(candidate),
        )
        for i, (candidate, values) in enumerate(measured)
    ]

    def place(i: int) -> tuple[bool, float, bool, int]:
        near = bool(means[i] >= means.max() - matters)
        own = promise.index(measured[i][0])
        return not near, 0.0 if near else -float(means[i]), not found[i].works, own

    return tuple(found[i] for i in sorted(range(len(found)), key=place))


def _works(nothing: Effect, random: Effect, matters: float) -> bool:
    return nothing.excludes_zero and random.excludes_zero and nothing.mean >= matters


def random_remedy(measured: Sequence[Measured]) -> tuple[float, float]:
    """Mean and standard deviation of what a remedy drawn at random reaches; NaN if none was tried.

    Each that was tried is as likely as the others, and so is each seed.
    """
    if not measured:
        return math.nan, math.nan
    values = np.array([reached for _, reached in measured])
    return float(values.mean()), float(values.std())


def plain(values: Array) -> tuple[float, ...]:
    """As Python's numbers."""
    return tuple(float(value) for value in values)
