"""Parameters of a model: where they are kept, what may be written into them, and whose they are."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.backward import topological_order
from dp.node import Node, ShapeError, as_matrix
from dp.validation import NumbersError, real_array, seeds, shown

if TYPE_CHECKING:
    from dp.layers import Layer

Array = NDArray[Any]


_OWNED: weakref.WeakSet[Node] = weakref.WeakSet()  # the parameters of all models


class Registered:
    """What the library keeps of a model, apart from the attributes a student may set.

    Attributes
    ----------
    dtype : dtype
        Of every parameter.
    seed
        As it was given.
    members : int or None
        Of an ensemble.
    layers : dict
        Name -> Layer.
    parameters : dict
        Name -> Node, in the order in which they were made.
    streams : list of Generators, or None
        That initial weights are drawn from, one per member; None is NumPy's global stream, which is
        a module and could not be copied with the model.
    """

    __slots__ = ("dtype", "layers", "members", "parameters", "seed", "streams", "told")

    def __init__(self, seed: int | Sequence[int] | None, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise TypeError(f"dtype must be a floating type such as float32, got {dtype!r}")
        self.seed = seed
        self.members: int | None = None
        self.layers: dict[str, Layer] = {}
        self.parameters: dict[str, Node] = {}
        self.told: set[str] = set()  # of which parameters of other models a warning was given
        self.streams: list[np.random.Generator] | None = None
        if seed is not None:
            self.streams = [np.random.default_rng(one) for one in seeds(seed)]
            if np.ndim(seed) > 0:
                self.members = len(self.streams)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, name, value)
        _OWNED.update(self.parameters.values())  # a copy's own

    def drawn(self, draw: Callable[[Any], Any]) -> list[Any]:
        """What `draw` gives for the stream of each member in turn."""
        streams: list[Any] = [np.random] if self.streams is None else list(self.streams)
        return [draw(stream) for stream in streams]

    def stacked(self, drawn: Sequence[Array]) -> Array:
        """One array of the members' arrays: the first alone, where there is no ensemble."""
        return np.stack(drawn) if self.members else drawn[0]

    def register(self, name: Any, value: Array) -> Node:
        """Make a parameter of a copy of `value`.

        Raises
        ------
        TypeError, ValueError
            If the name is none, or is taken.
        """
        self.check_free(name)
        node = Node(np.array(numbers_of(value, self.dtype, name)), name)
        self.parameters[name] = node
        _OWNED.add(node)
        return node

    def check_free(self, name: Any) -> None:
        """Raise TypeError if it is no name, and ValueError if a parameter has it already."""
        if not isinstance(name, str) or not name:
            raise TypeError(
                'a parameter needs a name: self.Parameter(value, "gamma"); got the name '
                f"{shown(name)}"
            )
        if name in self.parameters:
            raise ValueError(
                f"parameter name {name!r} is taken; this model has {', '.join(self.parameters)}. "
                "Each is made once, in __init__"
            )

    def first_value(self, value: Any, name: Any) -> Array:
        """The first value of a parameter of one's own, for every member; see `Model.Parameter`."""
        self.check_free(name)
        if callable(value) and not isinstance(value, Node):
            drawn = [numbers_of(one, self.dtype, name) for one in self.drawn(value)]
            return self.stacked([_finite(as_matrix(one), name) for one in drawn])
        if isinstance(value, Node):
            if value.primitive is not None:
                raise TypeError(
                    f"the first value of parameter {name!r} is a computed Node ({value!r}); a "
                    "parameter depends on nothing: give an array, such as node.value"
                )
            value = value.value
        array = _finite(as_matrix(numbers_of(value, self.dtype, name)), name)
        if self.members is None or (array.ndim > 2 and array.shape[0] == self.members):
            return array
        if array.ndim > 2:
            raise ShapeError(
                f"the first value of parameter {name!r} has shape {array.shape}; in an ensemble of "
                f"{self.members} members it must be a matrix, which each of them gets, or have "
                f"{self.members} of them along its first axis"
            )
        return np.stack([array] * self.members)


KEPT = "_dp_registered"


def registered(model: Any) -> Registered | None:
    """What the library keeps of a model, whatever attributes of its own it has; None of others."""
    found: Registered | None = getattr(model, "__dict__", {}).get(KEPT)
    return found


