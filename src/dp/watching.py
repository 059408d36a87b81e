"""Watchers: objects notified of layer calls, reverse sweeps, updates and training loops.

A registered `Watcher` is notified of every model, in every thread, and ignores those it is not
interested in. Layers, models and optimisers notify it. They stand above this module, hence `Any`
in the signatures below.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dp.typing import Array


@dataclass(eq=False)
class Sweep:
    """One reverse sweep.

    Attributes
    ----------
    output : Node
        What was differentiated.
    order : list of Nodes
        The graph of `output`, consumers before their operands.
    leaves : dict
        Named leaf -> gradient, the array that the caller is given.
    deltas : dict
        Node that a watcher asked for -> its cotangent, a copy; Nodes that the sweep did not reach
        are missing.
    weighted : bool
        Whether a cotangent was given, so that the gradients are not those of the output itself.
    model : Model, optional
        Whose `get_grad` made the sweep.
    batch : (x, y), optional
        As `get_grad` was given it.
    """

    output: Any
    order: list[Any]
    leaves: dict[Any, Array]
    deltas: dict[Any, Array] = field(default_factory=dict)
    weighted: bool = False
    model: Any = None
    batch: tuple[Any, Any] | None = None


class Watcher:
    """Override the methods of the events you want to be notified of."""

    def called(self, layer: Any, given: Any, affine: Any, pre_activation: Any) -> None:
        """A layer was called; its normalisation, if any, is between the last two."""

    def wanted(self, order: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002
        """A sweep begins: return those Nodes of the graph whose cotangents you want."""
        return ()

    def swept(self, sweep: Sweep) -> None:
        """A sweep has ended; its caller has not been given the gradients yet."""

    def updated(self, model: Any) -> None:
        """A model's `set_param` has ended."""

    def loop_begins(self, optimizer: Any) -> None:
        """The library's training loop begins; callbacks added now are called in it."""

    def loop_ends(self, optimizer: Any) -> None:
        """The library's training loop has ended, possibly by an exception."""


_watchers: tuple[Watcher, ...] = ()


def watchers() -> tuple[Watcher, ...]:
    """The registered watchers."""
    return _watchers


def register(watcher: Watcher) -> None:
    """Notify a watcher from now on."""
    global _watchers
    _watchers = (*_watchers, watcher)


def unregister(watcher: Watcher) -> None:
    """Stop notifying a watcher; one that is not registered is ignored."""
    global _watchers
    _watchers = tuple(other for other in _watchers if other is not watcher)


@contextlib.contextmanager
def loop(optimizer: Any) -> Iterator[None]:
    """Notify watchers that the library's training loop begins, and that it ends."""
    notified = _watchers
    try:
        for watcher in notified:
            watcher.loop_begins(optimizer)
        yield
    finally:
        for watcher in notified:
            watcher.loop_ends(optimizer)
