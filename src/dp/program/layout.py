"""Pass: where parameters lie, weights and biases put together, in one vector.

A layer's weight and bias are one *block* [W; b], and its input has a column of ones, so that
x W + b is one product, and so are both gradients. All parameters are views of one flat vector, and
all gradients of another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp import primitives as p
from dp.errors import CaptureError
from dp.program.capture import Captured
from dp.program.graph import Value, in_order
from dp.typing import Array

Rows = dict[Value, int]  # the parameters of a block -> how many rows each has there

# From this size of a block on, its products are worth choosing the order in which it is held.
LARGE = 1 << 20  # bytes

VIEWS = (p.transpose, p.broadcast_to)  # which cost nothing: buffers stay where they are


@dataclass(frozen=True, eq=False)
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
    start : int
        Where the stretch begins.
    by_columns : bool
        Whether it is held column by column instead of row by row.
    """

    shape: tuple[int, ...]
    members: dict[str, slice]
    gradient: Value
    start: int
    by_columns: bool

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


@dataclass(frozen=True, eq=False)
class Layout:
    """A captured graph, and its parameters in blocks.

    Attributes
    ----------
    captured : Captured
    values, outputs, kept : tuples of Values
        All that is computed, in an order in which it can be; what is wanted of it; what of that is
        neither the function's value nor a gradient.
    uses : Counter
        How many values take each value.
    blocks : tuple of Blocks
        In the order of the flat vectors.
    block_of : dict
        Parameter, or block's gradient -> block.
    affine : dict
        Sum x W + b that is one product -> (product x W, x, W).
    block_gradients : dict
        Gradient of W that the bias' comes with -> (x, delta, block).
    by_block, dropped : sets
        Names of the parameters of which that is true, and gradients that need not be computed then.
    ones : set of Values
        Those whose buffers have a column of ones: layers' inputs.
    size : int
        Length of the flat vectors.
    dtype
        Of the parameters.
    """

    captured: Captured
    values: tuple[Value, ...]
    outputs: tuple[Value, ...]
    kept: tuple[Value, ...]
    uses: Mapping[Value, int]
    blocks: tuple[Block, ...]
    block_of: Mapping[Value, Block]
    affine: Mapping[Value, tuple[Value, Value, Value]]
    block_gradients: Mapping[Value, tuple[Value, Value, Block]]
    by_block: frozenset[str]
    dropped: frozenset[Value]
    ones: frozenset[Value]
    size: int
    dtype: np.dtype[Any]

    def like(self, other: Layout | None) -> bool:
        """Whether another one has every parameter at the same place."""
        return other is not None and self._places() == other._places()

    def _places(self) -> list[Any]:
        return [(b.shape, b.by_columns, list(b.members.items())) for b in self.blocks]

    def views(self, flat: Array) -> dict[str, Array]:
        """Name -> view of a flat vector, in the parameter's shape."""
        found = {}
        for block in self.blocks:
            whole = block.of(flat)
            for name, rows in block.members.items():
                found[name] = whole[..., rows, :]
        return {name: found[name] for name in self.captured.parameters}


def base(value: Value) -> Value:
    """What a view looks at."""
    while value.primitive in VIEWS:
        value = value.operands[0]
    return value


def lay_out(
    captured: Captured,
    keep: Iterable[Value] = (),
    beside: Layout | None = None,
    by_rows: bool = False,
) -> Layout:
    """Put the parameters of a captured graph in blocks, and these in order; see `compile_graph`.

    Raises
    ------
    CaptureError
        If the parameters have several dtypes.
    """
    kept = tuple(keep)
    # gradients of the last layers come first: what they are made of is still in the cache
    outputs = (captured.output, *reversed(captured.gradients.values()), *kept)
    values = in_order(outputs)
    uses = Counter(operand for value in values for operand in value.operands)
    affine, pairs = _affine(captured, values, uses)
    taken = {value for rows in pairs for value in rows}
    single = [{v: v.shape[-2]} for v in captured.parameters.values() if v not in taken]
    by_columns = _held_by_columns(captured, affine, pairs, uses) if not by_rows else set()
    blocks = _blocks(captured, [*pairs, *single], by_columns, beside)
    block_of = {captured.parameters[name]: block for block in blocks for name in block.members}
    gradients = _block_gradients(captured, affine, block_of, uses, kept)
    by_block = frozenset(name for _, _, block in gradients.values() for name in block.members)
    return Layout(
        captured,
        tuple(values),
        outputs,
        kept,
        uses,
        blocks,
        block_of | {block.gradient: block for block in blocks},
        affine,
        gradients,
        by_block,
        # a bias' gradient comes with its weight's; its own sum over the rows is not needed
        frozenset(g for name, g in captured.gradients.items() if name in by_block and not uses[g]),
        frozenset(x for _, x, _ in affine.values()),
        sum(block.size for block in blocks),
        _dtype(captured),
    )


