"""What is recorded of PyTorch models is what plain code finds, however they are trained."""

import contextlib
import copy
import gc
import os
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.recording import RecordingError
from gradiometer.recording.measure import PER_LAYER

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from gradiometer.recording.adapters.torch import arrays

F = nn.functional
pytestmark = pytest.mark.frameworks

X = np.random.default_rng(0).normal(size=(24, 4))
Y = np.random.default_rng(1).integers(0, 3, 24)


@pytest.fixture(autouse=True)
def _double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def batch():
    return torch.from_numpy(X), torch.from_numpy(Y)


def rms(values):
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def found_by_hand(h, x, delta, gradient, before, after, saturated, units=-1):
    """Every quantity of one layer, from its arrays, by the words of their definitions."""
    h, x, delta, gradient, before, after = (
        np.asarray(t.detach()) for t in (h, x, delta, gradient, before, after)
    )
    per_unit = np.moveaxis(x, units, -1).reshape(-1, x.shape[units])
    return {
        "grad_mean_abs": np.mean(np.abs(gradient)),
        "grad_rms": rms(gradient),
        "grad_zero_fraction": np.mean(gradient == 0),
        "clip_factor": 1,
        "delta_rms": rms(delta),
        "activation_mean": np.mean(x),
        "activation_std": np.std(x),
        "saturated_fraction": np.mean(saturated(h)),
        "dead_fraction": np.mean((per_unit == 0).all(axis=0)),
        "weight_rms": rms(before),
        "update_ratio": rms(after - before) / rms(before),
        "nonfinite_count": 0,
    }


def agree(recorder, step, expected, layers=None, rtol=1e-9):
    """Compare a recorded step with quantities by layer."""
    trace = recorder.trace
    for layer, quantities in expected.items():
        if layers is None or layer in layers:
            for name, value in quantities.items():
                np.testing.assert_allclose(
                    trace[name].sel(step=step, layer=layer),
                    value,
                    rtol=rtol,
                    atol=1e-14,
                    err_msg=f"{name} of {layer}, step {step}",
                )


def same(one, other, names=PER_LAYER, rtol=1e-9, but=()):
    """Compare two recorders, or traces."""
    one, other = (getattr(found, "trace", found) for found in (one, other))
    assert list(one["step"].values) == list(other["step"].values)
    for name in (*names, "loss"):
        if name not in but:
            np.testing.assert_allclose(
                one[name].values, other[name].values, rtol=rtol, atol=1e-13, err_msg=name
            )


# --- one net, written out -------------------------------------------------------------------------

SLOPES = {
    "sigmoid": lambda h: np.exp(-h) / (1 + np.exp(-h)) ** 2 < 0.0125,
    "tanh": lambda h: 1 - np.tanh(h) ** 2 < 0.05,
    "relu": lambda h: h <= 0,
    "clipped_relu": lambda h: (h <= 0) | (h >= 6),
    "leaky_relu": lambda h: h <= 0,
    "elu": lambda h: (h < 0) & (np.exp(h) < 0.05),
    "selu": lambda h: (h < 0) & (np.exp(h) < 0.05),
    "silu": lambda h: dp.activations.get("silu").saturated(h),
    "gelu": lambda h: dp.activations.get("gelu").saturated(h),
    "softplus": lambda h: 1 / (1 + np.exp(-h)) < 0.05,
    "identity": lambda h: np.zeros(h.shape, bool),
}
WAYS = {
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit],
    "tanh": [nn.Tanh(), torch.tanh, F.tanh, torch.Tensor.tanh],
    "relu": [
        nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.relu_, torch.Tensor.relu,
        lambda h: F.relu(h, inplace=True), lambda h: h.clamp(min=0),
        lambda h: torch.clamp_min(h, 0),
    ],
    "clipped_relu": [nn.ReLU6(), nn.Hardtanh(0, 6), F.relu6, lambda h: h.clamp(0, 6)],
    "leaky_relu": [nn.LeakyReLU(), nn.LeakyReLU(inplace=True), F.leaky_relu],
    "elu": [nn.ELU(), F.elu],
    "selu": [nn.SELU(), F.selu, torch.selu],
    "silu": [nn.SiLU(), F.silu],
    "gelu": [nn.GELU(), F.gelu],
    "softplus": [nn.Softplus(), F.softplus],
    "identity": [nn.Identity(), lambda h: h],
}  # fmt: skip


class Net(nn.Module):
    """Two hidden layers and an output of logits; φ is a module or a function."""

    def __init__(self, phi, width=6):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)
        self.phi = phi

    def forward(self, x):
        return self.last(self.phi(self.second(self.phi(self.first(x)))))


NAMES = ["first", "second", "last"]


def step_by_hand(net, x, y, rate, saturated, reduction="mean"):
    """One step of SGD, without gradiometer, on a copy of the net's parameters."""
    w = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    phi = copy.deepcopy(net.phi)
    if isinstance(phi, nn.Module) and getattr(phi, "inplace", False):
        phi.inplace = False
    h, x_of, below = {}, {}, x
    for name in NAMES:
        h[name] = below @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        x_of[name] = below = phi(h[name].clone()) if name != "last" else h[name]
    loss = F.cross_entropy(h["last"], y, reduction=reduction)
    deltas = torch.autograd.grad(loss, list(h.values()), retain_graph=True)
    gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))
    after = {name: w[name] - rate * gradients[name] for name in w}
    return loss.item(), {
        name: found_by_hand(
            h[name], x_of[name], delta, gradients[key := f"{name}.weight"], w[key], after[key],
            saturated if name != "last" else SLOPES["identity"],
        )
        for name, delta in zip(NAMES, deltas, strict=True)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "way"), [(name, i) for name, ways in WAYS.items() for i in range(len(ways))]
)
def test_every_quantity_and_way_to_apply_a_function(name, way, batch):
    net = Net(WAYS[name][way])
    with torch.no_grad():
        net.first.bias[:2] += torch.tensor([-20.0, 20.0])  # one dead unit, one at its end
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    expected, losses = [], []
    with record(net, sgd) as recorder:
        for _ in range(3):
            loss, quantities = step_by_hand(net, *batch, 0.1, SLOPES[name])
            expected.append(quantities)
            losses.append(loss)
            sgd.zero_grad()
            F.cross_entropy(net(batch[0]), batch[1]).backward()
            sgd.step()
    for step, quantities in enumerate(expected, 1):
        agree(recorder, step, quantities)
    np.testing.assert_allclose(recorder["loss"], losses, rtol=1e-12)
    trace = recorder.trace
    assert list(trace["layer"].values) == NAMES
    assert list(trace["activation"].values) == [name, name, "identity"]
    assert list(trace["fan_in"].values) == [4, 6, 6]
    assert list(trace["fan_out"].values) == [6, 6, 3]
    assert recorder.missing == {}
    if name == "relu":
        assert trace["dead_fraction"].sel(layer="first")[0] >= 1 / 6


def train(net, batch, steps=3, optimizer=None, loop=None, loss=F.cross_entropy, **settings):
    """Train and record; `loop(net, optimizer, batch)` makes one step."""
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=0.1)

    def usual(net, optimizer, batch):
        optimizer.zero_grad()
        loss(net(batch[0]), batch[1]).backward()
        optimizer.step()

    with record(net, optimizer, **settings) as recorder:
        for _ in range(steps):
            (loop or usual)(net, optimizer, batch)
    return recorder


def test_recording_changes_nothing(batch):
    """Not the training, nor the random stream, nor running statistics, nor the modes."""

    def made():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
        )
        net[0].eval()
        return net

    plain, watched = made(), made()
    torch.manual_seed(5)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        sgd.zero_grad()
        F.cross_entropy(plain(batch[0]), batch[1]).backward()
        sgd.step()
    torch.manual_seed(5)
    recorder = train(watched, batch, reference=batch, histograms=True)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key
    assert [m.training for m in plain.modules()] == [m.training for m in watched.modules()]
    assert np.isfinite(recorder["accuracy"]).all()
    assert recorder["grad_log10_histogram"].sum(axis=-1)[0].tolist() == [24, 6, 18]


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x):
        return self.head(self.features(x))


