"""Where everything lies: buffers that are made once.

Every buffer holds its matrices column by column, so that a column of ones lies at the end and all
other columns are contiguous; blocks of parameters are held row by row, the bias last. A result
takes over the buffer of an operand that nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.program.blocks import Wishes, zeros
from dp.program.capture import Captured
from dp.program.graph import Value, in_order
from dp.program.merging import Merging, Slab
from dp.program.steps import Step, notation_of

Array = NDArray[Any]

# Harmless, and quick, on the column of ones too, so that a whole slab is one stretch of memory.
PADDED = (p.add, p.subtract, p.multiply, p.negative, p.square)

FEW = 8  # columns of an input; rows of more are quicker to copy as they are


def buffer(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Memory for a stack of matrices, each column by column."""
    return zeros((*shape[:-2], shape[-1], shape[-2]), dtype).swapaxes(-1, -2)


def _contiguous(array: Array) -> bool:
    return array.flags.c_contiguous or array.swapaxes(-1, -2).flags.c_contiguous


class Table:
    """Where inputs lie, and what is prepared from them: side by side, filled at once.

    Attributes
    ----------
    array : array (…, rows, columns), or of few columns (columns, …, rows)
        So few are quicker to gather, and to compute with, one column after the other.
    """

    def __init__(self, values: Sequence[Value], ones: Collection[Value], by_rows: bool) -> None:
        self._ones, self._by_rows = ones, by_rows
        self._begin, at = {}, 0
        for value in values:
            self._begin[value] = at
            at += value.shape[-1] + (value in ones)
        rows = values[0].shape[:-1]
        self.array = zeros((*rows, at) if by_rows else (at, *rows), values[0].dtype)
        self.array[...] = 1

    def part(self, array: Array, value: Value, with_ones: bool = False) -> Array:
        """The columns of a value in an array that is laid out like the table's."""
        begin = self._begin[value]
        end = begin + value.shape[-1] + (with_ones and value in self._ones)
        return array[..., begin:end] if self._by_rows else np.moveaxis(array[begin:end], 0, -1)

    def fill(self, given: Mapping[Value, Array]) -> None:
        """Put a batch there; each input is given in its own dtype."""
        self._fill(self.array, given)

    def of_data(self, given: Mapping[Value, Array]) -> Array:
        """All rows there are of the inputs, for `take`."""
        count = len(next(iter(given.values())))
        columns = self.array.shape[-1 if self._by_rows else 0]
        whole = np.ones((count, columns) if self._by_rows else (columns, count), self.array.dtype)
        with np.errstate(all="ignore"):  # some rows may never be taken
            self._fill(whole, given)
        return whole

    def take(self, data: Array, rows: Array) -> None:
        """Put these rows of the data there; (rows,), or (members, rows)."""
        data.take(rows, 0 if self._by_rows else 1, self.array, "clip")

    def _fill(self, array: Array, given: Mapping[Value, Array]) -> None:
        known = dict(given)
        for value in self._begin:
            _compute(value, known)
            self.part(array, value)[...] = known[value]


def _compute(value: Value, known: dict[Value, Array]) -> None:
    """Add what is computed from known inputs alone, and all on its way, to what is known."""
    for part in in_order([value]):
        if part not in known:
            # rows may be more than were captured, so that constants are given as one number
            operands = [
                known[o] if o in known else np.array(o.uniform, o.dtype) for o in part.operands
            ]
            assert part.primitive is not None
            known[part] = part.primitive.kernel(*operands, **part.settings)


class Memory(Merging):
    """Steps, and a buffer for every value.

    Attributes
    ----------
    arrays, full : dicts
        Value -> its buffer, without and with the column of ones.
    scratched : set of Values
        Results on whose way an operand's buffer is used up.
    tables : list of Table
    """

    def __init__(self, captured: Captured, wishes: Wishes) -> None:
        super().__init__(captured, wishes)
        self.arrays: dict[Value, Array] = {}
        self.full: dict[Value, Array] = {}
        self._find_places_in_memory()

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
                    base = self.base(operand)
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
        self._place_inputs()
        for name, view in self.parameter_views(self.flat).items():
            self.arrays[self.captured.parameters[name]] = view
        gradients = self.parameter_views(self.flat_gradient)
        for name, value in self.captured.gradients.items():
            if value in self.dropped or (
                name not in self.by_block and value in self.made and value not in self.arrays
            ):
                self.arrays[value] = gradients[name]
        for block in self.blocks:
            self.arrays[block.gradient] = block.of(self.flat_gradient)
        slabs = {id(slab): slab for slab in self.slab_of.values()}
        for slab in slabs.values():
            slab.ones = any(value in self.ones for value in slab.values)
        # until nothing changes: a result with a column of ones may be another step's operand
        while grown := [
            slab
            for step in self.steps
            if self.padded(step) and not (slab := self.slab_of[step.lanes[0][1]]).ones
        ]:
            for slab in grown:
                slab.ones = True
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
        for base in map(self.base, self.outputs):  # to the end, nobody else may have their memory
            if base in self.made and base not in self.arrays:
                self._own(base)

    def _place_inputs(self) -> None:
        """Inputs and what is prepared from them; of a batch, those of few columns side by side."""
        needed = {self.base(o) for step in self.steps for ops, _ in step.lanes for o in ops}
        needed |= {self.base(value) for value in self.outputs}
        together: dict[Any, list[Value]] = {}
        for value in (*self.captured.inputs, *(v for v in self.prepared if v in needed)):
            few = self.batches and value.shape[-1] <= FEW
            key = (value.shape[:-1], value.dtype) if few else value
            together.setdefault(key, []).append(value)
        self.tables = [
            Table(values, self.ones, by_rows=key is values[0]) for key, values in together.items()
        ]
        for table, values in zip(self.tables, together.values(), strict=True):
            for value in values:
                self.arrays[value] = table.part(table.array, value)
                self.full[value] = table.part(table.array, value, with_ones=True)

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
                    and not self._needs_ones(slab)
                    and not self._needs_ones(own)
                ):
                    own.over = slab
                    break

    def padded(self, step: Step) -> bool:
        """Whether a merged step can be done on whole slabs, columns of ones included.

        So it can if all that it takes has such a column, or is one number, and if nobody needs ones
        in the result.
        """
        if len(step.lanes) == 1 or step.kind not in PADDED:
            return False
        first = step.lanes[0][0]
        shared = [o for k, o in enumerate(first) if o is step.lanes[1][0][k] and o.uniform is None]
        if shared:  # which is no slab of as many as there are lanes
            return False
        slabs = [self.slab_of.get(o) for o in first if o.uniform is None]
        whole = bool(slabs) and all(slab is not None and slab.ones for slab in slabs)
        return whole and not self._needs_ones(self.slab_of[step.lanes[0][1]])

    def _needs_ones(self, slab: Slab) -> bool:
        return any(value in self.ones for value in slab.values)

    def _own(self, value: Value) -> None:
        rows, columns = value.shape[-2:]
        whole = buffer((*value.shape[:-2], rows, columns + (value in self.ones)), value.dtype)
        whole[..., columns:] = 1
        self.full[value], self.arrays[value] = whole, whole[..., :columns]

    def _place(self, value: Value, free: dict[Any, list[Array]]) -> None:
        if value in self.ones:
            self._own(value)
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
