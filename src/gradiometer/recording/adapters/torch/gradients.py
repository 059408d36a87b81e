"""dL/dW of each layer in a step: as backward computed it, and as an optimizer was given it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from gradiometer.arrays import Numbers, entries
from gradiometer.quantities import HISTOGRAM, QUANTITIES, clip_factor
from gradiometer.reasons import CLEARED, NOT_CLEARED, NOT_UPDATED
from gradiometer.recording.adapters.torch.arrays import Version, as_array
from gradiometer.recording.adapters.torch.backward import Pass
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.step import Gradient, Step, Used, parameters_of
from gradiometer.recording.measure import FROM_GRADIENT
from gradiometer.recording.nonfinite import GRADIENT
from gradiometer.reductions import rms

FROZEN = "it is frozen"
UNREACHED = "no backward pass reached it in a step"
CLEARED_BY_HAND = (
    "its gradient was cleared before after_step() was called, and no torch.optim.Optimizer was "
    "seen to use it"
)
ZERO_BY_HAND = (
    "its gradient was zero when after_step() was called: cleared, perhaps; no "
    "torch.optim.Optimizer was seen to use it"
)
BY_HAND = (
    "its gradient was not computed by Tensor.backward, so only the one used in the step is known"
)
SEVERAL_TIMES = (
    "the optimizer evaluated its closure several times, and which gradient it used is not known"
)
SCALED_BY_SEVERAL = "parts of its gradient were scaled by different factors of a GradScaler"
SCALED_BY_HAND = "the loss was scaled, and whether its gradient was unscaled is not known"
NOT_GIVEN = "the loss was scaled, and no optimizer was given it"
HOOKED_AND_AVERAGED = (
    "its gradient is averaged over processes, and a hook of its own may have changed it before"
)


class Gradients:
    """Measures the gradients of a step as they come, and as they are used.

    Parameters
    ----------
    plan : Plan

    Attributes
    ----------
    averaged : bool
        Whether gradients are averaged over processes as a backward pass ends.
    """

    def __init__(self, plan: Plan) -> None:
        self._layers, self._wanted, self._session = plan.layers, plan.wanted, plan.session
        self._wants = plan.wants(*FROM_GRADIENT, "nonfinite_count")
        self._wants_factor = plan.wants("clip_factor")
        self._computed = [layer for layer in plan.layers if layer.weight is None]
        self.averaged = any(
            isinstance(module, DistributedDataParallel) for module in plan.model.modules()
        )

    def now(self) -> dict[Layer, Version]:
        """The gradients that are there."""
        there = ((layer, layer.weight) for layer in self._layers)
        return {
            layer: Version(weight.grad)
            for layer, weight in there
            if weight is not None and weight.grad is not None
        }

    # --- in a backward pass -----------------------------------------------------------------------

    def computed(self, step: Step, layer: Layer, gradient: torch.Tensor) -> None:
        """Keep what backward computed, before hooks of the parameter may change it."""
        if not self._wants or self.averaged or not step.takes(layer):
            return
        base = step.raw.get(layer)
        weight = layer.weight
        if base is None and weight is not None:
            base = weight.grad
        with torch.no_grad():
            given = gradient.detach()
            step.raw[layer] = given.clone() if base is None else base.detach() + given

    def accumulated(
        self, step: Step, layer: Layer, gradient: torch.Tensor, passing: Pass | None
    ) -> None:
        """Measure a gradient, as it is before anyone clips it."""
        if not step.takes(layer):
            return
        scale: float | None = 1.0 if passing is None else passing.take_scale()
        earlier = step.gradients.get(layer)
        if earlier is not None and earlier.scale != scale:
            scale = None
        if self.averaged:
            step.awaited.append(layer)
            step.gradients.setdefault(layer, Gradient(of=Version(gradient))).scale = scale
        else:
            self._measure(step, layer, step.raw.get(layer), gradient, scale)

    def averaged_now(self, step: Step) -> None:
        """Measure those that were averaged as the pass ended."""
        for layer in step.awaited:
            weight = layer.weight
            if weight is not None and weight.grad is not None:
                scale = step.gradients[layer].scale
                self._measure(step, layer, None, weight.grad, scale)
                if weight._backward_hooks:
                    step.gradients[layer].why_not = HOOKED_AND_AVERAGED
        step.awaited = []

    def _measure(
        self,
        step: Step,
        layer: Layer,
        raw: torch.Tensor | None,
        gradient: torch.Tensor,
        scale: float | None,
    ) -> None:
        if not self._wants:
            step.gradients[layer] = Gradient(of=Version(gradient), scale=scale)
            return
        seen = gradient if raw is None else raw
        step.gradients[layer] = measured = Gradient.measured(seen, self._wanted)
        measured.of, measured.scale = Version(gradient), scale
        if scale not in (1.0, None):
            _divide(measured, scale)
        if not isinstance(measured.counts.get(GRADIENT, 0), torch.Tensor):
            step.look(layer, GRADIENT, seen, measured.counts, scaled=scale != 1)

    def are_fresh(self, step: Step, parameters: Sequence[torch.Tensor]) -> bool:
        """Whether what earlier backward passes of this step gave has been thrown away."""
        left = {id(parameter) for parameter in parameters}
        for layer, measured in step.gradients.items():
            weight = layer.weight
            if layer in step.used or weight is None or id(weight) not in left:
                continue
            # perhaps zero, but nobody has set it to zero
            if measured.is_still(weight.grad):
                return False
        used = {id(parameter) for layer in step.used for parameter in layer.trained}
        gradients = [parameter.grad for parameter in parameters if id(parameter) not in used]
        return not any(gradient is not None and bool(gradient.any()) for gradient in gradients)

    def thrown_away(self, step: Step) -> set[Layer]:
        """Layers of which what earlier backward passes brought was cleared, and not used."""
        found = set()
        for layer in step.unused():
            measured, weight = step.gradients.get(layer), layer.weight
            if measured is not None and weight is not None and measured.is_still(weight.grad):
                continue  # perhaps zero, but nobody has set it to zero
            gradients = [p.grad for p in layer.trained if p.requires_grad]
            if gradients and not any(g is not None and bool(g.any()) for g in gradients):
                found.add(layer)
        return found

    # --- before and after an update ---------------------------------------------------------------

    def use(self, step: Step, optimizer: torch.optim.Optimizer, foreign: bool) -> None:
        """Note the gradients that an optimizer is given; what comes later is of another update."""
        mine = parameters_of(optimizer)
        # of an optimizer that unscales them itself
        scale = getattr(optimizer, "grad_scale", None)
        for layer in self._layers:
            weight = layer.weight
            if weight is None or id(weight) not in mine or layer in step.used:
                continue
            measured, now = step.gradients.get(layer), weight.grad
            if measured is None:
                if now is not None and not foreign and self._wants:
                    self._as_used(step, layer, now, scale)
                continue
            step.used[layer] = Used(self._size(now, scale), measured.is_still(now), foreign)
        if self._computed:
            came = {call.layer for call in step.calls if call.deltas}
            for layer in self._computed:
                if layer in came and not mine.isdisjoint(map(id, layer.trained)):
                    step.used.setdefault(layer, Used(None, same=False, foreign=foreign))
        step.counted = len(step.passes)

    def _size(self, gradient: torch.Tensor | None, scale: Any = None) -> Numbers | None:
        if gradient is None:
            return None
        if not self._wants_factor:
            return math.nan
        found = rms(entries(as_array(gradient), None))
        return found if scale is None else found / float(scale)

    def _as_used(self, step: Step, layer: Layer, now: torch.Tensor, scale: Any = None) -> str:
        """Measure a gradient that no backward pass told of; or say why it can't be."""
        old = step.old.get(layer)
        if (old is not None and old.is_of(now)) or (step.passes and not bool(now.any())):
            return UNREACHED
        if step.scaled and not step.optimizers:
            return SCALED_BY_HAND
        step.gradients[layer] = measured = Gradient.measured(now, self._wanted)
        step.used[layer] = Used(None, same=True, foreign=False)
        if scale is not None:
            _divide(measured, float(scale))
        measured.no_factor = BY_HAND
        return ""

    # --- the end of a step ------------------------------------------------------------------------

    def complete(self, step: Step, layer: Layer, weight: torch.Tensor) -> None:
        """See what became of a layer's gradient in a step that is over."""
        if not self._wants:
            return
        why = ""
        if layer not in step.gradients:
            if weight.grad is None:
                why = UNREACHED if weight.requires_grad else FROZEN
            else:
                why = self._as_used(step, layer, weight.grad)
        measured = step.gradients.get(layer)
        if measured is not None:
            why = self._why_not(step, layer, weight, measured)
            if not why and self._wants_factor:
                self._compare(step, layer, weight, measured)
        if why:
            step.gradients.pop(layer, None)
            self._session.miss(layer.name, FROM_GRADIENT, why)

    def _why_not(self, step: Step, layer: Layer, weight: torch.Tensor, measured: Gradient) -> str:
        if layer in step.stale and not step.owns(weight):
            return NOT_CLEARED
        if measured.scale is None or any(passing.unclear for passing in step.passes):
            return SCALED_BY_SEVERAL
        if measured.scale != 1 and HISTOGRAM in self._wanted:
            self._session.miss(layer.name, (HISTOGRAM,), "the loss was scaled by a GradScaler")
        return measured.why_not

    def _compare(self, step: Step, layer: Layer, weight: torch.Tensor, measured: Gradient) -> None:
        """Find by how much the gradient was clipped."""
        why, used = measured.no_factor, step.used.get(layer)
        if not why and used is None:
            why = self._why_unused(step, weight, measured)
            now = weight.grad
            used = Used(None if why else self._size(now), measured.is_still(now), foreign=False)
        if why or used is None or used.rms is None:
            self._session.miss(layer.name, ("clip_factor",), why or CLEARED)
            return
        factor = clip_factor(measured.found["grad_rms"], used.rms)
        if used.same and layer not in step.raw:  # also where both are not finite
            factor = _or_one(factor)
        measured.found["clip_factor"] = factor

    def _why_unused(self, step: Step, weight: torch.Tensor, measured: Gradient) -> str:
        """Why it is not known what a layer's gradient was as it was used, at the end of a step."""
        if step.sealed:
            return SEVERAL_TIMES
        if weight.grad is None:
            if not step.optimizers:
                return CLEARED_BY_HAND
            return CLEARED if step.owns(weight) else NOT_UPDATED
        if measured.scale != 1 and (not step.optimizers or not step.owns(weight)):
            return NOT_GIVEN
        if not step.optimizers and not bool(weight.grad.any()):
            return ZERO_BY_HAND if bool(measured.found["grad_rms"] != 0) else ""
        return ""


def _divide(measured: Gradient, scale: float | None) -> None:
    """Undo what a GradScaler did to the loss."""
    measured.found.pop(HISTOGRAM, None)
    for name in measured.found:
        if QUANTITIES[name].grows:
            measured.found[name] /= scale


def _or_one(factor: Numbers) -> Numbers:
    if isinstance(factor, torch.Tensor):
        return torch.where(torch.isfinite(factor), factor, torch.ones_like(factor))
    return factor if math.isfinite(factor) else 1.0
