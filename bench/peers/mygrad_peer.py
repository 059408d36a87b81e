"""MyGrad, with and without its memory guard (which locks the arrays that a graph holds)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mygrad as mg
import numpy as np
from mygrad.nnet.activations import relu, sigmoid, tanh
from numpy.typing import NDArray

from bench.training import Steps, Training

Array = NDArray[Any]

PHI: dict[str, Callable[[Any], Any]] = {"sigmoid": sigmoid, "tanh": tanh, "relu": relu}


class _Trained:
    def __init__(self, work: Training) -> None:
        self.work = work
        self.phi = PHI[work.activation]
        self.labels = work.y.argmax(axis=1)
        self.restart()

    def restart(self) -> None:
        """From the initial weights."""
        work = self.work
        pairs = zip(work.weights, work.biases, strict=True)
        self.parameters = [(mg.tensor(w.copy()), mg.tensor(b.copy())) for w, b in pairs]
        self.stream = work.stream()

    def step(self) -> list[Array]:
        """Train one step; the gradients of the weights."""
        work = self.work
        rows = self.stream.integers(0, len(work.x), size=(work.batch,))
        a: Any = work.x[rows]
        for w, b in self.parameters[:-1]:
            a = self.phi(mg.matmul(a, w) + b)
        w, b = self.parameters[-1]
        logits = mg.matmul(a, w) + b
        if work.y.shape[1] == 1:
            loss = (mg.logaddexp(0, logits) - logits * work.y[rows]).sum()
        else:  # the mean over the batch is what MyGrad has
            loss = mg.nnet.losses.softmax_crossentropy(logits, self.labels[rows]) * work.batch
        loss.backward()
        gradients = [w.grad for w, _ in self.parameters]
        for pair in self.parameters:
            for p in pair:
                p.data -= work.alpha * p.grad
        return gradients


def guarded_lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net, the guard on."""
    mg.turn_memory_guarding_on()
    model = _Trained(work)

    def run() -> Array:
        model.restart()
        return np.array([[np.abs(g).mean() for g in model.step()] for _ in range(work.steps)])

    return run


def lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net, the guard off."""
    run = guarded_lesson(work)
    mg.turn_memory_guarding_off()
    return run


def guarded_steps(work: Training) -> Steps:
    """Training that goes on and on, the guard on."""
    mg.turn_memory_guarding_on()
    model = _Trained(work)

    def run(count: int) -> None:
        for _ in range(count):
            model.step()

    return Steps(run, lambda: [p.data for pair in model.parameters for p in pair])


def steps(work: Training) -> Steps:
    """Training that goes on and on, the guard off."""
    prepared = guarded_steps(work)
    mg.turn_memory_guarding_off()
    return prepared


def guarded_chain(size: int, dtype: str) -> Callable[[], Array]:
    """A chain of operations on 4 × 4, forward and backward, the guard on."""
    mg.turn_memory_guarding_on()
    first = np.full((4, 4), 0.5, dtype)

    def run() -> Array:
        y = x = mg.tensor(first)
        for _ in range(size // 2):
            y = y * 0.999 + 0.001
        y.sum().backward()
        gradient: Array = x.grad
        return gradient

    return run


def chain(size: int, dtype: str) -> Callable[[], Array]:
    """The same, the guard off."""
    run = guarded_chain(size, dtype)
    mg.turn_memory_guarding_off()
    return run
