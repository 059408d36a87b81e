"""Putting a step of dp together from its passes, as of one large batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dp
from dp.activations import Activation
from dp.typing import Array
from gradiometer.quantities import accuracy
from gradiometer.recording.adapters.dp import layers as of_layers
from gradiometer.recording.adapters.dp.forward import Forward, Passage, array_of
from gradiometer.recording.adapters.dp.layers import OF_CALLS, Row
from gradiometer.recording.adapters.dp.watch import Call, Pass
from gradiometer.recording.assembly import add_arrays, one_step
from gradiometer.recording.calls import call_arrays, joined, joined_calls
from gradiometer.recording.functions import Function
from gradiometer.recording.looking import Around
from gradiometer.recording.measure import (
    FROM_GRADIENT,
    OF_ACTIVATION,
    OF_DELTA,
    LayerArrays,
)
from gradiometer.recording.reference import NO_LABELS
from gradiometer.recording.requires import needing
from gradiometer.recording.session import Session
from gradiometer.reductions import norm
from gradiometer.states import MODEL

Functions = dict[str, list[Activation | None]]  # that follow a layer's calls, by its weight

BY_HAND = "give reference=(x, y): the gradient was not computed by get_grad, which is given a batch"
NOT_SEEN = "no call of it was seen in the computation of the gradient"


@dataclass(eq=False)
class Seen:
    """What is kept of a pass, after its graph may be forgotten.

    Arrays of calls, and activations on the reference batch, are by the weight's name, one for each
    call of the layer.
    """

    loss: Array | None
    gradients: dict[str, Array]
    calls: dict[str, list[LayerArrays]] = field(default_factory=dict)
    reference: dict[str, list[Array]] = field(default_factory=dict)
    why_no_reference: str = ""
    accuracy: Array | None = None
    functions: Functions = field(default_factory=dict)
    # what each call was given, and its pre-activation, as long as all values are finite; and what
    # the output is compared with
    given: dict[str, list[tuple[Array, Array]]] = field(default_factory=dict)
    targets: Any = None


class PassReader:
    """Takes from the graphs of passes what is to be recorded."""

    def __init__(
        self, model: dp.Model, session: Session, reference: tuple[Any, Any] | None
    ) -> None:
        self._session, self._reference = session, reference
        self._forward = Forward(model)

    def read(self, seen: Pass) -> Seen:
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
        for call, (weight, _), (function, applied) in zip(seen.calls, calls, after, strict=True):
            if not self._session.picks(call.layer.name):
                continue
            known = of_layers.only(found.functions[weight])
            same = known is not None and of_layers.same(function, known)
            arrays = self._arrays(call, known, applied if same else None)
            found.calls.setdefault(weight, []).append(arrays)
            if not self._session.nonfinite:
                h = call.pre_activation.value
                pair = of_members(call.input, h.shape[:-2]), h
                found.given.setdefault(weight, []).append(pair)
        found.targets = None if seen.batch is None else seen.batch[1]
        self._look_at_reference(found, passage, y)
        return found

    def _arrays(
        self, call: Call, function: Activation | None, applied: dp.Node | None
    ) -> LayerArrays:
        """The arrays of a call; `applied` is the Node that has the function's value, if any."""
        h, activation = call.pre_activation.value, None
        if function is not None:
            activation = function(h) if applied is None else applied.value
        return call_arrays(
            self._session.arrays,
            None if function is None else Function.of(function),
            pre_activation=h,
            activation=activation,
            input=of_members(call.input, h.shape[:-2]),
            delta=call.delta,
            affine_delta=call.affine_delta,
            arriving=None if applied is None else call.arriving,
        )

    def _batch(self, seen: Pass) -> tuple[Any, Any]:
        if self._reference is not None:
            return self._reference
        return seen.batch if seen.batch is not None else (None, None)

    def _look_at_reference(self, found: Seen, passage: Passage | None, y: Any) -> None:
        if passage is None:
            why = self._forward.why_not or BY_HAND
            self._session.miss(MODEL, ("accuracy",), why)
            found.why_no_reference = why
            self._fall_back(found)
            return
        for (weight, h), (function, applied) in zip(passage.calls, passage.after, strict=True):
            if of_layers.only(found.functions[weight]) is not None and function is not None:
                value = h.value if applied is h else applied.value
                found.reference.setdefault(weight, []).append(value)
        found.why_no_reference = "the forward pass did not call it"
        self._fall_back(found)
        try:
            if y is None:
                self._session.miss(MODEL, ("accuracy",), NO_LABELS)
            else:
                found.accuracy = accuracy(passage.output.value, array_of(y))
        except (TypeError, ValueError, IndexError) as error:
            why = f"the labels do not fit the model's output: {error}"
            self._session.miss(MODEL, ("accuracy",), why)

    def _fall_back(self, found: Seen) -> None:
        """Without a reference batch, it is each step's own: what was seen in training will do."""
        if self._reference is not None:
            return
        for weight, calls in found.calls.items():
            parts = [np.asarray(call.activation) for call in calls if call.activation is not None]
            if parts:
                found.reference.setdefault(weight, parts)


