"""In every framework, what is NaN is counted as not finite, or is missing and has a reason."""

import contextlib
import json
import os
import warnings

import numpy as np
import pytest

import dp
from gradiometer import State, record, record_sklearn
from gradiometer.contents import problems
from gradiometer.quantities import OF_LAYERS, OF_STEPS, QUANTITIES
from gradiometer.states import NO_REASON

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import jax
    import torch
else:
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")

import jax.numpy as jnp
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradiometer.jax

F = nn.functional
pytestmark = pytest.mark.frameworks


def recording(model, optimizer, reference, **settings):
    """Of everything, also what is on request."""
    return record(model, optimizer, reference=reference, **{"quantities": QUANTITIES} | settings)


def without_reason(recorder):
    """(layer, quantity) that is missing without a reason, or NaN though all is finite."""
    trace = recorder.trace
    assert not [*problems(trace.dataset)]
    reasons = json.loads(trace.attrs.get("missing", "{}"))
    assert all(reasons[layer].items() >= of.items() for layer, of in recorder.missing.items())
    found = []
    for i, layer in enumerate(trace.layers):
        broken = (trace["nonfinite_count"].values[:, i] > 0).any()
        for name in OF_LAYERS:
            nan = np.isnan(trace[name].values[:, i])
            missing = trace.status(name).values[:, i] == State.MISSING
            assert nan[missing].all()
            if missing.any() and trace.why(name, layer) in (None, NO_REASON):
                found.append((layer, name))
            if (nan & ~missing).any() and not broken:
                found.append((layer, name))
    for name in OF_STEPS:
        finite = "nonfinite_step" not in trace.attrs
        missing = trace.status(name).values == State.MISSING
        if missing.any() and trace.why(name) in (None, NO_REASON):
            found.append(("", name))
        if finite and (np.isnan(trace[name].values) & ~missing).any():
            found.append(("", name))
    return found


def unfounded(recorder):
    """(layer, quantity) that have a reason, and are there in every step."""
    trace = recorder.trace
    return [
        (layer, name)
        for layer, reasons in recorder.missing.items()
        if layer in trace.layers
        for name in reasons
        if name in OF_LAYERS and np.isfinite(trace[name].sel(layer=layer)).all()
    ]


# --- PyTorch --------------------------------------------------------------------------------------


