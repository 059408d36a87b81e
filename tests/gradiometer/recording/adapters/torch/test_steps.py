"""Which updates make one step of the record, whoever makes them and how."""

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

COMPARED = [
    "grad_rms", "delta_rms", "activation_mean", "clip_factor", "weight_rms", "update_ratio", "loss",
]  # fmt: skip


def fresh():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    return model, torch.optim.SGD(model.parameters(), 0.1), x, y


def rms(tensor):
    return float(tensor.detach().double().pow(2).mean().sqrt())


def plain(steps=3, **settings):
    """The usual training."""
    model, sgd, x, y = fresh()
    with record(model, sgd, **settings) as recorder:
        for _ in range(steps):
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
    return recorder


def same(one, other, but=()):
    assert list(one.trace["step"].values) == list(other.trace["step"].values)
    for name in COMPARED:
        if name not in but:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, err_msg=name)


# --- a step for each parameter, within the backward pass ------------------------------------------


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("late", [False, True])
def test_a_step_per_parameter_within_the_backward_pass(named, every, late):
    expected = plain(steps=5, every=every)
    model, _, x, y = fresh()
    each = {p: torch.optim.SGD([p], 0.1) for p in model.parameters()}

    def step(p):
        each[p].step()
        each[p].zero_grad()

    def register():
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(step)

    if not late:
        register()
    with record(model, list(each.values()) if named else None, every=every) as recorder:
        if late:
            register()
        for _ in range(5):
            F.cross_entropy(model(x), y).backward()
    same(expected, recorder)
    assert recorder.missing == {}


# --- optimizers that hold others ------------------------------------------------------------------


class Wrapper(torch.optim.Optimizer):
    """As Accelerate's, and many Lookaheads: PyTorch's own __init__ is not called."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state

    def step(self, closure=None):
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


class Holder:
    """No Optimizer at all."""

    def __init__(self, optimizer):
        self.inner = [optimizer]

    def step(self):
        for optimizer in self.inner:
            optimizer.step()

    def zero_grad(self):
        for optimizer in self.inner:
            optimizer.zero_grad()


class Hooked(torch.optim.Optimizer):
    """One of which PyTorch tells, as well as of the one that it holds."""

    def __init__(self, optimizer):
        super().__init__(optimizer.param_groups, {})
        self.optimizer = optimizer

    def step(self, closure=None):
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


@pytest.mark.parametrize("kind", [Wrapper, Holder, Hooked])
@pytest.mark.parametrize("given", ["the wrapper", "the inner one", "none"])
@pytest.mark.parametrize("every", [1, 2])
def test_optimizers_that_hold_others(kind, given, every):
    model, sgd, x, y = fresh()
    wrapper = kind(sgd)
    own = vars(wrapper).get("step")
    optimizer = {"the wrapper": wrapper, "the inner one": sgd, "none": None}[given]
    with record(model, optimizer, every=every) as recorder:
        for _ in range(5):
            wrapper.zero_grad()
            F.cross_entropy(model(x), y).backward()
            wrapper.step()
    same(plain(steps=5, every=every), recorder)
    assert recorder.missing == {}
    assert vars(wrapper).get("step") is own


class Lookahead(Wrapper):
    """Every second step it goes half way back."""

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]
        self.count = 0

    def step(self, closure=None):
        super().step(closure)
        self.count += 1
        if self.count % 2 == 0:
            with torch.no_grad():
                for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
                    slow += 0.5 * (p - slow)
                    p.copy_(slow)


def test_what_a_wrapper_does_to_the_weights_is_part_of_its_step():
    model, sgd, x, y = fresh()
    wrapper, changes = Lookahead(sgd), []
    with record(model, wrapper) as recorder:
        for _ in range(4):
            wrapper.zero_grad()
            before = model[0].weight.detach().clone()
            F.cross_entropy(model(x), y).backward()
            wrapper.step()
            changes.append(rms(model[0].weight - before) / rms(before))
    np.testing.assert_allclose(recorder["update_ratio"][:, 0], changes, rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_accelerate(parts):
    accelerate = pytest.importorskip("accelerate")
    model, sgd, x, y = fresh()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=parts)
    prepared, optimizer = accelerator.prepare(model, sgd)
    with record(prepared, optimizer) as recorder:
        for _ in range(3):
            for i in range(parts):
                with accelerator.accumulate(prepared):
                    some = slice(i, None, parts)
                    accelerator.backward(F.cross_entropy(prepared(x[some]), y[some]))
                    optimizer.step()
                    optimizer.zero_grad()
    expected = plain()
    assert recorder.n_steps == 3
    for name in ["grad_rms", "update_ratio", "clip_factor"]:
        np.testing.assert_allclose(recorder[name], expected[name], rtol=1e-4, err_msg=name)
    assert recorder.missing == {}


def test_an_optimizer_that_fails_does_not_hide_the_next_one():
    model, sgd, x, y = fresh()

    def closure():
        raise RuntimeError

    with record(model) as recorder:
        with pytest.raises(RuntimeError):
            torch.optim.Adam(model.parameters()).step(closure)
        for _ in range(3):
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
    same(plain(), recorder)


# --- several evaluations for one update -----------------------------------------------------------


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation: up the gradient, and from there the step of another."""

    def __init__(self, optimizer, rho=0.05):
        super().__init__(optimizer.param_groups, {})
        self.base_optimizer, self.rho = optimizer, rho
        self.param_groups = optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["at"] = p.data.clone()
                p.add_(self.rho * p.grad / p.grad.norm())
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["at"]
        self.base_optimizer.step()
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure):
        self.first_step()
        torch.enable_grad()(closure)()
        self.second_step()


