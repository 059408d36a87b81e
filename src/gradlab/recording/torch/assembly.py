"""Putting a step together: every layer's quantities, from what was measured piece by piece."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from gradlab.recording import quantities as q
from gradlab.recording.measure import (
    FROM_GRADIENT,
    HISTOGRAM,
    KINDS,
    OF_ACTIVATION,
    OF_WEIGHTS,
    PER_STEP,
    of_weights,
    why_not_saturated,
)
from gradlab.recording.quantities import Array
from gradlab.recording.recorder import Recorder
from gradlab.recording.torch.arrays import as_array
from gradlab.recording.torch.calls import Call
from gradlab.recording.torch.layers import Layer
from gradlab.recording.torch.step import (
    FAR,
    Measured,
    Step,
    bring_back,
    join,
    measure_gradient,
)

FROZEN = "it is frozen"
NOT_ASKED = "neither it nor what is before it is trained, so that no gradient is asked for there"
CLEARED = "its gradient was cleared before the optimizer's step, which had nothing to go by"
UNREACHED = "no backward pass reached it in a step"
NOT_CALLED = (
    "it was not called in a step's training passes (the model under torch.no_grad() is taken for a "
    "look at validation data)"
)


class Assembly:
    """Puts steps together, and adds them to a recorder.

    Parameters
    ----------
    recorder : Recorder
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
        layers: Sequence[Layer],
        wanted: frozenset[str],
        elsewhere: bool,
        called: Collection[Layer],
        fans: Mapping[Layer, tuple[int, int]],
        reference: bool,
    ) -> None:
        self._called, self._first = called, True
        self._recorder, self._layers, self._wanted = recorder, layers, wanted
        self._wants_gradients = recorder.needs(*FROM_GRADIENT, "nonfinite_count")
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
            if self._wants_gradients:
                self._complete_gradient(step, layer, weight)
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
                    why = "the optimizer that made the step does not update it"
                    self._recorder.miss(layer.name, ("update_ratio",), why)

    def _complete_gradient(self, step: Step, layer: Layer, weight: torch.Tensor) -> None:
        """See whether the gradient that was used is the one that was measured."""
        measured, now = step.gradients.get(layer), weight.grad
        if now is None and measured is None:
            frozen = not weight.requires_grad
            self._recorder.miss(layer.name, FROM_GRADIENT, FROZEN if frozen else UNREACHED)
        if now is None:
            if measured is not None:
                self._recorder.miss(layer.name, ("clip_factor",), CLEARED)
            return
        if measured is None:
            self._gradient_at_the_end(step, layer, now)
        elif layer in step.stale and not step.owns(weight):
            del step.gradients[layer]
            why = (
                "the optimizer does not update it, and gradients of earlier steps were not cleared"
            )
            self._recorder.miss(layer.name, FROM_GRADIENT, why)
        elif "clip_factor" not in self._wanted:
            return
        elif step.scale != 1 and (not step.optimizers or not step.owns(weight)):
            # whether a GradScaler has unscaled it is not known
            self._recorder.miss(
                layer.name, ("clip_factor",), "the loss was scaled, and no optimizer was given it"
            )
        # a GradScaler writes into gradients without a new version
        elif step.scale == 1 and measured.of is not None and measured.of.is_of(now):
            measured.found["clip_factor"] = 1.0
        else:
            array = as_array(now)
            used = q.rms(q.entries(array, None))
            unscaled = measured.found["grad_rms"] / step.scale
            measured.found["clip_factor"] = q.clip_factor(unscaled, used)

    def _gradient_at_the_end(self, step: Step, layer: Layer, now: torch.Tensor) -> None:
        """Measure a gradient that no backward pass told of, as the optimizer was given it."""
        old = step.old.get(layer)
        if (old is not None and old.is_of(now)) or (step.passes and not bool(now.any())):
            self._recorder.miss(layer.name, FROM_GRADIENT, UNREACHED)
            return
        step.gradients[layer] = measured = measure_gradient(now, self._wanted)
        for name in ("grad_mean_abs", "grad_rms"):  # unscaled already, which the others are not
            if name in measured.found:
                measured.found[name] *= step.scale
        why = "its gradient did not come by Tensor.backward: it is known only as it was used"
        self._recorder.miss(layer.name, ("clip_factor",), why)

    def _bring_back(self, step: Step) -> None:
        """Bring all numbers back from the device."""
        parts = [*step.gradients.values(), *step.updates.values(), *step.far.values()]
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
        calls, called = step.trained_calls(), {call.layer for call in step.calls}
        # dead units are looked for on a reference batch, if there is one
        activations = [
            name for name in OF_ACTIVATION if name != "dead_fraction" or not self._reference
        ]
        for i, layer in enumerate(self._layers):
            mine = calls.get(layer, [])
            for part in (
                step.gradients.get(layer), step.updates.get(layer), step.far.get(layer),
                self._delta_of(layer, mine, layer in called),
                self._activation_of(layer, mine, layer in called, activations),
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
                    nonfinite = part.counts.get(FAR, part.counts.get("activation"))
                    rows["dead_fraction"][i] = q.share(zero, nonfinite)
            if self._first:
                self._name_role(i, layer, mine, layer in step.gradients)
        self._first = False
        numbers = np.array([rows[name] for name in self._names], np.float64)
        found = dict(zip(self._names, numbers, strict=True))
        if HISTOGRAM in rows:
            found[HISTOGRAM] = np.array(rows[HISTOGRAM])
        if step.scale != 1:
            self._unscale(step, found)
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

    def _unscale(self, step: Step, found: dict[str, Array]) -> None:
        """Undo what a GradScaler did to the loss."""
        for name in ("grad_mean_abs", "grad_rms", "delta_rms"):
            if name in found:
                found[name] /= step.scale
        if HISTOGRAM in found:
            found[HISTOGRAM][:] = 0
            for layer in self._layers:
                self._recorder.miss(layer.name, (HISTOGRAM,), "the loss was scaled by a GradScaler")

    def _delta_of(self, layer: Layer, calls: list[Call], called: bool) -> Measured | None:
        """Of the deltas of all calls in the step; `called` if there were any, trained or not."""
        if len(calls) == 1 and calls[0].deltas == 1 and calls[0].delta is not None:
            return calls[0].delta  # the usual case, at once
        if any(call.deltas > 1 for call in calls):
            self._recorder.miss(
                layer.name, ("delta_rms",), "two backward passes went through one call of it"
            )
            return None
        parts = [call.delta for call in calls if call.delta is not None]
        if not parts and layer.unit is not None:
            if not called:
                why = NOT_CALLED
            else:
                asked = any(call.waits for call in calls) or not calls
                why = UNREACHED if asked else NOT_ASKED
            self._recorder.miss(layer.name, ("delta_rms",), why)
        return join(parts) if parts else None

    def _activation_of(
        self, layer: Layer, calls: list[Call], called: bool, names: Collection[str]
    ) -> Measured | None:
        """Of the activations of all calls in the step; they must be known of all.

        `names` are the quantities that are measured there.
        """
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
                self._recorder.miss(layer.name, names, UNREACHED if called else NOT_CALLED)
            return None
        joined = join(parts)
        if "saturated_fraction" in self._wanted and "saturated_fraction" not in joined.found:
            why = why_not_saturated(self._functions.get(layer, ""))
            self._recorder.miss(layer.name, ("saturated_fraction",), why)
        return joined

    def _name_role(self, i: int, layer: Layer, calls: list[Call], gradient: bool) -> None:
        """Tell the recorder what part a layer has in the training, by its first step."""
        weight = layer.weight
        beside = layer.beside and layer not in self._used
        if layer not in self._called or beside:
            role = "outside"
        elif gradient or any(call.deltas for call in calls):
            return
        else:
            role = "frozen" if weight is None or not weight.requires_grad else "unreached"
        self._recorder.describe(i, role=role)
