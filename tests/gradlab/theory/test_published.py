"""What the papers found, found again: by the theory, and where they measured, by measuring."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize

from dp.activations import ACTIVATIONS
from dp.initializers import INITIALIZERS
from gradlab.theory import edge_of_chaos, finite_width, kernels, maps, moments, phase
from gradlab.theory.variances import of_layer

TANH, RELU, SELU = (ACTIVATIONS[name] for name in ("tanh", "relu", "selu"))


def drawn(init, fan_in, fan_out, seed=0):
    return INITIALIZERS[init].weight(np.random.default_rng(seed), fan_in, fan_out)


@pytest.mark.parametrize(("init", "value"), [("pytorch", 0.490), ("glorot_uniform", 0.849)])
def test_glorot_and_bengio_2010_mean_singular_value(init, value):
    theory = maps.mean_singular_value(of_layer(init, 1000, 1000).weight)
    assert theory == pytest.approx(value, abs=0.02)
    singular = np.linalg.svd(drawn(init, 400, 400), compute_uv=False)
    assert singular.mean() == pytest.approx(value, abs=0.02)


def test_glorot_and_bengio_2010_flat_gradients_under_falling_deltas():
    """Eq. 13-15, figure 8: the delta's variance falls to a third per layer, that of dW stays."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 100)) * 0.1  # tanh in its linear part
    layer = dataclasses.replace(of_layer("pytorch", 100, 100), bias=0.0)
    net = kernels.of_batch(x, [layer] * 9, TANH)
    error = rng.choice([-0.5, 0.5], (50, 1))
    gradient = np.log(kernels.gradient_mean_square(net, error)[1:-1])
    delta = np.log(kernels.delta_mean_square(net, error, np.ones(50))[1:-1])
    assert np.exp(np.diff(delta)) == pytest.approx(3.0, rel=0.01)
    assert np.diff(gradient) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("init", "value"), [("lecun_normal", 2.0**-15), ("he_normal", 1.0)])
def test_he_2015_thirty_relu_layers(init, value):
    """Activations of the last layer over those of the input, at width 500 and under Xavier, He."""
    variance = of_layer(init, 500, 500).weight
    square = 1.0
    for _ in range(30):
        square = float(moments.mean_square(RELU, variance * square))
    assert math.sqrt(square) == pytest.approx(value, rel=1e-12)
    ratios = []
    for net in range(8):
        rng = np.random.default_rng(net)
        x = rng.normal(size=(20, 500))
        for _ in range(30):
            x = np.maximum(x @ INITIALIZERS[init].weight(rng, 500, 500), 0)
        ratios.append((x**2).mean())
    assert math.sqrt(np.mean(ratios)) == pytest.approx(value, rel=0.25)


@pytest.mark.parametrize(
    ("sigma_w", "length", "chi"),
    [(1.3, 0.6071, 0.9398), (2.5, 4.0791, 1.5852), (4.0, 12.604, 2.3673)],
)
def test_poole_2016(sigma_w, length, chi):
    found = phase(TANH, sigma_w**2, 0.3**2)
    assert found.length == pytest.approx(length, abs=1e-3)
    assert found.chi == pytest.approx(chi, abs=1e-3)


def test_schoenholz_2017_edge_of_chaos():
    edge = edge_of_chaos(TANH, 0.05)
    assert edge.weight_variance == pytest.approx(1.7610, abs=1e-3)
    assert edge.length == pytest.approx(0.5700, abs=1e-3)
    assert edge.stable


@pytest.mark.parametrize(
    ("weight_variance", "depth"),
    [(1, 3.63), (1.3, 7.83), (1.5, 15.8), (2, 25.2), (2.5, 11.8), (3, 9.05), (4, 6.98)],
)
def test_schoenholz_2017_depth_scales(weight_variance, depth):
    assert phase(TANH, weight_variance, 0.05).correlation_depth == pytest.approx(depth, rel=0.01)


@pytest.mark.parametrize(
    ("activation", "init", "per_layer"),
    [
        ("identity", "normal", 1.0),
        ("identity", "orthogonal", 0.0),
        ("relu", "normal", 2.0),
        ("relu", "orthogonal", 1.0),
    ],
)
def test_pennington_2017_spectra(activation, init, per_layer):
    """Variance of the squared singular values of the Jacobian, over their mean squared."""
    layers, width = 10, 400
    phi = ACTIVATIONS[activation]
    theory = maps.spectrum_variance(phi, 1.0, layers, orthogonal=init == "orthogonal")
    assert theory == pytest.approx(per_layer * layers)
    found = []
    for net in range(6):
        rng = np.random.default_rng(net)
        jacobian = np.eye(width)
        for _ in range(layers):
            weight = INITIALIZERS[init].weight(rng, width, width)
            # slopes of relu at pre-activations that are normal
            jacobian = (jacobian @ weight) * phi.derivative(rng.normal(size=width))
        gram = jacobian @ jacobian.T
        found.append(width * (gram**2).sum() / np.trace(gram) ** 2 - 1)
    assert np.mean(found) == pytest.approx(per_layer * layers, rel=0.10, abs=1e-10)


def test_klambauer_2017():
    def off(parameters):
        selu = dataclasses.replace(
            SELU, settings=dict(zip(("alpha", "scale"), map(float, parameters), strict=True))
        )
        return [
            float(moments.mean(selu, 1.0)),
            float(moments.mean_square(selu, 1.0)) - 1.0,
        ]

    alpha, scale = optimize.fsolve(off, [1.5, 1.0], xtol=1e-12)
    assert alpha == pytest.approx(1.67326324, abs=1e-8)
    assert scale == pytest.approx(1.05070099, abs=1e-8)
    assert SELU.settings == pytest.approx({"alpha": alpha, "scale": scale}, abs=1e-8)
    found = phase(SELU, 1.0)
    assert found.length == pytest.approx(1.0, abs=1e-8)
    assert found.chi == pytest.approx(1.0716, abs=1e-4)


@pytest.mark.parametrize(
    ("width", "value"), [(2, 0.925), (3, 0.699), (4, 0.441), (5, 0.249), (10, 0.0088)]
)
def test_lu_2019_born_dead(width, value):
    """Nine hidden relu layers, one input."""
    assert finite_width.born_dead([width] * 9) == pytest.approx(value, abs=6e-4)
    rng = np.random.default_rng(0)
    nets = 20_000
    x = np.ones((nets, 1))
    for _ in range(9):
        weight = rng.normal(size=(nets, x.shape[1], width)) * math.sqrt(2 / x.shape[1])
        x = np.maximum(np.matmul(x[:, None], weight)[:, 0], 0)
    dead = (x == 0).all(axis=1).mean()
    exact = finite_width.born_dead([width] * 9)
    assert abs(dead - exact) < 3 * math.sqrt(exact * (1 - exact) / nets)


def test_lecun_1998():
    lecun = ACTIVATIONS["lecun_tanh"]
    assert float(lecun(np.ones(1))[0]) == pytest.approx(1.0, abs=1e-4)
    assert float(lecun.derivative(np.zeros(1))[0]) == pytest.approx(1.1439, abs=1e-4)
