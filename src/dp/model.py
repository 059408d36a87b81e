"""Models: named parameters, layers, and a net of any depth and width."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dp import activations, initializers, losses
from dp import primitives as p
from dp.backward import sweep_named
from dp.node import Node, ShapeError, as_leaf, mode
from dp.validation import one_of, positive_integer, positive_number, seeds, unknown
from dp.watching import watchers

Array = NDArray[Any]
Normalisation = Literal["none", "layer", "batch"]


@dataclass
class LayerCall:
    """One passage through a layer, noted by `watch_layers`.

    Attributes
    ----------
    name : str
        The layer's name.
    layer : Layer
    input : Node (…, batch, fan_in)
    pre_activation : Node (…, batch, fan_out)
        What the layer's activation function is given.
    delta : array (…, batch, fan_out) or None
        dL/d(pre-activation), filled by `Model.get_grad`; None if the loss does not depend on it.
    """

    name: str
    layer: Layer
    input: Node
    pre_activation: Node
    delta: Array | None = None


@dataclass
class LayerWatch:
    """The layers' calls of the latest `Model.get_grad` (or since it was cleared), in order."""

    calls: list[LayerCall] = field(default_factory=list)

    def clear(self) -> None:
        """Forget the calls noted so far."""
        self.calls.clear()


_WATCH: ContextVar[LayerWatch | None] = ContextVar("dp_watch", default=None)


@contextlib.contextmanager
def watch_layers() -> Iterator[LayerWatch]:
    """Note every layer call inside the block, of any model; `get_grad` adds the deltas.

    The innermost block sees the calls.
    """
    watch = LayerWatch()
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


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
        pre_activation: Node = p.affine(given, self.weight, self.bias)
        if self.normalise is not None:
            pre_activation = self.normalise(pre_activation)
        watch = _WATCH.get()
        if watch is not None:
            watch.calls.append(LayerCall(self.name, self, given, pre_activation))
        for watcher in watchers():
            watcher.called(self, pre_activation)
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


def consumers_of(order: Sequence[Node]) -> dict[Node, list[Node]]:
    """Who takes what: each Node of a graph -> those that were computed from it."""
    consumers: dict[Node, list[Node]] = {}
    for node in order:
        for parent in node.parents:
            consumers.setdefault(parent, []).append(node)
    return consumers


def activation_after(
    pre_activation: Node, consumers: Mapping[Node, Sequence[Node]], output: Node
) -> tuple[activations.Activation | None, Node]:
    """Which activation function a graph applies to a pre-activation, and the Node it gives.

    The identity, if nothing but matrix products follow, or nothing at all; None (and the
    pre-activation) if what follows is no activation function that we know.
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


class _LayersByName:
    """Name -> Layer. No data descriptor, so that a student's own `self.layers = []` may stand."""

    def __get__(self, model: Any, owner: type) -> Any:
        return self if model is None else model._layers


