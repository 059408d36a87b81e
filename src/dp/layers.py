"""Layers: an affine map and its activation, and `watch_layers`, which notes their calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from dp import activations
from dp import primitives as p
from dp.errors import ShapeError
from dp.node import Node, as_leaf
from dp.typing import Array
from dp.watching import watchers


@dataclass
class LayerCall:
    """One call of a layer, noted by `watch_layers`.

    Attributes
    ----------
    name : str
        The layer's name.
    layer : Layer
    input : Node (…, batch, fan_in)
    affine : Node (…, batch, fan_out)
        x W + b: the pre-activation, before a normalisation if there is one.
    pre_activation : Node (…, batch, fan_out)
        What the layer's activation function is given.
    delta : array (…, batch, fan_out) or None
        dL/d(pre-activation), filled by `Model.get_grad`; None if the loss does not depend on it.
    """

    name: str
    layer: Layer
    input: Node
    affine: Node
    pre_activation: Node
    delta: Array | None = None


@dataclass
class LayerWatch:
    """The layers' calls of the latest `Model.get_grad` (or since it was cleared), in order."""

    calls: list[LayerCall] = field(default_factory=list)

    def clear(self) -> None:
        """Forget the calls noted so far."""
        self.calls.clear()


WATCH: ContextVar[LayerWatch | None] = ContextVar("dp_watch", default=None)


@contextlib.contextmanager
def watch_layers() -> Iterator[LayerWatch]:
    """Note every layer call inside the block, of any model; `get_grad` adds the deltas.

    The innermost block sees the calls.
    """
    watch = LayerWatch()
    token = WATCH.set(watch)
    try:
        yield watch
    finally:
        WATCH.reset(token)


class Layer:
    """An affine map x W + b, a normalisation if any, and an activation function if any.

    Made by `Model`. The activation is whatever maps a Node to a Node of the same shape.

    Attributes
    ----------
    fan_in, fan_out : int
        Numbers of inputs and units.
    """

    def __init__(
        self,
        name: str,
        weight: Node,
        bias: Node,
        activation: Callable[[Node], Node] | None = None,
        normalise: Callable[[Node], Node] | None = None,
    ) -> None:
        self.name, self.weight, self.bias = name, weight, bias
        self.activation, self.normalise = activation, normalise
        self.fan_in, self.fan_out = weight.shape[-2:]

    def __call__(self, x: Any) -> Node:
        """(…, batch, fan_in) -> (…, batch, fan_out).

        Raises
        ------
        ShapeError
            If the rows of x do not have fan_in entries.
        TypeError
            If x is not made of real numbers, or the activation function gives no Node.
        """
        given = as_leaf(x, self.weight.value.dtype)
        if given.value.shape[-1] != self.fan_in:
            raise ShapeError(
                f"dot in layer {self.name!r}: its input has shape {given.shape}, its weight "
                f"{self.weight.shape}; each row of the input must have {self.fan_in} entries, "
                f"not {given.shape[-1]}"
            )
        affine: Node = p.affine(given, self.weight, self.bias)
        pre_activation = affine if self.normalise is None else self.normalise(affine)
        watch = WATCH.get()
        if watch is not None:
            watch.calls.append(LayerCall(self.name, self, given, affine, pre_activation))
        for watcher in watchers():
            watcher.called(self, given, affine, pre_activation)
        if self.activation is None:
            return pre_activation
        activated = self.activation(pre_activation)
        if not isinstance(activated, Node):
            raise TypeError(
                f"the activation function of layer {self.name!r} must give a Node, computed with "
                f"a Node's operations, got {type(activated).__name__}"
            )
        return activated

    def __repr__(self) -> str:
        return f"<layer {self.name!r} {self.fan_in} -> {self.fan_out}>"


def activation_after(
    pre_activation: Node, consumers: Mapping[Node, Sequence[Node]], output: Node
) -> tuple[activations.Activation | None, Node]:
    """Which activation function a graph applies to a pre-activation, and the Node it gives.

    The identity, if nothing but matrix products follow, or nothing at all; None (and the
    pre-activation) if what follows is not a known activation function.
    """
    uses = consumers.get(pre_activation, ())
    if len(uses) == 1:
        use = uses[0]
        softmax = activations.SOFTMAX
        if use.primitive is softmax.primitive and use.settings == softmax.settings:
            return softmax, use
        function = activations.matching(use.primitive, use.settings)
        if function is not None:
            return function, use
    linear = bool(uses) and all(use.primitive in (p.dot, p.affine) for use in uses)
    if pre_activation is output or linear:
        return activations.get("identity"), pre_activation
    return None, pre_activation
