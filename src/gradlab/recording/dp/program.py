"""Reading compiled steps of dp: several steps and layers at a time, from the step's own buffers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
from dp.activations import SOFTMAX, Activation
from dp.node import CaptureError
from dp.program.captured import Captured, CapturedLayer, captured
from dp.program.graph import Value
from dp.program.replay import Replay, quietly
from dp.program.training import TrainingStep, pure
from gradlab.recording import quantities as q
from gradlab.recording.dp.layers import (
    NO_DELTA,
    check_once,
    functions_of,
    layer_info,
    miss_functions,
)
from gradlab.recording.errors import RecordingError
from gradlab.recording.measure import FROM_GRADIENT, OF_DELTA, OF_WEIGHTS, LayerArrays
from gradlab.recording.recorder import Recorder

Array = NDArray[Any]

AT_MOST = 1 << 21  # bytes of steps that wait to be measured together


@dataclass
class _Layer:
    """One layer, in the training step and in the forward pass on the reference batch."""

    train: CapturedLayer
    function: Activation | None
    reference: Value | None
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

    `gradient`, `before` and `after` are views of the weights in the memory of several steps:
    (steps, layers, …, fan_in, fan_out).
    """

    positions: list[int]
    layers: list[_Layer]
    gradient: Array | None = None
    before: Array | None = None
    after: Array | None = None
    kept: dict[str, _Kept] = field(default_factory=dict)

    @property
    def place(self) -> list[int] | slice:
        """Their positions, as a slice if they are neighbours."""
        begin, end = self.positions[0], self.positions[-1] + 1
        return slice(begin, end) if end - begin == len(self.positions) else self.positions