def test_convolutions_and_normalisation():
    net = Convolutions()
    x, y = torch.randn(5, 1, 12, 12), torch.randint(0, 3, (5,))
    copied, kept = copy.deepcopy(net), {}
    for name in ["features.0", "features.1", "features.2", "features.4", "features.5", "head"]:

        def keep(module, args, output, name=name):
            output.retain_grad()
            kept[name] = output

        copied.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        for model in (net, copied):
            model.features[1].bias[1] = -50  # a dead feature map
    F.cross_entropy(copied(x), y).backward()
    recorder = train(net, (x, y), steps=1)
    of = {
        "features.0": ("features.0", "features.0", SLOPES["identity"]),
        "features.1": ("features.1", "features.2", SLOPES["relu"]),
        "features.4": ("features.4", "features.5", SLOPES["tanh"]),
        "head": ("head", "head", SLOPES["identity"]),
    }
    for layer, (h, phi, saturated) in of.items():
        weight = copied.get_submodule(layer).weight
        quantities = found_by_hand(
            kept[h], kept[phi], kept[h].grad, weight.grad, weight, weight - 0.1 * weight.grad,
            saturated, units=1,
        )  # fmt: skip
        agree(recorder, 1, {layer: quantities})
    assert list(recorder.trace["layer"].values) == list(of)
    assert list(recorder.trace["activation"].values) == ["identity", "relu", "tanh", "identity"]
    assert list(recorder.trace["fan_in"].values) == [9, 4, 18, 54]
    assert recorder["dead_fraction"][0, 1] == 0.25


# --- training as it is really done ----------------------------------------------------------------


def test_gradient_accumulation_is_one_large_batch(batch):
    together = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)

    def in_parts(net, optimizer, batch):
        optimizer.zero_grad()
        for part in torch.arange(24).split(6):
            (F.cross_entropy(net(batch[0][part]), batch[1][part]) / 4).backward()
        optimizer.step()

    same(together, train(Net(nn.ReLU()), batch, loop=in_parts))


@pytest.mark.parametrize("zero", ["none", "zeros"])
def test_what_was_thrown_away_does_not_count(batch, zero):
    """A backward pass whose gradients are cleared before the step is no part of it."""
    alone = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)

    def with_a_false_start(net, optimizer, batch):
        F.cross_entropy(net(100 * batch[0]), batch[1]).backward()
        optimizer.zero_grad(set_to_none=zero == "none")
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=zero == "none")

    same(alone, train(Net(nn.ReLU()), batch, loop=with_a_false_start))


def test_before_and_after_clipping(batch):
    free = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)

    def clipped(net, optimizer, batch):
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.01)
        optimizer.norm = float(norm)
        optimizer.step()

    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = train(net, batch, steps=1, optimizer=sgd, loop=clipped)
    same(free, recorder, but=["clip_factor", "update_ratio"])
    np.testing.assert_allclose(recorder["clip_factor"], 0.01 / sgd.norm, rtol=1e-5)
    np.testing.assert_allclose(
        recorder["update_ratio"], free["update_ratio"] * 0.01 / sgd.norm, rtol=1e-5
    )


@pytest.mark.parametrize("unscale", [False, True])
def test_scaled_losses_are_reported_unscaled(batch, unscale):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)

    def scaled(net, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    same(plain, train(Net(nn.ReLU()), batch, loop=scaled))


def test_a_step_that_the_scaler_skips_is_no_step(batch):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    rounds = iter([False, True, False])
    overflowed = []

    def sometimes(net, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        if overflow := next(rounds):
            net.first.weight.grad[0, 0] = np.inf
        overflowed.append(overflow)
        scaler.step(optimizer)
        scaler.update()

    recorder = train(Net(nn.ReLU()), batch, loop=sometimes)
    assert overflowed == [False, True, False]
    torch.manual_seed(0)
    same(train(Net(nn.ReLU()), batch, steps=2), recorder)


def test_autocast(batch):
    torch.set_default_dtype(torch.float32)
    x = batch[0].float()

    def under_autocast(net, optimizer, batch):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), batch[1])
        loss.backward()
        optimizer.step()

    net = Net(nn.ReLU())
    twin = copy.deepcopy(net)
    recorder = train(net, batch, steps=1, loop=under_autocast)
    with torch.autocast("cpu", torch.bfloat16):
        h = twin.first(x)
        h.retain_grad()
        assert h.dtype == torch.bfloat16
        loss = F.cross_entropy(twin.last(F.relu(twin.second(F.relu(h)))), batch[1])
    loss.backward()
    np.testing.assert_allclose(recorder["delta_rms"][0, 0], rms(h.grad.double()), rtol=1e-5)
    np.testing.assert_allclose(
        recorder["activation_mean"][0, 0], F.relu(h).detach().double().mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        recorder["grad_rms"][0, 0], rms(twin.first.weight.grad.double()), rtol=1e-5
    )
    assert recorder.missing == {}


class Hidden(nn.Module):
    """Both hidden layers, with the activation functions inside."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))))


class Checkpointed(nn.Module):
    def __init__(self, how, reentrant):
        super().__init__()
        self.hidden = Hidden() if how != "modules" else nn.Sequential()
        if how == "modules":
            for name, module in Hidden().named_children():
                self.hidden.add_module(name, module)
                self.hidden.add_module(f"{name}_phi", nn.ReLU(inplace=True))
        self.last = nn.Linear(6, 3)
        self.how, self.reentrant = how, reentrant

    def forward(self, x):
        def one_by_one(x):
            for module in self.hidden:
                x = module(x)
            return x

        hidden = self.hidden if self.how == "module" else one_by_one
        if self.how == "function":
            hidden = lambda x: self.hidden.forward(x)  # noqa: E731
        return self.last(checkpoint(hidden, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("how", ["module", "modules", "function"])
def test_checkpointing_counts_nothing_twice(batch, how, reentrant):
    plain = train(Net(nn.ReLU()), batch).trace
    torch.manual_seed(0)
    x = batch[0].clone().requires_grad_(reentrant)  # which otherwise gives no gradients
    recorder = train(Checkpointed(how, reentrant), (x, batch[1]))
    names = ["hidden.first", "hidden.second", "last"]
    found = recorder.trace.dataset.sel(layer=names)
    blind = []
    if how == "function" and reentrant:  # the functions are called outside of any module
        blind = ["activation_mean", "activation_std", "saturated_fraction", "dead_fraction"]
        assert "outside the model's forward" in recorder.missing["hidden.first"]["dead_fraction"]
    else:
        assert recorder.missing == {}
        assert list(found["activation"].values) == ["relu", "relu", "identity"]
    for name in PER_LAYER:
        layers = [2] if name in blind else [0, 1, 2]
        np.testing.assert_allclose(
            found[name][:, layers], plain[name][:, layers], rtol=1e-9, atol=1e-14, err_msg=name
        )
        if name in blind:
            assert np.isnan(found[name][:, :2]).all()


class Recurrent(nn.Module):
    """One cell, called at every moment."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(4 + 5, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        state = x.new_zeros(len(x), 5)
        for _ in range(4):
            state = torch.tanh(self.cell(torch.cat([x, state], dim=1)))
        return self.out(state)


def test_a_layer_that_is_called_several_times(batch):
    net = Recurrent()
    w = copy.deepcopy(net)
    h, state = [], torch.zeros(24, 5)
    for _ in range(4):
        h.append(w.cell(torch.cat([batch[0], state], dim=1)))
        h[-1].retain_grad()
        state = torch.tanh(h[-1])
    F.cross_entropy(w.out(state), batch[1]).backward()
    recorder = train(net, batch, steps=1)
    weight = w.cell.weight
    agree(
        recorder,
        1,
        {
            "cell": found_by_hand(
                torch.cat(h), torch.tanh(torch.cat(h)), torch.cat([t.grad for t in h]),
                weight.grad, weight, weight - 0.1 * weight.grad, SLOPES["tanh"],
            )
        },
    )  # fmt: skip


