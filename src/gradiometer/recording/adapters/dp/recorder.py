"""DpRecorder: records a model of dp."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import dp
from gradiometer.recording.adapters.dp.training import DpTraining
from gradiometer.recording.recorder import TrainingRecorder
from gradiometer.recording.session import Session


class DpRecorder(TrainingRecorder):
    """Records the training steps of a model of dp.

    Made by `gradiometer.record`. Used as a context manager, or attached and detached, it sees steps
    by itself: one is a computation of the loss's gradient (`get_grad`, or `grad` of the loss) and
    the change of parameters after it. The library's own training loop tells its steps exactly. Or
    else `before_step` and `after_step` say where a step begins and ends.

    Parameters
    ----------
    model : dp.Model
    optimizer : object, optional
        What trains it, if that is one object.
    reference, every, histograms, quantities, max_overhead
        See `gradiometer.record`.

    Raises
    ------
    RecordingError
        If the optimizer trains another model.
    """

    def __init__(
        self,
        model: dp.Model,
        optimizer: Any = None,
        *,
        reference: tuple[Any, Any] | None = None,
        every: int = 1,
        histograms: bool = False,
        quantities: Collection[str] | None = None,
        max_overhead: float | None = None,
    ) -> None:
        session = Session(every, histograms, quantities, max_overhead)
        super().__init__(session, DpTraining(session, model, optimizer, reference))
