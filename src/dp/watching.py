"""Telling others what happens to a model: layers that are called, sweeps, updates, training loops.

Whoever wants to know registers a `Watcher`. It is told of every model and in every thread, and
picks out what it is interested in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(eq=False)
class Sweep:
    """One reverse sweep.

    Attributes
    ----------
    output : Node
        What was differentiated.
    order : list of Nodes
        Its graph, consumers before their operands.
    leaves : dict
        Named leaf -> gradient, the array that the caller is given.
    deltas : dict
        Node that a watcher asked for -> its cotangent; without those that were not reached. In
        memory that nobody else writes into.
    weighted : bool
        Whether a cotangent was given: then the gradients are not those of the output itself.
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
    """Somebody who is told; override what is of interest."""

    def called(self, layer: Any, given: Any, pre_activation: Any) -> None:
        """A layer was called."""

    def wanted(self, order: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002
        """Say of which Nodes of a graph the cotangents are wanted; a sweep begins."""
        return ()

    def swept(self, sweep: Sweep) -> None:
        """Called when the sweep is over, before its caller is given the gradients."""

    def updated(self, model: Any) -> None:
        """Called when a model's `set_param` is over."""

    def loop_begins(self, optimizer: Any) -> None:
        """The library's training loop begins; callbacks that are added now are called in it."""

    def loop_ends(self, optimizer: Any) -> None:
        """It has ended, be it by an exception."""


_watchers: tuple[Watcher, ...] = ()


def watchers() -> tuple[Watcher, ...]:
    """Those who are told."""
    return _watchers


def register(watcher: Watcher) -> None:
    """Tell a watcher from now on."""
    global _watchers
    _watchers = (*_watchers, watcher)


def unregister(watcher: Watcher) -> None:
    """Do not tell it any more; one that is not registered is ignored."""
    global _watchers
    _watchers = tuple(other for other in _watchers if other is not watcher)


@contextlib.contextmanager
def loop(optimizer: Any) -> Iterator[None]:
    """Tell watchers that the library's training loop begins, and that it ends."""
    told = _watchers
    try:
        for watcher in told:
            watcher.loop_begins(optimizer)
        yield
    finally:
        for watcher in told:
            watcher.loop_ends(optimizer)
