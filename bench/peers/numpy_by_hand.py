"""Loops written by hand in NumPy: as a student would, simpler, and as fast as we know how.

The best loops are the limit that dp is measured against. What makes them fast is said where it is
done; most of it is to make few calls. None of them computes the loss itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.workloads import Steps, Sweep, Training

Array = NDArray[Any]


# --- as a student would write it, and the reference for everybody ---------------------------------

_PHI: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda h: 1 / (1 + np.exp(-h)),
    "tanh": np.tanh,
    "relu": lambda h: np.maximum(h, 0),
}
_SLOPE: dict[str, Callable[[Array], Array]] = {  # from the value of φ
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "relu": lambda a: (a > 0).astype(a.dtype),
}


def plain_training(work: Training, steps: int | None = None) -> tuple[Array, list[Array]]:
    """Mean |dL/dW|, (…, steps, layers), and the parameters afterwards; one net or several."""
    phi, slope = _PHI[work.activation], _SLOPE[work.activation]
    weights = [w.copy() for w in work.weights]
    biases = [b.copy() for b in work.biases]
    recorded = []
    drawn = work.rows(steps)
    for step in range(drawn.shape[-2]):
        rows = drawn[..., step, :]
        x, y = work.x[rows], work.y[rows]
        activations = [x]
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            activations.append(phi(activations[-1] @ w + b))
        logits = activations[-1] @ weights[-1] + biases[-1]
        if logits.shape[-1] == 1:
            delta = 1 / (1 + np.exp(-logits)) - y
        else:
            e = np.exp(logits - logits.max(axis=-1, keepdims=True))
            delta = e / e.sum(axis=-1, keepdims=True) - y
        means = []
        for layer in reversed(range(len(weights))):
            a = activations[layer]
            dw = a.swapaxes(-1, -2) @ delta
            db = delta.sum(axis=-2, keepdims=True)
            if layer:
                delta = (delta @ weights[layer].swapaxes(-1, -2)) * slope(a)
            means.append(np.abs(dw).mean(axis=(-1, -2)))
            weights[layer] -= work.alpha * dw
            biases[layer] -= work.alpha * db
        recorded.append(np.stack(means[::-1], axis=-1))
    return np.stack(recorded, axis=-2), [
        p for pair in zip(weights, biases, strict=True) for p in pair
    ]


def plain(work: Training) -> Callable[[], Array]:
    """The lesson's net as a student would write it."""
    return lambda: plain_training(work)[0]


def plain_steps(work: Training) -> Steps:
    """The same, trained on and on; every call begins with the parameters of the one before."""
    state = work

    def run(count: int) -> None:
        nonlocal state
        _, after = plain_training(state, count)
        state = replace(state, weights=after[0::2], biases=after[1::2])

    return Steps(
        run, lambda: [p for w, b in zip(state.weights, state.biases, strict=True) for p in (w, b)]
    )


# --- the lesson's net, simpler --------------------------------------------------------------------


def simpler(work: Training) -> Callable[[], Array]:
    """Feature-major with a row of ones, buffers kept, recording at the end; layer by layer."""
    dtype, batch, steps = work.dtype, work.batch, work.steps
    first = _with_bias(work, dtype)
    x = np.vstack([work.x.T, np.ones((1, len(work.x)), dtype)])
    y = work.y.T
    activations = [np.ones((w.shape[1], batch), dtype) for w in first]
    deltas = [np.empty((w.shape[0], batch), dtype) for w in first]
    slopes = [np.empty_like(d) for d in deltas]
    gradients = [np.empty((steps, *w.shape), dtype) for w in first]
    changes = [np.empty_like(w) for w in first]
    layers = range(len(first))

    def run() -> Array:
        stream = work.stream()
        negated = [-w for w in first]
        for step in range(steps):
            rows = stream.integers(0, x.shape[1], size=(batch,))
            x.take(rows, axis=1, out=activations[0], mode="clip")
            for layer in layers:
                h = deltas[-1] if layer == work.depth else activations[layer + 1][:-1]
                np.dot(negated[layer], activations[layer], out=h)
                np.exp(h, out=h)
                np.add(h, 1, out=h)
                np.divide(1, h, out=h)
            np.subtract(deltas[-1], y[:, rows], out=deltas[-1])
            for layer in reversed(layers):
                delta, g = deltas[layer], gradients[layer][step]
                np.dot(delta, activations[layer].T, out=g)
                if layer:
                    a, slope, below = activations[layer][:-1], slopes[layer - 1], deltas[layer - 1]
                    np.dot(negated[layer][:, :-1].T, delta, out=below)
                    np.subtract(a, 1, out=slope)
                    np.multiply(slope, a, out=slope)
                    np.multiply(below, slope, out=below)
                np.multiply(g, work.alpha, out=changes[layer])
                np.add(negated[layer], changes[layer], out=negated[layer])
        return np.stack([np.abs(g[..., :-1]).mean(axis=(1, 2)) for g in gradients], axis=1)

    return run


