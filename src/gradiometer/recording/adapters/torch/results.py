"""What a step that is over says of each layer, and why something of it cannot be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from gradiometer.reasons import NOT_UPDATED
from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.gradients import UNREACHED, Gradients
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.measuring import OF_CALLS
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.step import Step
from gradiometer.recording.assembly import Assembly, Measured, join
from gradiometer.recording.functions import why_not_saturated
from gradiometer.recording.measure import (
    FROM_GRADIENT,
    OF_ACTIVATION,
    OF_DELTA,
    OF_INPUT,
    OF_PREACTIVATION,
    OF_WEIGHTS,
    of_weights,
)
from gradiometer.recording.nonfinite import AFTER_UPDATE
from gradiometer.recording.origin import Spot
from gradiometer.recording.requires import needing
from gradiometer.states import MODEL

BY_HAND = (
    "its gradient did not come by Tensor.backward, so that it is not known through which calls it "
    "came"
)
NOT_ASKED = "neither it nor any layer before it is trained, so no gradient is computed there"
UNWATCHED = (
    "a gradient came, but through a call that was not watched: its forward pass was made before "
    "the step, or was taken for an evaluation, as earlier ones in evaluation mode were"
)
NOT_CALLED = (
    "it was not called in a step's training passes (the model under torch.no_grad() is taken for a "
    "look at validation data)"
)
NOT_LINEAR = "W^T delta at live units is measured of linear layers only"
NO_ROWS = "only the input of a linear layer has rows that are multiplied by a matrix"
NO_WAY_BACK = (
    "what comes to the input is measured of linear and convolutional layers and of normalisations, "
    "if a gradient goes on from there"
)
NO_FUNCTION = "no activation function of its output was seen"
MOVED = "its activation function was applied to its output in another shape"
NO_INPUT = "its first argument, which would be its input, is not one tensor of real numbers"
TWO_PASSES = "two backward passes went through one call of it"


class Results:
    """Completes steps, and adds them to a session.

    Parameters
    ----------
    plan : Plan
    gradients : Gradients
    called : sequence of Layer
        Those that were called in the first step, or whose weight was used in a product, in the
        order of the forward pass. In the record the others come after them.
    fans : mapping of layer to (int, int)
        fan_in and fan_out of weights, by the products in which they were used.

    Attributes
    ----------
    layers : list of Layer
        In the order of the record.
    """

    def __init__(
        self,
        plan: Plan,
        gradients: Gradients,
        called: Sequence[Layer],
        fans: Mapping[Layer, tuple[int, int]],
    ) -> None:
        self._plan, self._session, self._wanted = plan, plan.session, plan.wanted
        self._called, self._gradients, self._used = set(called), gradients, fans
        self.layers = [*called, *(layer for layer in plan.layers if layer not in self._called)]
        self._is_first = True
        self._elsewhere = any(
            isinstance(as_array(parameter), torch.Tensor)
            for parameter in plan.inner.parameters()
            if not parameter.is_complex()
        )
        # dead units are looked for on a reference batch, if there is one
        self._of_activation = [
            name for name in OF_ACTIVATION if name != "dead_fraction" or not plan.has_reference
        ]
        self._names = (*OF_DELTA, *OF_INPUT, *OF_PREACTIVATION, *self._of_activation)
        self._wants_inputs = plan.fetches("input", "pre_activation")
        self._begin()

    def _begin(self) -> None:
        """Tell the session which layers there are, and what can't be had of them in any step."""
        session = self._session
        session.begin([layer.info for layer in self.layers])
        for i, layer in enumerate(self.layers):
            if layer in self._used and session.layers[i].fan_out == 0:
                fan_in, fan_out = self._used[layer]
                session.describe(i, fan_in=fan_in, fan_out=fan_out)
            if layer.unit is None:
                session.miss(layer.name, OF_CALLS, layer.why_not)
            if layer.weight_why_not:
                session.miss(layer.name, (*FROM_GRADIENT, *OF_WEIGHTS), layer.weight_why_not)
            if not layer.is_linear:
                session.miss(layer.name, ("backward_live_rms",), NOT_LINEAR)
                session.miss(layer.name, ("rows",), NO_ROWS)

    def add(self, step: Step, replaced: set[int]) -> None:
        """Complete a step and add it; `replaced` modules are no part of the model any more."""
        for layer in self.layers:
            self._complete(step, layer, replaced)
        if self._elsewhere:
            step.bring_back()
        assembly = Assembly(self._session)
        calls = step.trained_calls()
        for i, layer in enumerate(self.layers):
            mine = calls.get(layer, [])
            parts = [step.gradients.get(layer), step.updates.get(layer), step.reference.get(layer)]
            for part in (*parts, *self._of_calls(step, i, layer, mine)):
                if part is not None:
                    assembly.put(i, part)
            if self._is_first:
                self._name_role(i, layer, mine, layer in step.gradients)
        self._is_first = False
        losses = [float(part) for part in step.loss.found.values()]
        norm = step.norm.value() if "grad_norm" in self._wanted else None
        if step.norm.why_not:
            self._session.miss(MODEL, ("grad_norm",), step.norm.why_not)
        loss = sum(losses) if losses else None
        assembly.add(step.number, loss, step.accuracy, norm, partial(self._look, step))

    def _look(self, step: Step, _: int, layer: int | None, kind: str, __: object) -> Spot:
        """What was seen where the first value came up that is not finite."""
        return Spot() if layer is None else step.spots.get((self.layers[layer], kind), Spot())

    def _complete(self, step: Step, layer: Layer, replaced: set[int]) -> None:
        """Measure what only the end of the step shows: the update, and what was clipped."""
        weight, why = layer.weight, ""
        if id(layer.owner) in replaced:
            why = "its module was replaced during the training; record the new model anew"
        elif weight is None and not layer.weight_why_not:
            why = f"its {layer.parameter!r} is not a parameter any more"
        if why:
            self._session.miss(layer.name, (*FROM_GRADIENT, *OF_WEIGHTS), why)
            step.gradients.pop(layer, None)
        if why or weight is None:
            return
        self._gradients.complete(step, layer, weight)
        if step.before is None or layer not in step.before:
            return
        before, size = step.before[layer]
        measured = step.updates[layer] = Measured()
        measured.found = of_weights(
            before, as_array(weight), self._wanted, measured.counts, None,
            before_rms=size, overwrite=True,
        )  # fmt: skip
        step.look(layer, AFTER_UPDATE, weight, measured.counts)
        if weight.requires_grad and not step.owns(weight):
            measured.found.pop("update_ratio", None)
            self._session.miss(layer.name, ("update_ratio",), NOT_UPDATED)

    # --- calls ------------------------------------------------------------------------------------

    def _why_not_seen(self, step: Step, layer: Layer, calls: list[Call]) -> str:
        """Why nothing is known of a layer's calls in a step that are trained."""
        gradient = step.gradients.get(layer)
        by_hand = gradient is not None and bool(gradient.no_factor)
        if step.unwatched or (not calls and gradient is not None and not by_hand):
            return UNWATCHED
        if by_hand and not calls and layer in step.called:
            return BY_HAND
        if layer not in step.called:
            return NOT_CALLED
        return UNREACHED if any(call.waits for call in calls) or not calls else NOT_ASKED

    def _of_calls(
        self, step: Step, i: int, layer: Layer, calls: list[Call]
    ) -> list[Measured | None]:
        """What was measured of all calls of a layer in the step, joined; each array by itself."""
        if not calls:
            if layer.unit is not None:
                self._session.miss(layer.name, self._names, self._why_not_seen(step, layer, calls))
            return []
        found = [self._delta_of(step, layer, calls), self._activation_of(i, layer, calls)]
        if self._wants_inputs:
            found += [_joined([call.input for call in calls])]
            found += [_joined([call.pre_activation for call in calls])]
            if found[2] is None:
                self._session.miss(layer.name, OF_INPUT, NO_INPUT)
        return [*found, *self._way_of(layer, calls)]

    def _way_of(self, layer: Layer, calls: list[Call]) -> list[Measured | None]:
        """Of other deltas of the calls; each must be known of all."""
        mine = [call for call in calls if call.deltas]
        if not mine or any(call.deltas > 1 for call in calls):
            return []
        found = {name: _joined([call.way.get(name) for call in mine]) for name in _ARRAYS}
        if not layer.is_linear and found["backward"] is None:
            self._session.miss(layer.name, ("backward_rms",), NO_WAY_BACK)
        why = next((call.why_no_way for call in mine if call.why_no_way), "")
        if why:
            found["phi_delta"] = found["arriving"] = None
        why = why or next((call.why_not for call in mine if call.why_not), NO_FUNCTION)
        for name in ("phi_delta", "arriving"):
            if found[name] is None:
                self._session.miss(layer.name, needing(name), why)
        arriving = found["arriving"]
        if arriving is not None and "arriving_live_rms" not in arriving.found:
            self._session.miss(layer.name, ("arriving_live_rms",), MOVED)
        return [*found.values()]

    def _delta_of(self, step: Step, layer: Layer, calls: list[Call]) -> Measured | None:
        if any(call.deltas > 1 for call in calls):
            self._session.miss(layer.name, OF_DELTA, TWO_PASSES)
            return None
        parts = [call.delta for call in calls if call.delta is not None]
        if not parts and layer.unit is not None:
            self._session.miss(layer.name, OF_DELTA, self._why_not_seen(step, layer, calls))
        return join(parts) if parts else None

    def _activation_of(self, i: int, layer: Layer, calls: list[Call]) -> Measured | None:
        """Of the activations of all calls in the step; they must be known of all."""
        for call in calls:
            if call.function is not None and (why := self._session.applies(i, call.function.name)):
                call.activation, call.why_not = None, why
            if call.why_not:
                self._session.miss(layer.name, self._of_activation, call.why_not)
        joined = _joined([call.activation for call in calls])
        if joined is None:
            return None
        if "saturated_fraction" in self._wanted and "saturated_fraction" not in joined.found:
            why = why_not_saturated(self._session.layers[i].activation)
            self._session.miss(layer.name, ("saturated_fraction",), why)
        return joined

    # --- roles ------------------------------------------------------------------------------------

    def _name_role(self, i: int, layer: Layer, calls: list[Call], gradient: bool) -> None:
        """Tell the session what part a layer has in the training, by its first step."""
        weight = layer.weight
        unplaced = layer.holds_others and layer not in self._used
        if layer not in self._called or unplaced:
            self._session.describe(i, role="outside")
            return
        if gradient:
            return
        if any(call.deltas for call in calls):
            if any(p.requires_grad for p in [*layer.trained, *layer.owner.parameters(False)]):
                return
            trained = False  # deltas go through it, to layers before it
        elif weight is None:  # computed from the parameters behind it, or of complex numbers
            trained = any(parameter.requires_grad for parameter in layer.owner.parameters())
            if trained and layer.unit is None:
                return  # whether it was reached cannot be seen
        else:
            trained = weight.requires_grad
        self._session.describe(i, role="unreached" if trained else "frozen")


_ARRAYS = ("affine_delta", "phi_delta", "arriving", "backward")


def _joined(parts: Sequence[Measured | None]) -> Measured | None:
    """Of all calls of a layer; None if it is not known of each."""
    known = [part for part in parts if part is not None]
    return join(known) if known and len(known) == len(parts) else None
