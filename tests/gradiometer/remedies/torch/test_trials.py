"""Remedies for a user's own model: one change each, the same seeds, the original loss."""

import os
import random

import numpy as np
import pytest

import gradiometer
from gradiometer.remedies import CANDIDATES
from gradiometer.remedies.applying import Deadline, NotApplicable

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn

from gradiometer.remedies.torch.seen import first_pass
from gradiometer.remedies.torch.trial import Trial
from gradiometer.remedies.torch.trials import ModelTrials, read_outcome

F = nn.functional
pytestmark = pytest.mark.frameworks

ROWS = torch.Generator().manual_seed(0)
X = 3 + 5 * torch.randn(64, 4, generator=ROWS)
Y = (X[:, :1] + X[:, 1:2] > 6).float()


class Net(nn.Module):
    """Two hidden layers that keep the shape, dropout, and an activation function at the end."""

    def __init__(self):
        super().__init__()
        self.first, self.act1 = nn.Linear(4, 8), nn.Sigmoid()
        self.second, self.act2 = nn.Linear(8, 8), nn.Sigmoid()
        self.drop = nn.Dropout(0.5)
        self.third, self.act3 = nn.Linear(8, 8), nn.ReLU()
        self.ending = nn.Sigmoid()  # called last, made before the layer that it follows
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        h = self.act1(self.first(x))
        h = self.drop(self.act2(self.second(h)))
        return self.ending(self.out(self.act3(self.third(h))))


def make_model(seed, rate=0.1):
    model = Net()
    owned = [value for name, value in model.named_parameters() if "first" not in name]
    return model, torch.optim.SGD(owned, lr=rate, weight_decay=0.01)


