"""Pass: where everything lies, in buffers that are made once.

Every buffer holds its matrices column by column, so that a column of ones lies at the end and all
other columns are contiguous; blocks of parameters are held row by row, the bias last. A result
takes the memory of one that nobody needs any more, and so does a whole slab.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp import primitives as p
from dp.program.graph import Value
from dp.program.layout import Layout, base
from dp.program.lower import STACK, Lowered, Operation, lifetimes, notation_of, parts
from dp.program.merge import Merged, Slab
from dp.program.tables import CACHE_LINE, Table, zeros
from dp.typing import Array

# Harmless, and quick, on the column of ones too, so that a whole slab is one stretch of memory.
PADDED = (p.add, p.subtract, p.multiply, p.negative, p.square)

FEW = 8  # columns of an input; rows of more are quicker to copy as they are


@dataclass(frozen=True, eq=False)
class Buffers:
    """Where values, parameters and gradients lie.

    Attributes
    ----------
    state : array (1 + stores, n)
        All parameters, and below them as many vectors for whatever an optimiser keeps of them.
    flat, flat_gradient, negative_flat : arrays (n,)
        All parameters, all their gradients, and the parameters negated.
    shared : bool
        Whether `flat` is that of another program.
    arrays, full : dicts
        Value -> its buffer, without and with the column of ones.
    whole : set of Operations
        Those that are done on whole stacks, columns of ones included.
    tables : tuple of Tables
        Where the inputs lie.
    """

    state: Array
    flat: Array
    flat_gradient: Array
    negative_flat: Array
    shared: bool
    arrays: Mapping[Value, Array]
    full: Mapping[Value, Array]
    whole: frozenset[Operation]
    tables: tuple[Table, ...]


def buffer(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Memory for a stack of matrices, each column by column."""
    return zeros((*shape[:-2], shape[-1], shape[-2]), dtype).swapaxes(-1, -2)


