"""The reverse sweep: from one output to every gradient, each node visited once.

Order, accumulation, un-broadcasting and dtype are handled here and nowhere else. Gradients live in
the sweep, not on Nodes, so sweeping twice gives the same answer. It asks of a Node only what
`primitives.Recorded` has.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np

from dp.errors import AnomalyError, ShapeError
from dp.mode import mode
from dp.order import AnyNode, topological_order
from dp.primitives import Recorded, astype, broadcast_to, sum_to
from dp.shapes import describe
from dp.typing import Array
from dp.validation import as_matrix
from dp.watching import Sweep, Watcher, watchers


def named_gradients(output: AnyNode, cotangent: Any = None) -> dict[str, Array]:
    """Gradients with respect to every named leaf, as a dict name -> array."""
    return sweep_named(output, (), cotangent)[0]


def sweep_named(
    output: AnyNode, also: Iterable[AnyNode], cotangent: Any = None, caller: Any = None
) -> tuple[dict[str, Array], list[Array | None], dict[str, AnyNode]]:
    """Gradients of the named leaves and, in the same sweep, of the Nodes in `also`.

    A Node in `also` that `output` does not depend on gets None. The third result is the named
    Nodes that have a gradient. `caller` is the model whose `get_grad` asks, and its batch, of which
    watchers are notified.
    """
    order = topological_order(output)
    named: dict[str, AnyNode] = {}
    for node in reversed(order):
        if node.name is not None and named.setdefault(node.name, node) is not node:
            raise ValueError(
                f"two different Nodes are both named {node.name!r}; gradients are reported by "
                "name, so each parameter needs its own"
            )
    extra = list(also)
    watching = watchers()
    asked = dict.fromkeys([*extra, *wanted_by(watching, order)])
    found = sweep(output, order, {*named.values(), *asked}, cotangent)
    reached = [name for name in named if named[name] in found]
    present = [node for node in asked if node in found]
    own = unshared([found[named[name]] for name in reached] + [found[node] for node in present])
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


def wanted_by(watching: Sequence[Watcher], order: Sequence[AnyNode]) -> list[AnyNode]:
    """The Nodes of a graph of which watchers want the cotangents."""
    return list(dict.fromkeys(node for watcher in watching for node in watcher.wanted(order)))


def sweep(
    output: AnyNode,
    order: Sequence[AnyNode],
    targets: set[AnyNode],
    cotangent: Any = None,
    create_graph: bool = False,
    also: Container[AnyNode] = (),
    shares: list[tuple[AnyNode, AnyNode]] | None = None,
) -> dict[AnyNode, Any]:
    """Carry cotangents from `output` to `targets`, through nothing that does not lead there.

    Parameters
    ----------
    output, order
        What is differentiated, and its `topological_order`.
    targets : set of Nodes
    cotangent : number, array, Node or None
        dL/d(output), as in `dp.gradients`.
    create_graph : bool
        Carry Nodes, which can be differentiated again, instead of arrays. Then `cotangent` is a
        Node.
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
    found: dict[AnyNode, Any] = {}
    cotangents: dict[AnyNode, Any] = {output: _start(output, cotangent, create_graph)}
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


def _start(output: Recorded, cotangent: Any, create_graph: bool) -> Any:
    """dL/d(output) with its shape and dtype: a Node with `create_graph`, an array otherwise."""
    if not create_graph:
        if cotangent is None:
            return np.ones(output.value.shape, output.value.dtype)
        cotangent = cotangent.value if isinstance(cotangent, Recorded) else as_matrix(cotangent)
    given: Array = cotangent.value if create_graph else cotangent
    if mode().detecting and not np.isfinite(given).all():
        raise AnomalyError(f"the cotangent is not finite: {cotangent!r}")
    wanted = output.value.shape
    try:
        fits = np.broadcast_shapes(given.shape, wanted) == wanted
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"the cotangent has shape {given.shape}, the output {wanted}; it must be a number "
            "or an array that broadcasts to the output's shape"
        )
    # as operations, so that a cotangent's own history is kept; as arrays where nobody asks for it
    start: Any = cotangent if create_graph else given.copy()  # what the user gave stays the user's
    if given.shape != wanted:
        start = broadcast_to(start, shape=wanted)
    if given.dtype != output.value.dtype:
        start = astype(start, dtype=output.value.dtype)
    return start


def _check_finite(share: Any, node: Recorded, parent: Recorded) -> None:
    value = share.value if isinstance(share, Recorded) else share
    if not np.isfinite(value).all():
        kind = "NaN" if np.isnan(value).any() else "Inf"
        into = f"{parent.value.shape}" + (f" {parent.name!r}" if parent.name else "")
        raise AnomalyError(
            f"backward of {_what(node)} gave {kind} in the gradient of its operand {into}"
        )


def _what(node: Recorded) -> str:
    assert node.primitive is not None
    return describe(node.primitive, node.parents, node.settings)


def unshared(arrays: list[Any]) -> list[Any]:
    """Give each gradient memory of its own: rules may pass one array on to several operands."""
    seen: set[int] = set()
    own = []
    for array in arrays:
        shared = array.base is not None or id(array) in seen
        own.append(array.copy() if shared else array)
        seen.add(id(array))
    return own
