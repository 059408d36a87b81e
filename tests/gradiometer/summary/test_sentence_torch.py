"""The sentence compares only layers of one chain, and denies nothing that the trace has."""

import os
import re

import pytest

from gradiometer import record

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

F = nn.functional
pytestmark = pytest.mark.frameworks


class Forked(nn.Module):
    """A trunk of two layers, and two heads."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.left, self.right = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        h = self.trunk(x)
        return self.left(h), self.right(h)


class Parallel(nn.Module):
    """Queries, keys and values beside each other, and a way around them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        h = self.first(x)
        weights = torch.softmax(self.q(h) @ self.k(h).T, -1)
        return self.last(h + weights @ self.v(h))


class Towers(nn.Module):
    """Two inputs, each with layers of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in "ab")
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.cat([self.a(x), self.b(-x)], 1))


class Recomputed(nn.Module):
    """Part of it is computed again for the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.reentrant = reentrant

    def forward(self, x):
        h = torch.tanh(self.a(x))
        h = checkpoint(lambda t: torch.tanh(self.b(t)), h, use_reentrant=self.reentrant)
        return self.c(h)


def recorded(model, losses, steps=2, **settings):
    """A trace of steps, each with the backward passes of these losses of the model's outputs."""
    torch.manual_seed(0)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with record(model, sgd, **settings) as recorder:
        for _ in range(steps):
            sgd.zero_grad()
            for loss in losses:
                loss(model(x), y).backward()
            sgd.step()
    return recorder


def entropy(output, y):
    return F.cross_entropy(output, y)


def both(outputs, y):
    return sum(F.cross_entropy(output, y) for output in outputs)


HEADS = [lambda o, y: F.cross_entropy(o[0], y), lambda o, y: F.cross_entropy(o[1], y)]


@pytest.mark.parametrize(
    ("make", "losses", "chains"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), [entropy], ["0 2"]),
        (Forked, [both], ["trunk.0 trunk.2 left", "trunk.0 trunk.2 right"]),
        (Forked, HEADS, ["trunk.0 trunk.2", "left", "right"]),
        (Forked, [both, both], ["trunk.0 trunk.2 left", "trunk.0 trunk.2 right"]),
        (Parallel, [entropy], ["first q k v last"]),
        (Towers, [entropy], ["a.0 a.2 last", "b.0 b.2 last"]),
        (lambda: Recomputed(reentrant=False), [entropy], ["a b c"]),
    ],
)
def test_chains(make, losses, chains):
    recorder = recorded(make(), losses)
    names = recorder.trace.layers
    assert [" ".join(names[i] for i in chain) for chain in recorder.chains] == chains
    assert ("chains" in recorder.trace.attrs) == (len(chains) > 1)


def test_a_graph_that_is_never_seen_as_a_whole_is_taken_for_one_chain():
    recorder = recorded(Recomputed(reentrant=True), [entropy])
    assert recorder.chains is None
    assert "from 'c' to 'a'" in recorder.trace.sentence()


def test_of_several_chains_each_is_judged_by_itself():
    text = recorded(Forked(), [both]).trace.sentence()
    assert text.startswith("These are 2 chains of layers, each judged by itself. The gradient ")
    assert "from 'left' to 'trunk.0'" in text
    assert "from 'right' to 'trunk.0'" in text
    apart = recorded(Forked(), HEADS).trace.sentence()
    assert "3 chains" in apart
    assert not re.search("(from|in) '(left|right)'", apart)


def two_nets(**settings):
    """A generator and a critic, each with its optimizer; the one's pass goes through the other."""
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6))
    critic = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
    model = nn.ModuleDict({"G": maker, "D": critic})
    of_maker = torch.optim.SGD(maker.parameters(), 0.1)
    of_critic = torch.optim.SGD(critic.parameters(), 0.1)
    judge, z = F.binary_cross_entropy_with_logits, torch.randn(8, 4)
    with record(model, [of_maker, of_critic], **settings) as recorder:
        for _ in range(2):
            of_critic.zero_grad()
            real = judge(critic(torch.randn(8, 6)), torch.ones(8, 1))
            (real + judge(critic(maker(z).detach()), torch.zeros(8, 1))).backward()
            of_critic.step()
            of_maker.zero_grad()
            judge(critic(maker(z)), torch.ones(8, 1)).backward()
            of_maker.step()
    return recorder.trace


@pytest.mark.parametrize("settings", [{}, {"quantities": ["grad_rms"]}])
def test_two_nets_are_never_compared_with_each_other(settings):
    text = two_nets(**settings).sentence()
    assert "from 'D.2' to 'D.0'" in text
    assert "from 'G.2' to 'G.0'" in text
    assert not re.search("'D.[02]' to 'G|'G.[02]' to 'D", text)


