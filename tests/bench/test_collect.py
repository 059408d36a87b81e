"""Collection: labels that measurement refutes are dropped, and a stopped collection goes on."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from bench.corpus import collect
from bench.corpus.cases import Case, Measured
from bench.corpus.mlp_training import train

NET = {
    "data": "iris2", "activation": "tanh", "layers": 2, "width": 5, "init": "glorot_uniform",
    "optimizer": "sgd", "learning_rate": 0.5, "steps": 20, "seed": 1,
}  # fmt: skip
TWIN = Case("net-mended", "tanh MLP", "test", "healthy", partial(train, **NET), 0.95)
FAILING = Case(
    "net", "tanh MLP", "test", "stalled", partial(train, **{**NET, "learning_rate": 1e-9}), 0.95,
    cause="learning rate too low", twin="net-mended",
)  # fmt: skip
# labelled as failing, though it learns
WRONG = Case(
    "wrong", "tanh MLP", "test", "vanishing", partial(train, **{**NET, "seed": 4}), 0.95,
    cause="activation slope", twin="net-mended",
)  # fmt: skip


def gather(cases, folder, **options):
    said = []
    complete = collect.collect(cases, folder, say=said.append, **options)
    kept, dropped = collect.verified({case.name: case for case in cases}, collect.journal(folder))
    return complete, [row["name"] for row in kept], {row["name"]: row["reason"] for row in dropped}


def test_a_case_verifies_and_a_wrong_label_is_noticed(tmp_path):
    complete, kept, dropped = gather([FAILING, TWIN, WRONG], tmp_path)
    assert complete
    assert kept == ["net", "net-mended"]
    assert list(dropped) == ["wrong"]
    assert dropped["wrong"].startswith("does not fail: 1.000")
    loaded = collect.Trace.load(collect.path_of("net", tmp_path))
    assert loaded["grad_norm"].shape == (20,)
    assert "backward_live_rms" in loaded.quantities
    assert "stalled" not in str(loaded.dataset.attrs)  # a trace does not tell its label


def test_a_collection_that_was_stopped_goes_on(tmp_path, monkeypatch):
    assert gather([FAILING, TWIN], tmp_path, minutes=-1)[0] is False
    gather([TWIN], tmp_path)
    trained = []
    monkeypatch.setattr(
        collect, "train_one",
        lambda case, folder: trained.append(case.name)
        or collect.Entry(case.name, case.digest, Measured(0.5, True), 0.0),
    )  # fmt: skip
    gather([FAILING, TWIN], tmp_path)
    assert trained == ["net"]


def test_a_line_cut_short_a_lost_trace_and_other_settings_are_trained_anew(tmp_path):
    gather([FAILING, TWIN], tmp_path)
    changed = replace(TWIN, make=partial(train, **{**NET, "steps": 21}))
    known = collect.journal(tmp_path)
    assert not collect.is_done(changed, known, tmp_path)
    assert collect.is_done(TWIN, known, tmp_path)
    collect.path_of("net-mended", tmp_path).unlink()
    assert not collect.is_done(TWIN, known, tmp_path)
    path = tmp_path / "journal.jsonl"
    path.write_text(path.read_text() + '{"name": "net", "dig')
    assert collect.journal(tmp_path) == known


def test_training_is_deterministic():
    first, second = TWIN.make(), TWIN.make()
    assert first.outcome == second.outcome
    for name in ("loss", "delta_rms", "update_ratio"):
        np.testing.assert_array_equal(first.trace[name].values, second.trace[name].values)


def test_what_a_training_raises_is_a_reason(tmp_path):
    broken = replace(TWIN, make=partial(train, **{**NET, "activation": "unknown"}))
    complete, kept, dropped = gather([broken], tmp_path)
    assert complete
    assert kept == []
    assert "unknown" in dropped["net-mended"]


def test_tables(tmp_path):
    rows = [{"name": "net", "cause": "a, b"}]
    collect.write_table(rows, tmp_path / "nets.csv")
    assert collect.read_table(tmp_path / "nets.csv") == rows


@pytest.mark.parametrize("inputs", ["nan", "inf"])
def test_what_is_not_finite_is_seen(inputs, tmp_path):
    entry = collect.train_one(
        replace(TWIN, make=partial(train, **{**NET, "inputs": inputs})), tmp_path
    )
    assert not entry.measured.finite
    assert np.isnan(entry.measured.outcome)
