"""The benchmark's peers that need nothing but NumPy and dp come to the same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "bench" / "__init__.py").is_file():
    pytest.skip("bench/ is not here", allow_module_level=True)
sys.path.insert(0, str(ROOT))
try:
    from bench import checks, peers, reference, report, timing, workloads
finally:
    sys.path.remove(str(ROOT))


def prepared(name, kind, *work):
    try:
        return peers.PEERS[name].function(kind)(*work)
    except peers.Skipped as reason:
        pytest.skip(str(reason))


def near(kind):
    return [
        peer.name
        for peer in peers.PEERS.values()
        if kind in peer.does and peer.needs == "numpy" and not peer.name.startswith("products")
    ]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", near("lesson"))
def test_lesson(name, dtype):
    work = workloads.lesson(dtype, steps=55)  # no multiple of the chunks of the loops by hand
    expected, _ = reference.plain_training(work.exactly())
    assert expected.shape == (55, 11)
    run = prepared(name, "lesson", work)
    for _ in range(2):
        checks.check(run(), expected, dtype, name)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", near("steps"))
def test_steps(name, activation):
    work = workloads.random_labels([12, 9, 9, 9, 4], activation, 16, "float64")
    _, after = reference.plain_training(work)
    steps = prepared(name, "steps", work)
    steps.run(work.steps)
    first = [p for pair in zip(work.weights, work.biases, strict=True) for p in pair]
    checks.check_change(steps.parameters(), first, after, "float64", name)


@pytest.mark.parametrize("name", near("sweep"))
def test_sweep(name):
    work = workloads.sweep("float64", depths=(1, 3), seeds=(0, 5), steps=4)
    found = prepared(name, "sweep", work)()
    for cell, training in work.trainings.items():
        expected, _ = reference.plain_training(training.exactly())
        assert expected.shape == (2, 4, cell[1] + 1)
        checks.check(found[cell], expected, "float64", f"{name} {cell}")
        alone, _ = reference.plain_training(training.alone(1))
        np.testing.assert_allclose(expected[1], alone, rtol=1e-12)


@pytest.mark.parametrize("name", near("chain"))
def test_chain(name):
    check = workloads.WORKLOADS["graphs"].checker("float64")
    check(prepared(name, "chain", 1_000, "float64")(), name)


def test_wrong_results_are_refused():
    expected = np.full((3, 2), 2.0)
    checks.check(expected, expected, "float64", "same")
    with pytest.raises(ValueError, match="someone: differs by 5"):
        checks.check(expected * 1.5, expected, "float64", "someone")
    with pytest.raises(ValueError, match="shape"):
        checks.check(expected[:2], expected, "float64", "someone")
    with pytest.raises(ValueError, match="finite"):
        checks.check(expected * np.nan, expected, "float64", "someone")
    with pytest.raises(ValueError, match="parameter 0"):
        checks.check_change([expected], [expected], [expected + 1], "float64", "someone")


def test_who_is_chosen():
    assert [p.name for p in peers.chosen("lesson", ["dp"])] == ["numpy-exp", "numpy-tanh", "dp"]
    with pytest.raises(ValueError, match="no peer is called 'torhc'"):
        peers.chosen("lesson", ["torhc"])


def test_the_least_difference_is_that_of_the_least_trainings():
    row = timing.Row(peers.PEERS["dp-compiled"])
    row.add(([0.010, 0.012], [0.050, 0.060]))
    row.add(([0.030, 0.031], [0.055, 0.052]))  # the short ones were disturbed, in this turn
    assert row.rounds == [[pytest.approx(0.040)], [pytest.approx(0.022)]]
    assert row.minimum == pytest.approx(0.040)


def test_ratios_and_table():
    hand, dp, gone = (peers.PEERS[name] for name in ("numpy-exp", "dp", "torch"))
    rows = [
        timing.Row(gone, skipped="torch is not installed"),
        timing.Row(dp, rounds=[[0.05, 0.04], [0.08]]),
        timing.Row(hand, rounds=[[0.02, 0.03], [0.02]]),
    ]
    ranked = timing.ranked(rows, "lesson")
    assert [row.peer for row in ranked] == [hand, dp, gone]
    assert ranked[1].ratio == pytest.approx(3.0)  # of 2 and 4
    text = report.table(ranked, "ms per run", "by hand", "first run, s")
    assert "| dp | 50.0 | 40.0 | 3.00 | 2.00 |" in text
    assert "- PyTorch, tuned: torch is not installed" in text
