"""Quantities that are recorded on request: of inputs, pre-activations, W^T delta, the whole net."""

import copy

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import (
    NAMES,
    Convolutions,
    F,
    Net,
    nn,
    rms,
    torch,
    train,
)

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]

OF_LAYERS = ["input_rms", "preactivation_mean", "backward_rms", "backward_live_rms"]
EVERY = [*OF_LAYERS, "grad_norm", "loss"]


def by_hand(net, batch):
    """The same quantities of each layer of a `Net` with ReLU, and the gradient's norm."""
    net = copy.deepcopy(net)
    below, found, kept = batch[0], {}, {}
    for name in NAMES:
        h = getattr(net, name)(below)
        h.retain_grad()
        kept[name] = (below.detach(), h)
        below = F.relu(h)
    F.cross_entropy(h, batch[1]).backward()
    for name, (x, h) in kept.items():
        back = h.grad @ getattr(net, name).weight.detach()
        live = (x != 0).any(dim=0)
        found[name] = [rms(x), h.mean().item(), rms(back), rms(back * live)]
    norm = np.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters()))
    return found, norm


def test_each_is_what_plain_code_computes(batch):
    net = Net(nn.ReLU())
    with torch.no_grad():
        net.first.bias[0] -= 20  # a dead unit
    expected, norm = by_hand(net, batch)
    recorder = train(net, batch, steps=1, quantities=EVERY)
    for i, name in enumerate(NAMES):
        found = [recorder[quantity][0, i] for quantity in OF_LAYERS]
        np.testing.assert_allclose(found, expected[name], rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(recorder["grad_norm"], norm, rtol=1e-9)
    assert recorder["backward_live_rms"][0, 1] < recorder["backward_rms"][0, 1]
    assert recorder.missing == {}


def test_parts_of_a_batch_are_one_batch(batch):
    net = Net(nn.ReLU())
    whole = train(copy.deepcopy(net), batch, steps=2, quantities=EVERY)

    def in_parts(net, optimizer, batch):
        optimizer.zero_grad()
        for part in torch.arange(24).split(6):
            (F.cross_entropy(net(batch[0][part]), batch[1][part]) / 4).backward()
        optimizer.step()

    parts = train(net, batch, steps=2, loop=in_parts, quantities=EVERY)
    for name in ["input_rms", "preactivation_mean", "backward_rms", "grad_norm"]:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_norm_is_that_before_clipping(batch, scaled):
    net = Net(nn.ReLU())
    norms = []
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=scaled)

    def clipped(net, optimizer, batch):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(net(batch[0]), batch[1])).backward()
        scaler.unscale_(optimizer)
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), 0.01)))
        scaler.step(optimizer)
        scaler.update()

    recorder = train(net, batch, loop=clipped, quantities=["grad_norm", "backward_rms"])
    np.testing.assert_allclose(recorder["grad_norm"], norms, rtol=1e-9)
    plain = train(Net(nn.ReLU()), batch, steps=1, quantities=["backward_rms"])
    assert plain["backward_rms"].shape == (1, 3)


def test_a_norm_that_cannot_be_had_says_why(batch):
    def by_hand(net, optimizer, batch):
        loss = F.cross_entropy(net(batch[0]), batch[1])
        given = torch.autograd.grad(loss, list(net.parameters()))
        for p, gradient in zip(net.parameters(), given, strict=True):
            p.grad = gradient
        optimizer.step()

    recorder = train(Net(nn.ReLU()), batch, loop=by_hand, quantities=["grad_norm"])
    assert np.isnan(recorder["grad_norm"]).all()
    assert "Tensor.backward did not compute" in recorder.missing["(model)"]["grad_norm"]
    net = Net(nn.ReLU())
    net.first.bias.register_hook(lambda gradient: 2 * gradient)
    recorder = train(net, batch, quantities=["grad_norm"])
    assert "a hook of a parameter" in recorder.missing["(model)"]["grad_norm"]


def test_gradients_that_were_thrown_away_are_not_in_the_norm(batch):
    net = Net(nn.ReLU())
    plain = train(copy.deepcopy(net), batch, quantities=["grad_norm"])

    def with_a_false_start(net, optimizer, batch):
        F.cross_entropy(net(100 * batch[0]), batch[1]).backward()
        optimizer.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.step()
        optimizer.zero_grad()

    found = train(net, batch, loop=with_a_false_start, quantities=["grad_norm"])
    np.testing.assert_allclose(found["grad_norm"], plain["grad_norm"], rtol=1e-9)


def test_what_has_no_matrix_or_no_input_says_why():
    net = Convolutions()
    batch = torch.randn(5, 1, 12, 12), torch.randint(0, 3, (5,))
    recorder = train(net, batch, steps=1, quantities=EVERY)
    first = recorder.missing["features.0"]
    assert "if a gradient goes on from there" in first["backward_rms"]
    assert set(first) == {"backward_rms", "backward_live_rms"}
    assert "linear layers only" in first["backward_live_rms"]
    np.testing.assert_allclose(recorder["input_rms"][0, 0], rms(batch[0]))
    assert np.isnan(recorder["backward_rms"][0]).tolist() == [True, False, False, False]
    embedded = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    recorder = train(embedded, (torch.arange(5), torch.randint(0, 3, (5,))), quantities=EVERY)
    assert "not one tensor of real numbers" in recorder.missing["0"]["input_rms"]
    assert np.isfinite(recorder["backward_live_rms"][:, 1]).all()


def test_they_change_no_other_number(batch):
    net = Net(nn.ReLU())
    plain = train(copy.deepcopy(net), batch)
    both = train(net, batch, quantities=[*plain.session.quantities, *EVERY])
    for name in plain.session.quantities:
        np.testing.assert_array_equal(plain[name], both[name], err_msg=name)
