"""Means over a normal pre-activation, by Gauss-Legendre quadrature."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dp.special import normal_pdf
from dp.typing import Array

_REACH = 12.0  # standard deviations: the density beyond is below 1e-31
_PANEL = 0.25  # a quarter of the wavelength of the highest order, or less, per pair of nodes
_NODES = 10  # per panel (Gauss-Legendre)
_FINEST = 30  # panels are halved so often towards 0, where φ bends, if the variance is large


def expect(function: Callable[[Array], Array], variance: Any) -> Array:
    """E f(√q z) by Gauss-Legendre on panels that get finer towards 0."""
    q = checked(variance)
    nodes, weights = nodes_and_weights(halvings_for(q))
    values = function(np.sqrt(q)[..., None] * nodes)
    return np.asarray(values @ (weights * normal_pdf(nodes)))


def checked(variance: Any) -> Array:
    """A variance as an array; ValueError if it is not finite, or negative."""
    q = np.asarray(variance, dtype=np.float64)
    if not np.isfinite(q).all() or (q < 0).any():
        raise ValueError(f"a variance must be a finite number, not below 0, got {variance!r}")
    return q


def halvings_for(q: Array) -> int:
    """How often to halve the panels towards 0, so that φ is smooth over the innermost one."""
    largest = float(q.max(initial=0.0))
    return int(np.clip(math.ceil(0.5 * math.log2(max(largest, 1.0)) + 1), 1, _FINEST))


@functools.cache
def nodes_and_weights(halvings: int) -> tuple[Array, Array]:
    """Nodes and weights on [-12, 12]; 0 is where two panels meet, so a kink there does no harm."""
    ends = np.arange(0.0, _REACH + _PANEL / 2, _PANEL)
    inner = _PANEL * 0.5 ** np.arange(halvings, 0, -1)
    ends = np.concatenate([[0.0], inner, ends[1:]])
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(ends)[:, None] / 2
    nodes = (ends[:-1, None] + half * (1 + x)).ravel()
    weights = (half * w).ravel()
    return np.concatenate([-nodes[::-1], nodes]), np.concatenate([weights[::-1], weights])
