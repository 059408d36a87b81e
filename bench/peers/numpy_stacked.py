"""Many nets in NumPy, stacked by seed: each activation function and depth in few, long calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training import Sweep, Training, with_bias

Array = NDArray[Any]


def stacked(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Train every cell, all its seeds in one stack."""
    return lambda: {cell: _Stack(training).train() for cell, training in work.trainings.items()}


class _Stack:
    """All seeds of one cell: parameters and gradients as one vector each, buffers, and the loop."""

    def __init__(self, work: Training) -> None:
        dtype, batch, depth, n = work.dtype, work.batch, work.depth, work.widths[1]
        self.activation, self.alpha, self.dtype = work.activation, work.alpha, dtype
        self.x = np.vstack([work.x.T, np.ones((1, len(work.x)), dtype)])
        self.y = (work.alpha * work.y[:, 0]).astype(dtype)
        self.rows = work.rows()
        members = len(self.rows)
        layers = with_bias(work, dtype)
        self.negated = work.activation == "sigmoid"  # see numpy_exp
        self.p = np.concatenate([w.ravel() for w in layers])
        if self.negated:
            np.negative(self.p, self.p)
        self.g = np.empty_like(self.p)
        self.first, self.hidden, self.last = self._views(self.p, layers[0].shape, depth)
        self.g_first, self.g_hidden, self.g_last = self._views(self.g, layers[0].shape, depth)
        if self.negated:
            self.last[..., -1] -= math.log(work.alpha)
        self.a = np.ones((depth, members, n + 1, batch), dtype)
        self.s = np.empty_like(self.a)
        self.d = np.empty((depth, members, n, batch), dtype)
        self.z = np.empty((members, 1, batch), dtype)
        self.h = np.empty((members, n, batch), dtype)
        self.transposed = np.empty((depth - 1, members, n, n), dtype)
        self.zeros, self.mask = np.zeros_like(self.h), np.empty(self.a.size, np.bool_)
        self.one, self.zero, self.inverse = (np.array(v, dtype) for v in (1, 0, 1 / work.alpha))
        self.share = self._share(len(self.x) - 1, n)

    @staticmethod
    def _views(flat: Array, first: tuple[int, ...], depth: int) -> tuple[Array, Array, Array]:
        """Views of a vector: the first layer, the other hidden ones, the last."""
        members, n, _ = first
        head, tail = math.prod(first), members * (n + 1)
        return (
            flat[:head].reshape(first),
            flat[head:-tail].reshape(depth - 1, members, n, n + 1),
            flat[-tail:].reshape(members, 1, n + 1),
        )

    def _share(self, features: int, n: int) -> list[Array]:
        """Vectors: |gradient| @ one of them is the mean over the weights, without the bias."""
        share = []
        for fan_out, fan_in in ((n, features), (n, n), (1, n)):
            of = np.full((fan_out, fan_in + 1), 1 / self.alpha / fan_out / fan_in, self.dtype)
            of[:, -1] = 0
            share.append(of.ravel())
        return share

    def train(self) -> Array:
        """Mean |dL/dW|, (seeds, steps, layers)."""
        members, steps = self.rows.shape[:2]
        depth = len(self.a)
        g_first, g_last = self.g_first.reshape(members, -1), self.g_last.reshape(members, -1)
        g_hidden = self.g_hidden.reshape(depth - 1, members, self.share[1].size)
        recorded = np.empty((steps, depth + 1, members), self.dtype)
        for k in range(steps):
            x_k = self.x.take(self.rows[:, k], 1).transpose(1, 0, 2)
            self._forward(x_k, self.y.take(self.rows[:, None, k]))
            self._backward(x_k)
            np.add(self.p, self.g, self.p) if self.negated else np.subtract(self.p, self.g, self.p)
            np.abs(self.g, self.g)
            recorded[k, 0] = g_first @ self.share[0]
            recorded[k, 1:-1] = g_hidden @ self.share[1]
            recorded[k, -1] = g_last @ self.share[2]
        return recorded.transpose(2, 0, 1)

    def _forward(self, x_k: Array, y_k: Array) -> None:
        """Activations of all layers, and the last delta."""
        a, z = self.a, self.z
        np.matmul(self.first, x_k, self.h)
        self._phi(a[0, :, :-1])
        for i in range(len(a) - 1):
            np.matmul(self.hidden[i], a[i], self.h)
            self._phi(a[i + 1, :, :-1])
        np.matmul(self.last, a[-1], z)
        if not self.negated:
            np.negative(z, z)
        np.exp(z, z)
        if self.negated:
            np.add(z, self.inverse, z)
            np.divide(self.one, z, z)
        else:
            np.add(z, self.one, z)
            np.divide(self.alpha, z, z)
        np.subtract(z, y_k, z)

    def _phi(self, out: Array) -> None:
        h = self.h
        if self.activation == "sigmoid":
            np.exp(h, h)
            np.add(h, self.one, h)
            np.divide(self.one, h, out)
        elif self.activation == "tanh":
            np.tanh(h, out)
        else:
            np.maximum(h, self.zeros, out=out)

    def _slopes(self) -> Array:
        """Of all layers at once; negated with the parameters."""
        a, s = self.a.reshape(-1), self.s.reshape(-1)
        if self.activation == "relu":
            np.greater(a, self.zero, self.mask)
            np.copyto(s, self.mask)
        else:
            np.multiply(a, a, s)
            np.subtract(*((s, a) if self.negated else (self.one, s)), s)
        return self.s[:, :, :-1]

    def _backward(self, x_k: Array) -> None:
        """Deltas and gradients of all layers."""
        a, d, z, slopes = self.a, self.d, self.z, self._slopes()
        np.copyto(self.transposed, self.hidden[..., :-1].swapaxes(-1, -2))
        np.multiply(self.last[..., :-1].swapaxes(-1, -2), z, d[-1])
        np.multiply(d[-1], slopes[-1], d[-1])
        for i in reversed(range(len(a) - 1)):
            np.matmul(self.transposed[i], d[i + 1], d[i])
            np.multiply(d[i], slopes[i], d[i])
        np.matmul(z, a[-1].swapaxes(-1, -2), self.g_last)
        np.matmul(d[1:], a[:-1].swapaxes(-1, -2), self.g_hidden)
        np.matmul(d[0], x_k.swapaxes(-1, -2), self.g_first)
