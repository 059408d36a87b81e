"""The report of a run: what is in it, and that names in it are data."""

import math

import numpy as np
import pytest
from tests.gradiometer.reports.reading import check_page

import gradiometer
from gradiometer.decomposition import NEEDED
from gradiometer.quantities import PER_LAYER
from gradiometer.remedies import Effect, NotTried, Remedies, Tried
from gradiometer.reports.layers import rows
from gradiometer.reports.measuring import missing
from gradiometer.reports.trace import page
from gradiometer.states import with_missing
from gradiometer.trace import Trace

MARKUP = "<img src=x onerror=alert(1)>&\"'"
SHOWN = ("grad_mean_abs", "delta_rms", "dead_fraction", "update_ratio")  # in the table
LARGEST = 1_500_000  # bytes of a report


def made(layers, steps, members=None, quantities=("grad_mean_abs", "delta_rms"), **attrs):
    """A trace of noise."""
    rng = np.random.default_rng(0)
    shape = (steps, len(layers), *([members] if members else []))
    dims = ("step", "layer", "member")[: len(shape)]
    variables = {name: (dims, 10 ** rng.normal(-3, 1, shape)) for name in quantities}
    variables["loss"] = (("step", *dims[2:]), rng.random((shape[0], *shape[2:])))
    coords = {"step": np.arange(1, steps + 1), "layer": layers}
    if members:
        coords["member"] = np.arange(members)
    return Trace.from_arrays(variables, coords, {"seed": 0, **attrs}, {})


@pytest.fixture(scope="module")
def trace():
    everything = [*dict.fromkeys([*PER_LAYER, *NEEDED])]
    return gradiometer.run(layers=10, steps=20, members=2, quantities=everything)


def remedies(**changed):
    effect = Effect(mean=0.5, low=0.4, high=0.6)
    tried = Tried(MARKUP, "tanh", (1.0, 1.0), effect, effect, True, "activation = 'tanh' <b>")
    fields = {
        "tried": (tried,),
        "not_tried": (NotTried("clip", "clipping", "it has no <reason>", ""),),
        "outcome": "accuracy",
        "seeds": (0, 1),
        "unchanged": (0.5, 0.5),
        "random": (0.6, 0.1),
        "sentence": "Tried on the same 2 seeds: tanh & co.",
    }
    return Remedies(**{**fields, **changed})


def test_it_has_the_diagnosis_its_evidence_the_figures_and_how_it_was_measured(trace):
    read = check_page(page(trace))
    diagnosis = trace.diagnose()
    for verdict in diagnosis:
        assert verdict.sentence in read.text
        for found in verdict.evidence:
            assert found.label in read.text
    assert len(read.all("img")) == 3
    for name in trace.layers:
        assert name in read.text
    for words in ("float64", "seeds 0 to 1", "20 recorded steps", "numpy", "went to recording"):
        assert words in read.text
    assert "the rule “" in read.text
    assert "The terms add up to the measured gain exactly." in read.text


def test_the_same_trace_gives_the_same_file(trace):
    assert page(trace) == page(trace)


def test_what_was_not_recorded_is_said():
    trace = gradiometer.run(layers=2, steps=3, quantities=["grad_mean_abs", "delta_rms"])
    read = check_page(page(trace))
    assert 'For exact ones, add "affine_delta_rms"' in read.text
    assert "Not recorded" in read.text
    for unknown in trace.diagnose().not_judged:
        assert unknown.sentence in read.text
    alone = made(["a"], 2)
    assert "no two layers that one delta goes through" in check_page(page(alone)).text


def test_a_part_of_the_quantities_gives_exact_terms_too():
    some = ["grad_rms", "delta_rms", "backward_rms", "arriving_rms", "phi_delta_rms"]
    trace = gradiometer.run(layers=3, steps=2, quantities=some)
    assert "exactly, but some are parts of others" in check_page(page(trace)).text


def test_reasons_for_missing_quantities_are_told():
    trace = gradiometer.run(layers=2, steps=2, quantities=[*NEEDED])
    read = check_page(page(trace))
    assert "What is missing, and why" in read.text
    assert trace.why("arriving_rms", "out") in read.text


def test_quantities_with_one_reason_share_a_row():
    names = ["grad_mean_abs", "delta_rms"]
    trace = made(["a", "b"], 2, missing='{"b": {"grad_mean_abs": "frozen", "delta_rms": "frozen"}}')
    mask = np.array([[False, True], [False, True]])
    trace = Trace(with_missing(trace.dataset, dict.fromkeys(names, mask)))
    assert missing(trace) == [("grad_mean_abs, delta_rms", "b", "frozen")]


def test_remedies_are_shown_if_they_are_given(trace):
    assert "Remedies tried" not in page(trace)
    read = check_page(page(trace, remedies=remedies()))
    for words in ("Remedies tried", "tanh & co.", "0.50 [0.40, 0.60]", "activation = 'tanh' <b>"):
        assert words in read.text
    assert "it has no <reason>" in read.text
    nothing = check_page(page(trace, remedies=Remedies(sentence="Nothing was tried.")))
    assert "Nothing was tried." in nothing.text


@pytest.mark.parametrize("name", [MARKUP, "x" * 300, "a\u202eb\nc\ud800", "$x$_{{ 7 * 7 }}"])
def test_names_are_data_and_never_markup(name):
    trace = made([f"{name}1", f"{name}2", f"{name}3"], 4, optimizer=name, dtype=name)
    text = page(trace)
    read = check_page(text)
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert "49" not in [*read.text.split()]
    if name == MARKUP:
        assert f"{MARKUP}1" in read.text
    text.encode()


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_values_of_one_kind_break_nothing(value):
    trace = made(["a", "b"], 3)
    for name in trace.quantities:
        trace.dataset[name][:] = value
    check_page(page(trace))


def test_the_table_has_the_medians_of_the_figures():
    trace = made(["a", "b"], 1, members=3)
    trace.dataset["delta_rms"][:] = [[[0.0, 1.0, math.nan], [0.5, math.nan, math.nan]]]
    found = [row["cells"][0] for row in rows(trace, trace.diagnose())]
    assert found == ["1.00e+00", "not finite"]


def test_one_step_and_strange_facts_break_nothing():
    trace = made(["a", "b"], 1, versions="no JSON", recording_overhead="much", wall_time_s="long")
    read = check_page(page(trace))
    assert "1 recorded step, from 1 to 1" in read.text


def test_a_large_run_gives_a_small_file():
    names = [f"{i}.{'x' * 300}" for i in range(100)]
    trace = made(names, 200, members=20, quantities=[*dict.fromkeys([*SHOWN, *NEEDED])])
    assert len(page(trace).encode()) < LARGEST


def test_of_a_very_deep_net_both_ends_are_listed():
    read = check_page(page(made([f"layer {i}" for i in range(1000)], 2)))
    assert "… 600 layers" in read.text
    assert "layer 199" in read.text
    assert "layer 200" not in read.text


def test_a_trace_without_a_step_has_a_report_too():
    read = check_page(page(made(["a", "b"], 0)))
    assert "no step was recorded" in read.text
