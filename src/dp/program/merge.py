"""Pass, optional: doing at once what several layers do alike.

The same small operation in several layers, where each may wait for the others, becomes one
operation on *slabs*, in which those layers' buffers lie side by side. Pays for nets of ten units,
where an operation costs more for being called than for being done: 3 to 6 % of such a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp.program.graph import Value, settings_key
from dp.program.layout import Layout, base
from dp.program.lower import STACK, Lowered, Operation, lifetimes, notation_of, parts

# Up to this size an operation costs more for being called than for being done.
SMALL = 1 << 18  # bytes
SMALL_PRODUCT = 1 << 14  # bytes of an operand
# A larger slab would be written to memory and read back, where each layer's own part of it would
# still have been in the cache.
LARGEST_SLAB = 1 << 21  # bytes

Slab = tuple[Value, ...]  # whose buffers, all of one shape, lie side by side


@dataclass(frozen=True, eq=False)
class Merged:
    """The operations, some of them merged; value -> the slab in which its buffer lies, if any."""

    operations: tuple[Operation, ...]
    slab_of: Mapping[Value, Slab]

    def slab(self, value: Value) -> Slab:
        """The values among which a value lies; most lie alone."""
        return self.slab_of.get(value, (value,))


def unmerged(lowered: Lowered) -> Merged:
    """The operations as they are: what this pass gives if it is left out."""
    return Merged(lowered.operations, {})


def merge(layout: Layout, lowered: Lowered) -> Merged:
    """Make one operation of several equal ones, where each may wait for the others."""
    merging = _Merging(layout, lowered)
    alike: dict[Any, list[Operation]] = {}
    for operation in lowered.operations:
        key = merging.likeness(operation)
        if key is not None:
            alike.setdefault(key, []).append(operation)
    for operations in alike.values():
        if len(operations) > 1:
            merging.gather(operations)
    found = sorted(merging.operations, key=lambda operation: operation.at)
    _check_order(found, merging.made)
    return Merged(tuple(found), merging.slab_of)


def _check_order(operations: Sequence[Operation], made: dict[Value, float]) -> None:
    """No operation may read what is not made yet: it would find the previous call's numbers."""
    there: set[Value] = set()
    for operation in operations:
        for value in operation.needed:
            assert value in there or value not in made, f"{value} is read too early"
        there.update(parts(operation.result))


