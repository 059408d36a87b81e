"""Recording the training of a PyTorch model, whatever its training loop looks like."""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import scipy.linalg.blas  # noqa: F401  (what sums are made by: loaded here, not in the first step)
import torch
from torch import nn

from gradiometer.recording import quantities as q
from gradiometer.recording.adapters.torch.arrays import as_array, copy_of, zero_units_among
from gradiometer.recording.adapters.torch.assembly import Assembly
from gradiometer.recording.adapters.torch.backward import BACKWARD, Pass
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.dispatch import Dispatches, costs
from gradiometer.recording.adapters.torch.functions import Function
from gradiometer.recording.adapters.torch.gradients import Gradients
from gradiometer.recording.adapters.torch.layers import Layer, find_layers, unwrapped
from gradiometer.recording.adapters.torch.reference import Last, Reference, accuracy, evaluating
from gradiometer.recording.adapters.torch.scaling import SCALING
from gradiometer.recording.adapters.torch.step import (
    FAR,
    Measured,
    Step,
    Version,
    join,
    parameters_of,
)
from gradiometer.recording.adapters.torch.unseen import unseen_layers
from gradiometer.recording.adapters.torch.updates import (
    OPTIMIZERS,
    Update,
    Updates,
    checked_optimizers,
    held_by,
    hook_wrapper,
    parts_of,
    was_skipped,
)
from gradiometer.recording.adapters.torch.watch import Watch
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.measure import (
    FROM_GRADIENT,
    OF_ACTIVATION,
    OF_WEIGHTS,
    of_activation,
    of_delta,
)
from gradiometer.recording.quantities import Array
from gradiometer.recording.recorder import Recorder
from gradiometer.states import MODEL

NO_STEP = (
    "there were backward passes, but no step of an optimizer that updates the model; for updates "
    "of your own call before_step() and after_step()"
)
SECOND = (
    "a second optimizer made a step after the same backward pass, which is not counted; name both: "
    "record(model, [first, second])"
)
ANOTHER = (
    "another optimizer ({}) made steps, which are not recorded, since it was not given to record; "
    "give all, record(model, [first, second]), or none"
)
NOT_LOOKED_AT = "it was not seen on the reference batch"
NO_PASS = "no backward pass by Tensor.backward reached the model in a step"


