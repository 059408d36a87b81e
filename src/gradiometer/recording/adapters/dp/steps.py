"""Putting a step of dp together from its passes, as of one large batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
from dp.activations import SOFTMAX, Activation
from gradiometer.recording import quantities as q
from gradiometer.recording.adapters.dp import layers as of_layers
from gradiometer.recording.adapters.dp.forward import Forward, Passage, array_of
from gradiometer.recording.adapters.dp.layers import Row
from gradiometer.recording.adapters.dp.watch import Pass
from gradiometer.recording.assembly import add_arrays, one_step
from gradiometer.recording.measure import (
    FROM_GRADIENT,
    OF_ACTIVATION,
    LayerArrays,
)
from gradiometer.recording.recorder import UNKNOWN, Recorder
from gradiometer.states import MODEL

Array = NDArray[Any]
Functions = dict[str, list[Activation | None]]  # that follow a layer's calls, by its weight

BY_HAND = "give reference=(x, y): the gradient was not computed by get_grad, which is given a batch"
NOT_SEEN = "no call of it was seen in the computation of the gradient"
NO_LABELS = "the reference batch has no labels"


@dataclass(eq=False)
class Seen:
    """What is kept of a pass, after its graph may be forgotten.

    Deltas, activations (with where they are saturated) and those on the reference batch are by the
    weight's name, one for each call of the layer.
    """

    loss: Array | None
    gradients: dict[str, Array]
    deltas: dict[str, list[Array]] = field(default_factory=dict)
    activations: dict[str, list[tuple[Array, Array | None]]] = field(default_factory=dict)
    far: dict[str, list[Array]] = field(default_factory=dict)
    why_not_far: str = ""
    accuracy: Array | None = None
    functions: Functions = field(default_factory=dict)


class Eye:
    """Looks at passes: takes from their graphs what is to be recorded."""

    def __init__(
        self, model: dp.Model, recorder: Recorder, reference: tuple[Any, Any] | None
    ) -> None:
        self._recorder, self._reference = recorder, reference
        self._forward = Forward(model)

    def see(self, seen: Pass) -> Seen:
        """Take what is to be recorded of one pass; the weights must still be the same."""
        found = Seen(None if seen.loss is None else seen.loss.value[..., 0, 0], seen.gradients)
        x, y = self._batch(seen)
        passage = None if x is None else self._forward.run(x)
        if passage is not None and found.loss is not None:
            passage = self._forward.fitting(passage, found.loss.ndim)
        calls = [(call.layer.weight.name or "", call.pre_activation) for call in seen.calls]
        after = of_layers.after_each(calls, seen.order, seen.order[0]) if calls else []
        found.functions = of_layers.functions_by_weight(calls, after)
        if passage is not None:
            # a loss of logits does not show the last layer's function: the forward pass does
            found.functions |= of_layers.functions_by_weight(passage.calls, passage.after)
        for call, (weight, h), (function, applied) in zip(seen.calls, calls, after, strict=True):
            if call.delta is not None:
                found.deltas.setdefault(weight, []).append(call.delta)
            known = of_layers.only(found.functions[weight])
            if known is not None:
                value = applied.value if of_layers.same(function, known) else known(h.value)
                # the units of a softmax do not saturate one by one
                flat = None if known is SOFTMAX else known.saturated(h.value)
                found.activations.setdefault(weight, []).append((value, flat))
        self._look_at_reference(found, passage, y)
        return found

    def _batch(self, seen: Pass) -> tuple[Any, Any]:
        if self._reference is not None:
            return self._reference
        return seen.batch if seen.batch is not None else (None, None)

    def _look_at_reference(self, found: Seen, passage: Passage | None, y: Any) -> None:
        if passage is None:
            why = self._forward.why_not or BY_HAND
            self._recorder.miss(MODEL, ("accuracy",), why)
            found.why_not_far = why
            self._fall_back(found)
            return
        for (weight, h), (function, applied) in zip(passage.calls, passage.after, strict=True):
            if of_layers.only(found.functions[weight]) is not None and function is not None:
                value = h.value if applied is h else applied.value
                found.far.setdefault(weight, []).append(value)
        found.why_not_far = "the forward pass did not call it"
        self._fall_back(found)
        try:
            if y is None:
                self._recorder.miss(MODEL, ("accuracy",), NO_LABELS)
            else:
                found.accuracy = q.accuracy(passage.output.value, array_of(y))
        except (TypeError, ValueError, IndexError) as error:
            why = f"the labels do not fit the model's output: {error}"
            self._recorder.miss(MODEL, ("accuracy",), why)

    def _fall_back(self, found: Seen) -> None:
        """Without a reference batch, it is each step's own: what was seen in training will do."""
        if self._reference is None:
            for weight, parts in found.activations.items():
                found.far.setdefault(weight, [x for x, _ in parts])


