"""The same weights and batches give the same trace in dp, PyTorch, JAX, Keras and scikit-learn."""

import collections
import contextlib
import os

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

import dp
from gradiometer import from_torch, record, record_sklearn
from gradiometer.quantities import OF_LAYERS, QUANTITIES

# Keras chooses when it is imported; adapters/keras/test_backends.py runs it with JAX too
os.environ.setdefault("KERAS_BACKEND", "torch")
if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import jax
    import keras
    import torch
else:
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    keras = pytest.importorskip("keras")

import gradiometer.jax

pytestmark = pytest.mark.frameworks

STEPS, RATE = 4, 0.05
ARRIVING = {"arriving_rms", "arriving_live_rms"}  # JAX and Keras tell of pre-activations alone
X = np.random.default_rng(0).normal(size=(20, 4))
Y = np.sin(X.sum(axis=1, keepdims=True))
# dp's names; scikit-learn has only four
SHARED = [name for name in dp.activations.ACTIVATIONS if name != "lecun_tanh"]
SKLEARN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
JAX = {
    "identity": jax.nn.identity,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jax.nn.tanh,
    "relu": jax.nn.relu,
    "clipped_relu": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
}


class Whole_Batch(dp.SGD):
    def random_batch(self):
        return dp.Node(self.x_train), dp.Node(self.y_train)


MODULES = {
    "identity": torch.nn.Identity,
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "clipped_relu": torch.nn.ReLU6,
    "leaky_relu": torch.nn.LeakyReLU,
    "elu": torch.nn.ELU,
    "selu": torch.nn.SELU,
    "silu": torch.nn.SiLU,
    "gelu": torch.nn.GELU,
    "softplus": lambda: torch.nn.Softplus(threshold=40),
}


def torch_net(activation):
    """Two hidden layers, and an output without function."""
    torch.manual_seed(3)
    linear = torch.nn.Linear
    modules = {"h1": linear(4, 6), "h1_phi": MODULES[activation](), "h2": linear(6, 6),
               "h2_phi": MODULES[activation](), "out": linear(6, 1)}  # fmt: skip
    return torch.nn.Sequential(collections.OrderedDict(modules)).double()


def net_of(activation):
    """The same in dp, with half the mean squared error."""
    return from_torch(torch_net(activation), loss="squared_error", reduction="mean")


def in_dp(activation):
    net = net_of(activation)
    sgd = Whole_Batch(net, X, Y, {"alpha": RATE})
    with record(net, sgd, reference=(X, Y), quantities=QUANTITIES) as recorder:
        sgd.train(STEPS, print_each=None)
    return recorder.trace


def in_torch(activation):
    net = torch_net(activation)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    sgd = torch.optim.SGD(net.parameters(), lr=RATE)
    with record(net, sgd, reference=(x, y), quantities=QUANTITIES) as recorder:
        for _ in range(STEPS):
            sgd.zero_grad()
            (0.5 * torch.nn.functional.mse_loss(net(x), y)).backward()
            sgd.step()
    return recorder.trace


def in_jax(activation):
    given = net_of(activation).get_param()
    names = ["h1", "h2", "out"]
    with jax.enable_x64(True):
        params = {
            name: (jax.numpy.asarray(given[f"{name}_weight"]),
                   jax.numpy.asarray(given[f"{name}_bias"][0]))
            for name in names
        }  # fmt: skip

        def loss_of(params, x, y):
            for name in names:
                phi = activation if name != "out" else "identity"
                weight, bias = params[name]
                h = x @ weight + bias
                h = gradiometer.jax.tap(h, name, activation=phi, inputs=x, weight=weight)
                x = JAX[phi](h)
            return 0.5 * jax.numpy.mean((x - y) ** 2)

        @jax.jit
        def step(params):
            loss, gradients = jax.value_and_grad(loss_of)(params, X, Y)
            updated = jax.tree.map(lambda p, g: p - RATE * g, params, gradients)
            gradiometer.jax.tap_step(params, gradients, updated, loss=loss)
            return updated

        with gradiometer.jax.record(quantities=QUANTITIES) as recorder:
            for _ in range(STEPS):
                params = step(params)
        return recorder.trace


