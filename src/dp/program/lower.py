"""Pass: which operations the fast form has: the graph's, some of them written otherwise.

Every rewriting saves calls, and gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp import primitives as p
from dp.program.graph import Value
from dp.program.layout import VIEWS, Layout, base
from dp.program.notation import NOTATIONS, Notation

# Up to this size, what is computed from a batch alone is quicker copied with it than called for.
COPIED = 1 << 14  # bytes

# Zeros put in by a mask, in two operations of which the first may wait: with integers of the same
# bits, where a float survives (all bits 1) or becomes 0.0 (all bits 0), NaN or not. NumPy's own
# masked writes cost forty times as much. The mask is read as bytes: 1 - 1 is 0, and 0 - 1 is -1,
# all bits of an integer of any size.
BITS = p.Primitive("bits", lambda mask: mask, (), elementwise=True)
KEEP = p.Primitive("keep", lambda _, x: x, (), elementwise=True)
# A sigmoid that is wanted times something: the division by 1 + exp(-x) does both.
SIGMOID_TIMES = p.Primitive("sigmoid_times", lambda x, factor: factor * p.sigmoid(x), (), True)
# Values of one shape that lie side by side: an axis more in front. It costs nothing.
STACK = p.Primitive("stack", lambda *parts: np.stack(parts), (), elementwise=False)
OWN_NOTATIONS = {
    BITS: Notation((), calls=("np.subtract({0}, {bit}, {y})",)),
    KEEP: Notation((), calls=("np.bitwise_and({0}, {1}, {y})",), over=(1,)),
    SIGMOID_TIMES: Notation(
        (),
        calls=(
            "np.negative({0}, {y})",
            "np.exp({y}, {y})",
            "np.add({y}, {one}, {y})",
            "np.divide({1}, {y}, {y})",
        ),
        over=(0,),
    ),
}


def notation_of(kind: Any) -> Notation | None:
    """How a kind of operation is written; None where its kernel is called."""
    return OWN_NOTATIONS.get(kind) or NOTATIONS.get(kind)


def parts(value: Value) -> tuple[Value, ...]:
    """What lies in a stack; any other value is the only part of itself."""
    return value.operands if value.primitive is STACK else (value,)


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the fast form; on stacks, it is the same one in several layers.

    Attributes
    ----------
    kind : Primitive or str
        Or "affine" ([x, 1] · block), or "gradient" ([x, 1]ᵀ · delta, a block's gradient).
    at : float
        When it is done; only the order of these numbers counts.
    operands : tuple of Values
    result : Value
    """

    kind: Any
    at: float
    operands: tuple[Value, ...]
    result: Value

    @property
    def needed(self) -> list[Value]:
        """What must be there before: its operands, without views and stacks of them."""
        return [base(part) for operand in self.operands for part in parts(operand)]


@dataclass(frozen=True, eq=False)
class Lowered:
    """The operations of the fast form.

    Attributes
    ----------
    operations : tuple of Operations
        In an order in which they can be done.
    prepared : tuple of Values
        What is computed from the inputs alone, and is no operation: it comes with the batch.
    negated : set of Values
        Pre-activations that are computed with the opposite sign, from negated parameters.
    """

    operations: tuple[Operation, ...]
    prepared: tuple[Value, ...]
    negated: frozenset[Value]


def lower(layout: Layout, batches: bool = False, small_nets: bool = True) -> Lowered:
    """Choose the operations, in the order of the graph, weights and biases put together.

    With `batches`, what is computed from the inputs alone is left to whoever fills them in. That,
    signs and products with a sigmoid pay for `small_nets` only.
    """
    prepared = _of_inputs_alone(layout) if batches and small_nets else {}
    times_sigmoid = _times_sigmoid(layout) if small_nets else {}
    replaced = {product for product, _, _ in layout.affine.values()}
    replaced |= {sigmoid for sigmoid, _ in times_sigmoid.values()}
    bits: dict[tuple[Value, Any], Value] = {}
    found: list[tuple[Any, tuple[Value, ...], Value]] = []
    for value in layout.values:
        if value in prepared or value in replaced or value.primitive in VIEWS:
            continue
        if value.primitive is p.where and _zeroes(value):
            mask, _, x = value.operands
            integer = np.dtype(f"i{value.dtype.itemsize}")
            if (mask, integer) not in bits:
                bits[mask, integer] = Value(BITS, (mask,), {}, mask.shape, integer)
                found.append((BITS, (mask,), bits[mask, integer]))
            found.append((KEEP, (bits[mask, integer], x), value))
        else:
            found.append(_operation(layout, times_sigmoid, value))
    operations = tuple(
        Operation(kind, at, operands, result)
        for at, (kind, operands, result) in enumerate(found)
        if result not in layout.dropped
    )
    negated = _negated(layout, operations) if small_nets else frozenset[Value]()
    return Lowered(operations, tuple(prepared), negated)


