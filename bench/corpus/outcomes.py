"""Accuracy and R²: whether a net has learned, on fixed rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def accuracy(output: ArrayLike, labels: ArrayLike) -> float:
    """Share of rows whose class is right; NaN if an output is not finite.

    Parameters
    ----------
    output : array (rows, 1) of probabilities, or (rows, classes)
    labels : array (rows, 1) of 0 and 1, or one-hot (rows, classes)
    """
    p, y = np.asarray(output, np.float64), np.asarray(labels, np.float64)
    if not np.isfinite(p).all():
        return float("nan")
    if p.shape[1] == 1:
        return float(np.mean((p > 0.5) == (y > 0.5)))
    return float(np.mean(p.argmax(axis=1) == y.argmax(axis=1)))


def r_squared(output: ArrayLike, targets: ArrayLike) -> float:
    """1 - Σ(p - y)² / Σ(y - mean y)²; NaN if an output is not finite."""
    p, y = np.asarray(output, np.float64), np.asarray(targets, np.float64)
    if not np.isfinite(p).all():
        return float("nan")
    with np.errstate(over="ignore"):
        return float(1 - np.square(p - y).sum() / np.square(y - y.mean(axis=0)).sum())
