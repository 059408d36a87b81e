"""What the library's own training loop calls in every step, to tell a recorder."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import dp

if TYPE_CHECKING:
    from dp.program.arrays import StepArrays
    from dp.program.capture import Captured
    from dp.program.graph import Value
    from gradiometer.recording.adapters.dp.recorder import DpRecorder


class Callback(dp.ProgramCallback):
    """Is called in the library's loop; compiled steps are read from their buffers."""

    only_reads = True

    def __init__(self, recorder: DpRecorder) -> None:
        self._recorder = recorder
        self.reads_loss = recorder.needs("loss")
        self.offset = 0  # steps before this loop
        self._all = recorder.schedule.all
        self._reader: Any = None

    def before_update(self, step: dp.Step) -> None:
        """Pass it on."""
        self._recorder.before_update(step)

    def after_update(self, step: dp.Step) -> None:
        """Pass it on."""
        self._recorder.after_update(step)

    def keep(self, captured: Captured) -> list[Value]:
        """Say what is to be read of a compiled step."""
        from gradiometer.recording.adapters.dp.program import ProgramReader

        if self._reader is None:
            self._reader = ProgramReader(self._recorder, self._recorder.reference)
        wanted: list[Value] = self._reader.keep(captured)
        return wanted

    def flush(self) -> None:
        """Measure compiled steps that wait."""
        if self._reader is not None:
            self._reader.flush()

    def undone(self, number: int) -> None:
        """Forget the steps after `number`, which were not what the model does."""
        if self._reader is not None:
            self._reader.forget_after(self.offset + number)
        self._recorder.done = self.offset + number

    # Every microsecond of these two counts: a compiled step of a small net takes fifty.

    def before_program_update(self, number: int, arrays: StepArrays) -> None:
        """Take what belongs to the weights before the update."""
        recorder = self._recorder
        if self._all or recorder.wants(self.offset + number):
            started = perf_counter()
            self._reader.before_update(arrays)
            recorder.timed.seconds += perf_counter() - started

    def after_program_update(self, number: int, arrays: StepArrays) -> None:
        """Complete the step with what the update did."""
        recorder, number = self._recorder, self.offset + number
        recorder.done = number
        if self._all or recorder.wants(number):
            started = perf_counter()
            self._reader.after_update(number, arrays)
            recorder.timed.seconds += perf_counter() - started
