"""Where parameters and gradients lie: in two vectors, weights and biases put together.

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
from dp.errors import CaptureError
from dp.program.capture import Captured
from dp.program.graph import Value, in_order

Array = NDArray[Any]

# From this size of a block on, its products are worth choosing the order in which it is held.
LARGE = 1 << 20  # bytes
CACHE_LINE = 64  # bytes

VIEWS = (p.transpose, p.broadcast_to)  # which cost nothing: buffers stay where they are


def zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Memory that begins where a cache line does: operations on it are up to a fifth quicker."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


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
    beside: Blocks | None
    by_rows: bool
    batches: bool
    stores: int = 0


class Blocks:
    """The parameters, in blocks.

    Attributes
    ----------
    values, outputs : lists of Values
        All that is computed, in an order in which it can be, and what is wanted of it.
    uses : Counter
        How many values take each value.
    blocks : list of Block
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
    flat, flat_gradient : arrays (n,)
        All parameters, and all their gradients.
    state : array (1 + stores, n)
        The parameters, and below them as many vectors for whatever an optimiser keeps of them.
    """

    def __init__(self, captured: Captured, wishes: Wishes) -> None:
        self.captured, self.keep = captured, wishes.keep
        # gradients of the last layers come first: what they are made of is still in the cache
        self.outputs = [captured.output, *reversed(captured.gradients.values()), *self.keep]
        self.values = in_order(self.outputs)
        self.uses = Counter(o for value in self.values for o in value.operands)
        self.blocks: list[Block] = []
        self.block_of: dict[Value, Block] = {}
        self.ones: set[Value] = set()
        self.affine = self._affine()
        self.block_gradients = self._block_gradients()
        for parameter in captured.parameters.values():
            if parameter not in self.block_of:
                self._new_block({parameter: parameter.shape[-2]})
        # a bias' gradient comes with its weight's; its own sum over the rows is not needed
        gradients = self.block_gradients.values()
        self.by_block = {name for _, _, block in gradients for name in block.members}
        self.dropped = {
            gradient
            for name, gradient in captured.gradients.items()
            if name in self.by_block and not self.uses[gradient]
        }
        self._choose_orders(wishes)
        self._lay_out_parameters(wishes.beside, wishes.stores)

    @staticmethod
    def base(value: Value) -> Value:
        """What a view looks at."""
        while value.primitive in VIEWS:
            value = value.operands[0]
        return value

    def _affine(self) -> dict[Value, tuple[Value, Value, Value]]:
        """Sums x·W + b that can be one product: sum -> (product, x, W)."""
        parameters = set(self.captured.parameters.values())
        bias_of: dict[Value, Value] = {}
        taken: set[Value] = set()
        found = {}
        for value in self.values:
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

    def _block_gradients(self) -> dict[Value, tuple[Value, Value, Block]]:
        """Gradients of weights that their biases' come with: gradient of W -> (x, delta, block)."""
        gradients = self.captured.gradients
        times = Counter(gradients.values())
        names = {value: name for name, value in self.captured.parameters.items()}
        inputs = {w: x for _, x, w in self.affine.values()}
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

    def _choose_orders(self, wishes: Wishes) -> None:
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
            for _, x, w in self.affine.values():
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

    def _lay_out_parameters(self, beside: Blocks | None, stores: int) -> None:
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
        line = CACHE_LINE // dtype.itemsize
        self.state = zeros((1 + stores, -(-at // line) * line), dtype)[:, :at]
        self.flat, self.flat_gradient = self.state[0], zeros((at,), dtype)
        self.shared = beside is not None and self.layout == beside.layout
        if beside is not None and self.shared:
            self.flat = beside.flat

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
