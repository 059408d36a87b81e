"""What is measured per layer, each quantity defined once.

Functions take arrays whose last two axes are one matrix (a gradient or a weight: fan_in × fan_out;
a delta or an activation: samples × units) and return one number per matrix, with the leading axes
(members of an ensemble) kept. A non-finite entry makes the number non-finite: nothing is dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MATRIX = (-2, -1)

# log10 bins of the gradient histogram: half a decade each; zeros fall into the first, which has
# no lower end
HISTOGRAM_EDGES = np.concatenate([[-np.inf], np.arange(-20.0, 5.5, 0.5)])


def mean_abs(matrix: Array) -> Array:
    """Mean of |entries|."""
    return np.asarray(np.abs(matrix).mean(axis=MATRIX))


def rms(matrix: Array) -> Array:
    """Root of the mean square, also of entries whose squares overflow or underflow."""
    with np.errstate(all="ignore"):
        square = np.asarray(np.square(matrix).mean(axis=MATRIX, dtype=np.float64))
        limits = np.finfo(matrix.dtype)
        # squares lose digits below tiny / eps; a second look at what is there costs little
        if ((square > limits.tiny / limits.eps) & (square < limits.max)).all():
            return np.asarray(np.sqrt(square))
        size = np.abs(matrix.astype(np.float64))
        largest = size.max(axis=MATRIX, keepdims=True)
        scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        root = np.sqrt(np.square(size / scale).mean(axis=MATRIX))
        return np.asarray(root * scale[..., 0, 0])


def zero_fraction(matrix: Array) -> Array:
    """Share of entries that are exactly zero."""
    return np.asarray((matrix == 0).mean(axis=MATRIX))


def mean(matrix: Array) -> Array:
    """Mean of the entries."""
    with np.errstate(all="ignore"):
        return np.asarray(matrix.mean(axis=MATRIX, dtype=np.float64))


def std(matrix: Array) -> Array:
    """Standard deviation of the entries (population, ddof 0)."""
    with np.errstate(all="ignore"):
        return np.asarray(matrix.std(axis=MATRIX, dtype=np.float64))


def true_fraction(mask: NDArray[np.bool_]) -> Array:
    """Share of entries that are True, for instance saturated."""
    return np.asarray(mask.mean(axis=MATRIX))


def dead_fraction(activation: Array) -> Array:
    """Share of units whose output is exactly zero on every sample of the reference batch."""
    return np.asarray((activation == 0).all(axis=-2).mean(axis=-1))


def update_ratio(before: Array, after: Array) -> Array:
    """Rms of the change of the weights, over the rms of the weights before it.

    0 where neither moved from zero weights, Inf where zero weights moved.
    """
    change, size = rms(after - before), rms(before)
    with np.errstate(all="ignore"):
        return np.where((change == 0) & (size == 0), 0.0, change / size)


def nonfinite_count(matrix: Array) -> Array:
    """Number of entries that are NaN or infinite."""
    return np.asarray((~np.isfinite(matrix)).sum(axis=MATRIX))


def log10_histogram(matrix: Array) -> Array:
    """Counts of log10 |entries| in the bins of `HISTOGRAM_EDGES`; shape (…, bins).

    A bin holds its lower edge; the last one, and what lies above, are counted together; entries
    that are not finite are in no bin (see `nonfinite_count`).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.abs(matrix.astype(np.float64)))
    bins = np.searchsorted(HISTOGRAM_EDGES, logs, side="right") - 1
    flat = bins.reshape(*matrix.shape[:-2], -1)
    finite = np.isfinite(matrix).reshape(flat.shape)
    counts = [((flat == b) & finite).sum(axis=-1) for b in range(len(HISTOGRAM_EDGES))]
    return np.stack(counts, axis=-1)
