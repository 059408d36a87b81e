"""Where a batch lies: its parts, and what is computed from them alone, side by side."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from dp.program.graph import Value, in_order
from dp.typing import Array

CACHE_LINE = 64  # bytes


def zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Memory that begins where a cache line does: operations on it are up to a fifth quicker."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


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