def members_of(model: Any) -> int | None:
    """How many members a model has; None if it is no ensemble, or none of the library's models."""
    kept = registered(model)
    return None if kept is None else kept.members


def numbers_of(value: Any, dtype: np.dtype[Any], name: Any) -> Array:
    """Give a value for a parameter as an array of `dtype`.

    NaN and infinities that are there already are numbers like others, as training may end in them;
    what would only become one (text, None, numbers too large for the dtype) is refused.

    Raises
    ------
    NumbersError
        If it is not made of real numbers, naming the parameter and what it is.
    """
    if type(value) is np.ndarray and value.dtype == dtype:
        return value
    if isinstance(value, Node):
        raise NumbersError(f"parameter {name!r} is given a Node ({value!r}); write node.value")
    try:
        array = real_array(value)
    except TypeError as error:
        raise NumbersError(f"parameter {name!r}: {error}") from None
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    overflows = np.isfinite(array) & ~np.isfinite(cast)
    if overflows.any():
        raise NumbersError(
            f"parameter {name!r} is given numbers too large for {dtype}, such as "
            f"{array[overflows].flat[0]:g}"
        )
    return cast


def _finite(array: Array, name: Any) -> Array:
    if not np.isfinite(array).all():
        raise NumbersError(
            f"the first value of parameter {name!r} has {array[~np.isfinite(array)].flat[0]}; all "
            "its entries must be finite"
        )
    return array


def fitting(value: Any, live: Array, name: str) -> Array:
    """Give a value that can be copied into a parameter's live array.

    Raises
    ------
    NumbersError
        See `numbers_of`.
    ShapeError
        If it has another shape.
    """
    array = numbers_of(value, live.dtype, name)
    if array.shape != live.shape:
        raise ShapeError(
            f"parameter {name!r} has shape {live.shape}, the given value {array.shape}"
        )
    return array


# --- named Nodes that are no parameters -----------------------------------------------------------


def check_named(
    owner: str,
    named: Mapping[str, Node],
    parameters: Mapping[str, Node],
    listed: Mapping[str, Any],
    kept: Mapping[str, Any],
    given: tuple[Any, Any],
) -> list[str]:
    """Refuse a named Node that a loss depends on, and that no optimiser would train.

    Gives the names of those that are parameters of other models.

    Parameters
    ----------
    owner : str
        Class of the model.
    named : dict
        Name -> the Node of this name that the loss depends on.
    parameters : dict
        Name -> Node, the model's own.
    listed : dict
        What the model's `get_param` gives, which a subclass may have extended.
    kept : dict
        The model's attributes.
    given : (x, y)
        The batch; its Nodes may be named.

    Raises
    ------
    ValueError
        Naming the Node, and how a parameter is made.
    """
    inputs: list[Node] | None = None
    others = []
    for name, node in named.items():
        own = parameters.get(name)
        if own is node:
            continue
        if own is not None:
            raise ValueError(
                f"the loss of {owner} depends on a Node named {name!r} that is not the model's "
                f"parameter of this name ({node.shape}, the parameter {own.shape}), so it would "
                "not be trained; use the model's own Node, and change its numbers with set_param"
            )
        if node.primitive is not None or name in listed:
            continue
        if inputs is None:
            inputs = [one for part in given for one in _nodes_of(part)]
        if node in _OWNED:
            others.append(name)
        elif not _is_input(node, inputs, any(node is value for value in kept.values())):
            raise ValueError(
                f"the loss of {owner} depends on the Node {name!r}, which is no parameter of the "
                "model and would never be trained. Make it one in __init__: "
                f'self.{_attribute(name)} = self.Parameter(value, "{name}"). If it is data, leave '
                f"its name out. (Its shape is {node.shape}; it is not part of the batch.)"
            )

    return others


def of_other_models(nodes: Mapping[str, Node], own: Mapping[str, Node]) -> list[str]:
    """The names of those Nodes that are parameters, and none of these."""
    return sorted(n for n, node in nodes.items() if node in _OWNED and own.get(n) is not node)