KERAS = {"identity": "linear", "clipped_relu": "relu6"}  # the others as in dp


@contextlib.contextmanager
def keras_in_double():
    """Data, weights, loss and learning rate."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        with jax.enable_x64(True):
            yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def in_keras(activation):
    """The function of h1 is a layer of its own, that of h2 is inside the layer."""
    name = KERAS.get(activation, activation)
    with keras_in_double():
        if name == "leaky_relu":  # Keras's default is another slope
            functions = [keras.layers.LeakyReLU(negative_slope=0.01) for _ in range(2)]
        else:
            functions = [keras.layers.Activation(name), name]
        net = keras.Sequential([
            keras.Input((4,)), keras.layers.Dense(6, name="h1"), functions[0],
            keras.layers.Dense(6, functions[1], name="h2"), keras.layers.Dense(1, name="out"),
        ])  # fmt: skip
        given = net_of(activation).get_param()
        kinds = ("weight", "bias")
        values = [given[f"{name}_{kind}"] for name in ("h1", "h2", "out") for kind in kinds]
        net.set_weights([x if i % 2 == 0 else x[0] for i, x in enumerate(values)])
        net.compile(keras.optimizers.SGD(RATE), "mse", loss_weights=0.5)
        with record(net, reference=(X, Y), quantities=QUANTITIES) as recorder:
            net.fit(X, Y, batch_size=len(X), epochs=STEPS, verbose=0)
        return recorder.trace


def in_sklearn(activation):
    """Plain descent on the whole batch, from dp's weights; the loss is half the mean square."""
    estimator = MLPRegressor(
        hidden_layer_sizes=(6, 6), activation=SKLEARN[activation], solver="sgd", alpha=0,
        batch_size=20, momentum=0,
        nesterovs_momentum=False, learning_rate_init=RATE, max_iter=1, shuffle=False,
        random_state=0,
    )  # fmt: skip
    estimator.partial_fit(X, Y[:, 0])
    given = net_of(activation).get_param()
    for i, name in enumerate(["h1", "h2", "out"]):
        estimator.coefs_[i][:] = given[f"{name}_weight"]
        estimator.intercepts_[i][:] = given[f"{name}_bias"][0]
    with record_sklearn(estimator, quantities=QUANTITIES) as recorder:
        for _ in range(STEPS):
            estimator.partial_fit(X, Y[:, 0])
    return recorder.trace


@pytest.mark.parametrize("framework", ["torch", "jax", "sklearn"])
@pytest.mark.parametrize("activation", SHARED)
def test_the_same_trace_everywhere(activation, framework):
    if framework == "sklearn" and activation not in SKLEARN:
        pytest.skip(f"scikit-learn has no {activation}")
    found = {"torch": in_torch, "jax": in_jax, "sklearn": in_sklearn}[framework](activation)
    # a pure function of JAX would have to say what it clipped
    compare(found, activation, leave_out={"clip_factor", *ARRIVING} if framework == "jax" else ())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("activation", SHARED)
def test_the_same_trace_in_keras(activation):
    # with PyTorch, keras.ops.matmul computes in single precision, also of doubles
    compare(in_keras(activation), activation, leave_out=ARRIVING, rtol=5e-6)


def compare(found, activation, leave_out=(), rtol=1e-6):
    expected = in_dp(activation)
    assert list(found["layer"].values) == list(expected["layer"].values)
    assert list(found["activation"].values) == list(expected["activation"].values)
    for coordinate in ("step", "depth", "fan_in", "fan_out"):
        np.testing.assert_array_equal(found[coordinate], expected[coordinate])
    for name in (*OF_LAYERS, "loss", "grad_norm"):
        if name not in leave_out:
            np.testing.assert_allclose(
                found[name].values, expected[name].values, rtol=rtol, atol=1e-15, err_msg=name
            )
        elif name in ARRIVING:
            assert all("not seen" in found.why(name, layer) for layer in found.layers)
