"""The exact bound on the delta, in ten thousand random nets."""

import numpy as np
import pytest

import dp
from dp.activations import ACTIVATIONS, SOFTMAX
from gradiometer.theory import bounds


def test_it_is_never_violated():
    rng = np.random.default_rng(0)
    nets = tight = 0
    for trial in range(50):
        activation = list(ACTIVATIONS)[trial % len(ACTIVATIONS)]
        features, width, layers, outputs = rng.integers([1, 1, 1, 1], [5, 7, 6, 4])
        net = dp.Net(
            int(features),
            int(width),
            int(layers),
            activation,
            n_outputs=int(outputs),
            init=str(rng.choice(["dp", "pytorch", "normal", "orthogonal"])),
            init_scale=float(10 ** rng.uniform(-1, 1)),
            loss=str(rng.choice(["cross_entropy", "squared_error"])),
            reduction=str(rng.choice(["sum", "mean"])),
            seed=range(200 * trial, 200 * (trial + 1)),
        )
        x = rng.normal(size=(7, features)) * 10 ** rng.uniform(-1, 1)
        labels = rng.integers(0, max(outputs, 2), 7)
        y = labels[:, None] if outputs == 1 else np.eye(outputs)[labels]
        found = bounds(net, x, y)
        assert found.factor.shape == found.ratio.shape == (layers, 200)
        assert np.isfinite(found.ratio).all()
        assert not found.violated.any()
        nets += 200
        tight += (found.ratio > 0.9 * found.factor).any(axis=0).sum()
    assert nets == 10_000
    assert tight > 100  # it is not so far above that it could not be violated


def test_the_factor_of_a_sigmoid_is_a_quarter():
    net = dp.Net(2, 3, 2, "sigmoid", seed=0)
    x, y = np.array([[1.0, 2.0]]), np.array([[1.0]])
    found = bounds(net, x, y)
    param = net.get_param()
    assert found.factor.shape == (2,)
    for i, name in enumerate(("h2", "out")):
        norm = np.linalg.norm(param[f"{name}_weight"], 2)
        assert found.factor[i] == pytest.approx(0.25 * norm)


def test_a_violation_would_be_seen():
    wrong = bounds(dp.Net(2, 3, 2, "tanh", seed=0), np.ones((1, 2)), np.ones((1, 1)))
    object.__setattr__(wrong, "factor", wrong.ratio / 1.01)
    assert wrong.violated.all()


def test_deltas_of_zero():
    net = dp.Net(2, 3, 2, "relu", init="zeros", seed=0)
    found = bounds(net, np.ones((1, 2)), np.ones((1, 1)))
    assert not found.ratio.any()
    assert not found.violated.any()


def test_nets_without_a_bound_are_refused():
    x, y = np.ones((2, 2)), np.ones((2, 1))
    with pytest.raises(TypeError, match=r"use an activation function of dp\.activations"):
        bounds(dp.Net(2, 3, 1, lambda h: h.tanh(), seed=0), x, y)
    with pytest.raises(ValueError, match="normalisation='layer'"):
        bounds(dp.Net(2, 3, 1, "tanh", normalisation="layer", seed=0), x, y)
    with pytest.raises(ValueError, match="residual=True"):
        bounds(dp.Net(2, 3, 1, "tanh", residual=True, seed=0), x, y)
    with pytest.raises(ValueError, match="float64, got float32"):
        bounds(dp.Net(2, 3, 1, "tanh", dtype=np.float32, seed=0), x, y)
    assert SOFTMAX.name not in ACTIVATIONS
