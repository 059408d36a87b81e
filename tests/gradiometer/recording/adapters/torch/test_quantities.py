"""The quantities of PyTorch models are those that plain code computes."""

import copy

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import (
    NAMES,
    SLOPES,
    WAYS,
    Convolutions,
    F,
    Net,
    X,
    Y,
    agree,
    found_by_hand,
    nn,
    rms,
    same,
    step_by_hand,
    torch,
    train,
)

import dp
from gradiometer import record
from gradiometer.quantities import PER_LAYER
from gradiometer.recording.adapters.torch import arrays

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


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


def test_tensors_elsewhere_are_measured_there_and_brought_back_once_a_step(batch, monkeypatch):
    here = train(Net(nn.ReLU()), batch, reference=batch)
    torch.manual_seed(0)
    monkeypatch.setattr(arrays, "in_memory", lambda _: False)
    transfers = []
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: transfers.append(1) or cat(parts))
    net = Net(nn.ReLU())
    monkeypatch.setattr(
        "gradiometer.recording.adapters.torch.reference.accuracy", lambda *_: torch.tensor(0.5)
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
    assert few.session.quantities == ("grad_rms", "loss")
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


def test_what_updates_the_model_is_told(batch):
    """The optimizer's class, and its rate: one number, or one for each step."""
    trace = train(Net(nn.ReLU()), batch).trace
    assert (trace.attrs["optimizer"], trace.attrs["learning_rate"]) == ("SGD", 0.1)
    net = Net(nn.ReLU())
    adam = torch.optim.Adam(net.parameters(), lr=0.2)
    halved = torch.optim.lr_scheduler.ExponentialLR(adam, 0.5)

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()
        halved.step()

    trace = train(net, batch, optimizer=adam, loop=loop).trace
    assert trace.attrs["optimizer"] == "Adam"
    np.testing.assert_allclose(trace["learning_rate"], [0.2, 0.1, 0.05])
    net = Net(nn.ReLU())
    groups = [{"params": net.first.parameters(), "lr": 0.1}, {"params": net.last.parameters()}]
    trace = train(net, batch, optimizer=torch.optim.SGD(groups, lr=0.2)).trace
    assert trace.attrs["optimizer"] == "SGD"
    assert "learning_rate" not in trace.attrs
