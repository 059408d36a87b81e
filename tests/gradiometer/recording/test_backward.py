"""The delta from layer to layer, taken apart: weights, dead units, slope of live ones."""

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.quantities import OF_LAYERS, QUANTITIES

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 4)), RNG.integers(0, 2, (6, 1)).astype(float)


def recorded(activation, compiled=False, seed=0, quantities=QUANTITIES, **net):
    model = dp.Net(4, 9, 3, activation, seed=seed, **net)
    sgd = dp.SGD(model, X, Y, {"alpha": 0.1}, 6, seed=seed, compile=compiled)
    with record(model, sgd, reference=(X, Y), quantities=quantities) as recorder:
        sgd.train(5, print_each=None)
    return recorder


def by_hand(activation):
    """(rms of W^T delta, that at live units, delta) of each layer at the first step."""
    net = dp.Net(4, 9, 3, activation, seed=0)
    sgd = dp.SGD(net, X, Y, {"alpha": 0.1}, 6, seed=0)
    x, y = sgd.random_batch()
    with dp.watch_layers() as watch:
        net.get_grad(x, y)
    found = []
    for call in watch.calls:
        back = call.delta @ call.layer.weight.value.T
        live = (call.input.value != 0).any(axis=0)
        found.append([np.sqrt((part**2).mean()) for part in (back, back * live, call.delta)])
    return np.array(found)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_they_are_what_they_are_called(activation, compiled):
    recorder = recorded(activation, compiled)
    expected = by_hand(activation)
    for i, name in enumerate(("backward_rms", "backward_live_rms", "delta_rms")):
        np.testing.assert_allclose(recorder[name][0], expected[:, i], rtol=1e-12, err_msg=name)
    if activation == "relu":  # some unit of these is dead
        assert (expected[1:, 1] < expected[1:, 0]).any()


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_the_terms_add_up_to_the_measured_gain(activation):
    found = {n: recorded(activation)[n] for n in ("delta_rms", "backward_rms", "backward_live_rms")}
    delta, back, live = found.values()
    weights = np.log10(back[:, 1:] / delta[:, 1:])
    dead = np.log10(live[:, 1:] / back[:, 1:])
    slope = np.log10(delta[:, :-1] / live[:, 1:])
    gain = np.log10(delta[:, :-1] / delta[:, 1:])
    np.testing.assert_allclose(weights + dead + slope, gain, atol=1e-9)
    assert (dead <= 0).all()
    assert (slope <= 1e-12).all()  # no slope of these functions is above 1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
def test_compiled_steps_give_the_same(activation, seed):
    found, right = (recorded(activation, compiled, seed) for compiled in (True, False))
    for name in (*OF_LAYERS, "grad_norm"):
        np.testing.assert_allclose(found[name], right[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_norm_is_of_all_parameters(compiled):
    net = dp.Net(4, 9, 3, "tanh", seed=0)
    sgd = dp.SGD(net, X, Y, {"alpha": 0.1}, 6, seed=0)
    gradient, _ = net.get_grad(*sgd.random_batch())
    expected = np.sqrt(sum((part**2).sum() for part in gradient.values()))
    assert recorded("tanh", compiled)["grad_norm"][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "name",
    ["input_rms", "rows", "preactivation_mean", "backward_live_rms", "affine_delta_rms",
     "phi_delta_rms", "arriving_rms", "arriving_live_rms"],
)  # fmt: skip
def test_each_can_be_had_alone(name, compiled):
    alone = recorded("relu", compiled, quantities=[name])
    np.testing.assert_array_equal(alone[name], recorded("relu", compiled)[name])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_trace_tells_the_optimizer_and_its_learning_rate(compiled):
    trace = recorded("tanh", compiled).trace
    assert trace.attrs["optimizer"] == "SGD"
    assert trace.attrs["learning_rate"] == 0.1

    class Halve(dp.Callback):
        def after_update(self, step):
            sgd.alpha /= 2

    net = dp.Net(4, 9, 3, "tanh", seed=0)
    sgd = dp.SGD(net, X, Y, {"alpha": 0.4}, 6, seed=0, callbacks=[Halve()], compile=compiled)
    with record(net, sgd) as recorder:
        sgd.train(3, print_each=None)
    trace = recorder.trace
    assert trace.dataset["learning_rate"].values.tolist() == [0.4, 0.2, 0.1]
    assert "learning_rate" not in trace.attrs
