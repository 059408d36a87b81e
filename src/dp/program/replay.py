"""The fast form: the values of a captured graph, computed into buffers that are made once.

What makes it fast is the number of calls and what lies beside what:

- A layer's weight and bias are one *block* [W; b], and its input has a column of ones, so that
  x W + b is one product, and so are both gradients.
- Every buffer holds its matrices column by column, so that this column lies at the end and all
  other columns are contiguous; blocks are held row by row, the bias last.
- All parameters are views of one flat vector, all gradients of another: an update is one
  operation.
- The same small operation in several layers, where nothing forbids it, is one operation on a slab
  in which those layers' buffers lie side by side.
- A result takes over the buffer of an operand that nobody needs any more.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.program.captured import Captured
from dp.program.graph import Value, in_order, settings_key
from dp.program.notation import NOTATIONS, Notation, details

Array = NDArray[Any]
Named = tuple[Array, str]

# Up to this size an operation costs more for being called than for being done.
SMALL = 1 << 18  # bytes
SMALL_PRODUCT = 1 << 14  # bytes of an operand
VIEWS = (p.transpose, p.broadcast_to)
# Harmless, and quick, on the column of ones too, so that a whole slab is one stretch of memory.
PADDED = (p.add, p.subtract, p.multiply, p.negative, p.square)


# Zeros put in by a mask, in two operations of which the first may wait: with integers of the same
# bits, where a float survives (all bits 1) or becomes 0.0 (all bits 0), NaN or not. NumPy's own
# masked writes cost forty times as much.
BITS = p.Primitive("bits", lambda mask: mask, (), elementwise=True)
KEEP = p.Primitive("keep", lambda _, x: x, (), elementwise=True)
OWN_NOTATIONS = {
    BITS: Notation((), calls=("np.subtract({0}, {bit}, {y}, casting='unsafe')",)),
    KEEP: Notation((), calls=("np.bitwise_and({0}, {1}, {y})",), over=(1,)),
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
    """

    shape: tuple[int, ...]
    members: dict[str, slice]
    gradient: Value
    start: int = 0

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    def of(self, flat: Array) -> Array:
        """The block as a view of a flat vector."""
        return flat[self.start : self.start + self.size].reshape(self.shape)


@dataclass
class Slab:
    """Buffers of one shape, side by side."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: list[Value] = field(default_factory=list)
    ones: bool = False
    array: Array | None = None
    over: Slab | None = None  # whose memory it takes over


def buffer(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Memory for a stack of matrices, each column by column."""
    return np.zeros((*shape[:-2], shape[-1], shape[-2]), dtype).swapaxes(-1, -2)


def _contiguous(array: Array) -> bool:
    return array.flags.c_contiguous or array.swapaxes(-1, -2).flags.c_contiguous


class Replay:
    """Buffers, and the function that fills them.

    Attributes
    ----------
    source : str
        The function's text.
    arrays : dict
        Value -> its buffer, for inputs, outputs and what was to be kept.
    parameters, gradients : arrays (n,)
        All of them in one vector each.
    run : callable
        Computes everything from the inputs and parameters that lie in their buffers; with False,
        not what only the function's value needs.

    Parameters
    ----------
    captured : Captured
    keep : iterable of Values
        Which of them, besides output and gradients, are wanted in `arrays`.
    beside : Replay, optional
        Another one of the same parameters, whose vector this one reads instead of one of its own,
        if it lays them out alike (`shares_parameters`).
    """

    def __init__(
        self, captured: Captured, keep: Iterable[Value] = (), beside: Replay | None = None
    ) -> None:
        self.planner: _Planner = _Planner(
            captured, list(keep), None if beside is None else beside.planner
        )
        planner = self.planner
        self.source = planner.source
        self.arrays = planner.arrays
        self.full = planner.full
        self.parameters, self.gradients = planner.flat, planner.flat_gradient
        self.run = planner.function
        self.shares_parameters = planner.shared
        self.views = planner.parameter_views(self.parameters)
        self.gradient_views = planner.parameter_views(self.gradients)


