"""Facts of the papers that are no single number, found again by the theory.

The papers' numbers stand in `gradiometer.claims.papers`, for `gradiometer prove --papers`, and are
tested with the claims.
"""

import math

import pytest

from dp.activations import ACTIVATIONS
from gradiometer.claims import simulations
from gradiometer.theory import edge_of_chaos, maps, moments
from gradiometer.theory.variances import of_layer

TANH, RELU, SELU = (ACTIVATIONS[name] for name in ("tanh", "relu", "selu"))


def test_glorot_and_bengio_2010_flat_gradients_under_falling_deltas():
    """Eq. 13-15, figure 8: the delta's variance falls to a third per layer, that of dW stays."""
    delta, gradient = simulations.glorot_factors()
    assert delta == pytest.approx(1 / 3, rel=0.01)
    assert math.log(gradient) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("init", "value"), [("lecun_normal", 2.0**-15), ("he_normal", 1.0)])
def test_he_2015_thirty_relu_layers_by_theory(init, value):
    variance = of_layer(init, 500, 500).weight
    square = 1.0
    for _ in range(30):
        square = float(moments.mean_square(RELU, variance * square))
    assert math.sqrt(square) == pytest.approx(value, rel=1e-12)


def test_schoenholz_2017_edge_is_stable():
    assert edge_of_chaos(TANH, 0.05).stable


@pytest.mark.parametrize(
    ("activation", "init", "per_layer"),
    [
        ("identity", "normal", 1.0),
        ("identity", "orthogonal", 0.0),
        ("relu", "normal", 2.0),
        ("relu", "orthogonal", 1.0),
    ],
)
def test_pennington_2017_by_theory(activation, init, per_layer):
    phi = ACTIVATIONS[activation]
    theory = maps.spectrum_variance(phi, 1.0, 10, orthogonal=init == "orthogonal")
    assert theory == pytest.approx(per_layer * 10)


def test_klambauer_2017_constants_are_those_of_the_table():
    alpha, scale = simulations.selu_constants()
    assert SELU.settings == pytest.approx({"alpha": alpha, "scale": scale}, abs=1e-8)
    assert maps.phase(SELU, 1.0).length == pytest.approx(1.0, abs=1e-8)
