"""Net: a ready-made, fully connected net of any depth and width."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np

from dp import activations, initializers, losses
from dp.layers import Layer
from dp.model import Model
from dp.node import Node, as_leaf
from dp.parameters import KEPT, Registered, kept_of
from dp.validation import one_of, positive_integer, positive_number

Normalisation = Literal["none", "layer", "batch"]

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
    """The layers that a Net's `forward` calls, in order, without layers added later.

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
    """Set which layers a Net's `forward` calls."""
    vars(net)[_CHAIN] = tuple(layers)


class _Setting:
    """A setting of a Net: an attribute that is checked when it is set.

    Parameters
    ----------
    accepted : tuple
        What it may be changed to; () if the layers depend on it, so that it cannot change.
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
        kept, width = kept_of(self), n_features
        for number in range(1, n_layers + 1):
            name = f"h{number}"
            layer = kept.add_layer(width, n_hidden_neurons, name, init, activation)
            if normalisation != "none":
                layer.normalise = _normalisation(kept, name, n_hidden_neurons, normalisation)
            width = n_hidden_neurons
        kept.add_layer(width, n_outputs, "out", init)
        # a copy: a subclass may add layers of its own
        layers = list(kept.layers.values())
        set_chain(self, layers)
        if init_scale != 1.0:
            for layer in layers:
                layer.weight.value *= init_scale

    def logits(self, x: Any, like: Any = None) -> Node:
        """Pre-activations of the output layer, (…, batch, n_outputs); `like` as in `forward`."""
        x = as_leaf(x, kept_of(self).dtype)
        if like is not None and self.normalisation == "batch":
            like = as_leaf(like, kept_of(self).dtype)
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
        x = as_leaf(x, kept_of(self).dtype)
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

    A class, not a closure, so that a copied or pickled net has its own gain and shift.
    """

    def __init__(self, gain: Node, shift: Node, axis: int) -> None:
        self.gain, self.shift, self.axis = gain, shift, axis

    def __call__(self, h: Node) -> Node:
        axis, rows = self.axis, _STATISTICS_ROWS.get()
        known = h if axis == 1 or rows is None else h[:rows]
        mean = known.mean(axis)
        variance = (known - mean).square().mean(axis)
        return (h - mean) / (variance + 1e-5).sqrt() * self.gain + self.shift


def _normalisation(kept: Registered, name: str, width: int, over: Normalisation) -> _Normalise:
    """Register a layer's gain and shift."""
    stack = () if kept.members is None else (kept.members,)
    gain = kept.register(f"{name}_gain", np.ones((*stack, 1, width)))
    shift = kept.register(f"{name}_shift", np.zeros((*stack, 1, width)))
    return _Normalise(gain, shift, 1 if over == "layer" else 0)
