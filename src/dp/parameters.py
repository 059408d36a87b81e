"""Parameters of a model: where they are stored, and which values may be written into them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dp import initializers
from dp.errors import NumbersError, ShapeError
from dp.layers import Layer
from dp.node import Node
from dp.typing import Array
from dp.validation import as_matrix, positive_integer, real_array, seeds, shown

OWNED: weakref.WeakSet[Node] = weakref.WeakSet()  # the parameters of all models


class Registered:
    """What the library stores for a model, apart from the attributes a student may set.

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

    __slots__ = ("dtype", "layers", "members", "parameters", "seed", "streams", "warned")

    def __init__(self, seed: int | Sequence[int] | None, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise TypeError(f"dtype must be a floating type such as float32, got {dtype!r}")
        self.seed = seed
        self.members: int | None = None
        self.layers: dict[str, Layer] = {}
        self.parameters: dict[str, Node] = {}
        self.warned: set[str] = set()  # names that a warning was given about
        self.streams: list[np.random.Generator] | None = None
        if seed is not None:
            self.streams = [np.random.default_rng(one) for one in seeds(seed)]
            if np.ndim(seed) > 0:
                self.members = len(self.streams)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, name, value)
        OWNED.update(self.parameters.values())  # a copy's own

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
        OWNED.add(node)
        return node

    def add_layer(
        self,
        fan_in: int,
        fan_out: int,
        name: str,
        init: str | initializers.Initializer,
        activation: Callable[[Node], Node] | None = None,
    ) -> Layer:
        """Make a layer, and register it with its parameters; see `Model.Linear_Layer`."""
        positive_integer("fan_in", fan_in)
        positive_integer("fan_out", fan_out)
        if not isinstance(name, str) or not name:
            raise TypeError(f"a layer needs a name, a string such as 'h1'; got {name!r}")
        if name in self.layers:
            raise ValueError(
                f"layer name {name!r} is taken; this model has {', '.join(self.layers)}. Each is "
                "made once, in __init__"
            )
        for part in (f"{name}_weight", f"{name}_bias"):
            self.check_free(part)
        how = initializers.get(init)
        # weight before bias, member by member: the order in which the course draws
        drawn = self.drawn(lambda s: (how.weight(s, fan_in, fan_out), how.bias(s, fan_in, fan_out)))
        weight, bias = (self.stacked(part) for part in zip(*drawn, strict=True))
        layer = Layer(
            name,
            self.register(f"{name}_weight", weight),
            self.register(f"{name}_bias", bias),
            activation,
        )
        self.layers[name] = layer
        return layer

    def check_free(self, name: Any) -> None:
        """Raise TypeError if it is not a name, and ValueError if a parameter has it already."""
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
        """The first value of a user's parameter, for every member; see `Model.Parameter`."""
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
    """What the library stores for a model; None for objects that are not a dp.Model."""
    found: Registered | None = getattr(model, "__dict__", {}).get(KEPT)
    return found


def kept_of(model: Any) -> Registered:
    """What the library stores for a model.

    Raises
    ------
    RuntimeError
        If its `__init__` has not called that of Model.
    """
    try:
        found: Registered = model.__dict__[KEPT]
    except KeyError:
        raise RuntimeError(
            f"{type(model).__name__}.__init__ must call super().__init__() before it makes layers "
            "or parameters"
        ) from None
    return found


def members_of(model: Any) -> int | None:
    """How many members a model has; None if it is not an ensemble, or not a dp.Model."""
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