@pytest.mark.parametrize("how", ["two calls", "closure"])
@pytest.mark.parametrize("named", [False, True])
def test_sam_records_the_pass_whose_gradient_makes_the_update(how, named):
    model, sgd, x, y = fresh()
    sam, used, losses = Sam(sgd), [], []

    def evaluate():
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        used.append([rms(model[0].weight.grad), rms(model[2].weight.grad)])
        losses.append(loss.item())

    before, changes = model[0].weight.detach().clone(), []
    with record(model, sam if named else None) as recorder:
        for _ in range(3):
            evaluate()
            if how == "closure":
                sam.step(evaluate)
            else:
                sam.first_step()
                evaluate()
                sam.second_step()
            changes.append(rms(model[0].weight - before) / rms(before))
            before = model[0].weight.detach().clone()
    np.testing.assert_allclose(recorder["grad_rms"], used[1::2], rtol=1e-5)
    np.testing.assert_allclose(recorder["loss"], losses[1::2], rtol=1e-5)
    np.testing.assert_allclose(recorder["update_ratio"][:, 0], changes, rtol=1e-4)
    np.testing.assert_allclose(recorder["clip_factor"], 1)


def test_lbfgs_records_its_first_evaluation():
    """That is at the weights before the update; what it used of the later ones is not known."""
    model, _, x, y = fresh()
    lbfgs, seen = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5), []

    def closure():
        lbfgs.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        seen.append((loss.item(), rms(model[0].weight.grad)))
        return loss

    firsts = []
    with record(model, lbfgs) as recorder:
        for _ in range(2):
            seen.clear()
            lbfgs.step(closure)
            assert len(seen) > 1
            firsts.append(seen[0])
    np.testing.assert_allclose(recorder["loss"], [loss for loss, _ in firsts], rtol=1e-5)
    np.testing.assert_allclose(recorder["grad_rms"][:, 0], [g for _, g in firsts], rtol=1e-5)
    assert np.isnan(recorder["clip_factor"]).all()
    assert "evaluated its closure several times" in recorder.missing["0"]["clip_factor"]


def test_a_closure_that_gathers_gradients_of_several_batches():
    model, sgd, x, y = fresh()

    def closure():
        sgd.zero_grad()
        for some in (slice(0, 8), slice(8, 16)):
            (F.cross_entropy(model(x[some]), y[some]) / 2).backward()

    with record(model, sgd) as recorder:
        for _ in range(3):
            sgd.step(closure)
    same(plain(), recorder)


# --- optimizers that are not named ----------------------------------------------------------------


def test_an_optimizer_that_is_made_anew_is_told():
    model, sgd, x, y = fresh()
    with record(model, sgd) as recorder:
        for k in range(4):
            if k == 2:
                sgd = torch.optim.Adam(model.parameters(), 0.01)
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
    assert recorder.n_steps == 2
    same(plain(steps=2), recorder)
    assert "another optimizer (Adam) made steps" in recorder.missing["(model)"]["step"]
    assert "(Adam)" in recorder.trace.attrs["missing"]


