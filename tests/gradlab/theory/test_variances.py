"""σ_w² and σ_b² of every initialiser, against what it draws."""

import numpy as np
import pytest

from dp.initializers import INITIALIZERS
from gradlab.theory import VARIANCES
from gradlab.theory.variances import of_layer


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


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="unknown initialiser 'he'"):
        of_layer("he", 3, 3)
