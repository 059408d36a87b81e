"""Which operations the fast form has: the graph's, with weights and biases put together.

A layer's weight and bias are one *block* [W; b], and its input has a column of ones, so that
x W + b is one product, and so are both gradients. All parameters are views of one flat vector, and
all gradients of another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.node import CaptureError
from dp.program.captured import Captured
from dp.program.graph import Value, in_order
from dp.program.notation import NOTATIONS, Notation

Array = NDArray[Any]

# From this size of a block on, its products are worth choosing the order in which it is held.
LARGE = 1 << 20  # bytes
# Up to this size, what is computed from a batch alone is quicker copied with it than called for.
COPIED = 1 << 14  # bytes

CACHE_LINE = 64  # bytes

VIEWS = (p.transpose, p.broadcast_to)  # which cost nothing: buffers stay where they are

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


def zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Memory that begins where a cache line does: operations on it are up to a fifth quicker."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


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


@dataclass(eq=False)
class Block:
    """A weight and a bias under each other, or one other parameter: a stretch of the flat vectors.

    Attributes
    ----------
    shape : tuple
        (…, fan_in + 1, fan_out), or the parameter's own.
    members : dict
        Parameter's name -> its rows.
    gradient : Value
        Stands for the whole block's gradient.
    by_columns : bool
        Whether it is held column by column instead of row by row.
    """

    shape: tuple[int, ...]
    members: dict[str, slice]
    gradient: Value
    start: int = 0
    by_columns: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    def of(self, flat: Array, count: int | None = None) -> Array:
        """The block as a view of a flat vector; with a count, a stack of it and those after it."""
        stretch = flat[self.start : self.start + self.size * (count or 1)]
        stack = self.shape[:-2] if count is None else (count, *self.shape[:-2])
        rows, columns = self.shape[-2:]
        if self.by_columns:
            return stretch.reshape(*stack, columns, rows).swapaxes(-1, -2)
        return stretch.reshape(*stack, rows, columns)


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a fast form; see `Replay`."""

    keep: list[Value]
    beside: Steps | None
    by_rows: bool
    batches: bool


def _written_out(value: Value) -> list[tuple[p.Primitive, tuple[Value, ...], Value]]:
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
    first: list[tuple[p.Primitive, tuple[Value, ...], Value]] = [
        (p.reduce_max, (x,), largest),
        (p.subtract, (x, largest), shifted),
        (p.exp, (shifted,), e),
        (p.reduce_sum, (e,), total),
    ]
    if value.primitive is p.softmax:
        return [*first, (p.divide, (e, total), value)]
    log = made(p.log, total)
    return [*first, (p.log, (total,), log), (p.subtract, (shifted, log), value)]


