"""dL/dW as backward computed it, and as the optimizer was given it, whoever writes into it."""

import os

import numpy as np
import pytest

from gradiometer import record

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn

F = nn.functional
pytestmark = pytest.mark.frameworks

FROM_GRADIENT = ["grad_mean_abs", "grad_rms", "grad_zero_fraction"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def fresh(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    return model, torch.optim.SGD(model.parameters(), 0.1), x, y


def rms(tensor):
    return float(tensor.detach().double().pow(2).mean().sqrt())


def weights(model):
    return [model[0].weight, model[2].weight]


def true_gradients(model, x, y):
    """By torch.autograd.grad, of which no hook of a parameter's gradient is told twice."""
    hooks = [(w, w._backward_hooks) for w in weights(model)]
    for w, _ in hooks:
        w._backward_hooks = None
    found = torch.autograd.grad(F.cross_entropy(model(x), y), weights(model))
    for w, kept in hooks:
        w._backward_hooks = kept
    return [rms(g) for g in found]


# --- writes that PyTorch counts, and writes that it does not --------------------------------------


def by_data(model):
    for p in model.parameters():
        p.grad.data.clamp_(-1e-3, 1e-3)


def by_detach(model):
    for p in model.parameters():
        p.grad.detach().mul_(0.5)


def by_numpy(model):
    for p in model.parameters():
        p.grad.numpy()[...] *= 0.25


def by_a_new_one(model):
    for p in model.parameters():
        p.grad = p.grad / 3


def by_new_data(model):
    for p in model.parameters():
        p.grad.data = p.grad.data * 2


def by_signs(model):
    for p in model.parameters():
        p.grad.data.sign_()


def nothing(model):
    pass


@pytest.mark.parametrize(
    "write", [by_data, by_detach, by_numpy, by_a_new_one, by_new_data, by_signs, nothing]
)
def test_clip_factor_whoever_writes_into_the_gradient(write):
    model, sgd, x, y = fresh()
    with record(model, sgd) as recorder:
        F.cross_entropy(model(x), y).backward()
        before = [rms(w.grad) for w in weights(model)]
        write(model)
        used = [rms(w.grad) for w in weights(model)]
        sgd.step()
    np.testing.assert_allclose(recorder["grad_rms"][0], before, rtol=1e-6)
    expected = np.divide(used, before)
    np.testing.assert_allclose(recorder["clip_factor"][0], expected, rtol=1e-6)
    assert (recorder["clip_factor"][0] == 1).all() == (write is nothing)
    assert recorder.missing == {}


# --- hooks of the user ----------------------------------------------------------------------------


def clamp(gradient):
    return gradient.clamp(-1e-3, 1e-3)


def in_place(gradient):
    gradient.data.mul_(0.1)


def look(gradient):
    gradient.abs().max()


def after(parameter):
    parameter.grad.clamp_(-1e-3, 1e-3)


@pytest.mark.parametrize("when", ["before", "inside", "after the forward pass"])
@pytest.mark.parametrize("hook", [clamp, in_place, look, after])
def test_hooks_that_change_a_gradient(hook, when):
    model, sgd, x, y = fresh()
    true = true_gradients(model, x, y)

    def register():
        for p in model.parameters():
            if hook is after:
                p.register_post_accumulate_grad_hook(hook)
            else:
                p.register_hook(hook)

    if when == "before":
        register()
    with record(model, sgd) as recorder:
        if when == "inside":
            register()
        loss = F.cross_entropy(model(x), y)
        if when == "after the forward pass":
            register()
        loss.backward()
        used = [rms(w.grad) for w in weights(model)]
        sgd.step()
    np.testing.assert_allclose(recorder["grad_rms"][0], true, rtol=1e-5)
    np.testing.assert_allclose(recorder["clip_factor"][0], np.divide(used, true), rtol=1e-5)
    assert recorder.missing == {}


def test_hooks_of_the_user_keep_their_order():
    model, sgd, x, y = fresh()
    order = []
    kinds = {"hook": nn.Parameter.register_hook}
    kinds["post"] = nn.Parameter.register_post_accumulate_grad_hook
    handles = [
        register(model[0].weight, lambda _, name=f"{kind} {i}": order.append(name))
        for i in range(3)
        for kind, register in kinds.items()
    ]
    with record(model, sgd):
        for _ in range(2):
            F.cross_entropy(model(x), y).backward()
            sgd.step()
        handles[2].remove()
        F.cross_entropy(model(x), y).backward()
    all_of_them = [f"{kind} {i}" for kind in kinds for i in range(3)]
    assert order == [*all_of_them, *all_of_them, *(n for n in all_of_them if n != "hook 1")]
    assert len(model[0].weight._backward_hooks) == 2


def test_several_passes_through_a_hook_that_clips():
    model, sgd, x, y = fresh()
    parts = [(x[:8], y[:8]), (x[8:], y[8:])]
    total = [0, 0]
    for part in parts:
        gradients = torch.autograd.grad(F.cross_entropy(model(part[0]), part[1]), weights(model))
        total = [a + b for a, b in zip(total, gradients, strict=True)]
    for p in model.parameters():
        p.register_hook(clamp)
    with record(model, sgd) as recorder:
        for xs, ys in parts:
            F.cross_entropy(model(xs), ys).backward()
        used = [rms(w.grad) for w in weights(model)]
        sgd.step()
    true = [rms(t) for t in total]
    np.testing.assert_allclose(recorder["grad_rms"][0], true, rtol=1e-5)
    np.testing.assert_allclose(recorder["clip_factor"][0], np.divide(used, true), rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "pre"])
def test_backward_hooks_of_modules_that_change_what_flows(kind):
    """What they give is what backward computes with."""
    model, sgd, x, y = fresh()

    def halved(_module, *gradients):
        return tuple(None if g is None else g / 2 for g in gradients[0])

    register = {
        "full": nn.Module.register_full_backward_hook,
        "pre": nn.Module.register_full_backward_pre_hook,
    }[kind]
    register(model[2], halved)
    with record(model, sgd) as recorder:
        F.cross_entropy(model(x), y).backward()
        found = [rms(w.grad) for w in weights(model)]
        sgd.step()
    np.testing.assert_allclose(recorder["grad_rms"][0], found, rtol=1e-6)
    np.testing.assert_array_equal(recorder["clip_factor"][0], 1)


# --- two networks, several passes -----------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.G, self.D = nn.Linear(4, 6), nn.Linear(6, 1)


@pytest.mark.parametrize("cleared", ["by its own", "of both", "never"])
@pytest.mark.parametrize("early", [False, True])
def test_gradients_to_which_a_later_pass_adds_after_they_were_used(cleared, early):
    """Each network's numbers are those of the pass before its own optimizer's step."""
    net, z = Pair(), torch.randn(8, 4)
    for_g, for_d = (torch.optim.SGD(part.parameters(), 0.1) for part in (net.G, net.D))
    bce, one = F.binary_cross_entropy_with_logits, torch.ones(8, 1)
    expected = []
    with record(net, [for_g, for_d]) as recorder:
        for _ in range(2):
            fake = net.G(z) if early else None
            for_d.zero_grad()
            real = net.D(torch.randn(8, 6))
            real.retain_grad()
            kept = net.D((net.G(z) if fake is None else fake).detach())
            kept.retain_grad()
            (bce(real, one) + bce(kept, 0 * one)).backward()
            of_d = rms(net.D.weight.grad)
            for_d.step()
            if cleared == "of both":
                net.zero_grad()
            elif cleared == "by its own":
                for_g.zero_grad()
            before = 0 if net.G.weight.grad is None else net.G.weight.grad.clone()
            out = net.G(z) if fake is None else fake
            out.retain_grad()
            bce(net.D(out), one).backward()
            of_g = rms(net.G.weight.grad)
            for_g.step()
            delta = rms(torch.cat([real.grad, kept.grad]))
            expected.append((of_g, of_d, rms(out.grad), delta))
            assert cleared == "never" or not torch.is_tensor(before) or not before.any()
    names = [info.name for info in recorder.layers]
    g, d = names.index("G"), names.index("D")
    found = np.array([recorder["grad_rms"][:, [g, d]], recorder["delta_rms"][:, [g, d]]])
    steps = np.array(expected).T.reshape(2, 2, 2)
    np.testing.assert_allclose(found.transpose(0, 2, 1), steps, rtol=1e-5)
    np.testing.assert_array_equal(recorder["clip_factor"], 1)
    told = {name for part in recorder.missing.values() for name in part}
    assert told.isdisjoint({*FROM_GRADIENT, "clip_factor", "delta_rms", "loss"})


def test_a_pass_forward_that_is_trained_only_after_another_step():
    """As in many GANs: the generator's samples are made before the discriminator's step."""
    net, z = Pair(), torch.randn(8, 4)
    for_g, for_d = (torch.optim.SGD(part.parameters(), 0.1) for part in (net.G, net.D))
    deltas = []
    with record(net) as recorder:
        for _ in range(2):
            fake = net.G(z)
            fake.retain_grad()
            net.zero_grad()
            F.softplus(net.D(fake.detach())).mean().backward()
            for_d.step()
            net.zero_grad()
            F.softplus(-net.D(fake)).mean().backward()
            for_g.step()
            deltas.append(rms(fake.grad))
    g = [info.name for info in recorder.layers].index("G")
    np.testing.assert_allclose(recorder["delta_rms"][1::2, g], deltas, rtol=1e-6)
    assert np.isnan(recorder["delta_rms"][::2, g]).all()


@pytest.mark.parametrize("scales", [(8.0, 8.0), (2.0**10, 4.0)])
@pytest.mark.parametrize("divided", [False, True])
def test_two_scalers(scales, divided):
    """Each pass is unscaled by the number by which its own loss was scaled."""
    a = [torch.amp.GradScaler("cpu", init_scale=s) for s in scales]
    net, z = Pair(), torch.randn(8, 4)
    sgd = [torch.optim.SGD(part.parameters(), 0.1) for part in (net.G, net.D)]
    x = torch.randn(8, 6)
    true = [
        torch.autograd.grad(net.G(z).square().mean(), net.G.weight)[0],
        torch.autograd.grad(net.D(x).square().mean(), net.D.weight)[0],
    ]
    with record(net, sgd) as recorder:
        for scaler, module, given in zip(a, (net.G, net.D), (z, x), strict=True):
            loss = scaler.scale(module(given).square().mean())
            (loss / 2 if divided else loss).backward()
        for scaler, optimizer in zip(a, sgd, strict=True):
            scaler.step(optimizer)
            scaler.update()
    names = [info.name for info in recorder.layers]
    expected = [rms({"G": true[0], "D": true[1]}[name]) / (2 if divided else 1) for name in names]
    np.testing.assert_allclose(recorder["grad_rms"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(recorder["clip_factor"][0], 1, rtol=1e-5)


def test_one_gradient_of_losses_scaled_by_different_numbers_is_missing():
    model, sgd, x, y = fresh()
    first, second = (torch.amp.GradScaler("cpu", init_scale=s) for s in (2.0, 8.0))
    with record(model, sgd) as recorder:
        first.scale(F.cross_entropy(model(x), y)).backward()
        second.scale(F.cross_entropy(model(x), y)).backward()
        sgd.step()
    assert np.isnan(recorder["grad_rms"]).all()
    assert "different factors of a GradScaler" in recorder.missing["0"]["grad_rms"]


def test_a_scaled_gradient_that_nobody_unscales_shows_in_the_clip_factor():
    model, sgd, x, y = fresh()
    true = true_gradients(model, x, y)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with record(model, sgd) as recorder:
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        sgd.step()
    np.testing.assert_allclose(recorder["grad_rms"][0], true, rtol=1e-5)
    np.testing.assert_allclose(recorder["clip_factor"][0], 256, rtol=1e-5)


# --- what was thrown away, and what was cleared ---------------------------------------------------


def test_micro_batches_that_are_thrown_away():
    """In whatever way, and whether or not the loss was finite."""
    model, sgd, x, y = fresh()
    alone, other, *_ = fresh()

    def one_step(model, sgd):
        sgd.zero_grad()
        F.cross_entropy(model(x), y).backward()
        sgd.step()

    with record(alone, other) as expected:
        for _ in range(3):
            one_step(alone, other)
    with record(model, sgd) as recorder:
        for k in range(3):
            loss = F.cross_entropy(model(100 * x), y) * (np.nan if k == 1 else 1)
            loss.backward()
            if k == 2:
                for p in model.parameters():
                    p.grad = None
            one_step(model, sgd)
    for name in ["loss", "grad_rms", "delta_rms", "activation_mean", "clip_factor"]:
        np.testing.assert_allclose(recorder[name], expected[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("zero", ["none", "zeros"])
@pytest.mark.parametrize("named", [False, True])
def test_the_order_of_a_trainers_callbacks(zero, named):
    """step, zero_grad, and only then after_step."""
    model, sgd, x, y = fresh()
    recorder = record(model, sgd) if named else record(model)
    factors = []
    for _ in range(3):
        recorder.before_step()
        F.cross_entropy(model(x), y).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        factors.append(0.01 / float(norm))
        sgd.step()
        sgd.zero_grad(set_to_none=zero == "none")
        recorder.after_step()
    expected = np.array(factors)[:, None] * np.ones(2)
    np.testing.assert_allclose(recorder["clip_factor"], expected, rtol=1e-4)
    assert recorder.missing == {}


@pytest.mark.parametrize("zero", ["none", "zeros"])
def test_an_update_of_ones_own_before_the_gradients_are_cleared(zero):
    model, _, x, y = fresh()
    recorder = record(model)
    recorder.before_step()
    F.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
    model.zero_grad(set_to_none=zero == "none")
    recorder.after_step()
    assert np.isfinite(recorder["grad_rms"]).all()
    assert np.isnan(recorder["clip_factor"]).all()
    assert "after_step() was called" in recorder.missing["0"]["clip_factor"]


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_by_hand_in_the_order_of_a_trainer(scaled):
    """They are known as the optimizer was given them, also if they are cleared at once."""
    model, sgd, x, y = fresh()
    recorder = record(model)
    true = true_gradients(model, x, y)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
    recorder.before_step()
    loss = scaler.scale(F.cross_entropy(model(x), y))
    given = torch.autograd.grad(loss, list(model.parameters()))
    for p, gradient in zip(model.parameters(), given, strict=True):
        p.grad = gradient
    scaler.step(sgd)
    sgd.zero_grad()
    recorder.after_step(loss=1.0)
    np.testing.assert_allclose(recorder["grad_rms"][0], true, rtol=1e-5)
    assert "only the one used in the step is known" in recorder.missing["0"]["clip_factor"]