def test_shared_weights(batch):
    """Both layers that use a weight report its gradient, which is of the sum."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    net[2].weight = net[0].weight
    twin = copy.deepcopy(net)
    F.cross_entropy(twin(batch[0]), batch[1]).backward()
    recorder = train(net, batch, steps=1)
    assert list(recorder.trace["layer"].values) == ["0", "2", "4"]
    np.testing.assert_allclose(recorder["grad_rms"][0, :2], rms(twin[0].weight.grad), rtol=1e-12)
    assert recorder["delta_rms"][0, 0] != recorder["delta_rms"][0, 1]


def test_frozen_layers_have_activations_and_no_gradients(batch):
    free = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    net.first.requires_grad_(False)
    net.last.weight.requires_grad_(False)
    recorder = train(net, batch, steps=1)
    for name in ["activation_mean", "activation_std", "saturated_fraction", "dead_fraction"]:
        np.testing.assert_allclose(recorder[name], free[name])
    for name in ["grad_rms", "clip_factor"]:
        assert np.isnan(recorder[name][0]).tolist() == [True, False, True]
    assert np.isnan(recorder["delta_rms"][0]).tolist() == [True, False, False]
    assert recorder["update_ratio"][0, [0, 2]].tolist() == [0, 0]


class Two_Heads(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.other = nn.Linear(6, 3)
        self.use_other = False

    def forward(self, x):
        inner = self.phi(self.second(self.phi(self.first(x))))
        return (self.other if self.use_other else self.last)(inner)


def test_a_layer_without_a_gradient_in_a_step_is_missing_there(batch):
    net = Two_Heads()
    turns = iter([False, True, False])

    def turn(net, optimizer, batch):
        net.use_other = next(turns)
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    trace = train(net, batch, loop=turn).trace
    assert list(trace["layer"].values) == [*NAMES, "other"]
    for name in ["grad_rms", "delta_rms", "activation_mean", "dead_fraction"]:
        assert np.isnan(trace[name].sel(layer="last")).values.tolist() == [False, True, False]
        assert np.isnan(trace[name].sel(layer="other")).values.tolist() == [True, False, True]
    assert trace["update_ratio"].sel(layer="other").values[[0, 2]].tolist() == [0, 0]
    assert list(trace["activation"].values) == ["relu", "relu", "identity", "identity"]


@pytest.mark.parametrize("how", ["module", "in place", "function"])
def test_compiled_models(batch, how):
    plain = train(Net(nn.ReLU()), batch, steps=5, every=2)
    torch.manual_seed(0)
    torch._dynamo.reset()
    compiled_runs = []

    def backend(graph, _inputs):
        def run(*args):
            compiled_runs.append(1)
            return graph(*args)

        return run

    net = Net(nn.ReLU())
    loop = None
    if how == "module":
        net = torch.compile(net, backend=backend)
    elif how == "in place":
        net.compile(backend=backend)
    else:
        compute = torch.compile(lambda x, y: F.cross_entropy(net(x), y), backend=backend)

        def loop(net, optimizer, batch):
            optimizer.zero_grad()
            compute(*batch).backward()
            optimizer.step()

    recorder = train(net, batch, steps=5, every=2, loop=loop)
    same(plain, recorder)
    assert list(recorder.trace["layer"].values) == NAMES
    assert compiled_runs, "steps that are not recorded run compiled"


class Threads(nn.Module):
    """Data parallel, as wrappers do it: parts of the batch, in threads, on the same weights."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        parts, found = x.chunk(3), [None] * 3

        def run(i):
            found[i] = self.module(parts[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return torch.cat(found)


@pytest.mark.parametrize("wrapper", [nn.DataParallel, Threads])
def test_data_parallel_wrappers(batch, wrapper):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    recorder = train(wrapper(Net(nn.ReLU())), batch)
    same(plain, recorder)
    assert list(recorder.trace["layer"].values) == NAMES


def test_distributed_data_parallel(batch):
    """Gradients are measured when they have been averaged, and before they are clipped."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def loop(model, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(batch[0]), batch[1])).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scaler.step(optimizer)
        scaler.update()

    def halved(_, bucket):  # as if another process had no gradient
        future = torch.futures.Future()
        future.set_result(bucket.buffer() / 2)
        return future

    plain = train(Net(nn.ReLU()), batch, loop=loop)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for which in ("wrapper", "module"):
            torch.manual_seed(0)
            net = Net(nn.ReLU())
            model = nn.parallel.DistributedDataParallel(net)
            model.register_comm_hook(None, halved)
            sgd = torch.optim.SGD(net.parameters(), lr=0.1)
            with record(model if which == "wrapper" else net, sgd) as recorder:
                for _ in range(3):
                    loop(model, sgd, batch)
            np.testing.assert_allclose(recorder["grad_rms"], plain["grad_rms"] / 2, rtol=1e-5)
            np.testing.assert_allclose(recorder["clip_factor"], plain["clip_factor"] * 2, rtol=1e-4)
            assert recorder.missing == {}
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("no_grad", [True, False])
def test_looks_at_validation_data_do_not_count(batch, no_grad):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)

    def validating(net, optimizer, batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        net.eval()
        with torch.no_grad() if no_grad else contextlib.nullcontext():
            net(100 * batch[0])
        net.train()
        loss.backward()
        net(7 * batch[0])
        optimizer.step()

    same(plain, train(Net(nn.ReLU()), batch, loop=validating))


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "before the step"])
def test_exceptions_in_a_training_loop(batch, where):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    failing = [True]

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("in backward")

    def loop(net, optimizer, batch):
        if failing:
            failing.clear()
            handle = None
            if where == "forward":

                def fail(*_):
                    raise RuntimeError("in forward")

                handle = net.second.register_forward_hook(fail)
            with pytest.raises(RuntimeError):  # noqa: PT012
                try:
                    out = net(50 * batch[0])
                    if where == "loss":
                        raise RuntimeError
                    if where == "backward":
                        out = out + Fails.apply(net.first.weight).sum()
                    F.cross_entropy(out, batch[1]).backward()
                    raise RuntimeError
                finally:
                    if handle is not None:
                        handle.remove()
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    same(plain, train(net, batch, loop=loop))


def test_an_exception_ends_the_block_and_keeps_what_was_recorded(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(KeyError), record(net, sgd) as recorder:  # noqa: PT012
        for step in range(5):
            sgd.zero_grad()
            F.cross_entropy(net(batch[0]), batch[1]).backward()
            if step == 2:
                raise KeyError
            sgd.step()
    assert list(recorder.trace["step"].values) == [1, 2]
    assert nothing_is_left(net)


def nothing_is_left(net):
    module = torch.nn.modules.module
    optimizer = sys.modules["torch.optim.optimizer"]
    hooks = [
        module._global_forward_hooks, module._global_forward_pre_hooks,
        module._global_forward_hooks_always_called,
        optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks,
        *(m._forward_hooks for m in net.modules()), *(m._backward_hooks for m in net.modules()),
        *(p._backward_hooks or {} for p in net.parameters()),
        *(p._post_accumulate_grad_hooks or {} for p in net.parameters()),
    ]  # fmt: skip
    untouched = torch.autograd.backward.__module__ == "torch.autograd"
    return untouched and not any(hooks)


def test_modules_are_watched_only_for_what_needs_them(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    hooks = torch.nn.modules.module._global_forward_hooks

    def watched(*quantities):
        with record(net, sgd, quantities=("grad_rms", *quantities)) as recorder:
            for _ in range(3):
                sgd.zero_grad()
                F.cross_entropy(net(batch[0]), batch[1]).backward()
                sgd.step()
            still = bool(hooks)
        assert nothing_is_left(net)
        return still, list(recorder.trace["layer"].values)

    with_deltas, order = watched("delta_rms")
    assert with_deltas
    assert watched("activation_mean") == (True, order)
    assert watched("update_ratio") == (False, order)  # the first step has shown the order


def test_nothing_stays_behind(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    outputs = []
    with record(net, sgd, reference=batch) as recorder:
        for _ in range(2):
            sgd.zero_grad()
            out = net(batch[0])
            outputs.append(weakref.ref(out))
            F.cross_entropy(out, batch[1]).backward()
            sgd.step()
        assert not nothing_is_left(net)
        held = net(batch[0])  # a pass that never gets a backward pass
        outputs.append(weakref.ref(held))
    assert nothing_is_left(net)
    assert not held.grad_fn.metadata
    references = [weakref.ref(net), *map(weakref.ref, net.parameters()), *outputs]
    trace = recorder.trace
    del net, sgd, out, held, recorder
    gc.collect()
    assert [r() for r in references] == [None] * len(references)
    assert trace["loss"].shape == (2,)


def test_without_garbage_collection_a_step_keeps_no_tensor(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    gc.collect()
    gc.disable()
    try:
        with record(net, sgd):
            sgd.zero_grad()
            out = net(batch[0])
            alive = weakref.ref(out)
            F.cross_entropy(out, batch[1]).backward()
            sgd.step()
            del out
            assert alive() is None
    finally:
        gc.enable()


def test_detach_and_attach_again(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    def steps(count):
        for _ in range(count):
            sgd.zero_grad()
            F.cross_entropy(net(batch[0]), batch[1]).backward()
            sgd.step()

    recorder = record(net, sgd)
    recorder.attach()
    steps(2)
    recorder.detach()
    steps(3)
    recorder.detach()  # a second time does no harm
    recorder.attach()
    steps(1)
    with pytest.raises(RuntimeError, match="recording already"):
        recorder.attach()
    recorder.detach()
    assert recorder.trace["step"].values.tolist() == [1, 2, 3]
    torch.manual_seed(0)
    whole = train(Net(nn.ReLU()), batch, steps=6)
    np.testing.assert_allclose(recorder["grad_rms"], whole["grad_rms"][[0, 1, 5]])


def test_two_recorders_at_once_ended_in_any_order(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    one, two = record(net, sgd), record(net, sgd, every=2)
    one.attach()
    two.attach()
    for _ in range(3):
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
    one.detach()
    assert not nothing_is_left(net)
    two.detach()
    assert nothing_is_left(net)
    np.testing.assert_array_equal(one["grad_rms"][::2], two["grad_rms"])


def test_copies_and_pickles_of_a_recorded_model(batch, tmp_path):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd) as recorder:
        copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        torch.save(net, tmp_path / "net.pt")
        loaded = torch.load(tmp_path / "net.pt", weights_only=False)
        for other in (copied, pickled, loaded):  # used beside it, they are not mixed up with it
            F.cross_entropy(other(50 * batch[0]), batch[1]).backward()
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
    torch.manual_seed(0)
    same(train(Net(nn.ReLU()), batch, steps=1), recorder, but=["loss"])
    for other in (copied, pickled, loaded):
        assert nothing_is_left(other)


# --- other ways to make a step --------------------------------------------------------------------


def test_before_step_and_after_step(batch):
    plain = train(Net(nn.ReLU()), batch, reference=batch)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    recorder = record(net, reference=batch)
    for _ in range(3):
        recorder.before_step()
        net.zero_grad()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        with torch.no_grad():  # an optimiser of one's own
            for p in net.parameters():
                p -= 0.1 * p.grad
        recorder.after_step()
        assert nothing_is_left(net)
    same(plain, recorder)
    np.testing.assert_array_equal(plain["accuracy"], recorder["accuracy"])


def test_the_callback_form_is_told_the_loss(batch):
    net = Net(nn.ReLU())
    recorder = record(net)
    recorder.before_step()
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    recorder.after_step(loss=2.5)
    assert recorder["loss"].tolist() == [2.5]
    with pytest.raises(RuntimeError, match=r"after_step\(\) without before_step\(\)"):
        recorder.after_step()
    with record(net) as other, pytest.raises(RuntimeError, match="sees the optimizer's steps"):
        other.before_step()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "LBFGS"])
def test_closures(batch, kind):
    def made():
        torch.manual_seed(0)
        net = Net(nn.Tanh())
        settings = {"max_iter": 1} if kind == "LBFGS" else {}
        return net, getattr(torch.optim, kind)(net.parameters(), lr=0.1, **settings)

    net, optimizer = made()
    plain = train(net, batch, optimizer=optimizer) if kind != "LBFGS" else None

    def with_closure(net, optimizer, batch):
        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(net(batch[0]), batch[1])
            loss.backward()
            return loss

        optimizer.step(closure)

    net, optimizer = made()
    recorder = train(net, batch, optimizer=optimizer, loop=with_closure)
    if plain is not None:
        same(plain, recorder)
    torch.manual_seed(0)
    _, first = step_by_hand(Net(nn.Tanh()), *batch, 0.1, SLOPES["tanh"])
    for quantities in first.values():
        del quantities["update_ratio"]
    agree(recorder, 1, first)


@pytest.mark.parametrize(
    "kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "Rprop", "ASGD"]
)
def test_update_ratio_for_any_optimizer(batch, kind):
    net = Net(nn.ReLU())
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.01)
    before = net.first.weight.detach().clone()
    recorder = train(net, batch, steps=1, optimizer=optimizer)
    change = rms((net.first.weight - before).detach())
    np.testing.assert_allclose(recorder["update_ratio"][0, 0], change / rms(before), rtol=1e-9)
    assert change > 0


def test_of_several_optimizers_only_ones_own_counts(batch):
    net, other = Net(nn.ReLU()), Net(nn.ReLU())
    sgd, another = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (net, other))

    def both(net, optimizer, batch):
        for n, o in ((other, another), (net, sgd)):
            o.zero_grad()
            F.cross_entropy(n(batch[0]), batch[1]).backward()
            o.step()

    with record(net) as recorder:
        for _ in range(2):
            both(net, sgd, batch)
    assert recorder["grad_rms"].shape == (2, 3)
    torch.manual_seed(0)
    same(train(Net(nn.ReLU()), batch, steps=2), recorder, but=["loss"])


def test_gradients_of_inputs_do_not_count(batch):
    """A gradient penalty asks for gradients on the way, and goes back through them."""

    def by_hand():
        torch.manual_seed(0)
        net = Net(nn.Tanh())
        x = batch[0].clone().requires_grad_()
        h = net.first(x)
        out = net.last(torch.tanh(net.second(torch.tanh(h))))
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        loss = F.cross_entropy(out, batch[1]) + slope.square().sum()
        return map(rms, torch.autograd.grad(loss, [h, net.first.weight]))

    def penalised(net, optimizer, batch):
        optimizer.zero_grad()
        x = batch[0].clone().requires_grad_()
        out = net(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        (F.cross_entropy(out, batch[1]) + slope.square().sum()).backward()
        optimizer.step()

    torch.manual_seed(0)
    recorder = train(Net(nn.Tanh()), batch, steps=1, loop=penalised)
    delta, gradient = by_hand()
    np.testing.assert_allclose(recorder["delta_rms"][0, 0], delta, rtol=1e-9)
    np.testing.assert_allclose(recorder["grad_rms"][0, 0], gradient, rtol=1e-9)


def test_two_backward_passes_through_one_call_are_refused(batch):
    def twice(net, optimizer, batch):
        optimizer.zero_grad()
        out = net(batch[0])
        F.cross_entropy(out, batch[1]).backward(retain_graph=True)
        out.square().mean().backward()
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, steps=1, loop=twice)
    assert np.isnan(recorder["delta_rms"]).all()
    assert np.isfinite(recorder["grad_rms"]).all()
    assert "two backward passes" in recorder.missing["first"]["delta_rms"]


# --- what changes during the training -------------------------------------------------------------


def clipped(net, optimizer, batch):
    optimizer.zero_grad()
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    seen = [rms(p.grad) if p.grad is not None else np.nan for p in weights_of(net)]
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)
    optimizer.step()
    return seen


def weights_of(net):
    return [net.first.weight, net.second.weight, net.last.weight]


@pytest.mark.parametrize("change", ["unfrozen", "frozen", "weight", "dtype", "loaded", "pruned"])
def test_weights_that_change_between_steps(batch, change):
    """Their gradients are still measured before they are clipped."""
    net = Net(nn.ReLU())
    net.first.requires_grad_(change != "unfrozen")
    x, expected = batch[0], []
    with record(net) as recorder:
        for step in range(4):
            if step == 2:
                if change == "weight":
                    net.first.weight = nn.Parameter(2 * net.first.weight.detach())
                elif change == "dtype":
                    net.float()
                    x = x.float()
                elif change == "loaded":
                    net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True)
                elif change == "pruned":
                    prune.l1_unstructured(net.first, "weight", amount=0.5)
                else:
                    net.first.requires_grad_(change == "unfrozen")
            sgd = torch.optim.SGD(net.parameters(), lr=0.1)
            if change == "pruned" and step >= 2:
                sgd.zero_grad()
                F.cross_entropy(net(x), batch[1]).backward()
                sgd.step()
                expected.append([np.nan, *recorder["grad_rms"][-1, 1:]])
            else:
                expected.append(clipped(net, sgd, (x, batch[1])))
    np.testing.assert_allclose(recorder["grad_rms"], expected, rtol=1e-6)
    has = np.isfinite(expected)
    assert (np.isfinite(recorder["clip_factor"]) == has).all()
    if change == "pruned":
        assert np.isnan(recorder["weight_rms"][2:, 0]).all()
        assert "not a parameter any more" in recorder.missing["first"]["weight_rms"]
    else:
        assert (recorder["clip_factor"][has] < 0.1).all()
        reasons = {why for part in recorder.missing.values() for why in part.values()}
        told = ["it is frozen", "no gradient is computed there"] if "frozen" in change else []
        assert all(any(why.endswith(words) for words in told) for why in reasons), reasons
        assert bool(reasons) == ("frozen" in change)


def test_a_module_that_is_replaced_is_missing_from_then_on(batch):
    net = Net(nn.ReLU())
    with record(net) as recorder:
        for step in range(3):
            if step == 1:
                net.last = nn.Linear(6, 3)
            clipped(net, torch.optim.SGD(net.parameters(), lr=0.1), batch)
    for name in ["grad_rms", "weight_rms", "update_ratio", "delta_rms", "activation_mean"]:
        assert np.isnan(recorder[name][:, 2]).tolist() == [False, True, True], name
        assert np.isfinite(recorder[name][:, :2]).all()
    assert "was replaced" in recorder.missing["last"]["weight_rms"]


def test_a_layer_whose_function_changes_is_missing_where_it_differs(batch):
    net = Net(nn.ReLU())

    functions = iter([nn.ReLU(), nn.Tanh(), nn.Tanh()])

    def loop(net, optimizer, batch):
        net.phi = next(functions)
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    recorder = train(net, batch, loop=loop)
    assert np.isnan(recorder["activation_mean"][:, 0]).tolist() == [False, True, True]
    assert np.isfinite(recorder["delta_rms"]).all()


# --- gradients and losses of something else -------------------------------------------------------


@pytest.mark.parametrize("quantities", [None, ["loss"], ["loss", "delta_rms"]])
@pytest.mark.parametrize("frozen", [False, True])
def test_only_losses_that_reach_the_model_count(batch, quantities, frozen):
    """Whichever of its parameters are trained, and whoever else trains beside it."""
    net, other = Net(nn.ReLU()), Net(nn.ReLU())
    if frozen:
        for weight in weights_of(net):
            weight.requires_grad_(False)

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        other(batch[0]).sum().backward()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        loops.append(loss.item())
        loss.detach().mul_(100)  # added up, say
        other(batch[0]).sum().backward()
        optimizer.step()

    loops = []
    recorder = train(net, batch, loop=loop, quantities=quantities)
    np.testing.assert_allclose(recorder["loss"], loops)


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.Linear(4, 4)
        self.d = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))


def test_two_networks_that_are_trained_in_turns(batch):
    """Each step has the gradients that came in it; none is left from the step before."""
    net, x = Gan(), batch[0]
    for_g, for_d = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (net.g, net.d))
    losses = []
    with record(net) as both, record(net.d, for_d) as one:
        for _ in range(2):
            for_g.zero_grad()
            loss = F.softplus(-net.d(net.g(x))).mean()
            loss.backward()
            losses.append(loss.item())
            for_g.step()
            for_d.zero_grad()
            real = F.softplus(-net.d(x)).mean()
            real.backward()
            fake = F.softplus(net.d(net.g(x).detach())).mean()
            fake.backward()
            losses.append(real.item() + fake.item())
            of_d = [rms(net.d[0].weight.grad), rms(net.d[2].weight.grad)]
            for_d.step()
    np.testing.assert_allclose(both["loss"], losses)
    np.testing.assert_allclose(one["loss"], losses[1::2])
    np.testing.assert_allclose(one["grad_rms"][-1], of_d)
    np.testing.assert_allclose(both["grad_rms"][-1], [np.nan, *of_d])
    # what the generator's loss adds to the discriminator's old gradients
    assert np.isnan(both["grad_rms"]).tolist() == [
        [False, False, False], [True, False, False], [False, True, True], [True, False, False]
    ]  # fmt: skip
    assert "no backward pass reached it" in both.missing["g"]["grad_rms"]
    assert "were not cleared" in both.missing["d.0"]["grad_rms"]


def test_gradients_that_nobody_clears_are_missing(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.last.parameters(), lr=0.0)
    recorder = train(net, batch, optimizer=sgd)
    assert np.isnan(recorder["grad_rms"]).tolist() == [[False] * 3, *[[True, True, False]] * 2]
    np.testing.assert_allclose(recorder["delta_rms"], recorder["delta_rms"][[0, 0, 0]])


def test_a_batch_with_zero_gradients_is_part_of_the_step(batch):
    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        (0 * net(3 * batch[0]).sum() + 5).backward()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()

    half = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)
    recorder = train(Net(nn.ReLU()), batch, steps=1, loop=loop)
    np.testing.assert_allclose(recorder["loss"], half["loss"] + 5)
    np.testing.assert_allclose(recorder["delta_rms"], half["delta_rms"] / np.sqrt(2))


def test_gradients_that_are_replaced_are_told_from_those_measured(batch):
    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        for p in net.parameters():
            p.grad = 0.5 * p.grad
            p.grad = 0.5 * p.grad  # perhaps where the first one lay
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    np.testing.assert_allclose(recorder["clip_factor"], 0.25)


def test_gradients_by_autograd_grad_under_a_scaler(batch):
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def loop(net, optimizer, batch):
        loss = scaler.scale(F.cross_entropy(net(batch[0]), batch[1]))
        given = torch.autograd.grad(loss, list(net.parameters()))
        for p, gradient in zip(net.parameters(), given, strict=True):
            p.grad = gradient
        scaler.step(optimizer)
        scaler.update()

    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    same(plain, recorder, names=["grad_rms", "grad_mean_abs", "update_ratio"], but=["loss"])
    assert np.isnan(recorder["clip_factor"]).all()
    assert "only the one used in the step is known" in recorder.missing["first"]["clip_factor"]


@pytest.mark.parametrize("manual", [False, True])
def test_steps_that_a_scaler_or_a_fused_optimizer_skips(batch, manual):
    plain = train(Net(nn.ReLU()), batch, steps=1)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, fused=not manual)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    recorder = record(net, sgd)
    if not manual:
        recorder.attach()
    for overflow in (True, False):
        if manual:
            recorder.before_step()
        sgd.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        if overflow:
            net.first.bias.grad[0] = np.inf
        scaler.step(sgd)
        scaler.update()
        if manual:
            recorder.after_step()
    recorder.detach()
    assert nothing_is_left(net)
    for name in ["loss", "grad_rms", "delta_rms", "update_ratio"]:
        np.testing.assert_allclose(recorder[name][-1], plain[name][0], rtol=1e-9)
    if manual:  # a step it is, since it is said to be
        np.testing.assert_allclose(recorder["loss"], plain["loss"][[0, 0]])
        np.testing.assert_allclose(recorder["grad_rms"], plain["grad_rms"][[0, 0]])
        assert (recorder["update_ratio"][0] == 0).all()
    else:
        assert recorder.n_steps == 1


# --- threads, interrupts, and others who hook -----------------------------------------------------


def test_models_that_are_trained_in_threads_at_once(batch):
    plain = train(Net(nn.ReLU()), batch, steps=40)
    torch.manual_seed(0)
    nets = [Net(nn.ReLU())]
    nets += [copy.deepcopy(nets[0]) for _ in range(3)]
    found = {}

    def run(i):
        found[i] = train(nets[i], batch, steps=40)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for recorder in found.values():
        same(plain, recorder)
        assert recorder.missing == {}
    assert nothing_is_left(nets[0])


@pytest.mark.parametrize("inside", ["nothing", "outer", "inner"])
def test_an_interrupt_leaves_no_mode_behind(batch, inside):
    class Interrupts(nn.Module):
        def forward(self, x):
            with torch.device("cpu") if inside == "inner" else contextlib.nullcontext():
                raise KeyboardInterrupt

    net = nn.Sequential(nn.Linear(4, 6), Interrupts())
    with pytest.raises(KeyboardInterrupt), record(net):  # noqa: SIM117
        with torch.device("cpu") if inside == "outer" else contextlib.nullcontext():
            net(batch[0])
    assert torch.overrides._get_current_function_mode_stack() == []
    assert nothing_is_left(net)


@pytest.mark.parametrize("everywhere", [False, True])
def test_backward_hooks_of_the_user(batch, everywhere):
    """They hand a view of each output on."""
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    if everywhere:
        handle = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    else:
        handle = net.second.register_full_backward_hook(lambda *_: None)
    x = batch[0].clone().requires_grad_()
    try:
        same(plain, train(net, (x, batch[1])))
    finally:
        handle.remove()


def test_a_function_on_top_of_backward(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    original = torch.autograd.backward
    recorder = record(net, sgd)
    recorder.attach()
    below = torch.autograd.backward
    torch.autograd.backward = lambda *args, **kwargs: below(*args, **kwargs)
    try:
        recorder.detach()
        recorder.attach()
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
        assert np.isfinite(recorder["loss"]).all()
    finally:
        torch.autograd.backward = below
        recorder.detach()
    assert torch.autograd.backward is original


def test_a_recorder_that_is_forgotten_while_it_is_attached(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    record(net, sgd).attach()
    gc.collect()
    assert nothing_is_left(net)
    for _ in range(2):
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()


# --- what cannot be had ---------------------------------------------------------------------------


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return torch.relu(x @ self.matrix)


def test_modules_whose_inside_cannot_be_seen(batch):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 8)
            self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            z = self.lstm(self.embed(x))[0]
            return self.out(self.norm(z + self.attention(z, z, z)[0])[:, -1])

    net = Sequence()
    recorder = train(net, (torch.randint(0, 10, (5, 7)), torch.randint(0, 3, (5,))), steps=2)
    trace = recorder.trace
    assert list(trace["layer"].values) == [
        "embed", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l1",
        "lstm.weight_hh_l1", "attention", "attention.out_proj", "norm", "out",
    ]  # fmt: skip
    assert np.isfinite(trace["grad_rms"]).all()
    assert np.isfinite(trace["update_ratio"]).all()
    hidden = [name for name in trace["layer"].values if "lstm" in name or name == "attention"]
    for layer in trace["layer"].values:
        for name in ["delta_rms", "activation_std"]:
            assert np.isnan(trace[name].sel(layer=layer)).all() == (layer in hidden), layer
    assert recorder.missing["lstm.weight_ih_l0"]["delta_rms"] == (
        "what LSTM computes inside cannot be seen"
    )
    assert "lstm" in trace.attrs["missing"]


def test_modules_of_ones_own_are_not_guessed_at(batch):
    net = nn.Sequential(Custom(), nn.Linear(6, 3))
    recorder = train(net, batch, steps=1)
    assert np.isfinite(recorder["grad_rms"]).all()
    assert np.isnan(recorder["delta_rms"][0]).tolist() == [True, False]
    assert "Custom" in recorder.missing["0"]["delta_rms"]


@pytest.mark.parametrize("kind", ["parametrizations", "old"])
def test_parametrized_weights(batch, kind):
    norm = nn.utils.parametrizations.weight_norm if kind == "parametrizations" else None
    with contextlib.nullcontext() if norm else pytest.warns(FutureWarning):
        norm = norm or nn.utils.weight_norm
        net = nn.Sequential(norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3))
    recorder = train(net, batch, steps=1)
    assert list(recorder.trace["layer"].values) == ["0", "2"]
    assert np.isnan(recorder["grad_rms"][0]).tolist() == [True, False]
    assert np.isfinite(recorder["delta_rms"]).all()
    assert np.isfinite(recorder["activation_std"]).all()
    assert "parametrized" in recorder.missing["0"]["grad_rms"]


def test_an_output_that_is_changed_in_place(batch):
    """Measured before it is changed where that is seen, and refused where it is not."""

    class Residual(Net):
        def forward(self, x):
            below = F.relu(self.first(x))
            h = self.second(below)
            h += below
            z = self.last(F.relu(h))
            z[:, 0] = 0
            return z

    torch.manual_seed(0)
    net = Residual(nn.ReLU())
    twin = copy.deepcopy(net)
    recorder = train(net, batch, steps=1)
    h = twin.second(F.relu(twin.first(batch[0])))
    np.testing.assert_allclose(recorder["activation_std"][0, 1], h.detach().numpy().std())
    assert np.isnan(recorder["activation_std"][0, 2])
    assert "changed in place" in recorder.missing["last"]["activation_std"]
    assert list(recorder.trace["activation"].values) == ["relu", "identity", "unknown"]


def test_functions_that_the_table_does_not_know(batch):
    recorder = train(Net(nn.Mish()), batch, steps=1)
    assert list(recorder.trace["activation"].values) == ["mish", "mish", "identity"]
    assert np.isnan(recorder["saturated_fraction"][0]).tolist() == [True, True, False]
    assert np.isfinite(recorder["activation_std"]).all()


class Branches(nn.Module):
    """What becomes of the first layer's output is for the test to say."""

    def __init__(self, branch):
        super().__init__()
        self.first, self.last, self.phi = nn.Linear(4, 6), nn.Linear(6, 3), nn.ReLU()
        self.branch = branch

    def forward(self, x):
        return self.last(self.branch(self.first(x), self.phi))


class Unseen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        with torch._C.DisableTorchFunction():
            return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    ("branch", "why"),
    [
        (lambda h, phi: 2 * h + phi(h), "goes into several functions"),
        (lambda h, phi: phi(h) + h, "goes into several functions"),
        (lambda h, phi: F.relu(h) * torch.sigmoid(h), "goes into several functions"),
        (lambda h, _: Unseen.apply(h), "what takes its output cannot be seen"),
    ],
)
def test_outputs_whose_activation_function_is_not_one_that_is_seen(batch, branch, why):
    recorder = train(Branches(branch), batch)
    assert np.isnan(recorder["activation_mean"][:, 0]).all()
    assert np.isfinite(recorder["delta_rms"]).all()
    assert why in recorder.missing["first"]["activation_mean"]


def test_modules_that_apply_a_function(batch):
    """Also those with a weight, and through nn.Identity, which is no function."""
    for phi in (nn.PReLU(), nn.Threshold(0.1, 0.2), nn.Sequential(nn.Identity(), nn.Tanh())):
        net = nn.Sequential(nn.Linear(4, 6), phi, nn.Linear(6, 3))
        x = net[:2](batch[0]).detach().numpy()
        trace = train(net, batch, steps=1).trace.dataset.sel(step=1, layer="0")
        np.testing.assert_allclose(trace["activation_mean"], x.mean())
        np.testing.assert_allclose(trace["activation_std"], x.std())
        assert trace["activation"] == {"Sequential": "tanh"}.get(
            type(phi).__name__, type(phi).__name__.lower()
        )


def test_complex_weights_are_missing(batch):
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6, dtype=torch.complex128)
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.first(x.to(torch.complex128)).abs())

    recorder = train(Complex(), batch)
    trace = recorder.trace
    for name in ["grad_rms", "weight_rms", "update_ratio", "delta_rms", "activation_mean"]:
        assert np.isnan(trace[name].sel(layer="first")).all()
        assert np.isfinite(trace[name].sel(layer="last")).all()
        assert "complex" in recorder.missing["first"][name]