class Model:
    """Parameters by name, and their gradients; `forward` and `loss` are the subclass's.

    Parameters
    ----------
    seed : int, sequence of ints, or None
        Of the first weights. None draws from NumPy's global stream (`np.random.seed`). A sequence
        makes an ensemble: every parameter becomes a stack with one member per seed, each drawn as
        a model of that seed alone would draw it.
    dtype : dtype
        Of every parameter. float32 parameters are the rounded float64 ones.

    Examples
    --------
    >>> from dp import Model
    >>> class Line(Model):
    ...     def __init__(self):
    ...         super().__init__(seed=0)
    ...         self.out = self.Linear_Layer(1, 1, "out")
    ...     def forward(self, x):
    ...         return self.out(x)
    ...     def loss(self, x, y):
    ...         return (self.forward(x) - y).square().mean()
    >>> gradients, loss = Line().get_grad([[1.0], [2.0]], [[2.0], [4.0]])
    >>> sorted(gradients)
    ['out_bias', 'out_weight']
    """

    def __init__(self, seed: int | Sequence[int] | None = None, dtype: Any = np.float64) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise TypeError(f"dtype must be a floating type such as float32, got {dtype!r}")
        self.seed = seed
        self.members: int | None = None
        self._layers: dict[str, Layer] = {}
        self._parameters: dict[str, Node] = {}
        # None: NumPy's global stream, which is a module and could not be copied with the model
        self._streams: list[np.random.Generator] | None = None
        if seed is not None:
            self._streams = [np.random.default_rng(one) for one in seeds(seed)]
            if np.ndim(seed) > 0:
                self.members = len(self._streams)

    layers = _LayersByName()

    def __repr__(self) -> str:
        members = f", {self.members} members" if self.members else ""
        return f"<{type(self).__name__}: {', '.join(map(repr, self._layers.values()))}{members}>"

    # --- layers -----------------------------------------------------------------------------------

    def Linear_Layer(
        self, fan_in: int, fan_out: int, name: str, init: str | initializers.Initializer = "dp"
    ) -> Layer:
        """Make an affine layer and register "<name>_weight" and "<name>_bias".

        Parameters
        ----------
        fan_in, fan_out : int
            Numbers of inputs and units.
        name : str
            Not yet taken in this model.
        init : str or Initializer
            How first weights are drawn; by default as the course does: uniform with bound
            √2·√(3/fan_in), biases uniform with bound 1/√fan_in.

        Returns
        -------
        Layer
            Call it with a Node (…, batch, fan_in).

        Raises
        ------
        ValueError
            If the name is taken, a number is not positive, or there is no such initialiser.
        """
        return self._layer(fan_in, fan_out, name, init, None)

    def ReLu_Layer(
        self, fan_in: int, fan_out: int, name: str, init: str | initializers.Initializer = "dp"
    ) -> Layer:
        """Make an affine layer followed by a ReLU; parameters as in `Linear_Layer`."""
        return self._layer(fan_in, fan_out, name, init, activations.get("relu"))

    def _layer(
        self,
        fan_in: int,
        fan_out: int,
        name: str,
        init: str | initializers.Initializer,
        activation: Callable[[Node], Node] | None = None,
        normalise: Callable[[Node], Node] | None = None,
    ) -> Layer:
        if not hasattr(self, "_parameters"):
            raise RuntimeError(
                f"{type(self).__name__}.__init__ must call super().__init__() before it makes "
                "layers"
            )
        positive_integer("fan_in", fan_in)
        positive_integer("fan_out", fan_out)
        if not isinstance(name, str) or not name:
            raise TypeError(f"a layer needs a name, a string such as 'h1'; got {name!r}")
        if name in self._layers:
            raise ValueError(
                f"layer name {name!r} is taken; this model has {', '.join(self._layers)}"
            )
        how = initializers.get(init)
        # weight before bias, member by member: the order in which the course draws
        streams: list[Any] = [np.random] if self._streams is None else list(self._streams)
        drawn = [(how.weight(s, fan_in, fan_out), how.bias(s, fan_in, fan_out)) for s in streams]
        weight, bias = (self._stacked(part) for part in zip(*drawn, strict=True))
        layer = Layer(
            name,
            self._parameter(f"{name}_weight", weight),
            self._parameter(f"{name}_bias", bias),
            activation,
            normalise,
        )
        self._layers[name] = layer
        return layer

    def _stacked(self, drawn: Sequence[Array]) -> Array:
        return np.stack(drawn) if self.members else drawn[0]

    def _parameter(self, name: str, value: Array) -> Node:
        node = Node(np.array(value, dtype=self.dtype), name)
        self._parameters[name] = node
        return node

    # --- parameters -------------------------------------------------------------------------------

    def get_param(self) -> dict[str, Array]:
        """Name -> the live array: changing it in place changes the model."""
        return {name: node.value for name, node in self._parameters.items()}

    def set_param(self, param: Mapping[str, Any]) -> None:
        """Copy values into the parameters named; those not named keep theirs.

        Raises
        ------
        KeyError
            If the model has no parameter of a name.
        ShapeError
            If a value has another shape than its parameter.
        TypeError, ValueError
            If a value is not made of numbers. Nothing is changed if anything is wrong.
        """
        new: dict[str, Array] = {}
        for name, value in param.items():
            if name not in self._parameters:
                raise KeyError(unknown("parameter", name, self._parameters))
            live = self._parameters[name].value
            if value is live:
                continue
            if np.shape(value) != self._parameters[name].shape:
                raise ShapeError(
                    f"parameter {name!r} has shape {self._parameters[name].shape}, the given "
                    f"value {np.shape(value)}"
                )
            new[name] = np.asarray(value, dtype=live.dtype)
        for name, value in new.items():
            self._parameters[name].value[...] = value
        for watcher in watchers():
            watcher.updated(self)

    def get_grad(self, x: Any, y: Any) -> tuple[dict[str, Array], Node]:
        """Loss on a batch, and its gradient by parameter name.

        Parameters
        ----------
        x, y : Node or array
            As the subclass's `loss` takes them.

        Returns
        -------
        (dict, Node)
            Gradients with the shape and dtype of their parameters (only of those that the loss
            depends on), and the loss.

        Raises
        ------
        TypeError
            If `loss` gives no Node.
        ShapeError
            If the loss is not one number (per member).
        ValueError
            If it depends on no parameter.
        """
        watch = _WATCH.get()
        if watch is not None:
            watch.clear()
        loss = self.loss(x, y)
        self._check_loss(loss)
        calls = [] if watch is None else list(watch.calls)
        found, deltas = sweep_named(
            loss, [call.pre_activation for call in calls], caller=(self, (x, y))
        )
        for call, delta in zip(calls, deltas, strict=True):
            call.delta = delta
        ordered = [name for name in self._parameters if name in found]
        if self._parameters and not ordered:
            raise ValueError(
                f"the loss of {type(self).__name__} depends on none of its parameters"
                + ("" if mode().recording else ": inside no_grad nothing is remembered")
            )
        others = [name for name in found if name not in self._parameters]
        return {name: found[name] for name in ordered + others}, loss

    def _check_loss(self, loss: Any) -> None:
        if not isinstance(loss, Node):
            raise TypeError(
                f"{type(self).__name__}.loss must give a Node, got {type(loss).__name__}"
            )
        if loss.shape[-2:] != (1, 1):
            raise ShapeError(
                f"{type(self).__name__}.loss must give one number, got shape {loss.shape}; add "
                ".sum() or .mean()"
            )

    def forward(self, x: Any) -> Node:
        """Output of the model for a batch; the subclass's."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x)")

    def loss(self, x: Any, y: Any) -> Node:
        """Loss of the model on a batch; the subclass's."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss(x, y)")


