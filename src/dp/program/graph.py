"""The captured graph: what a function computes, and its gradients, as simplified values.

A `Value` is a Node without its number: an operation on other values, with shape and dtype known.
`Builder` makes them, and simplifies while it does: constants are folded, equal expressions are
shared, and what multiplies by one or adds a zero vanishes. Every rewriting gives the same floats
(up to the sign of a zero) as the expression it replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dp import primitives as p
from dp.typing import Array


class Value:
    """One number, matrix or stack in a program, known by shape and dtype.

    Attributes
    ----------
    primitive : Primitive or None
        What computes it; None for inputs, parameters and constants.
    operands : tuple of Values
    settings : dict
    shape, dtype
    array : array or None
        Of a constant.
    uniform : float or None
        Of a constant whose entries are all alike: that number.
    name : str
        What it is called in the source; "" for a passing result.
    """

    __slots__ = ("array", "dtype", "name", "operands", "primitive", "settings", "shape", "uniform")

    def __init__(
        self,
        primitive: p.Primitive | None,
        operands: tuple[Value, ...],
        settings: dict[str, Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        array: Array | None = None,
        name: str = "",
    ) -> None:
        self.primitive, self.operands, self.settings = primitive, operands, settings
        self.shape, self.dtype, self.array, self.name = shape, dtype, array, name
        self.uniform = None if array is None else _uniform(array)

    def __repr__(self) -> str:
        what = self.primitive.name if self.primitive else "constant" if self.constant else "leaf"
        return f"<value {self.name or what} {'×'.join(map(str, self.shape))} {self.dtype}>"

    @property
    def constant(self) -> bool:
        """Whether its numbers are part of the program."""
        return self.array is not None


def _uniform(array: Array) -> float | None:
    if array.dtype.kind != "f" or not array.size:
        return None
    first = array.flat[0]
    return float(first) if (array == first).all() else None


def settings_key(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Settings as something that can be compared and hashed."""
    return tuple((name, _hashable(value)) for name, value in settings.items())


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, (tuple, list)):
        return tuple(_hashable(part) for part in value)
    if isinstance(value, slice):
        return "slice", value.start, value.stop, value.step
    return value


