"""The functions that compute quantities, for arrays of any library.

Their names, labels and ranges are in the table, `gradiometer.quantities`.

Functions reduce the last axis: what they are given are the *entries* of a gradient, a weight, a
delta or an activation, in any order (see `entries`). Leading axes (steps, layers, members of an
ensemble) are kept. An entry that is not finite makes the number not finite: nothing is dropped.

Arrays of NumPy are reduced in as few passes over memory as can be, and looked at a second time in
the rare cases that need it. Where there are leading axes, that overflows are nothing to be warned
of is for the caller to say (`np.errstate`); one vector alone gives no warnings. Other arrays (on a
GPU, or in a program that is being traced) are reduced where they are, by their own library, without
a look at the values.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiometer.recording.typing import Array, Numbers, SameArray

# mean squares that are exact: below tiny / eps they have lost digits
_EXACT = {
    np.dtype(kind).char: (
        float(np.finfo(kind).tiny / np.finfo(kind).eps),
        float(np.finfo(kind).max),
    )
    for kind in (np.float32, np.float64)
}

MATRIX = (-2, -1)

# log10 bins of the gradient histogram: half a decade each; zeros fall into the first, which has
# no lower end
HISTOGRAM_EDGES = np.concatenate([[-np.inf], np.arange(-20.0, 5.5, 0.5)])


def entries(array: Array, axes: Sequence[int] | None = MATRIX) -> Array:
    """The entries of each matrix as one axis, (…, n).

    Parameters
    ----------
    array : array
        A matrix in its last two axes, or in those given (the kernel of a convolution has more).
    axes : sequence of int, optional
        The last ones; None for all.

    Raises
    ------
    ValueError
        If they are others.
    """
    lead = 0 if axes is None else array.ndim - len(axes)
    if axes is not None and axes is not MATRIX and any(a % array.ndim < lead for a in axes):
        raise ValueError(f"axes must be the last ones of {array.ndim}, got {tuple(axes)}")
    if not isinstance(array, np.ndarray):
        xp = _namespace(array)
        if array.dtype in (getattr(xp, "float16", None), getattr(xp, "bfloat16", None)):
            array = xp.astype(array, xp.float32)
        return xp.reshape(array, (*array.shape[:lead], -1))
    if array.dtype.char == "e":
        array = array.astype(np.float32)
    # in the order of memory, so that no copy is made
    if not lead:
        return array.ravel("K")
    if array.flags.c_contiguous:
        return array.reshape(*array.shape[:lead], -1)
    steps = array.strides
    order = sorted(range(lead, array.ndim), key=lambda axis: -steps[axis])
    return array.transpose(*range(lead), *order).reshape(*array.shape[:lead], -1)


def mean_abs(x: Array) -> Numbers:
    """Mean of |entries|."""
    if not isinstance(x, np.ndarray):
        return _namespace(x).mean(_namespace(x).abs(x), axis=-1)
    if x.ndim > 1:
        return _each(mean_abs, x) if x.shape[-1] >= _LONG else mean(np.abs(x))
    total = _sum_of_sizes(x)
    return total / x.size if math.isfinite(total) else _in_double(np.abs(x))


def mean(x: Array) -> Numbers:
    """Mean of the entries, also where their sum overflows in the array's own precision."""
    if not isinstance(x, np.ndarray):
        return _namespace(x).mean(x, axis=-1)
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
    xp = _namespace(x)
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
        total = _namespace(x).hypot(total, rms(x) * math.sqrt(x.shape[-1]))
    return total


def zero_fraction(x: Array, nonfinite: Numbers | None = None) -> Numbers:
    """Share of entries that are exactly zero; NaN if any is not finite.

    `nonfinite` is their number (see `nonfinite_count`), for those who have it already.
    """
    return share(x == 0, nonfinite_count(x) if nonfinite is None else nonfinite)


def share(true: Array, nonfinite: Numbers) -> Numbers:
    """Share of entries that are true; NaN where the layer has entries that are not finite.

    Nothing is known of such a layer's units: NaN is neither zero nor saturated, and to count it as
    "no" would make a broken layer look healthy.
    """
    if isinstance(true, np.ndarray):
        if true.ndim == 1:  # much faster without an axis
            return np.count_nonzero(true) / true.size if nonfinite == 0 else math.nan
        return np.where(nonfinite == 0, np.count_nonzero(true, axis=-1) / true.shape[-1], np.nan)
    xp = _namespace(true)
    found = xp.sum(xp.astype(true, xp.int32), axis=-1) / true.shape[-1]
    return xp.where(nonfinite == 0, found, xp.full_like(found, xp.nan))