class Steps:
    """The operations of the fast form, and where the parameters lie.

    Attributes
    ----------
    steps : list of Step
        In an order in which they can be done.
    blocks : list of Block
    ones : set of Values
        Those whose buffers have a column of ones: layers' inputs.
    flat, flat_gradient : arrays (n,)
        All parameters, and all their gradients.
    by_block : set of str
        Parameters whose gradients are computed as part of a block's.
    prepared : dict of Values, in order
        What is computed from the inputs alone, and is no step: it comes with the batch.
    negated : set of Values
        What is computed with the opposite sign; pre-activations among it from `negative_flat`.
    """

    def __init__(self, captured: Captured, wishes: Wishes) -> None:
        self.captured, self.keep, self.batches = captured, wishes.keep, wishes.batches
        # gradients of the last layers come first: what they are made of is still in the cache
        self.outputs = [captured.output, *reversed(captured.gradients.values()), *self.keep]
        values = in_order(self.outputs)
        self.uses = Counter(o for value in values for o in value.operands)
        self.prepared = self._of_inputs_alone(values) if self.batches else {}
        self.negated: set[Value] = set()
        self.blocks: list[Block] = []
        self.block_of: dict[Value, Block] = {}  # parameter, or block's gradient -> block
        self.ones: set[Value] = set()
        self.steps = self._steps(values, wishes)
        self._lay_out_parameters(wishes.beside)

    @staticmethod
    def base(value: Value) -> Value:
        """What a view looks at."""
        while value.primitive in VIEWS:
            value = value.operands[0]
        return value

    def _steps(self, values: list[Value], wishes: Wishes) -> list[Step]:
        """The operations in the order of the graph, weights and biases put together."""
        affine = self._affine(values)
        gradient = self._block_gradients(affine)
        parameters = self.captured.parameters.values()
        for parameter in parameters:
            if parameter not in self.block_of:
                self._new_block({parameter: parameter.shape[-2]})
        factored = self._factored_sigmoids(values)
        replaced = {product for product, _, _ in affine.values()}
        replaced |= {value.operands[i] for value, i in factored.items()}
        opposites = self._opposites(values)
        replaced |= {x for x in opposites if self.uses[x] == 1 and x not in self.outputs}
        bits: dict[tuple[Value, Any], Value] = {}
        steps: list[Step] = []
        for value in values:
            if value in self.prepared:
                continue
            if value in opposites:
                opposite = opposites[value]
                steps.append(Step(p.multiply, len(steps), [(opposite.operands, opposite)]))
            if value in affine:
                _, x, w = affine[value]
                steps.append(Step("affine", len(steps), [((x, w), value)]))
            elif value in gradient:
                x, delta, block = gradient[value]
                steps.append(Step("gradient", len(steps), [((x, delta), block.gradient)]))
            elif value in factored:
                own, factor = factored[value], value.operands[1 - factored[value]]
                (x,) = value.operands[own].operands
                x = opposites.get(x, x)
                steps.append(Step(SIGMOID_TIMES, len(steps), [((x, factor), value)]))
            elif value.primitive is p.sigmoid and value not in replaced:
                (x,) = value.operands
                steps.append(Step(p.sigmoid, len(steps), [((opposites.get(x, x),), value)]))
            elif value.primitive is p.where and self._zeroes(value):
                mask, _, x = value.operands
                integer = np.dtype(f"i{value.dtype.itemsize}")
                if (mask, integer) not in bits:
                    bits[mask, integer] = Value(BITS, (mask,), {}, mask.shape, integer)
                    steps.append(Step(BITS, len(steps), [((mask,), bits[mask, integer])]))
                steps.append(Step(KEEP, len(steps), [((bits[mask, integer], x), value)]))
            elif value.primitive in (p.softmax, p.log_softmax):
                for kind, operands, result in _written_out(value):
                    steps.append(Step(kind, len(steps), [(operands, result)]))
            elif value not in replaced and value.primitive not in VIEWS:
                steps.append(Step(value.primitive, len(steps), [(value.operands, value)]))
        # a bias' gradient comes with its weight's; its own sum over the rows is not needed
        self.by_block = {name for _, _, block in gradient.values() for name in block.members}
        self._choose_orders(affine, wishes)
        self.dropped = {
            g
            for name, g in self.captured.gradients.items()
            if name in self.by_block and not self.uses[g]
        }
        return [s for s in steps if s.kind == "gradient" or s.lanes[0][1] not in self.dropped]

    def _factored_sigmoids(self, values: list[Value]) -> dict[Value, int]:
        """Products with a sigmoid that nobody else needs: product -> which operand that is."""
        found = {}
        for value in values:
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

    def _of_inputs_alone(self, values: list[Value]) -> dict[Value, None]:
        """What needs a batch's rows and nothing else, row by row, and is small."""
        found: dict[Value, None] = {}
        for value in values:
            parts = [o for o in value.operands if o.uniform is None]
            if (
                value.primitive is not None
                and value.primitive.elementwise
                and parts
                and all(o in found or o in self.captured.inputs for o in parts)
                and all((o.shape[:-1], o.dtype) == (value.shape[:-1], value.dtype) for o in parts)
                and value.dtype.itemsize * math.prod(value.shape) <= COPIED
            ):
                found[value] = None
        return found

    def _opposites(self, values: list[Value]) -> dict[Value, Value]:
        """x -> -x, where a sigmoid takes the product of something with what comes with the batch.

        The sigmoid wants -x, and the sign can come with the batch too.
        """
        found = {}
        for value in values:
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

    def _affine(self, values: list[Value]) -> dict[Value, tuple[Value, Value, Value]]:
        """Sums x·W + b that can be one product: sum -> (product, x, W)."""
        parameters = set(self.captured.parameters.values())
        bias_of: dict[Value, Value] = {}
        taken: set[Value] = set()
        found = {}
        for value in values:
            if value.primitive is not p.add or value.operands[0].primitive is not p.dot:
                continue
            product, b = value.operands
            x, w = product.operands
            fits = (
                {w, b} <= parameters
                and self.uses[product] == 1
                and b.shape == (*w.shape[:-2], 1, w.shape[-1])
                and x.primitive not in VIEWS
                and x not in parameters
                and not x.constant
                and (bias_of.get(w) is b or not {w, b} & taken)
            )
            if not fits:
                continue
            if w not in bias_of:
                bias_of[w] = b
                taken |= {w, b}
                self._new_block({w: w.shape[-2], b: 1})
            self.ones.add(x)
            found[value] = (product, x, w)
        return found

    def _new_block(self, rows: dict[Value, int]) -> None:
        names = {value: name for name, value in self.captured.parameters.items()}
        members, at = {}, 0
        for value, count in rows.items():
            members[names[value]] = slice(at, at + count)
            at += count
        first = next(iter(rows))
        shape = (*first.shape[:-2], at, first.shape[-1])
        block = Block(shape, members, Value(None, (), {}, shape, first.dtype, name="gradient"))
        self.blocks.append(block)
        self.block_of[block.gradient] = block
        for value in rows:
            self.block_of[value] = block

    def _block_gradients(
        self, affine: dict[Value, tuple[Value, Value, Value]]
    ) -> dict[Value, tuple[Value, Value, Block]]:
        """Gradients of weights that their biases' come with: gradient of W -> (x, delta, block)."""
        gradients = self.captured.gradients
        times = Counter(gradients.values())
        names = {value: name for name, value in self.captured.parameters.items()}
        inputs = {w: x for _, x, w in affine.values()}
        found = {}
        for w, x in inputs.items():
            block = self.block_of[w]
            w_name, b_name = block.members
            assert names[w] == w_name
            of_w, of_b = gradients.get(w_name), gradients.get(b_name)
            if of_w is None or of_b is None or of_w.primitive is not p.dot:
                continue
            left, delta = of_w.operands
            own = left.primitive is p.transpose and left.operands[0] is x
            summed = of_b is delta or (of_b.primitive is p.sum_to and of_b.operands[0] is delta)
            # two layers of one input and one delta share their gradients
            alone = times[of_w] == times[of_b] == 1 and not self.uses[of_w]
            alone = alone and (of_b is delta or not self.uses[of_b])
            if own and summed and alone and of_b not in self.keep and of_w not in self.keep:
                found[of_w] = (x, delta, block)
        return found

    def _choose_orders(
        self, affine: dict[Value, tuple[Value, Value, Value]], wishes: Wishes
    ) -> None:
        """Hold a large first layer column by column, and others row by row; or as `beside` does.

        The first layer's input, the data, lies row by row; with such an input, both its products,
        x W and its gradient, are quicker into and from columns (by 2 and 5 %). The product with Wᵀ,
        which other layers have too, is not.
        """
        if wishes.beside is not None:
            orders = {tuple(block.members): block.by_columns for block in wishes.beside.blocks}
            for block in self.blocks:
                block.by_columns = orders.get(tuple(block.members), False)
        elif not wishes.by_rows:
            for _, x, w in affine.values():
                block = self.block_of[w]
                block.by_columns = (
                    x in self.captured.inputs
                    and self.uses[w] == 1
                    and len(block.shape) == 2
                    and block.size * w.dtype.itemsize >= LARGE
                )
        # blocks of one shape lie side by side, to be read alike
        by_rows = {block.shape for block in self.blocks if not block.by_columns}
        for block in self.blocks:
            block.by_columns = block.shape not in by_rows

    def _lay_out_parameters(self, beside: Steps | None) -> None:
        """Give each block its stretch, those of one shape side by side."""
        shapes = list(dict.fromkeys(block.shape for block in self.blocks))
        self.blocks.sort(key=lambda block: shapes.index(block.shape))
        at = 0
        for block in self.blocks:
            block.start = at
            at += block.size
        dtypes = {parameter.dtype for parameter in self.captured.parameters.values()}
        if len(dtypes) > 1:
            raise CaptureError(
                f"the parameters have several dtypes ({', '.join(map(str, dtypes))}); a program "
                "keeps them in one vector, of one dtype"
            )
        dtype = dtypes.pop() if dtypes else np.dtype(np.float64)
        self.flat, self.flat_gradient = zeros((at,), dtype), zeros((at,), dtype)
        self.shared = beside is not None and self.layout == beside.layout
        if beside is not None and self.shared:
            self.flat = beside.flat
        # Where only a sigmoid wants x W + b, it wants it negated: one sign for all weights at once
        # instead of one for each layer's units.
        self.negative_flat = zeros((at,), dtype)
        affine = {step.lanes[0][1] for step in self.steps if step.kind == "affine"}
        negated = set()
        for step in self.steps:
            if step.kind is p.sigmoid:
                h = step.lanes[0][0][0]
                if h in affine and self.uses[h] == 1 and h not in self.outputs:
                    negated.add(h)
        self.negates_parameters = bool(negated) and sum(math.prod(h.shape) for h in negated) >= at
        if self.negates_parameters:
            self.negated |= negated

    @property
    def layout(self) -> list[Any]:
        """What decides where each parameter lies."""
        return [(b.shape, b.by_columns, list(b.members.items())) for b in self.blocks]

    def parameter_views(self, flat: Array) -> dict[str, Array]:
        """Name -> view of a flat vector, in the parameter's shape."""
        found = {}
        for block in self.blocks:
            whole = block.of(flat)
            for name, rows in block.members.items():
                found[name] = whole[..., rows, :]
        return {name: found[name] for name in self.captured.parameters}
