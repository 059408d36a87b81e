"""Kernels of a batch, against nets drawn at widths 100 and 1000, and in cases that are known."""

import itertools
import math

import numpy as np
import pytest

import dp
from dp.activations import ACTIVATIONS
from dp.layers import watch_layers
from gradiometer.data import load
from gradiometer.theory import kernels
from gradiometer.theory.variances import of_layer

EVERY = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda a: a.name)


def layers(init, features, width, hidden, outputs=1):
    sizes = [features, *[width] * hidden, outputs]
    return [of_layer(init, i, o) for i, o in itertools.pairwise(sizes)]


# every activation, and every kind of initialiser
DRAWN = [
    *(("he_normal", 300, activation) for activation in ACTIVATIONS.values()),
    *(
        (init, width, ACTIVATIONS[name])
        for init, width in (("orthogonal", 200), ("lecun_normal", 300))
        for name in ("tanh", "relu", "gelu")
    ),
]


@pytest.mark.parametrize(
    ("init", "width", "activation"), DRAWN, ids=lambda value: getattr(value, "name", str(value))
)
def test_against_drawn_nets(init, width, activation):
    data = load("iris2")
    x, y = data.x[::10], data.y[::10]
    net = dp.Net(4, width, 3, activation, init=init, seed=range(40))
    theory = kernels.of_batch(x, layers(init, 4, width, 3), activation)
    with watch_layers() as watch:
        net.get_grad(x, y)
    for i, call in enumerate(watch.calls):
        h, into = call.pre_activation.value, call.input.value
        for measured, expected in [
            (h, theory.pre[i]),
            (into, theory.inputs[i]),
            (activation.derivative(h), theory.slopes[i] if i < 3 else None),
        ]:
            if expected is None or (measured is h and i == 3):
                continue  # a single output says little
            products = measured @ measured.swapaxes(-1, -2) / measured.shape[-1]
            mean = products.mean(axis=0) if products.ndim == 3 else products
            assert mean == pytest.approx(expected, abs=0.12 * expected.max())


@pytest.mark.parametrize("width", [100, 1000])
@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid"])
def test_gradients_against_drawn_nets(name, width):
    """Mean squares of delta and dL/dW, given the errors that each net makes."""
    data = load("iris2")
    x, y = data.x[::5], data.y[::5]
    hidden = 3
    theory = kernels.of_batch(x, layers("dp", 4, width, hidden), ACTIVATIONS[name])
    net = dp.Net(4, width, hidden, name, seed=range(4000 // width))
    with watch_layers() as watch:
        grads, _ = net.get_grad(x, y)
    errors = watch.calls[-1].delta
    expected = kernels.gradient_mean_square(theory, errors).mean(axis=0)
    names = [f"h{i}" for i in range(1, hidden + 1)] + ["out"]
    found = [(grads[f"{layer}_weight"] ** 2).mean() for layer in names]
    assert np.log(found) == pytest.approx(np.log(expected), abs=0.35)
    expected = kernels.delta_mean_square(theory, errors, np.ones((len(errors), len(x))))
    found = [(call.delta**2).mean() for call in watch.calls]
    assert np.log(found) == pytest.approx(np.log(expected.mean(axis=0)), abs=0.25)
    assert found[-1] == pytest.approx(expected.mean(axis=0)[-1])


def test_a_linear_net_by_hand():
    """E (dW_ij)² of a net h = x W v with one hidden layer: Σ_ab e_a e_b x_a·x_b σ_v²/(n n_0)."""
    x = np.array([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]])
    e = np.array([[0.5], [-1.0], [0.25]])
    net = kernels.of_batch(x, layers("lecun_normal", 2, 5, 1), ACTIVATIONS["identity"])
    first, out = kernels.gradient_mean_square(net, e)
    both = (e * x).sum(axis=0)
    assert first == pytest.approx((both @ both) / (5 * 2))
    assert out == pytest.approx((both @ both) / 2)
    delta, top = kernels.delta_mean_square(net, e, np.array([1.0, 2.0, 1.0]))
    assert top == pytest.approx((0.25 + 2 + 0.0625) / 4)
    assert delta == pytest.approx(top / 5)


def test_several_outputs_add_up():
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(6, 3)), rng.normal(size=(2, 6, 4))
    net = kernels.of_batch(x, layers("dp", 3, 7, 2, outputs=4), ACTIVATIONS["tanh"])
    one = [kernels.gradient_mean_square(net, e[..., c : c + 1]) for c in range(4)]
    assert kernels.gradient_mean_square(net, e) == pytest.approx(sum(one))
    assert kernels.gradient_mean_square(net, e).shape == (2, 3)


@EVERY
def test_constant_and_single_rows(activation):
    """Rows of zeros, equal rows, and one row alone: finite, and equal where they should be."""
    for x in (np.zeros((3, 4)), np.ones((3, 4)), np.ones((1, 4))):
        for init in ("dp", "he_normal", "zeros"):
            net = kernels.of_batch(x, layers(init, 4, 1, 3), activation)
            for group in (net.pre, net.inputs, net.slopes, net.back):
                for kernel in group:
                    assert np.isfinite(kernel).all()
                    assert np.ptp(kernel) <= 1e-7 * max(1.0, abs(kernel).max())
    assert math.isfinite(kernels.gradient_mean_square(net, np.ones((1, 1))).sum())
