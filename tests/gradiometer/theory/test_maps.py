"""Fixed points, depth scales and edges of chaos; the papers' figures stand in test_published."""

import math

import numpy as np
import pytest

from dp.activations import ACTIVATIONS
from gradiometer.theory import edge_of_chaos, maps, moments, phase

TANH, RELU = ACTIVATIONS["tanh"], ACTIVATIONS["relu"]
every = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda a: a.name)


@every
@pytest.mark.parametrize("weight_variance", [1 / 3, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("bias_variance", [0.0, 0.05])
def test_lengths_and_correlations_stay_at_their_fixed_points(
    activation, weight_variance, bias_variance
):
    found = phase(activation, weight_variance, bias_variance)
    assert found.chi >= 0
    if not 0 < found.length < math.inf:
        assert math.isnan(found.correlation)
        return
    mapped = maps.length_map(activation, found.length, weight_variance, bias_variance)
    assert float(mapped) == pytest.approx(found.length, rel=1e-9)
    if abs(found.chi - 1) < 1e-4:
        return  # all but standing still: iteration would take for ever
    # it is where iteration from 1 goes, not just any fixed point
    q = 1.0
    for _ in range(200):
        q = float(maps.length_map(activation, q, weight_variance, bias_variance))
    assert abs(math.log(q / found.length)) < 0.1
    again = maps.correlation_map(
        activation, found.correlation, found.length, weight_variance, bias_variance
    )
    assert again == pytest.approx(found.correlation, abs=1e-7)


@every
@pytest.mark.parametrize("bias_variance", [0.0, 1 / 30, 0.05])
def test_at_the_edge_chi_is_1_and_the_length_stays(activation, bias_variance):
    edge = edge_of_chaos(activation, bias_variance)
    if edge is None:
        # softplus has a slope below 1 and a mean that grows: lengths outrun χ₁
        assert activation.name == "softplus"
        return
    at = 1.0 if math.isnan(edge.length) else max(edge.length, 1e-10)
    assert maps.slope(activation, at, edge.weight_variance) == pytest.approx(1, abs=1e-6)
    if edge.length > 0:
        mapped = maps.length_map(activation, edge.length, edge.weight_variance, bias_variance)
        assert float(mapped) == pytest.approx(edge.length, rel=1e-6)
    if edge.stable and edge.length > 0:
        found = phase(activation, edge.weight_variance, bias_variance)
        assert found.name == "edge of chaos"
        assert found.length == pytest.approx(edge.length, rel=1e-3)


def test_the_correlation_depth_is_that_of_iteration():
    for weight_variance in (1.3, 2.5):
        found = phase(TANH, weight_variance, 0.05)
        c = found.correlation + (-0.01 if found.correlation == 1 else 0.01)
        away = []
        for _ in range(3):
            away.append(abs(c - found.correlation))
            c = maps.correlation_map(TANH, c, found.length, weight_variance, 0.05)
        assert math.log(away[1] / away[2]) == pytest.approx(1 / found.correlation_depth, rel=0.03)


def test_names_and_trainable_depth():
    assert [phase(TANH, w, 0.05).name for w in (1.0, 1.76095, 3.0)] == [
        "ordered",
        "edge of chaos",
        "chaotic",
    ]
    found = phase(TANH, 1.5, 0.05)
    assert found.trainable_depth == pytest.approx(6 * 15.8, rel=0.01)
    assert phase(RELU, 2.0).trainable_depth == math.inf


def test_limits():
    # zero weights: everything is the bias; without it, nothing
    assert phase(TANH, 0.0, 0.3).length == pytest.approx(0.3)
    nothing = phase(TANH, 0.0)
    assert (nothing.length, nothing.chi, nothing.correlation_depth) == (0, 0, 0)
    # relu is half of every direction, also where its signal fades, or grows for ever
    assert phase(RELU, 1.0).chi == pytest.approx(0.5)
    assert (phase(RELU, 3.0).length, phase(RELU, 3.0).chi) == (math.inf, 1.5)
    assert phase(RELU, 2.0).length == 1
    # the edge of a homogeneous function is there at every length, and is not stable with biases
    assert edge_of_chaos(RELU).stable
    edge = edge_of_chaos(RELU, 0.1)
    assert (edge.weight_variance, edge.stable) == (2.0, False)
    assert math.isnan(edge.length)


def test_spectra_of_linear_nets():
    identity = ACTIVATIONS["identity"]
    assert maps.spectrum_variance(identity, 1.0, 7) == pytest.approx(7)
    assert maps.spectrum_variance(identity, 1.0, 7, orthogonal=True) == pytest.approx(0)


def test_wrong_variances_are_refused():
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="σ_w² must be a finite number, not below 0"):
            phase(TANH, wrong)
        with pytest.raises(ValueError, match="σ_b² must be"):
            edge_of_chaos(TANH, wrong)


def test_moments_and_maps_agree_on_the_diagonal():
    q = 2.0
    assert maps.correlation_map(TANH, 1.0, q, 3.0, 0.1) * q == pytest.approx(
        float(maps.length_map(TANH, q, 3.0, 0.1))
    )
    assert np.ndim(moments.mean_square(TANH, q)) == 0
