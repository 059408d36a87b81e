"""Checks of input: each error names the value and what would be accepted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from dp.typing import Array


def shown(value: object) -> str:
    """A value in an error message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def real_array(value: Any) -> Array:
    """Give a number, an array or nested lists of real numbers as an array.

    Raises
    ------
    TypeError
        For text, None, complex numbers, masks, lists of unequal lengths.
    """
    if isinstance(value, np.ma.MaskedArray) or _holds_masked(value):
        raise TypeError("value is a masked array, whose mask would be lost; fill it first")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise TypeError(f"value must be a number or a rectangular array: {error}") from error
    if array.dtype.kind not in "biuf":
        given = shown(value) if not isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(
            f"value must be a real number or an array of real numbers, got {given} of dtype "
            f"{array.dtype}"
        )
    return array


def as_matrix(value: Any, dtype: Any = None) -> Array:
    """Turn a number or array into a float array of at least two dimensions (see `Node`)."""
    if type(value) is np.ndarray and value.dtype.kind == "f" and value.ndim >= 2:  # nearly always
        return value
    array = real_array(value)
    if array.dtype.kind != "f":
        array = array.astype(dtype if dtype is not None else np.float64)
    if array.ndim < 2:
        array = array.reshape(-1, 1)
    return array


def _holds_masked(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(
        isinstance(part, np.ma.MaskedArray) or _holds_masked(part) for part in value
    )


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message about a name that is not in a table, with the closest one that is."""
    import difflib

    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"


def one_of(what: str, value: Any, accepted: Sequence[str]) -> None:
    """Raise ValueError unless `value` is among those accepted."""
    if value not in accepted:
        raise ValueError(unknown(what, value, accepted))


def positive_integer(what: str, number: Any) -> None:
    """Raise ValueError unless `number` is an integer of at least 1."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{what} must be an integer of at least 1, got {number!r}")


def integer(what: str, number: Any) -> int:
    """Give an integer as such; raise TypeError for anything else."""
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"{what} must be an integer, got {number!r}")
    return int(number)


def number(what: str, value: Any) -> float:
    """Give a real number as a float; raise TypeError for anything else, ValueError for NaN."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if value != value:
        raise ValueError(f"{what} must be a number, got NaN")
    return float(value)


def positive_number(what: str, value: Any) -> float:
    """Give a finite number above 0 as a float; raise ValueError for anything else."""
    checked = _number_or_nan(value)
    if not 0 < checked < np.inf:
        raise ValueError(f"{what} must be a number above 0, got {value!r}")
    return checked


def decay(what: str, value: Any) -> float:
    """Give a number in [0, 1) as a float; raise ValueError for anything else."""
    checked = _number_or_nan(value)
    if not 0 <= checked < 1:
        raise ValueError(f"{what} must lie in [0, 1), got {value!r}")
    return checked


def _number_or_nan(value: Any) -> float:
    try:
        return number("value", value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def seeds(seed: Any) -> list[int]:
    """Give the seed or seeds as a list; raise ValueError for what NumPy takes for no seed."""
    several = isinstance(seed, Sequence) and not isinstance(seed, (str, bytes))
    if isinstance(seed, (range, np.ndarray)) and np.ndim(seed) == 1:
        several = True
    found = list(seed) if several else [seed]
    if not found:
        raise ValueError("an ensemble needs at least one seed, got none")
    for one in found:
        if isinstance(one, (bool, np.bool_)) or not isinstance(one, Integral) or one < 0:
            raise ValueError(f"a seed must be an integer of at least 0, got {one!r}")
    return [int(one) for one in found]
