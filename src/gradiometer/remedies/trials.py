"""Trials: what `try_remedies` asks of an experiment, and of a model of PyTorch."""

from __future__ import annotations

from typing import Protocol

from dp.typing import Array
from gradiometer.remedies.applying import Deadline
from gradiometer.remedies.candidates import Candidate


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

    def run(self, candidate: Candidate | None, deadline: Deadline) -> Array:
        """Train with a change, or without; (seeds,), what each net reached.

        An accuracy or R² that is not finite or below 0 counts as 0; a loss that is not finite or
        above that at the start counts as the one at the start.

        Raises
        ------
        NotApplicable
            If the change cannot be made.
        OutOfTime
            If the deadline passed before all seeds were trained.
        """

    def code(self, candidate: Candidate) -> str:
        """How to make the change that a candidate was tried as."""
