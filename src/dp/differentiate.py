"""Gradients of any Node with respect to any others, which can be differentiated again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dp.mode import mode
from dp.node import Node
from dp.order import topological_order
from dp.sweep import sweep, unshared, wanted_by
from dp.validation import as_matrix
from dp.watching import Sweep, watchers


def gradients(
    output: Node, wrt: Sequence[Node], cotangent: Any = None, create_graph: bool = False
) -> list[Any]:
    """Gradients of `output` with respect to the Nodes `wrt`, in one reverse sweep.

    Parameters
    ----------
    output : Node
        What is differentiated. If it is not 1×1, its entries are weighted by `cotangent` and
        summed. In an ensemble, where members do not mix, each member gets its own gradient.
    wrt : sequence of Nodes
        Leaves or intermediate results.
    cotangent : number, array, Node or None
        dL/d(output), broadcastable to its shape; ones by default.
    create_graph : bool
        Return Nodes, which can be differentiated again, instead of arrays.

    Returns
    -------
    list of arrays (or Nodes)
        Each with the shape and dtype of its Node; zeros where `output` does not depend on it.

    Raises
    ------
    TypeError
        If `output` is not a Node, or `wrt` not a list of Nodes.
    ShapeError
        If the cotangent does not broadcast to the output.
    """
    if isinstance(wrt, Node) or not all(isinstance(node, Node) for node in wrt):
        raise TypeError(f"wrt must be a list of Nodes, such as [x, w], got {wrt!r}")
    if create_graph and not mode().recording:
        raise ValueError(
            "create_graph=True within no_grad: there is nothing to differentiate again"
        )
    order = topological_order(output)
    if create_graph and not isinstance(cotangent, Node):
        cotangent = Node(as_matrix(1.0 if cotangent is None else cotangent))
    watching = () if create_graph else watchers()
    asked = wanted_by(watching, order)
    found = sweep(output, order, {*wrt, *asked}, cotangent, create_graph)
    missing = [np.zeros(node.shape, node.dtype) if node not in found else None for node in wrt]
    if create_graph:
        return [
            found[n] if zero is None else Node(zero) for n, zero in zip(wrt, missing, strict=True)
        ]
    own = unshared(
        [found[n] if zero is None else zero for n, zero in zip(wrt, missing, strict=True)]
        + [found[n] for n in asked if n in found]
    )
    given, deltas = own[: len(wrt)], own[len(wrt) :]
    leaves = {
        n: array for n, array in zip(wrt, given, strict=True) if n in found and n.name is not None
    }
    reached = dict(zip([n for n in asked if n in found], deltas, strict=True))
    for watcher in watching:
        watcher.swept(Sweep(output, order, leaves, reached, cotangent is not None))
    return given
