"""Length and correlation maps of wide nets: fixed points, χ₁, depth scales, and the edge of chaos.

For hidden layers of one width, with Var W = σ_w²/n and Var b = σ_b² (Poole et al. 2016; Schoenholz
et al. 2017). Depth scales count layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from dp.activations import Activation
from dp.typing import Array
from gradiometer.theory import moments
from gradiometer.theory.piecewise import pieces

DEEPEST = 6.0  # a net trains down to about so many ξ_c (Schoenholz et al. 2017): a guide
_ALIKE = 1e-9


@dataclass(frozen=True)
class Phase:
    """What many layers do to a signal, and to the gradient on its way back.

    Attributes
    ----------
    weight_variance, bias_variance : float
        σ_w² and σ_b².
    length : float
        q*, the variance that pre-activations settle at; infinite if they grow for ever.
    chi : float
        χ₁ = σ_w² E φ'(√q* z)²: the factor per layer of the mean square of the delta, backwards, and
        of a small difference between two inputs, forwards.
    correlation : float
        c*, what the correlation of two inputs settles at; NaN if q* is 0 or infinite.
    correlation_depth : float
        ξ_c, in layers: |c - c*| falls by e in so many; infinite at the edge of chaos.
    gradient_depth : float
        ξ_∇ = 1/|ln χ₁|, in layers: the mean square of the delta changes by e in so many.
    """

    weight_variance: float
    bias_variance: float
    length: float
    chi: float
    correlation: float
    correlation_depth: float
    gradient_depth: float

    @property
    def trainable_depth(self) -> float:
        """About 6 ξ_c layers (Schoenholz et al. 2017); a guide, not a law."""
        return DEEPEST * self.correlation_depth

    @property
    def name(self) -> str:
        """Where χ₁ lies: "ordered" below 1, "chaotic" above, "edge of chaos" within 1e-3 of it."""
        if abs(self.chi - 1.0) <= 1e-3:
            return "edge of chaos"
        return "ordered" if self.chi < 1.0 else "chaotic"


@dataclass(frozen=True)
class Edge:
    """Where χ₁ = 1 for a given σ_b².

    Attributes
    ----------
    weight_variance, bias_variance : float
        σ_w² and σ_b².
    length : float
        q* there; NaN if χ₁ = 1 at every length.
    stable : bool
        Whether lengths close to q* settle at it. Where they do not, χ₁ = 1 is passed through only.
    """

    weight_variance: float
    bias_variance: float
    length: float
    stable: bool


def length_map(
    activation: Activation, length: Any, weight_variance: float, bias_variance: float
) -> Array:
    """Variance one layer on, σ_w² E φ(√q z)² + σ_b² (Poole et al. 2016)."""
    return weight_variance * moments.mean_square(activation, length) + bias_variance


def slope(activation: Activation, length: float, weight_variance: float) -> float:
    """χ₁ at a length: σ_w² E φ'(√q z)² (Poole et al. 2016)."""
    return weight_variance * float(moments.mean_square_slope(activation, length))


def fixed_length(activation: Activation, weight_variance: float, bias_variance: float) -> float:
    """q*, where the length map settles when it starts at 1.

    The map grows with q for every function of dp's table (their squares are convex or bounded
    enough for that), so it goes one way, to the first fixed point there. Infinite if it grows for
    ever; where every length is a fixed point (relu with σ_w² = 2 and no bias), the one it starts
    at, 1.
    """
    _check(weight_variance, bias_variance)

    def growth(q: Any) -> Array:
        grown = length_map(activation, q, weight_variance, bias_variance)
        return np.asarray(grown / q - 1.0)

    way = float(growth(1.0))
    if abs(way) < _ALIKE:
        return 1.0
    grid = np.geomspace(1.0, 1e12 if way > 0 else 1e-12, 200)
    values = growth(grid)
    turned = np.flatnonzero(values * way < 0)
    if not len(turned):
        return math.inf if way > 0 else 0.0
    ends = sorted((grid[turned[0] - 1], grid[turned[0]]))
    return float(optimize.brentq(growth, *ends, xtol=1e-14 * ends[0], rtol=1e-14))


def correlation_map(
    activation: Activation,
    correlation: float,
    length: float,
    weight_variance: float,
    bias_variance: float,
) -> float:
    """Correlation one layer on, of two inputs at the fixed length (Poole et al. 2016)."""
    c, _ = moments.pair(activation, length, length, correlation)
    return (weight_variance * c + bias_variance) / length


def phase(activation: Activation, weight_variance: float, bias_variance: float = 0.0) -> Phase:
    """Fixed points, χ₁ and depth scales of an activation function and an initialisation.

    Raises
    ------
    ValueError
        If a variance is negative or not finite.
    """
    q = fixed_length(activation, weight_variance, bias_variance)
    # at 0 and infinity the limit: a function that is linear there is so at 1e-10 and 1e12 already
    chi = slope(activation, min(max(q, _SMALL), 1e12), weight_variance)
    if not 0 < q < math.inf:
        depth = _depth(chi)
        return Phase(weight_variance, bias_variance, q, chi, math.nan, depth, depth)
    c = _fixed_correlation(activation, q, chi, weight_variance, bias_variance)
    _, d = moments.pair(activation, q, q, c)
    return Phase(
        weight_variance, bias_variance, q, chi, c, _depth(weight_variance * d), _depth(chi)
    )