class Assembly:
    """Adds steps to a recorder.

    Parameters
    ----------
    recorder : Recorder
    rows : sequence of Row
        Already announced to the recorder.
    """

    def __init__(self, recorder: Recorder, rows: Sequence[Row]) -> None:
        self._recorder, self._rows = recorder, rows

    def add(
        self,
        number: int,
        passes: Sequence[Seen],
        before: Mapping[str, Array],
        after: Mapping[str, Array],
        used: Mapping[str, Array] | None,
        why_not: str = "",
        loss: Any = None,
    ) -> None:
        """Add one step.

        Parameters
        ----------
        number : int
        passes : sequence of Seen
            Whose gradients are added up.
        before, after : mapping
            Parameters by name, before and after the update.
        used : mapping, optional
            The gradients that the update was given, if they are known.
        why_not : str
            Why the passes cannot be seen as one batch, if they cannot.
        loss : number, optional
            To be recorded instead of the passes' own.
        """
        arrays = self._arrays(passes, before, after, used, why_not)
        members = self._members(passes, after)
        known = [seen.loss for seen in passes]
        given = loss
        if given is None and known and all(part is not None for part in known) and not why_not:
            given = sum(part for part in known if part is not None)
        seen = np.full(members, np.nan) if given is None else given
        right = passes[-1].accuracy if passes else None
        accuracy = np.full(members, np.nan) if right is None else right
        self._recorder.accuracy = float(np.mean(accuracy))
        flat = [flattened(found, len(members)) for found in arrays]
        shaped = np.broadcast_to(np.asarray(seen, np.float64), members)
        step = one_step(number, flat, shaped, np.broadcast_to(accuracy, members))
        add_arrays(self._recorder, *step, loss_seen=given is not None)

    def _arrays(
        self,
        passes: Sequence[Seen],
        before: Mapping[str, Array],
        after: Mapping[str, Array],
        used: Mapping[str, Array] | None,
        why_not: str,
    ) -> list[LayerArrays]:
        """The arrays of each row."""
        arrays = []
        for i, row in enumerate(self._rows):
            found = LayerArrays(weight=before.get(row.parameter))
            found.weight_after = after.get(row.parameter)
            if why_not:
                self._recorder.miss(
                    row.name, (*FROM_GRADIENT, "delta_rms", *OF_ACTIVATION), why_not
                )
            else:
                self._fill(found, i, row, passes, used)
            arrays.append(found)
        return arrays

    def _members(self, passes: Sequence[Seen], param: Mapping[str, Array]) -> tuple[int, ...]:
        """The leading axes of the loss, or else of the layers' weights: () or (members,)."""
        for seen in passes:
            if seen.loss is not None:
                return seen.loss.shape
        layers = [param[row.parameter].shape[:-2] for row in self._rows if row.layer]
        return layers[0] if layers else ()

    def _fill(
        self,
        found: LayerArrays,
        i: int,
        row: Row,
        passes: Sequence[Seen],
        used: Mapping[str, Array] | None,
    ) -> None:
        """Fill in what the passes gave of a layer."""
        weight, miss = row.parameter, self._recorder.miss
        gradients = [s.gradients[weight] for s in passes if weight in s.gradients]
        if not gradients:
            quantities = (*FROM_GRADIENT, *(("delta_rms", *OF_ACTIVATION) if row.layer else ()))
            miss(row.name, quantities, of_layers.NOT_USED)
            return
        found.gradient = gradients[0] if len(gradients) == 1 else sum(gradients[1:], gradients[0])
        if used is None:
            found.used_known = False
            why = "it cannot be seen what your own loop does with the gradient"
            miss(row.name, ("clip_factor",), why)
        elif weight not in used:
            found.used_known = False
            miss(row.name, ("clip_factor",), "its gradient was deleted before the update")
        elif "clip_factor" in self._recorder.quantities and _differ(used[weight], found.gradient):
            found.used = used[weight]
        if not row.layer:
            return
        found.delta = joined([d for s in passes for d in s.deltas.get(weight, ())])
        if found.delta is None:
            miss(row.name, ("delta_rms",), of_layers.NO_DELTA)
        self._fill_activation(found, i, row, passes)

    def _fill_activation(
        self, found: LayerArrays, i: int, row: Row, passes: Sequence[Seen]
    ) -> None:
        weight, miss = row.parameter, self._recorder.miss
        functions = [f for s in passes for f in s.functions.get(weight, ())]
        known = of_layers.miss_activation(self._recorder, row, functions)
        if known is None:
            return
        earlier = self._recorder.layers[i].activation
        if earlier == UNKNOWN:
            self._recorder.describe(i, activation=known.name)
        elif earlier != known.name:
            why = f"{known.name} was applied to its output, where it had been {earlier}"
            miss(row.name, OF_ACTIVATION, why)
            return
        parts = [part for s in passes for part in s.activations.get(weight, ())]
        found.activation = joined([x for x, _ in parts])
        if found.activation is None:
            miss(row.name, OF_ACTIVATION[:-1], NOT_SEEN)
        flat = [flat for _, flat in parts if flat is not None]
        if known is not SOFTMAX:
            found.saturated = joined(flat)
        found.reference_activation = joined([x for s in passes for x in s.far.get(weight, ())])
        if found.reference_activation is None:
            miss(row.name, ("dead_fraction",), passes[-1].why_not_far)


def _differ(one: Array, other: Array) -> bool:
    if one.shape == other.shape and (one == other).all():  # the usual case, at once
        return False
    return not np.array_equal(one, other, equal_nan=True)


def joined(parts: Sequence[Array]) -> Array | None:
    """Several batches as one; None of none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return np.concatenate(parts, axis=-2)


def flattened(found: LayerArrays, leading: int) -> LayerArrays:
    """A parameter of more axes than a matrix as one, so that it is measured as a whole.

    `leading` is the number of axes before: members, and others that the arrays have.
    """
    for name in ("gradient", "weight", "weight_after", "used"):
        array = getattr(found, name)
        if array is not None and array.ndim > 2 + leading:
            shape = array.shape[:leading]
            setattr(found, name, array.reshape(*shape, -1, array.shape[-1]))
    return found