def place(
    layout: Layout,
    lowered: Lowered,
    merged: Merged,
    stores: int = 0,
    batches: bool = False,
    beside: Array | None = None,
) -> Buffers:
    """Give everything its place.

    `beside` is another program's vector of parameters, laid out alike, to be read instead of one of
    its own; for `stores` and `batches` see `compile_graph`.
    """
    line = CACHE_LINE // layout.dtype.itemsize
    padded = -(-layout.size // line) * line
    state = zeros((1 + stores, padded), layout.dtype)[:, : layout.size]
    flat = state[0] if beside is None else beside
    flat_gradient = zeros((layout.size,), layout.dtype)
    places = _Places(layout, merged.operations)
    tables = places.inputs(lowered.prepared, batches)
    places.parameters(flat, flat_gradient)
    ones = _slabs_with_ones(layout, merged)
    places.results(merged, ones)
    return Buffers(
        state,
        flat,
        flat_gradient,
        zeros(flat.shape if lowered.negated else (0,), flat.dtype),
        beside is not None,
        places.arrays,
        places.full,
        frozenset(op for op in merged.operations if _is_padded(layout, merged, op, ones)),
        tables,
    )


def _slabs_with_ones(layout: Layout, merged: Merged) -> set[Slab]:
    """The slabs with a column of ones: layers' inputs, and what is computed from whole slabs."""
    ones = {merged.slab(value) for value in layout.ones}
    # until nothing changes: a result with a column of ones may be another operation's operand
    while grown := {
        slab
        for operation in merged.operations
        if _is_padded(layout, merged, operation, ones)
        and (slab := merged.slab(parts(operation.result)[0])) not in ones
    }:
        ones |= grown
    return ones


def _is_padded(layout: Layout, merged: Merged, operation: Operation, ones: set[Slab]) -> bool:
    """Whether a merged operation can be done on whole stacks, columns of ones included.

    So it can if all that it takes has such a column, or is one number, and if nobody needs ones in
    the result.
    """
    result, matrices = operation.result, [o for o in operation.operands if o.uniform is None]
    if result.primitive is not STACK or operation.kind not in PADDED or not matrices:
        return False
    # an operand that all layers share is no stack
    whole = all(o.primitive is STACK and merged.slab(parts(o)[0]) in ones for o in matrices)
    return whole and layout.ones.isdisjoint(merged.slab(parts(result)[0]))


def _written_over(operation: Operation, merged: Merged) -> set[Value]:
    """What an operation may write its result over while it reads it."""
    notation = notation_of(operation.kind)
    if notation is None or merged.slab(parts(operation.result)[0]) != parts(operation.result):
        return set()
    over: set[Value] = set()
    read: set[Value] = set()  # by another call, or in another order
    for k, operand in enumerate(operation.operands):
        mine = parts(operand)
        if k in notation.over and merged.slab(mine[0]) == mine and base(operand) is operand:
            over |= set(mine)
        else:
            read |= set(map(base, mine))
    return over - read


class _Places:
    """Arrays of values, as far as they have been given."""

    def __init__(self, layout: Layout, operations: Sequence[Operation]) -> None:
        self.layout, self.operations = layout, operations
        self.made, self.used = lifetimes(layout, operations)
        self.arrays: dict[Value, Array] = {}
        self.full: dict[Value, Array] = {}

    def inputs(self, prepared: Sequence[Value], batches: bool) -> tuple[Table, ...]:
        """Inputs and what is prepared from them; of a batch, those of few columns side by side."""
        needed = {value for operation in self.operations for value in operation.needed}
        needed |= {base(value) for value in self.layout.outputs}
        together: dict[Any, list[Value]] = {}
        for value in (*self.layout.captured.inputs, *(v for v in prepared if v in needed)):
            few = batches and value.shape[-1] <= FEW
            together.setdefault((value.shape[:-1], value.dtype) if few else value, []).append(value)
        tables = tuple(
            Table(values, self.layout.ones, by_rows=key is values[0])
            for key, values in together.items()
        )
        for table, values in zip(tables, together.values(), strict=True):
            for value in values:
                self.arrays[value] = table.part(table.array, value)
                self.full[value] = table.part(table.array, value, with_ones=True)
        return tables

    def parameters(self, flat: Array, flat_gradient: Array) -> None:
        """Parameters and gradients have their stretches of the flat vectors."""
        layout, captured = self.layout, self.layout.captured
        for name, view in layout.views(flat).items():
            self.arrays[captured.parameters[name]] = view
        gradients = layout.views(flat_gradient)
        for name, value in captured.gradients.items():
            free = value in self.made and value not in self.arrays
            if value in layout.dropped or (name not in layout.by_block and free):
                self.arrays[value] = gradients[name]
        for block in layout.blocks:
            self.arrays[block.gradient] = block.of(flat_gradient)
        for value in (op.result for op in self.operations if op.kind == "gradient"):
            if value.primitive is STACK:
                first = layout.block_of[parts(value)[0]]
                self.arrays[value] = first.of(flat_gradient, len(parts(value)))

    def results(self, merged: Merged, ones: Collection[Slab]) -> None:
        """All others, from the last operation to the first: who comes later leaves its memory."""
        # the ones must stay, and what is wanted is there to the end
        alone = self.layout.ones | {base(value) for value in self.layout.outputs}
        memory: dict[Slab, Array] = {}
        free: dict[Any, list[Array]] = {}

        def give(value: Value) -> None:
            if value in self.arrays or value not in self.made:
                return
            slab = merged.slab(value)
            shape = (len(slab), *value.shape[:-1], value.shape[-1] + (slab in ones))
            waiting = free.get((shape, value.dtype)) if alone.isdisjoint(slab) else None
            memory[slab] = waiting.pop() if waiting else buffer(shape, value.dtype)
            for part, whole in zip(slab, memory[slab], strict=True):
                whole[..., value.shape[-1] :] = 1
                self.full[part], self.arrays[part] = whole, whole[..., : value.shape[-1]]

        for operation in reversed(self.operations):
            made, over = parts(operation.result), _written_over(operation, merged)
            for value in (*made, *(value for value in operation.needed if value not in over)):
                give(value)
            slab = merged.slab(made[0])
            first = operation.at == min(self.made[value] for value in slab)
            if first and slab in memory and alone.isdisjoint(slab):
                free.setdefault((memory[slab].shape, slab[0].dtype), []).append(memory[slab])
            for value in operation.needed:
                give(value)
        self._stacks(merged, memory)
        for value in (*self.layout.outputs, *(o for op in self.operations for o in op.operands)):
            self._view(value)

    def _stacks(self, merged: Merged, memory: Mapping[Slab, Array]) -> None:
        """Stacks are parts of slabs."""
        for value in (v for op in self.operations for v in (*op.operands, op.result)):
            slab = merged.slab(parts(value)[0])
            if value.primitive is STACK and slab in memory:
                at = slab.index(parts(value)[0])
                self.full[value] = memory[slab][at : at + len(parts(value))]
                self.arrays[value] = self.full[value][..., : value.shape[-1]]

    def _view(self, value: Value) -> Array:
        if value not in self.arrays:
            if value.array is not None:
                self.arrays[value] = value.array
            else:
                assert value.primitive is not None
                seen = self._view(value.operands[0])
                self.arrays[value] = value.primitive.kernel(seen, **value.settings)
        return self.arrays[value]
