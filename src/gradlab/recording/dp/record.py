"""record: every training step of dp's optimizer, as it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

import dp
from dp.activations import SOFTMAX, Activation
from dp.backward import topological_order
from gradlab.recording import quantities as q
from gradlab.recording.dp.layers import (
    NO_DELTA,
    NO_GRADIENT,
    check_once,
    functions_of,
    layer_info,
    miss_functions,
)
from gradlab.recording.measure import FROM_GRADIENT, OF_DELTA, LayerArrays, one_step
from gradlab.recording.recorder import Recorder

if TYPE_CHECKING:
    from dp.program.captured import Captured
    from dp.program.graph import Value
    from dp.program.training import TrainingStep

Array = NDArray[Any]
Results = dict[tuple[dp.primitives.Primitive | None, dp.Node], Array]


@contextlib.contextmanager
def record(
    model: dp.Model,
    optimizer: dp.Optimizer,
    *,
    reference: tuple[Any, Any] | None = None,
    every: int = 1,
    histograms: bool = False,
    quantities: Collection[str] | None = None,
    max_overhead: float | None = None,
) -> Iterator[Recorder]:
    """Record every training step of dp's `optimizer` inside the block; see `gradlab.record`.

    Raises
    ------
    RecordingError
        In the first step, if a layer is used twice in one pass: its deltas would be mixed up.
    """
    recorder = Recorder(every, histograms, quantities, max_overhead)
    with dp.watch_layers() as watch:
        callback = _Recording(model, recorder, watch, reference)
        optimizer.callbacks.insert(0, callback)
        recorder.turn(on=True)
        try:
            yield recorder
        finally:
            recorder.turn(on=False)
            optimizer.callbacks.remove(callback)


class _Recording(dp.ProgramCallback):
    """Records eager steps here, compiled ones through a reader of their buffers."""

    def __init__(
        self,
        model: dp.Model,
        recorder: Recorder,
        watch: dp.LayerWatch,
        reference: tuple[Any, Any] | None,
    ) -> None:
        self.model, self.recorder, self.watch = model, recorder, watch
        self.reference = reference
        self.reads_loss = recorder.needs("loss")
        self._all = recorder.every == 1 and recorder.max_overhead is None
        self._functions: list[Activation | None] = []
        self._seen: list[LayerArrays] = []
        self._loss: Any = None
        self._accuracy: Any = None
        self._reader: Any = None

    def before_update(self, step: dp.Step) -> None:
        """Take what belongs to the weights before the update."""
        if self.recorder.wants(step.number):
            with self.recorder.timed:
                self._look(step)

    def after_update(self, step: dp.Step) -> None:
        """Complete the step with what the update did."""
        if self.recorder.wants(step.number):
            with self.recorder.timed:
                for info, arrays in zip(self.recorder.layers, self._seen, strict=True):
                    arrays.weight_after = step.param[f"{info.name}_weight"]
                self.recorder.add(*one_step(step.number, self._seen, self._loss, self._accuracy))

    # --- compiled steps ---------------------------------------------------------------------------

    def keep(self, captured: Captured) -> list[Value]:
        """Say what is to be read of a compiled step."""
        from gradlab.recording.dp.program import ProgramReader

        if self._reader is None:
            self._reader = ProgramReader(self.model, self.recorder, self.reference)
        wanted: list[Value] = self._reader.keep(captured)
        return wanted

    # Every microsecond of these two counts: a compiled step of a small net takes fifty.

    def before_program_update(self, number: int, step: TrainingStep) -> None:
        """Take what belongs to the weights before the update."""
        if self._all or self.recorder.wants(number):
            started = perf_counter()
            self._reader.before_update(step)
            self.recorder.timed.seconds += perf_counter() - started

    def after_program_update(self, number: int, step: TrainingStep) -> None:
        """Complete the step with what the update did."""
        if self._all or self.recorder.wants(number):
            started = perf_counter()
            self._reader.after_update(number, step)
            self.recorder.timed.seconds += perf_counter() - started

    # --- eager steps ------------------------------------------------------------------------------

    def _look(self, step: dp.Step) -> None:
        """Keep the arrays of every layer as they are before the update."""
        calls = list(self.watch.calls)
        check_once([call.name for call in calls])
        x, y = self.reference if self.reference is not None else (step.x, step.y)
        x, y = _array(x), _array(y)  # a batch drawn by the user's code may be Nodes or arrays
        with dp.watch_layers() as inner:
            # The activations are found in the graph of this pass, so it is remembered.
            output = self.model.forward(dp.Node(x.astype(self.model.dtype, copy=False)))
            reference = {call.name: call for call in inner.calls}
        if not self.recorder.layers:
            self._begin(calls, reference, output)
        known = _results(step.loss) | _results(output)
        self._seen = [
            self._arrays(step, call, function, reference.get(call.name), known)
            for call, function in zip(calls, self._functions, strict=True)
        ]
        self._accuracy = q.accuracy(output.value, y)
        self.recorder.accuracy = float(self._accuracy.mean())
        self._loss = step.loss.value[..., 0, 0]

    def _begin(
        self, calls: list[dp.LayerCall], reference: dict[str, dp.LayerCall], output: dp.Node
    ) -> None:
        """Find each layer's activation function, in the graph of the forward pass."""
        known = functions_of(reference.values(), output)
        self._functions = [known.get(call.name) for call in calls]
        self.recorder.begin(
            [
                layer_info(call.name, call.layer.fan_in, call.layer.fan_out, function)
                for call, function in zip(calls, self._functions, strict=True)
            ]
        )
        names = [call.name for call in calls]
        miss_functions(self.recorder, zip(names, self._functions, strict=True))

    def _arrays(
        self,
        step: dp.Step,
        call: dp.LayerCall,
        function: Activation | None,
        reference: dp.LayerCall | None,
        known: Results,
    ) -> LayerArrays:
        """A layer's arrays, but for the weight after the update."""
        gradient = step.grad.get(f"{call.name}_weight")
        arrays = LayerArrays(
            gradient=None if gradient is None else gradient.copy(),  # it may be changed in place
            weight=step.param[f"{call.name}_weight"].copy(),
            delta=call.delta,
        )
        if gradient is None:
            self.recorder.miss(call.name, FROM_GRADIENT, NO_GRADIENT)
        if call.delta is None:
            self.recorder.miss(call.name, OF_DELTA, NO_DELTA)
        if function is not None:
            h = call.pre_activation
            arrays.activation = _apply(function, h, known)
            if function is not SOFTMAX:  # its units do not saturate one by one
                arrays.saturated = function.saturated(h.value)
            if reference is not None:
                arrays.reference_activation = _apply(function, reference.pre_activation, known)
        return arrays


def _results(output: dp.Node) -> Results:
    """What was computed in a graph: (primitive, its first operand) -> value."""
    return {
        (node.primitive, node.parents[0]): node.value
        for node in topological_order(output)
        if node.parents
    }


def _apply(function: Activation, h: dp.Node, known: Results) -> Array:
    """φ(h); taken from the graph if it was computed there, as it mostly was."""
    if (function.primitive, h) in known:
        return known[function.primitive, h]
    found: Array = function(h.value)
    return found


def _array(matrix: Any) -> Array:
    return matrix.value if isinstance(matrix, dp.Node) else dp.Node(matrix).value