def _operation(
    layout: Layout, times_sigmoid: dict[Value, tuple[Value, Value]], value: Value
) -> tuple[Any, tuple[Value, ...], Value]:
    """The kind, operands and result by which a value is computed."""
    if value in layout.affine:
        _, x, w = layout.affine[value]
        return "affine", (x, w), value
    if value in layout.block_gradients:
        x, delta, block = layout.block_gradients[value]
        return "gradient", (x, delta), block.gradient
    if value in times_sigmoid:
        sigmoid, factor = times_sigmoid[value]
        return SIGMOID_TIMES, (*sigmoid.operands, factor), value
    return value.primitive, value.operands, value


def _of_inputs_alone(layout: Layout) -> dict[Value, None]:
    """What needs a batch's rows and nothing else, row by row, and is small."""
    found: dict[Value, None] = {}
    for value in layout.values:
        parts = [o for o in value.operands if o.uniform is None]
        if (
            notation_of(value.primitive) is not None  # one that is known to go row by row
            and value.primitive is not None
            and value.primitive.elementwise
            and parts
            and all(o in found or o in layout.captured.inputs for o in parts)
            and all((o.shape[:-1], o.dtype) == (value.shape[:-1], value.dtype) for o in parts)
            and value.dtype.itemsize * math.prod(value.shape) <= COPIED
        ):
            found[value] = None
    return found


def _times_sigmoid(layout: Layout) -> dict[Value, tuple[Value, Value]]:
    """Products with a sigmoid that nothing else needs: product -> (sigmoid, the other factor)."""
    found = {}
    for value in layout.values:
        if value.primitive is not p.multiply:
            continue
        for sigmoid, factor in (value.operands, value.operands[::-1]):
            alike = (sigmoid.shape, sigmoid.dtype) == (value.shape, value.dtype)
            if sigmoid.primitive is not p.sigmoid or not alike:
                continue
            # its x is written over before the other factor is read
            apart = base(sigmoid.operands[0]) is not base(factor)
            if layout.uses[sigmoid] == 1 and sigmoid not in layout.outputs and apart:
                found[value] = sigmoid, factor
                break
    return found


def _zeroes(value: Value) -> bool:
    """Whether a choice puts zeros into something."""
    mask, zero, x = value.operands
    return (
        zero.uniform == 0.0
        and mask.shape == x.shape == value.shape
        and mask.dtype == bool
        and x.dtype == value.dtype
        and not x.constant
    )


def _negated(layout: Layout, operations: Collection[Operation]) -> frozenset[Value]:
    """Where only a sigmoid wants x W + b, it wants it negated.

    That is one sign for all weights at once, instead of one for each layer's units, if these are
    more.
    """
    inputs = (op.operands[0] for op in operations if op.kind is p.sigmoid)
    found = {
        h for h in inputs if h in layout.affine and layout.uses[h] == 1 and h not in layout.outputs
    }
    units = sum(math.prod(h.shape) for h in found)
    return frozenset(found if units >= layout.size else ())


def lifetimes(
    layout: Layout, operations: Collection[Operation]
) -> tuple[dict[Value, float], dict[Value, list[float]]]:
    """When each value is computed, and at which moments it, or a view of it, is needed."""
    made: dict[Value, float] = {}
    used: dict[Value, list[float]] = {}
    for operation in operations:
        made |= dict.fromkeys(parts(operation.result), operation.at)
        for value in operation.needed:
            used.setdefault(value, []).append(operation.at)
    end = max((operation.at for operation in operations), default=0.0) + 1.0
    for value in (*layout.outputs, *(block.gradient for block in layout.blocks)):
        used.setdefault(base(value), []).append(end)
    return made, used
