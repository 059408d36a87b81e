"""Putting a step together: every layer's quantities, from what was measured piece by piece."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gradiometer.quantities import HISTOGRAM, PER_STEP
from gradiometer.recording import quantities as q
from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.gradients import NOT_UPDATED, UNREACHED, Gradients
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.step import (
    REFERENCE,
    Measured,
    Step,
    bring_back,
    join,
)
from gradiometer.recording.functions import why_not_saturated
from gradiometer.recording.measure import FROM_GRADIENT, OF_ACTIVATION, OF_WEIGHTS, of_weights
from gradiometer.recording.nonfinite import KINDS
from gradiometer.recording.quantities import Array
from gradiometer.recording.recorder import Recorder

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


class Assembly:
    """Puts steps together, and adds them to a recorder.

    Parameters
    ----------
    recorder : Recorder
    gradients : Gradients
    layers : sequence of Layer
        In the order of the forward pass; those not called come last.
    wanted : set of str
        Which quantities are to be measured.
    elsewhere : bool
        Whether numbers may lie on a device.
    called : collection of Layer
        Those that were called in the first step, or whose weight was used in a product.
    fans : mapping of layer to (int, int)
        fan_in and fan_out of weights, by the products in which they were used.
    reference : bool
        Whether there is a reference batch.
    """

    def __init__(
        self,
        recorder: Recorder,
        gradients: Gradients,
        layers: Sequence[Layer],
        wanted: frozenset[str],
        elsewhere: bool,
        called: Collection[Layer],
        fans: Mapping[Layer, tuple[int, int]],
        reference: bool,
    ) -> None:
        self._called, self._first = called, True
        self._recorder, self._layers, self._wanted = recorder, layers, wanted
        self._gradients = gradients
        self._elsewhere = elsewhere
        self._names = [name for name in wanted if name not in (HISTOGRAM, *PER_STEP)]
        self._functions: dict[Layer, str] = {}
        recorder.begin([layer.info for layer in layers])
        self._used, self._reference = fans, reference
        for i, layer in enumerate(layers):
            if layer in fans and recorder.layers[i].fan_out == 0:
                recorder.describe(i, fan_in=fans[layer][0], fan_out=fans[layer][1])
        for layer in layers:
            if layer.unit is None:
                recorder.miss(layer.name, ("delta_rms", *OF_ACTIVATION), layer.why_not)
            if layer.weight_why_not:
                recorder.miss(layer.name, (*FROM_GRADIENT, *OF_WEIGHTS), layer.weight_why_not)

    def add(self, step: Step, replaced: set[int]) -> None:
        """Complete a step and add it; `replaced` modules are no part of the model any more."""
        self._measure_update(step, replaced)
        if self._elsewhere:
            self._bring_back(step)
        self._put_together(step)

    def _measure_update(self, step: Step, replaced: set[int]) -> None:
        """Measure what only the end of the step shows: the update, and what was clipped."""
        for layer in self._layers:
            weight = layer.weight
            why = ""
            if id(layer.owner) in replaced:
                why = "its module was replaced during the training; record the new model anew"
            elif weight is None and not layer.weight_why_not:
                why = f"its {layer.parameter!r} is not a parameter any more"
            if why:
                self._recorder.miss(layer.name, (*FROM_GRADIENT, *OF_WEIGHTS), why)
                step.gradients.pop(layer, None)
            if why or weight is None:
                continue
            self._gradients.complete(step, layer, weight)
            if step.before is not None and layer in step.before:
                after = as_array(weight)
                before, size = step.before[layer]
                measured = step.updates[layer] = Measured()
                measured.found = of_weights(
                    before, after, self._wanted, measured.counts, None,
                    before_rms=size, overwrite=True,
                )  # fmt: skip
                if weight.requires_grad and not step.owns(weight):
                    measured.found.pop("update_ratio", None)
                    self._recorder.miss(layer.name, ("update_ratio",), NOT_UPDATED)

    def _bring_back(self, step: Step) -> None:
        """Bring all numbers back from the device."""
        parts = [*step.gradients.values(), *step.updates.values(), *step.reference.values()]
        for call in step.calls:
            parts += [part for part in (call.delta, call.activation) if part is not None]
        right = Measured({"": step.accuracy})
        bring_back([*parts, step.loss, right])
        step.accuracy = right.found[""]

    def _put_together(self, step: Step) -> None:
        """Join several calls of a layer, and add the step to the record."""
        count = len(self._layers)
        # lists, for speed: a net's layers are few
        rows: dict[str, list[Array]] = {name: [math.nan] * count for name in self._names}
        if HISTOGRAM in self._wanted:
            rows[HISTOGRAM] = [np.zeros(len(q.HISTOGRAM_EDGES))] * count
        counts: dict[str, list[Array]] = {}  # of kinds in which there are any
        calls = step.trained_calls()
        # dead units are looked for on a reference batch, if there is one
        activations = [
            name for name in OF_ACTIVATION if name != "dead_fraction" or not self._reference
        ]
        for i, layer in enumerate(self._layers):
            mine = calls.get(layer, [])
            for part in (
                step.gradients.get(layer), step.updates.get(layer), step.reference.get(layer),
                self._delta_of(step, layer, mine),
                self._activation_of(step, layer, mine, activations),
            ):  # fmt: skip
                if part is None:
                    continue
                for name, value in part.found.items():
                    rows[name][i] = value
                for kind, value in part.counts.items():
                    if value:
                        counts.setdefault(kind, [0.0] * count)[i] += value
                zero = part.zero_units
                if zero is not None and "dead_fraction" in rows:
                    nonfinite = part.counts.get(REFERENCE, part.counts.get("activation"))
                    rows["dead_fraction"][i] = q.share(zero, nonfinite)
            if self._first:
                self._name_role(i, layer, mine, layer in step.gradients)
        self._first = False
        numbers = np.array([rows[name] for name in self._names], np.float64)
        found = dict(zip(self._names, numbers, strict=True))
        if HISTOGRAM in rows:
            found[HISTOGRAM] = np.array(rows[HISTOGRAM])
        loss = [float(part) for part in step.loss.found.values()]
        self._recorder.accuracy = float(step.accuracy)
        self._recorder.add_measured(
            [step.number],
            {name: values[None] for name, values in found.items()},
            {kind: np.array(counts[kind])[None] for kind in KINDS if kind in counts},
            np.array([sum(loss) if loss else np.nan]),
            np.array([self._recorder.accuracy]),
            loss_seen=bool(loss),
        )

    def _why_not_seen(self, step: Step, layer: Layer, calls: list[Call]) -> str:
        """Why nothing is known of a layer's calls in a step that are trained."""
        measured = step.gradients.get(layer)
        by_hand = measured is not None and bool(measured.no_factor)
        if step.unwatched or (not calls and measured is not None and not by_hand):
            return UNWATCHED
        if by_hand and not calls and layer in step.called:
            return BY_HAND
        if layer not in step.called:
            return NOT_CALLED
        return UNREACHED if any(call.waits for call in calls) or not calls else NOT_ASKED

    def _delta_of(self, step: Step, layer: Layer, calls: list[Call]) -> Measured | None:
        """Of the deltas of all calls in the step."""
        if step.unwatched:
            calls = []
        if len(calls) == 1 and calls[0].deltas == 1 and calls[0].delta is not None:
            return calls[0].delta  # the usual case, at once
        if any(call.deltas > 1 for call in calls):
            self._recorder.miss(
                layer.name, ("delta_rms",), "two backward passes went through one call of it"
            )
            return None
        parts = [call.delta for call in calls if call.delta is not None]
        if not parts and layer.unit is not None:
            why = self._why_not_seen(step, layer, calls)
            self._recorder.miss(layer.name, ("delta_rms",), why)
        return join(parts) if parts else None

    def _activation_of(
        self, step: Step, layer: Layer, calls: list[Call], names: Collection[str]
    ) -> Measured | None:
        """Of the activations of all calls in the step; they must be known of all.

        `names` are the quantities that are measured there.
        """
        if step.unwatched:
            calls = []
        for call in calls:
            if call.function is not None:
                name = call.function.name
                known = self._functions.get(layer)
                if known is None:
                    self._functions[layer] = name
                    self._recorder.describe(self._layers.index(layer), activation=name)
                elif known != name:
                    call.activation = None
                    call.why_not = f"{name} was applied to its output, where it had been {known}"
            if call.why_not:
                self._recorder.miss(layer.name, names, call.why_not)
        parts = [call.activation for call in calls if call.activation is not None]
        if not parts or len(parts) != len(calls):
            if not calls and layer.unit is not None:
                self._recorder.miss(layer.name, names, self._why_not_seen(step, layer, calls))
            return None
        joined = join(parts)
        if "saturated_fraction" in self._wanted and "saturated_fraction" not in joined.found:
            why = why_not_saturated(self._functions.get(layer, ""))
            self._recorder.miss(layer.name, ("saturated_fraction",), why)
        return joined

    def _name_role(self, i: int, layer: Layer, calls: list[Call], gradient: bool) -> None:
        """Tell the recorder what part a layer has in the training, by its first step."""
        weight = layer.weight
        unplaced = layer.holds_others and layer not in self._used
        if layer not in self._called or unplaced:
            role = "outside"
        elif gradient:
            return
        elif any(call.deltas for call in calls):
            if any(p.requires_grad for p in [*layer.trained, *layer.owner.parameters(False)]):
                return
            role = "frozen"  # deltas go through it, to layers before it
        elif weight is None:  # computed from the parameters behind it, or of complex numbers
            trained = any(parameter.requires_grad for parameter in layer.owner.parameters())
            if trained and layer.unit is None:
                return  # whether it was reached cannot be seen
            role = "unreached" if trained else "frozen"
        else:
            role = "unreached" if weight.requires_grad else "frozen"
        self._recorder.describe(i, role=role)