class TorchRecorder(Recorder):
    """Records the training steps of a PyTorch model.

    Made by `gradiometer.record`. Used as a context manager, or attached and detached, it records
    the steps of an optimizer by itself; or else `before_step` and `after_step` say where a step
    begins and ends.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer, or list of them, optional
        Each of its steps is a step; of several, one ends as soon as each of them has made one. By
        default those of any optimizer that updates the model. It may also be an object that holds
        one and has a method `step` (Accelerate, Lookahead).
    reference : (x, y), optional
        The batch on which dead units and accuracy are measured, the model being in evaluation mode.
        `y` holds class numbers, or 0 and 1, or one-hot rows; None if there is no accuracy.
    every, histograms, quantities, max_overhead
        See `gradiometer.record`.

    Raises
    ------
    RecordingError
        If the model owns no weights, or hides them.
    """

    _assembly: Assembly | None = None  # made when the layers' order is known
    _step: Step | None = None
    _done = 0  # steps so far, recorded or not
    _latest_optimizer: weakref.ref[Any] | None = None
    _passes = 0  # backward, of any model, since the latest step
    _within: Pass | None = None  # in which updates were made that end a step
    _last: Last | None = None  # while the model is run on the reference batch
    _attached: contextlib.ExitStack | None = None
    _arming: contextlib.ExitStack | None = None  # the same, for one step
    _manual = False  # between before_step and after_step

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any = None,
        *,
        reference: tuple[Any, Any] | None = None,
        every: int = 1,
        histograms: bool = False,
        quantities: Collection[str] | None = None,
        max_overhead: float | None = None,
    ) -> None:
        # the first step takes what only a first step does, which says little of later ones
        super().__init__(every, histograms, quantities, max_overhead, always=2)
        self.timed = self._dispatches = Dispatches()
        self._optimizers = checked_optimizers(optimizer)
        self._updates = Updates(self._optimizers, self._parameters)
        self._model = model
        self._reference = None if reference is None else Reference(reference)
        self._inner = unwrapped(model)
        self._found = find_layers(self._inner)
        self._tell_unseen()
        self._check_optimizers()
        needs = self.needs
        self._wanted = frozenset(self.quantities)
        if "clip_factor" in self._wanted:
            self._wanted |= {"grad_rms"}
        self._gradients = Gradients(
            self._found,
            self._wanted,
            needs(*FROM_GRADIENT, "nonfinite_count"),
            # data-parallel training averages the gradients over processes as a pass ends
            any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()),
            self.miss,
        )
        self._wants_deltas = needs("delta_rms", "nonfinite_count")
        self._wants_zero_units = needs("dead_fraction") and reference is None
        self._wants_weights = needs(*OF_WEIGHTS, "nonfinite_count")
        self._watch = Watch(
            model,
            self._found,
            self,
            self._dispatches,
            activations=needs(*OF_ACTIVATION, "nonfinite_count"),
            deltas=self._wants_deltas,
        )
        self._elsewhere = any(
            isinstance(as_array(parameter), torch.Tensor)
            for parameter in self._inner.parameters()
            if not parameter.is_complex()
        )
        self._stepped: list[Any] = []  # in this step, of the optimizers given
        self._places: dict[Layer, Array] = {}  # where the weights before an update are kept

    def _check_optimizers(self) -> None:
        for given in self._optimizers:
            if not self._updates.updates(given):
                raise RecordingError(
                    f"the {type(given).__name__} given updates none of the weights of this "
                    f"{type(self._inner).__name__}; expected an optimizer made from its "
                    "parameters()"
                )

    def _tell_unseen(self) -> None:
        """Tell of layers that PyTorch does not see."""
        for unseen in unseen_layers(self._inner):
            self.miss(unseen.name, self.of_layers, unseen.why)
            if unseen.trainable:
                warnings.warn(unseen.why, UserWarning, stacklevel=4)

    # --- beginning and end ------------------------------------------------------------------------

    def __enter__(self) -> TorchRecorder:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def attach(self) -> None:
        """Record the optimizer's steps from now on.

        Raises
        ------
        RuntimeError
            If it is attached already, or between `before_step` and `after_step`.
        """
        if self._attached is not None or self._manual:
            raise RuntimeError("this recorder is recording already; detach() it first")
        self._attached = self._listen_to_optimizers()
        ends = _Ends(self)
        BACKWARD.join(ends)
        self._attached.callback(BACKWARD.leave, ends)
        self._forgotten = weakref.finalize(self, self._attached.close)
        self._forgotten.atexit = False
        costs()  # measured now, so that it is no part of the training
        self.turn(on=True)
        self._prepare_step()

    def detach(self) -> None:
        """Stop recording; no hook stays behind. It may be attached again, and goes on counting."""
        self._disarm()
        self._places = {}
        self._manual = False
        self.turn(on=False)
        if self._attached is not None:
            self._forgotten.detach()
            self._attached.close()
            self._attached = None

    def before_step(self) -> None:
        """Say that a step begins: before its first forward pass.

        Raises
        ------
        RuntimeError
            If the recorder is attached, so that it sees the steps by itself.
        """
        if self._attached is not None:
            raise RuntimeError(
                "this recorder sees the optimizer's steps by itself; use before_step and "
                "after_step without a with block and without attach()"
            )
        if self._manual:  # the step before was not finished
            self._disarm()
        elif not self._done:
            costs()
            self.turn(on=True)
        self._manual = True
        self._prepare_step()
        if self._step is not None:
            self._take_before(self._step)

    def after_step(self, loss: torch.Tensor | float | None = None) -> None:
        """Say that it has ended: after the optimizer's step.

        Parameters
        ----------
        loss : number, optional
            The loss to record; by default what was passed to `backward`.

        Raises
        ------
        RuntimeError
            Without `before_step`.
        """
        if not self._manual:
            raise RuntimeError("after_step() without before_step()")
        try:
            self._finish(loss)
        finally:
            self._manual = False
            self._disarm()

    def _prepare_step(self) -> None:
        """Watch the step that comes, if it is to be recorded."""
        number = self._done + 1
        if self.wants(number):
            self._step = Step(number, self._gradients.now())
            self._arming = self._listen_to_optimizers() if self._attached is None else None
            self._watch.start()
        else:
            self._disarm()

    def _disarm(self) -> None:
        self._step = None
        self._watch.stop()
        if self._arming is not None:
            self._arming.close()
            self._arming = None

    # --- the optimizer ----------------------------------------------------------------------------

    def _listen_to_optimizers(self) -> contextlib.ExitStack:
        me = weakref.ref(self)

        def before(optimizer: Any, closure: bool, wrapper: bool = False) -> None:
            recorder = me()
            if recorder is not None:
                with recorder.timed:
                    update = recorder._updates.begin(optimizer, closure, wrapper)
                    if update is not None:
                        recorder._before_update(update)

        def after(optimizer: Any, failed: bool = False) -> None:
            recorder = me()
            if recorder is not None:
                with recorder.timed:
                    update = recorder._updates.end(optimizer)
                    if update is not None and not failed:
                        recorder._after_update(update)

        def scaled(losses: Any, scale: float) -> None:
            recorder = me()
            if recorder is not None and recorder._step is not None:
                with recorder.timed:
                    recorder._watch.scaled(losses, scale)

        undo = contextlib.ExitStack()
        OPTIMIZERS.join((before, after), undo)
        SCALING.join(scaled, undo)
        for given in self._optimizers:
            hook_wrapper(given, functools.partial(before, wrapper=True), after, undo)
        return undo

    def _parameters(self) -> set[int]:
        return {id(parameter) for parameter in self._inner.parameters()}

    def _before_update(self, update: Update) -> None:
        step = self._step
        if step is None:
            return
        update.passes = len(step.passes)
        if update.wrapper and any(held_by(update.optimizer)):
            return  # what it holds makes the update
        if update.recorded:
            step.optimizers.append(update.optimizer)
            if len(step.optimizers) == 1 and not self._manual:
                self._take_before(step)
        if not update.closure:
            self._gradients.use(step, update.optimizer, foreign=not update.recorded)

    def _after_update(self, update: Update) -> None:
        step, optimizer = self._step, update.optimizer
        if was_skipped(optimizer):  # by a GradScaler
            if step is not None and not self._manual:
                self._restart(step)
            return
        if not update.recorded:
            self._tell_of_another(optimizer)
            return
        holds = any(held_by(optimizer)) if update.wrapper else False
        if holds and not update.made:  # it only gathers gradients so far
            return
        if step is not None and update.closure and not step.sealed and not holds:
            self._gradients.use(step, optimizer, foreign=False)
        outer = self._updates.outer()
        if outer is not None:  # which ends the step, if this was all it does
            outer.made = True
        elif not self._manual and self._ends_the_step(optimizer):
            self._end_step()

    def _end_step(self) -> None:
        """Count a step, and put it together if it is recorded."""
        self._passes = 0
        if self._step is None:  # one that is not recorded costs next to nothing
            self._done += 1
            if self.wants(self._done + 1):
                self._prepare_step()
            return
        try:
            self._finish()
        except BaseException:
            self._disarm()
            raise
        self._watch.end_step()
        self._prepare_step()

    def _ends_the_step(self, optimizer: Any) -> bool:
        """Whether all that belongs to a step has been done, after this optimizer's update."""
        complete = True
        if self._optimizers:
            self._stepped.append(self._updates.which(optimizer))
            complete = all(any(done is o for done in self._stepped) for o in self._optimizers)
        within = BACKWARD.inside()
        if within is not None:  # a step for each parameter, as soon as it has its gradient
            self._within = within if complete else None
            return False
        if self._optimizers:
            if complete:
                self._stepped = []
            return complete
        step, latest = self._step, self._latest_optimizer
        self._latest_optimizer = weakref.ref(optimizer)
        passes = self._passes if step is None else len(step.passes)
        if passes or latest is None or latest() is optimizer:
            return True
        # another one, after the same backward pass
        self.miss(MODEL, ("update_ratio", "loss"), SECOND)
        if step is not None:
            step.optimizers, step.before, step.used = [], None, {}
        return False

    def backward_over(self) -> None:
        """A backward pass of any model has ended, in any thread."""
        self._passes += 1
        if self._step is None:
            self._end_within()

    def _end_within(self) -> None:
        """End a step whose updates were made in the middle of a pass that has ended."""
        if self._within is not None and not self._within.running:
            self._within = None
            self._stepped = []
            self._end_step()

    def _tell_of_another(self, optimizer: Any) -> None:
        """Tell that an optimizer that is not recorded has updated the model."""
        why = ANOTHER.format(type(optimizer).__name__)
        self.missing.setdefault(MODEL, {}).setdefault("step", why)
        self.why_nothing = why

    # --- what is taken before the update ----------------------------------------------------------

    def _take_before(self, step: Step) -> None:
        looks = self._reference is not None and self.needs("dead_fraction", "accuracy")
        if not looks and not self._wants_weights:
            return
        with self.timed, _quiet():
            if self._wants_weights:
                step.before = {}
                for layer in self._found:
                    weight = layer.weight
                    if weight is not None:
                        kept = copy_of(weight, self._places.get(layer))
                        self._places[layer] = kept
                        step.before[layer] = kept, q.rms(q.entries(kept, None))
            if looks:
                self._look_at_reference(step)

    def _look_at_reference(self, step: Step) -> None:
        assert self._reference is not None
        self._last = last = Last()
        try:
            with evaluating(self._model), self._watch.reference() as calls:
                output = self._reference.run(self._model)
        finally:
            self._last = None
        if self.needs("dead_fraction"):
            self._take_from_reference(step, calls)
        if self._reference.labels is not None and self.needs("accuracy"):

            def miss(why: str) -> None:
                self.miss(MODEL, ("accuracy",), why)

            step.accuracy = accuracy(output, self._reference, last, miss)

    def _take_from_reference(self, step: Step, calls: Sequence[Call]) -> None:
        """Join what was measured of each layer's calls: a unit is dead if it is so in all."""
        for layer in self._found:
            mine = [call for call in calls if call.layer is layer]
            parts = [call.activation for call in mine if call.activation is not None]
            if parts and len(parts) == len(mine):
                step.reference[layer] = join(parts)
            elif layer.unit is not None:
                why = next((call.why_not for call in mine if call.why_not), NOT_LOOKED_AT)
                self.miss(layer.name, ("dead_fraction",), why)

    # --- what the watch tells ---------------------------------------------------------------------

    def activation(
        self, call: Call, x: torch.Tensor, saturated: Array | None, function: Function
    ) -> None:
        """Measure φ(h) of a call."""
        if self._last is not None:
            self._look_at(self._last, call, x, function)
            return
        if self._step is None or not x.numel():
            return
        with torch._C.DisableTorchFunction():
            array = as_array(x)
            zero = zero_units = None
            if self._wants_zero_units or function.flat_where_zero:
                zero = array == 0
                if function.flat_where_zero:
                    saturated = zero
                if self._wants_zero_units:
                    zero_units = _zero_units(call, zero)
            counts: dict[str, Array] = {}
            numbers = of_activation(array, saturated, self._wanted, counts, None)
            call.activation = Measured(numbers, counts, zero_units, x.numel())
            call.function = function

    @staticmethod
    def _look_at(last: Last, call: Call, x: torch.Tensor, function: Function) -> None:
        """Measure φ(h) of a call on the reference batch."""
        last.note(x, function)
        with torch._C.DisableTorchFunction():
            array = as_array(x)
            call.activation = measured = Measured(zero_units=_zero_units(call, array == 0))
            measured.counts[FAR] = q.nonfinite_count(q.entries(array, None))
            measured.size = x.numel()

    def called(self, call: Call) -> None:
        """Note a call; one through which a delta can come counts when one has come."""
        if self._step is not None:
            self._step.called.add(call.layer)
            if not call.waits:
                self._step.calls.append(call)

    def delta(self, call: Call, delta: torch.Tensor, passing: Pass) -> None:
        """Measure dL/dh of a call."""
        step = self._step
        if step is None or not step.takes(call.layer):
            return
        self._reached(step, passing)
        call.deltas += 1
        if call.deltas == 1:
            step.calls.append(call)
        size = delta.numel()
        if self._wants_deltas and size:
            counts: dict[str, Array] = {}
            found = of_delta(as_array(delta), self._wanted, counts, None)
            scale = passing.take_scale()
            if scale != 1 and "delta_rms" in found:
                found["delta_rms"] /= scale
            call.delta = Measured(found, counts, size=size)

    def backward_begins(self) -> None:
        """Drop what belongs to gradients that were thrown away, or used for other updates."""
        step = self._step
        if step is None or any(passing.running for passing in step.passes):
            return
        if step.passes:
            self._drop_what_was_cleared(step)
        if step.gradients and all(
            layer in step.used and step.used[layer].foreign for layer in step.gradients
        ):
            self._restart(step)
        if not step.passes:
            step.stale = {layer for layer, old in step.old.items() if _is_still(old, layer.weight)}

    def _restart(self, step: Step) -> None:
        """Forget all that came, also gradients that are still there."""
        step.restart()
        step.old = self._gradients.now()

    def _drop_what_was_cleared(self, step: Step) -> None:
        """Drop earlier passes, or what they brought of layers whose gradients were cleared."""
        everything = len(step.passes) > step.counted and self._gradients.are_fresh(
            step, self._parameters_to_clear()
        )
        # one of several optimizers, say, has cleared its own
        layers = set() if everything else self._gradients.thrown_away(step)
        if not everything and not layers:
            return
        running = self._updates.outer()
        if running is not None and running.closure and len(step.passes) > running.passes:
            step.sealed = True  # the optimizer looks at other points
        elif everything:
            step.drop_unused()
        else:
            step.drop(layers)
            if len(step.passes) > step.counted and not step.unused():
                step.drop_unused()  # of the passes nothing is left

    def computed(self, layer: Layer, gradient: torch.Tensor) -> None:
        """Keep dL/dW of a weight with hooks that may change it."""
        if self._step is not None:
            self._gradients.computed(self._step, layer, gradient)

    def gradient(
        self, layers: Sequence[Layer], gradient: torch.Tensor, passing: Pass | None
    ) -> None:
        """Measure dL/dW, as it is before anyone clips it."""
        step = self._step
        if step is None:
            return
        if passing is not None and (not layers or any(step.takes(layer) for layer in layers)):
            self._reached(step, passing)
        for layer in layers:
            if passing is not None:
                self._watch.chains.weight_reached(layer, passing)
            self._gradients.accumulated(step, layer, gradient, passing)

    def averaged(self) -> None:
        """Measure gradients at the end of a backward pass from now on."""
        self._gradients.averaged = True

    def backward_ends(self) -> None:
        """Measure the gradients that have been averaged now."""
        step = self._step
        if step is None or any(passing.running for passing in step.passes):
            return
        if step.awaited:
            self._gradients.averaged_now(step)
        self._end_within()

    def unwatched(self) -> None:
        """Note that a pass is trained of which nothing was watched."""
        step = self._step
        if step is not None and not step.sealed:
            step.unwatched = True

    def scaled_by_hand(self) -> None:
        """Note that torch.autograd.grad was asked for gradients of a scaled loss."""
        if self._step is not None:
            self._step.scaled = True

    def unseen(self, layer: Layer, why: str) -> None:
        """Note why a call is not measured."""
        self.miss(layer.name, ("delta_rms", *OF_ACTIVATION), why)

    def _reached(self, step: Step, passing: Pass) -> None:
        """A backward pass goes through the model."""
        if passing not in step.passes:
            step.passes.append(passing)
            self.why_nothing = NO_STEP

    def _parameters_to_clear(self) -> list[nn.Parameter]:
        """Those whose gradients are cleared where a backward pass is thrown away."""
        parameters = list(self._inner.parameters())
        if self._optimizers:  # which do not clear the others
            parts = [part for given in self._optimizers for part in parts_of(given)]
            owned = set().union(*map(parameters_of, parts))
            parameters = [parameter for parameter in parameters if id(parameter) in owned]
        return parameters

    # --- the end of a step ------------------------------------------------------------------------

    def _finish(self, loss: torch.Tensor | float | None = None) -> None:
        """Put the step together and add it to the record; its loss is given, or is looked up."""
        self._done += 1
        step, self._step = self._step, None
        if step is None:
            return
        with self.timed, _quiet():
            if self._assembly is None:
                self._assembly = self._begin()
                self.chains = self._watch.chains.found(self._places_of_layers())
            if loss is None:
                step.loss = step.losses()
                if not step.loss.found:
                    why = "what was passed to backward is not one number"
                    self.miss(MODEL, ("loss",), why if step.passes else NO_PASS)
            else:
                step.loss = Measured({"0": as_array(torch.as_tensor(loss)).reshape(())})
            self._assembly.add(step, self._replaced())

    def _places_of_layers(self) -> dict[Layer, int]:
        """Each layer's position in the record."""
        known = {layer.name: layer for layer in self._found}
        return {known[info.name]: i for i, info in enumerate(self.layers)}

    def _begin(self) -> Assembly:
        """Fix the layers' order: that of the forward pass; those not called come last."""
        called = [layer for layer in self._watch.order if layer in self._found]
        others = [layer for layer in self._found if layer not in called]
        return Assembly(
            self, self._gradients, [*called, *others], self._wanted, self._elsewhere, set(called),
            self._watch.uses.found, self._reference is not None,
        )  # fmt: skip

    def _replaced(self) -> set[int]:
        """Modules that are no part of the model any more."""
        if self._watch.intact():
            return set()
        there = {id(module) for module in self._inner.modules()}
        return {id(layer.owner) for layer in self._found} - there


class _Ends:
    """Sees the ends of backward passes for a recorder, also in steps that are not recorded."""

    def __init__(self, recorder: TorchRecorder) -> None:
        self._recorder = weakref.ref(recorder)

    def backward_begins(self, began: float) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to do."""

    def backward_ends(self) -> None:
        """Tell the recorder."""
        recorder = self._recorder()
        if recorder is not None:
            recorder.backward_over()


def _quiet() -> np.errstate:
    """What overflows while it is measured is nothing to be warned of; see `quantities`."""
    return np.errstate(all="ignore")


def _is_still(old: Version, weight: torch.Tensor | None) -> bool:
    """Whether a weight holds an old gradient that nobody has cleared."""
    gradient = None if weight is None else weight.grad
    return gradient is not None and old.is_of(gradient) and bool(gradient.any())


def _zero_units(call: Call, zero: Array) -> Array:
    layer = call.layer
    assert layer.unit is not None
    if call.units is None:
        return q.zero_units(zero, 0, layer.unit(layer.output, zero))
    return zero_units_among(call.units(), zero)
