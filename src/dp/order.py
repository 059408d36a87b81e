"""The order of a graph: consumers before what they consume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dp.primitives import Recorded

AnyNode = TypeVar("AnyNode", bound=Recorded)


def topological_order(output: AnyNode) -> list[AnyNode]:
    """Every Node that `output` was computed from, itself first, consumers before their operands."""
    if not isinstance(output, Recorded):
        raise TypeError(f"only a Node has a gradient, got {type(output).__name__}: {output!r:.60}")
    waiting = {output: 0}  # how many consumers each node still waits for
    stack = [output]
    while stack:
        for parent in stack.pop().parents:
            if parent in waiting:
                waiting[parent] += 1
            else:
                waiting[parent] = 1
                stack.append(parent)
    order = []
    ready = [output]
    while ready:
        node = ready.pop()
        order.append(node)
        for parent in node.parents:
            waiting[parent] -= 1
            if not waiting[parent]:
                ready.append(parent)
    return order


def consumers_of(order: Sequence[AnyNode]) -> dict[AnyNode, list[AnyNode]]:
    """Who takes what: each Node of a graph -> those that were computed from it."""
    consumers: dict[AnyNode, list[AnyNode]] = {}
    for node in order:
        for parent in node.parents:
            consumers.setdefault(parent, []).append(node)
    return consumers