class ProgramReader:
    """Copies what is to be recorded from a compiled step, and measures several steps at once."""

    def __init__(
        self, model: dp.Model, recorder: Recorder, reference: tuple[Any, Any] | None
    ) -> None:
        self.model, self.recorder, self.reference = model, recorder, reference
        self._step: TrainingStep | None = None
        self._numbers: list[int] = []
        self._open = False  # whether a step is between its two halves
        needs = recorder.needs
        self._deltas = needs(*OF_DELTA, "nonfinite_count")
        self._activations = needs(
            "activation_mean", "activation_std", "saturated_fraction", "nonfinite_count"
        )
        self._dead = needs("dead_fraction")
        self._accuracy = needs("accuracy")
        self._gradients = needs(*FROM_GRADIENT, "nonfinite_count")
        self._weights_before = needs(*OF_WEIGHTS)
        self._weights_after = needs("update_ratio", "nonfinite_count")
        self._loss_too = needs("loss")

    def keep(self, captured: Captured) -> list[Value]:
        """Which of a training step's values are read."""
        check_once([layer.name for layer in captured.layers])
        wanted: list[Value] = []
        for layer in captured.layers:
            if self._deltas and layer.delta is not None:
                wanted.append(layer.delta)
            if self._activations:
                wanted += [layer.pre_activation, layer.activation]
        return wanted

    def before_update(self, step: TrainingStep) -> None:
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
            output = self._forward.arrays[self._captured_forward.output]
            found = q.accuracy(output, self._labels(step))
            self._accuracies[at] = found
            self.recorder.accuracy = float(found.mean())
        for kept in self._kept:
            kept.take(at)

    def after_update(self, number: int, step: TrainingStep) -> None:
        """Copy the weights after the update; measure, if enough steps wait."""
        if self._weights_after and not self._in_place:
            self._after[len(self._numbers)] = step.replay.parameters
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
        self.recorder.add(self._numbers, groups, self._loss[:count], self._accuracies[:count])
        # only now: an interrupt while measuring leaves them to be measured again
        self._numbers = []
        if self._open:  # asked for in the middle of a step, whose first half moves to the front
            whole = [memory for memory, _ in self._whole]
            for memory in (*whole, self._accuracies, *(kept.memory for kept in self._kept)):
                memory[0] = memory[count]

    # --- getting ready ----------------------------------------------------------------------------

    def _prepare(self, step: TrainingStep) -> None:
        self._step = step
        self._prepare_forward(step)
        for layer in step.captured.layers:
            if f"{layer.name}_weight" not in step.replay.views:
                raise RecordingError(
                    f"the loss does not depend on layer {layer.name!r}, so that its program has no "
                    "place for its weights; record it without compile=True"
                )
        self._layers = [
            _Layer(
                layer,
                self._functions.get(layer.name),
                self._far.get(layer.name),
                step.replay.views[f"{layer.name}_weight"],
            )
            for layer in step.captured.layers
        ]
        if not self.recorder.layers:
            self.recorder.begin(
                [
                    layer_info(x.train.name, x.weight.shape[-2], x.weight.shape[-1], x.function)
                    for x in self._layers
                ],
                self.flush,
            )
            miss_functions(self.recorder, [(x.train.name, x.function) for x in self._layers])
            for x in self._layers:
                if x.train.delta is None:
                    self.recorder.miss(x.train.name, OF_DELTA, NO_DELTA)
        self._group()
        self._make_room(step)

    def _prepare_forward(self, step: TrainingStep) -> None:
        """The forward pass on the reference batch, which shares the training step's parameters.

        Every layer's activation function is found in it: a loss of logits does not show the last.
        """
        if self.reference is not None:
            x = dp.Node(self.reference[0]).value.astype(self.model.dtype, copy=False)
        else:
            x = step.replay.arrays[step.x]
        self._forward: Replay | None = None
        self._far: dict[str, Value] = {}
        if not (self._dead or self._accuracy):
            with dp.watch_layers() as watch:
                output = self.model.forward(dp.Node(x))
            self._functions = functions_of(watch.calls, output)
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
        self._functions = {x.name: x.function for x in self._captured_forward.layers}
        self._far = {x.name: x.activation for x in self._captured_forward.layers}
        self._forward = Replay(self._captured_forward, self._far.values(), beside=step.replay)
        np.copyto(self._forward.arrays[self._captured_forward.inputs[0]], x)

    def _run_forward(self, step: TrainingStep) -> None:
        forward = self._forward
        assert forward is not None
        if self.reference is None:
            place = forward.arrays[self._captured_forward.inputs[0]]
            np.copyto(place, step.replay.arrays[step.x])
        if not forward.shares_parameters:
            for name, view in forward.views.items():
                np.copyto(view, step.replay.views[name])
        with quietly(self._captured_forward):
            forward.run()

    def _labels(self, step: TrainingStep) -> Array:
        if self.reference is None:
            return step.replay.arrays[step.y]
        return dp.Node(self.reference[1]).value

    def _group(self) -> None:
        """Put layers together that are alike and whose weights lie at equal distances."""
        self._groups: list[_Group] = []
        alike: dict[Any, list[int]] = {}
        for position, layer in enumerate(self._layers):
            train = layer.train
            key = (
                layer.weight.shape,
                train.pre_activation.shape,
                train.delta is None,
                layer.function,
                train.activation is train.pre_activation,
                layer.reference is None or layer.reference.shape,
            )
            alike.setdefault(repr(key), []).append(position)
        for positions in alike.values():
            starts = [_start(self._layers[i].weight) for i in positions]
            together = len({b - a for a, b in itertools.pairwise(starts)}) <= 1
            for part in [positions] if together else [[i] for i in positions]:
                self._groups.append(_Group(part, [self._layers[i] for i in part]))

    def _make_room(self, step: TrainingStep) -> None:
        """Memory for as many steps as are measured together."""
        sources: list[tuple[_Group, str, list[Array]]] = []
        arrays = step.replay.arrays
        for group in self._groups:
            layers, first = group.layers, group.layers[0]
            if self._deltas and first.train.delta is not None:
                deltas = [x.train.delta for x in layers if x.train.delta is not None]
                sources.append((group, "delta", [arrays[value] for value in deltas]))
            if self._activations and first.function is not None:
                sources.append((group, "pre", [arrays[x.train.pre_activation] for x in layers]))
                if first.train.activation is not first.train.pre_activation:
                    sources.append((group, "phi", [arrays[x.train.activation] for x in layers]))
            if self._dead and self._forward is not None and first.function is not None:
                there = [x.reference for x in layers if x.reference is not None]
                if len(there) == len(layers):
                    far = [self._forward.arrays[value] for value in there]
                    sources.append((group, "reference", far))
        flat = step.replay.parameters
        size = sum(array.nbytes for _, _, them in sources for array in them) + 3 * flat.nbytes
        count = max(1, min(64, AT_MOST // max(size, 1)))
        self._kept = []
        for group, what, them in sources:
            group.kept[what] = _Kept(them, count)
            self._kept.append(group.kept[what])
        # a large step is measured at its end, where it lies; only callbacks that are handed the
        # gradients may have changed them by then
        self._in_place = count == 1 and not step.optimizer.other_callbacks()
        self._before = np.zeros((count, flat.size), flat.dtype)
        if self._in_place:
            self._gradient, self._after = step.replay.gradients[None], flat[None]
        else:
            self._gradient, self._after = np.zeros_like(self._before), np.zeros_like(self._before)
        for group in self._groups:
            if self._gradients and f"{group.layers[0].train.name}_weight" in self._trained:
                group.gradient = self._weights(self._gradient, group)
            if self._weights_before:
                group.before = self._weights(self._before, group)
            if self._weights_after:
                group.after = self._weights(self._after, group)
        members = step.loss.shape[:-2]
        self._loss, self._accuracies = (np.full((count, *members), np.nan) for _ in range(2))
        # what is copied before the update, besides the layers' own
        self._whole: list[tuple[Array, Array]] = []
        if self._gradients and not self._in_place:
            self._whole.append((self._gradient, step.replay.gradients))
        if self._weights_before:
            self._whole.append((self._before, step.replay.parameters))
        if self._loss_too:
            self._whole.append((self._loss, step.loss[..., 0, 0]))

    # --- reading ----------------------------------------------------------------------------------

    def _arrays(self, group: _Group, count: int) -> LayerArrays:
        """What waits of a group of layers; leading axes: steps, layers, members."""

        def first(rows: Array | None) -> Array | None:
            return None if rows is None else rows[:count]

        def kept(what: str) -> Array | None:
            memory = group.kept.get(what)
            return None if memory is None else memory.of(count)

        found = LayerArrays(
            first(group.gradient), first(group.before), first(group.after), kept("delta"),
            reference_activation=kept("reference"),
        )  # fmt: skip
        h, function = kept("pre"), group.layers[0].function
        if h is not None and function is not None:
            with np.errstate(all="ignore"):
                x = kept("phi")
                found.activation = function(h) if x is None else x
                if function is not SOFTMAX and self.recorder.needs("saturated_fraction"):
                    found.saturated = function.saturated(h)
        return found

    @property
    def _trained(self) -> dict[str, Value]:
        assert self._step is not None
        return self._step.captured.gradients

    def _weights(self, rows: Array, group: _Group) -> Array:
        """The weights of a group in rows of flat vectors: (steps, layers, …, fan_in, fan_out)."""
        weights = [layer.weight for layer in group.layers]
        starts = [_start(weight) for weight in weights]
        apart = starts[1] - starts[0] if len(starts) > 1 else 0
        assert self._step is not None
        return np.ndarray(
            (len(rows), len(weights), *weights[0].shape),
            rows.dtype,
            rows,
            starts[0] - _start(self._step.replay.parameters),
            (rows.strides[0], apart, *weights[0].strides),
        )


def _start(view: Array) -> int:
    address: int = view.__array_interface__["data"][0]
    return address
