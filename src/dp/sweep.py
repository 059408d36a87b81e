"""The reverse sweep: from one output to every gradient, each node visited once.

Order, accumulation, un-broadcasting and dtype are handled here and nowhere else. Gradients live in
the sweep, not on Nodes, so sweeping twice gives the same answer.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.errors import AnomalyError, ShapeError
from dp.mode import mode
from dp.node import Node
from dp.order import topological_order
from dp.primitives import astype, broadcast_to, sum_to
from dp.shapes import describe
from dp.validation import as_matrix
from dp.watching import Sweep, Watcher, watchers

Array = NDArray[Any]


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
        If `output` is no Node, or `wrt` no list of Nodes.
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
    watching = () if create_graph else watchers()
    asked = _asked(watching, order)
    found = sweep(output, order, {*wrt, *asked}, cotangent, create_graph)
    missing = [np.zeros(node.shape, node.dtype) if node not in found else None for node in wrt]
    if create_graph:
        return [
            found[n] if zero is None else Node(zero) for n, zero in zip(wrt, missing, strict=True)
        ]
    own = _unshared(
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


def named_gradients(output: Node, cotangent: Any = None) -> dict[str, Array]:
    """Gradients with respect to every named leaf, as a dict name -> array."""
    return sweep_named(output, (), cotangent)[0]


def sweep_named(
    output: Node, also: Iterable[Node], cotangent: Any = None, caller: Any = None
) -> tuple[dict[str, Array], list[Array | None], dict[str, Node]]:
    """Gradients of the named leaves and, in the same sweep, of the Nodes in `also`.

    A Node in `also` that `output` does not depend on gets None. The third result is the named
    Nodes that have a gradient. `caller` is the model whose `get_grad` asks, and its batch, of which
    watchers are told.
    """
    order = topological_order(output)
    named: dict[str, Node] = {}
    for node in reversed(order):
        if node.name is not None and named.setdefault(node.name, node) is not node:
            raise ValueError(
                f"two different Nodes are both named {node.name!r}; gradients are reported by "
                "name, so each parameter needs its own"
            )
    extra = list(also)
    watching = watchers()
    asked = dict.fromkeys([*extra, *_asked(watching, order)])
    found = sweep(output, order, {*named.values(), *asked}, cotangent)
    reached = [name for name in named if named[name] in found]
    present = [node for node in asked if node in found]
    own = _unshared([found[named[name]] for name in reached] + [found[node] for node in present])
    others = dict(zip(present, own[len(reached) :], strict=True))
    by_name = dict(zip(reached, own, strict=False))
    leaves = {name: named[name] for name in reached}
    if watching:
        given = {leaves[name]: array for name, array in by_name.items()}
        model, batch = (None, None) if caller is None else caller
        seen = Sweep(output, order, given, others, cotangent is not None, model, batch)
        for watcher in watching:
            watcher.swept(seen)
    return by_name, [others.get(node) for node in extra], leaves


def _asked(watching: Sequence[Watcher], order: list[Node]) -> list[Node]:
    """The Nodes of a graph of which watchers want the cotangents."""
    return list(dict.fromkeys(node for watcher in watching for node in watcher.wanted(order)))


def sweep(
    output: Node,
    order: list[Node],
    targets: set[Node],
    cotangent: Any = None,
    create_graph: bool = False,
    also: Container[Node] = (),
    shares: list[tuple[Node, Node]] | None = None,
) -> dict[Node, Any]:
    """Carry cotangents from `output` to `targets`, through nothing that does not lead there.

    Parameters
    ----------
    output, order
        What is differentiated, and its `topological_order`.
    targets : set of Nodes
    cotangent, create_graph
        As in `gradients`.
    also : container of Nodes
        Those of which the cotangent is reported too, if the sweep passes them.
    shares : list, optional
        With `create_graph`, is filled with what each rule gave, and the Node whose rule it was.

    Returns
    -------
    dict
        Node -> cotangent; memory may be shared between entries.
    """
    leads = set(targets)
    for node in reversed(order):
        if not leads.isdisjoint(node.parents):
            leads.add(node)
    detecting = mode().detecting
    found: dict[Node, Any] = {}
    cotangents: dict[Node, Any] = {output: _seed(output, cotangent, create_graph)}
    for node in order:
        g = cotangents.pop(node, None)
        if g is None or node not in leads:
            continue
        if node in targets or node in also:
            found[node] = g
        if node.primitive is None:
            continue
        parents = node.parents
        # the one place where the two readings of a rule part: Nodes record, arrays compute
        y: Any = node if create_graph else node.value
        operands: Any = parents if create_graph else [q.value for q in parents]
        for parent, rule in zip(parents, node.primitive.rules):  # noqa: B905 (strict takes time)
            if rule is None or parent not in leads:
                continue
            try:
                share = rule(g, y, *operands, **node.settings)
            except AnomalyError as error:
                raise AnomalyError(f"backward of {_what(node)}: {error}") from None
            value = parent.value
            if share.shape != value.shape:
                share = sum_to(share, shape=value.shape)
            if share.dtype is not value.dtype and share.dtype != value.dtype:
                share = astype(share, dtype=value.dtype)
            if detecting:
                _check_finite(share, node, parent)
            if shares is not None:
                shares.append((share, node))
            before = cotangents.get(parent)
            if before is not None:
                share = before + share
                if detecting:
                    _check_finite(share, node, parent)
            cotangents[parent] = share
    return found


def _seed(output: Node, cotangent: Any, create_graph: bool) -> Any:
    if cotangent is None and not create_graph:
        return np.ones(output.shape, output.dtype)
    seed = cotangent
    if not isinstance(seed, Node):
        seed = Node(as_matrix(1.0 if seed is None else seed))
    elif not create_graph:
        seed = Node(seed.value)
    if mode().detecting and not np.isfinite(seed.value).all():
        raise AnomalyError(f"the cotangent is not finite: {seed!r}")
    try:
        fits = np.broadcast_shapes(seed.shape, output.shape) == output.shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"the cotangent has shape {seed.shape}, the output {output.shape}; it must be a number "
            "or an array that broadcasts to the output's shape"
        )
    # as operations, so that a cotangent's own history is kept; as arrays where nobody asks for it
    start: Any = seed if create_graph else seed.value.copy()  # what the user gave stays the user's
    if seed.shape != output.shape:
        start = broadcast_to(start, shape=output.shape)
    return start if seed.dtype == output.dtype else astype(start, dtype=output.dtype)


def _check_finite(share: Any, node: Node, parent: Node) -> None:
    value = share.value if isinstance(share, Node) else share
    if not np.isfinite(value).all():
        kind = "NaN" if np.isnan(value).any() else "Inf"
        into = f"{parent.shape}" + (f" {parent.name!r}" if parent.name else "")
        raise AnomalyError(
            f"backward of {_what(node)} gave {kind} in the gradient of its operand {into}"
        )


def _what(node: Node) -> str:
    assert node.primitive is not None
    return describe(node.primitive, node.parents, node.settings)


def _unshared(arrays: list[Any]) -> list[Any]:
    """Give each gradient memory of its own: rules may pass one array on to several operands."""
    seen: set[int] = set()
    own = []
    for array in arrays:
        shared = array.base is not None or id(array) in seen
        own.append(array.copy() if shared else array)
        seen.add(id(array))
    return own