class Builder:
    """Makes Values, each expression once, in its simplest form."""

    def __init__(self) -> None:
        self._made: dict[Any, Value] = {}

    def leaf(self, name: str, array: Array) -> Value:
        """Make an input or a parameter; only the array's shape and dtype matter."""
        return Value(None, (), {}, array.shape, array.dtype, name=name)

    def constant(self, array: Array) -> Value:
        """Make a constant; equal ones are shared."""
        key = ("constant", array.shape, array.dtype.str, array.tobytes())
        if key not in self._made:
            self._made[key] = Value(None, (), {}, array.shape, array.dtype, array.copy())
        return self._made[key]

    def apply(
        self,
        primitive: p.Primitive,
        operands: Sequence[Value],
        settings: dict[str, Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        array: Array | None = None,
    ) -> Value:
        """Apply `primitive`, or find a simpler value that is the same.

        `array` is the result where it is known already, as it is while capturing.
        """
        if all(operand.constant for operand in operands):
            if array is None:
                array = np.asarray(primitive.kernel(*[o.array for o in operands], **settings))
            return self.constant(array)
        if primitive.elementwise:
            operands = _without_broadcasts(operands, shape)
        simpler = self._simpler(primitive, operands, shape, dtype)
        if simpler is not None:
            return simpler
        key = (primitive, tuple(map(id, operands)), settings_key(settings))
        if key not in self._made:
            self._made[key] = Value(primitive, tuple(operands), settings, shape, dtype)
        return self._made[key]

    def _simpler(
        self,
        primitive: p.Primitive,
        operands: Sequence[Value],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> Value | None:
        """The rewritings; None where there is none."""
        a = operands[0]
        if primitive is p.where and a.primitive is p.astype and a.operands[0].dtype == bool:
            return self.apply(p.where, (a.operands[0], *operands[1:]), {}, shape, dtype)
        if primitive is p.affine:
            _, w, bias = operands
            stack = np.broadcast_shapes(a.shape[:-2], w.shape[:-2])
            of_product = (*stack, a.shape[-2], w.shape[-1]), np.result_type(a.dtype, w.dtype)
            product = self.apply(p.dot, (a, w), {}, *of_product)
            return self.apply(p.add, (product, bias), {}, shape, dtype)
        if primitive in TIMES_X:
            factor = self.apply(TIMES_X[primitive], (a,), {}, shape, dtype)
            return self.apply(p.multiply, (a, factor), {}, shape, dtype)
        if primitive in (p.broadcast_to, p.sum_to, p.reshape, p.astype):
            return a if (a.shape, a.dtype) == (shape, dtype) else None
        if primitive is p.transpose:
            return a.operands[0] if a.primitive is p.transpose else None
        if primitive not in ARITHMETIC:
            return None
        for other, given in ARITHMETIC[primitive](*operands):
            # two operands give the same shape and dtype in any case
            if len(given) == 2 or (given[0].shape, given[0].dtype) == (shape, dtype):
                return given[0] if other is None else self.apply(other, given, {}, shape, dtype)
        return None


# written out, so that the backward pass finds Φ(x) or sigmoid(x), and a page shows all: x times …
TIMES_X = {p.gelu: p.normal_cdf, p.silu: p.sigmoid}


Form = tuple["p.Primitive | None", tuple[Value, ...]]  # operation, operands; None: the operand


def _negative(a: Value) -> Iterator[Form]:
    if a.primitive is p.negative:
        yield None, a.operands
    elif a.primitive is p.subtract:
        yield p.subtract, a.operands[::-1]


def _multiply(a: Value, b: Value) -> Iterator[Form]:
    for one, other in ((a, b), (b, a)):
        if one.uniform == 1.0:
            yield None, (other,)
        elif one.uniform == -1.0:
            yield p.negative, (other,)


def _divide(a: Value, b: Value) -> Iterator[Form]:
    if b.uniform == 1.0:
        yield None, (a,)


def _add(a: Value, b: Value) -> Iterator[Form]:
    for zero, other in ((a, b), (b, a)):
        if zero.uniform == 0.0:
            yield None, (other,)
    if b.primitive is p.negative:
        yield p.subtract, (a, b.operands[0])
    elif a.primitive is p.negative:
        yield p.subtract, (b, a.operands[0])


def _subtract(a: Value, b: Value) -> Iterator[Form]:
    if b.primitive is p.negative:
        yield p.add, (a, b.operands[0])
    elif b.uniform == 0.0:
        yield None, (a,)


# the simpler forms that arithmetic may have
ARITHMETIC: dict[p.Primitive, Callable[..., Iterator[Form]]] = {
    p.negative: _negative,
    p.multiply: _multiply,
    p.divide: _divide,
    p.add: _add,
    p.subtract: _subtract,
}


def _without_broadcasts(operands: Sequence[Value], shape: tuple[int, ...]) -> Sequence[Value]:
    """Leave to NumPy what it broadcasts by itself."""
    shrunk = [o.operands[0] if o.primitive is p.broadcast_to else o for o in operands]
    if np.broadcast_shapes(*(o.shape for o in shrunk)) == shape:
        return shrunk
    return operands


def in_order(outputs: Iterable[Value]) -> list[Value]:
    """Every computed value that the outputs need, operands first."""
    order: list[Value] = []
    seen: set[Value] = set()
    stack = [(value, False) for value in reversed(list(outputs))]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif value not in seen and value.primitive is not None:
            seen.add(value)
            stack.append((value, True))
            stack.extend((operand, False) for operand in reversed(value.operands))
    return order
