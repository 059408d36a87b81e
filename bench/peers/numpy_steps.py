"""Wide and deep nets in NumPy as fast as we know how, step by step.

Everything of one layer comes right after one another, while it is in the cache. Weights are
(fan_in + 1, fan_out): large products are slow with transposed rows of odd length. The last delta
holds α. For relu or tanh, and a softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.numpy_products import product
from bench.training import Steps, Training, with_bias

Array = NDArray[Any]


def steps(work: Training) -> Steps:
    """Prepare the loop."""
    net = _Net(work)
    run = net.run_relu if work.activation == "relu" else net.run_tanh
    return Steps(run, net.parameters)


class _Net:
    """Weights, buffers, and the calls of a step with what each is called with."""

    def __init__(self, work: Training) -> None:
        dtype, batch, n, outputs = work.dtype, work.batch, work.widths[1], work.widths[-1]
        self.x = np.hstack([work.x, np.ones((len(work.x), 1), dtype)])
        self.y = (work.alpha * work.y).astype(dtype)
        self.alpha, self.stream = np.array(work.alpha, dtype), work.stream()
        self.first, *others = with_bias(work, dtype)  # the first is not needed backward
        self.others = [w.T.copy() for w in others]
        self.a = [np.ones((n + 1, batch), dtype) for _ in others]
        self.deltas = [np.empty((n, batch), dtype) for _ in range(2)]
        self.s = np.empty(n * batch, dtype)
        self.z, self.row = np.empty((outputs, batch), dtype), np.empty((1, batch), dtype)
        self.x_k = np.empty((batch, self.x.shape[1]), dtype)
        self.y_k = np.empty((batch, outputs), dtype)
        self.g_first = np.empty_like(self.first)
        self.forward, self.backward = self._forward(), self._backward()
        self.last = product(self.others[-1].T, self.a[-1], self.z)

    def _forward(self) -> list[tuple[Any, ...]]:
        inputs = [self.x_k.T, *self.a[:-1]]
        weights = [self.first, *(w.T for w in self.others[:-1])]
        return [
            (*product(w, below, above[:-1]), above[:-1].reshape(-1))
            for w, below, above in zip(weights, inputs, self.a, strict=True)
        ]

    def _backward(self) -> list[tuple[Any, ...]]:
        calls, top = [], len(self.others) - 1
        g_hidden, g_last = np.empty_like(self.others[0]), np.empty_like(self.others[-1])
        for i in reversed(range(len(self.others))):
            given = self.z if i == top else self.deltas[(i + 1) % 2]
            out, g = self.deltas[i % 2], g_last if i == top else g_hidden
            w, flat = self.others[i], self.a[i][:-1].reshape(-1)
            dot = product(w[:-1], given, out)
            calls.append((*dot, out.reshape(-1), flat, self.a[i].dot, given.T, g, w))
        return calls

    def run_relu(self, count: int) -> None:
        """So many steps more, of a relu."""
        maximum, multiply, subtract = np.maximum, np.multiply, np.subtract
        greater, copyto, s = np.greater, np.copyto, self.s
        zeros, mask = np.zeros_like(s), np.empty(s.shape, np.bool_)
        for rows in self.stream.integers(0, len(self.x), size=(count, len(self.x_k))):
            self._take(rows)
            for dot, below, out, flat in self.forward:
                dot(below, out)
                maximum(flat, zeros, out=flat)
            self._softmax()
            for dot, given, out, out_flat, flat, g_dot, given_t, g, w in self.backward:
                dot(given, out)
                greater(flat, zeros, mask)
                copyto(s, mask)
                multiply(out_flat, s, out_flat)
                g_dot(given_t, g)
                subtract(w, g, w)
            self._update_first()

    def run_tanh(self, count: int) -> None:
        """So many steps more, of a tanh."""
        tanh, multiply, subtract, s = np.tanh, np.multiply, np.subtract, self.s
        ones = np.ones_like(s)
        for rows in self.stream.integers(0, len(self.x), size=(count, len(self.x_k))):
            self._take(rows)
            for dot, below, out, flat in self.forward:
                dot(below, out)
                tanh(flat, flat)
            self._softmax()
            for dot, given, out, out_flat, flat, g_dot, given_t, g, w in self.backward:
                dot(given, out)
                multiply(flat, flat, s)
                subtract(ones, s, s)
                multiply(out_flat, s, out_flat)
                g_dot(given_t, g)
                subtract(w, g, w)
            self._update_first()

    def _take(self, rows: Array) -> None:
        self.x.take(rows, 0, self.x_k, "clip")
        self.y.take(rows, 0, self.y_k, "clip")

    def _softmax(self) -> None:
        """The last layer, and its delta."""
        z, row, (dot, top, out) = self.z, self.row, self.last
        dot(top, out)
        z.max(0, row, True)
        np.subtract(z, row, z)
        np.exp(z, z)
        z.sum(0, None, row, True)
        np.divide(self.alpha, row, row)
        np.multiply(z, row, z)
        np.subtract(z, self.y_k.T, z)

    def _update_first(self) -> None:
        self.deltas[0].dot(self.x_k, self.g_first)
        np.subtract(self.first, self.g_first, self.first)

    def parameters(self) -> list[Array]:
        """Weights and bias of every layer, in turn."""
        return [p for w in (self.first.T, *self.others) for p in (w[:-1], w[-1:])]
