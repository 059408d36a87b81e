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
    return _share((matrix == 0).mean(axis=MATRIX), matrix)


def mean(matrix: Array) -> Array:
    """Mean of the entries."""
    with np.errstate(all="ignore"):
        return np.asarray(matrix.mean(axis=MATRIX, dtype=np.float64))


def std(matrix: Array) -> Array:
    """Standard deviation of the entries (population, ddof 0)."""
    with np.errstate(all="ignore"):
        return np.asarray(matrix.std(axis=MATRIX, dtype=np.float64))


def saturated_fraction(saturated: NDArray[np.bool_], activation: Array) -> Array:
    """Share of the activations that are saturated (see `dp.activations`)."""
    return _share(saturated.mean(axis=MATRIX), activation)


def dead_fraction(activation: Array) -> Array:
    """Share of units whose output is exactly zero on every sample of the reference batch."""
    return _share((activation == 0).all(axis=-2).mean(axis=-1), activation)


def _share(share: Array, matrix: Array) -> Array:
    """A share, or NaN where the matrix is not finite: nothing is known of such a layer's units."""
    return np.where(np.isfinite(matrix).all(axis=MATRIX), share, np.nan)


def accuracy(output: Array, labels: Array) -> Array:
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