def warn_of_others(owner: str, kept: Registered, names: list[str]) -> None:
    """Warn, once, that training a model leaves parameters of other models as they are."""
    new = [name for name in names if name not in kept.told]
    if new:
        kept.told.update(new)
        warnings.warn(
            f"the loss of {owner} depends on parameters of another model ({', '.join(new)}), which "
            f"training this {owner} leaves as they are. If they are to be trained with it, list "
            "them in get_param: return {**super().get_param(), **self.other.get_param()}",
            stacklevel=5,
        )


def check_layers(owner: str, kept: Registered) -> None:
    """Refuse a layer with another Node in the place of its weight or bias.

    One with a name is found in the loss by `check_named`; one without is a constant there.
    """
    for layer in kept.layers.values():
        for part, node in (("weight", layer.weight), ("bias", layer.bias)):
            own = kept.parameters.get(f"{layer.name}_{part}")
            if own is not None and own is not node:
                raise ValueError(
                    f"the {part} of layer {layer.name!r} of {owner} was replaced by a Node that is "
                    f"no parameter, so it would not be trained; change the numbers of the layer's "
                    f"own Node instead: layer.{part}.value[...] = array, or set_param"
                )


def check_stack(owner: str, kept: Registered, shape: tuple[int, ...]) -> None:
    """Refuse several losses, one per matrix of a stack, that share a parameter.

    In an ensemble each member has its own loss and its own parameters. Where losses share
    parameters, the sweep would give the gradient of their sum, whatever the model means by them.

    Raises
    ------
    ShapeError
        Naming the parameter.
    """
    for name, node in kept.parameters.items():
        if node.shape[:-2] != shape[:-2]:
            raise ShapeError(
                f"{owner}.loss must give one number, got a stack of them, of shape {shape}: the "
                f"axes before the last two stand for the members of an ensemble, but the parameter "
                f"{name!r} has shape {node.shape}. Data and indices of more than two dimensions "
                "make such a stack; give 2-D data, and pick rows by a 1-D index: "
                "table[words.ravel()].reshape(len(words), -1)"
            )


def warn_of_constants(owner: str, kept: Registered, loss: Node) -> None:
    """Warn, once, of a parameter's array in the place of its Node: no gradient flows through it."""
    if _LOOKED in kept.told:
        return
    kept.told.add(_LOOKED)
    for leaf in topological_order(loss):
        if leaf.primitive is not None or leaf.name is not None:
            continue
        for name, node in kept.parameters.items():
            if np.may_share_memory(leaf.value, node.value) and np.shares_memory(
                leaf.value, node.value
            ):
                warnings.warn(
                    f"the loss of {owner} takes the array of the parameter {name!r} for a "
                    "constant, through which no gradient flows; compute with its Node "
                    "(layer.weight, or what self.Parameter gives). If a constant is meant, take a "
                    "copy of the array",
                    stacklevel=3,
                )


_LOOKED = ""  # no parameter has this name


def check_listed(owner: str, listed: Mapping[str, Any], order: Sequence[Node]) -> None:
    """Refuse a parameter that `get_param` lists, and whose Node has no name to report it by."""
    for name, value in listed.items():
        for node in order:
            if node.primitive is None and node.name is None and node.value is value:
                raise ValueError(
                    f"{owner}.get_param lists {name!r}, but its Node has no name, so its gradient "
                    f'is not reported and it would not be trained; write Node(value, "{name}"), or '
                    f'self.Parameter(value, "{name}")'
                )


def _nodes_of(given: Any) -> Iterator[Node]:
    """Every Node of a batch, with those it was computed from; arrays as Nodes."""
    if isinstance(given, Node):
        yield from topological_order(given)
    elif isinstance(given, Mapping):
        yield from _nodes_of(tuple(given.values()))
    elif isinstance(given, (tuple, list)) and not all(isinstance(g, Real) for g in given):
        for part in given:
            yield from _nodes_of(part)
        with contextlib.suppress(TypeError):
            yield Node(given)  # rows as lists
    else:
        with contextlib.suppress(TypeError):  # whatever else a loss may take
            yield Node(given)


def _is_input(node: Node, inputs: list[Node], kept: bool) -> bool:
    """Whether a Node is one of a batch, or was made of its numbers."""
    for one in inputs:
        if one is node or np.may_share_memory(one.value, node.value):
            return True
        if not kept and one.shape == node.shape and np.array_equal(one.value, node.value):
            return True
    return False


def _attribute(name: str) -> str:
    return name if name.isidentifier() else "w"
