"""The lesson's net in NumPy as fast as we know how, where tanh is fast: one call in place of three.

sigmoid(h) = (1 + t) / 2 with t = tanh(h / 2). The affine maps around tanh go into the weights: with
U = [W/4, b/2 + ΣW/4] the next h/2 is U [t; 1], and Wᵀδ σ' is Uᵀδ (1 - t²). The gradient of U is
linear in G = δ [t; 1]ᵀ, so that the descent is U -= G C with a constant C. The first layer's inputs
are scaled such that its descent needs no factor at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.numpy_slabs import Slabs
from bench.training import Training, with_bias

Array = NDArray[Any]


def best_tanh(work: Training, chunk: int = 50) -> Callable[[], Array]:
    """Prepare the loop."""
    slabs, dtype = Slabs(work, chunk), work.dtype
    scale = math.sqrt(work.alpha) / 2
    x = (scale * np.vstack([work.x.T, np.ones((1, len(work.x)))])).astype(dtype)
    y = (2 * work.y[:, 0] - 1).astype(dtype)
    first, *others = with_bias(work, np.float64)
    below = np.concatenate(others)
    below[:, :-1] /= 4
    below[:, -1] = below[:, -1] / 2 + below[:, :-1].sum(axis=1)
    start = np.concatenate([(first / 2 / scale).ravel(), below.ravel()]).astype(dtype)
    descent = _descent(work).astype(dtype)
    means = _Means(work, slabs, scale)
    return lambda: _train(work, slabs, x, y, start, descent, means)


def _descent(work: Training) -> Array:
    """The constant C. δ is 1/2 (t - (2 y - 1)); that half, α and the sign are in here."""
    n = work.widths[1]
    descent = np.zeros((n + 1, n + 1))
    descent[:n, :n] = np.eye(n) / 8
    descent[:n, n] = descent[n, :n] = 1 / 8
    descent[n, n] = 1 / 2 + n / 8
    return -work.alpha / 2 * descent


class _Means:
    """Mean |dL/dW| of every layer, from the records of a chunk of steps."""

    def __init__(self, work: Training, slabs: Slabs, scale: float) -> None:
        n, depth, chunk = work.widths[1], work.depth, len(slabs.records)
        means = np.zeros((slabs.rows * n, depth))
        for layer in range(depth - 1):
            means[n * n * layer : n * n * (layer + 1), layer] = 1 / 4 / n**2
        means[n * n * (depth - 1) :, -1] = 1 / 4 / n
        self.means = means.astype(work.dtype)
        self.g_w = np.empty((chunk, slabs.rows, n), work.dtype)
        self.firsts = slabs.records[:, : slabs.head].reshape(chunk, n, -1)[:, :, :-1]
        self.others = slabs.records[:, slabs.head :].reshape(chunk, slabs.rows, n + 1)
        self.divisor = 2 * scale * len(work.x[0]) * n

    def write(self, now: Array) -> None:
        """Fill in as many steps as there are rows, (steps, layers)."""
        k = len(now)
        g_w = self.g_w[:k]
        # dL/dW of (1 + t) / 2 is half the sum of those of t and of 1
        np.add(self.others[:k, :, :-1], self.others[:k, :, -1:], g_w)
        np.abs(g_w, g_w)
        now[:, 1:] = g_w.reshape(k, -1).dot(self.means)
        np.divide(np.abs(self.firsts[:k]).sum(axis=(1, 2)), self.divisor, now[:, 0])


def _train(
    work: Training, slabs: Slabs, x: Array, y: Array, start: Array, descent: Array, means: _Means
) -> Array:
    tanh, add, multiply, subtract = np.tanh, np.add, np.multiply, np.subtract
    matmul, copyto, chunk = np.matmul, np.copyto, len(slabs.records)
    p, z, p_first, p_others = slabs.parameters, slabs.output, slabs.first, slabs.others
    transposed, to_transpose = slabs.transposed, slabs.to_transpose
    first_dot, last_dot, last_back, forward, backward, *views = slabs.calls
    t_flat, s_flat, bottom, bottom_flat, top, top_transposed, inputs, *deltas = views
    d, d_bottom, d_top, d_top_flat, s_top = deltas
    ones, change = np.ones_like(t_flat), np.empty_like(p_others)
    stream = work.stream()
    recorded = np.empty((work.steps, work.depth + 1), work.dtype)
    copyto(p, start)
    for begin in range(0, work.steps, chunk):
        now = recorded[begin : begin + chunk]
        rows = stream.integers(0, x.shape[1], size=(len(now), work.batch))
        for x_k, x_t, y_k, _, g_first, g_others, g_hidden, g_last in slabs.gather(x, y, rows):
            first_dot(x_k, bottom)
            tanh(bottom_flat, bottom_flat)
            for dot, below, out, flat in forward:
                dot(below, out)
                tanh(flat, flat)
            last_dot(top, z)
            tanh(z, z)
            subtract(z, y_k, z)
            multiply(t_flat, t_flat, s_flat)
            subtract(ones, s_flat, s_flat)
            copyto(transposed, to_transpose)
            last_back(z, d_top)
            multiply(d_top_flat, s_top, d_top_flat)
            for dot, above, out, flat, slope in backward:
                dot(above, out)
                multiply(flat, slope, flat)
            z.dot(top_transposed, g_last)
            matmul(d, inputs, g_hidden)
            d_bottom.dot(x_t, g_first)
            subtract(p_first, g_first, p_first)
            g_others.dot(descent, change)
            add(p_others, change, p_others)
        means.write(now)
    return recorded