@dataclass(frozen=True)
class Update:
    """What an update did: parameters by name before and after it.

    `used` are the gradients that it was given, if they are known.
    """

    before: Mapping[str, Array]
    after: Mapping[str, Array]
    used: Mapping[str, Array] | None = None


class Assembly:
    """Adds steps to a session.

    Parameters
    ----------
    session : Session
    rows : sequence of Row
        Already announced to the session.
    """

    def __init__(self, session: Session, rows: Sequence[Row]) -> None:
        self._session, self._rows = session, rows

    def add(
        self,
        number: int,
        passes: Sequence[Seen],
        update: Update,
        why_not: str = "",
        loss: Any = None,
    ) -> None:
        """Add one step.

        Parameters
        ----------
        number : int
        passes : sequence of Seen
            Whose gradients are added up.
        update : Update
        why_not : str
            Why the passes cannot be seen as one batch, if they cannot.
        loss : number, optional
            To be recorded instead of the passes' own.
        """
        members = self._members(passes, update.after)
        known = [seen.loss for seen in passes]
        if loss is None and known and all(part is not None for part in known) and not why_not:
            loss = sum(part for part in known if part is not None)
        gradients = {} if why_not else summed(passes)
        arrays = [
            self._arrays(i, row, passes, update, gradients, why_not)
            for i, row in enumerate(self._rows)
        ]
        right = passes[-1].accuracy if passes else None
        accuracy = np.full(members, np.nan) if right is None else right
        seen = np.full(members, np.nan) if loss is None else loss
        shaped = np.broadcast_to(np.asarray(seen, np.float64), members)
        add_arrays(
            self._session,
            *one_step(number, arrays, shaped, np.broadcast_to(accuracy, members)),
            loss_seen=loss is not None,
            grad_norm=self._norm(gradients, members, why_not),
            beside=lambda _, layer: self._around(layer, passes, update),
        )

    def _around(self, layer: int | None, passes: Sequence[Seen], update: Update) -> Around:
        """What was there beside a layer's arrays; or beside the loss."""
        targets = _finite_targets(passes)
        if layer is None:
            return Around(targets=targets)
        row = self._rows[layer]
        pairs = [pair for seen in passes for pair in seen.given.get(row.parameter, ())]
        parameters = [value for name, value in update.before.items() if name in row.parameters]
        h = None if f"{row.name}_gain" in update.before else joined([h for _, h in pairs])
        return Around(joined([x for x, _ in pairs]), h, parameters, targets)

    def _norm(
        self, gradients: Mapping[str, Array], members: tuple[int, ...], why_not: str
    ) -> Array | None:
        """The norm of all gradients together, with the step's axis."""
        if not self._session.needs("grad_norm"):
            return None
        if not gradients:
            self._session.miss(MODEL, ("grad_norm",), why_not or of_layers.NOT_USED)
            return None
        found = norm(x.reshape(*members, -1) for x in gradients.values())
        return np.broadcast_to(np.asarray(found), members)[None]

    def _members(self, passes: Sequence[Seen], param: Mapping[str, Array]) -> tuple[int, ...]:
        """The leading axes of the loss, or else of the layers' weights: () or (members,)."""
        for seen in passes:
            if seen.loss is not None:
                return seen.loss.shape
        layers = [param[row.parameter].shape[:-2] for row in self._rows if row.layer]
        return layers[0] if layers else ()

    def _arrays(
        self,
        i: int,
        row: Row,
        passes: Sequence[Seen],
        update: Update,
        gradients: Mapping[str, Array],
        why_not: str,
    ) -> LayerArrays:
        """What the passes and the update gave of a row."""
        weight, miss = row.parameter, self._session.miss
        calls = [] if why_not else [call for s in passes for call in s.calls.get(weight, ())]
        found = joined_calls(calls)
        found.weight, found.weight_after = update.before.get(weight), update.after.get(weight)
        if weight not in gradients:
            names = (*FROM_GRADIENT, *(OF_CALLS if row.layer else ()))
            miss(row.name, names, why_not or of_layers.NOT_USED)
            return LayerArrays(weight=found.weight, weight_after=found.weight_after)
        found.gradient = gradients[weight]
        self._fill_used(found, row, update.used)
        if not row.layer:
            return found
        if found.delta is None:
            miss(row.name, OF_DELTA, of_layers.NO_DELTA)
        if not calls:
            miss(row.name, needing("input", "pre_activation"), NOT_SEEN)
        if not all(call.arriving is not None for call in calls if call.delta is not None):
            found.arriving = found.arriving_live = None
            miss(row.name, needing("arriving"), of_layers.NO_ARRIVING)
        if not self._knows_function(i, row, passes):
            found.activation = found.saturated = None
            return found
        if found.activation is None:
            miss(row.name, OF_ACTIVATION[:-1], NOT_SEEN)
        found.reference_activation = joined(
            [x for s in passes for x in s.reference.get(weight, ())]
        )
        if found.reference_activation is None:
            miss(row.name, ("dead_fraction",), passes[-1].why_no_reference)
        return found

    def _fill_used(self, found: LayerArrays, row: Row, used: Mapping[str, Array] | None) -> None:
        """Fill in the gradient that the update was given, if it was another one."""
        assert found.gradient is not None
        if used is None:
            found.used_known = False
            why = "it cannot be seen what your own loop does with the gradient"
            self._session.miss(row.name, ("clip_factor",), why)
        elif row.parameter not in used:
            found.used_known = False
            why = "its gradient was deleted before the update"
            self._session.miss(row.name, ("clip_factor",), why)
        elif "used" in self._session.arrays and _differ(
            used[row.parameter], np.asarray(found.gradient)
        ):
            found.used = used[row.parameter]

    def _knows_function(self, i: int, row: Row, passes: Sequence[Seen]) -> bool:
        """Whether one function follows the layer, the same as before; notes why not."""
        functions = [f for s in passes for f in s.functions.get(row.parameter, ())]
        known = of_layers.miss_activation(self._session, row, functions)
        if known is None:
            return False
        why = self._session.applies(i, known.name)
        if why:
            self._session.miss(row.name, OF_ACTIVATION, why)
        return not why