def test_gradients_of_torch_func(batch):
    def loop(net, optimizer, batch):
        def loss(parameters, x, y):
            out = torch.func.functional_call(net, parameters, (x[None],))
            return F.cross_entropy(out, y[None])

        parameters = {name: p.detach() for name, p in net.named_parameters()}
        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, *batch)
        for name, p in net.named_parameters():
            p.grad = each[name].mean(dim=0)
        optimizer.step()

    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    same(plain, recorder, names=["grad_rms", "update_ratio", "weight_rms"], but=["loss"])
    assert np.isnan(recorder["delta_rms"]).all()
    assert "torch.func" in recorder.missing["first"]["delta_rms"]


def test_shapes_of_nothing_and_of_one_sample(batch):
    empty = train(Net(nn.ReLU()), (batch[0][:0], batch[1][:0]), loss=lambda out, _: out.sum())
    assert np.isnan(empty["activation_mean"]).all()
    assert (empty["grad_rms"] == 0).all()
    with pytest.warns(UserWarning, match="zero-element"):
        net = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 3))
    recorder = train(net, (batch[0][:, :0], batch[1]))
    assert list(recorder.trace["layer"].values) == ["1"]
    net = nn.Sequential(nn.InstanceNorm1d(4, affine=True), nn.ReLU())
    with torch.no_grad():
        net[0].bias[1] = -100
    recorder = train(net, (torch.randn(4, 9), None), loss=lambda out, _: out.sum())
    assert recorder["dead_fraction"][0, 0] == 0.25  # without a batch axis


