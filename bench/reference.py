"""Gradient descent as a student would write it: the numbers that every peer must come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.training import Training

Array = NDArray[Any]

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