def _finite_targets(passes: Sequence[Seen]) -> bool | None:
    """Whether what the outputs are compared with is finite; None if that is not known."""
    given = [seen.targets for seen in passes]
    try:
        known = [bool(np.isfinite(array_of(y)).all()) for y in given if y is not None]
    except (TypeError, ValueError):  # whatever a loss of the user's own takes
        return None
    return all(known) if len(known) == len(given) else None


def summed(passes: Sequence[Seen]) -> dict[str, Array]:
    """The gradients of several passes, added up by the parameters' names."""
    found: dict[str, Array] = {}
    for seen in passes:
        for name, gradient in seen.gradients.items():
            found[name] = found[name] + gradient if name in found else gradient
    return found


def _differ(one: Array, other: Array) -> bool:
    if one.shape == other.shape and (one == other).all():  # the usual case, at once
        return False
    return not np.array_equal(one, other, equal_nan=True)


def of_members(x: Array, members: tuple[int, ...]) -> Array:
    """Samples (…, batch, features) that may be the same for all members, for each of them."""
    lead = x.shape[: x.ndim - 2]
    if not members or lead[len(lead) - len(members) :] == members:
        return x
    return np.broadcast_to(
        x[(..., *[None] * len(members), slice(None), slice(None))], (*lead, *members, *x.shape[-2:])
    )