def _depth(factor: float) -> float:
    if abs(factor - 1.0) < _ALIKE:
        return math.inf
    return 1.0 / abs(math.log(factor)) if factor > 0 else 0.0


def _fixed_correlation(
    activation: Activation, q: float, chi: float, weight_variance: float, bias_variance: float
) -> float:
    """c*: 1, stable where χ₁ <= 1; else the fixed point below it (Poole et al. 2016)."""
    if chi <= 1.0 + _ALIKE:
        return 1.0

    def change(c: float) -> float:
        return correlation_map(activation, c, q, weight_variance, bias_variance) - c

    # the map is convex and lies above c at 0 (C ≥ (E φ)² there): one root, below 1
    low, high = 0.0, 1.0 - 1e-3
    while change(high) >= 0:
        high = 1 - (1 - high) / 4
        if 1 - high < 1e-12:
            return 1.0
    if change(low) <= 0:
        return 0.0
    return float(optimize.brentq(change, low, high, xtol=1e-13))


def spectrum_variance(
    activation: Activation, length: float, depth: int, orthogonal: bool = False
) -> float:
    """Variance of the squared singular values of a deep net's Jacobian, over their mean squared.

    L (μ_2/μ_1² - 1 - s_1) with μ_k = E φ'^(2k) at the fixed length, and s_1 = -1 for normal
    weights, 0 for orthogonal ones (Pennington et al. 2017).
    """
    fourth = float(moments.mean_fourth_slope(activation, length))
    spread = fourth / float(moments.mean_square_slope(activation, length)) ** 2 - 1.0
    return depth * (spread if orthogonal else spread + 1.0)


def mean_singular_value(weight_variance: float) -> float:
    """Mean singular value of a large square matrix of independent entries of variance σ_w²/n.

    8 σ_w/(3π), by the quarter-circle law (Marchenko & Pastur 1967); that of a layer's Jacobian
    where the activation function is still linear, slope 1 (Glorot & Bengio 2010, section 4.2.2).
    """
    return 8.0 / (3.0 * math.pi) * math.sqrt(weight_variance)


def edge_of_chaos(activation: Activation, bias_variance: float = 0.0) -> Edge | None:
    """Find σ_w² at which χ₁ = 1, for a given σ_b² (Schoenholz et al. 2017).

    With q for the unknown: σ_w² = 1 / E φ'(√q z)², and the length map must give q back. A function
    with one slope on either side of 0 has χ₁ = 1 at every length.

    Returns
    -------
    Edge or None
        Where there are several, the first stable one, from small lengths upwards; or else the
        first. None if there is none with lengths from 0 to 10⁶.
    """
    _check(1.0, bias_variance)
    lines = pieces(activation)
    if lines is not None and not any(lines.kinks):
        variance = 1.0 / float(moments.mean_square_slope(activation, 1.0))
        return Edge(variance, bias_variance, math.nan, bias_variance == 0)

    def excess(log_q: float) -> float:
        q = math.exp(log_q)
        mapped = length_map(activation, q, _critical(activation, q), bias_variance)
        return math.log(float(mapped)) - log_q

    grid = np.linspace(math.log(_SMALL), math.log(1e6), 200)
    lengths = np.exp(grid)
    critical = 1.0 / moments.mean_square_slope(activation, lengths)
    mapped = critical * moments.mean_square(activation, lengths) + bias_variance
    values = np.log(mapped) - grid
    found = []
    if abs(values[0]) < 1e-3:  # as for tanh without bias: the edge lies where q* is 0
        found.append(_edge(activation, _SMALL, bias_variance, 0.0))
    for i in range(len(grid) - 1):
        if values[i] > 0 > values[i + 1] or values[i] < 0 < values[i + 1]:
            q = math.exp(optimize.brentq(excess, grid[i], grid[i + 1], xtol=1e-13))
            found.append(_edge(activation, q, bias_variance, q))
    return next((edge for edge in found if edge.stable), found[0] if found else None)


_SMALL = 1e-10


def _critical(activation: Activation, q: float) -> float:
    return 1.0 / float(moments.mean_square_slope(activation, q))


def _edge(activation: Activation, at: float, bias_variance: float, length: float) -> Edge:
    variance = _critical(activation, at)
    beyond = max(1.01 * at, 1e-6)
    stable = length_map(activation, beyond, variance, bias_variance) <= beyond * (1 + 1e-12)
    return Edge(variance, bias_variance, length, bool(stable))


def _check(weight_variance: float, bias_variance: float) -> None:
    for name, value in (("σ_w²", weight_variance), ("σ_b²", bias_variance)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number, not below 0, got {value!r}")