class Of(nn.Module):
    """Parts by name, and a forward that is a function of the test's."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.calls, self.function = 0, forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        self.calls += 1
        return self.function(self, x)


def frozen(module):
    return module.requires_grad_(False)


def abc(function, **more):
    return lambda: Of(function, a=nn.Linear(6, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 3), **more)


def sequential(*parts):
    return lambda: nn.Sequential(*[part() for part in parts])


def one(phi):
    return sequential(lambda: nn.Linear(6, 8), phi, lambda: nn.Linear(8, 3))


def without_gradients(m, x):
    with torch.no_grad():
        x = torch.tanh(m.a(x))
    return m.c(torch.relu(m.b(x)))


def outside(m, x):
    x = torch.tanh(m.a(x))
    return m.c(x) + 0 * m.b(x).detach().sum()


MODELS = {
    **{
        kind: one(getattr(nn, kind))
        for kind in (
            "ReLU", "Tanh", "Sigmoid", "Mish", "SiLU", "GELU", "ELU", "CELU", "SELU", "PReLU",
            "Softplus", "Softsign", "Hardswish", "Hardtanh", "ReLU6", "LogSigmoid", "Tanhshrink",
            "Hardshrink", "Dropout", "Identity", "LeakyReLU", "RReLU", "Softshrink",
        )
    },
    "softmax": one(lambda: nn.Softmax(-1)),
    "gelu, approximated": one(lambda: nn.GELU("tanh")),
    "glu": lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 3)),
    "threshold": one(lambda: nn.Threshold(0.1, 0.2)),
    "sin": abc(lambda m, x: m.c(torch.sin(m.b(torch.sin(m.a(x)))))),
    "by hand": abc(lambda m, x: m.c((h := m.a(x)) * torch.sigmoid(h))),
    "skipped later": abc(lambda m, x: m.c(torch.tanh(m.b(x)) if m.calls % 2 else x)),
    "skipped first": abc(lambda m, x: m.c(x if m.calls % 2 else torch.tanh(m.b(x)))),
    "never called": abc(lambda m, x: m.c(torch.relu(m.a(x)))),
    "without gradients": abc(without_gradients),
    "outside of the loss": abc(outside),
    "cut off": abc(lambda m, x: m.c(torch.relu(m.a(x)).detach())),
    "several times": abc(lambda m, x: m.c(torch.tanh(m.a(torch.tanh(m.a(x)))))),
    "two functions": abc(lambda m, x: m.c(torch.relu(m.a(torch.tanh(m.a(x)))))),
    "another each step": abc(lambda m, x: m.c((torch.relu, torch.tanh)[m.calls % 2](m.a(x)))),
    "frozen": lambda: nn.Sequential(frozen(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)),
    "frozen above": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), frozen(nn.Linear(8, 3))),
    "norms": sequential(
        lambda: nn.Linear(6, 8), lambda: nn.BatchNorm1d(8), nn.ReLU, lambda: nn.LayerNorm(8),
        lambda: nn.Linear(8, 3),
    ),
    "lstm": lambda: Of(
        lambda m, x: m.c(m.l(x[:, None])[0][:, -1]), l=nn.LSTM(6, 8, batch_first=True),
        c=nn.Linear(8, 3),
    ),
    "cell": lambda: Of(lambda m, x: m.c(m.l(x)), l=nn.GRUCell(6, 8), c=nn.Linear(8, 3)),
    "attention": lambda: Of(
        lambda m, x: m.c(m.l(x[:, None], x[:, None], x[:, None])[0][:, 0]),
        l=nn.MultiheadAttention(6, 2, batch_first=True), c=nn.Linear(6, 3),
    ),
    "transformer": lambda: Of(
        lambda m, x: m.c(m.l(x[:, None])[:, 0]),
        l=nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), c=nn.Linear(6, 3),
    ),
    "convolution": lambda: Of(
        lambda m, x: m.c(F.relu(F.max_pool1d(m.a(x[:, None]), 2)).flatten(1)),
        a=nn.Conv1d(1, 4, 3), c=nn.Linear(8, 3),
    ),
    "bilinear": lambda: Of(lambda m, x: m.a(x, x), a=nn.Bilinear(6, 6, 3)),
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)
    ),
    "raw": lambda: Of(
        lambda m, x: m.c(torch.relu(x @ m.w)), w=nn.Parameter(torch.randn(6, 6)), c=nn.Linear(6, 3)
    ),
    "raw, unused": lambda: Of(
        lambda m, x: m.c(x), w=nn.Parameter(torch.randn(6, 6)), c=nn.Linear(6, 3)
    ),
    "shared": lambda: (lambda m: (setattr(m.b, "weight", m.a.weight), m)[1])(
        abc(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))))()
    ),
    "checkpointed": abc(
        lambda m, x: m.c(checkpoint(lambda z: torch.tanh(m.a(z)), x, use_reentrant=False))
    ),
    "checkpointed, the old way": abc(
        lambda m, x: m.c(checkpoint(lambda z: torch.tanh(m.b(z)), m.a(x), use_reentrant=True))
    ),
    "compiled": lambda: torch.compile(one(nn.Tanh)(), backend="eager"),
    "not finite": abc(lambda m, x: m.c(torch.exp(1000 * m.a(x)))),
}  # fmt: skip


def torch_recorded(net, reference=None, how="", **settings):
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    owned = list(net.parameters())
    if how == "the last alone":
        owned = owned[-2:]
    sgd = torch.optim.SGD([p for p in owned if p.requires_grad] or owned, lr=0.01)
    given = (x, y) if reference else None
    with warnings.catch_warnings(), recording(net, sgd, given, **settings) as recorder:
        warnings.simplefilter("ignore")  # of models, about what they do
        for _ in range(3):
            sgd.zero_grad()
            loss = F.cross_entropy(net(x), y)
            if how == "nothing":
                loss = torch.zeros((), requires_grad=True)
            loss.backward()
            if how == "clipped":
                nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            sgd.step()
    return recorder


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_pytorch(kind, reference):
    torch.manual_seed(0)
    recorder = torch_recorded(MODELS[kind](), reference)
    assert not without_reason(recorder)
    if kind != "not finite":
        assert not unfounded(recorder)


@pytest.mark.parametrize("how", ["nothing", "the last alone", "clipped"])
@pytest.mark.parametrize("kind", ["ReLU", "frozen", "never called", "skipped later"])
def test_pytorch_trained_in_other_ways(kind, how):
    torch.manual_seed(0)
    with contextlib.suppress(RuntimeError):
        assert not without_reason(torch_recorded(MODELS[kind](), how=how))


# --- dp -------------------------------------------------------------------------------------------


class Students(dp.Model):
    """A model of a student's, whose layers are followed by what the test says."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last = self.Linear_Layer(6, 5, "first"), self.Linear_Layer(5, 1, "last")
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x))).sigmoid()

    def loss(self, x, y):
        return ((self.forward(x) - y).square()).sum()


