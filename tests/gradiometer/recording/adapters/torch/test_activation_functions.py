"""Which function is taken for a layer's φ, in PyTorch: the right numbers, or the reason."""

import os

import numpy as np
import pytest

from gradiometer import record

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

F = nn.functional
pytestmark = pytest.mark.frameworks

OF_ACTIVATION = ("activation_mean", "activation_std", "dead_fraction")
UNSEEN = "what takes its output cannot be seen"
SEVERAL = "goes into several functions"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Between(nn.Module):
    """What lies between two layers is for the test to say."""

    def __init__(self, between, first=None, last=None):
        super().__init__()
        self.first = nn.Linear(6, 8) if first is None else first
        self.between = between
        self.last = nn.LazyLinear(3) if last is None else last

    def forward(self, x):
        return self.last(self.between(self.first(x)))


def train(net, x, y, steps=2, rate=0.1, **settings):
    net(x)  # lazy layers get their shapes
    sgd = torch.optim.SGD(net.parameters(), lr=rate)
    with record(net, sgd, **settings) as recorder:
        for _ in range(steps):
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    return recorder


def data(first=None):
    shape = (16, 2, 6, 6) if isinstance(first, nn.Conv2d) else (16, 6)
    return torch.randn(shape), torch.randint(0, 3, (16,))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h * torch.sigmoid(h)

    @staticmethod
    def backward(ctx, g):
        (h,) = ctx.saved_tensors
        s = torch.sigmoid(h)
        return g * (s + h * s * (1 - s))


class Plain(nn.Module):
    """A module of one's own around a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, h):
        return self.function(h)


def replaced(module, forward):
    """With a forward of the instance's own."""
    module.forward = forward
    return module


def logged(phi):
    """Looks at the output before and after, which no derivative goes through."""

    def between(h):
        with torch.no_grad():
            torch.sigmoid(h).mean()
        torch.tanh(h.detach()).std()
        (h > 0).float().mean()
        assert h.shape[0] == len(h)
        x = phi(h)
        torch.softmax(h.detach(), -1)
        return x

    return between