def _affine(
    captured: Captured, values: Sequence[Value], uses: Mapping[Value, int]
) -> tuple[dict[Value, tuple[Value, Value, Value]], list[Rows]]:
    """Sums x·W + b that can be one product: sum -> (product, x, W); and the blocks [W; b]."""
    parameters = set(captured.parameters.values())
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
            and uses[product] == 1
            and b.shape == (*w.shape[:-2], 1, w.shape[-1])
            and x.primitive not in VIEWS
            and x not in parameters
            and not x.constant
            and (bias_of.get(w) is b or not {w, b} & taken)
        )
        if fits:
            bias_of[w] = b
            taken |= {w, b}
            found[value] = (product, x, w)
    return found, [{w: w.shape[-2], b: 1} for w, b in bias_of.items()]


def _held_by_columns(
    captured: Captured,
    affine: Mapping[Value, tuple[Value, Value, Value]],
    pairs: Sequence[Rows],
    uses: Mapping[Value, int],
) -> set[str]:
    """Names of weights of a large first layer, which are held column by column.

    The first layer's input, the data, lies row by row; with such an input, both its products, x W
    and its gradient, are quicker into and from columns (by 2 and 5 %). The product with Wᵀ, which
    other layers have too, is not.
    """
    size = {next(iter(rows)): sum(rows.values()) for rows in pairs}
    names = {value: name for name, value in captured.parameters.items()}
    return {
        names[w]
        for _, x, w in affine.values()
        if x in captured.inputs
        and uses[w] == 1
        and len(w.shape) == 2
        and size[w] * w.shape[-1] * w.dtype.itemsize >= LARGE
    }


def _blocks(
    captured: Captured, given: Sequence[Rows], by_columns: set[str], beside: Layout | None
) -> tuple[Block, ...]:
    """Give each block its stretch, those of one shape side by side, to be read alike."""
    names = {value: name for name, value in captured.parameters.items()}
    drafts = []
    for rows in given:
        members, at = {}, 0
        for value, count in rows.items():
            members[names[value]] = slice(at, at + count)
            at += count
        first = next(iter(rows))
        drafts.append(((*first.shape[:-2], at, first.shape[-1]), members, first.dtype))
    if beside is not None:
        by_columns = {next(iter(b.members)) for b in beside.blocks if b.by_columns}
    in_rows = {shape for shape, members, _ in drafts if next(iter(members)) not in by_columns}
    shapes = list(dict.fromkeys(shape for shape, _, _ in drafts))
    blocks, start = [], 0
    for shape, members, dtype in sorted(drafts, key=lambda draft: shapes.index(draft[0])):
        gradient = Value(None, (), {}, shape, dtype, name="gradient")
        blocks.append(Block(shape, members, gradient, start, shape not in in_rows))
        start += blocks[-1].size
    return tuple(blocks)


def _block_gradients(
    captured: Captured,
    affine: Mapping[Value, tuple[Value, Value, Value]],
    block_of: Mapping[Value, Block],
    uses: Mapping[Value, int],
    kept: Sequence[Value],
) -> dict[Value, tuple[Value, Value, Block]]:
    """Gradients of weights that their biases' come with: gradient of W -> (x, delta, block)."""
    gradients = captured.gradients
    times = Counter(gradients.values())
    found = {}
    for w, x in {w: x for _, x, w in affine.values()}.items():
        of_w, of_b = (gradients.get(name) for name in block_of[w].members)
        if of_w is None or of_b is None or of_w.primitive is not p.dot:
            continue
        left, delta = of_w.operands
        own = left.primitive is p.transpose and left.operands[0] is x
        summed = of_b is delta or (of_b.primitive is p.sum_to and of_b.operands[0] is delta)
        # two layers of one input and one delta share their gradients
        alone = times[of_w] == times[of_b] == 1 and not uses[of_w]
        alone = alone and (of_b is delta or not uses[of_b])
        if own and summed and alone and of_b not in kept and of_w not in kept:
            found[of_w] = (x, delta, block_of[w])
    return found


def _dtype(captured: Captured) -> np.dtype[Any]:
    dtypes = {parameter.dtype for parameter in captured.parameters.values()}
    if len(dtypes) > 1:
        raise CaptureError(
            f"the parameters have several dtypes ({', '.join(map(str, dtypes))}); a program "
            "keeps them in one vector, of one dtype"
        )
    return dtypes.pop() if dtypes else np.dtype(np.float64)
