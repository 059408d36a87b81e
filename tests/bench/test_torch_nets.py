"""The corpus' nets of PyTorch: faults fail, repaired they learn, and all is drawn by the seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

if not (Path(__file__).parents[2] / "bench" / "__init__.py").is_file():
    pytest.skip("bench/ is not here", allow_module_level=True)
torch = pytest.importorskip("torch")

from bench.corpus.cases import check  # noqa: E402
from bench.corpus.torch_nets import cases  # noqa: E402
from bench.corpus.torch_nets.groups import GROUPS  # noqa: E402
from bench.corpus.torch_nets.losses import LOSSES  # noqa: E402
from bench.corpus.torch_nets.nets import build, layers_of, task_of  # noqa: E402
from bench.corpus.torch_nets.spoiling import INPUTS, TARGETS  # noqa: E402
from bench.corpus.torch_nets.symptoms import symptom  # noqa: E402
from bench.corpus.torch_nets.tasks import fixed_rows  # noqa: E402
from bench.corpus.torch_nets.training import train  # noqa: E402

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope="module")
def named():
    return check(cases())


def test_enough_of_both_in_both_parts(named):
    for part in ("calibration", "test"):
        failing = [case for case in named.values() if case.part == part and case.twin]
        healthy = [case for case in named.values() if case.part == part and not case.twin]
        assert len(failing) > 150
        assert len(healthy) > len(failing)  # a twin each, and controls


def test_architectures_only_in_the_test_part():
    parts = {}
    for group in GROUPS.values():
        parts.setdefault(group.plan.net, set()).add(group.part)
    alone = {net for net, part in parts.items() if part == {"test"}}
    assert {"lstm", "gru", "transformer", "attention", "preactivation"} <= alone


def test_a_twin_differs_in_what_the_fault_names(named):
    for case in named.values():
        if case.twin:
            twin = named[case.twin].make.keywords
            own = case.make.keywords
            differs = {key for key in own | twin if own.get(key) != twin.get(key)}
            assert 1 <= len(differs) <= 2, (case.name, differs)


@pytest.mark.parametrize(
    ("group", "fault"),
    [
        ("relu MLP on digits", "zero"),
        ("RNN", "recurrence-small"),
        ("relu MLP on cancer", "cleared"),
        ("LSTM on sums", "flat"),
    ],
)
def test_fails_and_its_twin_learns(group, fault, faulty):
    failing, healthy = faulty(group, fault)
    accept = task_of(GROUPS[group].plan).accept
    assert not train(**failing.settings()).outcome >= accept
    assert train(**healthy.settings()).outcome >= accept


@pytest.fixture
def faulty():
    from bench.corpus.torch_nets.faults import FAULTS

    def plans(group, fault):
        healthy = GROUPS[group].plan.but(**FAULTS[fault].beside)
        return healthy.but(**FAULTS[fault].wrong), healthy

    return plans


def test_symptoms(faulty):
    for fault, expected in [("bias-all", "dead"), ("data-nan", "non-finite"), ("cleared", "")]:
        failing, _ = faulty("relu MLP on digits", fault)
        assert symptom(train(**failing.but(steps=2).settings()).trace).kind == expected
    failing, _ = faulty("tanh MLP on digits", "far")
    seen = symptom(train(**failing.but(steps=2).settings()).trace)
    assert seen == ("saturated", ("stem.0",))


@pytest.mark.parametrize("group", ["relu MLP on digits", "transformer with markers", "GRU"])
def test_the_seed_decides_everything(group):
    settings = GROUPS[group].plan.but(steps=3, dropout=0.1).settings()
    first, second = train(**settings), train(**json.loads(json.dumps(settings)))
    assert first.outcome == second.outcome
    for name in ("loss", "delta_rms", "weight_rms"):
        assert np.array_equal(first.trace[name], second.trace[name], equal_nan=True)


@pytest.mark.parametrize("group", GROUPS)
def test_layers_have_the_names_that_a_trace_has(group):
    plan = GROUPS[group].plan.but(steps=1)
    trace = train(**plan.settings()).trace
    assert set(layers_of(plan)["all"]) <= set(trace.layers)
    assert trace.layers[-1] == "out"


def test_fixed_rows_hold_nothing_that_is_not_finite():
    values = torch.zeros(178, 3)  # as few as wine has
    for spoilt in (*INPUTS.values(), *TARGETS.values()):
        assert torch.isfinite(spoilt(values)[fixed_rows(178)]).all()
    for name in ("with NaN", "with Inf"):
        assert not torch.isfinite(INPUTS[name](values)).all()


@pytest.mark.parametrize("name", ["softmax by hand", "log of softmax"])
def test_losses_by_hand_are_right_where_they_are_finite(name):
    z, y = torch.randn(8, 4), torch.randint(0, 4, (8,))
    expected = LOSSES["cross entropy"](z, y)
    assert torch.allclose(LOSSES[name](z, y), expected)
    assert not torch.isfinite(LOSSES[name](300 * z, y))


def test_what_is_frozen_or_zero():
    plan = GROUPS["relu MLP on digits"].plan
    assert not any(p.requires_grad for p in build(plan.but(frozen="first")).stem.parameters())
    assert not build(plan.but(head="zero")).out.weight.any()
