"""Running a function while it is captured, and refusing what a program could not repeat.

A function is run on the batch given and on two others, with other parameters: what differs between
the graphs would be frozen. What it looks at meanwhile is seen by `reads.py`, and what it depends
on besides is found by `guards.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp.errors import CaptureError
from dp.layers import WATCH, LayerCall, LayerWatch
from dp.mode import MODE, mode
from dp.model import Model
from dp.node import Node
from dp.order import topological_order
from dp.program.graph import settings_key
from dp.program.guards import Guard
from dp.program.reads import RandomStates, Watch, apart
from dp.typing import Array


@dataclass(frozen=True)
class Seen:
    """What was seen of a function: its graph, its layers' calls, and what it depends on."""

    output: Node
    calls: list[LayerCall]
    guard: Guard
    checks_labels: bool


def trusting_run(function: Callable[..., Node], leaves: list[Node]) -> Seen:
    """Run a function of the library's own, which depends on its arguments and parameters alone."""
    output, calls = apart(lambda: _run(function, leaves))
    return Seen(output, calls, Guard(function), checks_labels=True)


def watched_runs(function: Callable[..., Node], leaves: list[Node]) -> Seen:
    """Run a function on several batches, and refuse what a program could not repeat.

    Raises
    ------
    CaptureError
    """
    title = getattr(function, "__name__", function)
    may_draw = Guard(function)
    watch = Watch(leaves)
    states = RandomStates(may_draw.generators)
    output, calls = watch.run(lambda: _run(function, leaves))
    drawn = states.moved()
    if drawn and threading.active_count() > 1 and not may_draw.may_draw:
        drawn = ""  # another thread did
    if drawn == "np.random":
        raise CaptureError(_draws_numbers(title, ""))
    guard = Guard(function)
    found, looks = _forward(output, leaves), watch.looks
    for other in (_moved_rows, _one_row):
        others = [Node(other(leaf.value)) for leaf in leaves]
        again = Watch(others, _moved_parameters(output))
        twin, _ = again.run(lambda others=others: _run_quietly(function, others))  # type: ignore[misc]
        _check_same(found, _forward(twin, others))
        looks = looks + again.looks
    if drawn:
        raise CaptureError(_draws_numbers(title, f" from {drawn}"))
    _check_looks(title, looks)
    _check_state(title, guard, _parameters_of(function, output), _constants(output, leaves))
    return Seen(output, calls, guard, watch.checks_labels)


def _draws_numbers(title: Any, source: str) -> str:
    return (
        f"{title!r} draws random numbers{source}, which a program would draw only once; pass them "
        "as an argument"
    )


def _check_looks(title: Any, looks: list[str]) -> None:
    """Refuse a function that has looked at numbers which differ from batch to batch."""
    if looks:
        raise CaptureError(
            f"{title!r} cannot be captured: {looks[0]}. A program does not come there again with "
            "other numbers. Choose with dp.primitives.where or Node.clip instead of `if`, compute "
            "with Nodes instead of node.value (node.shape may be read), and print or keep numbers "
            "in a callback; or train without compile=True"
        )


def _check_state(
    title: Any, guard: Guard, parameters: dict[str, Array], constants: list[Array]
) -> None:
    """Refuse a function that remembers something from call to call, or has parameters as arrays."""
    if guard.iterators:
        raise CaptureError(
            f"{title!r} may read {guard.iterators[0]}, an iterator, which gives something else "
            "each time; use a list"
        )
    changed = guard.settle()
    if changed:
        raise CaptureError(
            f"{title!r} changes {changed} when it is called, which a program would not do in every "
            "step; do that in a callback"
        )
    unnamed = [("an array", array) for array in constants]
    for path, array in unnamed + guard.arrays:
        for name, live in parameters.items():
            if np.may_share_memory(array, live):
                raise CaptureError(
                    f"{title!r} takes {path} for a constant, but it is the array of the parameter "
                    f"{name!r}, which training changes; use the layer's Node"
                )