class _Merging:
    """Operations, times and slabs, as far as they have been merged."""

    def __init__(self, layout: Layout, lowered: Lowered) -> None:
        self.layout, self.negated = layout, lowered.negated
        self.operations = list(lowered.operations)
        self.made, self.used = lifetimes(layout, self.operations)
        self.slab_of: dict[Value, Slab] = {}
        self._moments = {operation.at for operation in self.operations}

    def likeness(self, operation: Operation) -> Any:
        """What operations must share to be done at once; None if this one is better done alone."""
        operands, result = operation.operands, operation.result
        if _bytes(result) > SMALL or not self._may_wait(operation):
            return None
        # a slab has one axis more in front, so that all must have as many axes as the result
        if any(o.uniform is None and len(o.shape) != len(result.shape) for o in operands):
            return None
        takes = tuple(
            (o.uniform, o.dtype)
            if o.uniform is not None
            else (o.shape, o.dtype, o in self.negated, o in self.layout.ones)
            for o in operands
        )
        kind = "gradient" if operation.kind == "gradient" else operation.kind.name
        return kind, settings_key(result.settings), takes, result.shape, result.dtype

    def _may_wait(self, operation: Operation) -> bool:
        if operation.kind == "gradient":
            # later, its operands would have left the cache, which costs more than a call
            return all(_bytes(operand) <= SMALL_PRODUCT for operand in operation.operands)
        notation = notation_of(operation.kind) if operation.kind != "affine" else None
        return (
            notation is not None
            and operation.kind.elementwise
            and bool(notation.calls)
            and operation.result not in self.layout.outputs
        )

    def gather(self, operations: list[Operation]) -> None:
        """Merge equal operations, as many at a time as have a moment in common."""
        groups: list[tuple[list[Operation], float, float]] = []
        # in the order of the layers, whichever way the graph goes through them
        for operation in sorted(operations, key=self._layer_order):
            since, until = self._window([operation])
            for i, (group, ready, deadline) in enumerate(groups):
                if max(ready, since) < min(deadline, until) and not _chained(group, operation):
                    groups[i] = ([*group, operation], max(ready, since), min(deadline, until))
                    break
            else:
                groups.append(([operation], since, until))
        for group, _, _ in groups:
            if not self._merge(group):
                for part in self._by_slab(group):
                    self._merge(part)

    def _window(self, group: Sequence[Operation]) -> tuple[float, float]:
        """When a group's operands are all there, and when its first result is needed."""
        ready = (self.made.get(value, -1.0) for operation in group for value in operation.needed)
        return max(ready, default=-1.0), min(min(self.used[op.result]) for op in group)

    def _moment(self, ready: float, deadline: float) -> float:
        """A moment between two at which nothing else is done: order decides who may overwrite."""
        share = 0.5
        while (at := ready + share * (deadline - ready)) in self._moments:
            share = (share + 0.6180339887) % 1.0  # the golden section meets no moment twice
        self._moments.add(at)
        assert ready < at < deadline
        return at

    def _layer_order(self, operation: Operation) -> tuple[float, int]:
        if operation.kind == "gradient":
            return self.layout.block_of[operation.result].start, 0
        bases = [base(o) for o in operation.operands if not o.constant] or [operation.result]
        first = min(bases, key=lambda value: self.made.get(value, -1.0))
        slab = self.slab_of.get(first)
        return self.made.get(first, -1.0), slab.index(first) if slab else 0

    def _by_slab(self, group: Sequence[Operation]) -> list[list[Operation]]:
        """Parts of a group whose operands lie in the same slabs."""
        found: dict[Any, list[Operation]] = {}
        for operation in group:
            slabs = tuple(self.slab_of.get(value) for value in operation.needed)
            found.setdefault(slabs, []).append(operation)
        return list(found.values())

    def _merge(self, group: Sequence[Operation]) -> bool:
        """Make one operation of several, if it pays; False if no slab can hold them."""
        if len(group) == 1:
            return True
        # anew, as what was merged before has moved
        ready, deadline = self._window(group)
        if not ready < deadline:
            return True
        at = self._moment(ready, min(deadline, ready + 1.0))
        columns = zip(*(operation.operands for operation in group), strict=True)
        operands = tuple(map(_stacked, columns))
        result = _stacked([operation.result for operation in group])
        stacks = [operand for operand in operands if operand.primitive is STACK]
        if group[0].kind == "gradient":
            blocks = [self.layout.block_of[part] for part in parts(result)]
            if (np.diff([block.start for block in blocks]) != blocks[0].size).any():
                return True
        elif _bytes(result) > LARGEST_SLAB:
            return True
        else:
            stacks.append(result)
        before = dict(self.slab_of)
        if not all(self._side_by_side(parts(stack)) for stack in stacks):
            self.slab_of = before
            return False
        for operation in group:
            self.operations.remove(operation)
            for value in operation.needed:
                uses = self.used[value]
                uses[uses.index(operation.at)] = at
            self.made[operation.result] = at
        self.operations.append(Operation(group[0].kind, at, operands, result))
        return True

    def _side_by_side(self, values: Sequence[Value]) -> bool:
        """Give values places in one slab, in this order; False if they have others already."""
        if len(set(values)) < len(values) or any(value not in self.made for value in values):
            return False
        there = [i for i, value in enumerate(values) if value in self.slab_of]
        if len({self.slab_of[values[i]] for i in there}) > 1:
            return False
        slab: Slab = self.slab_of[values[there[0]]] if there else ()
        known = tuple(values[i] for i in there)
        at = slab.index(known[0]) if known else 0
        if slab[at : at + len(known)] != known:
            return False
        if there == list(range(len(known))) and at + len(known) == len(slab):
            slab = (*slab, *values[len(known) :])
        elif there == list(range(len(values) - len(known), len(values))) and at == 0:
            slab = (*values[: len(values) - len(known)], *slab)
        elif len(known) != len(values):
            return False
        self.slab_of |= dict.fromkeys(slab, slab)
        return True


def _bytes(value: Value) -> int:
    return value.dtype.itemsize * math.prod(value.shape)


def _stacked(column: Sequence[Value]) -> Value:
    """The same operand, or result, of several operations; a stack unless it is one for all."""
    first = column[0]
    if first.uniform is not None or all(value is first for value in column):
        return first
    shape = (len(column), *first.shape)
    return Value(STACK, tuple(column), {}, shape, first.dtype, name=f"{first.name or 't'}_to")


def _chained(group: Sequence[Operation], operation: Operation) -> bool:
    """Whether an operation takes what another one gives."""
    return any(
        other.result in operation.operands or operation.result in other.operands for other in group
    )
