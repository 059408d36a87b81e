"""The laws of finite width, against nets drawn."""

import math

import numpy as np
import pytest

from dp.activations import ACTIVATIONS
from gradiometer.data import Data, load
from gradiometer.experiment import Experiment
from gradiometer.theory import batches, finite_width, predict
from gradiometer.theory.variances import LayerVariances

RELU = ACTIVATIONS["relu"]


def log_gains(activation, sigma_w, width, depth, nets, q=1.0):
    """ln ‖J u‖² of drawn nets of one input, over its mean; pre-activations of a fixed variance."""
    rng = np.random.default_rng(1)
    v = np.zeros((nets, width))
    v[:, 0] = 1.0
    total = np.zeros(nets)
    for _ in range(depth):
        weight = rng.normal(size=(nets, width, width)) * sigma_w / math.sqrt(width)
        slope = activation.derivative(rng.normal(size=(nets, width)) * math.sqrt(q))
        v = slope * np.matmul(weight, v[..., None])[..., 0]
        size = (v**2).sum(axis=1)
        with np.errstate(divide="ignore"):
            total += np.log(size)
        v /= np.sqrt(np.where(size > 0, size, 1))[:, None]
    return total


def test_relu_gains_of_one_input_are_a_product_of_chi_squares():
    exact = finite_width.relu_log_gains(10, 10, 20_000, np.random.default_rng(0))
    drawn = log_gains(RELU, math.sqrt(2), 10, 10, 5_000)
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    ours, theirs = (np.quantile(g[np.isfinite(g)], quantiles) for g in (exact, drawn))
    assert ours == pytest.approx(theirs, abs=0.25)
    assert np.exp(exact).mean() == pytest.approx(1, abs=0.3)
    # and close to the log-normal law where the net is wide
    wide = finite_width.relu_log_gains(200, 20, 20_000, np.random.default_rng(0))
    beta = finite_width.log_gain_variance(RELU, [1.0] * 20, 200)
    assert beta == pytest.approx(5 * 20 / 200)
    assert wide.var() == pytest.approx(beta, rel=0.05)
    assert wide.mean() == pytest.approx(-beta / 2, rel=0.05)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "identity"])
def test_variance_of_gains_of_other_activations(name):
    activation = ACTIVATIONS[name]
    beta = finite_width.log_gain_variance(activation, [1.0] * 8, 60)
    drawn = log_gains(activation, 1.0, 60, 8, 2_000)
    assert drawn.var() == pytest.approx(beta, rel=0.10)


def test_a_layer_of_one_relu_is_off_every_other_time():
    gains = finite_width.relu_log_gains(1, 1, 4_000, np.random.default_rng(0))
    assert np.isneginf(gains).mean() == pytest.approx(0.5, abs=0.03)
    assert finite_width.born_dead([1]) == 0.5
    assert finite_width.born_dead([]) == 0.0


# --- narrower nets that stand in for wider ones ---------------------------------------------------


def test_a_wider_net_lies_between_a_narrow_one_and_infinite_width():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(1.0, 0.2, (3000, 2)), rng.normal(0.4, 0.5, (4000, 2))
    same = finite_width._widened(narrow, wide, 1.0)
    assert same == pytest.approx(narrow, abs=1e-12)
    far = finite_width._widened(narrow, wide, 1e-9)
    assert np.quantile(far, [0.1, 0.5, 0.9], axis=0) == pytest.approx(
        np.quantile(wide, [0.1, 0.5, 0.9], axis=0), abs=1e-3
    )
    between = finite_width._widened(narrow, wide, 0.25)
    assert np.median(between, axis=0) == pytest.approx(1.0 - 0.25 * 0.6, abs=0.02)
    # variances: a quarter of the difference between them
    assert between.std(axis=0) == pytest.approx(math.sqrt(0.04 + 0.25 * (0.25 - 0.04)), rel=0.04)
    assert (between.argsort(axis=0) == narrow.argsort(axis=0)).all()
    # what is exactly zero cannot be moved
    narrow[:50] = -np.inf
    assert (finite_width._widened(narrow, wide, 0.5) == narrow).all()


def test_narrower_nets_do_for_wide_ones(monkeypatch):
    """Width 100, from nets of 40, against nets of 100."""
    experiment = Experiment.of(activation="relu", layers=4, width=100)
    direct = predict(experiment)
    assert direct.simulated_width == 100
    monkeypatch.setattr(finite_width, "plan", lambda *_: (40, 1000))
    moved = predict(experiment)
    assert moved.simulated_width == 40
    for name in ("gradient", "delta"):
        apart = np.log10(getattr(moved, name) / getattr(direct, name))
        assert np.abs(apart).mean() < 0.05
        # the output layer's input has 100 units, and its delta no width at all
        assert abs(apart[-1]) < 0.08
        draws = getattr(direct, f"{name}_draws")
        low, high = (np.log10(getattr(moved, f"{name}_{end}")) for end in ("low", "high"))
        assert 0.84 < ((draws >= low) & (draws <= high)).mean() < 0.96


