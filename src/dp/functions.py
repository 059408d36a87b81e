"""Operations on several Nodes, as functions: choosing, comparing, joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dp import primitives as p
from dp.node import Node


def equal(a: Any, b: Any) -> Node:
    """1 where the entries of `a` and `b` are equal, 0 elsewhere; no gradient flows.

    `a == b` asks instead whether two Nodes are one and the same.

    Parameters
    ----------
    a, b : Node, array or number
        Of shapes that broadcast.

    Returns
    -------
    Node
        Of the shape to which they broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> import dp
    >>> dp.equal(dp.Node([[1.0, 2.0]]), dp.Node([[1.0, 3.0]])).tolist()
    [[1.0, 0.0]]
    """
    first, second = (a, b) if isinstance(a, Node) else (b, a)  # equality has no sides
    if not isinstance(first, Node):
        first = Node(first)
    return Node.record(
        p.astype, (Node.record(p.equal, (first, second), {}),), {"dtype": first.dtype}
    )


def where(mask: Any, a: Any, b: Any) -> Node:
    """Entries of `a` where the mask is true (not 0), those of `b` elsewhere.

    Gradients flow to what was chosen, and none to the mask.

    Parameters
    ----------
    mask : Node, array of booleans or numbers
        Such as `x > 0`.
    a, b : Node, array or number

    Returns
    -------
    Node
        Of the shape to which all three broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> import dp
    >>> x = dp.Node([[-1.0, 2.0]], "x")
    >>> dp.where(x > 0, x, 0.1 * x).sum().grad()["x"].tolist()
    [[0.1, 1.0]]
    """
    return Node.record(p.where, (mask, a, b), {})


def concatenate(nodes: Sequence[Any], axis: int = 0) -> Node:
    """Join any number of Nodes and arrays.

    Parameters
    ----------
    nodes : sequence of Nodes, arrays and numbers
    axis : 0 or 1
        0 puts rows below each other, 1 columns side by side.

    Returns
    -------
    Node

    Raises
    ------
    TypeError, ValueError
        If it is not a list, or is empty, or the axis is neither 0 nor 1.
    ShapeError
        If the other sides differ.

    Examples
    --------
    >>> import dp
    >>> losses = [dp.Node(1.0), dp.Node(2.0), dp.Node(3.0)]
    >>> dp.concatenate(losses).mean().item()
    2.0
    """
    if isinstance(nodes, Node):
        raise TypeError("concatenate takes a list of Nodes: dp.concatenate([a, b], axis=0)")
    return Node.joined(list(nodes), axis)
