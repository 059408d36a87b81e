"""What cannot be recorded, what a run is warned of, and what stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradiometer.diagnosis import Verdict


class RecordingError(RuntimeError):
    """A model whose layers cannot be recorded without reporting a wrong number."""


class GradientWarning(UserWarning):
    """Something is wrong with a net that is being trained."""


class TrainingStopped(Exception):  # noqa: N818  (it is no error)
    """A verdict that was to stop the training was reached.

    Raised out of the step; `with record(…)` ends without it, so that the code after the block goes
    on.

    Attributes
    ----------
    verdict : gradiometer.diagnosis.verdict.Verdict
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"training was stopped. {verdict.sentence}")
        self.verdict = verdict
