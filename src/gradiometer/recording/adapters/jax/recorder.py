"""record, and the recorder that puts steps together from what JAX sends."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradiometer.recording.adapters.jax.assembly import (
    Call,
    assembled,
    described,
    flat_axes,
    listed,
    missing_in,
)
from gradiometer.recording.adapters.jax.transport import (
    Message,
    Settings,
    StepMessage,
    TapMessage,
    context,
    received,
)
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.recorder import Recorder
from gradiometer.recording.session import Session

if TYPE_CHECKING:
    from gradiometer.trace import Trace


@contextlib.contextmanager
def record(
    *,
    every: int = 1,
    histograms: bool = False,
    quantities: Collection[str] | None = None,
) -> Iterator[Recorder]:
    """Record what `tap` and `tap_step` see in this thread inside the block.

    Parameters
    ----------
    every : int
        Record every k-th step. If `tap` and `tap_step` are told the step's number (`step=`), the
        steps between are neither measured nor sent; otherwise they are, and then dropped.
    histograms : bool
        Record log10 histograms of the gradients too.
    quantities : collection of str, optional
        Measure only these, such as ["grad_mean_abs", "loss"].

    Yields
    ------
    Recorder
        Its `trace` may be taken at any time; it waits for the device to finish. Layers are in the
        order of the forward pass.

    Raises
    ------
    RecordingError
        When the trace is taken: if taps were met but no step was ended; if the taps of one name
        differ in their units; if a later step has a layer that the first one had not; if the
        members of an ensemble are at different steps. When a tap is met: inside `shard_map` or
        `pmap`, where every device sees a part of the batch alone.
    ValueError
        If there is no such quantity.

    Notes
    -----
    The compiled code is kept by JAX for the next recording with the same settings. Functions
    compiled ahead of time (`jit(f).lower(…).compile()`) stay as they are: compiled outside of a
    block, they have no taps.

    Inside a block, JAX refuses some of what it does outside: forward-mode differentiation (`jvp`,
    `jacfwd`) of a tap, and `vmap` of a `cond` or of a `while_loop` with a tap in it (`scan`, and
    `fori_loop` between constant bounds, are no such loops).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import gradiometer.jax
    >>> def loss(w, x):
    ...     h = gradiometer.jax.tap(x @ w["h1"], "h1", activation=jnp.tanh)
    ...     return jnp.sum(jnp.tanh(h) ** 2)
    >>> @jax.jit
    ... def step(w, x):
    ...     value, grads = jax.value_and_grad(loss)(w, x)
    ...     updated = jax.tree.map(lambda p, g: p - 0.1 * g, w, grads)
    ...     gradiometer.jax.tap_step(w, grads, updated, loss=value)
    ...     return updated
    >>> w, x = {"h1": jnp.ones((4, 3))}, jnp.ones((5, 4))
    >>> with gradiometer.jax.record() as recorder:
    ...     for _ in range(2):
    ...         w = step(w, x)
    >>> recorder.trace["delta_rms"].shape
    (2, 1)
    """
    session = Session(every, histograms, quantities)
    steps = Steps(session)
    with (
        received(steps.take) as slot,
        context(Settings(slot, session.every, session.quantities)),
    ):
        session.turn(on=True)
        try:
            yield JaxRecorder(session, steps)
        finally:
            jax.effects_barrier()
            session.turn(on=False)


class JaxRecorder(Recorder):
    """What was recorded; reading it waits for the device."""

    def __init__(self, session: Session, steps: Steps) -> None:
        super().__init__(session)
        self._steps = steps

    def to_trace(
        self, attributes: Mapping[str, Any] | None = None, members: Sequence[int] | None = None
    ) -> Trace:
        """As `Recorder.to_trace`; says so if no step was ended."""
        if not self.n_steps:
            self._steps.check_ended()
        return super().to_trace(attributes, members)


class Steps:
    """Puts steps together from what taps and `tap_step` sent, and adds them to a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._calls: list[Call] = []  # of taps, since a step was ended
        self._number = 0  # of the latest step that was recorded
        self._axes: tuple[int, ...] | None = None  # of the members
        self._problem: RecordingError | None = None
        session.begin((), self._arrived)

    def take(self, message: Message, values: Any, step: Any) -> None:
        """Keep what a tap sent; put a step together, if it ends."""
        with self._session.timed, np.errstate(all="ignore"):
            if self._problem is not None:
                return
            if isinstance(message, TapMessage):
                self._calls.append(Call(message, values, step))
            elif isinstance(message, StepMessage):
                calls, self._calls = self._calls, []
                try:
                    self._end(message, values, step, calls)
                except RecordingError as error:
                    self._problem = error  # raised where it is seen: not in a thread of JAX

    def check_ended(self) -> None:
        """Raise RecordingError if taps were met, and no step was ended."""
        if self._calls:
            met = dict.fromkeys(call.message.name for call in reversed(self._calls))
            raise RecordingError(
                f"taps were met ({listed(met)}), but no step was ended: call "
                "gradiometer.jax.tap_step(params, grads, updated) in the training step"
            )

    def _arrived(self) -> None:
        """Wait for the device; raise what was wrong with what it sent."""
        jax.effects_barrier()
        if self._problem is not None:
            raise RecordingError(str(self._problem))

    # --- the end of a step ------------------------------------------------------------------------

    def _end(self, message: StepMessage, values: Any, step: Any, calls: list[Call]) -> None:
        session = self._session
        session.done += 1
        number = session.done if step is None else _one(step, "tap_step") + 1
        if not session.wants(number):
            return
        members = values.shape[:-1]
        self._check_step(number, members)
        taps: dict[str, list[Call]] = {}
        for call in reversed(calls):  # those of the backward pass, in the order of the forward pass
            self._check_call(call, number, step, message)
            taps.setdefault(call.message.name, []).append(call)
        if not session.layers:
            self._begin(taps, message)
        names = [info.name for info in session.layers]
        strange = {*taps, *(layer for (layer, _), _ in message.columns)}.difference(names, [""])
        if strange:
            raise RecordingError(
                f"step {number} has a layer {min(strange)!r}, which the first step had not; it had "
                f"{listed(names)}"
            )
        sent = message.unpacked(values)
        for layer, quantities, why in missing_in(taps, sent, names):
            session.miss(layer, quantities, why)
        told = {
            what: numbers.reshape(flat_axes(members))
            for (layer, what), numbers in sent.items()
            if not layer
        }
        found = assembled(session, taps, sent, members)
        self._number, self._axes = number, members
        found.add(number, told.get("loss"), told.get("accuracy"), told.get("grad_norm"))

    def _begin(self, taps: Mapping[str, Sequence[Call]], message: StepMessage) -> None:
        """Say which layers there are, by the first step."""
        infos, missing = described(taps, message)
        self._session.begin(infos)
        for layer, reasons in missing.items():
            for name, why in reasons.items():
                self._session.miss(layer, (name,), why)

    def _check_step(self, number: int, members: tuple[int, ...]) -> None:
        if number <= self._number:
            raise RecordingError(
                f"step {number} was ended after step {self._number}; step= must count the updates "
                "of the whole recording, from 0"
            )
        if self._axes not in (None, members):
            raise RecordingError(
                f"step {number} has members of shape {members}, the steps before it "
                f"{self._axes}; record them in blocks of their own"
            )

    def _check_call(self, call: Call, number: int, step: Any, message: StepMessage) -> None:
        name = call.message.name
        if call.step is not None or (step is not None and self._session.every > 1):
            given = None if call.step is None else _one(call.step, f"tap {name!r}")
            wanted = None if step is None else _one(step, "tap_step")
            if given != wanted:
                raise RecordingError(
                    f"tap {name!r} was given step={given}, tap_step step={wanted}; expected the "
                    "same number for both"
                )
        if message.stateless and call.values.ndim > 1:
            raise RecordingError(
                f"step {number}: tap_step is mapped over an axis that neither weights nor "
                f"gradients have, tap {name!r} over others, so that members and samples cannot be "
                "told apart; give every member weights of its own"
            )


def _one(step: Any, where: str) -> int:
    """The number of a step, the same for every member."""
    if (step != step.flat[0]).any():
        raise RecordingError(
            f"{where}: the members of an ensemble are at different steps, {step.tolist()!r:.80}"
        )
    return int(step.flat[0])
