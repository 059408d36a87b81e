"""The same numbers as PyTorch: values, gradients, second derivatives, and training steps."""

import os

import numpy as np
import pytest

import dp
from dp import Net, Node
from dp import primitives as p

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

F = torch.nn.functional
pytestmark = pytest.mark.frameworks

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
SHAPES = [(1, 1), (3, 1), (1, 4), (3, 4), (2, 3, 4)]


def anything(rng, shape):
    return rng.normal(scale=2.0, size=shape)


def positive(rng, shape):
    return rng.uniform(0.3, 3.0, size=shape)


def bce(x, reduction):
    y = (torch.arange(x.shape[-2]).reshape(-1, 1) % 2).to(x.dtype).expand(x.shape)
    loss = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    return loss.sum((-2, -1), True) if reduction == "sum" else loss.mean((-2, -1), True)


def cce(x, reduction):
    loss = -F.log_softmax(x, dim=-1)[..., 1:2]
    return loss.sum((-2, -1), True) if reduction == "sum" else loss.mean((-2, -1), True)


def labels(x):
    return np.arange(x.shape[-2]).reshape(-1, 1) % 2


def second_class(x):
    return np.eye(x.shape[-1])[[1] * x.shape[-2]]


ACTIVATIONS = {
    "identity": lambda h: h * 1.0,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "lecun_tanh": lambda h: 1.7159 * torch.tanh(h * (2.0 / 3.0)),
    "relu": F.relu,
    "clipped_relu": F.relu6,
    "leaky_relu": lambda h: F.leaky_relu(h, 0.01),
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": lambda h: torch.logaddexp(h, torch.zeros_like(h)),
}

# name: (ours, theirs, how operands are drawn)
UNARY = {
    "negative": (lambda x: -x, lambda x: -x, anything),
    "exp": (lambda x: x.exp(), torch.exp, anything),
    "log": (lambda x: x.log(), torch.log, positive),
    "square": (lambda x: x.square(), torch.square, anything),
    "sqrt": (lambda x: x.sqrt(), torch.sqrt, positive),
    "abs": (lambda x: x.abs(), torch.abs, anything),
    "clip": (lambda x: x.clip(-0.5, 1.0), lambda x: torch.clip(x, -0.5, 1.0), anything),
    "pow 3": (lambda x: x**3, lambda x: x**3, anything),
    "pow -1.5": (lambda x: x**-1.5, lambda x: x**-1.5, positive),
    "2 ** x": (lambda x: 2**x, lambda x: 2**x, anything),
    "normal_cdf": (lambda x: p.normal_cdf(x), torch.special.ndtr, anything),
    "transpose": (lambda x: x.T, lambda x: x.mT, anything),
    "reshape": (
        lambda x: x.reshape(-1, 1) * 2,
        lambda x: x.reshape((*x.shape[:-2], -1, 1)) * 2,
        anything,
    ),
    "rows": (lambda x: x[[0, -1, 0]], lambda x: x[..., [0, -1, 0], :], anything),
    "column": (lambda x: x[:, 0], lambda x: x[..., :, 0:1], anything),
    "sum": (lambda x: x.sum(), lambda x: x.sum((-2, -1), True), anything),
    "sum 0": (lambda x: x.sum(0), lambda x: x.sum(-2, True), anything),
    "sum 1": (lambda x: x.sum(1), lambda x: x.sum(-1, True), anything),
    "mean": (lambda x: x.mean(), lambda x: x.mean((-2, -1), True), anything),
    "mean 0": (lambda x: x.mean(0), lambda x: x.mean(-2, True), anything),
    "max": (lambda x: x.max(), lambda x: x.amax((-2, -1), True), anything),
    "max 0": (lambda x: x.max(0), lambda x: x.amax(-2, True), anything),
    "max 1": (lambda x: x.max(1), lambda x: x.amax(-1, True), anything),
    "min 0": (lambda x: x.min(0), lambda x: x.amin(-2, True), anything),
    "var 1": (lambda x: x.var(1), lambda x: x.var(-1, correction=0, keepdim=True), anything),
    "std of rows": (
        lambda x: dp.concatenate([x, 2 * x - 1]).std(0, ddof=1),
        lambda x: torch.cat([x, 2 * x - 1], -2).std(-2, correction=1, keepdim=True),
        anything,
    ),
    "norm": (
        lambda x: x.norm(),
        lambda x: torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True),
        anything,
    ),
    "norm 1": (lambda x: x.norm(1), lambda x: x.norm(dim=-1, keepdim=True), anything),
    "logsumexp": (lambda x: x.logsumexp(), lambda x: x.logsumexp((-2, -1), True), anything),
    "logsumexp 1": (lambda x: x.logsumexp(1), lambda x: x.logsumexp(-1, True), anything),
    "sin": (lambda x: x.sin(), torch.sin, anything),
    "cos": (lambda x: x.cos(), torch.cos, anything),
    "expm1": (lambda x: x.expm1(), torch.expm1, anything),
    "log1p": (lambda x: x.log1p(), torch.log1p, positive),
    "round": (lambda x: x.round() * x, lambda x: x.round() * x, anything),
    "rows by a 2-D array": (
        lambda x: x[[[0, -1], [0, 0]]],
        lambda x: x[..., torch.tensor([[0, -1], [0, 0]]), :],
        anything,
    ),
    "entries by 2-D arrays": (
        lambda x: x[[[0, -1], [0, 0]], [[-1, 0], [0, -1]]],
        lambda x: x[..., [[0, -1], [0, 0]], [[-1, 0], [0, -1]]],
        anything,
    ),
    "softmax": (lambda x: x.softmax(), lambda x: F.softmax(x, dim=-1), anything),
    "softmax 0": (lambda x: x.softmax(0), lambda x: F.softmax(x, dim=-2), anything),
    "log_softmax": (lambda x: x.log_softmax(), lambda x: F.log_softmax(x, dim=-1), anything),
    "log_softmax 0": (lambda x: x.log_softmax(0), lambda x: F.log_softmax(x, dim=-2), anything),
    "leaky 0.2": (lambda x: x.leaky_relu(0.2), lambda x: F.leaky_relu(x, 0.2), anything),
    "elu 1.3": (lambda x: x.elu(1.3), lambda x: F.elu(x, 1.3), anything),
}
for _name, _theirs in ACTIVATIONS.items():
    UNARY[f"activation {_name}"] = (
        lambda x, name=_name: dp.activations.get(name)(x) * 1.0,
        lambda x, theirs=_theirs: theirs(x) * 1.0,
        anything,
    )