def test_losses_that_are_not_one_number(batch):
    def loss(out, y):
        return F.cross_entropy(out, y, reduction="none")

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        loss(net(batch[0]), batch[1]).backward(torch.ones(24))
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, loop=loop)
    assert np.isnan(recorder["loss"]).all()
    assert "not one number" in recorder.missing["(model)"]["loss"]


# --- the reference batch --------------------------------------------------------------------------


@pytest.mark.parametrize("quantities", [None, ["accuracy"], ["accuracy", "grad_rms"]])
@pytest.mark.parametrize(
    "end",
    [
        [nn.Sigmoid()],
        [nn.Sigmoid(), nn.Flatten(0)],
        [],
        [nn.Flatten(0)],
        [nn.Flatten(0), nn.Sigmoid()],
    ],
)
def test_accuracy_of_probabilities_and_of_logits(batch, quantities, end):
    """All are above 0, so that a logit is class 1, and a probability below 0.5 class 0."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1), *end)
    probabilities = any(isinstance(module, nn.Sigmoid) for module in end)
    with torch.no_grad():
        net[2].weight *= 0.01
        net[2].bias[:] = -0.3 if probabilities else 0.3
    y = (batch[1] > 0).double()
    recorder = train(
        net, batch, steps=2, loss=lambda out, _: out.sum() * 0, reference=(batch[0], y),
        quantities=quantities,
    )  # fmt: skip
    share = float((y == (0 if probabilities else 1)).double().mean())
    np.testing.assert_allclose(recorder["accuracy"], share)


@pytest.mark.parametrize("out", [lambda h: h.mean(), lambda h: {"h": h}, lambda h: h[:3]])
def test_outputs_that_have_no_accuracy(batch, out):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            return out(self.layer(x))

    def loss(given, _):
        return (given["h"] if isinstance(given, dict) else given).sum()

    recorder = train(Odd(), batch, loss=loss, reference=(batch[0], batch[1] > 0))
    assert np.isnan(recorder["accuracy"]).all()


def test_a_look_at_the_reference_batch_calls_no_eval(batch):
    class Merges(nn.Linear):
        """As adapters of low rank do."""

        def train(self, mode=True):
            if self.training and not mode:
                self.weight.data += 1
            return super().train(mode)

    net = nn.Sequential(Merges(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    before = net[0].weight.detach().clone()
    sgd = torch.optim.SGD(net.parameters(), lr=0.0)
    train(net, batch, optimizer=sgd, reference=batch)
    assert torch.equal(net[0].weight, before)
    assert all(module.training for module in net.modules())


def test_layers_called_outside_the_model(batch):
    net = Net(nn.ReLU())

    def by_parts(net, optimizer, batch):
        optimizer.zero_grad()
        h = F.relu(net.first(batch[0]))
        F.cross_entropy(net.last(F.relu(net.second(h))), batch[1]).backward()
        optimizer.step()

    recorder = train(net, batch, steps=1, loop=by_parts)
    assert np.isnan(recorder["activation_std"]).all()
    assert np.isfinite(recorder["delta_rms"]).all()
    assert "outside the model's forward" in recorder.missing["first"]["activation_std"]


def test_bad_input(batch):
    net = Net(nn.ReLU())
    with pytest.raises(TypeError, match=r"cannot record int; expected a dp\.Model or a torch"):
        record(3)
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, got str; .*before_step"):
        record(net, "sgd")
    with pytest.raises(RecordingError, match="updates none of the weights of this Net"):
        record(net, torch.optim.SGD(Net(nn.ReLU()).parameters(), lr=0.1))
    with pytest.raises(RecordingError, match="ReLU owns no weights"):
        record(nn.ReLU())
    with pytest.raises(RecordingError, match="module '0' has no shape yet; call the model"):
        record(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match=r"max_overhead must be a share of the time.*got 5"):
        record(net, max_overhead=5)
    with record(net) as recorder:
        pass
    with pytest.raises(ValueError, match="nothing has been recorded yet"):
        _ = recorder.trace


def test_two_optimizers_make_one_step(batch):
    together = train(Net(nn.ReLU()), batch, steps=3)
    torch.manual_seed(0)

    def made():
        torch.manual_seed(0)
        net = Net(nn.ReLU())
        hidden = [*net.first.parameters(), *net.second.parameters()]
        return net, [torch.optim.SGD(p, lr=0.1) for p in (hidden, net.last.parameters())]

    def step(net, optimizers, batch):
        net.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        for optimizer in optimizers:
            optimizer.step()

    net, both = made()
    same(together, train(net, batch, steps=3, optimizer=both, loop=step))
    net, both = made()
    every = train(net, batch, steps=3, optimizer=both, loop=step, every=2)
    assert every.trace["step"].values.tolist() == [1, 3]
    net, both = made()
    with record(net) as unnamed:  # the second one's step, with the same gradients, is not counted
        for _ in range(3):
            step(net, both, batch)
    np.testing.assert_allclose(unnamed["grad_rms"], together["grad_rms"])
    assert "name both" in unnamed.missing["(model)"]["update_ratio"]
    assert "nonfinite_step" not in unnamed.trace.attrs
    assert np.isnan(unnamed["update_ratio"]).tolist() == [[False, False, True]] * 3
    assert "does not update it" in unnamed.missing["last"]["update_ratio"]


# --- what a trace of it says ----------------------------------------------------------------------


class Parts(nn.Module):
    """Layers whose part in the training is not the usual one."""

    def __init__(self, cut=False):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4))
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.pooler = nn.Linear(6, 6)
        self.cut = cut

    def forward(self, x):
        h = torch.tanh(self.first(x + self.position))
        return self.head(torch.tanh(self.second(h.detach() if self.cut else h)))


def test_layers_outside_the_forward_pass_are_not_its_ends(batch):
    trace = train(Parts(), batch, steps=1).trace
    roles = dict(zip(trace["layer"].values, trace["role"].values, strict=True))
    assert roles == {
        "first": "trained", "second": "trained", "head": "trained",
        "position": "outside", "pooler": "outside",
    }  # fmt: skip
    assert "from 'head' to 'first'" in trace.sentence()


def test_a_cut_graph_and_frozen_layers_are_told(batch):
    recorder = train(Parts(cut=True), batch, steps=1)
    assert recorder.trace.sentence() == (
        "No gradient reaches 'first': the first layer that gets one is 'second'."
    )
    assert "no backward pass reached it" in recorder.missing["first"]["grad_rms"]
    net = Parts()
    net.first.requires_grad_(False)
    net.position.requires_grad_(False)
    recorder = train(net, batch, steps=1)
    assert "from 'head' to 'second'" in recorder.trace.sentence()
    assert recorder.missing["first"]["grad_rms"] == "it is frozen"


@pytest.mark.parametrize("how", ["forgotten", "no_grad", "by hand", "no number"])
def test_a_loss_that_was_not_told_is_no_divergence(batch, how):
    net = Net(nn.Tanh())

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        with torch.set_grad_enabled(how != "no_grad"):
            out = net(batch[0])
        if how == "by hand":
            loss = F.cross_entropy(out, batch[1])
            for p, g in zip(
                net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
            ):
                p.grad = g
        if how == "no number":
            out.backward(torch.ones_like(out))
        optimizer.step()

    recorder = train(net, batch, steps=2, loop=loop)
    trace = recorder.trace
    assert np.isnan(trace["loss"]).all()
    assert "nonfinite_step" not in trace.attrs
    assert "loss" in recorder.missing["(model)"]
    if how in ("forgotten", "no_grad"):
        assert "was backward() called" in trace.sentence()
    else:
        assert "from 'last' to 'first'" in trace.sentence()


def test_gradients_that_were_cleared_before_the_step(batch):
    def loop(net, optimizer, batch):
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.zero_grad()
        optimizer.step()

    recorder = train(Net(nn.Tanh()), batch, steps=2, loop=loop)
    assert "cleared before the optimizer's step" in recorder.missing["first"]["clip_factor"]
    assert (recorder["update_ratio"] == 0).all()


def test_backward_passes_without_a_step_are_told(batch):
    net = Net(nn.Tanh())
    with record(net) as recorder:
        F.cross_entropy(net(batch[0]), batch[1]).backward()
    with pytest.raises(ValueError, match=r"no step of an optimizer .* call before_step\(\)"):
        _ = recorder.trace


# --- how much, and where --------------------------------------------------------------------------


def test_tensors_elsewhere_are_measured_there_and_brought_back_once_a_step(batch, monkeypatch):
    here = train(Net(nn.ReLU()), batch, reference=batch)
    torch.manual_seed(0)
    monkeypatch.setattr(arrays, "in_memory", lambda _: False)
    transfers = []
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: transfers.append(1) or cat(parts))
    net = Net(nn.ReLU())
    monkeypatch.setattr(
        "gradiometer.recording.adapters.torch.recorder.accuracy", lambda *_: torch.tensor(0.5)
    )
    there = train(net, batch, reference=batch)
    same(here, there, rtol=1e-6)  # shares in single precision
    assert len(transfers) == 3


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18])
def test_small_and_large_numbers_in_single_precision(batch, size):
    torch.set_default_dtype(torch.float32)
    net = nn.Sequential(nn.Linear(4, 3))

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        (net(batch[0].float()).sum() * size).backward()
        optimizer.step()

    recorder = train(net, batch, steps=1, loop=loop)
    expected = rms(np.tile(X.sum(axis=0) * size, (3, 1)))
    np.testing.assert_allclose(recorder["grad_rms"][0, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(recorder["delta_rms"][0, 0], size, rtol=1e-4)


def test_non_finite_values_are_counted_and_placed(batch):
    net = Net(nn.ReLU())
    with torch.no_grad():
        net.second.weight[0, 0] = np.nan
    recorder = train(net, batch, steps=1)
    assert recorder.trace.attrs["nonfinite_layer"] == "second"
    assert recorder.trace.attrs["nonfinite_in"] == "activation"
    assert np.isnan(recorder["dead_fraction"][0, 1])
    assert (recorder["nonfinite_count"] > 0).all()


def test_chosen_quantities_and_every_kth_step(batch):
    full = train(Net(nn.ReLU()), batch, steps=5)
    torch.manual_seed(0)
    few = train(Net(nn.ReLU()), batch, steps=5, every=2, quantities=["grad_rms", "loss"])
    assert few.quantities == ("grad_rms", "loss")
    assert few.trace["step"].values.tolist() == [1, 3, 5]
    np.testing.assert_array_equal(few["grad_rms"], full["grad_rms"][::2])
    for name in PER_LAYER:
        torch.manual_seed(0)
        one = train(Net(nn.ReLU()), batch, steps=2, quantities=[name])
        np.testing.assert_array_equal(one[name], full[name][:2], err_msg=name)


@pytest.fixture
def _one_thread():
    """On a busy machine threads wait for each other, so that steps are slow and recording cheap."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_a_budget_thins_out_the_steps(batch):
    net = Net(nn.ReLU())
    recorder = train(net, batch, steps=400, max_overhead=0.05)
    steps = recorder.trace["step"].values
    assert steps[0] == 1
    assert 1 < len(steps) < 200
    assert 0 < recorder.overhead < 0.2
    assert recorder.trace.attrs["recording_overhead"] == pytest.approx(recorder.overhead, rel=0.01)