FUNCTIONS = {
    "tanh": lambda h: h.tanh(),
    "identity": lambda h: h,
    "softmax": lambda h: h.softmax(),
    "by hand": lambda h: h * h.sigmoid(),
    "scaled": lambda h: (h * 2.0).tanh(),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_dp(function, reference, compiled):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6)), rng.integers(0, 2, (16, 1)).astype(float)
    model = Students(FUNCTIONS[function])
    sgd = dp.SGD(model, x, y, batch_size=8, compile=compiled)
    with recording(model, sgd, (x, y) if reference else None) as recorder:
        sgd.train(3, print_each=None)
    assert not without_reason(recorder)
    assert not unfounded(recorder)


# --- scikit-learn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("kind", ["two classes", "three classes", "labels", "values", "counts"])
def test_scikit_learn(kind, activation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4))
    settings = {"hidden_layer_sizes": (5, 5), "activation": activation, "random_state": 0}
    if kind in ("values", "counts"):
        y = rng.poisson(3, 30).astype(float)
        more = {"loss": "poisson"} if kind == "counts" else {}
        net = MLPRegressor(**settings, **more)
    else:
        y = rng.integers(0, 3 if kind == "three classes" else 2, 30)
        y = rng.integers(0, 2, (30, 3)) if kind == "labels" else y
        net = MLPClassifier(**settings)
    classes = {} if kind in ("values", "counts") else {"classes": np.unique(y)}
    if kind == "labels":
        classes = {"classes": np.arange(3)}
    with record_sklearn(net, quantities=QUANTITIES) as recorder:
        for _ in range(2):
            net.partial_fit(x, y, **classes)
    assert not without_reason(recorder)
    assert not unfounded(recorder)


# --- JAX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["everything", "no update", "no clipping", "no gradients"])
@pytest.mark.parametrize("activation", ["tanh", "softmax", None, jnp.sin])
def test_jax(given, activation):
    def loss_of(net, x, skip):
        h = gradiometer.jax.tap(x @ net["a"], "a", activation=activation)
        h = jnp.tanh(h)
        if not skip:
            h = jnp.tanh(gradiometer.jax.tap(h @ net["b"], "b"))
        gradiometer.jax.tap(h, "a tap alone")
        return jnp.sum(gradiometer.jax.tap(h, "another") ** 2) + jnp.sum(net["no tap"])

    rng = np.random.default_rng(0)
    net = {name: jnp.asarray(rng.normal(size=(4, 4))) for name in ("a", "b", "no tap")}
    x = jnp.asarray(rng.normal(size=(5, 4)))
    with gradiometer.jax.record(quantities=QUANTITIES) as recorder:
        for i in range(3):
            loss, grads = jax.value_and_grad(loss_of)(net, x, skip=i == 1)
            updated = jax.tree.map(lambda w, g: w - 0.1 * g, net, grads)
            clipped = None if given == "no clipping" else grads
            gradiometer.jax.tap_step(
                net,
                None if given == "no gradients" else grads,
                None if given == "no update" else updated,
                clipped=clipped,
                loss=loss,
            )
            net = updated
    assert not without_reason(recorder)
    assert not unfounded(recorder)
