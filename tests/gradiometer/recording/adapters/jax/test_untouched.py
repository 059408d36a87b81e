"""Watching changes nothing: recorded and unrecorded JAX trainings end in the same bits."""

import functools
import os

import numpy as np
import pytest

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import jax
else:
    jax = pytest.importorskip("jax")

import jax.numpy as jnp

from gradiometer.jax import record, tap, tap_step

pytestmark = [pytest.mark.frameworks, pytest.mark.long]

FUNCTIONS = ["relu", "gelu"]
WAYS = ["grad under jit", "step under jit", "scan", "checkpoint", "vmap over examples"]


def made(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = [(4, 6), (6, 6), (6, 3)]
    return {
        f"h{i}": (jax.random.normal(key, size) / 2, jnp.zeros(size[1]))
        for i, (key, size) in enumerate(zip(keys, sizes, strict=True), 1)
    }


def loss_of(net, x, y, key, phi, way):
    """Of a net with dropout and a scaling of its units."""

    def through(x, key):
        for name, (W, b) in net.items():
            h = tap(x @ W + b, name, activation=phi)
            x = phi(h)
            key, drop = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(drop, 0.9, x.shape), x / 0.9, 0.0)
            x = x / jnp.sqrt(1 + jnp.mean(x**2, axis=-1, keepdims=True))
        return x

    if way == "checkpoint":
        through = jax.checkpoint(through)
    if way == "vmap over examples":
        out = jax.vmap(through)(x, jax.random.split(key, len(x)))
    else:
        out = through(x, key)
    return jnp.mean((out - y) ** 2)


def trained(way, phi):
    derivative = jax.value_and_grad(functools.partial(loss_of, phi=phi, way=way))

    def step(net, key):
        loss, grads = (jax.jit(derivative) if way == "grad under jit" else derivative)(
            net, X, Y, key
        )
        updated = jax.tree.map(lambda p, g: p - 0.1 * g, net, grads)
        tap_step(net, grads, updated, loss=loss)
        return updated, loss

    keys = jax.random.split(jax.random.key(5), 4)
    net = made()
    if way == "scan":
        return jax.jit(lambda net: jax.lax.scan(step, net, keys))(net)
    run = step if way == "grad under jit" else jax.jit(step)
    losses = []
    for key in keys:
        net, loss = run(net, key)
        losses.append(loss)
    return net, jnp.stack(losses)


X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_recorded_and_unrecorded_trainings_end_in_the_same_bits(way, function):
    phi = getattr(jax.nn, function)
    plain = trained(way, phi)
    with record() as recorder:
        watched = trained(way, phi)
    assert recorder.trace.dataset.sizes["step"] == 4
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(watched), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
