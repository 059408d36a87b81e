"""What a function does while it is captured that a program could not repeat.

A program computes with new numbers, but takes the way that was taken once. So whoever looks at the
numbers of a Node while capturing may have decided something by them. `Watch` sees every such look,
in its own thread alone, and notes the line.
"""

from __future__ import annotations

import contextvars
import dis
import functools
import linecache
import pickle
import random
import sys
import types
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from dp.mode import mode
from dp.node import Node
from dp.typing import Array

Result = TypeVar("Result")

_WATCHING: ContextVar[Watch | None] = ContextVar("dp_value_watch", default=None)
_SLOT: Any = Node.__dict__["value"]
_ACTIVE: dict[int, Watch] = {}  # the watches at work, in all threads

# What of Node's own modules may look at a value, because it computes with it or asks for its shape;
# anything else there hands it to the caller.
COMPUTES = {
    "Node.record", "Node.__init__", "Node.shape", "Node.dtype", "Node.ndim", "Node.__deepcopy__",
    "PlainValues.size", "as_leaf", "_as_nodes", "_constant",
}  # fmt: skip
HANDS_OUT = {"Model.get_param"}
FORM = {"shape", "dtype", "ndim", "size", "itemsize", "nbytes"}


def apart(function: Callable[[], Result]) -> Result:
    """Call a function so that no mode that it sets outlives it, not even by an interrupt."""
    return contextvars.copy_context().run(function)


class Watch:
    """Sees which numbers of Nodes are looked at while a function runs.

    Parameters
    ----------
    arguments : collection of Nodes
        The function's arguments.
    moved : mapping, optional
        Named Node -> the array that it shall seem to hold. Nobody else sees it.

    Attributes
    ----------
    looks : list of str
        What was looked at, and where.
    """

    def __init__(
        self, arguments: Collection[Node], moved: Mapping[Node, Array] | None = None
    ) -> None:
        self.looks: list[str] = []
        self.checks_labels = False  # whether a loss of the library's own has looked at its labels
        self._arguments = {id(node) for node in arguments}
        self._moved = {id(node): array for node, array in (moved or {}).items()}

    def run(self, function: Callable[[], Result]) -> Result:
        """Call a function, watching."""

        def watched() -> Result:
            _WATCHING.set(self)
            return function()

        try:
            try:
                _ACTIVE[id(self)] = self
                _install(_VALUE)
                return apart(watched)
            finally:
                self._end()
        except BaseException:
            self._end()  # again: an interrupt may have come in the middle of it
            raise

    def _end(self) -> None:
        _ACTIVE.pop(id(self), None)
        if not _ACTIVE:
            _install(_SLOT)
        if _ACTIVE:  # another thread has begun in between
            _install(_VALUE)

    def look(self, node: Node, frame: types.FrameType) -> Array:
        """Give a Node's numbers, noting who wants to see them."""
        moved = self._moved.get(id(node))
        array: Array = _SLOT.__get__(node) if moved is None else moved
        depends = node.primitive is not None or node.name is not None or id(node) in self._arguments
        if depends and not _may_look(frame):
            if _next_attribute(frame) not in FORM:
                self._note(f"the numbers of {_kind(node)} were looked at", frame)
        elif frame.f_globals.get("__name__") == "dp.losses":
            self.checks_labels = True
        return array

    def change(self, frame: types.FrameType) -> None:
        """Note that a Node's value is set."""
        if not mode().recording:
            self._note("something was computed within no_grad", frame)
        elif not _may_look(frame):
            self._note("the value of a Node was set", frame)

    def _note(self, what: str, frame: types.FrameType) -> None:
        user: types.FrameType | None = frame
        while user is not None and _module(user).partition(".")[0] == "dp":
            user = user.f_back
        if user is None:
            user = frame
        file, line = user.f_code.co_filename, user.f_lineno
        text = linecache.getline(file, line, user.f_globals).strip()
        self.looks.append(f"{what} in {file}, line {line}" + (f": {text}" if text else ""))


def _get(node: Node) -> Array:
    watch = _WATCHING.get()
    if watch is None:
        array: Array = _SLOT.__get__(node)
        return array
    return watch.look(node, sys._getframe(1))


def _set(node: Node, value: Array) -> None:
    watch = _WATCHING.get()
    if watch is not None:
        watch.change(sys._getframe(1))
    _SLOT.__set__(node, value)


_VALUE = property(_get, _set)


def _install(descriptor: Any) -> None:
    """Let every look at a Node's value go through a descriptor, in every thread."""
    setattr(Node, "value", descriptor)  # noqa: B010 (mypy knows a slot only)


def _module(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _may_look(frame: types.FrameType) -> bool:
    """Whether a frame is of the library, and keeps to itself what it sees."""
    module = _module(frame)
    if module.partition(".")[0] != "dp":
        return False
    name = frame.f_code.co_qualname.partition(".<locals>")[0]
    return name in COMPUTES if module in ("dp.node", "dp.plain_values") else name not in HANDS_OUT


def _kind(node: Node) -> str:
    name = f" {node.name!r}" if node.name else ""
    made = f" from {node.primitive.name}" if node.primitive is not None else ""
    shape = "×".join(map(str, _SLOT.__get__(node).shape))
    return f"a Node{name}{made} of shape {shape}"


@functools.lru_cache(maxsize=256)
def _following(code: types.CodeType) -> dict[int, str]:
    """Offset of an instruction -> the attribute that the next one takes; "" if it takes none."""
    found: dict[int, str] = {}
    before = -1
    for instruction in dis.get_instructions(code):
        takes = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
        found[before] = str(instruction.argval) if takes else ""
        before = instruction.offset
    return found


def _next_attribute(frame: types.FrameType) -> str:
    """Which attribute of what it has just got a frame takes next, as in `node.value.shape`."""
    return _following(frame.f_code).get(frame.f_lasti, "")


class RandomStates:
    """Where NumPy's and Python's global streams of random numbers stand, and some generators."""

    def __init__(self, generators: Collection[tuple[str, Any]] = ()) -> None:
        self._generators = list(generators)
        self._states = self._now()

    def moved(self) -> str:
        """Say which of them has moved since; "" if none."""
        for name, state in self._now().items():
            if state != self._states[name]:
                return name
        return ""

    def _now(self) -> dict[str, Any]:
        found = {"np.random": pickle.dumps(np.random.get_state()), "random": random.getstate()}
        return found | {path: _state_of(generator) for path, generator in self._generators}


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state())
    return pickle.dumps(getattr(generator, "bit_generator", generator).state)