def test_nets_that_take_too_long_are_simulated_narrower():
    def layers(width):
        shapes = [(4, width), *[(width, width)] * 9, (width, 1)]
        return [LayerVariances(*shape, weight=2.0, bias=0.0) for shape in shapes]

    width, few = finite_width.plan(100, layers(10))
    assert (width, few) == (10, 4000)
    width, few = finite_width.plan(100, layers(100), single=True)
    assert width == 100
    assert 500 < few < 4000
    width, few = finite_width.plan(100, layers(5000), single=True)
    assert 32 < width < 1000
    assert few == 500


@pytest.mark.parametrize("nets", [50, 5000])
def test_the_uncertainty_of_a_median(nets):
    """Of a normal law 1.253 σ/√n, times 1.645."""
    draws = np.random.default_rng(0).normal(size=(nets, 400)) * 0.4
    expected = 1.645 * 1.2533 * 0.4 / math.sqrt(nets)
    assert finite_width.median_uncertainty(draws).mean() == pytest.approx(expected, rel=0.15)
    compared = finite_width.median_uncertainty(draws, 300).mean()
    both = expected * math.sqrt(1 + nets / 300)
    assert compared == pytest.approx(both, rel=0.15)
    draws[: nets // 2 + 1, 0] = -np.inf
    assert finite_width.median_uncertainty(draws)[0] == np.inf
    draws[:] = -np.inf
    assert (finite_width.median_uncertainty(draws) == 0).all()


# --- batches --------------------------------------------------------------------------------------


def test_counts_of_a_small_data_set_are_multinomial():
    rows = batches.of_data(load("iris2"), 128)
    counts = rows.counts(np.random.default_rng(0), 2000)
    assert rows.whole
    assert (counts.sum(axis=1) == 128).all()
    assert counts.var() == pytest.approx(1.28 * 0.99, rel=0.03)


def test_of_a_large_one_a_selection_stands_for_all():
    data = load("digits")
    rows = batches.of_data(data, 128)
    assert (rows.whole, rows.x.shape) == (False, (batches.MOST_ROWS, 64))
    counts = rows.counts(np.random.default_rng(0), 500)
    assert (counts.sum(axis=1) == 128).all()
    # next to no row twice, but each class as often as chance has it
    assert (counts > 1).mean() < 0.01
    per_class = counts @ rows.y
    shares = np.bincount(data.labels) / len(data.labels)
    assert per_class.mean(axis=0) / 128 == pytest.approx(shares, abs=0.01)
    assert per_class.var(axis=0) == pytest.approx(128 * shares * (1 - shares), rel=0.3)
    # a batch larger than the selection goes round again
    large = batches.of_data(data, 1000).counts(np.random.default_rng(0), 10)
    assert (large.sum(axis=1) == 1000).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_errors_are_what_dp_computes(loss, reduction, outputs):
    import dp
    from dp.layers import watch_layers

    x = np.random.default_rng(0).normal(size=(9, 4))
    y = (np.arange(9) % 2)[:, None] if outputs == 1 else np.eye(3)[np.arange(9) % 3]
    net = dp.Net(4, 5, 2, "tanh", n_outputs=outputs, loss=loss, reduction=reduction, seed=[0, 1])
    with watch_layers() as watch:
        net.get_grad(x, y)
    last = watch.calls[-1]
    found = batches.errors(last.pre_activation.value, y, loss, reduction, len(x))
    assert found == pytest.approx(last.delta, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_errors_of_nets_that_are_sure_are_what_dp_computes(loss):
    """Far out p or 1 - p is tiny, but not zero on both sides."""
    import dp
    from dp.layers import watch_layers

    x = np.array([[-600.0], [-300.0], [-40.0], [20.0], [30.0], [50.0]])
    y = np.array([[0.0], [1.0], [1.0], [1.0], [0.0], [0.0]])
    net = dp.Net(1, 1, 1, "identity", loss=loss, seed=0)
    ones = {k: np.full_like(v, float(k.endswith("weight"))) for k, v in net.get_param().items()}
    net.set_param(ones)
    with watch_layers() as watch:
        net.get_grad(x, y)
    found = batches.errors(x, y, loss, "sum", len(x))
    assert (found != 0).any()
    assert found == pytest.approx(watch.calls[-1].delta, rel=1e-12, abs=0)


def test_data_of_two_rows():
    data = Data.from_arrays([[0.0], [1.0]], [0, 1])
    assert batches.of_data(data, 1).counts(np.random.default_rng(0), 5).sum() == 5
