"""The readable page: it runs on its own, whatever things are called."""

import subprocess
import sys

import numpy as np
import pytest
from tests.dp.program.programs import EACH_OPTIMISER, ONE_HOT, X, Y, close, run_page

import dp
from dp import Node
from dp import primitives as p


def test_the_page_of_a_small_net():
    net = dp.Net(4, 3, 1, "tanh", seed=0)
    assert (
        dp.capture(net.loss, X, Y).source
        == """\
import numpy as np


@np.errstate(over="ignore")
def loss_gradients(x, y, param):
    h1_weight = param["h1_weight"]
    h1_bias = param["h1_bias"]
    out_weight = param["out_weight"]
    out_bias = param["out_bias"]

    # layer h1: 4 -> 3, tanh
    h1_pre = x @ h1_weight + h1_bias
    h1 = np.tanh(h1_pre)

    # layer out: 3 -> 1
    out_pre = h1 @ out_weight + out_bias

    # loss
    t1 = 1 - 2 * y
    t2 = out_pre * t1
    loss = np.logaddexp(t2, 0).sum(keepdims=True)

    # backward through the loss
    d_out_pre = 1 / (1 + np.exp(-t2)) * t1

    # backward through layer out
    d_out_bias = d_out_pre.sum(axis=0, keepdims=True)
    d_out_weight = h1.T @ d_out_pre
    d_h1 = d_out_pre @ out_weight.T

    # backward through layer h1, tanh
    d_h1_pre = d_h1 * (1 - h1 * h1)
    d_h1_bias = d_h1_pre.sum(axis=0, keepdims=True)
    d_h1_weight = x.T @ d_h1_pre

    return {
        "h1_weight": d_h1_weight,
        "h1_bias": d_h1_bias,
        "out_weight": d_out_weight,
        "out_bias": d_out_bias,
    }, loss
"""
    )


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "relu"])
def test_the_page_runs_with_numpy_alone(activation, tmp_path):
    net = dp.Net(4, 5, 2, activation, n_outputs=3, seed=0)
    right, loss = net.get_grad(X, ONE_HOT)
    np.savez(tmp_path / "given.npz", x=X, y=ONE_HOT, **net.get_param())
    page = dp.capture(net.loss, X, ONE_HOT).source
    script = f"""{page}
import sys
param = dict(np.load("given.npz"))
found, loss = loss_gradients(param.pop("x"), param.pop("y"), param)
np.savez("found.npz", loss=loss, **found)
assert "dp" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["loss"], loss.value)
    for name in right:
        np.testing.assert_array_equal(found[name], right[name])


@EACH_OPTIMISER
def test_the_page_of_a_whole_step(optimiser):
    class All_Rows(optimiser):
        def random_batch(self):
            return Node(X), Node(Y)

    net = dp.Net(4, 3, 2, "tanh", seed=0)
    eager = All_Rows(net, X, Y, batch_size=12)
    page = dp.capture(eager).source
    param = {name: value.copy() for name, value in net.get_param().items()}
    stores = [
        {name: np.zeros_like(value) for name, value in param.items()}
        for _ in range(optimiser.num_grad_stores)
    ]
    assert f"# {optimiser.__name__}\n" in page.replace("All_Rows", optimiser.__name__)
    for i in (1, 2, 3):
        arguments = [X, Y, param, *([stores] if stores else [])]
        run_page(page, "step", *arguments, *([i] if "stores, i)" in page else []))
    eager.train(3, print_each=None)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(param[name], value)


@pytest.mark.parametrize(
    "name", ["value", "run", "tanh", "add", "t1", "c1", "np", "param", "copyto"]
)
def test_arguments_of_any_name(name):
    space = {"np": np, "p": p, "MASK": np.arange(4.0)}
    exec(f"def function({name}):\n    h = {name}.tanh() + MASK.reshape(1, 4)\n"
         f"    return (h * h.sigmoid() * {name}).sum()", space)  # fmt: skip
    program = dp.capture(space["function"], X, gradient=False)
    right = space["function"](Node(X)).value
    close(program(X), right)
    close(run_page(program.source, "function", X), right)


@pytest.mark.parametrize("name", ['a"b', "a\nb", "h²", "1", "class", "t1", "c1", "a b", "w"])
def test_layers_of_any_name(name):
    class Odd(dp.Model):
        def __init__(self):
            super().__init__(seed=0)
            self.odd = self.Linear_Layer(4, 1, name)

        def loss(self, x, y):
            return ((self.odd(x) - y) * np.arange(12.0).reshape(-1, 1)).square().sum()

    model = Odd()
    right, _ = model.get_grad(X, Y)
    program = dp.capture(model.loss, X, Y)
    found, _ = program(X, Y)
    page, _ = run_page(program.source, "loss_gradients", X, Y, model.get_param())
    for key in right:
        close(found[key], right[key])
        close(page[key], right[key])


def test_constants_that_are_not_finite():
    mask = np.where(np.eye(4) > 0, 0.0, -np.inf)

    def attention(x):
        return (x @ x.T + mask).softmax().sum()

    program = dp.capture(attention, X[:4], gradient=False)
    right = attention(Node(X[:4])).value
    close(program(X[:4]), right)
    close(run_page(program.source, "attention", X[:4]), right)