LOSSES = {
    "binary": (lambda x: dp.binary_cross_entropy(x, labels(x)), lambda x: bce(x, "sum"), 1),
    "binary mean": (
        lambda x: dp.binary_cross_entropy(x, labels(x), "mean"),
        lambda x: bce(x, "mean"),
        1,
    ),
    "categorical": (
        lambda x: dp.categorical_cross_entropy(x, second_class(x)),
        lambda x: cce(x, "sum"),
        3,
    ),
    "categorical mean": (
        lambda x: dp.categorical_cross_entropy(x, second_class(x), "mean"),
        lambda x: cce(x, "mean"),
        3,
    ),
    "squared": (
        lambda x: dp.squared_error(x, labels(x)),
        lambda x: 0.5 * ((x - torch.tensor(labels(x)).to(x.dtype)) ** 2).sum((-2, -1), True),
        1,
    ),
}

BINARY = {
    "add": (lambda a, b: a + b, lambda a, b: a + b, anything),
    "subtract": (lambda a, b: a - b, lambda a, b: a - b, anything),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b, anything),
    "divide": (lambda a, b: a / b, lambda a, b: a / b, positive),
    "pow": (lambda a, b: a**b, lambda a, b: a**b, positive),
    "where": (
        lambda a, b: p.where(a > b, a * a, b),
        lambda a, b: torch.where(a > b, a * a, b),
        anything,
    ),
    "maximum": (lambda a, b: a.maximum(b), torch.maximum, anything),
    "minimum of equals": (
        lambda a, b: a.minimum(b) * a.maximum(a),
        lambda a, b: torch.minimum(a, b) * torch.maximum(a, a),
        lambda rng, shape: rng.integers(-1, 2, size=shape).astype(float),
    ),
    "dot": (lambda a, b: a.dot(b.T), lambda a, b: a @ b.mT, anything),
}
PAIRS = [
    ((3, 4), (3, 4)),
    ((3, 4), (1, 4)),
    ((1, 4), (3, 4)),
    ((1, 1), (1, 1)),
    ((2, 3, 4), (3, 4)),
    ((1, 4), (2, 3, 4)),
    ((2, 3, 4), (2, 3, 4)),
]