def test_only_steps_of_another_optimizer():
    model, sgd, x, y = fresh()
    other = torch.optim.Adam(model.parameters(), 0.01)
    with record(model, sgd) as recorder:
        F.cross_entropy(model(x), y).backward()
        other.step()
    with pytest.raises(ValueError, match=r"another optimizer \(Adam\) made steps"):
        _ = recorder.trace


def test_steps_between_those_of_another_optimizer_are_of_their_own_pass():
    model, sgd, x, y = fresh()
    other, losses, gradients = torch.optim.SGD(model.parameters(), 0.05), [], []
    with record(model, sgd) as recorder:
        for k in range(6):
            optimizer = sgd if k % 2 else other
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x * (k + 1)), y)
            loss.backward()
            losses.append(loss.item())
            gradients.append(rms(model[0].weight.grad))
            optimizer.step()
    np.testing.assert_allclose(recorder["loss"], losses[1::2], rtol=1e-5)
    np.testing.assert_allclose(recorder["grad_rms"][:, 0], gradients[1::2], rtol=1e-5)
    np.testing.assert_allclose(recorder["clip_factor"], 1)


def test_one_of_two_optimizers_that_use_the_same_pass_is_named():
    model, _, x, y = fresh()
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    last = torch.optim.SGD(model[2].parameters(), 0.1)
    with record(model, last) as recorder:
        for _ in range(3):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            first.step()
            last.step()
    same(plain(), recorder, but=["update_ratio", "weight_rms"])
    assert "step" in recorder.missing["(model)"]


@pytest.mark.parametrize("kind", ["accumulated", "new every step", "two in turns"])
def test_optimizers_that_are_not_named(kind):
    model, sgd, x, y = fresh()
    with record(model) as recorder:
        for k in range(3):
            if kind == "new every step" or (kind == "two in turns" and k % 2):
                sgd = torch.optim.SGD(model.parameters(), 0.1)
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
    same(plain(), recorder)
    assert recorder.missing == {}


@pytest.mark.parametrize("every", [1, 2, 3])
def test_two_unnamed_optimizers_are_counted_as_one_step_also_where_none_is_recorded(every):
    model, _, x, y = fresh()
    both = [torch.optim.SGD(part.parameters(), 0.1) for part in (model[0], model[2])]
    with record(model, every=every) as recorder:
        for _ in range(6):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            for optimizer in both:
                optimizer.step()
    expected = plain(steps=6, every=every)
    assert list(recorder.trace["step"].values) == list(expected.trace["step"].values)
    np.testing.assert_allclose(recorder["loss"], expected["loss"], rtol=1e-5)


def test_an_optimizer_that_makes_several_updates_in_a_step():
    """Known are the gradients of its first; the update is that of all."""
    torch.manual_seed(0)
    critic, actor = nn.Linear(4, 1), nn.Linear(4, 4)
    net = nn.ModuleDict({"critic": critic, "actor": actor})
    for_c, for_a = (torch.optim.SGD(part.parameters(), 0.1) for part in (critic, actor))
    x, first = torch.randn(8, 4), []
    before = critic.weight.detach().clone()
    with record(net, [for_c, for_a]) as recorder:
        for _ in range(3):
            net.zero_grad()
            critic(x).square().mean().backward()
            first.append(rms(critic.weight.grad))
            for_c.step()
        net.zero_grad()
        critic(actor(x)).mean().backward()
        for_a.step()
    c = [info.name for info in recorder.layers].index("critic")
    np.testing.assert_allclose(recorder["grad_rms"][0, c], first[0], rtol=1e-5)
    change = rms(critic.weight - before) / rms(before)
    np.testing.assert_allclose(recorder["update_ratio"][0, c], change, rtol=1e-5)


# --- gradients that one of several optimizers clears ----------------------------------------------


class Both(nn.Module):
    """A generator, a critic and an encoder."""

    def __init__(self, parametrized):
        super().__init__()
        self.g = nn.Linear(4, 6)
        self.d = nn.Linear(6, 1)
        self.e = nn.Linear(6, 4)
        if parametrized is not None:
            parametrized(self.d)


PARAMETRIZED = [
    None,
    nn.utils.parametrizations.spectral_norm,
    nn.utils.parametrizations.weight_norm,
    nn.utils.spectral_norm,
]