# --- the lesson's net, as fast as we know how -----------------------------------------------------
#
# Common to both loops below:
# - Activations are feature-major with a row of ones, weights (fan_out, fan_in + 1): bias and its
#   gradient ride in the two products. `array.dot` with an output has less overhead than `matmul`.
# - Everything lies in slabs, (layers, units + 1, batch): the slopes of all layers are two calls,
#   and the weight gradients of all hidden layers but the first are one stacked product.
# - All parameters are one vector, and a step's gradients are one row of `records`, laid out alike.
#   The rows of a chunk of steps, which fits into the cache, are reduced together.
# - The backward products read weights transposed once per step: small products are faster so.
# - Batches of a chunk are gathered at once. Views and bound methods are made beforehand.


class _Buffers:
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
        self.first = self.parameters[: self.head].reshape(n, features + 1)
        self.others = self.parameters[self.head :].reshape(self.rows, n + 1)
        self.hidden = self.others[:-1].reshape(depth - 1, n, n + 1)
        self.last = self.others[-1:]
        self.transposed = np.empty((depth - 1, n, n), dtype)
        self.to_transpose = self.hidden[:, :, :-1].transpose(0, 2, 1)

        self.activations = np.ones((depth, n + 1, batch), dtype)
        self.slopes = np.empty_like(self.activations)
        self.deltas = np.empty((depth, n, batch), dtype)
        self.output = np.empty((1, batch), dtype)

        self.records = np.empty((chunk, size), dtype)
        self.x = np.empty((features + 1, chunk, batch), dtype)
        self.y = np.empty((chunk, 1, batch), dtype)

        a, d, s = self.activations, self.deltas, self.slopes
        # elementwise calls take flat views: fewer axes, less overhead
        self.forward = [
            (self.hidden[i].dot, a[i], a[i + 1, :-1], a[i + 1, :-1].reshape(-1))
            for i in range(depth - 1)
        ]
        self.backward = [
            (self.transposed[i].dot, d[i + 1], d[i], d[i].reshape(-1), s[i, :-1].reshape(-1))
            for i in reversed(range(depth - 1))
        ]
        self.steps = []
        for k in range(chunk):
            g = self.records[k]
            others = g[self.head :].reshape(self.rows, n + 1)
            self.steps.append(
                (
                    self.x[:, k],
                    self.x[:, k].T,
                    self.y[k],
                    g,
                    g[: self.head].reshape(n, features + 1),
                    others,
                    others[:-1].reshape(depth - 1, n, n + 1),
                    others[-1:],
                )
            )

    def gather(self, x: Array, y: Array, rows: Array) -> list[tuple[Array, ...]]:
        """Fill in the batches of a chunk; the views of its steps."""
        k = len(rows)
        x.take(rows, 1, self.x[:, :k], "clip")
        y.take(rows, None, self.y[:k, 0], "clip")
        return self.steps[:k]


