"""Models: named parameters, layers, and a net of any depth and width."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dp import activations, initializers, losses
from dp.backward import sweep_named, topological_order
from dp.layers import (
    WATCH,
    Layer,
    LayerCall,
    LayerWatch,
    activation_after,
    consumers_of,
    watch_layers,
)
from dp.node import Node, ShapeError, as_leaf, mode
from dp.parameters import (
    KEPT,
    Registered,
    check_layers,
    check_listed,
    check_named,
    check_stack,
    fitting,
    registered,
    warn_of_constants,
    warn_of_others,
)
from dp.validation import one_of, positive_integer, positive_number, shown, unknown
from dp.watching import watchers

__all__ = [
    "Layer",
    "LayerCall",
    "LayerWatch",
    "Model",
    "Net",
    "activation_after",
    "consumers_of",
    "registered",
    "watch_layers",
]

Array = NDArray[Any]
Normalisation = Literal["none", "layer", "batch"]


class View:
    """An attribute that shows what the library keeps.

    No data descriptor, so that a student's own `self.layers = []` may stand: the library itself
    looks at `registered(model)`.
    """

    def __init__(self, read: Callable[[Registered], Any], doc: str) -> None:
        self.read, self.__doc__ = read, doc

    def __get__(self, model: Any, owner: type) -> Any:
        return self if model is None else self.read(_kept(model))


def _kept(model: Model) -> Registered:
    try:
        found: Registered = model.__dict__[KEPT]
    except KeyError:
        raise RuntimeError(
            f"{type(model).__name__}.__init__ must call super().__init__() before it makes layers "
            "or parameters"
        ) from None
    return found


class Model:
    """Parameters by name, and their gradients; `forward` and `loss` are the subclass's.

    Parameters
    ----------
    seed : int, sequence of ints, or None
        Of the initial weights. None draws from NumPy's global stream (`np.random.seed`). A sequence
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
        self.__dict__[KEPT] = Registered(seed, dtype)

    dtype = View(lambda kept: kept.dtype, "Data type of every parameter.")
    seed = View(lambda kept: kept.seed, "Seed of the initial weights, as it was given.")
    members = View(lambda kept: kept.members, "Number of members of an ensemble, or None.")
    layers = View(lambda kept: kept.layers, "Name -> Layer.")
    parameters = View(
        lambda kept: MappingProxyType(kept.parameters),
        "Name -> the parameter's Node, in the order in which they were made.",
    )

    def __repr__(self) -> str:
        kept = _kept(self)
        own = [
            name
            for name in kept.parameters
            if not any(name.startswith(f"{layer}_") for layer in kept.layers)
        ]
        parts = [
            *map(repr, kept.layers.values()),
            *(
                f"<parameter {name!r} {'×'.join(map(str, kept.parameters[name].shape))}>"
                for name in own
            ),
        ]
        parts += [f"{kept.members} members"] if kept.members else []
        return f"<{type(self).__name__}: {', '.join(parts)}>"

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
            How initial weights are drawn; by default as the course does: uniform with bound
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
        return _layer(self, fan_in, fan_out, name, init, None)

    def ReLu_Layer(
        self, fan_in: int, fan_out: int, name: str, init: str | initializers.Initializer = "dp"
    ) -> Layer:
        """Make an affine layer followed by a ReLU; parameters as in `Linear_Layer`."""
        return _layer(self, fan_in, fan_out, name, init, activations.get("relu"))

    def Parameter(self, value: Any, name: str) -> Node:
        """Make a parameter of one's own, which optimisers train as they do a layer's weights.

        Parameters
        ----------
        value : number, array_like or callable
            First value, of which a copy is taken: a matrix, or what `Node` makes one of (a 1-D
            array becomes a column). In an ensemble every member starts with it, or with its own
            part of an array that has the members along its first axis. A function is called with
            the random stream that weights are drawn from, for each member in turn: `lambda
            stream: stream.normal(size=(3, 4))`.
        name : str
            Under which `get_param` and `get_grad` report it; not yet taken in this model.

        Returns
        -------
        Node
            To compute with: (n, m), or (members, n, m).

        Raises
        ------
        TypeError, ValueError
            If the name is no text or is taken, or the value is not made of finite real numbers.

        Examples
        --------
        >>> from dp import Model
        >>> class Scaled(Model):
        ...     def __init__(self):
        ...         super().__init__(seed=0)
        ...         self.out = self.Linear_Layer(2, 1, "out")
        ...         self.gamma = self.Parameter([[1.0, 1.0]], "gamma")
        ...     def loss(self, x, y):
        ...         return (self.out(x * self.gamma) - y).square().mean()
        >>> list(Scaled().get_param())
        ['out_weight', 'out_bias', 'gamma']
        """
        kept = _kept(self)
        return kept.register(name, kept.first_value(value, name))

    # --- parameters -------------------------------------------------------------------------------

    def get_param(self) -> dict[str, Array]:
        """Name -> the live array: changing it in place changes the model."""
        return {name: node.value for name, node in _kept(self).parameters.items()}

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
        if type(param) is not dict and not isinstance(param, Mapping):  # the first is faster
            raise TypeError(
                "set_param takes a dict of names and arrays, as get_param gives it; got "
                f"{shown(param)}"
            )
        parameters = _kept(self).parameters
        new: list[tuple[Array, Array]] = []
        for name, value in param.items():
            live = parameters[name].value if name in parameters else _listed(self, name)
            if value is not live:
                new.append((live, fitting(value, live, name)))
        for live, value in new:
            live[...] = value
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
        watch = WATCH.get()
        if watch is not None:
            watch.clear()
        try:
            loss = self.loss(x, y)
        except TypeError:
            if not callable(self.loss):
                raise TypeError(
                    f"{type(self).__name__} has set self.loss to {shown(self.loss)}, which hides "
                    "its method loss; give the attribute another name"
                ) from None
            raise
        _check_loss(self, loss)
        calls = [] if watch is None else list(watch.calls)
        found, deltas, named = sweep_named(
            loss, [call.pre_activation for call in calls], caller=(self, (x, y))
        )
        for call, delta in zip(calls, deltas, strict=True):
            call.delta = delta
        parameters = _kept(self).parameters
        ordered = [name for name in parameters if name in found]
        _check_trained(self, loss, named, (x, y))
        if parameters and not ordered and not found.keys() & self.get_param().keys():
            raise ValueError(
                f"the loss of {type(self).__name__} depends on none of its parameters"
                + ("" if mode().recording else ": inside no_grad nothing is remembered")
            )
        if len(ordered) < len(parameters):
            check_layers(type(self).__name__, _kept(self))
        warn_of_constants(type(self).__name__, _kept(self), loss)
        others = [name for name in found if name not in parameters]
        return {name: found[name] for name in ordered + others}, loss

    def forward(self, x: Any) -> Node:
        """Output of the model for a batch; the subclass's."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x)")

    def loss(self, x: Any, y: Any) -> Node:
        """Loss of the model on a batch; the subclass's."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss(x, y)")


