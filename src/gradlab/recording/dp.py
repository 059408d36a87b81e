"""The adapter for dp: where its models keep weights, gradients, deltas and activations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

import dp
from dp.activations import SOFTMAX, Activation, matching
from dp.backward import topological_order
from gradlab.recording import quantities as q
from gradlab.recording.recorder import LayerArrays, LayerInfo, Recorder

Array = NDArray[Any]
Results = dict[tuple[dp.primitives.Primitive | None, dp.Node], Array]

UNKNOWN = "unknown"


class RecordingError(RuntimeError):
    """A model whose layers cannot be recorded without reporting a wrong number."""


@contextlib.contextmanager
def record(
    model: dp.Model,
    optimizer: dp.Optimizer,
    *,
    reference: tuple[Any, Any] | None = None,
    every: int = 1,
    histograms: bool = False,
) -> Iterator[Recorder]:
    """Record every training step of `optimizer` inside the block.

    Parameters
    ----------
    model : dp.Model
        Any model whose layers were made by `Linear_Layer` or `ReLu_Layer`.
    optimizer : dp.Optimizer
    reference : (x, y), optional
        The batch on which dead units and accuracy are measured; by default each step's own batch.
    every : int
        Record every k-th step.
    histograms : bool
        Record log10 histograms of the gradients too.

    Yields
    ------
    Recorder
        Its `trace()` may be taken at any time, also after an exception ended the training.

    Raises
    ------
    RecordingError
        In the first step, if a layer is used twice in one pass: its deltas would be mixed up.

    Examples
    --------
    >>> from dp import SGD, Net
    >>> from gradlab import record
    >>> from gradlab.data import load
    >>> data = load("iris2")
    >>> net = Net(4, 10, 3, "tanh", seed=0)
    >>> sgd = SGD(net, data.x, data.y, seed=0)
    >>> with record(net, sgd) as recorder:
    ...     _ = sgd.train(5, print_each=None)
    >>> recorder.trace().grad_w.shape
    (4, 5)
    """
    recorder = Recorder(every, histograms)
    with dp.watch_layers() as watch:
        callback = _Recording(model, recorder, watch, reference)
        optimizer.callbacks.insert(0, callback)
        try:
            yield recorder
        finally:
            optimizer.callbacks.remove(callback)


class _Recording(dp.Callback):
    def __init__(
        self,
        model: dp.Model,
        recorder: Recorder,
        watch: dp.LayerWatch,
        reference: tuple[Any, Any] | None,
    ) -> None:
        self.model, self.recorder, self.watch = model, recorder, watch
        self.reference = reference
        self._functions: list[Activation | None] = []
        self._seen: list[LayerArrays] = []
        self._loss: Any = None
        self._accuracy: Any = None

    def before_update(self, step: dp.Step) -> None:
        """Take what belongs to the weights before the update."""
        if not self.recorder.wants(step.number):
            return
        started = time.perf_counter()
        calls = list(self.watch.calls)
        _check_once(calls)
        x, y = self.reference if self.reference is not None else (step.x, step.y)
        x, y = _array(x), _array(y)  # a batch drawn by the user's code may be Nodes or arrays
        with dp.watch_layers() as inner:
            # The activations are found in the graph of this pass, so it is remembered.
            output = self.model.forward(dp.Node(x.astype(self.model.dtype, copy=False)))
            reference = {call.name: call for call in inner.calls}
        if not self.recorder.layers:
            self._functions = self._find_functions(calls, reference, output)
            self.recorder.begin(
                [
                    LayerInfo(
                        call.name,
                        call.layer.fan_in,
                        call.layer.fan_out,
                        UNKNOWN if function is None else function.name,
                    )
                    for call, function in zip(calls, self._functions, strict=True)
                ]
            )
        known = _results(step.loss) | _results(output)
        self._seen = [
            self._arrays(step, call, function, reference.get(call.name), known)
            for call, function in zip(calls, self._functions, strict=True)
        ]
        self._accuracy = q.accuracy(output.value, y)
        self._loss = step.loss.value[..., 0, 0]
        self.recorder.spent(time.perf_counter() - started)

    def after_update(self, step: dp.Step) -> None:
        """Complete the step with what the update did."""
        if not self.recorder.wants(step.number):
            return
        started = time.perf_counter()
        after = [step.param[f"{info.name}_weight"] for info in self.recorder.layers]
        self.recorder.add(step.number, self._seen, after, self._loss, self._accuracy)
        self.recorder.spent(time.perf_counter() - started)

    def _arrays(
        self,
        step: dp.Step,
        call: dp.LayerCall,
        function: Activation | None,
        reference: dp.LayerCall | None,
        known: Results,
    ) -> LayerArrays:
        arrays = LayerArrays(
            gradient=step.grad.get(f"{call.name}_weight"),
            weight=step.param[f"{call.name}_weight"].copy(),
            delta=call.delta,
        )
        if function is not None:
            h = call.pre_activation
            arrays.activation = _apply(function, h, known)
            if function is not SOFTMAX:  # its units do not saturate one by one
                arrays.saturated = function.saturated(h.value, arrays.activation)
            if reference is not None:
                arrays.reference_activation = _apply(function, reference.pre_activation, known)
        return arrays

    def _find_functions(
        self, calls: list[dp.LayerCall], reference: dict[str, dp.LayerCall], output: dp.Node
    ) -> list[Activation | None]:
        """The activation function of each layer, from the graph of the forward pass."""
        consumers: dict[dp.Node, list[dp.Node]] = {}
        for node in topological_order(output):
            for parent in node.parents:
                consumers.setdefault(parent, []).append(node)
        found = []
        for call in calls:
            there = reference.get(call.name)
            h = None if there is None else there.pre_activation
            found.append(None if h is None else _function_of(h, consumers, output))
        return found


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


def _function_of(
    h: dp.Node, consumers: dict[dp.Node, list[dp.Node]], output: dp.Node
) -> Activation | None:
    """What is applied to the pre-activation `h`; None if it is nothing we know."""
    uses = consumers.get(h, [])
    if len(uses) == 1:
        use = uses[0]
        if use.primitive is SOFTMAX.primitive:
            return SOFTMAX
        function = matching(use.primitive, use.settings)
        if function is not None:
            return function
    linear = all(use.primitive is dp.primitives.dot for use in uses)
    if h is output or (uses and linear):
        return dp.activations.get("identity")
    return None


def _check_once(calls: list[dp.LayerCall]) -> None:
    names = [call.name for call in calls]
    if not names:
        raise RecordingError(
            "the model's loss used no layer made by Linear_Layer or ReLu_Layer, so there is "
            "nothing to record"
        )
    for name in names:
        if names.count(name) > 1:
            raise RecordingError(
                f"layer {name!r} is used {names.count(name)} times in one pass; its deltas cannot "
                "be told apart, so it cannot be recorded"
            )