def zero_units(zero: SameArray, lead: int | None = None, unit: int = -1) -> SameArray:
    """Which units are exactly zero on every sample: booleans (…, units).

    Parameters
    ----------
    zero : array of bool
        Where the activation is zero.
    lead : int, optional
        The first axes, so many, are kept; all but two if it is not given.
    unit : int
        The axis of the units; all the others are samples.
    """
    samples = _all_but(unit, zero.ndim - 2 if lead is None else lead, zero.ndim)
    if isinstance(zero, np.ndarray):
        return np.logical_and.reduce(zero, axis=samples)
    return _namespace(zero).all(zero, axis=samples)


@functools.cache
def _all_but(axis: int, lead: int, ndim: int) -> tuple[int, ...]:
    return tuple(other for other in range(lead, ndim) if other != axis % ndim)


def dead_fraction(activation: Array) -> Numbers:
    """Share of units whose output is zero on every sample; activations are (…, samples, units)."""
    return share(zero_units(activation == 0), nonfinite_count(entries(activation)))


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Share of samples whose class is right; one number per member.

    Parameters
    ----------
    output : array (…, samples, outputs)
        Probability of class 1, or one column per class.
    labels : array (samples,) or (…, samples, outputs)
        0 and 1, or one-hot rows.
    """
    if labels.ndim == 1:
        labels = labels[:, None]
    if output.shape[-1] == 1:
        right = ((output > 0.5) == (labels > 0.5))[..., 0]
    else:
        right = output.argmax(axis=-1) == labels.argmax(axis=-1)
    # comparisons call NaN "class 0": a net that gives NaN has decided nothing
    return np.asarray((right & np.isfinite(output).all(axis=-1)).mean(axis=-1))


def ratio(change: Numbers, size: Numbers) -> Numbers:
    """change / size of what cannot be negative; 0 where both are 0."""
    if isinstance(size, float) and size > 0:  # the usual case, at once
        return change / size
    xp = _namespace(change)
    found = xp.divide(change, size) if xp is np else change / size
    return xp.where((change == 0) & (size == 0), 0.0, found)


def clip_factor(gradient_rms: Numbers, used_rms: Numbers) -> Numbers:
    """Rms of the gradient that the optimiser was given, over the rms of dL/dW.

    1 where nothing was clipped, also where both are 0.
    """
    nothing = (gradient_rms == 0) & (used_rms == 0)
    return _namespace(nothing).where(nothing, 1.0, ratio(used_rms, gradient_rms))


def nonfinite_count(x: Array, summary: Numbers | None = None) -> Numbers:
    """Number of entries that are NaN or infinite.

    `summary` is a number of each matrix that is finite only if all its entries are, such as their
    mean: where it is, they need not be counted.
    """
    if not isinstance(x, np.ndarray):
        xp = _namespace(x)
        return xp.sum(xp.astype(~xp.isfinite(x), xp.int32), axis=-1)
    if summary is None:
        summary = np.vecdot(x, x) if x.ndim > 1 else _sum_of_squares(x)
    if _all_finite(summary):
        return np.zeros(x.shape[:-1], np.intp) if x.ndim > 1 else 0
    return np.asarray(x.shape[-1] - np.count_nonzero(np.isfinite(x), axis=-1))


def log10_histogram(x: Array) -> Array:
    """Counts of log10 |entries| in the bins of `HISTOGRAM_EDGES`; shape (…, bins).

    A bin holds its lower edge; the last one, and what lies above, are counted together; entries
    that are not finite are in no bin (see `nonfinite_count`).
    """
    xp = _namespace(x)
    size = xp.abs(x)
    finite = xp.isfinite(x)
    # how many lie at or above each edge; edges as sizes, so that they are exact powers of ten
    edges = 10.0**HISTOGRAM_EDGES
    above = [xp.sum(xp.astype(finite & (size >= float(edge)), xp.int32), axis=-1) for edge in edges]
    return xp.stack([*(a - b for a, b in itertools.pairwise(above)), above[-1]], axis=-1)


def transposed(matrix: Array) -> Array:
    """Matrices in the last two axes, the other way round."""
    return _namespace(matrix).matrix_transpose(matrix)


def where_true(true: Array, x: Array) -> Array:
    """The entries where something is true; 0 elsewhere, also of what is not finite."""
    xp = _namespace(x)
    return xp.where(true, x, xp.zeros_like(x))


# --- arrays of any library ------------------------------------------------------------------------


def _namespace(x: Numbers) -> Any:
    """The library of an array, with the names of the array API standard."""
    if isinstance(x, np.ndarray | np.generic | float | int):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(x)


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
