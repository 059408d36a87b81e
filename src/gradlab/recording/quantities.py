"""What is measured per layer, each quantity defined once, for arrays of any library.

Functions take arrays whose last two axes are one matrix (a gradient or a weight: fan_in × fan_out;
a delta or an activation: samples × units) and return one number per matrix, with the leading axes
(steps, layers, members of an ensemble) kept. Where a matrix has other axes (the kernel of a
convolution), `axes` says which they are: the last ones, or all. A non-finite entry makes the number
non-finite: nothing is dropped.

Arrays of NumPy are reduced in as few passes over memory as can be, and looked at a second time in
the rare cases that need it. Others (on a GPU, or in a program that is being traced) are reduced
where they are, by their own library, without a look at the values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# mean squares that are exact: below tiny / eps they have lost digits
_EXACT = {
    np.dtype(kind).char: (
        float(np.finfo(kind).tiny / np.finfo(kind).eps),
        float(np.finfo(kind).max),
    )
    for kind in (np.float32, np.float64)
}

Array = Any  # of NumPy, PyTorch or JAX: whatever follows the array API standard

MATRIX = (-2, -1)

# log10 bins of the gradient histogram: half a decade each; zeros fall into the first, which has
# no lower end
HISTOGRAM_EDGES = np.concatenate([[-np.inf], np.arange(-20.0, 5.5, 0.5)])


def mean_abs(matrix: Array, axes: Sequence[int] = MATRIX) -> Array:
    """Mean of |entries|."""
    xp, x = _entries(matrix, axes)
    if xp is np:
        return _mean(np.abs(x))
    return xp.mean(xp.abs(x), axis=-1)


def rms(matrix: Array, axes: Sequence[int] = MATRIX) -> Array:
    """Root of the mean square, also of entries whose squares overflow or underflow."""
    xp, x = _entries(matrix, axes)
    if xp is np:
        with np.errstate(all="ignore"):
            square = np.vecdot(x, x) / x.shape[-1]
        low, high = _EXACT[x.dtype.char]
        if low < square < high if x.ndim == 1 else ((low < square) & (square < high)).all():
            return np.sqrt(square)
        if not x.any():
            return np.zeros_like(square)
        x = x.astype(np.float64)
    largest = xp.max(xp.abs(x), axis=-1, keepdims=True)
    usual = (largest > 0) & xp.isfinite(largest)
    scale = xp.where(usual, largest, xp.ones_like(largest))
    scaled = x / scale
    return xp.sqrt(xp.mean(scaled * scaled, axis=-1)) * scale[..., 0]


def zero_fraction(
    matrix: Array, axes: Sequence[int] = MATRIX, nonfinite: Array | None = None
) -> Array:
    """Share of entries that are exactly zero; NaN if any is not finite.

    `nonfinite` is their number (see `nonfinite_count`), for those who have it already.
    """
    if nonfinite is None:
        nonfinite = nonfinite_count(matrix, axes)
    _, x = _entries(matrix, axes)
    return share(x == 0, nonfinite, axes=(-1,))


def mean(matrix: Array, axes: Sequence[int] = MATRIX) -> Array:
    """Mean of the entries."""
    xp, x = _entries(matrix, axes)
    return _mean(x) if xp is np else xp.mean(x, axis=-1)


def std(matrix: Array, axes: Sequence[int] = MATRIX, mean: Array | None = None) -> Array:
    """Standard deviation of the entries (population, ddof 0).

    `mean` is theirs, for those who have it already.
    """
    xp, x = _entries(matrix, axes)
    if xp is not np:
        return rms(x - xp.mean(x, axis=-1, keepdims=True), axes=(-1,))
    with np.errstate(all="ignore"):
        centre = np.asarray(_mean(x) if mean is None else mean)
        return rms(x - centre[..., None].astype(x.dtype), axes=(-1,))


def share(true: Array, nonfinite: Array, axes: Sequence[int] = MATRIX) -> Array:
    """Share of entries that are true; NaN where the layer has entries that are not finite.

    Nothing is known of such a layer's units: NaN is neither zero nor saturated, and to count it as
    "no" would make a broken layer look healthy.
    """
    xp, x = _entries(true, axes)
    if xp is np:
        if x.ndim == 1:  # much faster without an axis
            return np.count_nonzero(x) / x.size if nonfinite == 0 else np.nan
        return np.where(nonfinite == 0, np.count_nonzero(x, axis=-1) / x.shape[-1], np.nan)
    found = xp.sum(xp.astype(x, xp.int32), axis=-1) / x.shape[-1]
    return xp.where(nonfinite == 0, found, xp.full_like(found, xp.nan))


def zero_units(activation: Array, lead: int | None = None, unit: int = -1) -> Array:
    """Which units are exactly zero on every sample: booleans (…, units).

    The first `lead` axes are kept (all but two if it is not given), `unit` is the axis of the
    units, and all the others are samples.
    """
    xp = _namespace(activation)
    lead = activation.ndim - 2 if lead is None else lead
    samples = tuple(i for i in range(lead, activation.ndim) if i != unit % activation.ndim)
    return xp.all(activation == 0, axis=samples)


def dead_fraction(activation: Array) -> Array:
    """Share of units whose output is exactly zero on every sample of the reference batch."""
    return share(zero_units(activation), nonfinite_count(activation), axes=(-1,))


def accuracy(output: Array, labels: NDArray[Any]) -> NDArray[Any]:
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


def ratio(change: Array, size: Array) -> Array:
    """change / size of what cannot be negative; 0 where both are 0."""
    xp = _namespace(change)
    if xp is np:
        if np.ndim(change) == 0 and size > 0:  # the usual case, at once
            return change / size
        with np.errstate(all="ignore"):
            return np.where((change == 0) & (size == 0), 0.0, np.divide(change, size))
    return xp.where((change == 0) & (size == 0), xp.zeros_like(change), change / size)


def update_ratio(before: Array, after: Array, axes: Sequence[int] = MATRIX) -> Array:
    """Rms of the change of the weights, over the rms of the weights before it.

    0 where neither moved from zero weights, Inf where zero weights moved.
    """
    return ratio(rms(after - before, axes), rms(before, axes))


def clip_factor(gradient_rms: Array, used_rms: Array) -> Array:
    """Rms of the gradient that the optimiser was given, over the rms of dL/dW.

    1 where nothing was clipped, also where both are 0.
    """
    xp = _namespace(gradient_rms)
    nothing = (gradient_rms == 0) & (used_rms == 0)
    return xp.where(nothing, xp.ones_like(gradient_rms), ratio(used_rms, gradient_rms))


def nonfinite_count(
    matrix: Array, axes: Sequence[int] = MATRIX, summary: Array | None = None
) -> Array:
    """Number of entries that are NaN or infinite.

    `summary` is a number of each matrix that is finite only if all its entries are, such as their
    mean: where it is, they need not be counted.
    """
    xp, x = _entries(matrix, axes)
    if xp is not np:
        return xp.sum(xp.astype(~xp.isfinite(x), xp.int32), axis=-1)
    if summary is None:
        with np.errstate(all="ignore"):
            summary = np.vecdot(x, x)
    if _all_finite(summary):
        return np.zeros(x.shape[:-1], np.intp) if x.ndim > 1 else 0
    return np.asarray(x.shape[-1] - np.count_nonzero(np.isfinite(x), axis=-1))


def log10_histogram(matrix: Array, axes: Sequence[int] = MATRIX) -> Array:
    """Counts of log10 |entries| in the bins of `HISTOGRAM_EDGES`; shape (…, bins).

    A bin holds its lower edge; the last one, and what lies above, are counted together; entries
    that are not finite are in no bin (see `nonfinite_count`).
    """
    xp, x = _entries(matrix, axes)
    size = xp.abs(x)
    finite = xp.isfinite(x)
    # how many lie at or above each edge; edges as sizes, so that they are exact powers of ten
    edges = 10.0**HISTOGRAM_EDGES
    above = [xp.sum(xp.astype(finite & (size >= float(edge)), xp.int32), axis=-1) for edge in edges]
    return xp.stack([*(a - b for a, b in itertools.pairwise(above)), above[-1]], axis=-1)


# --- several calls of one layer in one step -------------------------------------------------------

ROOT_MEAN_SQUARE = ("delta_rms",)


def pooled(parts: Sequence[Mapping[str, float]], sizes: Sequence[int]) -> dict[str, float]:
    """The quantities of several batches of a layer together, from those of each.

    Parameters
    ----------
    parts : sequence of mappings
        Quantities of `delta` or `activation`, all with the same names.
    sizes : sequence of int
        How many entries each of them has.

    Returns
    -------
    dict
        What the quantities of the joined batches are: means (and shares) weighted by size, the root
        of mean squares, and by them the standard deviation of the union.
    """
    weights = np.asarray(sizes, dtype=np.float64) / sum(sizes)
    columns = {name: np.array([part[name] for part in parts], np.float64) for name in parts[0]}
    found = {}
    for name, values in columns.items():
        if name in ROOT_MEAN_SQUARE:
            found[name] = float(np.sqrt(weights @ values**2))
        elif name == "activation_std":
            means = columns["activation_mean"]
            variance = weights @ (values**2 + (means - weights @ means) ** 2)
            found[name] = float(np.sqrt(variance))
        else:
            found[name] = float(weights @ values)
    return found


# --- arrays of any library ------------------------------------------------------------------------


def _namespace(x: Array) -> Any:
    """The library of an array, with the names of the array API standard."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(x)


