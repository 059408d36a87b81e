"""The lesson's net in NumPy as fast as we know how, where tanh is slow.

The sigmoid is an exp, an add and a divide. The parameters are negated, so that no sign
is to be changed before exp. The last delta is α (p - y): then a gradient is what is added to the
parameters, without another product. α p is 1 / (1/α + exp(-h) / α), and the 1/α in front of exp is
a constant in the last bias.
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


def best_exp(work: Training, chunk: int = 25) -> Callable[[], Array]:
    """Prepare the loop."""
    slabs, dtype = Slabs(work, chunk), work.dtype
    x = np.vstack([work.x.T, np.ones((1, len(work.x)), dtype)])
    y = (work.alpha * work.y[:, 0]).astype(dtype)
    layers = [-w for w in with_bias(work, np.float64)]
    layers[-1][0, -1] -= math.log(work.alpha)
    start = np.concatenate([w.ravel() for w in layers]).astype(dtype)
    means = _means(layers, work.alpha).astype(dtype)
    return lambda: _train(work, slabs, x, y, start, means)


def _means(layers: list[Array], alpha: float) -> Array:
    """A matrix: mean |dL/dW| of every layer is the product of |records| with it."""
    means = np.zeros((sum(w.size for w in layers), len(layers)))
    begin = 0
    for layer, w in enumerate(layers):
        share = np.zeros_like(w)
        share[:, :-1] = 1 / alpha / share[:, :-1].size
        means[begin : begin + w.size, layer] = share.ravel()
        begin += w.size
    return means


def _train(work: Training, slabs: Slabs, x: Array, y: Array, start: Array, means: Array) -> Array:
    exp, add, divide, multiply, subtract = np.exp, np.add, np.divide, np.multiply, np.subtract
    matmul, copyto, dtype = np.matmul, np.copyto, work.dtype
    one, inverse = np.ones((), dtype), np.array(1 / work.alpha, dtype)
    p, z, records, chunk = slabs.parameters, slabs.output, slabs.records, len(slabs.records)
    transposed, to_transpose = slabs.transposed, slabs.to_transpose
    first_dot, last_dot, last_back, forward, backward, *views = slabs.calls
    a_flat, s_flat, bottom, bottom_flat, top, top_transposed, inputs, *deltas = views
    d, d_bottom, d_top, d_top_flat, s_top = deltas
    stream = work.stream()
    recorded = np.empty((work.steps, work.depth + 1), dtype)
    copyto(p, start)
    for begin in range(0, work.steps, chunk):
        now = recorded[begin : begin + chunk]
        rows = stream.integers(0, x.shape[1], size=(len(now), work.batch))
        for x_k, x_t, y_k, g, g_first, _, g_hidden, g_last in slabs.gather(x, y, rows):
            first_dot(x_k, bottom)
            exp(bottom_flat, bottom_flat)
            add(bottom_flat, one, bottom_flat)
            divide(one, bottom_flat, bottom_flat)
            for dot, below, out, flat in forward:
                dot(below, out)
                exp(flat, flat)
                add(flat, one, flat)
                divide(one, flat, flat)
            last_dot(top, z)
            exp(z, z)
            add(z, inverse, z)
            divide(one, z, z)
            subtract(z, y_k, z)
            multiply(a_flat, a_flat, s_flat)
            subtract(s_flat, a_flat, s_flat)  # a² - a: the sign is that of the parameters
            copyto(transposed, to_transpose)
            last_back(z, d_top)
            multiply(d_top_flat, s_top, d_top_flat)
            for dot, above, out, flat, slope in backward:
                dot(above, out)
                multiply(flat, slope, flat)
            z.dot(top_transposed, g_last)
            matmul(d, inputs, g_hidden)
            d_bottom.dot(x_t, g_first)
            add(p, g, p)
        part = records[: len(now)]
        np.abs(part, part)
        part.dot(means, now)
    return recorded
