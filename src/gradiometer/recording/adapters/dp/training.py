"""The training of a model of dp: where its steps begin and end, whatever its loop looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dp
from dp.typing import Array
from dp.watching import register, unregister
from gradiometer.recording.adapters.dp.callback import Callback, Stopper
from gradiometer.recording.adapters.dp.layers import Announcer, Called, only
from gradiometer.recording.adapters.dp.steps import Assembly, PassReader, Seen, Update
from gradiometer.recording.adapters.dp.watch import Pass, Watch, trains
from gradiometer.recording.chains import layers_before
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.recorder import Training, TrainingRecorder
from gradiometer.recording.session import Session

BY_HAND = """\
say where a step begins and ends:
    recorder = gradiometer.record(model)
    for ...:
        recorder.before_step()
        ...  # the gradient, and the update
        recorder.after_step()"""
SEVERAL_PASSES = (
    "the gradient was computed several times before the parameters changed, so it cannot be seen "
    f"from outside which one the update used; {BY_HAND}"
)
NO_UPDATE = (
    "the gradient was computed, but no parameter of the model changed afterwards; if your loop "
    f"updates them in another way, {BY_HAND}"
)
MOVED = "the parameters changed between two computations of the gradient in one step"
# An update that no parameter shows: its gradient is so small that a step of this size is lost in
# rounding.
SMALL_RATE = 1e-3


@dataclass(eq=False)
class Step:
    """A step that has begun, as far as it is known.

    Attributes
    ----------
    number : int
    wanted : bool
        Whether it is to be recorded.
    before : dict
        Copies of the parameters before the update.
    passes : list of Seen
    latest : Pass, optional
        In the library's loop: not yet looked at, for it may be no part of the training.
    gradients : dict
        Copies of the latest pass's gradients.
    several : bool
        Whether there were passes of which it is not known what became of them.
    told : bool
        Whether `set_param` was called since.
    moved : bool
        Whether parameters changed between two passes.
    """

    number: int
    wanted: bool
    before: dict[str, Array]
    passes: list[Seen] = field(default_factory=list)
    latest: Pass | None = None
    gradients: dict[str, Array] = field(default_factory=dict)
    several: bool = False
    told: bool = False
    moved: bool = False


def recorder_of(
    session: Session, model: dp.Model, optimizer: Any, reference: tuple[Any, Any] | None
) -> TrainingRecorder:
    """Make a recorder of the training steps of a model of dp; see `gradiometer.record`.

    Raises
    ------
    RecordingError
        If the optimizer trains another model.
    """
    _check(model, optimizer)
    return TrainingRecorder(session, DpTraining(session, model, optimizer, reference))


class DpTraining(Training):
    """Sees the steps of a model's training, and has them put together.

    Parameters
    ----------
    session : Session
    model : dp.Model
    optimizer : object, optional
        What trains it, if that is one object; the library's loop tells it anyway.
    reference : (x, y), optional
    """

    def __init__(
        self, session: Session, model: dp.Model, optimizer: Any, reference: tuple[Any, Any] | None
    ) -> None:
        self.session, self.model, self.optimizer = session, model, optimizer
        self.reference = reference
        self._watch = Watch(self, session.timed, session.arrays)
        self._reader = PassReader(model, session, reference)
        self._callback = Callback(self)
        self._stopper: Stopper | None = None  # in a loop that may be stopped
        self.announcer = Announcer(session, model, self._before_reading)
        self._step: Step | None = None
        self._loops: list[dp.Optimizer] = []  # the library's loops that are running
        self._replaced: Any = None  # the callbacks of the loop's optimizer, if they were no list
        self._updating = False  # in such a loop, between the two halves of a step
        self._sets = False  # whether this training calls set_param
        self._updates_by: tuple[Any, Any] = None, None  # the optimizer last told of, and its rate

    # --- beginning and end ------------------------------------------------------------------------

    def attach(self) -> None:
        """Be told of the model's passes and updates from now on."""
        register(self._watch)

    def detach(self, complete: bool) -> None:
        """Be told no longer; a step whose update was made is closed if the training is complete."""
        try:
            if complete and self.attached:
                self._settle()
                if self._step is not None and not self._loops and not self.session.done:
                    self.session.why_nothing = NO_UPDATE
        finally:
            self._step = None
            self._watch.paused = False
            unregister(self._watch)
            for optimizer in self._loops[:1]:  # in which it is called back
                self._remove_callback(optimizer)
            self._loops = []

    def begin_step(self) -> None:
        """A step begins, before its gradient is computed."""
        if not self.told:
            register(self._watch)
        with self.session.timed:
            self._step = self._new_step()

    def end_step(self, loss: Any) -> None:
        """It has ended, after the update."""
        step, self._step = self._step, None
        unregister(self._watch)
        assert step is not None
        if not step.passes and step.wanted:
            self.session.why_nothing = (
                "no gradient of a loss that depends on the model was computed between "
                "before_step() and after_step()"
            )
            return
        with self.session.timed, np.errstate(all="ignore"):
            given = None if loss is None else float(loss)
            self._close(step, loss=given, why_not=MOVED if step.moved else "")
            self.session.look_and_stop()

    # --- what the watch tells ---------------------------------------------------------------------

    def looks(self) -> bool:
        """Whether a sweep that begins now is of interest."""
        if self.told:
            return self._step is not None and self._step.wanted
        if self._loops:
            return not self._updating and self.session.wants(self.session.done + 1)
        return True

    def passed(self, seen: Pass) -> None:
        """Note that the gradient was computed."""
        with self.session.timed, np.errstate(all="ignore"):
            if self.told:
                assert self._step is not None
                if self._step.passes and _changed(self._step.before, self.model.get_param()):
                    self._step.moved = True
                self._look(self._step, seen)
            elif self._loops:
                self._step = self._new_step()
                self._step.latest = seen
            else:
                self._settle()
                self.session.look_and_stop()
                several = self._step is not None
                self._step = self._new_step()
                self._step.several = several
                self._step.gradients = seen.gradients
                if self._step.wanted:
                    self._look(self._step, seen)

    def told_of_update(self) -> None:
        """Note that `set_param` was called."""
        if self._step is not None:
            self._step.told = self._sets = True

    def loop_begins(self, optimizer: dp.Optimizer) -> None:
        """Be called back in the library's loop, which tells its steps exactly."""
        if self.told:
            return
        if not self._loops:
            with self.session.timed, np.errstate(all="ignore"):
                self._settle()
            self._step = None
            self._callback.offset = self.session.done
            known = getattr(optimizer, "callbacks", None)
            self._replaced = None if isinstance(known, list) else (known,)
            if not isinstance(known, list):
                optimizer.callbacks = known = list(known or ())
            known.insert(0, self._callback)
            if self.session.live is not None:
                self._stopper = Stopper(self.session.live)
                self._stopper.place_in(known, bool(getattr(optimizer, "compile", False)))
        self._loops.append(optimizer)

    def loop_ends(self, optimizer: dp.Optimizer) -> None:
        """Forget a step that was not completed."""
        if not self._loops:
            return
        self._loops.pop()
        if not self._loops:
            self._watch.paused = False
            self._remove_callback(optimizer)
            self._step, self._updating = None, False

    def _remove_callback(self, optimizer: dp.Optimizer) -> None:
        if self._replaced is not None:
            (known,) = self._replaced
            if known is None:
                del optimizer.callbacks
            else:
                optimizer.callbacks = known
            return
        for mine in (self._callback, self._stopper):
            if mine in optimizer.callbacks:
                optimizer.callbacks.remove(mine)

    # --- the library's loop -----------------------------------------------------------------------

    def before_update(self, told: dp.Step) -> None:
        """Look at the step's pass; any other of its passes is no part of the training."""
        if self._updating or not self.session.wants(self.session.done + 1):
            return
        with self.session.timed, np.errstate(all="ignore"):
            step = self._step
            if step is None or step.latest is None or step.latest.loss is not told.loss:
                step = self._new_step()
                # a get_grad of the user's own, of which only the result is known
                gradients = {name: value.copy() for name, value in told.grad.items()}
                step.latest = Pass(told.loss, [told.loss], (told.x, told.y), gradients, [], [])
            self._step, self._updating = step, True
            self._look(step, step.latest)
            step.latest = None

    def after_update(self, told: dp.Step) -> None:
        """Complete the step with what the update did."""
        if not self._updating:
            self.session.done += 1
        else:
            self._updating = False
            step, self._step = self._step, None
            if step is not None:
                with self.session.timed, np.errstate(all="ignore"):
                    self._close(step, used=told.grad)
                    self.session.look()
        # steps that are not recorded cost next to nothing
        self._watch.paused = not self.session.wants(self.session.done + 1)

    # --- steps ------------------------------------------------------------------------------------

    def _new_step(self) -> Step:
        number = self.session.done + 1
        copies = {name: value.copy() for name, value in self.model.get_param().items()}
        return Step(number, self.session.wants(number), copies)

    def _look(self, step: Step, seen: Pass) -> None:
        """Take from a pass what is to be recorded, before its graph is forgotten."""
        paused, self._watch.paused = self._watch.paused, True  # it makes a forward pass
        try:
            found = self._reader.read(seen)
        finally:
            self._watch.paused = paused
        if not self.announcer.rows:
            layers = [*(call.layer for call in seen.calls), *seen.unused]
            functions = {weight: only(known) for weight, known in found.functions.items()}
            unused = {layer.weight.name or "" for layer in seen.unused}
            self.announcer.announce([Called.of(layer) for layer in layers], functions, unused)
            places = {row.parameter: i for i, row in enumerate(self.announcer.all)}
            reached = [call for call in seen.calls if call.delta is not None]
            marked = {
                call.pre_activation: [places[call.layer.weight.name or ""]] for call in reached
            }
            before = layers_before(marked, reversed(seen.order), lambda node: node.parents)
            self.session.leads(before, dict.fromkeys(before, 0), self.announcer.kept)
        step.passes.append(found)

    def _before_reading(self) -> None:
        self._callback.flush()
        if self.attached and not self._loops:
            with self.session.timed, np.errstate(all="ignore"):
                self._settle()

    def _settle(self) -> None:
        """Close the step that is open, if its update has been made."""
        step = self._step
        if step is None or self._loops:
            return
        now = self.model.get_param()
        seen = step.told or _changed(step.before, now)
        # a training that calls set_param would have told of an update that changes no bit
        lost = not seen and not self._sets and _shows_no_update(step.before, step.gradients)
        if not seen and not lost:
            return
        self._step = None
        if step.several:
            raise RecordingError(SEVERAL_PASSES)
        self._close(step)

    def _close(
        self,
        step: Step,
        used: Mapping[str, Array] | None = None,
        why_not: str = "",
        loss: float | None = None,
    ) -> None:
        self._callback.flush()  # compiled steps before it that wait
        if step.wanted and self.announcer.rows:
            self.tell_optimizer(step.number)
            update = Update(step.before, self.model.get_param(), used)
            assembly = Assembly(self.session, self.announcer.rows)
            assembly.add(step.number, step.passes, update, why_not, loss)
        self.session.done += 1

    def data(self) -> tuple[Any, Any] | None:
        """What the library's loop that is running trains on."""
        optimizer = self._loops[-1] if self._loops else self.optimizer
        x, y = (getattr(optimizer, name, None) for name in ("x_train", "y_train"))
        return None if x is None or y is None else (x, y)

    def tell_optimizer(self, number: int) -> None:
        """Say what makes the update of a step, if that is known."""
        optimizer = self._loops[-1] if self._loops else self.optimizer
        rate = getattr(optimizer, "alpha", None)
        # nearly always as it was; a compiled step of a small net takes only fifty microseconds
        known, known_rate = self._updates_by
        if optimizer is not None and (optimizer is not known or rate is not known_rate):
            self._updates_by = optimizer, rate
            self.session.tell_optimizer(number, type(optimizer).__name__, rate)


def _check(model: dp.Model, optimizer: Any) -> None:
    """Refuse what does not train the model."""
    if optimizer is None:
        return
    if not hasattr(optimizer, "model"):
        raise TypeError(
            f"a model of dp is trained by a dp.Optimizer, or by an object of your own whose "
            f"attribute `model` is that model, got {type(optimizer).__name__}; for a loop of your "
            "own leave it out: record(model)"
        )
    if not trains(optimizer, model):
        raise RecordingError(
            f"the {type(optimizer).__name__} given trains another model than this "
            f"{type(model).__name__}: its `model` has none of these parameters"
        )


def _changed(before: Mapping[str, Array], now: Mapping[str, Array]) -> bool:
    """Whether a parameter is another than it was."""
    return any(
        name in now and not np.array_equal(value, now[name], equal_nan=True)
        for name, value in before.items()
    )


def _shows_no_update(before: Mapping[str, Array], gradients: Mapping[str, Array]) -> bool:
    """Whether an update by these gradients would change no parameter, since each is NaN or tiny."""
    return all(
        np.array_equal(before[name] - SMALL_RATE * gradient, before[name], equal_nan=True)
        for name, gradient in gradients.items()
    )