# No methods: a student's own attribute or method of the same name would take their place.


def _check_loss(model: Model, loss: Any) -> None:
    if not isinstance(loss, Node):
        raise TypeError(f"{type(model).__name__}.loss must give a Node, got {type(loss).__name__}")
    if loss.shape[-2:] != (1, 1):
        raise ShapeError(
            f"{type(model).__name__}.loss must give one number, got shape {loss.shape}; add "
            ".sum() or .mean()"
        )
    if loss.value.ndim > 2:
        check_stack(type(model).__name__, _kept(model), loss.shape)


def _check_trained(model: Model, loss: Node, named: Mapping[str, Node], given: Any) -> None:
    """Refuse a loss with a parameter that no optimiser would train."""
    parameters, owner = _kept(model).parameters, type(model).__name__
    own = type(model).get_param is not Model.get_param
    if not own:
        for name, node in named.items():
            if parameters.get(name) is not node:
                break
        else:
            return
    listed = model.get_param() if own else {}
    others = check_named(owner, named, parameters, listed, vars(model), given)
    warn_of_others(owner, _kept(model), others)
    missing = [name for name in listed if name not in named and name not in parameters]
    if missing:
        check_listed(owner, {name: listed[name] for name in missing}, topological_order(loss))


def _listed(model: Model, name: str) -> Array:
    """The live array of a parameter that only a subclass's own get_param knows.

    Raises
    ------
    KeyError
        If it does not know it either.
    ValueError
        If what it gives is a copy, in which a new value would be lost.
    """
    names: Mapping[str, Any] = model.get_param()
    if name not in names:
        raise KeyError(unknown("parameter", name, names))
    live, again = names[name], model.get_param()[name]
    if isinstance(live, Node):
        raise TypeError(
            f"{type(model).__name__}.get_param gives {name!r} as a Node; it must give the live "
            "array, node.value"
        )
    if not isinstance(live, np.ndarray) or not np.shares_memory(live, again):
        raise ValueError(
            f"{type(model).__name__}.get_param gives a copy of {name!r}, into which set_param "
            "cannot write; give the live array (node.value), override set_param as well, or make "
            f'the parameter with self.Parameter(value, "{name}")'
        )
    return live


