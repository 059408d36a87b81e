"""The order of a graph: consumers before what they consume."""

from __future__ import annotations

from collections.abc import Sequence

from dp.node import Node


def topological_order(output: Node) -> list[Node]:
    """Every Node that `output` was computed from, itself first, consumers before their operands."""
    if not isinstance(output, Node):
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


def consumers_of(order: Sequence[Node]) -> dict[Node, list[Node]]:
    """Who takes what: each Node of a graph -> those that were computed from it."""
    consumers: dict[Node, list[Node]] = {}
    for node in order:
        for parent in node.parents:
            consumers.setdefault(parent, []).append(node)
    return consumers
