"""Moments of an activation function under Gaussian pre-activations: what all the theory rests on.

With u ~ N(0, K): the mean E φ(u_a), the second moments C_ab = E φ(u_a) φ(u_b), and those of the
slopes, D_ab = E φ'(u_a) φ'(u_b). Two ways lead there, and every function of dp's table takes one:

* **Pieces of straight lines** (identity, relu, leaky_relu, clipped_relu). By Price's theorem (Price
  1958) ∂C/∂K_ab = D_ab and ∂D/∂K_ab = E φ''(u_a) φ''(u_b), and φ'' is a sum of point masses at the
  kinks, whose expectation is a bivariate normal density. Integrated from the correlation 0 upwards;
  with one kink, at 0, this gives the arc-cosine kernels (Cho & Saul 2009) in closed form.
* **All others**: Mehler's expansion C_ab = Σ_k a_k(K_aa) a_k(K_bb) ρ_ab^k, where
  a_k(q) = E φ(√q z) He_k(z) / √k! (as in Daniely et al. 2016; the same for D with φ'). What is cut
  off beyond `ORDERS` is put back: that of a kink as J² times that of a relu, whose kernel is known,
  and the rest so that the diagonal is exact.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.activations import Activation
from dp.special import normal_cdf, normal_pdf

Array = NDArray[np.float64]

ORDERS = 512  # of the expansion
_REACH = 12.0  # standard deviations: the density beyond is below 1e-31
_PANEL = 0.25  # a quarter of the wavelength of the highest order, or less, per pair of nodes
_NODES = 10  # per panel (Gauss-Legendre)
_FINEST = 30  # panels are halved so often towards 0, where φ bends, if the variance is large
_ENOUGH = 1e-13  # relative; higher orders than are needed for it are left out


@dataclass(frozen=True)
class Pieces:
    """A function made of straight lines, 0 at 0: its slope below all kinks, and what each adds.

    Attributes
    ----------
    slope : float
        Of the leftmost piece.
    kinks, jumps : tuple of float
        Where the slope changes (not below 0), and by how much.
    """

    slope: float
    kinks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()


def pieces(activation: Activation) -> Pieces | None:
    """The straight lines an activation function is made of; None if it is curved."""
    if activation.primitive is None:
        return Pieces(1.0)
    if activation.primitive is p.relu:
        return Pieces(0.0, (0.0,), (1.0,))
    if activation.primitive is p.leaky_relu:
        slope = float(activation.settings["slope"])
        return Pieces(slope, (0.0,), (1.0 - slope,))
    if activation.primitive is p.clipped_relu:
        return Pieces(0.0, (0.0, float(activation.settings["ceiling"])), (1.0, -1.0))
    return None


def is_scale_free(activation: Activation) -> bool:
    """Whether φ(cx) = c φ(x) for c > 0, as of relu: one that bends at 0 alone, if at all."""
    lines = pieces(activation)
    return lines is not None and not any(lines.kinks)


def _bends(activation: Activation) -> tuple[float, float]:
    """By how much φ' and φ'' jump at 0; (0, 0) for a function that is smooth there."""
    if activation.primitive is not p.elu:
        return 0.0, 0.0
    alpha, scale = (float(activation.settings[name]) for name in ("alpha", "scale"))
    return scale * (1.0 - alpha), -scale * alpha


# --- one pre-activation ---------------------------------------------------------------------------


def mean(activation: Activation, variance: Any) -> Array:
    """E φ(√q z), z ~ N(0, 1), for each variance q."""
    lines = pieces(activation)
    if lines is not None:
        return _line_mean(lines, np.sqrt(_variances(variance)))
    return _expect(lambda u: np.asarray(activation(u)), variance)


def mean_square(activation: Activation, variance: Any) -> Array:
    """E φ(√q z)², for each variance q: the diagonal of C."""
    lines = pieces(activation)
    if lines is not None:
        return _line_mean_square(lines, np.sqrt(_variances(variance)))
    return _expect(lambda u: np.asarray(activation(u)) ** 2, variance)


def mean_square_slope(activation: Activation, variance: Any) -> Array:
    """E φ'(√q z)², for each variance q: the diagonal of D."""
    lines = pieces(activation)
    if lines is not None:
        return _line_slope_power(activation, lines, _variances(variance), 2)
    return _expect(lambda u: activation.derivative(u) ** 2, variance)