def train(model, optimizer, loss=None, steps=5):
    loss = loss or F.binary_cross_entropy
    for _ in range(steps):
        rows = torch.randint(len(X), (16,))
        optimizer.zero_grad()
        loss(model(X[rows]), Y[rows]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return {"accuracy": float(((model(X) > 0.5) == (Y > 0.5)).float().mean())}


def silent(model, optimizer):
    train(model, optimizer, steps=20)


# --- what a candidate changes ---------------------------------------------------------------------


def made(name, **given):
    """An unchanged model and a changed one of the same seed."""
    trials = []
    with torch.random.fork_rng():
        for _ in range(2):
            torch.manual_seed(0)
            model, optimizer = make_model(0)
            with first_pass(model) as seen:
                model(X[:16])
            found = Trial(model, optimizer, seen, 3.0, True, True, **given)
            trials.append(found)
        CANDIDATES[name].model(trials[1])
    return trials


def aspects(trial):
    """What can be different about a trial, each comparable."""
    model, optimizer = trial.model, trial.optimizer
    names = {id(value): name for name, value in model.named_parameters()}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    owned = {names[id(value)] for group in optimizer.param_groups for value in group["params"]}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    added = {name for name in kinds if "normalisation" in name}
    hooks = {
        name: len(module._forward_hooks) + len(module._forward_pre_hooks)
        for name, module in model.named_modules()
    }
    return {
        "modules": {name: kind for name, kind in kinds.items() if name not in added},
        "normalised": sorted(added),
        "weights": {n: v.tolist() for n, v in model.named_parameters() if n.endswith("weight")
                    and "normalisation" not in n},
        "biases": {n: v.tolist() for n, v in model.named_parameters() if n.endswith("bias")
                   and "normalisation" not in n},
        "drop": model.drop.p,
        "inputs": hooks.pop("") > 0,
        "added": any(hooks.values()) and not added,
        "owned": {name for name in owned if "normalisation" not in name},
        "rate": groups[0].get("lr"),
        "decay": groups[0].get("weight_decay"),
        "optimizer": type(optimizer).__name__,
        "before step": len(optimizer._optimizer_step_pre_hooks),
        "after step": len(optimizer._optimizer_step_post_hooks),
        "loss": trial.loss,
    }  # fmt: skip


CHANGES = {
    "tanh": {"modules"}, "relu": {"modules"}, "leaky relu": {"modules"},
    "relu ceiling": {"modules"}, "linear output": {"modules"},
    "he": {"weights"}, "xavier": {"weights"}, "orthogonal": {"weights"},
    "layer normalisation": {"normalised"}, "batch normalisation": {"normalised"},
    "residual": {"added"}, "zero biases": {"biases"}, "standardised inputs": {"inputs"},
    "rate / 10": {"rate"}, "rate / 100": {"rate"}, "fitting rate": {"rate"},
    "rate × 10": {"rate"}, "rate × 100": {"rate"}, "clipping": {"before step"},
    "adam": {"optimizer", "rate"}, "own all": {"owned"}, "clear gradients": {"after step"},
    "cross entropy": {"loss"}, "binary cross entropy": {"loss"}, "squared error": {"loss"},
    "no weight decay": {"decay"}, "no dropout": {"drop"},
}  # fmt: skip


@pytest.mark.parametrize("name", CANDIDATES)
def test_each_candidate_changes_exactly_one_thing(name):
    before, after = map(aspects, made(name))
    assert {key for key in before if before[key] != after[key]} == CHANGES[name]


def test_only_hidden_activation_functions_are_exchanged():
    _, changed = made("tanh")
    assert [type(getattr(changed.model, f"act{i}")) for i in (1, 2, 3)] == [nn.Tanh] * 3
    assert type(changed.model.ending) is nn.Sigmoid
    _, changed = made("linear output")
    assert type(changed.model.ending) is nn.Identity
    assert type(changed.model.act3) is nn.ReLU


def test_residuals_are_added_where_the_shape_stays():
    before, after = made("residual")
    before.model.eval(), after.model.eval()
    net, x = before.model, X[:3]
    h = net.act1(net.first(x))
    h = h + net.act2(net.second(h))
    expected = net.ending(net.out(h + net.act3(net.third(h))))
    assert torch.equal(after.model(x), expected)


def test_inputs_are_standardised_by_the_first_batch():
    before, after = made("standardised inputs")
    before.model.eval(), after.model.eval()
    first = X[:16].double()
    scaled = ((X - first.mean(0)) / first.std(0)).float()
    assert torch.allclose(after.model(X), before.model(scaled))


def test_normalisation_is_trained():
    _, changed = made("layer normalisation")
    owned = {id(value) for group in changed.optimizer.param_groups for value in group["params"]}
    assert id(changed.model.second.normalisation.weight) in owned
    h = changed.model.second(torch.randn(5, 8))
    assert torch.allclose(h.mean(1), torch.zeros(5), atol=1e-6)


def test_convolutions_are_changed_too():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip
    with first_pass(model) as seen:
        model(torch.randn(3, 1, 4, 4))
    for name in ("batch normalisation", "residual", "relu ceiling", "he"):
        trial = Trial(model, torch.optim.SGD(model.parameters(), lr=0.1), seen)
        CANDIDATES[name].model(trial)
        assert model(torch.randn(3, 1, 4, 4)).shape == (3, 2)
    assert isinstance(model[0].normalisation, nn.BatchNorm2d)


def test_a_model_without_modules_to_exchange_says_so():
    model = nn.Linear(4, 1)
    with first_pass(model) as seen:
        model(X)
    trial = Trial(model, None, seen)
    for name in ("tanh", "relu ceiling", "residual", "batch normalisation", "rate / 10",
                 "linear output", "no dropout", "squared error"):  # fmt: skip
        with pytest.raises(NotApplicable):
            CANDIDATES[name].model(trial)


# --- trials ---------------------------------------------------------------------------------------


def test_seeds_and_batches_are_the_same_whatever_is_changed():
    drawn = []

    def spied(model, optimizer):
        drawn.append((torch.randint(10**6, (4,)).tolist(), np.random.rand(), random.random()))
        return train(model, optimizer)

    trials = ModelTrials(make_model, spied, 2, factor=3.0)
    first = trials.run(None, Deadline())
    for name in ("he", "tanh", "batch normalisation", "clipping"):
        trials.run(CANDIDATES[name], Deadline())
    assert drawn == drawn[:2] * 5
    assert drawn[0] != drawn[1]
    assert np.array_equal(first, trials.run(None, Deadline()))


def test_random_numbers_of_the_user_go_on_as_before():
    def numbers():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = numbers()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    ModelTrials(make_model, train, 2).run(None, Deadline())
    assert numbers() == expected


def recorded(make=make_model, how=train):
    torch.manual_seed(0)
    model, optimizer = make(0)
    with gradiometer.record(model, optimizer) as recorder:
        how(model, optimizer)
    return recorder.trace


def test_what_mends_a_model_is_recommended():
    def make(seed):
        layers = [nn.Linear(4, 8), nn.Sigmoid()]
        for _ in range(4):
            layers += [nn.Linear(8, 8), nn.Sigmoid()]
        model = nn.Sequential(*layers, nn.Linear(8, 1), nn.Sigmoid())
        return model, torch.optim.SGD(model.parameters(), lr=0.3)

    def long(model, optimizer):
        return train(model, optimizer, steps=80)

    found = gradiometer.try_remedies(
        recorded(make, long), make_model=make, train=long, seeds=4,
        candidates=["batch normalisation", "he", "zero biases", "rate / 100"],
    )  # fmt: skip
    assert found.outcome == "accuracy"
    assert found.recommended is not None
    assert found.recommended.name == "batch normalisation"


def test_a_remedy_that_changes_the_loss_is_compared_by_what_train_returns():
    def make(seed):
        model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
        return model, torch.optim.SGD(model.parameters(), lr=0.02)

    seen = []

    def by_loss(model, optimizer, loss=None):
        seen.append(loss)
        train(model, optimizer, loss, steps=60)
        with torch.no_grad():
            return {"loss": float(F.binary_cross_entropy(model(X), Y))}

    found = gradiometer.try_remedies(
        recorded(make), make_model=make, train=by_loss, seeds=2, candidates=["squared error"]
    )
    assert found.outcome == "loss"
    assert seen == [None, None, F.mse_loss, F.mse_loss]
    torch.manual_seed(0)
    expected = by_loss(*make(0), F.mse_loss)["loss"]
    assert found.tried[0].values[0] == pytest.approx(expected)
    assert found.tried[0].values[0] != found.unchanged[0]


def test_the_recorded_loss_counts_if_train_returns_nothing():
    found = gradiometer.try_remedies(
        recorded(), make_model=make_model, train=silent, seeds=2,
        candidates=["tanh", "squared error", "rate × 100"],
    )  # fmt: skip
    assert found.outcome == "loss"
    assert all(value > 0 for value in found.unchanged)
    assert {row.name for row in found.tried} == {"tanh", "rate × 100"}
    assert found.not_tried[0].why == "train has no parameter `loss`"


def test_a_loss_that_is_not_finite_counts_as_the_one_at_the_start():
    def diverges(model, optimizer):
        train(model, optimizer)
        rate = optimizer.param_groups[0]["lr"]
        return {"loss": 0.5 if rate == 0.1 else float("nan")}

    trials = ModelTrials(make_model, diverges, 2)
    assert trials.run(None, Deadline()).tolist() == [0.5, 0.5]
    found = trials.run(CANDIDATES["rate × 10"], Deadline())
    assert np.array_equal(found, trials._start)
    assert (found > 0.5).all()


def test_a_change_that_breaks_the_training_is_not_tried():
    found = gradiometer.try_remedies(
        recorded(), make_model=make_model, train=train, seeds=2,
        candidates=["linear output", "tanh"],
    )  # fmt: skip
    (row,) = found.not_tried
    assert row.name == "linear output"
    assert row.why.startswith("its training raised RuntimeError")


def test_an_error_of_the_unchanged_training_is_raised():
    def broken(model, optimizer):
        raise KeyError("labels")

    with pytest.raises(KeyError, match="labels"):
        gradiometer.try_remedies(recorded(), make_model=make_model, train=broken, seeds=2)


def test_a_budget_ends_within_a_training():
    def endless(model, optimizer):
        while True:
            train(model, optimizer)

    found = gradiometer.try_remedies(
        recorded(), make_model=make_model, train=endless, seeds=2, budget=0.3
    )
    assert found.ended == "time"
    assert not found.tried


def test_what_train_returns_is_read():
    assert read_outcome({"accuracy": 0.5, "loss": 1}) == ("accuracy", 0.5)
    assert read_outcome({"loss": 1, "r2": 0.25}) == ("R²", 0.25)
    assert read_outcome(None) is None
    assert read_outcome([0.3, 0.2]) is None
    with pytest.raises(TypeError, match="accuracy"):
        read_outcome(0.93)
    with pytest.raises(ValueError, match="acc"):
        read_outcome({"acc": 0.93})


def test_make_model_must_give_a_pair():
    with pytest.raises(TypeError, match="make_model must give"):
        ModelTrials(lambda seed: Net(), train, 1).run(None, Deadline())


def test_a_model_that_was_trained_before_is_refused():
    same = make_model(0)
    with pytest.raises(ValueError, match="make_model must make a new model each time"):
        ModelTrials(lambda _: same, train, 2).run(None, Deadline())