def test_losses_that_are_computed_inside_the_model(batch):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net(nn.ReLU())

        def forward(self, x, y):
            return F.cross_entropy(self.net(x), y)

    def loop(model, optimizer, batch):
        optimizer.zero_grad()
        model(*batch).backward()
        optimizer.step()

    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    recorder = train(Whole(), batch, loop=loop)
    same(plain, recorder)
    assert recorder.missing == {}


# --- networks drawn at random ---------------------------------------------------------------------


OF_ONE_PASS = ["grad_rms", "delta_rms", "activation_mean", "activation_std", "dead_fraction"]


class Drawn(nn.Module):
    """Layers in a row, some shared, repeated, frozen, or checkpointed; some are left out later."""

    def __init__(self, seed):
        super().__init__()
        draw = np.random.default_rng(seed)
        self.into, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
        self.layers, self.functions, self.plan = nn.ModuleList(), nn.ModuleDict(), []
        for i in range(draw.integers(1, 6)):
            kind = draw.choice(["linear", "linear", "norm", "batch norm", "again", "shared"])
            if kind != "again" or not i:
                made = {"norm": nn.LayerNorm, "batch norm": nn.BatchNorm1d}.get(kind)
                layer = made(6) if made else nn.Linear(6, 6)
                if kind == "shared" and i and isinstance(self.layers[0], nn.Linear):
                    layer.weight = self.layers[0].weight
                self.layers.append(layer.requires_grad_(bool(draw.random() > 0.2)))
            phi = draw.choice(["relu", "tanh", "sigmoid", "identity"])
            way = draw.choice(["module", "function", "in place"]) if phi != "identity" else "module"
            if way == "module":
                self.functions[str(i)] = copy.deepcopy(WAYS[phi][0])
            after = draw.choice(["", "residual", "added in place", "branch", "checkpoint"])
            j = int(draw.integers(i + 1)) if kind == "again" else len(self.layers) - 1
            self.plan.append((min(j, len(self.layers) - 1), phi, way, after, draw.random() < 0.3))

    def forward(self, x, step, calls=None):
        """With `calls`, of plain code: (name, h, x) of each call of a layer."""

        def through(name, phi, z):
            h = self.get_submodule(name)(z)
            if calls is None:
                return phi(h)
            if h.requires_grad:
                h.retain_grad()
            x = phi(h.clone())
            calls.append((name, h, x.detach().clone()))
            return x

        z = through("into", torch.sin, x)
        for i, (j, phi, way, after, only_first) in enumerate(self.plan):
            if only_first and step >= 2:
                continue
            of = self.functions[str(i)] if way == "module" else WAYS[phi][1]
            of = getattr(torch, f"{phi}_") if way == "in place" else of
            if after == "checkpoint" and calls is None:
                y = checkpoint(through, f"layers.{j}", of, z, use_reentrant=False)
            else:
                y = through(f"layers.{j}", of, z)
            if after == "residual":
                y = y * 1.0 + z
            elif after == "added in place":
                y = y * 2
                y += z
            elif after == "branch":
                y = y * 1.0 + 0.3 * torch.cos(z)
            z = y * 1.5
        return through("out", lambda h: h, z)


