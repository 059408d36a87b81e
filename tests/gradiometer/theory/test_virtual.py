"""Virtual nets, against nets of dp; and infinitely wide ones, against wide virtual ones."""

import math

import numpy as np
import pytest

from dp.activations import ACTIVATIONS
from dp.layers import watch_layers
from gradiometer.data import Data, load
from gradiometer.experiment import Experiment
from gradiometer.theory import batches, infinite_width, kernels, variances, virtual
from gradiometer.theory.batches import Batches, Loss

MEAN = Loss("cross_entropy", "mean")


def parts(**settings):
    """Batches, layers and activation of an experiment."""
    experiment = Experiment.of(reduction="mean", **settings)
    data = experiment.load_data()
    layers = variances.of_net(experiment, data.n_features, data.n_outputs)
    rows = batches.of_data(data, experiment.batch_size, selection=False)
    return rows, layers, ACTIVATIONS[experiment.activation]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("data", ["iris2", "iris"])
def test_with_the_same_weights_dp_finds_the_same(activation, data):
    experiment = Experiment.of(
        activation=activation, data=data, layers=3, width=5, members=2, loss="squared_error"
    )
    given = experiment.load_data()
    x, y = given.x[::9], given.y[::9]
    net = experiment.net(given)
    with watch_layers() as watch:
        grads, _ = net.get_grad(x, y)
    weights = [net.get_param()[f"{name}_weight"] for name in net.layers]
    biases = [net.get_param()[f"{name}_bias"] for name in net.layers]
    inputs, slopes = virtual._forward(x[None], weights, biases, ACTIVATIONS[activation])
    error = batches.errors(inputs.pop(), y[None], "squared_error", "sum", len(x))
    gradient, delta = virtual._backward(
        inputs, slopes, weights, error, np.ones((2, len(x))), np.float64
    )
    for i, (name, call) in enumerate(zip(net.layers, watch.calls, strict=True)):
        expected = np.log10(np.abs(grads[f"{name}_weight"]).mean((1, 2)))
        assert gradient[:, i] == pytest.approx(expected, abs=1e-9)
        expected = 0.5 * np.log10((call.delta**2).mean((1, 2)))
        assert delta[:, i] == pytest.approx(expected, abs=1e-9)


def test_rows_that_occur_several_times_count_so_often():
    """A small data set is not copied row by row, but counted."""
    x, y = np.array([[0.5, -1.0], [2.0, 0.1]]), np.array([[0.0], [1.0]])
    _, layers, activation = parts(layers=2, width=4, activation="tanh", data="moons")
    drawn = [variances.weights(np.random.default_rng(0), 1, layer) for layer in layers]
    found = []
    for rows, often in (([0, 1], [[3.0, 1.0]]), ([0, 0, 1, 0], [[1.0, 1.0, 1.0, 1.0]])):
        inputs, slopes = virtual._forward(x[rows][None], drawn, [None] * 3, activation)
        error = batches.errors(inputs.pop(), y[rows][None], "cross_entropy", "mean", 4)
        found.append(virtual._backward(inputs, slopes, drawn, error, np.array(often), np.float64))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-12)


def test_batches_of_a_large_data_set_are_drawn_from_all_of_it():
    data = load("digits")
    rows = batches.of_data(data, 16, selection=False)
    x, y, often = rows.draw(np.random.default_rng(0), 500)
    assert (x.shape, y.shape, often.shape) == ((500, 16, 64), (500, 16, 10), (500, 16))
    assert rows.rows == 16
    assert len(np.unique(x.reshape(-1, 64), axis=0)) > 1700


def test_the_same_seed_gives_the_same_nets():
    rows, layers, activation = parts(layers=2, width=6)
    first, again = (virtual.draw(rows, layers, activation, MEAN, 20, seed=4) for _ in range(2))
    other = virtual.draw(rows, layers, activation, MEAN, 20, seed=5)
    assert (first.gradient == again.gradient).all()
    assert (first.gradient != other.gradient).all()
    together = virtual.both(first, other)
    assert together.gradient.shape == (40, 3)
    assert together.output_mean_square == pytest.approx(
        (first.output_mean_square + other.output_mean_square) / 2
    )


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_single_precision_does(activation):
    rows, layers, phi = parts(layers=4, width=50, activation=activation, init="glorot_normal")
    kinds = [virtual.draw(rows, layers, phi, MEAN, 300, single=s) for s in (False, True)]
    for name in ("gradient", "delta"):
        double, single = (np.quantile(getattr(k, name), [0.25, 0.5, 0.75], axis=0) for k in kinds)
        assert single == pytest.approx(double, abs=0.12)


def test_what_is_smaller_than_any_double_is_still_told():
    rows, layers, activation = parts(layers=700, width=3, init="pytorch")
    found = virtual.draw(rows, layers, activation, MEAN, 10)
    assert np.isfinite(found.gradient[:, 0]).all()
    assert (found.delta[:, 0] < -400).all()


# --- infinite width -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "tanh", "init": "glorot_normal"},
        {"activation": "relu", "init": "he_normal"},
        {"activation": "sigmoid", "init": "pytorch", "data": "iris"},
        {"activation": "elu", "init": "lecun_normal", "loss": "squared_error", "batch_size": 5},
    ],
    ids=str,
)
def test_infinite_width_is_the_limit_of_wide_nets(settings):
    rows, layers, activation = parts(layers=2, width=400, **settings)
    loss = Loss(settings.get("loss", "cross_entropy"), "mean")
    found = virtual.draw(rows, layers, activation, loss, 300, single=True)
    wide = infinite_width.draw(kernels.of_batch(rows.x, layers, activation), activation, rows, loss)
    for name in ("gradient", "delta"):
        ours, drawn = getattr(wide, name), getattr(found, name)
        # medians of 300 nets are known to about 0.03
        assert np.median(ours, axis=0) == pytest.approx(np.median(drawn, axis=0), abs=0.09)
        assert ours.std(axis=0) == pytest.approx(drawn.std(axis=0), abs=0.08)


def test_mean_over_rms_of_a_linear_net_is_2_over_pi():
    """Of one sample dL/dW is a product of two normal numbers: E|uv| = 2/π."""
    data = Data.from_arrays(np.random.default_rng(0).normal(size=(2, 400)), [0, 1])
    rows = Batches(data.x[:1], data.y[:1], 1, True)
    experiment = Experiment.of(activation="identity", layers=3, width=50, init="he_normal")
    layers = variances.of_net(experiment, 400, 1)
    identity = ACTIVATIONS["identity"]
    found = infinite_width.draw(kernels.of_batch(rows.x, layers, identity), identity, rows, MEAN)
    ratio = 10 ** (found.gradient - found.gradient_rms)[0]
    assert ratio[1:3] == pytest.approx(2 / math.pi, rel=0.1)
    # the output layer's delta is one number
    assert ratio[3] == pytest.approx(math.sqrt(2 / math.pi), rel=0.1)
