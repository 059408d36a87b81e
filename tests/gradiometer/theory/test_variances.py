"""σ_w² and σ_b² of every initialiser, against what it draws."""

import numpy as np
import pytest

from dp.initializers import INITIALIZERS
from gradiometer.theory import VARIANCES
from gradiometer.theory.variances import of_layer, weights


def test_every_initialiser_is_there():
    assert list(VARIANCES) == list(INITIALIZERS)


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize(("fan_in", "fan_out"), [(4, 10), (10, 10), (100, 30), (30, 100)])
def test_against_draws(name, fan_in, fan_out):
    rng = np.random.default_rng(0)
    how = INITIALIZERS[name]
    repeats = 20_000 // (fan_in * fan_out) + 20
    weight = np.stack([how.weight(rng, fan_in, fan_out) for _ in range(repeats)])
    bias = np.stack([how.bias(rng, fan_in, fan_out) for _ in range(repeats)])
    layer = of_layer(name, fan_in, fan_out, scale=0.5)
    assert 0.25 * weight.var() * fan_in == pytest.approx(layer.weight, rel=0.05, abs=0)
    assert bias.var() == pytest.approx(layer.bias, rel=0.1, abs=0)
    kurtosis = (weight**4).mean() / max((weight**2).mean() ** 2, 1e-300)
    if layer.law == "uniform":
        assert kurtosis == pytest.approx(1.8, abs=0.1)
    elif layer.law == "normal" and layer.weight:
        assert kurtosis == pytest.approx(3.0, abs=0.2)
    elif layer.law == "orthogonal":
        short = min(fan_in, fan_out)
        w = weight[0] if fan_in >= fan_out else weight[0].T
        assert w.T @ w == pytest.approx(np.eye(short), abs=1e-12)


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize(("fan_in", "fan_out"), [(4, 10), (30, 20)])
def test_virtual_nets_have_the_same_weights(name, fan_in, fan_out):
    """Moments of what virtual nets draw, against what dp's initialisers draw."""
    layer = of_layer(name, fan_in, fan_out, scale=0.5)
    ours = weights(np.random.default_rng(0), 400, layer)
    rng = np.random.default_rng(1)
    theirs = 0.5 * np.stack([INITIALIZERS[name].weight(rng, fan_in, fan_out) for _ in range(400)])
    assert ours.shape == theirs.shape
    for power in (2, 4):
        assert (ours**power).mean() == pytest.approx((theirs**power).mean(), rel=0.06, abs=1e-300)
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.35)
    grams = [np.linalg.svd(drawn, compute_uv=False) for drawn in (ours, theirs)]
    assert grams[0].std() == pytest.approx(grams[1].std(), rel=0.05, abs=1e-9)


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="unknown initialiser 'he'"):
        of_layer("he", 3, 3)
