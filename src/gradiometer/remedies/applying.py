"""What trials have in common: what they answer, when they end, why one is not made."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dp.typing import Array
from gradiometer.interrupts import OutOfTime

if TYPE_CHECKING:
    from gradiometer.remedies.candidates import Candidate


class NotApplicable(Exception):  # noqa: N818 (no error: the remedy is not tried)
    """A remedy cannot be applied; its message says why."""


@dataclass(frozen=True)
class Outcomes:
    """What the trainings of one trial reached, a number per seed.

    Attributes
    ----------
    values : array (seeds,)
        Accuracy, R² or loss. An accuracy or R² that is not finite or below 0 counts as 0; a loss
        that is not finite or above that at the start counts as the one at the start.
    losses : array (seeds,)
        The original loss on the same rows, which ranks remedies that are equal otherwise; NaN where
        it is not known.
    """

    values: Array
    losses: Array


class Trials(Protocol):
    """Trainings with one change each, on the same seeds and the same order of the data.

    Attributes
    ----------
    seeds : tuple of int
    outcome : str
        "accuracy", "R²" or "loss"; known after the first trial.
    """

    seeds: tuple[int, ...]
    outcome: str

    def run(self, candidate: Candidate | None, deadline: Deadline) -> Outcomes:
        """Train with a change, or without.

        Raises
        ------
        NotApplicable
            If the change cannot be made.
        OutOfTime
            If the deadline passed before all seeds were trained.
        """

    def code(self, candidate: Candidate) -> str:
        """How to make the change that a candidate was tried as."""


class Deadline:
    """When the time is over.

    Parameters
    ----------
    seconds : float, optional
        From now; None means never.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise OutOfTime if it is."""
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime


def bounded(values: Array) -> Array:
    """An accuracy or R², of which what is not finite or below 0 counts as 0."""
    return np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0)
