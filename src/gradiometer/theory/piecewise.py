"""Moments of activation functions made of straight lines, in closed form or nearly so.

By Price's theorem (Price 1958) ∂C/∂K_ab = D_ab and ∂D/∂K_ab = E φ''(u_a) φ''(u_b), and φ'' is a sum
of point masses at the kinks, whose expectation is a bivariate normal density. Integrated from the
correlation 0 upwards; with one kink, at 0, this gives the arc-cosine kernels (Cho & Saul 2009) in
closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dp import primitives as p
from dp.activations import CLIPPED_RELU, Activation
from dp.special import normal_cdf, normal_pdf
from dp.typing import Array

_STEPS = 24  # Gauss-Legendre nodes in each half of the way to the correlation


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
    if activation.primitive is CLIPPED_RELU:
        return Pieces(0.0, (0.0, float(activation.settings["ceiling"])), (1.0, -1.0))
    return None


def is_scale_free(activation: Activation) -> bool:
    """Whether φ(cx) = c φ(x) for c > 0, as of relu: one that bends at 0 alone, if at all."""
    lines = pieces(activation)
    return lines is not None and not any(lines.kinks)


def kernels_of_pieces(
    activation: Activation, lines: Pieces, q_a: Array, q_b: Array, rho: Array
) -> tuple[Array, Array]:
    """C and D by Price's theorem, with r = sin t for the correlation integrated over."""
    root_a, root_b = np.sqrt(q_a), np.sqrt(q_b)
    mean_a, mean_b = mean_of_pieces(lines, root_a), mean_of_pieces(lines, root_b)
    slope_a, slope_b = (slope_of_pieces(activation, lines, root) for root in (root_a, root_b))
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


def mean_of_pieces(lines: Pieces, root: Array) -> Array:
    """E φ: each kink at t adds its jump times E max(u - t, 0)."""
    total = np.zeros_like(root)
    unit = np.where(root > 0, root, 1.0)
    for t, jump in zip(lines.kinks, lines.jumps, strict=True):
        total += jump * (root * normal_pdf(t / unit) - t * normal_cdf(-t / unit))
    return np.where(root > 0, total, 0.0)


def mean_square_of_pieces(lines: Pieces, root: Array) -> Array:
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


def slope_of_pieces(activation: Activation, lines: Pieces, root: Array, power: int = 1) -> Array:
    """E φ': each kink at t adds its jump times P(u > t)."""
    unit = np.where(root > 0, root, 1.0)
    total = np.full_like(root, lines.slope)
    for t, jump in zip(lines.kinks, lines.jumps, strict=True):
        total += jump * normal_cdf(-t / unit)
    still = activation.derivative(np.zeros(1))[0] ** power
    return np.asarray(np.where(root > 0, total, still))


def slope_power_of_pieces(activation: Activation, lines: Pieces, q: Array, power: int) -> Array:
    """E φ'^power: that of lines whose slopes are those powers."""
    slopes = np.cumsum([lines.slope, *lines.jumps]) ** power
    jumps = tuple(float(jump) for jump in np.diff(slopes))
    powers = Pieces(float(slopes[0]), lines.kinks, jumps)
    return slope_of_pieces(activation, powers, np.sqrt(q), power)


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
