"""A callback for PyTorch Lightning that records the training."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        raise ImportError(
            "PyTorch Lightning is not installed; pip install 'gradiometer[lightning]'"
        ) from None

from gradiometer.recording.record import record
from gradiometer.recording.recorder import TrainingRecorder
from gradiometer.trace import Trace


class RecordTraining(Callback):
    """Records every training step of a Lightning module.

    Parameters
    ----------
    **settings
        `reference`, `every`, `histograms`, `quantities`, `max_overhead`, `layers`,
        `stop_on`, `on_verdict`: see `gradiometer.record`.

    Notes
    -----
    A step is one update by any of the module's optimizers. Batches whose gradients are accumulated
    are one step; validation does not count.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._recorder: TrainingRecorder | None = None

    @property
    def recorder(self) -> TrainingRecorder:
        """The recorder of the latest `fit`.

        Raises
        ------
        ValueError
            If there was none.
        """
        if self._recorder is None:
            raise ValueError("nothing has been recorded yet: no fit has begun")
        return self._recorder

    @property
    def trace(self) -> Trace:
        """Everything recorded so far."""
        return self.recorder.trace

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin to record."""
        self._recorder = record(pl_module, **self._settings)
        if self._recorder.session.live is not None:
            self._recorder.session.live.raises = False  # the trainer is asked to stop instead
        self._recorder.attach()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Ask the trainer to stop, if a verdict says so."""
        if self.recorder.stopped is not None:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Stop."""
        self.recorder.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Stop, and keep what was recorded."""
        if self._recorder is not None:
            self._recorder.detach()
