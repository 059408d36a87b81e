"""What the library's own training loop calls in every step, to tell a recorder."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import dp
from gradiometer.recording.adapters.dp.layers import Announcer
from gradiometer.recording.live import Live
from gradiometer.recording.session import Session

if TYPE_CHECKING:
    from dp.program.arrays import StepArrays
    from dp.program.capture import Captured
    from dp.program.graph import Value
    from gradiometer.recording.adapters.dp.program import ProgramReader


class Follower(Protocol):
    """Who follows a model's training."""

    session: Session
    model: dp.Model
    reference: tuple[Any, Any] | None
    announcer: Announcer

    def before_update(self, told: dp.Step) -> None:
        """An uncompiled step has its gradients."""

    def after_update(self, told: dp.Step) -> None:
        """Its parameters have been changed."""

    def tell_optimizer(self, number: int) -> None:
        """Say what makes the update of a step."""

    def data(self) -> tuple[Any, Any] | None:
        """All samples that the loop trains on, and what it trains them for; None if not known."""


class Callback(dp.ProgramCallback):
    """Is called in the library's loop; compiled steps are read from their buffers."""

    only_reads = True

    def __init__(self, training: Follower) -> None:
        self._training, self._session = training, training.session
        self.reads_loss = self._session.needs("loss")
        self.offset = 0  # steps before this loop
        self._all = self._session.schedule.all
        self._reader: ProgramReader | None = None

    def before_update(self, step: dp.Step) -> None:
        """Pass it on."""
        self._training.before_update(step)

    def after_update(self, step: dp.Step) -> None:
        """Pass it on."""
        self._training.after_update(step)

    def keep(self, captured: Captured) -> list[Value]:
        """Say what is to be read of a compiled step."""
        from gradiometer.recording.adapters.dp.program import ProgramReader

        if self._reader is None:
            follower = self._training
            self._reader = ProgramReader(
                self._session, follower.model, follower.announcer, follower.reference,
                follower.data,
            )  # fmt: skip
        return self._reader.keep(captured)

    def flush(self) -> None:
        """Measure compiled steps that wait."""
        if self._reader is not None:
            self._reader.flush()

    def undone(self, number: int) -> None:
        """Forget the steps after `number`, which were not what the model does."""
        if self._reader is not None:
            self._reader.forget_after(self.offset + number)
        self._session.done = self.offset + number

    # Every microsecond of these two counts: a compiled step of a small net takes fifty.

    def before_program_update(self, number: int, step: StepArrays) -> None:
        """Take what belongs to the weights before the update."""
        session, number = self._session, self.offset + number
        if self._all or session.wants(number):
            started = perf_counter()
            assert self._reader is not None  # `keep` has been called
            self._training.tell_optimizer(number)
            self._reader.before_update(step)
            session.schedule.clock.seconds += perf_counter() - started

    def after_program_update(self, number: int, step: StepArrays) -> None:
        """Complete the step with what the update did."""
        session, number = self._session, self.offset + number
        session.done = number
        if self._all or session.wants(number):
            started = perf_counter()
            assert self._reader is not None
            self._reader.after_update(number, step)
            session.schedule.clock.seconds += perf_counter() - started
            if session.live is not None:
                self._reader.flush_if_due(session.live)
                session.look()


class Stopper(dp.ProgramCallback):
    """Ends the library's loop when a verdict says so, after what else is called in a step."""

    only_reads = True
    reads_loss = False

    def __init__(self, live: Live) -> None:
        self._live = live

    def place_in(self, callbacks: list[Any], compiled: bool) -> None:
        """Come last; in compiled training, last of those that read programs."""
        at = len(callbacks)
        while compiled and at and not isinstance(callbacks[at - 1], dp.ProgramCallback):
            at -= 1
        callbacks.insert(at, self)

    def after_update(self, step: dp.Step) -> None:  # noqa: ARG002
        """End it, if it is to end."""
        self._live.check()

    def after_program_update(self, number: int, step: StepArrays) -> None:  # noqa: ARG002
        """The same in compiled training."""
        self._live.check()
