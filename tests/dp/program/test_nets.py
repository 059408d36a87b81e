"""Compiled steps and trainings of the library's nets give the numbers of the eager graph."""

import itertools

import numpy as np
import pytest
from tests.dp.program.programs import EACH_OPTIMISER, close, net_and_batch, trained

import dp


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
@pytest.mark.parametrize("activation", dp.activations.ACTIVATIONS)
def test_a_step_of_every_activation(activation, seed, dtype):
    net, x, y = net_and_batch(seed, dtype, act_func=activation)
    right, loss = net.get_grad(x, y)
    found, output = dp.capture(net.loss, x, y)(x, y)
    close(output, loss.value, dtype)
    assert list(found) == list(right)
    for name in right:
        close(found[name], right[name], dtype)


@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
@pytest.mark.parametrize(
    ("loss", "reduction", "n_outputs", "normalisation", "residual"),
    list(itertools.product(
        ["cross_entropy", "squared_error"], ["sum", "mean"], [1, 3], ["none", "layer", "batch"],
        [False, True],
    )),
)  # fmt: skip
def test_a_step_of_every_net(seed, loss, reduction, n_outputs, normalisation, residual):
    net, x, y = net_and_batch(
        seed, n_outputs=n_outputs, loss=loss, reduction=reduction, normalisation=normalisation,
        residual=residual,
    )  # fmt: skip
    right, value = net.get_grad(x, y)
    found, output = dp.capture(net.loss, x, y)(x, y)
    close(output, value.value)
    for name in right:  # behind a normalisation a bias has the gradient 0, but for rounding
        close(found[name], right[name], least=0.0 if normalisation == "none" else 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "selu"])
@EACH_OPTIMISER
def test_a_hundred_steps(optimiser, activation, seed, dtype):
    right = trained(False, optimiser, seed=seed, dtype=dtype, act_func=activation, rate=0.01)
    found = trained(True, optimiser, seed=seed, dtype=dtype, act_func=activation, rate=0.01)
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(found[1], right[1], rtol=tolerance, atol=tolerance)
    for name in right[0]:
        np.testing.assert_allclose(found[0][name], right[0][name], rtol=tolerance, atol=tolerance)
    assert len(found[2]) == len(right[2])
    for ours, theirs in zip(found[2], right[2], strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            scale = np.abs(theirs[name]).max()
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=tolerance, atol=tolerance * scale
            )


def test_a_member_does_not_depend_on_the_others():
    together = trained(True, seed=[3, 4, 5], act_func="tanh")[0]
    apart = trained(True, seed=[5, 3], act_func="tanh")[0]
    alone = trained(True, seed=5, act_func="tanh")[0]
    for name, value in alone.items():
        np.testing.assert_allclose(together[name][2], value, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(apart[name][0], value, rtol=1e-12, atol=1e-14)