def best_exp(work: Training, chunk: int = 25) -> Callable[[], Array]:
    """Sigmoid as exp, add, divide.

    The parameters are negated, so that no sign is to be changed before exp. The last delta is
    α (p - y): then a gradient is what is added to the parameters, without another product. α p is
    1 / (1/α + exp(-h) / α), and the 1/α in front of exp is a constant in the last bias.
    """
    buffers = _Buffers(work, chunk)
    dtype, alpha, n = work.dtype, work.alpha, work.widths[1]
    x = np.vstack([work.x.T, np.ones((1, len(work.x)), dtype)])
    y = (alpha * work.y[:, 0]).astype(dtype)
    first, *others = (-w for w in _with_bias(work, np.float64))
    others[-1][0, -1] -= math.log(alpha)
    start = np.concatenate([first.ravel(), *(w.ravel() for w in others)]).astype(dtype)
    # mean |dL/dW| of every layer is one product of |records| with this
    means = np.zeros((len(start), work.depth + 1))
    begin = 0
    for layer, w in enumerate((first, *others)):
        share = np.zeros_like(w)
        share[:, :-1] = 1 / alpha / share[:, :-1].size
        means[begin : begin + w.size, layer] = share.ravel()
        begin += w.size
    means = means.astype(dtype)

    exp, add, divide, multiply, subtract = np.exp, np.add, np.divide, np.multiply, np.subtract
    matmul, copyto = np.matmul, np.copyto
    one, inverse = np.ones((), dtype), np.array(1 / alpha, dtype)
    p, z, records = buffers.parameters, buffers.output, buffers.records
    transposed, to_transpose = buffers.transposed, buffers.to_transpose
    a, a_flat, s_flat = (
        buffers.activations,
        buffers.activations.reshape(-1),
        buffers.slopes.reshape(-1),
    )
    bottom, bottom_flat = a[0, :-1], a[0, :-1].reshape(-1)
    top, top_transposed, inputs = a[-1], a[-1].T, a[:-1].transpose(0, 2, 1)
    d, d_bottom, d_top = buffers.deltas[1:], buffers.deltas[0], buffers.deltas[-1]
    d_top_flat, s_top = d_top.reshape(-1), buffers.slopes[-1, :-1].reshape(-1)
    forward, backward = buffers.forward, buffers.backward
    first_dot, last_dot, last_back = (
        buffers.first.dot,
        buffers.last.dot,
        buffers.last[:, :n].T.dot,
    )

    def run() -> Array:
        stream = work.stream()
        recorded = np.empty((work.steps, work.depth + 1), dtype)
        copyto(p, start)
        for begin in range(0, work.steps, chunk):
            now = recorded[begin : begin + chunk]
            rows = stream.integers(0, x.shape[1], size=(len(now), work.batch))
            for x_k, x_t, y_k, g, g_first, _, g_hidden, g_last in buffers.gather(x, y, rows):
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

    return run


def best_tanh(work: Training, chunk: int = 50) -> Callable[[], Array]:
    """Sigmoid as tanh: one call in place of three, where tanh is fast.

    sigmoid(h) = (1 + t) / 2 with t = tanh(h / 2). The affine maps around tanh go into the weights:
    with U = [W/4, b/2 + ΣW/4] the next h/2 is U [t; 1], and Wᵀδ σ' is Uᵀδ (1 - t²). The gradient
    of U is linear in G = δ [t; 1]ᵀ, so that the descent is U -= G C with a constant C. The first
    layer's inputs are scaled such that its descent needs no factor at all.
    """
    buffers = _Buffers(work, chunk)
    dtype, alpha, n, depth = work.dtype, work.alpha, work.widths[1], work.depth
    scale = math.sqrt(alpha) / 2
    x = (scale * np.vstack([work.x.T, np.ones((1, len(work.x)))])).astype(dtype)
    y = (2 * work.y[:, 0] - 1).astype(dtype)
    first, *others = _with_bias(work, np.float64)
    others_start = np.concatenate(others)
    others_start[:, :-1] /= 4
    others_start[:, -1] = others_start[:, -1] / 2 + others_start[:, :-1].sum(axis=1)
    start = np.concatenate([(first / 2 / scale).ravel(), others_start.ravel()]).astype(dtype)
    # δ is 1/2 (t - (2 y - 1)); that half, α and the sign are in here
    descent = np.zeros((n + 1, n + 1))
    descent[:n, :n] = np.eye(n) / 8
    descent[:n, n] = descent[n, :n] = 1 / 8
    descent[n, n] = 1 / 2 + n / 8
    descent = (-alpha / 2 * descent).astype(dtype)
    means = np.zeros((buffers.rows * n, depth))
    for layer in range(depth - 1):
        means[n * n * layer : n * n * (layer + 1), layer] = 1 / 4 / n**2
    means[n * n * (depth - 1) :, -1] = 1 / 4 / n
    means = means.astype(dtype)
    size_first = len(work.x[0]) * n
    g_w = np.empty((chunk, buffers.rows, n), dtype)
    all_firsts = buffers.records[:, : buffers.head].reshape(chunk, n, -1)[:, :, :-1]
    all_others = buffers.records[:, buffers.head :].reshape(chunk, buffers.rows, n + 1)

    tanh, add, multiply, subtract = np.tanh, np.add, np.multiply, np.subtract
    matmul, copyto = np.matmul, np.copyto
    p, z, p_first, p_others = buffers.parameters, buffers.output, buffers.first, buffers.others
    transposed, to_transpose = buffers.transposed, buffers.to_transpose
    t, t_flat, s_flat = (
        buffers.activations,
        buffers.activations.reshape(-1),
        buffers.slopes.reshape(-1),
    )
    ones = np.ones_like(t_flat)
    bottom, bottom_flat = t[0, :-1], t[0, :-1].reshape(-1)
    top, top_transposed, inputs = t[-1], t[-1].T, t[:-1].transpose(0, 2, 1)
    d, d_bottom, d_top = buffers.deltas[1:], buffers.deltas[0], buffers.deltas[-1]
    d_top_flat, s_top = d_top.reshape(-1), buffers.slopes[-1, :-1].reshape(-1)
    forward, backward, change = buffers.forward, buffers.backward, np.empty_like(p_others)
    first_dot, last_dot, last_back = (
        buffers.first.dot,
        buffers.last.dot,
        buffers.last[:, :n].T.dot,
    )

    def run() -> Array:
        stream = work.stream()
        recorded = np.empty((work.steps, depth + 1), dtype)
        copyto(p, start)
        for begin in range(0, work.steps, chunk):
            now = recorded[begin : begin + chunk]
            rows = stream.integers(0, x.shape[1], size=(len(now), work.batch))
            for x_k, x_t, y_k, _, g_first, g_others, g_hidden, g_last in buffers.gather(x, y, rows):
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
            k = len(now)
            # dL/dW of (1 + t) / 2 is half the sum of those of t and of 1
            add(all_others[:k, :, :-1], all_others[:k, :, -1:], g_w[:k])
            np.abs(g_w[:k], g_w[:k])
            now[:, 1:] = g_w[:k].reshape(k, -1).dot(means)
            np.divide(np.abs(all_firsts[:k]).sum(axis=(1, 2)), 2 * scale * size_first, now[:, 0])
        return recorded

    return run