_STATISTICS_ROWS: ContextVar[int | None] = ContextVar("dp_statistics_rows", default=None)


@contextlib.contextmanager
def _statistics_of(rows: int) -> Iterator[None]:
    """Let batch normalisation take its statistics from the first rows of the batch only."""
    token = _STATISTICS_ROWS.set(rows)
    try:
        yield
    finally:
        _STATISTICS_ROWS.reset(token)


class Net(Model):
    """A fully connected net of any depth and width, for classification.

    Hidden layers are named h1 … hL, the output layer `out`. With one output the net ends in a
    sigmoid and its labels are a column of 0 and 1; with more it ends in a softmax and its labels
    are one-hot rows.

    Parameters
    ----------
    n_features, n_hidden_neurons, n_layers : int
        Inputs, units per hidden layer, and number of hidden layers.
    act_func : str, Activation or callable
        φ of the hidden layers: a name in `dp.activations.ACTIVATIONS`, or a function Node -> Node.
    n_outputs : int
        1, or the number of classes.
    init : str or Initializer
        A name in `dp.initializers.INITIALIZERS`.
    init_scale : float
        Factor on the first weights (not the biases).
    normalisation : "none", "layer" or "batch"
        Of the pre-activations of hidden layers, to mean 0 and variance 1 over a sample's units or
        over the batch, with a learned gain and shift. "batch" uses the statistics of the batch at
        hand, in training and afterwards.
    residual : bool
        Add a hidden layer's input to its output, wherever both have the same width.
    loss : "cross_entropy" or "squared_error"
        Cross-entropy is computed from the logits; the squared error is ½ Σ (p - y)².
    reduction : "sum" or "mean"
        Of the loss over the batch.
    seed, dtype
        See `Model`.

    Raises
    ------
    ValueError
        For an unknown name or a number that is not positive, naming what would be accepted; in
        `loss`, for an empty batch.

    Examples
    --------
    >>> from dp import Net
    >>> net = Net(4, 10, 3, "tanh", seed=0)
    >>> net.forward([[5.1, 3.5, 1.4, 0.2]]).shape
    (1, 1)
    """

    def __init__(
        self,
        n_features: int,
        n_hidden_neurons: int,
        n_layers: int,
        act_func: str | activations.Activation | Callable[[Node], Node] = "tanh",
        *,
        n_outputs: int = 1,
        init: str | initializers.Initializer = "dp",
        init_scale: float = 1.0,
        normalisation: Normalisation = "none",
        residual: bool = False,
        loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
        reduction: losses.Reduction = "sum",
        seed: int | Sequence[int] | None = None,
        dtype: Any = np.float64,
    ) -> None:
        super().__init__(seed, dtype)
        for what, number in (
            ("n_features", n_features),
            ("n_hidden_neurons", n_hidden_neurons),
            ("n_layers", n_layers),
            ("n_outputs", n_outputs),
        ):
            positive_integer(what, number)
        one_of("normalisation", normalisation, ("none", "layer", "batch"))
        one_of("loss", loss, ("cross_entropy", "squared_error"))
        one_of("reduction", reduction, ("sum", "mean"))
        positive_number("init_scale", init_scale)
        activation: Any = act_func if callable(act_func) else activations.get(act_func)
        self.activation = activation
        self.n_outputs = n_outputs
        self.normalisation, self.residual = normalisation, residual
        self.loss_name, self.reduction = loss, reduction
        self._hidden: list[Layer] = []
        width = n_features
        for number in range(1, n_layers + 1):
            name = f"h{number}"
            layer = self._layer(width, n_hidden_neurons, name, init, activation)
            if normalisation != "none":
                layer.normalise = self._normalisation(name, n_hidden_neurons, normalisation)
            self._hidden.append(layer)
            width = n_hidden_neurons
        self._out = self.Linear_Layer(width, n_outputs, "out", init)
        if init_scale != 1.0:
            for layer in self._layers.values():
                layer.weight.value *= init_scale

    def logits(self, x: Any, like: Any = None) -> Node:
        """Pre-activations of the output layer, (…, batch, n_outputs); `like` as in `forward`."""
        x = as_leaf(x, self.dtype)
        if like is not None and self.normalisation == "batch":
            like = as_leaf(like, self.dtype)
            rows = like.shape[-2]
            with _statistics_of(rows):
                return self.logits(like.concatenate(x))[rows:]
        for layer in self._hidden:
            out = layer(x)
            x = x + out if self.residual and layer.fan_in == layer.fan_out else out
        return self._out(x)

    def forward(self, x: Any, like: Any = None) -> Node:
        """Probabilities, (…, batch, n_outputs): of class 1, or of every class.

        Parameters
        ----------
        x : Node or array (…, batch, n_features)
        like : Node or array (…, rows, n_features), optional
            A batch of which batch normalisation takes its statistics, instead of x.
        """
        logits = self.logits(x, like)
        return logits.sigmoid() if self.n_outputs == 1 else logits.softmax()

    def loss(self, x: Any, y: Any) -> Node:
        """Loss over the batch, (…, 1, 1)."""
        x = as_leaf(x, self.dtype)
        if not x.shape[-2]:
            raise ValueError(
                f"the batch is empty: x has shape {x.shape}; at least one row is needed"
            )
        if self.loss_name == "squared_error":
            return losses.squared_error(self.forward(x), y, self.reduction)
        if self.n_outputs == 1:
            return losses.binary_cross_entropy(self.logits(x), y, self.reduction)
        return losses.categorical_cross_entropy(self.logits(x), y, self.reduction)

    def _normalisation(self, name: str, width: int, over: Normalisation) -> Callable[[Node], Node]:
        """Register a layer's gain and shift; gives the function that normalises."""
        stack = () if self.members is None else (self.members,)
        gain = self._parameter(f"{name}_gain", np.ones((*stack, 1, width)))
        shift = self._parameter(f"{name}_shift", np.zeros((*stack, 1, width)))
        axis = 1 if over == "layer" else 0

        def normalise(h: Node) -> Node:
            rows = _STATISTICS_ROWS.get()
            known = h if axis == 1 or rows is None else h[:rows]
            mean = known.mean(axis)
            variance = (known - mean).square().mean(axis)
            return (h - mean) / (variance + 1e-5).sqrt() * gain + shift

        return normalise