def close(ours, theirs, tolerance):
    theirs = theirs.detach().numpy(force=True)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    scale = max(1e-300, float(np.abs(theirs).max(initial=0.0)))
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1.0, scale))


def compare(ours, theirs, arrays, dtype, rng):
    """Values, gradients along a random cotangent, and gradients of these gradients."""
    tolerance = TOLERANCE[dtype]
    nodes = [Node(array.astype(dtype)) for array in arrays]
    tensors = [torch.tensor(array.astype(dtype), requires_grad=True) for array in arrays]
    y, t = ours(*nodes), theirs(*tensors)
    close(y.value, t, tolerance)
    cotangent = rng.normal(size=y.shape).astype(dtype)
    found = dp.gradients(y, nodes, cotangent, create_graph=True)
    right = torch.autograd.grad(
        t, tensors, torch.tensor(cotangent), create_graph=True, materialize_grads=True
    )
    weights = [rng.normal(size=array.shape).astype(dtype) for array in arrays]
    for g, r in zip(found, right, strict=True):
        close(g.value, r, tolerance)
    for g, r, weight in zip(found, right, weights, strict=True):
        if r.requires_grad:
            second = dp.gradients(g, nodes, weight)
            expected = torch.autograd.grad(
                r, tensors, torch.tensor(weight), retain_graph=True, materialize_grads=True
            )
            for ours_again, theirs_again in zip(second, expected, strict=True):
                close(ours_again, theirs_again, 10 * tolerance)


every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])


@every_dtype
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name, dtype):
    ours, theirs, draw = UNARY[name]
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        compare(ours, theirs, [draw(rng, shape)], dtype, rng)


@every_dtype
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_operands(name, dtype):
    ours, theirs, draw = BINARY[name]
    rng = np.random.default_rng(1)
    for shapes in PAIRS:
        compare(ours, theirs, [draw(rng, shape) for shape in shapes], dtype, rng)


@every_dtype
@pytest.mark.parametrize("axis", [0, 1])
def test_concatenate(axis, dtype):
    rng = np.random.default_rng(2)
    compare(
        lambda a, b: a.concatenate(b, axis).tanh(),
        lambda a, b: torch.cat([a, b], dim=axis - 2).tanh(),
        [rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3, 3))],
        dtype,
        rng,
    )


@every_dtype
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, dtype):
    ours, theirs, outputs = LOSSES[name]
    rng = np.random.default_rng(3)
    for shape in ((1, outputs), (5, outputs)):
        compare(ours, theirs, [rng.normal(scale=3.0, size=shape)], dtype, rng)


@every_dtype
def test_every_activation_is_compared(dtype):
    assert set(ACTIVATIONS) == set(dp.activations.ACTIVATIONS)
    ends = np.array([[0.0, 1000.0, -1000.0, 30.0, -30.0]], dtype)
    for name, theirs in ACTIVATIONS.items():
        tensor = torch.tensor(ends, requires_grad=True)
        out = theirs(tensor)
        (slope,) = torch.autograd.grad(out, tensor, torch.ones_like(out))
        activation = dp.activations.get(name)
        close(activation(ends), out, TOLERANCE[dtype])
        close(activation.derivative(ends), slope, TOLERANCE[dtype])


def test_ties_share_the_maximum_as_amax_does():
    x = np.array([[1.0, 3.0, 3.0], [3.0, 0.0, 2.0]])
    node, tensor = Node(x), torch.tensor(x, requires_grad=True)
    for axis, dim in ((None, (-2, -1)), (0, -2), (1, -1)):
        (right,) = torch.autograd.grad(tensor.amax(dim, True).sum(), tensor)
        close(dp.gradients(node.max(axis), [node])[0], right, 1e-15)


# --- whole nets -----------------------------------------------------------------------------------

RNG = np.random.default_rng(4)
X = RNG.normal(size=(30, 4))
Y = (X[:, :1] > X[:, 1:2]).astype(float)
ONE_HOT = np.eye(3)[RNG.integers(0, 3, size=30)]


def tensors_of(net):
    return {
        name: torch.tensor(value.copy(), requires_grad=True)
        for name, value in net.get_param().items()
    }


def torch_loss(w, x, y, n_layers, function, reduction="sum"):
    h = torch.as_tensor(x)
    for number in range(1, n_layers + 1):
        h = function(h @ w[f"h{number}_weight"] + w[f"h{number}_bias"])
    logits = h @ w["out_weight"] + w["out_bias"]
    y = torch.as_tensor(y)
    if y.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits, y, reduction=reduction)
    return F.cross_entropy(logits, y, reduction=reduction)


