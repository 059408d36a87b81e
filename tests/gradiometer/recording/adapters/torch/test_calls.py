"""Layers that are called once, several times, again for a checkpoint, or not at all in a step."""

import copy

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import (
    NAMES,
    SLOPES,
    F,
    Net,
    agree,
    clipped,
    found_by_hand,
    nn,
    rms,
    torch,
    train,
)
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from gradiometer import record
from gradiometer.quantities import PER_LAYER

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


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
