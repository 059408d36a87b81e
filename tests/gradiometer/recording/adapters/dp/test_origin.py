"""What began it, where the first value of a net of dp came up that is not finite."""

import json

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.data import load

DATA = load("iris2")
ROWS = len(DATA.x)


def began(spoil=None, activation="relu", alpha=0.1, compile=False, seed=0, data=None, **settings):  # noqa: A002
    """The attributes of a short training that is spoilt before it begins."""
    net = dp.Net(4, 5, 3, activation, seed=seed)
    rows = DATA if data is None else data
    sgd = dp.SGD(net, rows.x, rows.y, {"alpha": alpha}, ROWS, seed=seed, compile=compile)
    if spoil is not None:
        spoil(net.get_param(), sgd)
    with np.errstate(all="ignore"), record(net, sgd, **settings) as recorder:
        sgd.train(3, print_each=None)
    return recorder.trace.attrs


def told(attrs):
    return {
        name: attrs.get(f"nonfinite_{name}") for name in ("layer", "in", "began_in", "operation")
    }


def set_weight(param, _):
    param["h2_weight"][0, 0] = np.inf


def set_bias(param, _):
    param["h2_bias"][...] = np.nan


def scale_weights(param, _):
    for name in ("h1_weight", "h2_weight"):
        param[name][...] = 1e200


both = pytest.mark.parametrize("compile", [False, True])


@both
def test_weights_that_were_not_finite(compile):  # noqa: A002
    assert told(began(set_weight, compile=compile))["began_in"] == "weights"
    assert told(began(set_bias, compile=compile)) == {
        "layer": "h2", "in": "activation", "began_in": "weights", "operation": None,
    }  # fmt: skip


@both
def test_an_infinite_weight_that_only_the_backward_pass_shows(compile):  # noqa: A002
    # tanh of Inf is 1
    found = told(began(set_weight, "tanh", compile=compile))
    assert found == {"layer": "h1", "in": "delta", "began_in": "weights", "operation": None}


@both
def test_a_product_of_finite_numbers_that_overflows(compile):  # noqa: A002
    attrs = began(scale_weights, compile=compile)
    assert told(attrs) == {
        "layer": "h2", "in": "activation", "began_in": "activation",
        "operation": "product with the weights",
    }  # fmt: skip
    assert json.loads(attrs["nonfinite_shape"]) == [ROWS, 5]
    assert attrs["nonfinite_nan"] + attrs["nonfinite_inf"] == attrs["nonfinite_values"]
    assert attrs["nonfinite_share"] == attrs["nonfinite_values"] / (ROWS * 5)


@both
def test_an_update_by_a_finite_gradient(compile):  # noqa: A002
    attrs = began(activation="tanh", alpha=1e308 * 1.7, compile=compile)
    assert told(attrs)["in"] == "weight after the update"
    assert told(attrs)["began_in"] == told(attrs)["operation"] == "update"
    assert json.loads(attrs["nonfinite_shape"]) == [4, 5]
    assert attrs["nonfinite_inf"] == attrs["nonfinite_values"]


def test_inputs_and_targets_that_are_spoilt_by_the_loop():
    def of(which):
        net, x, y = dp.Net(4, 5, 2, "tanh", seed=0), DATA.x.copy(), np.asarray(DATA.y).copy()
        (x if which == "inputs" else y)[3] = np.nan
        with np.errstate(all="ignore"), record(net) as recorder:
            for _ in range(2):
                grad = net.loss(dp.Node(x), dp.Node(y)).grad(1)
                own = net.get_param()
                net.set_param({name: own[name] - 0.1 * grad[name] for name in own})
        return told(recorder.trace.attrs)

    assert of("inputs")["began_in"] == "inputs"
    assert of("inputs")["layer"] == "h1"


@both
def test_of_an_ensemble_the_nets_in_which_it_came_up_are_asked(compile):  # noqa: A002
    def spoil(param, _):
        param["h2_weight"][1, 0, 0] = np.nan

    attrs = began(spoil, compile=compile, seed=[0, 1, 2])
    assert told(attrs)["began_in"] == "weights"
    assert attrs["nonfinite_share"] == attrs["nonfinite_values"] / (ROWS * 5 * 3)

    def spoil_differently(param, sgd):
        spoil(param, sgd)
        param["h1_weight"][2] = 1e300
        param["h2_weight"][2] = 1e300

    assert told(began(spoil_differently, compile=compile, seed=[0, 1, 2]))["began_in"] is None


def test_what_is_not_known_is_not_told():
    attrs = began(scale_weights, quantities=["grad_rms", "nonfinite_count"], compile=True)
    assert attrs["nonfinite_layer"] == "h2"
    assert "nonfinite_began_in" not in attrs
    assert not any(name.startswith("nonfinite") for name in began())


def test_targets_that_are_not_finite_are_told_from_the_loss():
    class Own(dp.Net):
        def loss(self, x, y=None):
            return (self.forward(x) * np.nan).sum()

    def of(targets):
        net = Own(4, 5, 2, "tanh", seed=0)
        with np.errstate(all="ignore"), record(net) as recorder:
            own = net.get_param()
            grad, _ = net.get_grad(DATA.x, targets)
            net.set_param({name: own[name] - grad[name] for name in own})
        return told(recorder.trace.attrs)

    assert of(np.zeros((ROWS, 1)))["began_in"] == "loss"
    assert of(np.full((ROWS, 1), np.nan))["began_in"] == "targets"
