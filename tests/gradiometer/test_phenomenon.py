"""What the project exists to show: gradients vanish with sigmoid, not with tanh and relu."""

import numpy as np
import pytest

from gradiometer.experiment import Experiment
from gradiometer.summary import decades_lost, sentence


def _run(activation):
    return Experiment.of(activation=activation, members=20).run()


def test_ten_sigmoid_layers_do_not_learn():
    trace = _run("sigmoid")
    assert np.median(trace["accuracy"].values[-1]) == 0.5
    assert 4.5 <= decades_lost(trace) <= 5.8
    assert "does not reach the first layer" in sentence(trace)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_ten_tanh_or_relu_layers_learn(activation):
    trace = _run(activation)
    assert (trace["accuracy"].values[-1] >= 0.99).sum() >= 19
    assert "reaches the first layer" in sentence(trace)


def test_an_ensemble_is_its_members():
    together = Experiment.of(members=3, layers=3, steps=20, activation="tanh").run()
    for seed in range(3):
        alone = Experiment.of(seed=seed, layers=3, steps=20, activation="tanh").run()
        for name in ("grad_mean_abs", "delta_rms", "update_ratio", "loss", "accuracy"):
            np.testing.assert_allclose(
                together[name].values[..., seed], alone[name].values, rtol=1e-10, atol=1e-14
            )


def test_divergence_is_recorded_and_named():
    trace = Experiment.of(activation="relu", learning_rate=1e6, steps=10).run()
    assert "diverged" in sentence(trace)
    assert trace["nonfinite_count"].values.sum() > 0