def _run(function: Callable[..., Node], leaves: list[Node]) -> tuple[Node, list[LayerCall]]:
    """Run a function while decisions by values are refused; gives its layers' calls too.

    In a context of its own (`apart`), so that nothing needs to be put back.
    """
    watch = LayerWatch()
    WATCH.set(watch)
    MODE.set(mode()._replace(recording=True, capturing=True))
    output = function(*leaves)
    if not isinstance(output, Node):
        raise CaptureError(
            f"{getattr(function, '__name__', function)!r} must give a Node to be captured, got "
            f"{type(output).__name__}"
        )
    return output, list(watch.calls)


def _run_quietly(function: Callable[..., Node], leaves: list[Node]) -> Any:
    np.seterr(all="ignore")
    return _run(function, leaves)


def _moved_rows(array: Array) -> Array:
    """A batch unlike the first: backwards, and smaller where it may be (labels may not)."""
    whole = array.dtype.kind != "f" or not (array != np.rint(array)).any()
    return array[..., ::-1, :] * (1.0 if whole else array.dtype.type(0.875))


def _one_row(array: Array) -> Array:
    """A batch unlike the first: its last row over and over."""
    return np.repeat(array[..., -1:, :], array.shape[-2], axis=-2)


def _moved_parameters(output: Node) -> dict[Node, Array]:
    """The parameters of a graph -> other numbers for them, a little way off."""
    moved = {}
    for node in topological_order(output):
        if node.name is not None:
            kind = node.value.dtype.type
            moved[node] = node.value * kind(0.875) + kind(0.0078125)
    return moved


def _parameters_of(function: Callable[..., Node], output: Node) -> dict[str, Array]:
    """The parameters of a graph, and of the model whose method was called."""
    found = {n.name: n.value for n in topological_order(output) if n.name is not None}
    owner = getattr(function, "__self__", None)
    return found | (Model.get_param(owner) if isinstance(owner, Model) else {})


def _constants(output: Node, leaves: list[Node]) -> list[Array]:
    arguments = set(leaves)
    return [
        node.value
        for node in topological_order(output)
        if node.primitive is None and node.name is None and node not in arguments
    ]


def _forward(output: Node, leaves: list[Node]) -> list[tuple[Any, ...]]:
    """A graph as a list that can be compared: operation, settings, operands by position."""
    arguments = {leaf: i for i, leaf in enumerate(leaves)}
    positions: dict[Node, int] = {}
    rows: list[tuple[Any, ...]] = []
    for node in reversed(topological_order(output)):
        positions[node] = len(rows)
        if node.primitive is not None:
            operands = tuple(positions[q] for q in node.parents)
            rows.append((node.primitive.name, settings_key(node.settings), operands))
        elif node in arguments:
            rows.append(("argument", arguments[node], node.shape))
        elif node.name is not None:
            rows.append(("parameter", node.name, node.shape))
        else:
            rows.append(("constant", node.shape, node.value.tobytes()))
    return rows


def _check_same(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    if first == second:
        return
    for one, two in zip(first, second, strict=False):
        if one != two:
            if one[0] == two[0] == "constant" and one[1] == two[1]:
                raise CaptureError(
                    f"a constant of shape {one[1]} differs from call to call: it is random, or "
                    "was computed from node.value; pass it as an argument, or compute it with "
                    "Nodes"
                )
            if one[0] == two[0]:
                raise CaptureError(
                    f"the settings or operands of {one[0]!r} differ from call to call; a captured "
                    "function must do the same for every batch"
                )
            raise CaptureError(
                f"the function does {one[0]!r} for one batch and {two[0]!r} for another; a "
                "captured function must do the same for every batch"
            )
    raise CaptureError(
        f"the function does {len(first)} operations for one batch and {len(second)} for another; "
        "a captured function must do the same for every batch"
    )