def _entries(matrix: Array, axes: Sequence[int]) -> tuple[Any, Array]:
    """(Library, entries of each matrix as one axis), in the order of memory where it matters."""
    xp = _namespace(matrix)
    lead = matrix.ndim - len(axes)
    if axes is not MATRIX and lead and any(axis % matrix.ndim < lead for axis in axes):
        raise ValueError(f"axes must be the last ones of {matrix.ndim}, got {tuple(axes)}")
    if xp is not np:
        if matrix.dtype in (getattr(xp, "float16", None), getattr(xp, "bfloat16", None)):
            matrix = xp.astype(matrix, xp.float32)
        return xp, xp.reshape(matrix, (*matrix.shape[:lead], -1))
    if matrix.dtype == np.float16:
        matrix = matrix.astype(np.float32)
    if matrix.flags.c_contiguous:
        return np, matrix.reshape(*matrix.shape[:lead], -1)
    # their order does not matter; in that of memory, no copy is made
    steps = matrix.strides
    order = sorted(range(lead, matrix.ndim), key=lambda axis: -steps[axis])
    return np, matrix.transpose(*range(lead), *order).reshape(*matrix.shape[:lead], -1)


def _mean(x: NDArray[Any]) -> Array:
    """Mean of the last axis, also where the sum overflows in the array's own precision."""
    with np.errstate(all="ignore"):
        found = np.add.reduce(x, axis=-1) / x.shape[-1]
        if x.dtype != np.float64 and not _all_finite(found):
            return np.add.reduce(x, axis=-1, dtype=np.float64) / x.shape[-1]
    return found


def _all_finite(numbers: Array) -> bool:
    if isinstance(numbers, np.floating):
        return math.isfinite(numbers)
    return bool(np.isfinite(numbers).all())
