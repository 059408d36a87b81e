"""Error messages with a hint: attributes that Nodes lack, and subclasses that lose gradients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np

OWN_OPERATION = (
    "Declare an operation of your own with its derivative, and use it like any other:\n"
    '    sine = dp.declare("sine", np.sin, lambda g, y, x: g * np.cos(x))\n'
    "    y = sine(w)\n"
    "The rule gives dL/dx from g = dL/dy, the value y and the operand x."
)

_OTHERS = {
    "backward": "gradients come from loss.grad(), or from dp.gradients(loss, [x])",
    "detach": "dp.Node(node.value) has no past",
    "numpy": "node.value is the plain array",
    "view": "write node.reshape(rows, columns)",
    "mm": "write node @ other",
    "matmul": "write node @ other",
    "unsqueeze": "a Node is a matrix: write node.reshape(rows, columns)",
    "squeeze": "a Node is a matrix: write node.reshape(rows, columns), or node.value",
    "zero_grad": "gradients are not kept on Nodes, so there is nothing to set to zero",
    "requires_grad": "a named Node is a parameter, see Node(value, name)",
    "copy": "node.value.copy() is a copy of the numbers",
    "data": "write node.value",
}


def missing_attribute(owner: str, name: str, known: list[str]) -> str:
    """The message about an attribute that a Node does not have."""
    text = f"a {owner} has no {name!r}"
    if name in ("primitive", "parents", "settings", "value", "name"):
        return f"{text} yet: its __init__ must call super().__init__(value, name)"
    if name in _OTHERS:
        return f"{text}; {_OTHERS[name]}"
    if hasattr(np.ndarray, name):
        return f"{text}; node.value.{name} is the plain array's, through which no gradient flows"
    import difflib  # as in validation.py: `import dp` is light

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"{text}; did you mean {close[0]!r}?"
    return f"{text}. Operations give plain Nodes; {OWN_OPERATION[0].lower()}{OWN_OPERATION[1:]}"


class _Missing:
    """An attribute of arrays that Nodes lack: raises an error that says what to write instead.

    Node has no `__getattr__` instead, which would slow down the lookup of every attribute, and a
    training step by a tenth.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, node: Any, owner: type) -> Any:
        raise AttributeError(missing_attribute(owner.__name__, self.name, []), name=self.name)


def _any_missing(node: Any, name: str) -> Any:
    known = [] if name.startswith("_") else node.__dir__()
    raise AttributeError(missing_attribute(type(node).__name__, name, known), name=name, obj=None)


def hint_at_missing(cls: Any, everything: bool = False) -> None:
    """Give a class hints for the attributes of arrays that it lacks.

    With `everything`, for all other names too, and for what an unfinished `__init__` left out. That
    is for subclasses of Node, whose operations give plain Nodes; for Node itself, Python's own hint
    will do.
    """
    if everything:
        cls.__getattr__ = _any_missing
        return
    present = [name for name in dir(cls) if name[0] != "_"]
    wanted = {*_OTHERS, *(name for name in dir(np.ndarray) if name[0] != "_")}
    for name in wanted.difference(present):
        missing = _Missing()
        missing.__set_name__(cls, name)
        setattr(cls, name, missing)
    cls.__dir__ = lambda node: [
        name
        for name in object.__dir__(node)
        if not isinstance(inspect.getattr_static(node, name, None), _Missing)
    ]


class Guarded:
    """A method that no instance can replace, as the sweep would not call the replacement."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, node: Any, owner: type) -> Any:
        return self.function if node is None else MethodType(self.function, node)

    def __set__(self, node: Any, value: Any) -> None:
        raise AttributeError(
            "the grad of a Node cannot be set: no reverse sweep would call it, and gradients would "
            f"be wrong. {OWN_OPERATION}"
        )


# What the sweep relies on.
_FIXED = frozenset(("grad", "record", "value", "name", "parents", "primitive", "settings")) | {
    *("shape", "dtype", "ndim", "__eq__", "__ne__", "__hash__", "__getattribute__")
}
_FREE = frozenset(
    ("__init__", "__new__", "__repr__", "__str__", "__format__", "__reduce__", "__deepcopy__")
)


def check_subclass(base: Any, derived: type) -> None:
    """Refuse a subclass of Node that would give wrong gradients, and check what its methods return.

    Raises
    ------
    TypeError
        If it overrides what the sweep relies on.
    """
    for name, value in list(vars(derived).items()):
        if name in _FIXED:
            raise TypeError(
                f"{derived.__name__} cannot override Node.{name}: gradients are computed in one "
                f"sweep that relies on it, and would be wrong. {OWN_OPERATION}"
            )
        if not hasattr(base, name) or name in _FREE:
            continue
        if isinstance(value, property) and value.fget is not None:
            setattr(derived, name, property(_watched(base, derived, name, value.fget)))
        elif inspect.isfunction(value):
            setattr(derived, name, _watched(base, derived, name, value))
        elif not name.startswith("__"):
            raise TypeError(
                f"{derived.__name__} can override Node.{name} with a method alone, got {value!r}"
            )


def _watched(base: Any, derived: type, name: str, method: Callable[..., Any]) -> Any:
    """Wrap an overridden operation: its result must remember the operand it was computed from."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        if isinstance(result, base) and base.forgot(result, self):
            raise TypeError(
                f"{derived.__name__}.{name} gave a Node that does not remember what it was "
                f"computed from, so its gradient would be lost. {OWN_OPERATION}"
            )
        return result

    return call
