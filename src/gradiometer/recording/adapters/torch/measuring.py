"""What is measured, and when: each array of a step as soon as it is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from gradiometer.arrays import Numbers, entries
from gradiometer.quantities import QUANTITIES, zero_units
from gradiometer.recording.adapters.torch.arrays import Array, Version, as_array, zero_units_among
from gradiometer.recording.adapters.torch.backward import Pass
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.chains import Chains
from gradiometer.recording.adapters.torch.grad_norm import AVERAGED, IN_TURNS
from gradiometer.recording.adapters.torch.gradients import Gradients
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.optimizers import Updates
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.step import Step
from gradiometer.recording.assembly import REFERENCE, Measured
from gradiometer.recording.functions import Function
from gradiometer.recording.measure import (
    OF_DELTA,
    live_units,
    of_activation,
    of_backward,
    of_delta,
    of_entries,
)
from gradiometer.recording.nonfinite import ACTIVATION, DELTA
from gradiometer.recording.requires import needing
from gradiometer.reductions import nonfinite_count

NO_STEP = (
    "there were backward passes, but no step of an optimizer that updates the model; for updates "
    "of your own call before_step() and after_step()"
)
# what is measured of a layer's calls
OF_CALLS = (
    *needing("input", "pre_activation", "activation", "reference_activation"),
    *OF_DELTA,
)


class Measuring:
    """Measures what is seen of the step that is being recorded; tensors are not kept.

    Parameters
    ----------
    plan : Plan
    gradients : Gradients
    updates : Updates
    chains : Chains

    Attributes
    ----------
    step : Step, optional
        The one that is being recorded.
    """

    def __init__(self, plan: Plan, gradients: Gradients, updates: Updates, chains: Chains) -> None:
        self._session, self._wanted, self._arrays = plan.session, plan.wanted, plan.arrays
        self.gradients, self._updates, self._chains = gradients, updates, chains
        # on the training batch, unless there is another
        self._zero_units = plan.wants("dead_fraction") and not plan.has_reference
        self._deltas = plan.fetches("delta")
        self._backward = plan.wants("backward_rms", "backward_live_rms")
        self._norm = plan.wants("grad_norm")
        self.step: Step | None = None
        # told of φ(h) instead, while the model is run on the reference batch
        self.look: Callable[[Call, torch.Tensor, Function], None] | None = None

    # --- forward ----------------------------------------------------------------------------------

    def called(self, call: Call, given: Any, h: torch.Tensor) -> None:
        """A layer was given something, and gave h.

        A call through which a delta can come counts when one has come.
        """
        if self.step is None:
            return
        self.step.called.add(call.layer)
        if not call.waits:
            self.step.calls.append(call)
        if call.layer.unit is None:
            return
        if not self._session.nonfinite:
            call.h = Version.of(h)
            call.given = Version.of(given)
        if "pre_activation" in self._arrays:
            found = of_entries("pre_activation", as_array(h), self._wanted, None)
            call.pre_activation = Measured(found, size=h.numel())
        if "input" in self._arrays and isinstance(given, torch.Tensor) and given.numel():
            self._measure_input(call, given)

    def _measure_input(self, call: Call, given: torch.Tensor) -> None:
        if not given.is_floating_point():
            return
        array = as_array(given)
        found = of_entries("input", array, self._wanted, None)
        if call.layer.is_linear and "rows" in self._wanted:
            found["rows"] = given.numel() // given.shape[-1]
        call.input = Measured(found, size=given.numel())
        if call.layer.is_linear and "backward_live_rms" in self._wanted:
            call.live = live_units(array.reshape(-1, array.shape[-1]))

    def activation(
        self, call: Call, x: torch.Tensor, saturated: Array | None, function: Function
    ) -> None:
        """φ(h) of a call is known."""
        with torch._C.DisableTorchFunction():
            if self.look is not None:
                self.look(call, x, function)
                return
            if self.step is None or not x.numel():
                return
            array = as_array(x)
            zero = zero_units = None
            if self._zero_units or function.flat_where_zero:
                zero = array == 0
                if function.flat_where_zero:
                    saturated = zero
                if self._zero_units:
                    zero_units = zero_units_of(call, zero)
            counts: dict[str, Numbers] = {}
            numbers = of_activation(array, saturated, self._wanted, counts, None)
            call.activation = Measured(numbers, counts, zero_units, x.numel())
            call.function = function
            if not isinstance(array, torch.Tensor) and counts.get(ACTIVATION):
                self.step.look(call.layer, ACTIVATION, x, counts, **around(call))

    def miss(self, layers: Iterable[Layer], why: str) -> None:
        """Layers were called in a way that cannot be watched."""
        for layer in layers:
            self._session.miss(layer.name, OF_CALLS, why)

    # --- backward ---------------------------------------------------------------------------------

    def backward_begins(self) -> None:
        """Drop what belongs to gradients that were thrown away, or used for other updates."""
        step = self.step
        if step is None or step.is_running:
            return
        if step.passes:
            self._drop_what_was_cleared(step)
        if step.gradients and all(
            layer in step.used and step.used[layer].foreign for layer in step.gradients
        ):
            self.restart(step)
        if not step.passes:
            step.stale = {layer for layer, old in step.old.items() if _is_still(old, layer.weight)}

    def restart(self, step: Step) -> None:
        """Forget all that came, also gradients that are still there."""
        step.restart()
        step.old = self.gradients.now()

    def _drop_what_was_cleared(self, step: Step) -> None:
        """Drop earlier passes, or what they brought of layers whose gradients were cleared."""
        everything = len(step.passes) > step.counted and self.gradients.are_fresh(
            step, self._updates.parameters_to_clear()
        )
        # one of several optimizers, say, has cleared its own
        layers = set() if everything else self.gradients.thrown_away(step)
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

    def delta(self, call: Call, delta: torch.Tensor, passing: Pass) -> None:
        """dL/dh of a call has come."""
        step = self.step
        if step is None or not step.takes(call.layer):
            return
        self._reached(step, passing)
        call.deltas += 1
        if call.deltas == 1:
            step.calls.append(call)
        size = delta.numel()
        if self._deltas and size:
            array, counts = as_array(delta), dict[str, Numbers]()
            found = of_delta(array, self._wanted, counts, None)
            weight = call.layer.weight
            if self._backward and call.layer.is_linear and weight is not None:
                flat = array.reshape(-1, array.shape[-1])
                found |= of_backward(flat, as_array(weight).T, call.live, self._wanted)
            call.delta = Measured(self.scaled(found, passing), counts, size=size)
            if not isinstance(array, torch.Tensor) and counts.get(DELTA):
                step.look(call.layer, DELTA, delta, counts, scaled=passing.take_scale() != 1)

    def takes(self, call: Call) -> bool:
        """Whether what a backward pass brings of a call is part of the step."""
        return self.step is not None and self.step.takes(call.layer)

    @staticmethod
    def scaled(found: dict[str, Numbers], passing: Pass) -> dict[str, Numbers]:
        """Quantities of a delta, without the factor of a GradScaler."""
        scale = passing.take_scale()
        if scale == 1:
            return found
        return {
            name: value / scale if QUANTITIES[name].grows else value
            for name, value in found.items()
        }

    def computed(self, layer: Layer, gradient: torch.Tensor) -> None:
        """dL/dW is computed; hooks of the parameter may change it yet."""
        if self.step is not None:
            self.gradients.computed(self.step, layer, gradient)

    def gradient(
        self,
        layers: Sequence[Layer],
        parameter: torch.Tensor,
        gradient: torch.Tensor,
        passing: Pass | None,
        hooked: bool,
    ) -> None:
        """dL/dW of layers has been accumulated, and nobody has clipped it yet.

        Or the gradient of another parameter, then without layers; others may have `hooked` it.
        """
        step = self.step
        if step is None:
            return
        if self._norm and passing is not None and not step.sealed:
            if step.counted:
                step.norm.why_not = IN_TURNS
            elif self.gradients.averaged:
                step.norm.why_not = AVERAGED
            step.norm.accumulated(parameter, gradient, passing, hooked)
        if passing is not None and (not layers or any(step.takes(layer) for layer in layers)):
            self._reached(step, passing)
        for layer in layers:
            if passing is not None:
                self._chains.weight_reached(layer, passing)
            self.gradients.accumulated(step, layer, gradient, passing)

    def averaged(self) -> None:
        """Gradients are averaged over processes before a backward pass ends."""
        self.gradients.averaged = True

    def backward_ends(self) -> None:
        """Measure the gradients that have been averaged now."""
        step = self.step
        if step is not None and step.awaited and not step.is_running:
            self.gradients.averaged_now(step)

    def _reached(self, step: Step, passing: Pass) -> None:
        """A backward pass goes through the model."""
        if passing not in step.passes:
            step.passes.append(passing)
            self._session.why_nothing = NO_STEP

    # --- what is trained, and was not seen --------------------------------------------------------

    def unwatched(self) -> None:
        """A pass is trained of which nothing was watched."""
        step = self.step
        if step is not None and not step.sealed:
            step.unwatched = True

    def scaled_by_hand(self) -> None:
        """torch.autograd.grad was asked for gradients of a loss that a GradScaler has scaled."""
        if self.step is not None:
            self.step.scaled = True


def around(call: Call) -> dict[str, bool | None]:
    """Whether what a call was given, its layer's parameters and its output are finite."""
    layer = call.layer
    own = [*layer.owner.parameters(recurse=False), *layer.owner.buffers(recurse=False)]
    weights = [_finite(tensor) for tensor in own if tensor.is_floating_point()]
    return {
        "inputs": None if call.given is None else _finite(call.given.now()),
        "weights": all(weights) if layer.weight is not None else None,
        "pre_activation": None if call.h is None else _finite(call.h.now()),
    }


def _finite(tensor: torch.Tensor | None) -> bool | None:
    return None if tensor is None else bool(torch.isfinite(tensor).all())


def measured_on_reference(call: Call, x: torch.Tensor) -> Measured:
    """What is measured of φ(h) on the reference batch."""
    array = as_array(x)
    nonfinite = nonfinite_count(entries(array, None))
    return Measured({}, {REFERENCE: nonfinite}, zero_units_of(call, array == 0), x.numel())


def zero_units_of(call: Call, zero: Array) -> Array:
    """Which units are zero in all samples of a call; `zero` tells which entries are."""
    layer = call.layer
    assert layer.unit is not None
    if call.units is None:
        return zero_units(zero, 0, layer.unit(layer.output, zero))
    return zero_units_among(call.units(), zero)


def _is_still(old: Version, weight: torch.Tensor | None) -> bool:
    """Whether a weight holds an old gradient that nobody has cleared."""
    gradient = None if weight is None else weight.grad
    return gradient is not None and old.is_of(gradient) and bool(gradient.any())
