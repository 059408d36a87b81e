"""Model: the base class of all models, with layers and parameters by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from dp import activations, initializers
from dp.errors import ShapeError
from dp.layers import WATCH, Layer
from dp.mode import mode
from dp.node import Node
from dp.order import topological_order
from dp.parameters import KEPT, Registered, fitting, kept_of
from dp.sweep import sweep_named
from dp.typing import Array
from dp.untrained import (
    check_layers,
    check_listed,
    check_named,
    check_stack,
    warn_of_constants,
    warn_of_others,
)
from dp.validation import shown, unknown
from dp.watching import watchers


class View:
    """An attribute that shows part of what the library stores for a model.

    Not a data descriptor, so that a student may set `self.layers = []`: the library itself reads
    `registered(model)`.
    """

    def __init__(self, read: Callable[[Registered], Any], doc: str) -> None:
        self.read, self.__doc__ = read, doc

    def __get__(self, model: Any, owner: type) -> Any:
        return self if model is None else self.read(kept_of(model))


class Model:
    """Parameters by name, and their gradients; subclasses define `forward` and `loss`.

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
        kept = kept_of(self)
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
        return kept_of(self).add_layer(fan_in, fan_out, name, init)

    def ReLu_Layer(
        self, fan_in: int, fan_out: int, name: str, init: str | initializers.Initializer = "dp"
    ) -> Layer:
        """Make an affine layer followed by a ReLU; parameters as in `Linear_Layer`."""
        return kept_of(self).add_layer(fan_in, fan_out, name, init, activations.get("relu"))

    def Parameter(self, value: Any, name: str) -> Node:
        """Make a parameter of your own, which optimisers train as they do a layer's weights.

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
            If the name is not text or is taken, or the value is not made of finite real numbers.

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
        kept = kept_of(self)
        return kept.register(name, kept.first_value(value, name))

    # --- parameters -------------------------------------------------------------------------------

    def get_param(self) -> dict[str, Array]:
        """Name -> the live array: changing it in place changes the model."""
        return {name: node.value for name, node in kept_of(self).parameters.items()}

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
        parameters = kept_of(self).parameters
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
        parameters = kept_of(self).parameters
        ordered = [name for name in parameters if name in found]
        _check_trained(self, loss, named, (x, y))
        if parameters and not ordered and not found.keys() & self.get_param().keys():
            raise ValueError(
                f"the loss of {type(self).__name__} depends on none of its parameters"
                + ("" if mode().recording else ": inside no_grad nothing is remembered")
            )
        if len(ordered) < len(parameters):
            check_layers(type(self).__name__, kept_of(self))
        warn_of_constants(type(self).__name__, kept_of(self), loss)
        others = [name for name in found if name not in parameters]
        return {name: found[name] for name in ordered + others}, loss

    def forward(self, x: Any) -> Node:
        """Output of the model for a batch; defined by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x)")

    def loss(self, x: Any, y: Any) -> Node:
        """Loss of the model on a batch; defined by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss(x, y)")


# Functions, not methods, which a student's attribute or method of the same name would replace.


def _check_loss(model: Model, loss: Any) -> None:
    if not isinstance(loss, Node):
        raise TypeError(f"{type(model).__name__}.loss must give a Node, got {type(loss).__name__}")
    if loss.shape[-2:] != (1, 1):
        raise ShapeError(
            f"{type(model).__name__}.loss must give one number, got shape {loss.shape}; add "
            ".sum() or .mean()"
        )
    if loss.value.ndim > 2:
        check_stack(type(model).__name__, kept_of(model), loss.shape)


def _check_trained(model: Model, loss: Node, named: Mapping[str, Node], given: Any) -> None:
    """Refuse a loss with a parameter that no optimiser would train."""
    parameters, owner = kept_of(model).parameters, type(model).__name__
    own = type(model).get_param is not Model.get_param
    if not own:
        for name, node in named.items():
            if parameters.get(name) is not node:
                break
        else:
            return
    listed = model.get_param() if own else {}
    others = check_named(owner, named, parameters, listed, vars(model), given)
    warn_of_others(owner, kept_of(model), others)
    missing = [name for name in listed if name not in named and name not in parameters]
    if missing:
        check_listed(owner, {name: listed[name] for name in missing}, topological_order(loss))


def _listed(model: Model, name: str) -> Array:
    """The live array of a parameter that only the subclass's `get_param` lists.

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
