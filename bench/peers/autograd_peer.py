"""HIPS autograd, as usually written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad
from numpy.typing import NDArray

from bench.training import Steps, Training

Array = NDArray[Any]

PHI: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda h: 1 / (1 + anp.exp(-h)),
    "tanh": anp.tanh,
    "relu": lambda h: anp.maximum(h, 0),
}


class _Trained:
    def __init__(self, work: Training) -> None:
        self.work = work
        phi = PHI[work.activation]

        def loss(parameters: list[list[Array]], x: Array, y: Array) -> Any:
            for w, b in parameters[:-1]:
                x = phi(anp.dot(x, w) + b)
            w, b = parameters[-1]
            logits = anp.dot(x, w) + b
            if y.shape[-1] == 1:
                return anp.sum(anp.logaddexp(0, logits) - logits * y)
            top = logits - anp.max(logits, axis=1, keepdims=True)
            return -anp.sum(y * (top - anp.log(anp.sum(anp.exp(top), axis=1, keepdims=True))))

        self.gradient = grad(loss)
        self.restart()

    def restart(self) -> None:
        """From the initial weights."""
        work = self.work
        pairs = zip(work.weights, work.biases, strict=True)
        self.parameters = [[w.copy(), b.copy()] for w, b in pairs]
        self.stream = work.stream()

    def step(self) -> list[Array]:
        """Train one step; the gradients of the weights."""
        work = self.work
        rows = self.stream.integers(0, len(work.x), size=(work.batch,))
        gradients = self.gradient(self.parameters, work.x[rows], work.y[rows])
        for (w, b), (dw, db) in zip(self.parameters, gradients, strict=True):
            w -= work.alpha * dw
            b -= work.alpha * db
        return [dw for dw, _ in gradients]


def lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net."""
    model = _Trained(work)

    def run() -> Array:
        model.restart()
        return np.array([[np.abs(g).mean() for g in model.step()] for _ in range(work.steps)])

    return run


def steps(work: Training) -> Steps:
    """Training that goes on and on."""
    model = _Trained(work)

    def run(count: int) -> None:
        for _ in range(count):
            model.step()

    return Steps(run, lambda: [p for pair in model.parameters for p in pair])


def chain(size: int, dtype: str) -> Callable[[], Array]:
    """A chain of operations on 4 × 4, forward and backward."""

    def total(x: Any) -> Any:
        for _ in range(size // 2):
            x = x * 0.999 + 0.001
        return anp.sum(x)

    gradient, x = grad(total), np.full((4, 4), 0.5, dtype)
    return lambda: gradient(x)
