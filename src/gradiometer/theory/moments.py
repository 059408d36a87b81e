"""Moments of an activation function under Gaussian pre-activations: what all the theory rests on.

With u ~ N(0, K): the mean E φ(u_a), the second moments C_ab = E φ(u_a) φ(u_b), and those of the
slopes, D_ab = E φ'(u_a) φ'(u_b). Two ways lead there, and every function of dp's table takes one:
`piecewise` for those made of straight lines (identity, relu, leaky_relu, clipped_relu), and
`quadrature` and `expansion` for all others.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dp.activations import Activation
from dp.typing import Array
from gradiometer.theory.expansion import kernels_by_expansion
from gradiometer.theory.piecewise import (
    kernels_of_pieces,
    mean_of_pieces,
    mean_square_of_pieces,
    pieces,
    slope_power_of_pieces,
)
from gradiometer.theory.quadrature import checked, expect

# --- one pre-activation ---------------------------------------------------------------------------


def mean(activation: Activation, variance: Any) -> Array:
    """E φ(√q z), z ~ N(0, 1), for each variance q."""
    lines = pieces(activation)
    if lines is not None:
        return mean_of_pieces(lines, np.sqrt(checked(variance)))
    return expect(lambda u: np.asarray(activation(u)), variance)


def mean_square(activation: Activation, variance: Any) -> Array:
    """E φ(√q z)², for each variance q: the diagonal of C."""
    lines = pieces(activation)
    if lines is not None:
        return mean_square_of_pieces(lines, np.sqrt(checked(variance)))
    return expect(lambda u: np.asarray(activation(u)) ** 2, variance)


def mean_square_slope(activation: Activation, variance: Any) -> Array:
    """E φ'(√q z)², for each variance q: the diagonal of D."""
    lines = pieces(activation)
    if lines is not None:
        return slope_power_of_pieces(activation, lines, checked(variance), 2)
    return expect(lambda u: activation.derivative(u) ** 2, variance)


def mean_fourth_slope(activation: Activation, variance: Any) -> Array:
    """E φ'(√q z)⁴, for each variance q."""
    lines = pieces(activation)
    if lines is not None:
        return slope_power_of_pieces(activation, lines, checked(variance), 4)
    return expect(lambda u: activation.derivative(u) ** 4, variance)


# --- pairs of pre-activations ---------------------------------------------------------------------


def kernels(activation: Activation, covariance: Any) -> tuple[Array, Array]:
    """C and D of all pairs of a batch.

    Parameters
    ----------
    activation : Activation
    covariance : array_like (batch, batch)
        K, of the pre-activations; symmetric.

    Returns
    -------
    C, D : arrays (batch, batch)
        E φ(u_a) φ(u_b) and E φ'(u_a) φ'(u_b) for u ~ N(0, K). A pre-activation that does not vary
        is 0, and has the slope that dp takes there.

    Raises
    ------
    ValueError
        If K is not square, or has entries that are not finite, or a negative diagonal.
    """
    q, rho = _correlations(covariance)
    lines = pieces(activation)
    if lines is not None:
        c, d = kernels_of_pieces(activation, lines, q[:, None], q[None, :], rho)
        np.fill_diagonal(c, mean_square(activation, q))
        np.fill_diagonal(d, mean_square_slope(activation, q))
        return c, d
    return kernels_by_expansion(activation, q, rho)


def pair(activation: Activation, q_a: float, q_b: float, correlation: float) -> tuple[float, float]:
    """C and D of a single pair, from its variances and correlation; see `kernels`."""
    cross = correlation * math.sqrt(q_a * q_b)
    c, d = kernels(activation, [[q_a, cross], [cross, q_b]])
    return float(c[0, 1]), float(d[0, 1])


def _correlations(covariance: Any) -> tuple[Array, Array]:
    """Variances and correlations; 0 for what does not vary, and exactly 1 with itself."""
    k = np.asarray(covariance, dtype=np.float64)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not np.isfinite(k).all():
        raise ValueError(f"a covariance must be square and finite, got {k!r}")
    q = checked(np.diag(k))
    root = np.sqrt(np.where(q > 0, q, 1.0))
    rho = np.clip(k / root[:, None] / root, -1.0, 1.0)
    rho[q == 0] = rho[:, q == 0] = 0.0
    np.fill_diagonal(rho, np.where(q > 0, 1.0, 0.0))
    return q, rho