def _layer(
    model: Model,
    fan_in: int,
    fan_out: int,
    name: str,
    init: str | initializers.Initializer,
    activation: Callable[[Node], Node] | None = None,
) -> Layer:
    """Make a layer, and register it with its parameters."""
    kept = _kept(model)
    positive_integer("fan_in", fan_in)
    positive_integer("fan_out", fan_out)
    if not isinstance(name, str) or not name:
        raise TypeError(f"a layer needs a name, a string such as 'h1'; got {name!r}")
    if name in kept.layers:
        raise ValueError(
            f"layer name {name!r} is taken; this model has {', '.join(kept.layers)}. Each is made "
            "once, in __init__"
        )
    for part in (f"{name}_weight", f"{name}_bias"):
        kept.check_free(part)
    how = initializers.get(init)
    # weight before bias, member by member: the order in which the course draws
    drawn = kept.drawn(lambda s: (how.weight(s, fan_in, fan_out), how.bias(s, fan_in, fan_out)))
    weight, bias = (kept.stacked(part) for part in zip(*drawn, strict=True))
    layer = Layer(
        name,
        kept.register(f"{name}_weight", weight),
        kept.register(f"{name}_bias", bias),
        activation,
    )
    kept.layers[name] = layer
    return layer


_STATISTICS_ROWS: ContextVar[int | None] = ContextVar("dp_statistics_rows", default=None)


@contextlib.contextmanager
def _statistics_of(rows: int) -> Iterator[None]:
    """Let batch normalisation take its statistics from the first rows of the batch only."""
    token = _STATISTICS_ROWS.set(rows)
    try:
        yield
    finally:
        _STATISTICS_ROWS.reset(token)


_CHAIN = f"{KEPT}_chain"  # hidden layers, then the output layer


def chain_of(net: Net) -> tuple[Layer, ...]:
    """The layers that a Net's own `forward` calls, in order, whatever else was made or taken away.

    Raises
    ------
    RuntimeError
        If the net has none, as a subclass's `__init__` did not call that of Net.
    """
    try:
        chain: tuple[Layer, ...] = vars(net)[_CHAIN]
    except KeyError:
        raise RuntimeError(
            f"{type(net).__name__}.__init__ must call super().__init__(n_features, …), which makes "
            "the layers that a Net's forward and logits call"
        ) from None
    return chain


def set_chain(net: Net, layers: Sequence[Layer]) -> None:
    """Settle which layers a Net's own `forward` calls."""
    vars(net)[_CHAIN] = tuple(layers)


