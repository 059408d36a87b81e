"""The training of a model as it is recorded: when a step begins and ends, and what is done then."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gradiometer.arrays import entries
from gradiometer.recording import recorder
from gradiometer.recording.adapters.torch.arrays import Array, as_array, copy_of
from gradiometer.recording.adapters.torch.backward import BACKWARD, Observer, Pass
from gradiometer.recording.adapters.torch.chains import Chains
from gradiometer.recording.adapters.torch.gradients import Gradients
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.adapters.torch.optimizers import (
    OPTIMIZERS,
    Update,
    Updates,
    held_by,
    hook_wrapper,
    rates_of,
    was_skipped,
)
from gradiometer.recording.adapters.torch.overhead import costs
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.reference import Reference
from gradiometer.recording.adapters.torch.results import Results
from gradiometer.recording.adapters.torch.scaling import SCALING
from gradiometer.recording.adapters.torch.step import Step
from gradiometer.recording.adapters.torch.watch import Watch
from gradiometer.recording.assembly import Measured
from gradiometer.recording.measure import OF_UPDATE
from gradiometer.reductions import rms
from gradiometer.states import MODEL

SECOND = (
    "a second optimizer made a step after the same backward pass, which is not counted; name both: "
    "record(model, [first, second])"
)
ANOTHER = (
    "another optimizer ({}) made steps, which are not recorded, since it was not given to record; "
    "give all, record(model, [first, second]), or none"
)
NO_PASS = "no backward pass by Tensor.backward reached the model in a step"
NO_NUMBER = "what was passed to backward is not one number"


class Training(recorder.Training, Observer):
    """Sees the steps of a training, and has them measured and put together.

    Parameters
    ----------
    plan : Plan
    optimizers : sequence of Optimizer, or of what holds one
        Whose steps are recorded; any optimizer's that updates the model if there is none.
    reference : Reference, optional

    Attributes
    ----------
    updates : Updates
    """

    def __init__(self, plan: Plan, optimizers: Sequence[Any], reference: Reference | None) -> None:
        self._plan, self._session, self._clock = plan, plan.session, plan.clock
        self._optimizers, self._reference = optimizers, reference
        self.updates = Updates(optimizers, plan.inner)
        self._chains, self._gradients = Chains(), Gradients(plan)
        self._measuring = Measuring(plan, self._gradients, self.updates, self._chains)
        self._watch = Watch(plan, self._measuring, self._chains)
        self._wants_norm = plan.wants("grad_norm")
        self._wants_weights = plan.wants(*OF_UPDATE)
        self._places: dict[Layer, Array] = {}  # where the weights before an update are kept
        self._results: Results | None = None  # made when the layers' order is known
        self._passes = 0  # backward, of any model, since the latest step
        self._within: Pass | None = None  # in which updates were made that end a step
        self._stepped: list[Any] = []  # in this step, of the optimizers given
        self._latest_optimizer: weakref.ref[Any] | None = None
        self._listening = contextlib.ExitStack()  # to optimizers

    @property
    def step(self) -> Step | None:
        """The step that is being recorded."""
        return self._measuring.step

    def attach(self) -> None:
        """See the steps of optimizers from now on."""
        costs()  # measured now, so that it is no part of the training
        self._listen()
        BACKWARD.join(self, self._listening)
        self._prepare()

    def detach(self, complete: bool) -> None:  # noqa: ARG002  (what is incomplete is not added)
        """Undo everything; no hook stays behind."""
        self._stop_watching()
        self._places = {}
        self._listening.close()

    def begin_step(self) -> None:
        """A step begins that the user tells of."""
        if self.told:  # the step before was not finished
            self._stop_watching()
        elif not self._session.done:
            costs()
        self._prepare()
        if self.step is not None:
            self._listen()
            self._take_before(self.step)

    def end_step(self, loss: torch.Tensor | float | None) -> None:
        """It ends; by default its loss is what was passed to `backward`."""
        try:
            self._finish(loss)
        finally:
            self._stop_watching()
        self._session.look_and_stop()

    def _prepare(self) -> None:
        """Watch the step that comes, if it is to be recorded."""
        number = self._session.done + 1
        if self._session.wants(number):
            self._measuring.step = Step(number, self._gradients.now())
            self._watch.start()
        else:
            self._stop_watching()

    def _stop_watching(self) -> None:
        """Watch nothing until the next step is prepared."""
        self._measuring.step = None
        self._watch.stop()
        if not self.attached:
            self._listening.close()

    def _listen(self) -> None:
        OPTIMIZERS.join(self, self._listening)
        SCALING.join(self, self._listening)
        for given in self._optimizers:
            hook_wrapper(given, self, self._listening)

    def scaled(self, losses: Any, scale: float) -> None:
        """A GradScaler has scaled losses."""
        if self.step is not None:
            with self._clock:
                self._watch.scaled(losses, scale)

    # --- updates ----------------------------------------------------------------------------------

    def before_update(self, optimizer: Any, closure: bool, wrapper: bool = False) -> None:
        """An optimizer's step begins, of any model."""
        with self._clock:
            update = self.updates.begin(optimizer, closure, wrapper)
            if update is not None and self.step is not None:
                self._before(update, self.step)

    def _before(self, update: Update, step: Step) -> None:
        update.passes = len(step.passes)
        if update.wrapper and any(held_by(update.optimizer)):
            return  # what it holds makes the update
        if update.recorded:
            is_first = not step.optimizers
            step.optimizers[update.optimizer] = rates_of(update.optimizer)
            if is_first and self._wants_norm and not update.closure:
                step.norm.check(self._plan.inner.parameters())
            if is_first and self.attached:
                self._take_before(step)
        if not update.closure:
            self._gradients.use(step, update.optimizer, foreign=not update.recorded)

    def after_update(self, optimizer: Any, failed: bool = False) -> None:
        """It has ended."""
        with self._clock:
            update = self.updates.end(optimizer)
            if update is not None and not failed:
                self._after(update)

    def _after(self, update: Update) -> None:
        step, optimizer = self.step, update.optimizer
        if was_skipped(optimizer):  # by a GradScaler
            if step is not None and self.attached:
                self._measuring.restart(step)
            return
        if not update.recorded:
            self._tell_of_another(optimizer)
            return
        holds = any(held_by(optimizer)) if update.wrapper else False
        if holds and not update.made:  # it only gathers gradients so far
            return
        if step is not None and update.closure and not step.sealed and not holds:
            self._gradients.use(step, optimizer, foreign=False)
        outer = self.updates.outer()
        if outer is not None:  # which ends the step, if this was all it does
            outer.made = True
        elif self.attached and self._ends_the_step(optimizer):
            self._end_step()

    def _tell_of_another(self, optimizer: Any) -> None:
        """Tell that an optimizer that is not recorded has updated the model."""
        why = ANOTHER.format(type(optimizer).__name__)
        self._session.missing.setdefault(MODEL, {}).setdefault("step", why)
        self._session.why_nothing = why

    def _ends_the_step(self, optimizer: Any) -> bool:
        """Whether all that belongs to a step has been done, after this optimizer's update."""
        complete = True
        if self._optimizers:
            self._stepped.append(self.updates.which(optimizer))
            complete = all(any(done is o for done in self._stepped) for o in self._optimizers)
        within = BACKWARD.inside()
        if within is not None:  # a step for each parameter, as soon as it has its gradient
            self._within = within if complete else None
            return False
        if self._optimizers:
            if complete:
                self._stepped = []
            return complete
        step, latest = self.step, self._latest_optimizer
        self._latest_optimizer = weakref.ref(optimizer)
        passes = self._passes if step is None else len(step.passes)
        if passes or latest is None or latest() is optimizer:
            return True
        # another one, after the same backward pass
        self._session.miss(MODEL, ("update_ratio", "loss"), SECOND)
        if step is not None:
            step.optimizers, step.before, step.used = {}, None, {}
        return False

    def backward_ends(self) -> None:
        """A backward pass has ended; it may end a step whose updates were made inside of it."""
        self._passes += 1
        if self.step is not None and self.step.is_running:
            return
        if self._within is not None and not self._within.running:
            self._within = None
            self._stepped = []
            self._end_step()

    # --- what is taken before the update ----------------------------------------------------------

    def _take_before(self, step: Step) -> None:
        """Keep the weights, and run the model on the reference batch."""
        looks = self._reference is not None and self._plan.wants("dead_fraction", "accuracy")
        if not looks and not self._wants_weights:
            return
        with self._clock, _quiet():
            if self._wants_weights:
                step.before = {}
                for layer in self._plan.layers:
                    weight = layer.weight
                    if weight is not None:
                        kept = copy_of(weight, self._places.get(layer))
                        self._places[layer] = kept
                        step.before[layer] = kept, rms(entries(kept, None))
            if self._reference is not None and looks:
                self._reference.look(step, self._plan, self._watch.forward, self._measuring)

    # --- the end of a step ------------------------------------------------------------------------

    def _end_step(self) -> None:
        """Count a step, and put it together if it is recorded."""
        self._passes = 0
        if self.step is None:  # one that is not recorded costs next to nothing
            self._session.done += 1
            if self._session.wants(self._session.done + 1):
                self._prepare()
            return
        try:
            self._finish()
        except BaseException:
            self._stop_watching()
            raise
        self._watch.end_step()
        self._prepare()
        self._session.look_and_stop()

    def _finish(self, loss: torch.Tensor | float | None = None) -> None:
        """Put the step together and add it to the record; its loss is given, or is looked up."""
        self._session.done += 1
        step, self._measuring.step = self.step, None
        if step is None:
            return
        with self._clock, _quiet():
            if self._wants_norm and not step.optimizers:
                step.norm.check(self._plan.inner.parameters())
            if self._results is None:
                self._results = self._begin()
            if loss is None:
                step.loss = step.losses()
                if not step.loss.found:
                    self._session.miss(MODEL, ("loss",), NO_NUMBER if step.passes else NO_PASS)
            else:
                step.loss = Measured({"0": as_array(torch.as_tensor(loss)).reshape(())})
            if step.optimizers:
                names = dict.fromkeys(type(one).__name__ for one in step.optimizers)
                rates = frozenset[float]().union(*step.optimizers.values())
                rate = next(iter(rates)) if len(rates) == 1 else None
                self._session.tell_optimizer(step.number, ", ".join(names), rate)
            self._results.add(step, self._replaced())

    def _begin(self) -> Results:
        """Fix the layers' order: that of the forward pass; those not called come last."""
        forward, layers = self._watch.forward, self._plan.layers
        called = [layer for layer in forward.order if layer in layers]
        results = Results(self._plan, self._gradients, called, forward.uses.found)
        order = [*forward.order, *(one for one in results.layers if one not in forward.order)]
        places = {layer: i for i, layer in enumerate(order)}
        found = self._chains.found(places)
        kept = [places[layer] for layer in results.layers] if self._plan.left_out else None
        if found is not None:
            self._session.leads(*found, kept)
        return results

    def _replaced(self) -> set[int]:
        """Modules that are no part of the model any more."""
        if self._watch.modules.are_intact:
            return set()
        there = {id(module) for module in self._plan.inner.modules()}
        return {id(layer.owner) for layer in self._plan.layers} - there


def _quiet() -> np.errstate:
    """What overflows while it is measured is nothing to be warned of; see `quantities`."""
    return np.errstate(all="ignore")
