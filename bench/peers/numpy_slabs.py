"""The lesson's net in NumPy as fast as we know how: what the two loops below it have in common.

They are the limit that dp is measured against; neither computes the loss itself. `numpy_exp` takes
the sigmoid as an exp, `numpy_tanh` as a tanh. Most of what makes them fast is to make few calls:

- Activations are feature-major with a row of ones, weights (fan_out, fan_in + 1): bias and its
  gradient ride in the two products. `array.dot` with an output has less overhead than `matmul`.
- Everything lies in slabs, (layers, units + 1, batch): the slopes of all layers are two calls,
  and the weight gradients of all hidden layers but the first are one stacked product.
- All parameters are one vector, and a step's gradients are one row of `records`, laid out alike.
  The rows of a chunk of steps, which fits into the cache, are reduced together.
- The backward products read weights transposed once per step: small products are faster so.
- Batches of a chunk are gathered at once. Views and bound methods are made beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.training import Training

Array = NDArray[Any]


class Calls(NamedTuple):
    """Bound products and flat views, as every step uses them."""

    first_dot: Callable[..., Any]
    last_dot: Callable[..., Any]
    last_back: Callable[..., Any]
    forward: list[tuple[Any, ...]]
    backward: list[tuple[Any, ...]]
    a_flat: Array
    s_flat: Array
    bottom: Array
    bottom_flat: Array
    top: Array
    top_transposed: Array
    inputs: Array
    d: Array
    d_bottom: Array
    d_top: Array
    d_top_flat: Array
    s_top: Array


class Slabs:
    """The slabs, and views of them, for a chunk of steps."""

    def __init__(self, work: Training, chunk: int) -> None:
        dtype, batch, depth = work.dtype, work.batch, work.depth
        features, n = work.widths[:2]
        if work.widths[2:] != [n] * (depth - 1) + [1] or depth < 2:
            raise ValueError(f"these loops are written for several equal layers, not {work.widths}")
        self.head = n * (features + 1)  # entries of the first layer
        self.rows = n * (depth - 1) + 1  # of all others, below one another
        size = self.head + self.rows * (n + 1)

        self.parameters = np.empty(size, dtype)
        self.first, self.others, self.hidden, self.last = self._layers(self.parameters, n)
        self.transposed = np.empty((depth - 1, n, n), dtype)
        self.to_transpose = self.hidden[:, :, :-1].transpose(0, 2, 1)

        self.activations = np.ones((depth, n + 1, batch), dtype)
        self.slopes = np.empty_like(self.activations)
        self.deltas = np.empty((depth, n, batch), dtype)
        self.output = np.empty((1, batch), dtype)

        self.records = np.empty((chunk, size), dtype)
        self.x = np.empty((features + 1, chunk, batch), dtype)
        self.y = np.empty((chunk, 1, batch), dtype)
        self.steps = [
            (self.x[:, k], self.x[:, k].T, self.y[k], g, *self._layers(g, n))
            for k, g in enumerate(self.records)
        ]
        self.calls = self._calls(n)

    def _layers(self, flat: Array, n: int) -> tuple[Array, Array, Array, Array]:
        """Views of a vector: the first layer, all others, of these the hidden ones and the last."""
        others = flat[self.head :].reshape(self.rows, n + 1)
        first = flat[: self.head].reshape(n, -1)
        return first, others, others[:-1].reshape(-1, n, n + 1), others[-1:]

    def _calls(self, n: int) -> Calls:
        a, d, s = self.activations, self.deltas, self.slopes
        hidden = range(len(a) - 1)
        # elementwise calls take flat views: fewer axes, less overhead
        return Calls(
            self.first.dot,
            self.last.dot,
            self.last[:, :n].T.dot,
            [(self.hidden[i].dot, a[i], a[i + 1, :-1], a[i + 1, :-1].reshape(-1)) for i in hidden],
            [
                (self.transposed[i].dot, d[i + 1], d[i], d[i].reshape(-1), s[i, :-1].reshape(-1))
                for i in reversed(hidden)
            ],
            a.reshape(-1),
            s.reshape(-1),
            a[0, :-1],
            a[0, :-1].reshape(-1),
            a[-1],
            a[-1].T,
            a[:-1].transpose(0, 2, 1),
            d[1:],
            d[0],
            d[-1],
            d[-1].reshape(-1),
            s[-1, :-1].reshape(-1),
        )

    def gather(self, x: Array, y: Array, rows: Array) -> list[tuple[Array, ...]]:
        """Fill in the batches of a chunk; the views of its steps."""
        k = len(rows)
        x.take(rows, 1, self.x[:, :k], "clip")
        y.take(rows, None, self.y[:k, 0], "clip")
        return self.steps[:k]
