"""Axes, shapes and indices as users write them, converted into one form."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_axis(axis: Any, keepdims: Any = True) -> int | None:
    """Give an axis of the matrix as None (both), 0 (over the rows) or 1 (over the columns).

    -2 and -1 are 0 and 1, whatever stack there is; a tuple of both axes is None.

    Raises
    ------
    ValueError
        If it is none of these, or `keepdims` is not True.
    """
    if keepdims is not True and not (isinstance(keepdims, (bool, np.bool_)) and keepdims):
        raise ValueError(
            f"keepdims must be True, got {keepdims!r}: a sum or the like of a Node is a matrix "
            "still, such as (n, 1) or (1, m); node.value is the plain array"
        )
    if axis is None:
        return None
    if isinstance(axis, Sequence) and not isinstance(axis, str):
        both = sorted({_one(part) for part in axis})
        if both == [0, 1]:
            return None
        axis = both[0] if len(both) == 1 else axis
    found = _one(axis)
    if found < 0:
        raise ValueError(
            "axis must be None, 0 or 1 (the axes of the matrix; -2 and -1 are the same ones), got "
            f"{axis!r}"
        )
    return found


def one_axis(axis: Any) -> int:
    """Give the one axis that is meant, as 0 or 1.

    Raises
    ------
    ValueError
        If it is neither.
    """
    found = _one(axis)
    if found < 0:
        raise ValueError(
            "axis must be 0 (over the rows) or 1 (over the columns), or -2 or -1 for the same, got "
            f"{axis!r}"
        )
    return found


def _one(axis: Any) -> int:
    known = isinstance(axis, (int, np.integer)) and not isinstance(axis, bool) and -2 <= axis <= 1
    return int(axis) % 2 if known else -1


def wanted_shape(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The sides that `reshape` is asked for; one number alone makes a column."""
    one = shape[0] if len(shape) == 1 else None
    sides = tuple(one) if isinstance(one, (Sequence, np.ndarray)) else shape
    try:
        wanted = tuple(operator.index(side) for side in sides)
    except TypeError:
        raise TypeError(
            f"the sides of a matrix are integers, such as (2, 3), got {sides}"
        ) from None
    return (*wanted, 1) if len(wanted) == 1 else wanted  # 1-D means a column, as in Node(value)


def matrix_index(index: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Bring an index into the form (rows, columns), each a slice or an array of `np.intp`.

    Two arrays pick entries: a column where they are 1-D, a matrix of their shape where they are
    2-D. Rows picked by a 2-D array become a stack of matrices.

    Raises
    ------
    IndexError
        If it is none that a matrix has.
    """
    if isinstance(index, list):
        index = _array(index)
    if isinstance(index, np.ndarray) and index.dtype == bool and index.ndim == 2:
        if index.shape != shape[-2:]:
            raise IndexError(f"a mask of shape {index.shape} does not fit a matrix {shape[-2:]}")
        rows, columns = np.nonzero(index)
        return rows, columns
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) > 2:
        raise IndexError(f"a matrix has two indices, rows and columns; got {len(parts)}: {index!r}")
    whole = (*parts, slice(None))[:2]
    rows, columns = _part(whole[0], shape[-2], "row"), _part(whole[1], shape[-1], "column")
    flat = [getattr(part, "ndim", 1) < 2 for part in (rows, columns)]
    if not flat[0] and _is_integer(whole[1]):
        columns = np.array([[columns.start]], np.intp)
    elif not flat[1] and _is_integer(whole[0]):
        rows = np.array([[rows.start]], np.intp)
    elif not flat[1] and isinstance(rows, slice):
        raise IndexError(
            "columns cannot be picked by a 2-D array where the rows are a slice; transpose, and "
            f"pick rows; got {index!r}"
        )
    return rows, columns


def _is_integer(index: Any) -> bool:
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool)


def _array(index: Any) -> Any:
    try:
        return np.asarray(index)
    except (TypeError, ValueError) as error:
        raise IndexError(f"{index!r} is no index: {error}") from None


def _part(index: Any, length: int, word: str) -> Any:
    if isinstance(index, slice):
        return index
    if _is_integer(index):
        i = int(index)
        if not -length <= i < length:
            raise IndexError(f"{word} {i} is outside a matrix with {length} {word}s")
        return slice(i % length, i % length + 1)
    array = _array(index)
    if array.dtype == bool and array.shape == (length,):
        return np.nonzero(array)[0]
    if (array.dtype.kind in "iu" and array.ndim in (1, 2)) or array.shape == (0,):
        # a copy: the user may reuse it before the gradient is asked for
        return array.astype(np.intp)
    raise IndexError(
        f"{word}s are picked by an integer, a slice, an array of integers with one axis or two, or "
        f"{length} booleans; got {index!r}"
    )