@pytest.mark.parametrize("seed", range(20))
def test_networks_drawn_at_random(seed):
    """No number is wrong; some may be missing."""
    draw = np.random.default_rng(seed + 1000)
    torch.manual_seed(seed)
    net = Drawn(seed)
    twin = copy.deepcopy(net)
    sgd, plain = (torch.optim.SGD(n.parameters(), lr=0.05, momentum=0.9) for n in (net, twin))
    parts, clip, to_none, look = draw.integers(1, 3), *(draw.random(3) < 0.5)
    every, expected, known = int(draw.integers(1, 3)), [], 0
    with record(net, sgd, every=every) as recorder:
        for step in range(5):
            batches = [(torch.randn(5, 4), torch.randint(0, 3, (5,))) for _ in range(parts)]
            calls, loss = [], 0.0
            for optimizer, model, kept in ((plain, twin, calls), (sgd, net, None)):
                optimizer.zero_grad(set_to_none=bool(to_none) or model is twin)
                for x, y in batches:
                    if look:
                        model.eval()
                        with torch.no_grad():
                            model(x, step)
                        model.train()
                    part = F.cross_entropy(model(x, step, kept), y)
                    part.backward()
                    loss += part.item() / 2
                if model is twin:
                    named = twin.named_parameters(remove_duplicate=False)
                    gradients = {key: p.grad.clone() for key, p in named if p.grad is not None}
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.05)
                optimizer.step()
            expected.append((loss, gradients, calls))
    np.testing.assert_allclose(recorder["loss"], [loss for loss, *_ in expected[::every]])
    for row, (_, gradients, calls) in enumerate(expected[::every]):
        for i, name in enumerate(info.name for info in recorder.layers):
            mine = [(h, x) for key, h, x in calls if key == name]
            deltas = [h.grad for h, _ in mine if h.grad is not None]
            true = {}
            if f"{name}.weight" in gradients:
                true["grad_rms"] = rms(gradients[f"{name}.weight"])
            if deltas:
                true["delta_rms"] = rms(torch.cat(deltas))
            if mine:
                x = torch.cat([x for _, x in mine]).numpy()
                true |= {"activation_mean": x.mean(), "activation_std": x.std()}
                true["dead_fraction"] = (x == 0).all(axis=0).mean()
            for what in OF_ONE_PASS:
                found = recorder[what][row, i]
                if not np.isnan(found):
                    known += 1
                    np.testing.assert_allclose(
                        found, true[what], rtol=1e-9, atol=1e-12, err_msg=f"{what} of {name}"
                    )
    assert known > 8