@pytest.mark.parametrize("parametrized", PARAMETRIZED)
@pytest.mark.parametrize("generator_first", [False, True])
def test_a_critic_has_no_part_in_the_pass_of_the_generator(parametrized, generator_first):
    torch.manual_seed(0)
    model = Both(parametrized)
    of_g, of_d, of_e = (
        torch.optim.SGD(part.parameters(), 0.1) for part in (model.g, model.d, model.e)
    )
    seen, right = [], []
    model.d.register_forward_hook(lambda _module, _args, h: seen.append(h))
    score = F.binary_cross_entropy_with_logits

    def judge(fake, real):
        del seen[:]
        of_d.zero_grad()
        loss = score(model.d(real), torch.ones(8, 1))
        loss = loss + score(model.d(fake.detach()), torch.zeros(8, 1))
        for h in seen:
            h.retain_grad()
        loss.backward()
        right.append(rms(torch.cat([h.grad for h in seen])))
        of_d.step()

    def generate(fake):
        of_g.zero_grad()
        score(model.d(fake), torch.ones(8, 1)).backward()
        of_g.step()

    with record(model, [of_d, of_g, of_e]) as recorder:
        for _ in range(3):
            real, fake = torch.randn(8, 6), model.g(torch.randn(8, 4))
            if generator_first:
                generate(fake)
                judge(fake, real)
            else:
                judge(fake, real)
                generate(fake)
            of_e.zero_grad()
            model.g(model.e(real)).square().mean().backward()
            of_e.step()
    np.testing.assert_allclose(recorder.trace["delta_rms"].sel(layer="d"), right, rtol=1e-5)


def test_steps_of_an_optimizer_that_is_not_named_have_no_part_in_those_of_the_other():
    torch.manual_seed(0)
    model = Both(parametrized=None)
    of_g = torch.optim.SGD(model.g.parameters(), 0.1)
    of_d = torch.optim.SGD(model.d.parameters(), 0.1)
    losses = []
    with record(model, of_d) as recorder:
        for _ in range(3):
            of_d.zero_grad()
            loss = model.d(torch.randn(8, 6)).square().mean()
            loss = loss - model.d(model.g(torch.randn(8, 4)).detach()).square().mean()
            losses.append(loss.item())
            loss.backward()
            of_d.step()
            of_g.zero_grad()
            model.d(model.g(torch.randn(8, 4))).square().mean().backward()
            of_g.step()
    np.testing.assert_allclose(recorder.trace["loss"], losses, rtol=1e-6)
    assert np.isnan(recorder.trace["grad_rms"].sel(layer="g")).all()
    assert np.isnan(recorder.trace["delta_rms"].sel(layer="g")).all()
    assert "another optimizer" in recorder.missing["(model)"]["step"]


def test_a_pass_that_is_thrown_away_beside_gradients_that_other_optimizers_have_left():
    torch.manual_seed(0)
    model = Both(parametrized=None)
    of_d = torch.optim.SGD(model.d.parameters(), 0.1)
    of_e = torch.optim.SGD(model.e.parameters(), 0.1)
    losses = []
    with record(model, [of_d, of_e]) as recorder:
        for _ in range(3):
            of_d.zero_grad()
            model.d(torch.randn(8, 6)).square().mean().backward()
            of_d.zero_grad()  # of no use: it is tried again, while e has its old gradient
            one = model.d(torch.randn(8, 6)).square().mean()
            one.backward()
            of_d.step()
            of_e.zero_grad()
            other = model.e(torch.randn(8, 6)).square().mean()
            other.backward()
            of_e.step()
            losses.append(one.item() + other.item())
    np.testing.assert_allclose(recorder.trace["loss"], losses, rtol=1e-6)


@pytest.mark.parametrize("kind", ["again", "through the gradient"])
def test_a_pass_that_is_thrown_away_and_another_through_the_same_graph(kind):
    model, sgd, x, y = fresh()
    deltas = []
    with record(model, sgd) as recorder:
        for _ in range(2):
            h = model(x)
            h.register_hook(lambda delta: deltas.append(rms(delta)))
            loss = F.cross_entropy(h, y)
            gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
            loss.backward(retain_graph=True)
            sgd.zero_grad()
            if kind == "again":
                loss.backward()
            else:
                sum(gradient.square().sum() for gradient in gradients).backward()
            sgd.step()
    # of autograd.grad, of the pass thrown away, and of the one that is used
    right = deltas[2::3]
    np.testing.assert_allclose(recorder.trace["delta_rms"].sel(layer="2"), right, rtol=1e-5)
    assert not recorder.missing