# --- wide and deep nets, step by step -------------------------------------------------------------


def steps(work: Training) -> Steps:
    """Everything of one layer right after one another, while it is in the cache.

    Weights are (fan_in + 1, fan_out): large products are slow with transposed rows of odd length.
    For relu or tanh, and a softmax; α is in the last delta.
    """
    dtype, batch, n = work.dtype, work.batch, work.widths[1]
    relu, outputs = work.activation == "relu", work.widths[-1]
    x = np.hstack([work.x, np.ones((len(work.x), 1), dtype)])
    y = (work.alpha * work.y).astype(dtype)
    first, *others = _with_bias(work, dtype)  # the first is not needed backward
    others = [w.T.copy() for w in others]
    last = others[-1]

    a = [np.ones((n + 1, batch), dtype) for _ in others]
    deltas, s = [np.empty((n, batch), dtype) for _ in range(2)], np.empty(n * batch, dtype)
    z, row = np.empty((outputs, batch), dtype), np.empty((1, batch), dtype)
    x_k, y_k = np.empty((batch, x.shape[1]), dtype), np.empty((batch, outputs), dtype)
    g_first, g_hidden, g_last = (np.empty_like(w) for w in (first, others[0], last))
    zeros, ones, alpha = np.zeros_like(s), np.ones_like(s), np.array(work.alpha, dtype)
    mask = np.empty(s.shape, np.bool_)
    forward = [(*_product(first, x_k.T, a[0][:-1]), a[0][:-1].reshape(-1))]
    forward += [
        (*_product(w.T, below, above[:-1]), above[:-1].reshape(-1))
        for w, below, above in zip(others[:-1], a[:-1], a[1:], strict=True)
    ]
    backward = []
    for i in reversed(range(len(others))):
        given = z if i == len(others) - 1 else deltas[(i + 1) % 2]
        out, g = deltas[i % 2], g_last if i == len(others) - 1 else g_hidden
        w, flat = others[i], a[i][:-1].reshape(-1)
        dot = _product(w[:-1], given, out)
        backward.append((*dot, out.reshape(-1), flat, a[i].dot, given.T, g, w))
    first_delta_dot, (last_dot, top, z_out) = deltas[0].dot, _product(last.T, a[-1], z)
    maximum, tanh, multiply, subtract = np.maximum, np.tanh, np.multiply, np.subtract
    greater, copyto = np.greater, np.copyto
    stream = work.stream()

    def run(count: int) -> None:
        for rows in stream.integers(0, len(x), size=(count, batch)):
            x.take(rows, 0, x_k, "clip")
            y.take(rows, 0, y_k, "clip")
            for dot, below, out, flat in forward:
                dot(below, out)
                if relu:
                    maximum(flat, zeros, out=flat)
                else:
                    tanh(flat, flat)
            last_dot(top, z_out)
            z.max(0, row, True)
            subtract(z, row, z)
            np.exp(z, z)
            z.sum(0, None, row, True)
            np.divide(alpha, row, row)
            multiply(z, row, z)
            subtract(z, y_k.T, z)
            for dot, given, out, out_flat, flat, g_dot, given_t, g, w in backward:
                dot(given, out)
                if relu:
                    greater(flat, zeros, mask)
                    copyto(s, mask)
                else:
                    multiply(flat, flat, s)
                    subtract(ones, s, s)
                multiply(out_flat, s, out_flat)
                g_dot(given_t, g)
                subtract(w, g, w)
            first_delta_dot(x_k, g_first)
            subtract(first, g_first, first)

    def parameters() -> list[Array]:
        return [p for w in (first.T, *others) for p in (w[:-1], w[-1:])]

    return Steps(run, parameters)


