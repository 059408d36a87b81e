"""What a program may be called with, and how quietly it computes."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from dp import primitives as p
from dp.errors import CaptureError, ShapeError
from dp.node import Node
from dp.program.capture import Captured
from dp.program.graph import Value
from dp.typing import Array
from dp.validation import as_matrix


def quietly(captured: Captured) -> contextlib.AbstractContextManager[Any]:
    """No warning where a sigmoid's exp overflows on its way to a right result."""
    if any(value.primitive is p.sigmoid for value in captured.values()):
        return np.errstate(over="ignore")
    return contextlib.nullcontext()


def fitting(value: Value, argument: Any) -> Array:
    """Give an argument as an array, if it has the captured shape and dtype."""
    array = argument.value if isinstance(argument, Node) else as_matrix(argument, value.dtype)
    check_shape(value.name, array.shape, value.shape)
    if array.dtype != value.dtype:
        raise TypeError(
            f"argument {value.name!r} was captured as {value.dtype}, got {array.dtype}; convert "
            "it, or capture anew"
        )
    return array


def check_shape(name: str, shape: tuple[int, ...], captured: tuple[int, ...]) -> None:
    """Raise ShapeError unless a shape is the captured one."""
    if shape != captured:
        raise ShapeError(
            f"{name!r} was captured with shape {captured}, got {shape}; a program takes one shape: "
            "capture anew for another"
        )


def refuse_if_changed(captured: Captured) -> None:
    """Raise CaptureError if something that a function depends on has changed since its capture."""
    changed = captured.guard.changed() or captured.guard.changed_large()
    if changed:
        raise CaptureError(
            f"{changed} has changed since {captured.function!r} was captured, which depends on it; "
            "capture anew"
        )