# what lies between, the function that is recorded, and φ
APPLIED = {
    "function": (torch.relu, "relu", torch.relu),
    "module of one's own": (Plain(torch.tanh), "tanh", torch.tanh),
    "looks": (logged(torch.relu), "relu", torch.relu),
    "nothing but looks": (logged(lambda h: h), "identity", lambda h: h),
    "clone": (lambda h: h.clone().relu_(), "relu", torch.relu),
    "view": (lambda h: torch.relu(h.view(4, 4, 8)).view(16, 8), "relu", torch.relu),
    "unflattened": (lambda h: F.relu(h.unflatten(1, (2, 4))).flatten(1), "relu", torch.relu),
    "transposed": (lambda h: torch.tanh(h.t()).t(), "tanh", torch.tanh),
    "T": (lambda h: torch.tanh(h.T).T, "tanh", torch.tanh),
    "a view in place": (lambda h: h.view(-1).relu_().view(16, 8), "relu", torch.relu),
    "modules": (nn.Sequential(nn.Unflatten(1, (2, 4)), nn.ReLU(), nn.Flatten()), "relu", F.relu),
    "half": (lambda h: torch.relu(h.double()).float(), "relu", torch.relu),
    "clamp": (lambda h: h.clamp(min=0), "relu", torch.relu),
    "clamp at both ends": (lambda h: h.clamp(-0.2, 0.3), "clamp", lambda h: h.clamp(-0.2, 0.3)),
    "clamp by tensors": (
        lambda h: h.clamp(min=torch.zeros(8)), "clamp", lambda h: h.clamp(min=0),
    ),
    "threshold": (nn.Threshold(0, 0), "relu", torch.relu),
    "periodic": (torch.sin, "sin", torch.sin),
    "squared": (lambda h: h**2, "pow", lambda h: h**2),
    "hardtanh from 0 to infinity": (nn.Hardtanh(0, float("inf")), "hardtanh", torch.relu),
    "a slope that is a tensor": (
        lambda h: F.leaky_relu(h, torch.tensor(0.3)), "leaky_relu", lambda h: F.leaky_relu(h, 0.3),
    ),
    "dropout that is off": (lambda h: torch.relu(F.dropout(h, 0.5, False)), "relu", torch.relu),
    "twice": (lambda h: torch.tanh(torch.relu(h)), "relu", torch.relu),
    "checkpointed": (
        lambda h: checkpoint(torch.relu, h, use_reentrant=False), "relu", torch.relu,
    ),
    "checkpointed, the old way": (
        lambda h: checkpoint(torch.relu, h, use_reentrant=True), "relu", torch.relu,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("case", APPLIED)
def test_a_function_is_measured(case, reference):
    between, name, phi = APPLIED[case]
    x, y = data()
    net = Between(between)
    recorder = train(net, x, y, rate=0.0, reference=(x, y) if reference else None)
    expected = phi(net.first(x)).detach().double()
    assert recorder.trace["activation"].values[0] == name
    for row in range(2):
        np.testing.assert_allclose(recorder["activation_mean"][row, 0], expected.mean(), rtol=1e-5)
        np.testing.assert_allclose(
            recorder["activation_std"][row, 0], expected.std(correction=0), rtol=1e-5
        )
        dead = (expected == 0).all(dim=0).double().mean()
        np.testing.assert_allclose(recorder["dead_fraction"][row, 0], dead)
    assert set(recorder.missing.get("first", {})) <= {"saturated_fraction"}


# what lies between, and why φ is missing
REFUSED = {
    "an autograd Function": (Swish.apply, f"{UNSEEN}: Swish, an autograd Function"),
    "a Function in a module": (Plain(Swish.apply), f"{UNSEEN}: Swish"),
    "where": (lambda h: torch.where(h > 0, h, 0.0), "goes into where"),
    "where, leaking": (lambda h: torch.where(h > 0, h, 0.1 * h), "goes into where"),
    "a mask": (lambda h: h * (h > 0), "goes into mul"),
    "a mask of floats": (lambda h: h * (h.detach() > 0).float(), "goes into mul"),
    "masked_fill": (lambda h: h.masked_fill(h < 0, 0), "goes into masked_fill"),
    "maximum": (lambda h: torch.maximum(h, torch.zeros_like(h)), "goes into maximum"),
    "max": (lambda h: torch.max(h, torch.zeros(())), "goes into max"),
    "swish by hand": (lambda h: h * torch.sigmoid(h), SEVERAL),
    "gelu by hand": (lambda h: 0.5 * h * (1 + torch.erf(h / 2**0.5)), "only after div"),
    "mish by hand": (lambda h: h * torch.tanh(F.softplus(h)), SEVERAL),
    "snake": (lambda h: h + torch.sin(h) ** 2, SEVERAL),
    "concatenated": (lambda h: torch.cat([F.relu(h), F.relu(-h)], -1), SEVERAL),
    "glu": (lambda h: F.glu(h), "goes into glu"),
    "GLU": (nn.GLU(), "goes into GLU"),
    "gates": (lambda h: h[:, :4] * torch.sigmoid(h[:, 4:]), "only after getitem"),
    "chunks": (lambda h: (lambda a, b: a * torch.sigmoid(b))(*h.chunk(2, -1)), "only after chunk"),
    "dropout": (lambda h: torch.relu(F.dropout(h, 0.5)), "relu is applied to it only after dropo"),
    "Dropout": (nn.Sequential(nn.Dropout(), nn.ReLU()), "relu is applied to it only after Dropout"),
    "a norm without weights": (
        nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.ReLU()), "only after BatchNorm1d",
    ),
    "layer_norm": (lambda h: torch.relu(F.layer_norm(h, (8,))), "only after layer_norm"),
    "scaled": (lambda h: torch.sin(30 * h), "sin is applied to it only after mul"),
    "shifted": (lambda h: torch.relu(h + 1), "only after add"),
    "a part": (lambda h: torch.relu(h[:, :4]), "only after getitem"),
    "written to": (lambda h: torch.tanh(h.mul_(2)), "only after mul"),
    "set": (lambda h: h.index_fill_(0, torch.tensor([0]), 0.0), "changed in place by index_fill"),
    "two": (lambda h: torch.relu(h) + torch.tanh(h), SEVERAL),
    "two views": (lambda h: torch.relu(h.view(16, 8)) + h.view(16, 8), SEVERAL),
    "a library's operation": (torch.ops.aten.relu, "goes into aten.relu"),
    "straight through": (lambda h: h + (torch.round(h) - h).detach(), SEVERAL),
}  # fmt: skip


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_function_of_the_output_alone_is_missing(case, reference):
    between, why = REFUSED[case]
    x, y = data()
    recorder = train(Between(between), x, y, reference=(x, y) if reference else None)
    assert recorder.trace["activation"].values[0] == "unknown"
    assert np.isnan(recorder["activation_mean"][:, 0]).all()
    assert np.isnan(recorder["saturated_fraction"][:, 0]).all()
    assert why in recorder.missing["first"]["activation_mean"]
    if not reference:
        assert np.isnan(recorder["dead_fraction"][:, 0]).all()
    elif np.isnan(recorder["dead_fraction"][:, 0]).any():
        assert recorder.missing["first"]["dead_fraction"]
    assert np.isfinite(recorder["delta_rms"]).all()


# as its own activation: sums with others, products, parts of it, losses
TAKEN = {
    "a skip connection": lambda h: torch.relu(h + torch.tanh(torch.randn(16, 8))),
    "joined": lambda h: torch.relu(torch.cat([h, torch.randn(16, 2)], -1)),
    "a product": lambda h: torch.relu(h @ torch.eye(8)),
    "attention": lambda h: F.scaled_dot_product_attention(h, h, h),
    "a part": lambda h: h[:, :4],
    "noise": lambda h: torch.relu(h + torch.randn_like(h) * torch.ones(8, requires_grad=True)),
    "the mean": lambda h: h.mean(0, keepdim=True).expand(16, 8) * 2,
    "nothing": lambda h: h,
    "reshaped": lambda h: h.view(4, 32).view(16, 8).contiguous(),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_made_into_something_else_is_its_own_activation(case):
    x, y = data()
    net = Between(TAKEN[case])
    recorder = train(net, x, y, rate=0.0)
    h = net.first(x).detach()
    assert recorder.trace["activation"].values[0] == "identity"
    np.testing.assert_allclose(recorder["activation_mean"][:, 0], h.double().mean(), rtol=1e-5)
    assert "first" not in recorder.missing


# --- convolutions ---------------------------------------------------------------------------------

POOLED = {
    "functions": lambda h: F.relu(F.max_pool2d(h, 2)).flatten(1),
    "modules": nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
    "averages": lambda h: torch.tanh(F.adaptive_avg_pool2d(h, 1)).flatten(1),
    "as in PyTorch's old example": lambda h: F.relu(F.max_pool2d(F.dropout2d(h), 2)).flatten(1),
}


@pytest.mark.parametrize("case", POOLED)
def test_a_function_after_a_pooling_is_missing(case):
    conv = nn.Conv2d(2, 5, 3)
    recorder = train(Between(POOLED[case], conv), *data(conv))
    assert np.isnan(recorder["activation_mean"][:, 0]).all()
    why = recorder.missing["first"]["activation_mean"].lower().replace("_", "")
    assert "is applied to it only after" in why
    assert "pool" in why or "dropout2d" in why


@pytest.mark.parametrize(
    "between",
    [
        lambda h: F.max_pool2d(F.relu(h), 2).flatten(1),
        lambda h: F.relu(h.permute(0, 2, 3, 1)).reshape(16, -1),
        lambda h: F.relu(h.flatten(2)).flatten(1),
        lambda h: F.relu(h.flatten(1)),
        nn.Sequential(nn.Flatten(), nn.ReLU()),
    ],
)
@pytest.mark.parametrize("reference", [False, True])
def test_units_of_a_moved_output_are_its_channels(between, reference):
    conv = nn.Conv2d(2, 5, 3)
    with torch.no_grad():
        conv.bias[:2] = -100.0  # dead
    x, y = data(conv)
    net = Between(between, conv)
    recorder = train(net, x, y, rate=0.0, reference=(x, y) if reference else None)
    h = conv(x).detach().double()
    np.testing.assert_allclose(recorder["dead_fraction"][:, 0], 0.4)
    np.testing.assert_allclose(recorder["activation_mean"][:, 0], F.relu(h).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        recorder["saturated_fraction"][:, 0], (h <= 0).double().mean(), rtol=1e-6
    )


# --- forwards that were replaced ------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["layer", "function"])
def test_a_forward_that_was_replaced_on_the_instance(kind, late):
    x, y = data()
    net = Between(nn.ReLU(), last=nn.Linear(8, 3))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    def replace():
        if kind == "layer":
            replaced(net.first, lambda x: F.linear(torch.sin(x), net.first.weight, net.first.bias))
        else:
            replaced(net.between, lambda h: torch.tanh(h))

    if not late:
        replace()
    with record(net, sgd) as recorder:
        if late:
            replace()
        for _ in range(2):
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    if kind == "function":
        assert recorder.trace["activation"].values[0] == "tanh"
    else:
        assert np.isnan(recorder["activation_mean"][:, 0]).all()
        assert np.isnan(recorder["delta_rms"][:, 0]).all()
        assert "replaced on the instance" in recorder.missing["first"]["delta_rms"]
        assert np.isfinite(recorder["grad_rms"]).all()


def test_an_activation_module_that_is_given_something_else():
    """A hook of the user's changes what the module is given."""
    x, y = data()
    net = Between(nn.Tanh())
    net.between.register_forward_pre_hook(lambda _, args: (2 * args[0],))
    recorder = train(net, x, y)
    assert "tanh is applied to it only after mul" in recorder.missing["first"]["activation_mean"]


# --- models that are called in other ways ---------------------------------------------------------


def test_functional_calls_and_models_that_are_compiled():
    x, y = data()
    net = Between(nn.Tanh(), last=nn.Linear(8, 3))
    sgd = torch.optim.SGD(net.parameters(), lr=0.0)
    compiled = torch.compile(net, backend="eager")
    expected = torch.tanh(net.first(x)).detach().double().mean()
    for call in (lambda: functional_call(net, dict(net.named_parameters()), (x,)),
                 lambda: compiled(x)):  # fmt: skip
        with record(net, sgd) as recorder:
            F.cross_entropy(call(), y).backward()
            sgd.step()
        np.testing.assert_allclose(recorder["activation_mean"][0, 0], expected, rtol=1e-5)


def test_a_model_that_is_mapped_over_is_missing():
    x, y = data()
    net = Between(nn.Tanh(), last=nn.Linear(8, 3))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd) as recorder:
        F.cross_entropy(torch.func.vmap(net)(x), y).backward()
        sgd.step()
    assert np.isnan(recorder["activation_mean"]).all()
    assert "torch.func" in recorder.missing["first"]["activation_mean"]
    assert np.isfinite(recorder["grad_rms"]).all()


# --- frozen layers --------------------------------------------------------------------------------


class Backbone(nn.Module):
    """A part of it runs without gradients."""

    def __init__(self, mode, frozen):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU())
        self.body.requires_grad_(not frozen)
        self.head, self.mode = nn.Linear(8, 3), mode

    def forward(self, x):
        with self.mode():
            z = self.body(x)
        return self.head(z.clone())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("looks", [False, True])
