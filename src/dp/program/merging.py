"""Doing at once what several layers do alike.

The same small operation in several layers, where each may wait for the others, becomes one
operation on *slabs*, in which those layers' buffers lie side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.program.blocks import Wishes
from dp.program.capture import Captured
from dp.program.graph import Value, settings_key
from dp.program.steps import Step, Steps, notation_of

Array = NDArray[Any]

# Up to this size an operation costs more for being called than for being done.
SMALL = 1 << 18  # bytes
SMALL_PRODUCT = 1 << 14  # bytes of an operand
# A larger slab would be written to memory and read back, where each layer's own part of it would
# still have been in the cache.
LARGEST_SLAB = 1 << 21  # bytes


@dataclass
class Slab:
    """Buffers of one shape, side by side."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: list[Value] = field(default_factory=list)
    ones: bool = False
    array: Array | None = None
    over: Slab | None = None  # whose memory it takes over


class Merging(Steps):
    """Steps, some of them merged.

    Attributes
    ----------
    made, used : dicts
        Value -> when it is computed, and when it is needed.
    slab_of : dict
        Value -> the slab in which its buffer lies, if it lies in one.
    """

    def __init__(self, captured: Captured, wishes: Wishes) -> None:
        super().__init__(captured, wishes)
        self._find_places_in_time()
        self.slab_of: dict[Value, Slab] = {}
        self._moments = {step.at for step in self.steps}
        self._gather()

    def _find_places_in_time(self) -> None:
        self.made: dict[Value, float] = {}
        self.used: dict[Value, list[float]] = {}
        end = max((step.at for step in self.steps), default=0.0) + 1.0
        for step in self.steps:
            for operands, result in step.lanes:
                self.made[result] = step.at
                for operand in operands:
                    self.used.setdefault(self.base(operand), []).append(step.at)
        for value in self.outputs:
            self.used.setdefault(self.base(value), []).append(end)
        for block in self.blocks:
            self.used.setdefault(block.gradient, []).append(end)

    def _gather(self) -> None:
        """Make one step of several equal ones, where each may wait for the others."""
        alike: dict[Any, list[Step]] = {}
        for step in self.steps:
            key = self._likeness(step)
            if key is not None:
                alike.setdefault(key, []).append(step)
        for steps in alike.values():
            if len(steps) == 1:
                continue
            # in the order of the layers, whichever way the graph goes through them
            steps.sort(key=self._layer_order)
            groups: list[tuple[list[Step], float, float]] = []
            for step in steps:
                since, until = self._window([step])
                for i, (group, ready, deadline) in enumerate(groups):
                    if max(ready, since) < min(deadline, until) and not self._chained(group, step):
                        groups[i] = ([*group, step], max(ready, since), min(deadline, until))
                        break
                else:
                    groups.append(([step], since, until))
            for group, _, _ in groups:
                if not self._merge(group):
                    for part in self._by_slab(group):
                        self._merge(part)
        self.steps.sort(key=lambda step: step.at)
        self._check_order()

    def _window(self, group: list[Step]) -> tuple[float, float]:
        """When a group's operands are all there, and when its first result is needed."""
        operands = [self.base(o) for step in group for o in step.lanes[0][0]]
        ready = max((self.made.get(operand, -1.0) for operand in operands), default=-1.0)
        return ready, min(min(self.used[step.lanes[0][1]]) for step in group)

    def _moment(self, ready: float, deadline: float) -> float:
        """A moment between two at which nothing else is done: order decides who may overwrite."""
        share = 0.5
        while (at := ready + share * (deadline - ready)) in self._moments:
            share = (share + 0.6180339887) % 1.0  # the golden section meets no moment twice
        self._moments.add(at)
        assert ready < at < deadline
        return at

    def _check_order(self) -> None:
        """No step may read what is not made yet: it would find the previous call's numbers."""
        there: set[Value] = set()
        for step in self.steps:
            for operands, _ in step.lanes:
                for base in map(self.base, operands):
                    assert base in there or base not in self.made, f"{base} is read too early"
            there.update(result for _, result in step.lanes)

    @staticmethod
    def _chained(group: list[Step], step: Step) -> bool:
        """Whether a step takes what another one gives."""
        ((operands, result),) = step.lanes
        lanes = [other.lanes[0] for other in group]
        return any(y in operands or result in given for given, y in lanes)

    def _by_slab(self, group: list[Step]) -> list[list[Step]]:
        parts: dict[Any, list[Step]] = {}
        for step in group:
            slabs = tuple(id(self.slab_of.get(self.base(o))) for o in step.lanes[0][0])
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
        # a slab has one axis more in front, so that all must have as many axes as the result
        if any(o.uniform is None and len(o.shape) != len(result.shape) for o in operands):
            return None
        parts = tuple(
            (o.uniform, o.dtype)
            if o.uniform is not None
            else (o.shape, o.dtype, o in self.negated, o in self.ones)
            for o in operands
        )
        kind = "gradient" if step.kind == "gradient" else step.kind.name
        return kind, settings_key(result.settings), parts, result.shape, result.dtype

    def _layer_order(self, step: Step) -> tuple[float, int]:
        ((operands, result),) = step.lanes
        if step.kind == "gradient":
            return self.block_of[result].start, 0
        bases = [self.base(o) for o in operands if not o.constant] or [result]
        first = min(bases, key=lambda base: self.made.get(base, -1.0))
        slab = self.slab_of.get(first)
        return self.made.get(first, -1.0), slab.values.index(first) if slab else 0

    def _merge(self, group: list[Step]) -> bool:
        """Make one step of several, if it pays; False if their buffers cannot lie side by side."""
        if len(group) == 1:
            return True
        # anew, as what was merged before has moved
        ready, deadline = self._window(group)
        if not ready < deadline:
            return True
        at = self._moment(ready, min(deadline, ready + 1.0))
        columns = [
            [step.lanes[0][0][k] for step in group] for k in range(len(group[0].lanes[0][0]))
        ]
        results = [step.lanes[0][1] for step in group]
        size = sum(r.dtype.itemsize * math.prod(r.shape) for r in results)
        if size > LARGEST_SLAB and group[0].kind != "gradient":
            return True
        slabs = []
        for column in columns:
            if all(value is column[0] for value in column) or column[0].uniform is not None:
                continue
            slabs.append(column)
        if group[0].kind == "gradient":
            blocks = [self.block_of[result] for result in results]
            if (np.diff([block.start for block in blocks]) != blocks[0].size).any():
                return True
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
                uses = self.used[self.base(operand)]
                uses[uses.index(step.at)] = at
            self.made[step.lanes[0][1]] = at
        self.steps.append(merged)
        return True

    def _side_by_side(self, values: list[Value]) -> bool:
        """Give values places in one slab, in this order; False if they have others already."""
        if len(set(values)) < len(values) or any(v not in self.made for v in values):
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