def _product(a: Array, b: Array, out: Array) -> tuple[Callable[..., Any], Array, Array]:
    """The quickest call for a b, and what to call it with; in parts, where that is quicker."""
    from dp.program.products import in_parts  # only here: a cold start shall not pay for dp

    parts = in_parts(a, b, out)
    return (a.dot, b, out) if parts is None else (partial(np.matmul, a), *parts)


def products(work: Training) -> Steps:
    """The matrix products of a step alone, batch-major: the time that no step can beat."""
    a = _noise([(work.batch, n) for n in work.widths], work.dtype)
    out, w = [np.empty_like(v) for v in a], work.weights
    calls = [(a[i].dot, w[i], out[i + 1]) for i in range(len(w))]
    for i in reversed(range(len(w))):
        calls.append((a[i].T.dot, a[i + 1], np.empty_like(w[i])))
        if i:
            calls.append((a[i + 1].dot, w[i].T, out[i]))
    return Steps(_repeat(calls))


def products_feature_major(work: Training) -> Steps:
    """The same products, feature-major; which of the two is faster depends on the machine."""
    a = _noise([(n, work.batch) for n in work.widths], work.dtype)
    out, w = [np.empty_like(v) for v in a], [v.T.copy() for v in work.weights]
    calls = [(w[i].dot, a[i], out[i + 1]) for i in range(len(w))]
    for i in reversed(range(len(w))):
        calls.append((a[i + 1].dot, a[i].T, np.empty_like(w[i])))
        if i:
            calls.append((w[i].T.dot, a[i + 1], out[i]))
    return Steps(_repeat(calls))


def products_in_parts(work: Training) -> Steps:
    """The same products as programs make them: feature-major, in parts where that is quicker."""
    a = _noise([(n, work.batch) for n in work.widths], work.dtype)
    out, w = [np.empty_like(v) for v in a], work.weights
    calls = [_product(w[i].T, a[i], out[i + 1]) for i in range(len(w))]
    for i in reversed(range(len(w))):
        calls.append((a[i].dot, a[i + 1].T, np.empty_like(w[i])))
        if i:
            calls.append(_product(w[i], a[i + 1], out[i]))
    return Steps(_repeat(calls))


