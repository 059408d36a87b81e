"""What the tests of programs share: data, models, and how results are compared."""

import numpy as np
import pytest

import dp
from dp import Node
from dp import primitives as p
from dp.program.capture import captured

X = np.random.default_rng(0).normal(size=(12, 4))


Y = (np.arange(12) % 3 == 0)[:, None].astype(float)


ONE_HOT = np.eye(3)[np.arange(12) % 3]


EACH_OPTIMISER = pytest.mark.parametrize(
    "optimiser", [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam]
)


def close(found, right, dtype=np.float64, least=0.0):
    """Within 1e-12 (float64) or 1e-5 (float32) of the largest entry, or of `least`."""
    assert found.dtype == right.dtype == dtype
    assert found.shape == right.shape
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    scale = max(float(np.abs(right).max(initial=0.0)), least)
    np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance * scale)


def run_page(source, name, *arguments):
    space = {}
    exec(compile(source, "page.py", "exec"), space)
    return space[name](*arguments)


def check(function, arrays, dtype=np.float64):
    """Compare value and gradients of a function of named Nodes: graph, page, and fast form."""
    names = [f"p{i}" for i in range(len(arrays))]
    nodes = [Node(array.copy(), name) for array, name in zip(arrays, names, strict=True)]

    def closed():
        return function(*nodes)

    value = closed()
    gradients = value.grad()
    program = dp.capture(closed)
    for _ in range(2):  # the second time on buffers that the first one has used
        found, output = program()
        assert set(found) == set(gradients)
        close(output, value.value, dtype, least=1.0)
        for name in found:
            close(found[name], gradients[name], dtype, least=1.0)
    param = {node.name: node.value for node in nodes}
    page = run_page(program.source, "closed_gradients", param)
    close(page[1], value.value, dtype, least=1.0)
    for name in found:
        close(page[0][name], gradients[name], dtype, least=1.0)


def net_and_batch(seed=0, dtype=np.float64, n_outputs=1, **options):
    net = dp.Net(4, 5, 3, seed=seed, dtype=dtype, n_outputs=n_outputs, **options)
    y = Y if n_outputs == 1 else ONE_HOT
    members = () if np.ndim(seed) == 0 else (len(seed),)
    batch = [np.broadcast_to(part, (*members, *part.shape)).astype(dtype) for part in (X, y)]
    return net, *batch


def trained(compiled, optimiser=dp.SGD, steps=100, seed=0, dtype=np.float64, rate=None, **options):
    net = dp.Net(4, 5, 3, seed=seed, dtype=dtype, **options)
    hyperparam = {} if rate is None else {"alpha": rate}
    sgd = optimiser(net, X, Y, hyperparam, 8, seed=seed, compile=compiled)
    last = sgd.train(steps, print_each=None)
    return net.get_param(), last, sgd.grad_stores


class Layers(dp.Model):
    """Layers a … f of one width, and a loss of one's own."""

    def __init__(self, loss, seed=0, dtype=np.float64, widths=(4, 4)):
        super().__init__(seed=seed, dtype=dtype)
        for name in "abcdef":
            setattr(self, name, self.Linear_Layer(*widths, name))
        self.out = self.Linear_Layer(widths[1], 1, "out")
        self._loss = loss

    def loss(self, x, y):
        return self._loss(self, x, y)


class Weights_Only(dp.SGD):
    def _update(self, param, grad, g, i):
        if g.endswith("_weight"):
            param[g] = param[g] - self.alpha * np.sign(grad[g])


UNARY = {
    "tanh": Node.tanh,
    "sigmoid": Node.sigmoid,
    "relu": Node.relu,
    "softplus": Node.softplus,
    "square": Node.square,
    "negative": Node.__neg__,
    "gelu": Node.gelu,
    "elu": Node.elu,
    "leaky": Node.leaky_relu,
    "clip": lambda x: x.clip(-0.5, 0.7),
    "softmax": Node.softmax,
    "log_softmax": Node.log_softmax,
    "transpose twice": lambda x: x.T.tanh().T,
    "rows": lambda x: x[[2, 0, 0, 1]],
    "sum": lambda x: x + x.sum(axis=1),
    "mean": lambda x: x - x.mean(axis=0),
    "max": lambda x: x - x.max(axis=1),
    "plus": lambda x: x + 1.0,
    "times": lambda x: x * -0.5,
    "over": lambda x: x / 3.0,
    "layer 1": None,  # with weights and biases, see `grown`
    "layer 2": None,
    "layer 3": None,
}


BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / (b.square() + 1.0),
    "@": lambda a, b: a @ b.T @ b,
    "where": lambda a, b: p.where(a > b, a, b * 0.5),
}


def alike(make, run, optimiser=dp.SGD, **options):
    """Train eagerly and compiled, and compare what is left."""
    results = []
    for compiled in (False, True):
        np.random.seed(0)
        model = make()
        opt = optimiser(model, X, Y, {"alpha": 0.01}, 8, compile=compiled, **options)
        run(opt)
        following = np.random.rand() if opt._streams is None else opt._streams[0].random()
        results.append((model.get_param(), opt.grad_stores, following))
    (right, stores, number), (found, other, again) = results
    for name in right:
        close(found[name], right[name], least=1.0)
    assert [list(store) for store in stores] == [list(store) for store in other]
    assert number == again


def small_net(**options):
    """Loss and gradients of a net 4-3-3-1 on two rows, as captured."""
    net = dp.Net(4, 3, 2, "tanh", seed=0, **options)
    return captured(net.loss, (X[:2], Y[:2]))


def kinds(operations):
    """What the operations of a program are, in order."""
    return [getattr(op.kind, "name", op.kind) for op in operations]
