"""Which operations the fast form has: the graph's, some of them written otherwise.

Every rewriting saves calls, and gives the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.program.blocks import VIEWS, Blocks, Wishes, zeros
from dp.program.capture import Captured
from dp.program.graph import Value
from dp.program.notation import NOTATIONS, Notation

Array = NDArray[Any]

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
    """How a kind of step is written; None where its kernel is called."""
    return OWN_NOTATIONS.get(kind) or NOTATIONS.get(kind)


class Step:
    """One operation of the fast form, or the same one in several layers.

    `kind` is a primitive, or "affine" ([x, 1] · block) or "gradient" ([x, 1]ᵀ · delta, a block's
    gradient); `lanes` holds, for each layer, the operands and the result.
    """

    __slots__ = ("at", "kind", "lanes")

    def __init__(self, kind: Any, at: float, lanes: list[tuple[tuple[Value, ...], Value]]) -> None:
        self.kind, self.at, self.lanes = kind, at, lanes


def _written_out(value: Value) -> list[tuple[Any, tuple[Value, ...], Value]]:
    """A softmax, or its logarithm, as the operations that its kernel makes."""
    (x,) = value.operands
    line = list(x.shape)
    line[value.settings["axis"] - 2] = 1

    def made(primitive: p.Primitive, operand: Value, *others: Value) -> Value:
        over = not primitive.elementwise  # the rows or columns, as the softmax is
        settings, shape = (value.settings, tuple(line)) if over else ({}, operand.shape)
        return Value(primitive, (operand, *others), settings, shape, x.dtype)

    largest = made(p.reduce_max, x)
    shifted = made(p.subtract, x, largest)
    e = made(p.exp, shifted)
    total = made(p.reduce_sum, e)
    first = [(part.primitive, part.operands, part) for part in (largest, shifted, e, total)]
    if value.primitive is p.softmax:
        return [*first, (p.divide, (e, total), value)]
    log = made(p.log, total)
    return [*first, (p.log, (total,), log), (p.subtract, (shifted, log), value)]


class Steps(Blocks):
    """The operations of the fast form.

    Attributes
    ----------
    steps : list of Step
        In an order in which they can be done.
    prepared : dict of Values, in order
        What is computed from the inputs alone, and is no step: it comes with the batch.
    negated : set of Values
        What is computed with the opposite sign; pre-activations among it from `negative_flat`.
    """

    def __init__(self, captured: Captured, wishes: Wishes) -> None:
        super().__init__(captured, wishes)
        self.batches = wishes.batches
        self.prepared = self._of_inputs_alone() if self.batches else {}
        self.negated: set[Value] = set()
        self.steps = self._steps()
        self._negate_parameters()

    def _steps(self) -> list[Step]:
        """The operations in the order of the graph, weights and biases put together."""
        factored = self._factored_sigmoids()
        replaced = {product for product, _, _ in self.affine.values()}
        replaced |= {value.operands[i] for value, i in factored.items()}
        opposites = self._opposites()
        replaced |= {x for x in opposites if self.uses[x] == 1 and x not in self.outputs}
        bits: dict[tuple[Value, Any], Value] = {}
        steps: list[Step] = []

        def do(kind: Any, operands: tuple[Value, ...], result: Value) -> None:
            steps.append(Step(kind, len(steps), [(operands, result)]))

        for value in self.values:
            if value in self.prepared:
                continue
            if value in opposites:
                opposite = opposites[value]
                do(p.multiply, opposite.operands, opposite)
            if value in self.affine:
                _, x, w = self.affine[value]
                do("affine", (x, w), value)
            elif value in self.block_gradients:
                x, delta, block = self.block_gradients[value]
                do("gradient", (x, delta), block.gradient)
            elif value in factored:
                own, factor = factored[value], value.operands[1 - factored[value]]
                (x,) = value.operands[own].operands
                do(SIGMOID_TIMES, (opposites.get(x, x), factor), value)
            elif value.primitive is p.sigmoid and value not in replaced:
                (x,) = value.operands
                do(p.sigmoid, (opposites.get(x, x),), value)
            elif value.primitive is p.where and self._zeroes(value):
                mask, _, x = value.operands
                integer = np.dtype(f"i{value.dtype.itemsize}")
                if (mask, integer) not in bits:
                    bits[mask, integer] = Value(BITS, (mask,), {}, mask.shape, integer)
                    do(BITS, (mask,), bits[mask, integer])
                do(KEEP, (bits[mask, integer], x), value)
            elif value.primitive in (p.softmax, p.log_softmax):
                for kind, operands, result in _written_out(value):
                    do(kind, operands, result)
            elif value not in replaced and value.primitive not in VIEWS:
                do(value.primitive, value.operands, value)
        return [s for s in steps if s.kind == "gradient" or s.lanes[0][1] not in self.dropped]

    def _factored_sigmoids(self) -> dict[Value, int]:
        """Products with a sigmoid that nobody else needs: product -> which operand that is."""
        found = {}
        for value in self.values:
            if value.primitive is not p.multiply:
                continue
            for i, sigmoid in enumerate(value.operands):
                if sigmoid.primitive is not p.sigmoid or (sigmoid.shape, sigmoid.dtype) != (
                    value.shape,
                    value.dtype,
                ):
                    continue
                # its x is written over before the other factor is read
                apart = self.base(sigmoid.operands[0]) is not self.base(value.operands[1 - i])
                if self.uses[sigmoid] == 1 and sigmoid not in self.outputs and apart:
                    found[value] = i
                    break
        return found

    def _of_inputs_alone(self) -> dict[Value, None]:
        """What needs a batch's rows and nothing else, row by row, and is small."""
        found: dict[Value, None] = {}
        for value in self.values:
            parts = [o for o in value.operands if o.uniform is None]
            if (
                value.primitive is not None
                and notation_of(value.primitive) is not None  # one that is known to go row by row
                and value.primitive.elementwise
                and parts
                and all(o in found or o in self.captured.inputs for o in parts)
                and all((o.shape[:-1], o.dtype) == (value.shape[:-1], value.dtype) for o in parts)
                and value.dtype.itemsize * math.prod(value.shape) <= COPIED
            ):
                found[value] = None
        return found

    def _opposites(self) -> dict[Value, Value]:
        """x -> -x, where a sigmoid takes the product of something with what comes with the batch.

        The sigmoid wants -x, and the sign can come with the batch too.
        """
        found = {}
        for value in self.values:
            x = value.operands[0]
            if value.primitive is not p.sigmoid or x.primitive is not p.multiply:
                continue
            a, b = sorted(x.operands, key=self.prepared.__contains__)
            if b in self.prepared and x not in self.prepared:
                minus_b = Value(p.negative, (b,), {}, b.shape, b.dtype)
                self.prepared[minus_b] = None
                found[x] = Value(p.multiply, (a, minus_b), {}, x.shape, x.dtype)
        self.negated |= set(found.values())
        return found

    def _zeroes(self, value: Value) -> bool:
        mask, zero, x = value.operands
        return (
            zero.uniform == 0.0
            and mask.shape == x.shape == value.shape
            and mask.dtype == bool
            and x.dtype == value.dtype
            and not x.constant
        )

    def _negate_parameters(self) -> None:
        """Where only a sigmoid wants x W + b, it wants it negated.

        That is one sign for all weights at once, instead of one for each layer's units.
        """
        negated = set()
        for step in self.steps:
            if step.kind is p.sigmoid:
                h = step.lanes[0][0][0]
                if h in self.affine and self.uses[h] == 1 and h not in self.outputs:
                    negated.add(h)
        flat = self.flat
        units = sum(math.prod(h.shape) for h in negated)
        self.negates_parameters = bool(negated) and units >= len(flat)
        if self.negates_parameters:
            self.negated |= negated
            self.negative_flat = zeros(flat.shape, flat.dtype)