def test_layers_that_run_without_gradients_have_activations(mode, frozen, looks):
    x, y = data()
    net = Backbone(mode, frozen)
    sgd = torch.optim.SGD(net.head.parameters(), lr=0.1)
    with record(net, sgd) as recorder:
        for _ in range(2):
            if looks:
                with torch.no_grad():
                    net(100 * x)
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    with torch.no_grad():
        first = net.body[:2](x).double()
        second = net.body(x).double()
    np.testing.assert_allclose(recorder["activation_mean"][:, 0], first.mean(), rtol=1e-5)
    np.testing.assert_allclose(recorder["activation_mean"][:, 1], second.mean(), rtol=1e-5)
    roles = list(recorder.trace["role"].values)
    assert roles == [*(["frozen" if frozen else "unreached"] * 2), "trained"]
    assert recorder.missing["body.0"]["delta_rms"].startswith("neither it nor any layer before it")


def test_a_look_without_gradients_beside_a_trained_call_does_not_count():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            with torch.no_grad():
                target = torch.tanh(self.a(10 * x)).mean()
            return self.b(torch.tanh(self.a(x))) + target

    x, y = data()
    net = Twice()
    recorder = train(net, x, y, rate=0.0)
    expected = torch.tanh(net.a(x)).detach().double().mean()
    np.testing.assert_allclose(recorder["activation_mean"][:, 0], expected, rtol=1e-5)