class _Setting:
    """A setting of a Net: shown by its name, and checked when it is set.

    Parameters
    ----------
    accepted : tuple
        What it may be changed to; () if the layers are made by it, so that it stays.
    """

    def __init__(self, *accepted: Any) -> None:
        self.accepted = accepted

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.key = name, f"{KEPT}_{name}"

    def __get__(self, net: Any, owner: type) -> Any:
        if net is None:
            return self
        try:
            return net.__dict__[self.key]
        except KeyError:
            raise AttributeError(f"{owner.__name__} has no {self.name!r} yet") from None

    def __set__(self, net: Any, value: Any) -> None:
        if self.key in vars(net):
            if not self.accepted:
                raise AttributeError(
                    f"the {self.name} of a {type(net).__name__} is settled when it is made; make "
                    "another net, or give an attribute of your own another name"
                )
            one_of(self.name, value, self.accepted)
        vars(net)[self.key] = value


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
        Factor on the initial weights (not the biases).
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

    activation = _Setting()
    n_outputs = _Setting()
    normalisation = _Setting()
    residual = _Setting(True, False)
    loss_name = _Setting("cross_entropy", "squared_error")
    reduction = _Setting("sum", "mean")

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
        vars(self).update(
            {
                f"{KEPT}_activation": activation,
                f"{KEPT}_n_outputs": n_outputs,
                f"{KEPT}_normalisation": normalisation,
                f"{KEPT}_residual": residual,
                f"{KEPT}_loss_name": loss,
                f"{KEPT}_reduction": reduction,
            }
        )
        width = n_features
        for number in range(1, n_layers + 1):
            name = f"h{number}"
            layer = _layer(self, width, n_hidden_neurons, name, init, activation)
            if normalisation != "none":
                layer.normalise = _normalisation(self, name, n_hidden_neurons, normalisation)
            width = n_hidden_neurons
        _layer(self, width, n_outputs, "out", init)
        # apart from `layers`, to which a subclass may add its own
        layers = list(_kept(self).layers.values())
        set_chain(self, layers)
        if init_scale != 1.0:
            for layer in layers:
                layer.weight.value *= init_scale

    def logits(self, x: Any, like: Any = None) -> Node:
        """Pre-activations of the output layer, (…, batch, n_outputs); `like` as in `forward`."""
        x = as_leaf(x, _kept(self).dtype)
        if like is not None and self.normalisation == "batch":
            like = as_leaf(like, _kept(self).dtype)
            rows = like.shape[-2]
            with _statistics_of(rows):
                return self.logits(like.concatenate(x))[rows:]
        *hidden, last = chain_of(self)
        residual = self.residual
        for layer in hidden:
            out = layer(x)
            x = x + out if residual and layer.fan_in == layer.fan_out else out
        output: Node = last(x)
        return output

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
        x = as_leaf(x, _kept(self).dtype)
        if not x.shape[-2]:
            raise ValueError(
                f"the batch is empty: x has shape {x.shape}; at least one row is needed"
            )
        if self.loss_name == "squared_error":
            return losses.squared_error(self.forward(x), y, self.reduction)
        if self.n_outputs == 1:
            return losses.binary_cross_entropy(self.logits(x), y, self.reduction)
        return losses.categorical_cross_entropy(self.logits(x), y, self.reduction)


class _Normalise:
    """Mean 0 and variance 1 of pre-activations, then a learned gain and shift.

    No closure: a copied or pickled net has its own gain and shift.
    """

    def __init__(self, gain: Node, shift: Node, axis: int) -> None:
        self.gain, self.shift, self.axis = gain, shift, axis

    def __call__(self, h: Node) -> Node:
        axis, rows = self.axis, _STATISTICS_ROWS.get()
        known = h if axis == 1 or rows is None else h[:rows]
        mean = known.mean(axis)
        variance = (known - mean).square().mean(axis)
        return (h - mean) / (variance + 1e-5).sqrt() * self.gain + self.shift


def _normalisation(model: Model, name: str, width: int, over: Normalisation) -> _Normalise:
    """Register a layer's gain and shift."""
    kept = _kept(model)
    stack = () if kept.members is None else (kept.members,)
    gain = kept.register(f"{name}_gain", np.ones((*stack, 1, width)))
    shift = kept.register(f"{name}_shift", np.zeros((*stack, 1, width)))
    return _Normalise(gain, shift, 1 if over == "layer" else 0)
