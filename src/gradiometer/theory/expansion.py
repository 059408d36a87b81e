"""Second moments of any activation function, by Mehler's expansion.

C_ab = Σ_k a_k(K_aa) a_k(K_bb) ρ_ab^k, where a_k(q) = E φ(√q z) He_k(z) / √k! (as in Daniely et al.
2016; the same for D with φ'). What is cut off beyond `ORDERS` is put back: that of a kink as J²
times that of a relu, whose kernel is known, and the rest so that the diagonal is exact.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from dp import primitives as p
from dp.activations import Activation
from dp.special import normal_pdf
from dp.typing import Array
from gradiometer.theory.quadrature import halvings_for, nodes_and_weights

ORDERS = 512
_ENOUGH = 1e-13  # relative; higher orders than are needed for it are left out


def _bends(activation: Activation) -> tuple[float, float]:
    """By how much φ' and φ'' jump at 0; (0, 0) for a function that is smooth there."""
    if activation.primitive is not p.elu:
        return 0.0, 0.0
    alpha, scale = (float(activation.settings[name]) for name in ("alpha", "scale"))
    return scale * (1.0 - alpha), -scale * alpha


@functools.lru_cache(maxsize=4)
def _hermite(halvings: int) -> Array:
    """He_k(z) / √k! · pdf(z) · weight on the nodes, (nodes, orders).

    Carried through the recursion z He_k = He_{k+1} + k He_{k-1} (Abramowitz & Stegun 22.7.14) with
    half of the density, so that nothing overflows.
    """
    z, weights = nodes_and_weights(halvings)
    table = np.empty((ORDERS, len(z)))
    table[0] = np.exp(-0.25 * z * z)
    table[1] = z * table[0]
    for k in range(1, ORDERS - 1):
        table[k + 1] = (z * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1)
    table *= weights * np.exp(-0.25 * z * z) / math.sqrt(2 * math.pi)
    return np.ascontiguousarray(table.T)


def kernels_by_expansion(activation: Activation, q: Array, rho: Array) -> tuple[Array, Array]:
    """C and D of all pairs, from variances (batch,) and correlations (batch, batch)."""
    unique, back = np.unique(q, return_inverse=True)
    halvings = halvings_for(unique)
    nodes, weights = nodes_and_weights(halvings)
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
