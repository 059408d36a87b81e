"""try_remedies with experiments: what is recommended, kept, and left untried."""

import io
import json
import os
import signal

import numpy as np
import pytest

import gradiometer
from gradiometer.events import RemediesBegun, RemediesFound, RemedyTried
from gradiometer.experiment import Experiment
from gradiometer.interrupts import OutOfTime
from gradiometer.remedies import CANDIDATES, Remedies
from gradiometer.remedies.experiments import ExperimentTrials

SIGMOID = {"layers": 6, "learning_rate": 0.01, "steps": 40}


@pytest.fixture(scope="module")
def failing():
    return Experiment.of(**SIGMOID).run()


def test_what_mends_the_net_is_recommended(failing):
    found = gradiometer.try_remedies(failing, candidates=["tanh", "he", "rate / 10"], seeds=6)
    best = found.recommended
    assert best.name == "tanh"
    assert best.against_nothing.low > 0
    assert best.against_random.low > 0
    assert found.tried[0] is best
    assert [row.works for row in found.tried] == [True, False, False]
    assert "tanh reaches accuracy" in found.sentence
    assert found.sentence.endswith("Do that first.")
    assert best.code == "gradiometer.run(experiment, activation='tanh')"


def test_the_same_again(failing):
    names = ["tanh", "clipping"]
    first, second = (gradiometer.try_remedies(failing, candidates=names, seeds=3) for _ in range(2))
    assert first == second


def test_nothing_is_recommended_when_nothing_helps(failing):
    names = ["rate / 10", "zero biases", "clipping", "rate / 100"]
    found = gradiometer.try_remedies(failing, candidates=names, seeds=4)
    assert found.recommended is None
    assert len(found.tried) == 4
    assert "none beats both" in found.sentence


def test_one_seed_recommends_nothing(failing):
    found = gradiometer.try_remedies(failing, candidates=["tanh", "he"], seeds=1)
    assert found.recommended is None
    assert found.to_dict()["tried"][0]["against_nothing"]["low"] is None


def test_a_healthy_net_is_left_alone():
    trace = Experiment.of(layers=2, activation="tanh", learning_rate=0.01).run()
    found = gradiometer.try_remedies(trace)
    assert found == Remedies(healthy=True, sentence="Nothing to mend: the net learns.")
    asked = gradiometer.try_remedies(trace, candidates=["relu"], seeds=2)
    assert [row.name for row in asked.tried] == ["relu"]
    assert asked.recommended is None


def test_without_a_model_all_is_advice(failing):
    trace = Experiment.of(**SIGMOID).run()
    trace.dataset.attrs.pop("experiment")
    found = gradiometer.try_remedies(trace)
    assert not found.tried
    assert {row.name for row in found.not_tried} == set(CANDIDATES)
    assert {row.why for row in found.not_tried} == {"there is no make_model"}
    assert found.sentence.startswith("Nothing was tried, because there is no make_model. ")
    assert all(row.code for row in found.not_tried)


def test_what_cannot_be_applied_says_why(failing):
    found = gradiometer.try_remedies(failing, candidates=["cross entropy", "relu ceiling"], seeds=2)
    assert {row.name: row.why for row in found.not_tried} == {
        "cross entropy": "cross entropy is its loss",
        "relu ceiling": "only a ReLU without a ceiling is given one",
    }


def test_a_net_that_is_not_finite_counts_as_zero():
    trace = Experiment.of(layers=3, activation="relu", learning_rate=1e3, steps=20).run()
    found = gradiometer.try_remedies(trace, candidates=["rate × 100"], seeds=2)
    assert all(0 <= value <= 1 for row in found.tried for value in row.values)


# --- events, time, interrupts ---------------------------------------------------------------------


def test_events_tell_how_far_it_is(failing):
    told = []
    found = gradiometer.try_remedies(
        failing, candidates=["tanh", "relu"], seeds=2, on_event=told.append
    )
    begun, *tried, ended = told
    assert begun == RemediesBegun(2, 2)
    assert [type(event) for event in tried] == [RemedyTried, RemedyTried]
    assert [(event.done, event.total) for event in tried] == [(1, 2), (2, 2)]
    assert tried[0].words == "tanh"
    assert tried[0].reached > tried[0].unchanged
    assert ended == RemediesFound(found)


def test_what_was_tried_before_the_time_was_over_is_kept(failing, monkeypatch):
    original, calls = ExperimentTrials.run, []

    def slow(self, candidate, deadline):
        calls.append(candidate)
        if len(calls) > 3:
            raise OutOfTime
        return original(self, candidate, deadline)

    monkeypatch.setattr(ExperimentTrials, "run", slow)
    names = ["tanh", "he", "rate / 10", "clipping"]
    found = gradiometer.try_remedies(failing, candidates=names, seeds=2, budget=1000.0)
    assert found.ended == "time"
    assert len(found.tried) == 2
    assert {row.why for row in found.not_tried} == {"the time was over"}
    assert "The time was over after 2 of 4 remedies." in found.sentence


def test_a_budget_ends_within_a_training(failing):
    fields = {**failing.experiment, "steps": 10**6}
    trace = gradiometer.Trace(failing.dataset.assign_attrs(experiment=json.dumps(fields)))
    found = gradiometer.try_remedies(trace, seeds=2, budget=0.5)
    assert found.ended == "time"
    assert not found.tried
    assert not found.unchanged
    assert found.sentence.startswith("Nothing was tried, because the time was over. ")


def test_what_was_tried_before_an_interrupt_is_kept(failing):
    def interrupt(event):
        if isinstance(event, RemedyTried) and event.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    names = ["tanh", "he", "rate / 10", "clipping"]
    found = gradiometer.try_remedies(failing, candidates=names, seeds=2, on_event=interrupt)
    assert found.ended == "interrupted"
    assert len(found.tried) == 2
    assert len(found.not_tried) == 2


def test_an_interrupt_before_the_first_result_is_raised(failing):
    def interrupt(event):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        gradiometer.try_remedies(failing, seeds=2, on_event=interrupt)


# --- what is given and shown ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"seeds": 0}, ValueError, "seeds"),
        ({"budget": -1.0}, ValueError, "-1"),
        ({"candidates": ["magic"]}, ValueError, "magic"),
        ({"candidates": 3}, TypeError, "candidates must be names of remedies, got 3"),
        ({"make_model": print}, TypeError, "train is not given"),
        ({"make_model": print, "train": 3}, TypeError, "train must be a function, got 3"),
    ],
)
def test_what_is_wrong_is_named(failing, given, error, match):
    with pytest.raises(error, match=match):
        gradiometer.try_remedies(failing, **given)


@pytest.mark.parametrize("given", [None, "trace.nc", 3])
def test_remedies_are_tried_for_a_trace(given):
    with pytest.raises(TypeError, match="remedies are tried for a Trace, got"):
        gradiometer.try_remedies(given)


def test_results_are_shown_and_written(failing):
    found = gradiometer.try_remedies(failing, candidates=["tanh", "he", "relu ceiling"], seeds=3)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["outcome"] == "accuracy"
    assert written["seeds"] == [0, 1, 2]
    assert [row["name"] for row in written["not_tried"]] == ["relu ceiling"]
    html = found._repr_html_()
    assert "<table>" in html
    assert "relu ceiling" not in html.split("<details>")[0]
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    assert "(unchanged)" in text
    assert "He's initialisation" in text
    assert np.isclose(found.random[0], np.mean([row.mean for row in found.tried]))
