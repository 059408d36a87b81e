"""JAX: a step under `jit`; the whole loop in `lax.scan`; and that tuned by hand.

Tuned by hand: feature-major, the backward pass written out, no loss. Drawing the batches' rows is
NumPy's part in every run, since all peers draw the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from bench.training import Steps, Sweep, Training

jax.config.update("jax_enable_x64", True)

Array = NDArray[Any]
Parameters = list[tuple[jax.Array, jax.Array]]

PHI: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
}


def _loss(parameters: Parameters, x: jax.Array, y: jax.Array, activation: str) -> jax.Array:
    *hidden, (w, b) = parameters
    for v, c in hidden:
        x = PHI[activation](x @ v + c)
    logits = x @ w + b
    if y.shape[-1] == 1:
        return jnp.sum(jax.nn.softplus(logits) - logits * y)
    return -jnp.sum(y * jax.nn.log_softmax(logits))


def _step(
    parameters: Parameters, rows: jax.Array, x: jax.Array, y: jax.Array, alpha: float, phi: str
) -> tuple[Parameters, jax.Array]:
    gradients = jax.grad(_loss)(parameters, x[rows], y[rows], phi)
    means = jnp.stack([jnp.abs(dw).mean() for dw, _ in gradients])
    return jax.tree.map(lambda p, g: p - alpha * g, parameters, gradients), means


def _on_device(work: Training) -> tuple[Parameters, jax.Array, jax.Array]:
    pairs = zip(work.weights, work.biases, strict=True)
    return (
        [(jnp.asarray(w), jnp.asarray(b)) for w, b in pairs],
        jnp.asarray(work.x),
        jnp.asarray(work.y),
    )


def lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net, a jitted step."""
    first, x, y = _on_device(work)
    step = jax.jit(partial(_step, x=x, y=y, alpha=work.alpha, phi=work.activation))

    def run() -> Array:
        stream = work.stream()
        parameters, recorded = first, []
        for _ in range(work.steps):
            rows = stream.integers(0, len(work.x), size=(work.batch,))
            parameters, means = step(parameters, rows)
            recorded.append(means)
        return np.array(recorded)

    return run


def steps(work: Training) -> Steps:
    """Training that goes on and on, a jitted step that gives its parameters away."""
    parameters, x, y = _on_device(work)

    @partial(jax.jit, donate_argnums=0)
    def step(parameters: Parameters, rows: jax.Array) -> Parameters:
        return _step(parameters, rows, x, y, work.alpha, work.activation)[0]

    stream = work.stream()

    def run(count: int) -> None:
        nonlocal parameters
        for _ in range(count):
            parameters = step(parameters, stream.integers(0, len(work.x), size=(work.batch,)))
        jax.block_until_ready(parameters)

    return Steps(run, lambda: [np.array(p) for pair in parameters for p in pair])


def scan(work: Training) -> Callable[[], Array]:
    """The lesson's net, the loop in one scan."""
    first, x, y = _on_device(work)
    step = partial(_step, x=x, y=y, alpha=work.alpha, phi=work.activation)
    train = jax.jit(lambda rows: lax.scan(step, first, rows)[1])
    return lambda: np.asarray(train(work.rows()))


def vmap_scan(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Every activation function and depth, all seeds mapped by vmap; compiled in the first run."""

    def train(
        parameters: Parameters, rows: jax.Array, x: jax.Array, y: jax.Array, alpha: float, phi: str
    ) -> jax.Array:
        return lax.scan(partial(_step, x=x, y=y, alpha=alpha, phi=phi), parameters, rows)[1]

    compiled: dict[tuple[str, int], Callable[..., jax.Array]] = {}

    def run() -> dict[tuple[str, int], Array]:
        found = {}
        for cell, training in work.trainings.items():
            first, x, y = _on_device(training)
            if cell not in compiled:
                phi, alpha = training.activation, training.alpha
                compiled[cell] = jax.jit(jax.vmap(partial(train, x=x, y=y, alpha=alpha, phi=phi)))
            found[cell] = np.asarray(compiled[cell](first, training.rows()))
        return found

    return run


def tuned(work: Training) -> Callable[[], Array]:
    """The lesson's net, feature-major in one scan, with the backward pass written out."""
    x = jnp.asarray(work.x.T)
    y = jnp.asarray(work.y.T)
    alpha = work.alpha
    first = [
        (jnp.asarray(w.T.copy()), jnp.asarray(b.T.copy()))
        for w, b in zip(work.weights, work.biases, strict=True)
    ]

    def step(parameters: Parameters, rows: jax.Array) -> tuple[Parameters, jax.Array]:
        a = [x[:, rows]]
        for w, b in parameters:
            a.append(1 / (1 + jnp.exp(-(w @ a[-1] + b))))
        delta = a.pop() - y[:, rows]
        after, means = [], []
        for layer in reversed(range(len(parameters))):
            w, b = parameters[layer]
            dw = lax.dot_general(delta, a[layer], (((1,), (1,)), ((), ())))
            after.append((w - alpha * dw, b - alpha * delta.sum(1, keepdims=True)))
            means.append(jnp.abs(dw).mean())
            if layer:
                delta = lax.dot_general(w, delta, (((0,), (0,)), ((), ())))
                delta *= a[layer] * (1 - a[layer])
        return after[::-1], jnp.stack(means[::-1])

    train = jax.jit(lambda rows: lax.scan(step, first, rows)[1])
    return lambda: np.asarray(train(work.rows()))