def _noise(shapes: list[tuple[int, int]], dtype: Any) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def _repeat(calls: list[tuple[Callable[..., Any], Array, Array]]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            for dot, other, out in calls:
                dot(other, out)

    return run


# --- many nets, stacked by seed -------------------------------------------------------------------


def stacked(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Every activation function and depth, all seeds in one stack: few and long calls."""
    return lambda: {cell: _stack(training) for cell, training in work.trainings.items()}


def _stack(work: Training) -> Array:
    """Mean |dL/dW|, (seeds, steps, layers)."""
    dtype, batch, depth, n = work.dtype, work.batch, work.depth, work.widths[1]
    x = np.vstack([work.x.T, np.ones((1, len(work.x)), dtype)])
    y = (work.alpha * work.y[:, 0]).astype(dtype)
    rows = work.rows()
    members, steps = rows.shape[:2]
    first, *others = _with_bias(work, dtype)
    negated = work.activation == "sigmoid"  # see best_exp
    p = np.concatenate([w.ravel() for w in (first, *others)])
    if negated:
        np.negative(p, p)
    g = np.empty_like(p)

    def views(flat: Array) -> tuple[Array, Array, Array]:
        head, tail = first.size, members * (n + 1)
        return (
            flat[:head].reshape(first.shape),
            flat[head:-tail].reshape(depth - 1, members, n, n + 1),
            flat[-tail:].reshape(members, 1, n + 1),
        )

    first, hidden, last = views(p)
    g_first, g_hidden, g_last = views(g)
    if negated:
        last[..., -1] -= math.log(work.alpha)
    a = np.ones((depth, members, n + 1, batch), dtype)
    s = np.empty_like(a)
    a_flat, s_flat = a.reshape(-1), s.reshape(-1)
    inside, slopes = a[:, :, :-1], s[:, :, :-1]
    d = np.empty((depth, members, n, batch), dtype)
    z = np.empty((members, 1, batch), dtype)
    h = np.empty((members, n, batch), dtype)
    transposed = np.empty((depth - 1, members, n, n), dtype)
    zeros, mask = np.zeros_like(h), np.empty(a_flat.shape, np.bool_)
    one, zero, inverse = (np.array(v, dtype) for v in (1, 0, 1 / work.alpha))
    inputs, top_t = a[:-1].swapaxes(-1, -2), a[-1].swapaxes(-1, -2)
    last_t = last[..., :-1].swapaxes(-1, -2)
    recorded = np.empty((steps, depth + 1, members), dtype)
    share = []  # |gradient| @ share: the mean over the weights, without the bias
    for fan_out, fan_in in ((n, len(x) - 1), (n, n), (1, n)):
        of = np.full((fan_out, fan_in + 1), 1 / work.alpha / fan_out / fan_in, dtype)
        of[:, -1] = 0
        share.append(of.ravel())

    def phi(out: Array) -> None:
        if work.activation == "sigmoid":
            np.exp(h, h)
            np.add(h, one, h)
            np.divide(one, h, out)
        elif work.activation == "tanh":
            np.tanh(h, out)
        else:
            np.maximum(h, zeros, out=out)

    for k in range(steps):
        x_k = x.take(rows[:, k], 1).transpose(1, 0, 2)
        np.matmul(first, x_k, h)
        phi(inside[0])
        for i in range(depth - 1):
            np.matmul(hidden[i], a[i], h)
            phi(inside[i + 1])
        np.matmul(last, a[-1], z)
        if not negated:
            np.negative(z, z)
        np.exp(z, z)
        if negated:
            np.add(z, inverse, z)
            np.divide(one, z, z)
        else:
            np.add(z, one, z)
            np.divide(work.alpha, z, z)
        np.subtract(z, y.take(rows[:, None, k]), z)
        if work.activation == "relu":
            np.greater(a_flat, zero, mask)
            np.copyto(s_flat, mask)
        else:
            np.multiply(a_flat, a_flat, s_flat)
            np.subtract(*((s_flat, a_flat) if negated else (one, s_flat)), s_flat)
        np.copyto(transposed, hidden[..., :-1].swapaxes(-1, -2))
        np.multiply(last_t, z, d[-1])
        np.multiply(d[-1], slopes[-1], d[-1])
        for i in reversed(range(depth - 1)):
            np.matmul(transposed[i], d[i + 1], d[i])
            np.multiply(d[i], slopes[i], d[i])
        np.matmul(z, top_t, g_last)
        np.matmul(d[1:], inputs, g_hidden)
        np.matmul(d[0], x_k.swapaxes(-1, -2), g_first)
        np.add(p, g, p) if negated else np.subtract(p, g, p)
        np.abs(g, g)
        recorded[k, 0] = g_first.reshape(members, -1) @ share[0]
        recorded[k, 1:-1] = g_hidden.reshape(depth - 1, members, n * (n + 1)) @ share[1]
        recorded[k, -1] = g_last.reshape(members, -1) @ share[2]
    return recorded.transpose(2, 0, 1)


def _with_bias(work: Training, dtype: Any) -> list[Array]:
    """Weights and bias of every layer in one matrix, (…, fan_out, fan_in + 1)."""
    return [
        np.concatenate([w, b], axis=-2).swapaxes(-1, -2).astype(dtype, order="C")
        for w, b in zip(work.weights, work.biases, strict=True)
    ]