def test_a_zero_that_must_be_is_said_of_the_one_layer_in_which_it_is():
    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(6, 3).requires_grad_(False)
            self.A, self.B = nn.Linear(6, 2, bias=False), nn.Linear(2, 3, bias=False)
            nn.init.zeros_(self.B.weight)

        def forward(self, x):
            return self.base(x) + self.B(self.A(x))

    text = recorded(Lora(), [entropy], steps=1).trace.sentence()
    assert text == (
        "The gradient does not reach 'A', the first layer that is trained (1 before it frozen): it "
        "is exactly zero in A alone, as it must be while the weights of B are zero."
    )
    later = recorded(Lora(), [entropy], steps=3).trace.sentence()
    assert ". At the last step, 3, it reaches 'A': mean |dL/dW| " in later


def test_one_trained_layer_is_not_compared_with_itself():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    text = recorded(model, [entropy]).trace.sentence()
    assert re.fullmatch(
        r"The gradient reaches '2', the only layer that is trained \(1 frozen\): mean \|dL/dW\| is "
        r"\S+ at the first step, and \S+ at the last\.",
        text,
    )


def test_ends_whose_delta_is_unknown_are_no_ends():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(6, 8, batch_first=True)
            self.hidden, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(torch.tanh(self.hidden(self.lstm(x[:, None])[0][:, -1])))

    text = recorded(Recurrent(), [entropy]).trace.sentence()
    assert "reaches 'hidden', the first layer whose delta is known: " in text
    assert "from 'last' to 'hidden'" in text


def test_what_became_of_it_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    adam = torch.optim.Adam(model.parameters(), 3.0)
    x, y = torch.randn(64, 20), torch.randint(0, 10, (64,))
    with record(model, adam) as recorder:
        for _ in range(40):
            adam.zero_grad()
            F.cross_entropy(model(x), y).backward()
            adam.step()
    trace, text = recorder.trace, recorder.trace.sentence()
    assert text.startswith("The gradient reaches the first layer: at the first step mean |dL/dW| ")
    assert ". At the last step, 40, it does not: it is exactly zero in 0" in text
    assert (trace["grad_mean_abs"].values[-1, 0]) == 0
    dead = float(trace["dead_fraction"].values[-1].max())
    assert dead > 0.5
    assert f"By then {dead:.0%} of the units of " in text


def test_gradients_that_came_later_are_not_denied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    recorder = record(model)
    for step in range(3):
        recorder.before_step()
        loss = F.cross_entropy(model(x), y)
        if step == 1:
            loss.backward()
        recorder.after_step()
    assert recorder.trace.sentence() == (
        "No gradient reached any layer in the first step; one did in step 2."
    )


def test_evaluations_before_the_first_step_are_not_kept():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, sgd) as recorder:
        for _ in range(40):
            model(torch.randn(5, 6))
            alive = len(recorder._training._chains._layers)
        F.cross_entropy(model(torch.randn(5, 6)), torch.zeros(5, dtype=torch.long)).backward()
        sgd.step()
    assert alive <= 2 * 8
    assert recorder.chains == [[0, 1]]


def test_a_penalty_on_the_slope_leaves_a_critic_one_chain():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(), nn.Linear(6, 1))
    sgd = torch.optim.SGD(critic.parameters(), 0.1)
    with record(critic, sgd) as recorder:
        x = torch.randn(8, 6, requires_grad=True)
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        critic(x.detach()).mean().backward()
        slope.square().mean().backward()  # through the weights, but not to the last output
        sgd.step()
    assert "from '2' to '0'" in recorder.trace.sentence()


def roles(recorder):
    return {info.name: info.role for info in recorder.layers}


def test_a_frozen_layer_through_which_deltas_go_is_frozen_all_the_same():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    model[4].requires_grad_(False)
    recorder = recorded(model, [entropy])
    assert roles(recorder) == {"0": "trained", "2": "trained", "4": "frozen"}
    assert "from '2' to '0'" in recorder.trace.sentence()
    assert (recorder["delta_rms"] > 0).all()
    for layer in (model[0], model[2]):
        layer.weight.requires_grad_(False)  # but not its bias
    assert roles(recorded(model, [entropy])) == {"0": "trained", "2": "trained", "4": "frozen"}


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
def test_a_prompt_before_frozen_layers(shape):
    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.prompt = nn.Parameter(torch.zeros(shape))
            self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
            self.net.requires_grad_(False)

        def forward(self, x):
            return self.net(x + self.prompt)

    recorder = recorded(Prompted(), [entropy])
    assert roles(recorder)["net.0"] == roles(recorder)["net.2"] == "frozen"
    assert "the rms of the delta falls" in recorder.trace.sentence()
    assert "from 'net.2' to 'net.0'" in recorder.trace.sentence()


def test_layers_that_are_trained_only_later_are_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    model[:4].requires_grad_(False)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, sgd) as recorder:
        for step in range(3):
            if step:
                model.requires_grad_(True)
            sgd.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            sgd.step()
    text = recorder.trace.sentence()
    assert text.endswith(" From step 2 on '0' and 1 more, frozen at first, are trained too.")


def test_gradients_by_autograd_grad_have_a_true_reason():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, sgd) as recorder:
        loss = model(torch.randn(8, 6)).square().mean()
        parameters = list(model.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        sgd.step()
    assert "did not come by Tensor.backward" in recorder.missing["0"]["delta_rms"]
    assert "did not come by Tensor.backward" in recorder.missing["0"]["activation_mean"]