def mean_fourth_slope(activation: Activation, variance: Any) -> Array:
    """E φ'(√q z)⁴, for each variance q."""
    lines = pieces(activation)
    if lines is not None:
        return _line_slope_power(activation, lines, _variances(variance), 4)
    return _expect(lambda u: activation.derivative(u) ** 4, variance)


def _expect(function: Any, variance: Any) -> Array:
    """E f(√q z) by Gauss-Legendre on panels that get finer towards 0."""
    q = _variances(variance)
    nodes, weights = _quadrature(_halvings(q))
    return np.asarray(function(np.sqrt(q)[..., None] * nodes)) @ (weights * normal_pdf(nodes))


def _variances(variance: Any) -> Array:
    q = np.asarray(variance, dtype=np.float64)
    if not np.isfinite(q).all() or (q < 0).any():
        raise ValueError(f"a variance must be a finite number, not below 0, got {variance!r}")
    return q


def _halvings(q: Array) -> int:
    """How often to halve the panels towards 0, so that φ is smooth over the innermost one."""
    largest = float(q.max(initial=0.0))
    return int(np.clip(math.ceil(0.5 * math.log2(max(largest, 1.0)) + 1), 1, _FINEST))


@functools.cache
def _quadrature(halvings: int) -> tuple[Array, Array]:
    """Nodes and weights on [-12, 12]; 0 is where two panels meet, so a kink there does no harm."""
    ends = np.arange(0.0, _REACH + _PANEL / 2, _PANEL)
    inner = _PANEL * 0.5 ** np.arange(halvings, 0, -1)
    ends = np.concatenate([[0.0], inner, ends[1:]])
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(ends)[:, None] / 2
    nodes = (ends[:-1, None] + half * (1 + x)).ravel()
    weights = (half * w).ravel()
    return np.concatenate([-nodes[::-1], nodes]), np.concatenate([weights[::-1], weights])


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
        c, d = _of_pieces(activation, lines, q[:, None], q[None, :], rho)
        np.fill_diagonal(c, mean_square(activation, q))
        np.fill_diagonal(d, mean_square_slope(activation, q))
        return c, d
    return _by_expansion(activation, q, rho)


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
    q = _variances(np.diag(k))
    root = np.sqrt(np.where(q > 0, q, 1.0))
    rho = np.clip(k / root[:, None] / root, -1.0, 1.0)
    rho[q == 0] = rho[:, q == 0] = 0.0
    np.fill_diagonal(rho, np.where(q > 0, 1.0, 0.0))
    return q, rho


def _of_pieces(
    activation: Activation, lines: Pieces, q_a: Array, q_b: Array, rho: Array
) -> tuple[Array, Array]:
    """C and D by Price's theorem, with r = sin t for the correlation integrated over."""
    root_a, root_b = np.sqrt(q_a), np.sqrt(q_b)
    mean_a, mean_b = _line_mean(lines, root_a), _line_mean(lines, root_b)
    slope_a, slope_b = (_line_slope(activation, lines, root) for root in (root_a, root_b))
    end = np.arcsin(rho)
    grown, moment = np.zeros_like(rho), np.zeros_like(rho)  # ∫ dD and ∫ (ρ - r) dD
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        for t_i, jump_i in zip(lines.kinks, lines.jumps, strict=True):
            for t_j, jump_j in zip(lines.kinks, lines.jumps, strict=True):
                by = jump_i * jump_j / (2 * math.pi)
                if t_i == t_j == 0:
                    grown += by * end
                    moment += by * (rho * end + np.sqrt(1 - rho * rho) - 1)
                    continue
                total, first = _bivariate(t_i / root_a, t_j / root_b, rho, end)
                grown += by * total
                moment += by * first
    still = (q_a == 0) | (q_b == 0)
    grown, moment = np.where(still, 0.0, grown), np.where(still, 0.0, moment)
    c = mean_a * mean_b + root_a * root_b * (rho * slope_a * slope_b + moment)
    return c, slope_a * slope_b + grown