@pytest.mark.parametrize("y", [Y, ONE_HOT], ids=["binary", "classes"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@every_dtype
def test_gradients_of_a_net(name, y, dtype):
    net = Net(4, 7, 3, name, n_outputs=y.shape[1], seed=0, dtype=dtype)
    w = tensors_of(net)
    loss = torch_loss(w, X.astype(dtype), y.astype(dtype), 3, ACTIVATIONS[name])
    loss.backward()
    grad, own = net.get_grad(X, y)
    close(own.value, loss.reshape(1, 1), TOLERANCE[dtype])
    for parameter, g in grad.items():
        close(g, w[parameter].grad, TOLERANCE[dtype] * (1 if dtype == np.float64 else 5))


@pytest.mark.parametrize(
    ("normalisation", "module"),
    [("layer", "LayerNorm"), ("batch", "BatchNorm1d")],
)
def test_normalisation(normalisation, module):
    net = Net(4, 7, 1, "tanh", normalisation=normalisation, seed=0)
    net.get_param()["h1_gain"][:] = RNG.normal(size=(1, 7))
    net.get_param()["h1_shift"][:] = RNG.normal(size=(1, 7))
    w = tensors_of(net)
    h = torch.tensor(X) @ w["h1_weight"] + w["h1_bias"]
    if module == "LayerNorm":
        h = F.layer_norm(h, (7,), w["h1_gain"][0], w["h1_shift"][0], eps=1e-5)
    else:
        h = F.batch_norm(h, None, None, w["h1_gain"][0], w["h1_shift"][0], training=True, eps=1e-5)
    logits = torch.tanh(h) @ w["out_weight"] + w["out_bias"]
    loss = F.binary_cross_entropy_with_logits(logits, torch.tensor(Y), reduction="sum")
    loss.backward()
    grad, own = net.get_grad(X, Y)
    close(own.value, loss.reshape(1, 1), 1e-12)
    for parameter, g in grad.items():
        close(g, w[parameter].grad, 1e-11)


def adam(betas):
    return lambda w, alpha, epsilon: torch.optim.Adam(w, lr=alpha, betas=betas, eps=epsilon)


# Momentum: theirs adds up whole gradients, ours averages, so the rates differ by 1 - beta.
# RMSprop: ours corrects the bias of the first steps, theirs does not; Adam without momentum does.
OPTIMISERS = {
    "SGD": (dp.SGD, {}, lambda w, alpha, epsilon: torch.optim.SGD(w, lr=alpha)),
    "SGD_Momentum": (
        dp.SGD_Momentum,
        {"beta": 0.8},
        lambda w, alpha, epsilon: torch.optim.SGD(w, lr=alpha * (1 - 0.8), momentum=0.8),
    ),
    "RMS_Prop": (dp.RMS_Prop, {"beta2": 0.9, "epsilon": 1e-6}, adam((0.0, 0.9))),
    "Adam": (dp.Adam, {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}, adam((0.8, 0.95))),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_twenty_steps(name, dtype, tolerance):
    ours, hyperparam, theirs = OPTIMISERS[name]
    net = Net(4, 7, 3, "tanh", seed=0, dtype=dtype)
    w = tensors_of(net)
    optimiser = theirs(list(w.values()), 0.01, 1e-6)
    batches = []
    training = ours(
        net,
        X,
        Y,
        {"alpha": 0.01, **hyperparam},
        16,
        seed=0,
        callbacks=[lambda step: batches.append((step.x.value, step.y.value))],
    )
    training.train(20, print_each=None)
    assert len(batches) == 20
    for x, y in batches:
        optimiser.zero_grad()
        torch_loss(w, x, y, 3, torch.tanh).backward()
        optimiser.step()
    for parameter, value in net.get_param().items():
        close(value, w[parameter], tolerance)


def test_first_weights_have_the_bounds_of_a_torch_layer():
    torch.manual_seed(0)
    theirs = torch.nn.Linear(50, 400)
    model = dp.Model(seed=0)
    model.Linear_Layer(50, 400, "h", init="pytorch")
    for value, parameter in zip(
        model.get_param().values(), (theirs.weight, theirs.bias), strict=True
    ):
        assert np.abs(value).max() == pytest.approx(parameter.abs().max().item(), rel=0.03)
        assert value.std() == pytest.approx(parameter.std().item(), rel=0.1)
