"""What NumPy's functions do with Nodes: the operation that has a derivative, or an error.

`Node.__array_ufunc__` and `Node.__array_function__` look here. Nothing turns a Node into a plain
array in silence, as its gradient would be lost.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dp import primitives as p

# Functions that are one operation of the table.
PRIMITIVES: dict[Any, p.Primitive] = {
    np.add: p.add,
    np.subtract: p.subtract,
    np.multiply: p.multiply,
    np.divide: p.divide,
    np.power: p.power,
    np.negative: p.negative,
    np.matmul: p.dot,
    np.exp: p.exp,
    np.expm1: p.expm1,
    np.log: p.log,
    np.log1p: p.log1p,
    np.sqrt: p.sqrt,
    np.square: p.square,
    np.sin: p.sin,
    np.cos: p.cos,
    np.tanh: p.tanh,
    np.sign: p.sign,
    np.absolute: p.absolute,
    np.fabs: p.absolute,
    np.maximum: p.maximum,
    np.minimum: p.minimum,
    np.greater: p.greater,
    np.greater_equal: p.greater_equal,
    np.less: p.less,
    np.less_equal: p.less_equal,
    np.equal: p.equal,
}
COMPARISONS = frozenset((p.greater, p.greater_equal, p.less, p.less_equal, p.equal))


def _either_side(method: str) -> Callable[..., Any]:
    """A symmetric method, called on whichever operand is a Node."""

    def apply(a: Any, b: Any) -> Any:
        node, other = (a, b) if isinstance(a, p.Recorded) else (b, a)
        return getattr(node, method)(other)

    return apply


# Functions that are a few operations, given Nodes and arrays.
COMPOSED: dict[Any, Callable[..., Any]] = {
    np.not_equal: lambda a, b: 1.0 - np.equal(a, b),
    np.logical_not: lambda a: ~a,
    np.invert: lambda a: ~a,
    np.logical_and: _either_side("__and__"),
    np.logical_or: _either_side("__or__"),
    np.bitwise_and: _either_side("__and__"),
    np.bitwise_or: _either_side("__or__"),
    np.bitwise_xor: _either_side("__xor__"),
    np.positive: lambda a: a,
    np.reciprocal: lambda a: 1.0 / a,
    np.log2: lambda a: p.log(a) / math.log(2.0),
    np.log10: lambda a: p.log(a) / math.log(10.0),
}


def _reduction(method: str) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, *, keepdims: Any = True) -> Any:
        return getattr(a, method)(axis, keepdims=keepdims)

    return reduce


def _spread(method: str) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: Any = True) -> Any:
        return getattr(a, method)(axis, ddof=ddof, keepdims=keepdims)

    return reduce


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: Any = True) -> Any:  # noqa: A002
    if (
        ord is not None
        and not (ord == "fro" and axis is None)
        and not (ord == 2 and axis in (0, 1))
    ):
        raise TypeError(f"a Node's norm is the root of the sum of squares, not ord={ord!r}")
    return x.norm(axis, keepdims=keepdims)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, **limits: Any) -> Any:
    if set(limits) - {"min", "max"}:
        raise TypeError(f"np.clip of a Node takes two limits, not {sorted(limits)}")
    return a.clip(limits.get("min", a_min), limits.get("max", a_max))


def _where(condition: Any, *choices: Any) -> Any:
    if len(choices) != 2:
        raise TypeError("np.where of a Node takes what to choose from: np.where(mask, a, b)")
    return p.where(condition, *choices)


def _joined(axis: int | None) -> Callable[..., Any]:
    def join(parts: Any, given: Any = 0 if axis is None else axis) -> Any:
        first: Any = next((part for part in parts if isinstance(part, p.Recorded)), None)
        if first is None or isinstance(parts, p.Recorded):
            raise TypeError("it takes a list of Nodes and arrays")
        return first.joined(list(parts), given)

    def concatenate(arrays: Any, axis: Any = 0) -> Any:
        return join(arrays, axis)

    def stacked(tup: Any) -> Any:
        return join(tup)

    return concatenate if axis is None else stacked


# Functions that take axes or shapes: those of a matrix.
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _reduction("sum"),
    np.mean: _reduction("mean"),
    np.max: _reduction("max"),
    np.min: _reduction("min"),
    np.amax: _reduction("max"),
    np.amin: _reduction("min"),
    np.var: _spread("var"),
    np.std: _spread("std"),
    np.linalg.norm: _norm,
    np.dot: lambda a, b: p.dot(a, b),
    np.transpose: lambda a: a.transpose(),
    np.reshape: lambda a, shape: a.reshape(shape),
    np.ravel: lambda a: a.flatten(),
    np.concatenate: _joined(None),
    np.vstack: _joined(0),
    np.hstack: _joined(1),
    np.column_stack: _joined(1),
}
# Functions that act on each entry, also in a stack.
ENTRYWISE: dict[Any, Callable[..., Any]] = {
    np.clip: _clip,
    np.round: lambda a, decimals=0: a.round(decimals),
    np.around: lambda a, decimals=0: a.round(decimals),
    np.where: _where,
    # without a derivative
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: lambda a: a.size,
    np.zeros_like: lambda a: np.zeros_like(a.value),
    np.ones_like: lambda a: np.ones_like(a.value),
}
_HINTS = {
    "argmax": "node.argmax(axis)",
    "argmin": "node.argmin(axis)",
    "stack": "dp.concatenate(nodes, axis)",
    "append": "dp.concatenate([a, b], axis)",
    "array_equal": "dp.equal(a, b), which compares entries",
}


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: Any) -> Any:
    """What a universal function that is no operation of the table gives.

    Raises
    ------
    TypeError
        If it has no derivative here, or is called with options, such as out=.
    """
    made = COMPOSED.get(ufunc)
    if made is None or method != "__call__" or options:
        known = ", ".join(sorted(f"np.{f.__name__}" for f in (*PRIMITIVES, *COMPOSED)))
        call = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        raise TypeError(
            f"{call} has no derivative here and would lose the gradient; write node.value for the "
            f"plain array, declare it with its derivative (dp.declare), or use one of {known} "
            "(without out= or where=)"
        )
    return made(*inputs)


def apply_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What another function of NumPy gives.

    Raises
    ------
    TypeError
        If there is no operation with a derivative for it, or not with these arguments.
    """
    of_axes = FUNCTIONS.get(function)
    made = of_axes or ENTRYWISE.get(function)
    name = getattr(function, "__name__", str(function))
    if made is None or not args:
        raise TypeError(_refusal(function, name, "with these arguments does not know Nodes"))
    try:
        bound = inspect.signature(made).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(
            _refusal(function, name, f"does not know this for Nodes ({error})")
        ) from None
    if of_axes is not None and any(_stacked(argument) for argument in args):
        method = "concatenate" if "stack" in name else name
        raise TypeError(
            f"np.{name} and node.{method} mean different axes in a stack of matrices; write "
            f"node.{method}, or node.value for the plain array"
        )
    try:
        return made(*bound.args, **bound.kwargs)
    except TypeError as error:
        raise TypeError(_refusal(function, name, f"cannot do this with Nodes ({error})")) from error


def _stacked(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(_stacked(part) for part in argument)
    node: Any = argument
    return isinstance(argument, p.Recorded) and node.ndim > 2


def _refusal(function: Any, name: str, why: str) -> str:
    module = str(getattr(function, "__module__", "numpy")).replace("numpy", "np")
    hint = f"{_HINTS[name]}, " if name in _HINTS else ""
    return (
        f"{module}.{name} {why}, and would lose the gradient; write node.value for the plain "
        f"array, or use {hint}the Node's own methods"
    )