def _line_mean(lines: Pieces, root: Array) -> Array:
    """E φ: each kink at t adds its jump times E max(u - t, 0)."""
    total = np.zeros_like(root)
    unit = np.where(root > 0, root, 1.0)
    for t, jump in zip(lines.kinks, lines.jumps, strict=True):
        total += jump * (root * normal_pdf(t / unit) - t * normal_cdf(-t / unit))
    return np.where(root > 0, total, 0.0)


def _line_mean_square(lines: Pieces, root: Array) -> Array:
    """E φ²: each kink at t adds what differs between the squares of the lines that meet there.

    That is a polynomial in u - t without a constant, since they meet, over u > t.
    """
    unit = np.where(root > 0, root, 1.0)
    total = lines.slope**2 * root * root
    slope, value, before = lines.slope, 0.0, 0.0
    for t, jump in zip(lines.kinks, lines.jumps, strict=True):
        value += slope * (t - before)
        z = t / unit
        above = normal_cdf(-z)
        first = root * normal_pdf(z) - t * above  # E max(u - t, 0)
        second = (root * root + t * t) * above - t * root * normal_pdf(z)  # E max(u - t, 0)²
        total = total + 2 * value * jump * first + ((slope + jump) ** 2 - slope**2) * second
        slope, before = slope + jump, t
    return np.asarray(np.where(root > 0, total, 0.0))


def _line_slope(activation: Activation, lines: Pieces, root: Array, power: int = 1) -> Array:
    """E φ': each kink at t adds its jump times P(u > t)."""
    unit = np.where(root > 0, root, 1.0)
    total = np.full_like(root, lines.slope)
    for t, jump in zip(lines.kinks, lines.jumps, strict=True):
        total += jump * normal_cdf(-t / unit)
    still = activation.derivative(np.zeros(1))[0] ** power
    return np.asarray(np.where(root > 0, total, still))


def _line_slope_power(activation: Activation, lines: Pieces, q: Array, power: int) -> Array:
    """E φ'^power: that of lines whose slopes are those powers."""
    slopes = np.cumsum([lines.slope, *lines.jumps]) ** power
    jumps = tuple(float(jump) for jump in np.diff(slopes))
    powers = Pieces(float(slopes[0]), lines.kinks, jumps)
    return _line_slope(activation, powers, np.sqrt(q), power)


_STEPS = 24  # Gauss-Legendre nodes in each half of the way to the correlation


def _bivariate(h: Array, k: Array, rho: Array, end: Array) -> tuple[Array, Array]:
    """∫ e dt and ∫ (ρ - sin t) e dt for t from 0 to arcsin ρ, e the exponential of the density."""
    nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
    # two panels, the second towards the end, where the exponential may change fast
    ways = [(0.75 * (1 + nodes) / 2, 0.75 * weights / 2)]
    ways.append((0.75 + 0.25 * (1 + nodes) / 2, 0.25 * weights / 2))
    total, first = np.zeros_like(rho), np.zeros_like(rho)
    both = h * k
    for at, by in ways:
        for x, w in zip(at, by, strict=True):
            t = x * end
            s, square = np.sin(t), np.cos(t) ** 2
            # two forms of (h² - 2 s h k + k²) / (2 cos² t), each without cancellation on its side
            exponent = np.where(
                s > 0,
                (h - k) ** 2 / (2 * square) + both / (1 + s),
                (h + k) ** 2 / (2 * square) - both / (1 - s),
            )
            e = w * end * np.exp(-exponent)
            total += e
            first += (rho - s) * e
    return total, first


# --- Mehler's expansion ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _hermite(halvings: int) -> Array:
    """He_k(z) / √k! · pdf(z) · weight on the nodes, (nodes, orders).

    Carried through the recursion z He_k = He_{k+1} + k He_{k-1} (Abramowitz & Stegun 22.7.14) with
    half of the density, so that nothing overflows.
    """
    z, weights = _quadrature(halvings)
    table = np.empty((ORDERS, len(z)))
    table[0] = np.exp(-0.25 * z * z)
    table[1] = z * table[0]
    for k in range(1, ORDERS - 1):
        table[k + 1] = (z * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1)
    table *= weights * np.exp(-0.25 * z * z) / math.sqrt(2 * math.pi)
    return np.ascontiguousarray(table.T)


