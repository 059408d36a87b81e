"""Means, sizes and counts of the entries of arrays of any library.

Functions reduce the last axis: what they are given are the *entries* of a gradient, a weight, a
delta or an activation, in any order (see `gradiometer.arrays.entries`). Leading axes (steps,
layers, members of an ensemble) are kept. An entry that is not finite makes the number not finite:
nothing is dropped.

Arrays of NumPy are reduced in as few passes over memory as can be, and looked at a second time in
the rare cases that need it. Where there are leading axes, that overflows are nothing to be warned
of is for the caller to say (`np.errstate`); one vector alone gives no warnings. Other arrays (on a
GPU, or in a program that is being traced) are reduced where they are, by their own library, without
a look at the values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiometer.arrays import Array, Numbers, namespace

# mean squares that are exact: below tiny / eps they have lost digits
_EXACT = {
    np.dtype(kind).char: (
        float(np.finfo(kind).tiny / np.finfo(kind).eps),
        float(np.finfo(kind).max),
    )
    for kind in (np.float32, np.float64)
}


def mean_abs(x: Array) -> Numbers:
    """Mean of |entries|."""
    if not isinstance(x, np.ndarray):
        return namespace(x).mean(namespace(x).abs(x), axis=-1)
    if x.ndim > 1:
        return _each(mean_abs, x) if x.shape[-1] >= _LONG else mean(np.abs(x))
    total = _sum_of_sizes(x)
    return total / x.size if math.isfinite(total) else _in_double(np.abs(x))


def mean(x: Array) -> Numbers:
    """Mean of the entries, also where their sum overflows in the array's own precision."""
    if not isinstance(x, np.ndarray):
        return namespace(x).mean(x, axis=-1)
    if x.ndim > 1:
        if x.shape[-1] >= _LONG:
            return _each(mean, x)
        found = np.add.reduce(x, axis=-1) / x.shape[-1]  # as np.mean does, to the last digit
        return found if _all_finite(found) else _in_double(x)
    total = _sum(x)
    return total / x.size if math.isfinite(total) else _in_double(x)


def rms(x: Array) -> Numbers:
    """Root of the mean square, also of entries whose squares overflow or underflow."""
    if isinstance(x, np.ndarray):
        low, high = _EXACT[x.dtype.char]
        if x.ndim == 1:
            square = _sum_of_squares(x) / x.size
            if low < square < high:
                return math.sqrt(square)
            with np.errstate(all="ignore"):
                return float(_scaled_rms(x.astype(np.float64))) if x.any() else 0.0
        squares = np.vecdot(x, x) / x.shape[-1]
        if ((low < squares) & (squares < high)).all():
            return np.sqrt(squares)
        if not x.any():
            return np.zeros(x.shape[:-1])
        x = x.astype(np.float64)
    return _scaled_rms(x)


def _scaled_rms(x: Array) -> Array:
    xp = namespace(x)
    largest = xp.max(xp.abs(x), axis=-1, keepdims=True)
    usual = (largest > 0) & xp.isfinite(largest)
    unit = xp.where(usual, largest, xp.ones_like(largest))
    scaled = x / unit
    return xp.sqrt(xp.mean(scaled * scaled, axis=-1)) * unit[..., 0]


def std(x: Array, mean_of_x: Numbers | None = None) -> Numbers:
    """Standard deviation of the entries (population, ddof 0).

    Their mean is for those who have it already.
    """
    centre: Any = mean(x) if mean_of_x is None else mean_of_x
    if not isinstance(x, np.ndarray):
        return rms(x - centre[..., None])
    if x.ndim == 1:  # without another pass, where next to nothing of the squares cancels
        low, high = _EXACT[x.dtype.char]
        square = _sum_of_squares(x) / x.size
        variance = square - float(centre) * float(centre)  # infinite, where ** raises
        if square < high and variance > max(square / 4, low):
            return math.sqrt(variance)
        with np.errstate(all="ignore"):
            return rms(x - np.asarray(centre, x.dtype))
    return rms(x - np.asarray(centre, x.dtype)[..., None])


def norm(parts: Iterable[Array]) -> Numbers:
    """Euclidean norm of the entries of several arrays together, also where squares overflow."""
    total: Numbers = 0.0
    for x in parts:
        total = namespace(x).hypot(total, rms(x) * math.sqrt(x.shape[-1]))
    return total


def nonfinite_count(x: Array, summary: Numbers | None = None) -> Numbers:
    """Number of entries that are NaN or infinite.

    `summary` is a number of each matrix that is finite only if all its entries are, such as their
    mean: where it is, they need not be counted.
    """
    if not isinstance(x, np.ndarray):
        xp = namespace(x)
        return xp.sum(xp.astype(~xp.isfinite(x), xp.int32), axis=-1)
    if summary is None:
        summary = np.vecdot(x, x) if x.ndim > 1 else _sum_of_squares(x)
    if _all_finite(summary):
        return np.zeros(x.shape[:-1], np.intp) if x.ndim > 1 else 0
    return np.asarray(x.shape[-1] - np.count_nonzero(np.isfinite(x), axis=-1))


# --- sums of a vector -----------------------------------------------------------------------------

# By BLAS, which gives no warnings, in one pass each and without arrays in between; a long vector in
# parts: with few enough entries for BLAS to keep to one thread, and for ones to stay in a cache.
_PART = 1 << 16
_LONG = 1 << 13  # from here on, vectors of an array are worth a call each


def _sum(x: NDArray[Any]) -> float:
    dot, ones = _blas(x.dtype.char).dot, _ones(x.dtype.char)
    if x.size <= _PART:
        return dot(x, ones[: x.size])
    return sum(dot(part, ones[: part.size]) for part in _parts(x))


def _sum_of_sizes(x: NDArray[Any]) -> float:
    asum = _blas(x.dtype.char).asum
    return asum(x) if x.size <= _PART else sum(map(asum, _parts(x)))


def _sum_of_squares(x: NDArray[Any]) -> float:
    dot = _blas(x.dtype.char).dot
    return dot(x, x) if x.size <= _PART else sum(dot(part, part) for part in _parts(x))


def _parts(x: NDArray[Any]) -> list[NDArray[Any]]:
    return [x[start : start + _PART] for start in range(0, x.size, _PART)]


class _Blas(NamedTuple):
    dot: Callable[[NDArray[Any], NDArray[Any]], float]
    asum: Callable[[NDArray[Any]], float]


@functools.cache
def _blas(dtype: str) -> _Blas:
    """BLAS for a kind of number, named by its `dtype.char`."""
    from scipy.linalg import blas

    return _Blas(*blas.get_blas_funcs(("dot", "asum"), dtype=dtype))


@functools.cache
def _ones(dtype: str) -> NDArray[Any]:
    return np.ones(_PART, dtype)


def _each(quantity: Callable[[NDArray[Any]], Numbers], x: NDArray[Any]) -> NDArray[Any]:
    """The quantity of every vector of an array."""
    lead = x.shape[:-1]
    return np.array([quantity(x[at]) for at in np.ndindex(lead)], np.float64).reshape(lead)


def _in_double(x: NDArray[Any]) -> Numbers:
    """Mean of entries whose sum overflows in their own precision, or that are not finite."""
    with np.errstate(all="ignore"):
        if x.dtype == np.float64:
            return np.add.reduce(x / x.shape[-1], axis=-1)
        return np.add.reduce(x, axis=-1, dtype=np.float64) / x.shape[-1]


def _all_finite(numbers: Any) -> bool:
    if isinstance(numbers, float | np.floating):
        return math.isfinite(numbers)
    return bool(np.isfinite(numbers).all())
