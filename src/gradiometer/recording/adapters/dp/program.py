"""Reading compiled steps of dp: several steps and layers at a time, from the step's own buffers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dp
from dp.activations import SOFTMAX, Activation
from dp.errors import CaptureError
from dp.program.arrays import StepArrays
from dp.program.calls import quietly
from dp.program.capture import Captured, CapturedLayer, captured
from dp.program.graph import Value, in_order
from dp.program.models import pure
from dp.program.pipeline import Compiled
from dp.typing import Array
from gradiometer.quantities import accuracy
from gradiometer.recording.adapters.dp import layers as of_layers
from gradiometer.recording.adapters.dp.forward import NO_FORWARD, Passage, array_of, has_forward
from gradiometer.recording.adapters.dp.layers import Announcer, Called, Row
from gradiometer.recording.adapters.dp.steps import of_members
from gradiometer.recording.assembly import add_arrays
from gradiometer.recording.calls import joined
from gradiometer.recording.chains import layers_before
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.live import Live
from gradiometer.recording.looking import Around
from gradiometer.recording.measure import (
    FROM_GRADIENT,
    OF_WEIGHTS,
    LayerArrays,
    live_outputs,
    live_units,
)
from gradiometer.recording.reference import NO_LABELS
from gradiometer.recording.requires import needing
from gradiometer.recording.session import Session
from gradiometer.reductions import norm
from gradiometer.states import MODEL

AT_MOST = 1 << 21  # bytes of steps that wait to be measured together
NOT_HELD = "the loss does not depend on it, so a compiled step leaves it out"
USED_UP = "a callback took the gradient, so the gradient that the update used is not known"


@dataclass
class _Layer:
    """One row of the record, in the training step and in the forward pass on the reference batch.

    A layer has as many calls in both as it is used; a parameter that is no layer's has none.
    """

    row: Row
    calls: list[CapturedLayer]
    function: Activation | None
    reference: list[Value]
    weight: Array  # its view in the flat vector of parameters


class _Kept:
    """A few steps of some arrays of one shape: [step, which], each matrix column by column."""

    def __init__(self, arrays: Sequence[Array], steps: int) -> None:
        self.sources = [array.swapaxes(-1, -2) for array in arrays]
        shape = self.sources[0].shape
        self.memory = np.empty((steps, len(arrays), *shape), arrays[0].dtype)

    def take(self, at: int) -> None:
        """Copy the arrays as they are now."""
        for place, source in zip(self.memory[at], self.sources, strict=True):
            np.copyto(place, source)

    def of(self, steps: int) -> Array:
        """The first steps, (steps, which, …, rows, columns)."""
        return self.memory[:steps].swapaxes(-1, -2)


@dataclass
class _Group:
    """Layers that are alike, by their positions, and what waits of them.

    `gradient`, `before`, `after` and `used` (the gradient after callbacks) are views of the weights
    in the memory of several steps: (steps, layers, …, fan_in, fan_out).
    """

    positions: list[int]
    layers: list[_Layer]
    gradient: Array | None = None
    before: Array | None = None
    after: Array | None = None
    used: Array | None = None
    kept: dict[str, list[_Kept]] = field(default_factory=dict)  # one for each call

    @property
    def place(self) -> list[int] | slice:
        """Their positions, as a slice if they are neighbours."""
        begin, end = self.positions[0], self.positions[-1] + 1
        return slice(begin, end) if end - begin == len(self.positions) else self.positions


class ProgramReader:
    """Copies what is to be recorded from a compiled step, and measures several steps at once."""

    def __init__(
        self,
        session: Session,
        model: dp.Model,
        announcer: Announcer,
        reference: tuple[Any, Any] | None,
        data: Callable[[], tuple[Any, Any] | None],
    ) -> None:
        self.session, self.model, self.reference = session, model, reference
        self._data, self._pure = data, pure(model)
        self._announcer = announcer
        self._step: StepArrays | None = None
        self._numbers: list[int] = []
        self._open = False  # whether a step is between its two halves
        arrays, needs = self.session.arrays, self.session.needs
        self._activations = "activation" in arrays
        self._deltas = not arrays.isdisjoint({"delta", "affine_delta", "phi_delta", "arriving"})
        self._inputs, self._pre_activations = "input" in arrays, "pre_activation" in arrays
        self._affine, self._phi_deltas = "affine_delta" in arrays, "phi_delta" in arrays
        self._arriving, self._of_live = "arriving" in arrays, needs("arriving_live_rms")
        self._dead = "reference_activation" in arrays
        # without a forward pass, dead units can only be seen in training
        no_reference = self.reference is None and not has_forward(self.model)
        self._dead_in_training = self._dead and no_reference
        self._activations |= self._dead_in_training
        self._accuracy, self._norm = needs("accuracy"), needs("grad_norm")
        self._gradients = "gradient" in arrays or self._norm
        self._weights_before = "weight" in arrays
        self._weights_after = "weight_after" in arrays
        self._loss_too = needs("loss")
        self._clipping = "used" in arrays

    def keep(self, captured: Captured) -> list[Value]:
        """Which of a training step's values are read."""
        wanted: list[Value] = []
        for layer in captured.layers:
            if not self.session.picks(layer.name):
                continue
            if self._deltas and layer.delta is not None:
                wanted.append(layer.delta)
            if self._affine and layer.affine_delta is not None:
                wanted.append(layer.affine_delta)
            if self._arriving and layer.arriving is not None:
                wanted.append(layer.arriving)
            if self._activations or self._pre_activations:
                wanted += [layer.pre_activation, layer.activation]
            if self._inputs:
                wanted.append(layer.input)
        return wanted

    def before_update(self, step: StepArrays) -> None:
        """Copy what belongs to the weights before the update."""
        if step is not self._step:
            self.flush()
            self._prepare(step)
        self._open = True
        at = len(self._numbers)
        for memory, source in self._whole:
            memory[at] = source
        if self._forward is not None:
            self._run_forward(step)
            output, labels = self._forward.arrays[self._captured_forward.output], self._labels(step)
            if labels is None:
                self.session.miss(MODEL, ("accuracy",), NO_LABELS)
            else:
                found = accuracy(output, labels)
                self._accuracies[at] = found
                self.session.accuracy = float(found.mean())
        for kept in self._kept:
            kept.take(at)

    def after_update(self, number: int, step: StepArrays) -> None:
        """Copy the weights after the update; measure, if enough steps wait."""
        if self._weights_after and not self._in_place:
            self._after[len(self._numbers)] = step.flat_weights
        if self._used is not None:  # callbacks' changes were copied back
            self._used[len(self._numbers)] = step.flat_gradients
        self._numbers.append(number)
        self._open = False
        if len(self._numbers) == len(self._after):
            self.flush()

    def flush(self) -> None:
        """Measure the steps that wait and are complete."""
        count = len(self._numbers)
        if not count:
            return
        groups = [(group.place, self._arrays(group, count)) for group in self._groups]
        add_arrays(
            self.session, self._numbers, groups, self._loss[:count], self._accuracies[:count],
            grad_norm=self._norms(count) if self._norm else None, beside=self._around,
        )  # fmt: skip
        # only now: an interrupt while measuring leaves them to be measured again
        self._numbers = []
        if self._open:  # asked for in the middle of a step, whose first half moves to the front
            whole = [memory for memory, _ in self._whole]
            for memory in (*whole, self._accuracies, *(kept.memory for kept in self._kept)):
                memory[0] = memory[count]

    def flush_if_due(self, live: Live) -> None:
        """Measure the steps that wait if one look at the run is due, or a loss is not finite."""
        waiting = len(self._numbers)
        if not waiting:
            return
        spoilt = self._loss_too and not np.isfinite(self._loss[waiting - 1]).all()
        if live.is_due(self.session.recorded + waiting, spoilt):
            self.flush()

    def forget_after(self, number: int) -> None:
        """Leave out the steps after `number`, which were undone, also where they were added."""
        self.flush()
        self._open = False
        self.session.forget_after(number)

    # --- getting ready ----------------------------------------------------------------------------

    def _prepare(self, step: StepArrays) -> None:
        self._step = step
        calls: dict[str, list[CapturedLayer]] = {}
        for layer in step.captured.layers:
            if f"{layer.name}_weight" not in step.weights:
                raise RecordingError(
                    f"the loss does not depend on layer {layer.name!r}, so that its program has no "
                    "place for its weights; record it without compile=True"
                )
            calls.setdefault(f"{layer.name}_weight", []).append(layer)
        self._prepare_forward(step)
        functions = {
            weight: {repr(call.function): call.function for call in them}.values()
            for weight, them in calls.items()
        } | self._functions
        single = {weight: of_layers.only(known) for weight, known in functions.items()}
        param, net = self.model.get_param(), isinstance(self.model, dp.Net)
        called = [
            Called(them[0].name, weight, net and f"{them[0].name}_gain" in param)
            for weight, them in calls.items()
        ]
        rows = self._announcer.announce(called, single)
        self._places: dict[str, int] = {}
        self._layers = []
        for place, row in enumerate(rows):
            weight, mine = row.parameter, calls.get(row.parameter, [])
            if weight not in step.weights:
                quantities = (*FROM_GRADIENT, *OF_WEIGHTS)
                self.session.miss(row.name, quantities, NOT_HELD)
                if row.layer:
                    self.session.miss(row.name, of_layers.OF_CALLS, of_layers.NOT_USED)
                continue
            if mine:
                of_layers.miss_activation(self.session, row, functions[weight])
            if any(call.function is None for call in mine) and not _is_identity(single.get(weight)):
                self.session.miss(row.name, needing("arriving"), of_layers.NO_ARRIVING)
            view = step.weights[weight]
            self._places[weight] = place
            looked_at = self._looked_at.get(weight, [])
            self._layers.append(_Layer(row, mine, single.get(weight), looked_at, view))
        self._find_chains(step)
        self._group()
        self._make_room(step)

    def _find_chains(self, step: StepArrays) -> None:
        """See which layers lead to which, once."""
        if self.session.chains is not None:
            return
        places = {row.parameter: i for i, row in enumerate(self._announcer.all)}
        marked = {
            call.pre_activation: [places[f"{call.name}_weight"]]
            for call in step.captured.layers
            if call.delta is not None
        }
        order = in_order([step.captured.output])
        before = layers_before(marked, order, lambda value: value.operands)
        self.session.leads(before, dict.fromkeys(before, 0), self._announcer.kept)

    def _prepare_forward(self, step: StepArrays) -> None:
        """The forward pass on the reference batch, which shares the training step's parameters.

        Every layer's activation function is found in it: a loss of logits does not show the last.
        """
        self._forward: Compiled | None = None
        self._functions: dict[str, Any] = {}  # weight -> the functions that follow it
        self._looked_at: dict[str, list[Value]] = {}
        if not has_forward(self.model):
            why = NO_FORWARD.format(type(self.model).__name__)
            self.session.miss(MODEL, ("accuracy",), why)
            for layer in () if self._dead_in_training else step.captured.layers:
                self.session.miss(layer.name, ("dead_fraction",), why)
            return
        if self.reference is not None:
            x = dp.Node(self.reference[0]).value.astype(step.flat_weights.dtype, copy=False)
        else:
            x = step.x
        if not (self._dead or self._accuracy):
            with dp.watch_layers() as watch:
                passage = Passage(self.model.forward(dp.Node(x)), list(watch.calls))
            self._functions = of_layers.functions_by_weight(passage.calls, passage.after)
            return
        try:
            self._captured_forward = captured(
                self.model.forward, (x,), gradient=False, trusted=pure(self.model)
            )
        except CaptureError as error:
            raise RecordingError(
                f"forward of {type(self.model).__name__} cannot be captured, as it must be to "
                f"record dead units and accuracy of compiled training: {error}"
            ) from None
        for call in self._captured_forward.layers:
            weight = f"{call.name}_weight"
            known = self._functions.setdefault(weight, [])
            if call.function not in known:
                known.append(call.function)
            if self.session.picks(call.name):
                self._looked_at.setdefault(weight, []).append(call.activation)
        read = [value for values in self._looked_at.values() for value in values]
        self._forward = step.beside(self._captured_forward, read)
        np.copyto(self._forward.arrays[self._captured_forward.inputs[0]], x)

    def _run_forward(self, step: StepArrays) -> None:
        forward = self._forward
        assert forward is not None
        if self.reference is None:
            place = forward.arrays[self._captured_forward.inputs[0]]
            np.copyto(place, step.x)
        if not forward.shares_parameters:
            for name, view in forward.views.items():
                np.copyto(view, step.weights[name])
        with quietly(self._captured_forward):
            forward.run()

    def _labels(self, step: StepArrays) -> Array | None:
        if self.reference is None:
            return step.y
        labels = self.reference[1]
        return None if labels is None else dp.Node(labels).value

    def _group(self) -> None:
        """Put layers together that are alike and whose weights lie at equal distances."""
        self._groups: list[_Group] = []
        alike: dict[Any, list[int]] = {}
        for position, layer in enumerate(self._layers):
            key = (
                layer.weight.shape,
                [
                    (
                        x.input.shape, x.pre_activation.shape, x.delta is None,
                        x.activation is x.pre_activation, x.affine_delta is x.delta,
                        x.arriving is None, repr(x.function),
                    )
                    for x in layer.calls
                ],
                layer.function,
                [value.shape for value in layer.reference],
                layer.row.parameter in self._trained,
            )  # fmt: skip
            alike.setdefault(repr(key), []).append(position)
        for positions in alike.values():
            starts = [_start(self._layers[i].weight) for i in positions]
            together = len({b - a for a, b in itertools.pairwise(starts)}) <= 1
            for part in [positions] if together else [[i] for i in positions]:
                layers = [self._layers[i] for i in part]
                places = [self._places[layer.row.parameter] for layer in layers]
                self._groups.append(_Group(places, layers))

    def _make_room(self, step: StepArrays) -> None:
        """Memory for as many steps as are measured together."""
        sources: list[tuple[_Group, str, list[Array]]] = []
        for group in self._groups:
            sources += [(group, what, arrays) for what, arrays in self._sources(group, step)]
        flat = step.flat_weights
        size = sum(array.nbytes for _, _, them in sources for array in them) + 3 * flat.nbytes
        count = max(1, min(64, AT_MOST // max(size, 1)))
        self._kept = []
        for group, what, them in sources:
            kept = _Kept(them, count)
            group.kept.setdefault(what, []).append(kept)
            self._kept.append(kept)
        # a large step is measured at its end, where it lies; only callbacks that are handed the
        # gradients may have changed them by then
        self._in_place = count == 1 and not step.edited
        self._before = np.zeros((count, flat.size), flat.dtype)
        if self._in_place:
            self._gradient, self._after = step.flat_gradients[None], flat[None]
        else:
            self._gradient, self._after = np.zeros_like(self._before), np.zeros_like(self._before)
        others = self._clipping and step.edited
        self._used_known = step.written_back or not others
        self._used = np.zeros_like(self._before) if others and step.written_back else None
        if not self._used_known:
            for layer in self._layers:
                self.session.miss(layer.row.name, ("clip_factor",), USED_UP)
        for group in self._groups:
            if self._gradients and group.layers[0].row.parameter in self._trained:
                group.gradient = self._weights(self._gradient, group)
                if self._used is not None:
                    group.used = self._weights(self._used, group)
            if self._weights_before:
                group.before = self._weights(self._before, group)
            if self._weights_after:
                group.after = self._weights(self._after, group)
        members = step.loss.shape[:-2]
        self._loss, self._accuracies = (np.full((count, *members), np.nan) for _ in range(2))
        # what is copied before the update, besides the layers' own
        self._whole: list[tuple[Array, Array]] = []
        if self._gradients and not self._in_place:
            self._whole.append((self._gradient, step.flat_gradients))
        if self._weights_before:
            self._whole.append((self._before, step.flat_weights))
        if self._loss_too:
            self._whole.append((self._loss, step.loss[..., 0, 0]))

    def _sources(self, group: _Group, step: StepArrays) -> list[tuple[str, list[Array]]]:
        """What is copied of a group's layers besides weights, call by call."""
        found = []
        arrays, first = step.values, group.layers[0]
        for i, call in enumerate(first.calls):
            mine = [layer.calls[i] for layer in group.layers]
            found += self._sources_of_deltas(mine, arrays)
            if self._inputs:
                found.append(("input", [arrays[x.input] for x in mine]))
            activations = self._activations and first.function is not None
            if activations or self._pre_activations:
                found.append(("pre", [arrays[x.pre_activation] for x in mine]))
            computed = call.activation is not call.pre_activation
            if activations and computed and call.function == first.function:
                found.append(("phi", [arrays[x.activation] for x in mine]))
        if self._dead and self._forward is not None and first.function is not None:
            for i in range(len(first.reference)):
                looked_at = [self._forward.arrays[x.reference[i]] for x in group.layers]
                found.append(("reference", looked_at))
        return found

    def _sources_of_deltas(
        self, calls: Sequence[CapturedLayer], arrays: Mapping[Value, Array]
    ) -> list[tuple[str, list[Array]]]:
        """What is copied of the deltas of one call of each layer of a group."""

        def of(values: Iterable[Value | None]) -> list[Array]:
            return [arrays[value] for value in values if value is not None]

        first = calls[0]
        if first.delta is None:
            return []
        found = []
        if self._deltas:
            found.append(("delta", of(call.delta for call in calls)))
        if self._affine and first.affine_delta is not first.delta:
            found.append(("affine_delta", of(call.affine_delta for call in calls)))
        known = first.function is not None and not _is_identity(first.function)
        if self._arriving and known and first.arriving is not None:
            found.append(("arriving", of(call.arriving for call in calls)))
            if self._of_live:
                found.append(("output", of(call.activation for call in calls)))
                found.append(("its delta", of(call.delta for call in calls)))
        return found

    # --- reading ----------------------------------------------------------------------------------

    def _arrays(self, group: _Group, count: int) -> LayerArrays:
        """What waits of a group of layers; leading axes: steps, layers, members."""

        def first(rows: Array | None) -> Array | None:
            return None if rows is None else rows[:count]

        def kept(what: str) -> Array | None:
            return joined([memory.of(count) for memory in group.kept.get(what, ())])

        found = LayerArrays(
            first(group.gradient), first(group.before), first(group.after), kept("delta"),
            reference_activation=kept("reference"), used=first(group.used),
            used_known=self._used_known,
        )  # fmt: skip
        h, function = kept("pre"), group.layers[0].function
        found.arriving = kept("arriving")
        if self._arriving and _is_identity(function):
            found.arriving = found.delta
        if self._affine:
            found.affine_delta = (
                kept("affine_delta") if "affine_delta" in group.kept else found.delta
            )
        found.phi_delta = found.delta if self._phi_deltas else None
        if self._of_live and "arriving" in group.kept:
            self._fill_live(found, group, count)
        if self._pre_activations:
            found.pre_activation = h
        if self._inputs:
            self._fill_input(found, group, count)
        if h is not None and function is not None and self._activations:
            with np.errstate(all="ignore"):
                x = kept("phi")
                found.activation = function(h) if x is None or x.shape != h.shape else x
                if function is not SOFTMAX and self.session.needs("saturated_fraction"):
                    found.saturated = function.saturated(h)
        if self._dead_in_training:
            found.reference_activation = found.activation
        return found.flattened(2 + self._loss.ndim - 1)

    def _fill_input(self, found: LayerArrays, group: _Group, count: int) -> None:
        """Fill in what goes into a group of layers, and where it is of live units."""
        parts, live = [], []
        for call, kept in zip(group.layers[0].calls, group.kept.get("input", ()), strict=True):
            x = of_members(kept.of(count), self._loss.shape[1:])
            parts.append(x)
            if call.delta is not None:
                live.append(np.broadcast_to(np.asarray(live_units(x)), x.shape))
        found.input, found.live = joined(parts), joined(live)

    def _fill_live(self, found: LayerArrays, group: _Group, count: int) -> None:
        """Fill in where the outputs of a group of layers are of live units."""
        live = []
        for x, delta in zip(group.kept["output"], group.kept["its delta"], strict=True):
            of_units = np.asarray(live_outputs(x.of(count), delta.of(count)))
            live.append(np.broadcast_to(of_units, delta.of(count).shape))
        found.arriving_live = joined(live)

    def _around(self, at: int, layer: int | None) -> Around:
        """What was there beside a layer's arrays, in a step that waits; or beside the loss."""
        x, y = (self._finite(which) for which in (0, 1))
        if layer is None:
            return Around(targets=y)
        group = next((group for group in self._groups if layer in group.positions), None)
        if group is None:
            return Around()
        which = group.positions.index(layer)

        def kept(what: str) -> Array | None:
            found = [memory.of(at + 1)[at, which] for memory in group.kept.get(what, ())]
            return joined(found)

        given: Array | bool | None = None
        if self._inputs:
            given = of_members(np.asarray(kept("input")), self._loss.shape[1:])
        elif self._pure and self.session.only is None:
            # what goes into the others came out of those before
            is_first = self._places[self._layers[0].row.parameter] == layer
            given = x if is_first else True
        row = group.layers[which].row
        h = None if f"{row.name}_gain" in self.model.get_param() else kept("pre")
        return Around(given, h, self._parameters(at, row), y)

    def _parameters(self, at: int, row: Row) -> list[Array]:
        """The parameters of a layer before the update of a step that waits."""
        if not self._weights_before:
            return []
        assert self._step is not None
        views = [view for name, view in self._step.weights.items() if name in row.parameters]
        return [self._rows(self._before, [view])[at, 0] for view in views]

    def _finite(self, which: int) -> bool | None:
        """Whether the samples (0), or what they are trained for (1), are finite, in any batch."""
        data = self._data()
        if data is None or self._step is None:
            return None
        whole = array_of(data[which])
        if np.isfinite(whole).all():
            return True
        batch = self._step.x if which == 0 else self._step.y
        return False if batch.shape[-2] == whole.shape[-2] else None

    def _norms(self, count: int) -> Array:
        """The norm of all gradients together, for each step that waits (and member)."""
        members = self._loss.shape[1:]
        assert self._step is not None
        rows = [self._rows(self._gradient, [self._step.weights[n]]) for n in self._trained]
        found = norm(x[:count, 0].reshape(count, *members, -1) for x in rows)
        return np.broadcast_to(np.asarray(found), (count, *members))

    @property
    def _trained(self) -> dict[str, Value]:
        assert self._step is not None
        return self._step.captured.gradients

    def _weights(self, rows: Array, group: _Group) -> Array:
        """The weights of a group in rows of flat vectors: (steps, layers, …, fan_in, fan_out)."""
        return self._rows(rows, [layer.weight for layer in group.layers])

    def _rows(self, rows: Array, weights: Sequence[Array]) -> Array:
        """Parameters in rows of flat vectors, (steps, which, …); they lie at equal distances."""
        starts = [_start(weight) for weight in weights]
        apart = starts[1] - starts[0] if len(starts) > 1 else 0
        assert self._step is not None
        return np.ndarray(
            (len(rows), len(weights), *weights[0].shape),
            rows.dtype,
            rows,
            starts[0] - _start(self._step.flat_weights),
            (rows.strides[0], apart, *weights[0].strides),
        )


def _is_identity(function: Activation | None) -> bool:
    return function is not None and function.name == "identity"


def _start(view: Array) -> int:
    address: int = view.__array_interface__["data"][0]
    return address