def _by_expansion(activation: Activation, q: Array, rho: Array) -> tuple[Array, Array]:
    unique, back = np.unique(q, return_inverse=True)
    halvings = _halvings(unique)
    nodes, weights = _quadrature(halvings)
    u = np.sqrt(unique)[:, None] * nodes
    density = weights * normal_pdf(nodes)
    bend, curl = _bends(activation)
    root = np.sqrt(np.outer(q, q))
    found = []
    for values, jump, jump_of_slope in (
        (np.asarray(activation(u)), 0.0, bend),
        (activation.derivative(u), bend, curl),
    ):
        a = values @ _hermite(halvings)
        straight = (values * values) @ density
        mirrored = (values * values[:, ::-1]) @ density  # E f(u) f(-u) = Σ (-1)^k a_k²
        kept, even, odd = _cut(a, straight, mirrored, bool(jump or jump_of_slope))
        total = _series(a[back, :kept], rho)
        if jump or jump_of_slope:
            step, relu, own = _kinked_tails(kept, rho)
            total += jump**2 * step + jump_of_slope**2 * root * relu
            odd = odd - jump**2 * own[0]
            even = even - jump_of_slope**2 * unique * own[1]
        power = np.abs(rho) ** kept
        total += power * _geometric(even[back])
        total += np.sign(rho) * power * _geometric(odd[back])
        found.append(total)
    return found[0], found[1]


def _cut(a: Array, straight: Array, mirrored: Array, all_orders: bool) -> tuple[int, Array, Array]:
    """How many orders to keep, and what the even and the odd ones beyond add to the diagonal."""
    squares = a * a
    kept = ORDERS
    if not all_orders:
        missing = straight[:, None] - np.cumsum(squares, axis=1)
        enough = (missing <= _ENOUGH * straight[:, None]).all(axis=0)
        if enough.any():
            kept = max(int(enough.argmax()) + 1, 2)
    even = (straight + mirrored) / 2 - squares[:, :kept:2].sum(axis=1)
    odd = (straight - mirrored) / 2 - squares[:, 1:kept:2].sum(axis=1)
    return kept, even, odd


def _series(a: Array, rho: Array) -> Array:
    """Σ_k a_k a_kᵀ ρ^k, by Horner's rule."""
    total = np.outer(a[:, -1], a[:, -1])
    for k in range(a.shape[1] - 2, -1, -1):
        total *= rho
        total += np.outer(a[:, k], a[:, k])
    return total


def _geometric(tail: Array) -> Array:
    """Geometric means of all pairs; 0 where two differ in sign."""
    size, sign = np.sqrt(np.abs(tail)), np.sign(tail)
    return np.asarray(np.outer(size, size) * (sign[:, None] + sign) / 2)


def _kinked_tails(kept: int, rho: Array) -> tuple[Array, Array, tuple[float, float]]:
    """What lies beyond the orders kept, of the step function and of relu at unit variance.

    Their exact kernels (Cho & Saul 2009) less the first orders: a_k(step) is, for odd k,
    ± (k-2)!! / √(2π k!), and a_k(relu) = a_{k-1}(step) / √k.
    """
    step, relu = _kinked_squares()
    end = np.arcsin(rho)
    exact_step = end / (2 * math.pi)
    exact_relu = (np.sqrt(1 - rho * rho) + rho * end) / (2 * math.pi)  # both without a_0 · … · ρ/4
    series_step, series_relu = np.zeros_like(rho), np.zeros_like(rho)
    for k in range(kept - 1, -1, -1):
        series_step = series_step * rho + step[k]
        series_relu = series_relu * rho + relu[k]
    at_one = (0.25 - step[:kept].sum(), 0.25 - relu[:kept].sum())
    return exact_step - series_step, exact_relu - series_relu, at_one


@functools.cache
def _kinked_squares() -> tuple[Array, Array]:
    """a_k² of the step function less ½, and of relu less half its line."""
    step, relu = np.zeros(ORDERS), np.zeros(ORDERS)
    square = 1 / (2 * math.pi)  # (k-2)!!² / (2π k!), with the quotient k / ((k+1)(k+2))
    for k in range(1, ORDERS, 2):
        step[k] = square
        if k + 1 < ORDERS:
            relu[k + 1] = square / (k + 1)
        square *= k * k / ((k + 1) * (k + 2))
    relu[0] = 1 / (2 * math.pi)
    return step, relu