class _Planner:
    def __init__(self, captured: Captured, keep: list[Value], beside: _Planner | None) -> None:
        self.captured, self.keep = captured, keep
        self.outputs = [captured.output, *captured.gradients.values(), *keep]
        values = in_order(self.outputs)
        self.uses = Counter(o for value in values for o in value.operands)
        self.blocks: list[Block] = []
        self.block_of: dict[Value, Block] = {}  # parameter -> block
        self.ones: set[Value] = set()  # values whose buffers have a column of ones
        self.steps = self._steps(values)
        self._lay_out_parameters(beside)
        self._find_places_in_time()
        self.slab_of: dict[Value, Slab] = {}
        self._gather()
        self.arrays: dict[Value, Array] = {}
        self.full: dict[Value, Array] = {}  # with the column of ones
        self._find_places_in_memory()
        self.source = ""
        self.names: dict[str, Any] = {}
        self._by_place: dict[Any, str] = {}
        self.function = self._compiled()

    # --- which operations -------------------------------------------------------------------------

    def _steps(self, values: list[Value]) -> list[Step]:
        """The operations in the order of the graph, weights and biases put together."""
        affine = self._affine(values)
        gradient = self._block_gradients(affine)
        parameters = self.captured.parameters.values()
        for parameter in parameters:
            if parameter not in self.block_of:
                self._new_block({parameter: parameter.shape[-2]})
        replaced = {product for product, _, _ in affine.values()}
        bits: dict[Value, Value] = {}
        steps: list[Step] = []
        for value in values:
            if value in affine:
                _, x, w = affine[value]
                steps.append(Step("affine", len(steps), [((x, w), value)]))
            elif value in gradient:
                x, delta, block = gradient[value]
                steps.append(Step("gradient", len(steps), [((x, delta), block.gradient)]))
            elif value.primitive is p.where and self._zeroes(value):
                mask, _, x = value.operands
                if mask not in bits:
                    integer = np.dtype(f"i{value.dtype.itemsize}")
                    bits[mask] = Value(BITS, (mask,), {}, mask.shape, integer)
                    steps.append(Step(BITS, len(steps), [((mask,), bits[mask])]))
                steps.append(Step(KEEP, len(steps), [((bits[mask], x), value)]))
            elif value not in replaced and value.primitive not in VIEWS:
                steps.append(Step(value.primitive, len(steps), [(value.operands, value)]))
        # a bias' gradient comes with its weight's
        done = {name for _, _, block in gradient.values() for name in block.members}
        self.with_block = {g for name, g in self.captured.gradients.items() if name in done}
        return [s for s in steps if s.kind == "gradient" or s.lanes[0][1] not in self.with_block]

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
        for value in rows:
            self.block_of[value] = block

    def _block_gradients(
        self, affine: dict[Value, tuple[Value, Value, Value]]
    ) -> dict[Value, tuple[Value, Value, Block]]:
        """Gradients of weights that their biases' come with: gradient of W -> (x, delta, block)."""
        gradients = self.captured.gradients
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
            alone = not self.uses[of_w] and (of_b is delta or not self.uses[of_b])
            if own and summed and alone and of_b not in self.keep and of_w not in self.keep:
                found[of_w] = (x, delta, block)
        return found

    def _lay_out_parameters(self, beside: _Planner | None) -> None:
        """Give each block its stretch, those of one shape side by side."""
        shapes = list(dict.fromkeys(block.shape for block in self.blocks))
        self.blocks.sort(key=lambda block: shapes.index(block.shape))
        at = 0
        for block in self.blocks:
            block.start = at
            at += block.size
        dtypes = {parameter.dtype for parameter in self.captured.parameters.values()}
        dtype = np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
        self.flat, self.flat_gradient = np.zeros(at, dtype), np.zeros(at, dtype)
        self.shared = beside is not None and self.layout == beside.layout
        if beside is not None and self.shared:
            self.flat = beside.flat
        # Where only a sigmoid wants x W + b, it wants it negated: one sign for all weights at once
        # instead of one for each layer's units.
        self.negated: set[Value] = set()
        self.negative_flat = np.zeros(at, dtype)
        affine = {step.lanes[0][1] for step in self.steps if step.kind == "affine"}
        for step in self.steps:
            if step.kind is p.sigmoid:
                h = step.lanes[0][0][0]
                if h in affine and self.uses[h] == 1 and h not in self.outputs:
                    self.negated.add(h)
        if sum(math.prod(h.shape) for h in self.negated) < at:
            self.negated.clear()

    @property
    def layout(self) -> list[Any]:
        """What decides where each parameter lies."""
        return [(block.shape, list(block.members.items())) for block in self.blocks]

    def parameter_views(self, flat: Array) -> dict[str, Array]:
        """Name -> view of a flat vector, in the parameter's shape."""
        found = {}
        for block in self.blocks:
            whole = block.of(flat)
            for name, rows in block.members.items():
                found[name] = whole[..., rows, :]
        return {name: found[name] for name in self.captured.parameters}

    # --- when -------------------------------------------------------------------------------------

    def _base(self, value: Value) -> Value:
        """What a view looks at."""
        while value.primitive in VIEWS:
            value = value.operands[0]
        return value

    def _find_places_in_time(self) -> None:
        self.made: dict[Value, float] = {}
        self.used: dict[Value, list[float]] = {}
        end = float(len(self.steps))
        for step in self.steps:
            for operands, result in step.lanes:
                self.made[result] = step.at
                for operand in operands:
                    self.used.setdefault(self._base(operand), []).append(step.at)
        for value in self.outputs:
            self.used.setdefault(self._base(value), []).append(end)
        for block in self.blocks:
            self.used.setdefault(block.gradient, []).append(end)

    def _gather(self) -> None:
        """Make one step of several equal ones, where each may wait for the others."""
        alike: dict[Any, list[Step]] = {}
        for step in self.steps:
            key = self._likeness(step)
            if key is not None:
                alike.setdefault(key, []).append(step)
        late = 0
        for steps in alike.values():
            if len(steps) == 1:
                continue
            # in the order of the layers, whichever way the graph goes through them
            steps.sort(key=self._layer_order)
            groups: list[tuple[list[Step], float, float]] = []
            for step in steps:
                ((operands, result),) = step.lanes
                since = max((self.made.get(self._base(o), -1.0) for o in operands), default=-1.0)
                until = min(self.used[result])
                for i, (group, ready, deadline) in enumerate(groups):
                    if max(ready, since) < min(deadline, until) and not self._chained(group, step):
                        groups[i] = ([*group, step], max(ready, since), min(deadline, until))
                        break
                else:
                    groups.append(([step], since, until))
            for group, ready, _ in groups:
                late += 1
                if not self._merge(group, ready + late * 1e-6):
                    for part in self._by_slab(group):
                        self._merge(part, ready + late * 1e-6)
        self.steps.sort(key=lambda step: step.at)

    @staticmethod
    def _chained(group: list[Step], step: Step) -> bool:
        """Whether a step takes what another one gives."""
        ((operands, result),) = step.lanes
        lanes = [other.lanes[0] for other in group]
        return any(y in operands or result in given for given, y in lanes)

    def _by_slab(self, group: list[Step]) -> list[list[Step]]:
        parts: dict[Any, list[Step]] = {}
        for step in group:
            slabs = tuple(id(self.slab_of.get(self._base(o))) for o in step.lanes[0][0])
            parts.setdefault(slabs, []).append(step)
        return list(parts.values())

    def _likeness(self, step: Step) -> Any:
        """What steps must share to be done at once; None if this one is better done alone."""
        ((operands, result),) = step.lanes
        if result.dtype.itemsize * math.prod(result.shape) > SMALL:
            return None
        if step.kind == "gradient":
            # later, its operands would have left the cache, which costs more than a call
            if any(o.dtype.itemsize * math.prod(o.shape) > SMALL_PRODUCT for o in operands):
                return None
        else:
            notation = notation_of(step.kind) if step.kind != "affine" else None
            if notation is None or not step.kind.elementwise or not notation.calls:
                return None
            if result in self.outputs:
                return None
        parts = tuple(
            (o.uniform, o.dtype) if o.uniform is not None else (o.shape, o.dtype) for o in operands
        )
        kind = "gradient" if step.kind == "gradient" else step.kind.name
        return kind, settings_key(self._settings(step)), parts, result.shape, result.dtype

    def _settings(self, step: Step) -> dict[str, Any]:
        return step.lanes[0][1].settings

    def _layer_order(self, step: Step) -> tuple[float, int]:
        ((operands, result),) = step.lanes
        if step.kind == "gradient":
            return next(b.start for b in self.blocks if b.gradient is result), 0
        bases = [self._base(o) for o in operands if not o.constant]
        first = min(bases, key=lambda base: self.made.get(base, -1.0))
        slab = self.slab_of.get(first)
        return self.made.get(first, -1.0), slab.values.index(first) if slab else 0

    def _merge(self, group: list[Step], at: float) -> bool:
        """Make one step of several; False if their buffers cannot lie side by side."""
        if len(group) == 1:
            return True
        columns = [
            [step.lanes[0][0][k] for step in group] for k in range(len(group[0].lanes[0][0]))
        ]
        results = [step.lanes[0][1] for step in group]
        slabs = []
        for column in columns:
            if all(value is column[0] for value in column) or column[0].uniform is not None:
                continue
            slabs.append(column)
        if group[0].kind == "gradient":
            starts = np.diff(
                [next(b for b in self.blocks if b.gradient is r).start for r in results]
            )
            if (starts != starts[0]).any():
                return False
        else:
            slabs.append(results)
        placed = dict(self.slab_of)
        before = {id(slab): list(slab.values) for slab in placed.values()}
        if not all(self._side_by_side(column) for column in slabs):
            self.slab_of = placed
            for slab in placed.values():
                slab.values = before[id(slab)]
            return False
        merged = Step(group[0].kind, at, [step.lanes[0] for step in group])
        for step in group:
            self.steps.remove(step)
            for operand in step.lanes[0][0]:
                uses = self.used[self._base(operand)]
                uses[uses.index(step.at)] = at
            self.made[step.lanes[0][1]] = at
        self.steps.append(merged)
        return True

    def _side_by_side(self, values: list[Value]) -> bool:
        """Give values places in one slab, in this order; False if they have others already."""
        if len(set(values)) < len(values) or any(v not in self.made for v in values):
            return False
        if any(v in self.outputs for v in values) and any(v in self.with_block for v in values):
            return False
        slabs = {id(self.slab_of[v]): self.slab_of[v] for v in values if v in self.slab_of}
        if len(slabs) > 1:
            return False
        if not slabs:
            slab = Slab(values[0].shape, values[0].dtype, list(values))
        else:
            (slab,) = slabs.values()
            there = [i for i, v in enumerate(values) if v in self.slab_of]
            known = [values[i] for i in there]
            at = slab.values.index(known[0])
            if slab.values[at : at + len(known)] != known:
                return False
            if there == list(range(len(known))) and at + len(known) == len(slab.values):
                slab.values = slab.values + values[len(known) :]
            elif there == list(range(len(values) - len(known), len(values))) and at == 0:
                slab.values = values[: len(values) - len(known)] + slab.values
            elif len(known) != len(values):
                return False
        for value in values:
            self.slab_of[value] = slab
        return True

    # --- where ------------------------------------------------------------------------------------

    def _find_places_in_memory(self) -> None:
        self._place_fixed()
        self.scratched: set[Value] = set()  # results on whose way the operand's buffer is used
        lasts = {value: max(at) for value, at in self.used.items()}
        free: dict[Any, list[Array]] = {}
        for step in reversed(self.steps):
            for operands, result in step.lanes:
                if result not in self.arrays:
                    self._place(result, free)
                place = self.arrays[result]
                own = result not in self.pooled
                over = self._may_take_over(step)
                for k, operand in enumerate(operands):
                    if operand in self.arrays or operand.constant or operand not in self.made:
                        continue
                    fits = (
                        k in over
                        and lasts[operand] == step.at
                        and operand.shape == result.shape
                        and operand.dtype == result.dtype
                        and operand not in self.ones
                        and _contiguous(place)
                    )
                    if fits:
                        self.arrays[operand] = place
                        if result in self.pooled:
                            self.pooled.add(operand)
                        own = True  # it is not free before this step: the operand lies there
                        over = ()
                if len(step.lanes) == 1 and not _contiguous(place):
                    first = operands[0]
                    dies = first in self.made and lasts.get(first) == step.at
                    whole = (first.shape, first.dtype) == (result.shape, result.dtype)
                    if dies and whole and first not in self.arrays and 0 in over:
                        self.scratched.add(result)
                for operand in operands:
                    base = self._base(operand)
                    if base in self.made and base not in self.arrays:
                        self._place(base, free)
                if not own:
                    free.setdefault((result.shape, result.dtype), []).append(place)
        for value in [*self.outputs, *(o for s in self.steps for ops, _ in s.lanes for o in ops)]:
            self._view(value)

    def _may_take_over(self, step: Step) -> tuple[int, ...]:
        if isinstance(step.kind, str) or len(step.lanes) > 1:
            return ()
        notation = notation_of(step.kind)
        return notation.over if notation else ()

    def _place_fixed(self) -> None:
        """Inputs, parameters, constants, slabs, gradients and outputs have places of their own."""
        self.pooled: set[Value] = set()
        for value in self.captured.inputs:
            self._own(value, np.zeros)
        for name, view in self.parameter_views(self.flat).items():
            self.arrays[self.captured.parameters[name]] = view
        gradients = self.parameter_views(self.flat_gradient)
        for name, value in self.captured.gradients.items():
            if value in self.with_block or (value in self.made and value not in self.arrays):
                self.arrays[value] = gradients[name]
        for block in self.blocks:
            self.arrays[block.gradient] = block.of(self.flat_gradient)
        slabs = {id(slab): slab for slab in self.slab_of.values()}
        for slab in slabs.values():
            slab.ones = any(value in self.ones for value in slab.values)
        for step in self.steps:
            if len(step.lanes) > 1 and step.kind in PADDED and self._all_padded(step):
                self.slab_of[step.lanes[0][1]].ones = True
        self._let_slabs_take_over()
        for slab in slabs.values():
            if slab.over is not None:
                continue
            rows, columns = slab.shape[-2:]
            whole = (len(slab.values), *slab.shape[:-2], rows, columns + slab.ones)
            slab.array = buffer(whole, slab.dtype)
            slab.array[..., columns:] = 1
        for slab in slabs.values():
            while slab.over is not None:
                slab.array, slab.over = slab.over.array, slab.over.over
            assert slab.array is not None
            for i, value in enumerate(slab.values):
                self.arrays[value] = slab.array[i][..., : slab.shape[-1]]
                self.full[value] = slab.array[i]
        for base in map(self._base, self.outputs):  # to the end, nobody else may have their memory
            if base in self.made and base not in self.arrays:
                self._own(base, buffer)

    def _let_slabs_take_over(self) -> None:
        """Where a merged step takes a whole slab that nobody needs later, it may write over it."""
        for step in self.steps:
            notation = notation_of(step.kind) if len(step.lanes) > 1 else None
            results = [result for _, result in step.lanes]
            own = self.slab_of.get(results[0])
            if notation is None or own is None or own.values != results:
                continue
            for k in notation.over:
                column = [operands[k] for operands, _ in step.lanes]
                slab = self.slab_of.get(column[0])
                if (
                    slab is not None
                    and slab.values == column
                    and all(max(self.used[value]) == step.at for value in column)
                    and (slab.shape, slab.dtype, slab.ones) == (own.shape, own.dtype, own.ones)
                ):
                    own.over = slab
                    break

    def _all_padded(self, step: Step) -> bool:
        """Whether all that a merged step takes has the column of ones, or is one number."""
        slabs = [self.slab_of.get(o) for o in step.lanes[0][0] if o.uniform is None]
        return bool(slabs) and all(slab is not None and slab.ones for slab in slabs)

    def _own(self, value: Value, make: Any) -> None:
        rows, columns = value.shape[-2:]
        whole = make((*value.shape[:-2], rows, columns + (value in self.ones)), value.dtype)
        whole[..., columns:] = 1
        self.full[value], self.arrays[value] = whole, whole[..., :columns]

    def _place(self, value: Value, free: dict[Any, list[Array]]) -> None:
        if value in self.ones:
            self._own(value, buffer)
            return
        waiting = free.get((value.shape, value.dtype))
        self.arrays[value] = waiting.pop() if waiting else buffer(value.shape, value.dtype)
        self.pooled.add(value)

    def _view(self, value: Value) -> Array:
        if value not in self.arrays:
            if value.constant:
                assert value.array is not None
                self.arrays[value] = value.array
            else:
                base = self._view(value.operands[0])
                assert value.primitive is not None
                self.arrays[value] = value.primitive.kernel(base, **value.settings)
        return self.arrays[value]

    # --- the text ---------------------------------------------------------------------------------

    def _compiled(self) -> Any:
        lines = ["def run(value=True):"]
        if self.negated:
            self.names["negative"] = np.negative
            flat, negative = (
                self._named(self.flat, "parameters"),
                self._named(self.negative_flat, "negative_parameters"),
            )
            lines.append(f"    negative({flat}, {negative})")
        only_value = self._only_for_the_value()
        for step in self.steps:
            indent = "        " if step in only_value else "    "
            if step in only_value and lines[-1][:8] != indent:
                lines.append("    if value:")
            lines += [f"{indent}{line}" for line in self._lines(step)]
        gradients = self.parameter_views(self.flat_gradient)
        for name, value in self.captured.gradients.items():
            if self.arrays[value] is not gradients[name] and value not in self.with_block:
                view, given = self._named(gradients[name], f"d_{name}"), self._operand(value, False)
                self.names["copyto"] = np.copyto
                lines.append(f"    copyto({view}, {given})")
        if len(lines) == 1:
            lines.append("    pass")
        self.source = "\n".join([*lines, ""])
        exec(compile(self.source, "<fast form>", "exec"), self.names)
        return self.names["run"]

    def _only_for_the_value(self) -> set[Step]:
        """Steps that neither gradients nor what is kept needs: only the function's own value."""
        if not self.captured.gradients:
            return set()
        needed = {self._base(v) for v in (*self.captured.gradients.values(), *self.keep)}
        needed |= {block.gradient for block in self.blocks}
        found = set()
        for step in reversed(self.steps):
            if any(result in needed for _, result in step.lanes):
                needed |= {self._base(o) for operands, _ in step.lanes for o in operands}
            else:
                found.add(step)
        return found

    def _named(self, thing: Any, wanted: str) -> str:
        """A name for an array or function, the same for the same thing."""
        clean = "".join(c if c.isalnum() else "_" for c in wanted) or "t"
        name, number = clean, 2
        while name in self.names and self.names[name] is not thing:
            name, number = f"{clean}_{number}", number + 1
        self.names[name] = thing
        return name

    def _operand(self, value: Value, scalar: bool) -> str:
        if value.uniform is not None and scalar:
            return self._number(value.uniform, value.dtype)
        return self._array_name(self._view(value), value.name or "t")

    def _array_name(self, array: Array, wanted: str) -> str:
        key = (
            array.__array_interface__["data"][0],
            array.shape,
            array.strides,
            array.dtype.str,
        )
        if key not in self._by_place:
            self._by_place[key] = self._named(array, wanted)
        return self._by_place[key]

    def _slab_view(self, values: list[Value], whole: bool) -> Array:
        slab = self.slab_of[values[0]]
        assert slab.array is not None
        at = slab.values.index(values[0])
        part = slab.array[at : at + len(values)]
        return part if whole else part[..., : slab.shape[-1]]

    def _lines(self, step: Step) -> list[str]:
        if step.kind == "affine":
            (((x, w), y),) = step.lanes
            flat = self.negative_flat if y in self.negated else self.flat
            inputs = (self.full[x], f"{x.name or 't'}_1")
            block = (self.block_of[w].of(flat), f"{w.name}_block")
            return [self._product(inputs, block, (self._view(y), y.name or "t"))]
        if step.kind is p.dot and len(step.lanes) == 1:
            (((a, b), y),) = step.lanes
            left, right, out = ((self._view(v), v.name or "t") for v in (a, b, y))
            return [self._product(left, right, out)]
        if step.kind == "gradient":
            return self._gradient_lines(step)
        results = [result for _, result in step.lanes]
        first, many = results[0], len(step.lanes) > 1
        whole = many and step.kind in PADDED and self.slab_of[first].ones
        whole = whole and self._all_padded(step)
        operands = []
        for k, operand in enumerate(step.lanes[0][0]):
            column = [given[k] for given, _ in step.lanes]
            if many and operand in self.slab_of and any(v is not operand for v in column):
                view = self._slab_view(column, whole)
                operands.append(self._array_name(view, f"{operand.name or 't'}_to"))
            else:
                operands.append(self._operand(operand, step.kind.elementwise))
        into = self._slab_view(results, whole) if many else self._view(first)
        name = self._array_name(into, f"{first.name or 't'}{'_to' if many else ''}")
        return self._calls(step.kind, first, operands, name)

    def _gradient_lines(self, step: Step) -> list[str]:
        block = next(b for b in self.blocks if b.gradient is step.lanes[0][1])
        if len(step.lanes) == 1:
            (((x, delta), _),) = step.lanes
            left, right, out = self.full[x], self._view(delta), block.of(self.flat_gradient)
        else:
            xs, deltas = ([ops[k] for ops, _ in step.lanes] for k in (0, 1))
            left = self._slab_view(xs, True) if xs[0] in self.slab_of else self.full[xs[0]]
            right = self._slab_view(deltas, False)
            count = len(step.lanes)
            stretch = self.flat_gradient[block.start : block.start + count * block.size]
            out = stretch.reshape((count, *block.shape))
        inputs = (left.swapaxes(-1, -2), "inputs_T")
        return [self._product(inputs, (right, "deltas"), (out, "d_block"))]

    def _product(self, a: Named, b: Named, out: Named) -> str:
        """A matrix product; of two matrices by the method `dot`, which costs less to call."""
        arrays = (a[0], b[0], out[0])
        if all(array.ndim == 2 and array.dtype == out[0].dtype for array in arrays):
            if not out[0].flags.c_contiguous:  # (a b)ᵀ = bᵀ aᵀ
                a, b, out = ((x.T, f"{name}_T") for x, name in (b, a, out))
            if out[0].flags.c_contiguous:
                left = self._array_name(a[0], a[1])
                dot = self._named(self.names[left].dot, f"{left}_dot")
                return f"{dot}({self._array_name(*b)}, {self._array_name(*out)})"
            a, b, out = ((x.T, name.removesuffix("_T")) for x, name in (b, a, out))
        self.names["matmul"] = np.matmul
        return f"matmul({', '.join(self._array_name(*part) for part in (a, b, out))})"

    def _calls(
        self, primitive: p.Primitive, value: Value, operands: list[str], y: str
    ) -> list[str]:
        notation = notation_of(primitive)
        masked = primitive is p.where and value.operands[0].dtype != bool
        if notation is None or not notation.calls or masked:
            kernel = functools.partial(primitive.kernel, **value.settings)
            name = self._named(kernel, f"{primitive.name}_{len(self.names)}")
            self.names["copyto"] = np.copyto
            if primitive.elementwise:  # the memory's own order is quicker to go through
                operands, y = [self._transposed(o) for o in operands], self._transposed(y)
            return [f"copyto({y}, {name}({', '.join(operands)}))"]
        if primitive is KEEP:
            operands, y = [operands[0], self._as_bits(operands[1])], self._as_bits(y)
        constants = {
            word: self._number(number, value.dtype)
            for word, number in (("one", 1), ("zero", 0), ("bit", 1))
        }
        if primitive is p.relu:
            constants["zeros"] = self._zeros(y)
        calls = notation.calls
        if value.operands[0] in self.negated:
            calls = (calls[1].replace("({y}", "({0}"), *calls[2:])
        if value in self.scratched:  # all but the last result into the operand's own buffer
            last = calls[-1].rpartition("{y}")
            steps = [call.replace("{y}", "{0}") for call in calls[:-1]]
            calls = (*steps, last[0].replace("{y}", "{0}") + last[1] + last[2])
        lines = []
        for call in calls:
            text = call.format(*operands, y=y, **constants, **details(value)).removeprefix("np.")
            function = text.split("(")[0]
            self.names[function.split(".")[0]] = getattr(np, function.split(".")[0])
            if text != f"copyto({y}, {y})":
                lines.append(text)
        return lines

    def _number(self, number: float, dtype: np.dtype[Any]) -> str:
        """The name of a constant; an array without axes costs less to call with than a float."""
        name = f"c{number:g}_{dtype}".replace("-", "m").replace(".", "p").replace("+", "")
        if self.names.setdefault(name, np.array(number, dtype)) != np.array(number, dtype):
            return self._named(np.array(number, dtype), name)
        return name

    def _zeros(self, like: str) -> str:
        """As many zeros as an array has entries: `maximum` with one zero is slow."""
        array = self.names[like]
        key = ("zeros", array.shape, array.dtype.str)
        if key not in self._by_place:
            self._by_place[key] = self._named(buffer(array.shape, array.dtype), f"zeros_{like}")
        return self._by_place[key]

    def _transposed(self, name: str) -> str:
        array = self.names[name]
        return self._array_name(array.swapaxes(-1, -2), f"{name}_T") if array.ndim else name

    def _as_bits(self, name: str) -> str:
        array = self.names[name]
        return self._array_name(array.view(f"i{array.dtype.itemsize}"), f"{name}_bits")