# --- the same numbers as dp -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "activation", [name for name in dp.activations.ACTIVATIONS if name in SLOPES]
)
def test_the_same_trace_as_dp(activation):
    y = (Y > 0).astype(float)[:, None]
    theirs = dp.Net(4, 5, 3, activation, seed=0)
    phi = {"clipped_relu": nn.ReLU6}.get(activation) or type(WAYS[activation][0])
    modules = [m for _ in range(3) for m in (nn.LazyLinear(5), phi())]
    net = nn.Sequential(*modules, nn.LazyLinear(1), nn.Sigmoid())
    net(torch.from_numpy(X))
    params = theirs.get_param()
    names = [key.removesuffix("_weight") for key in params if key.endswith("_weight")]
    with torch.no_grad():
        for layer, name in zip(net[::2], names, strict=True):
            layer.weight.copy_(torch.from_numpy(params[f"{name}_weight"].T))
            layer.bias.copy_(torch.from_numpy(params[f"{name}_bias"][0]))

    class Whole_Batch(dp.SGD):
        def random_batch(self):
            return self.x_train, self.y_train

    sgd = Whole_Batch(theirs, X, y, {"alpha": 0.01})
    with record(theirs, sgd, reference=(X, y)) as expected:
        sgd.train(4, print_each=None)

    def loss(p, y):
        return F.binary_cross_entropy(p, y, reduction="sum")

    found = train(
        net, (torch.from_numpy(X), torch.from_numpy(y)), steps=4, loss=loss, reference=(X_T, y),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.01),
    )  # fmt: skip
    same(expected, found, rtol=1e-6)
    np.testing.assert_array_equal(expected["accuracy"], found["accuracy"])
    assert list(found.trace["activation"].values) == list(expected.trace["activation"].values)


X_T = torch.from_numpy(X)
