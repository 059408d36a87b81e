"""What a trace says, in numbers and in one sentence."""

import re

import numpy as np
import pytest

from gradiometer import summary
from gradiometer.experiment import Experiment
from gradiometer.trace import Trace


def trace_with(gradient, delta=None, **experiment):
    """A run's trace, with a gradient and a delta of our own making at every step and member."""
    settings = {"layers": len(gradient) - 1, "width": 2, "steps": 2, "activation": "tanh"}
    trace = Experiment.of(**settings, **experiment).run()
    for name, values in [("grad_mean_abs", gradient), ("delta_rms", delta or gradient)]:
        array = trace.dataset[name]
        array[...] = np.reshape(values, (1, -1) + (1,) * (array.ndim - 2))
    return trace


def missing_where_nan(trace):
    """The trace, NaN counted as missing: so it is in files of format 1 where all is finite."""
    return Trace(trace.dataset.assign_attrs(format=1))


@pytest.mark.parametrize("experiment", [{}, {"members": 3}])
@pytest.mark.parametrize(
    ("gradient", "delta", "words"),
    [
        ([1e-5, 1e-2, 1], [1e-6, 1e-3, 1], "does not reach the first layer: .* falls by 5.0 decad"),
        (
            [1e-5, 1e-2, 1],
            [1e-6, 1e-3, 1],
            r"\(the delta falls by 6.0\); the same at the last step, 2\.$",
        ),
        (
            [0.1, 1, 1],
            [0.01, 1, 1],
            r"The gradient reaches .*falls by 1.0 .*\(the delta falls by 2",
        ),
        ([2.0, 1, 1], [1.0, 1, 4], r"reaches the first layer: .* grows by 0.3 .*falls by 0.6"),
        (
            [0.1, 1, 1],
            [1e-4, 1, 1],
            "does not reach .* 1.0 .*, which is misleading: the delta falls by 4.0",
        ),
        (
            [1e-4, 1, 1],
            [0.5, 1, 1],
            r"reaches .* 4.0 .*, which is misleading: .* falls by 0.3; the same at",
        ),
        (
            [0.6, 1, 1],
            [1e12, 1, 1],
            r"explodes .* 0.2 .*, which is misleading: .* grows by 12.0; the same at",
        ),
        (
            [1, 5, 1],
            [1, 1, 1],
            r"is about the same in .* layer 1 \(the delta stays about the same\); the same at",
        ),
        ([1e4, 1e2, 1], None, "explodes on its way to the first layer: .* grows by 4.0 decades"),
        ([0.0, 1, 1], None, "does not reach the first layer: it is exactly zero in h1"),
        ([0.0, 0.0, 1], None, "it is exactly zero in h1 to h2"),
        ([0.0, 0.0, 0.0], None, "it is exactly zero in h1 to out"),
    ],
)
def test_the_sentence(gradient, delta, words, experiment):
    trace = trace_with(gradient, delta, **experiment)
    assert re.search(words, trace.sentence()), trace.sentence()


def test_a_run_that_diverged_says_where():
    experiment = {"activation": "relu", "learning_rate": 1e200, "layers": 3, "steps": 10}
    trace = Experiment.of(**experiment).run()
    bad = trace["nonfinite_count"].values.any(axis=1)
    step = int(trace["step"][np.argmax(bad)])
    assert re.fullmatch(
        r"The run diverged: the first values that are not finite, [1-9]\d* of them, came up in "
        rf"step {step} in layer 'h\d' \(activation\)\.",
        trace.sentence(),
    )
    sparse = Experiment.of(**experiment, every=4).run()
    assert "came up by step 5 in" in sparse.sentence()


def test_of_an_ensemble_it_says_how_many_nets_diverged():
    trace = Experiment.of(activation="relu", learning_rate=0.03, members=20, steps=50).run()
    bad = int((~np.isfinite(trace["loss"].values)).any(axis=0).sum())
    assert 0 < bad < 20
    assert trace.sentence().startswith(f"{bad} of 20 nets diverged: ")


def test_of_an_ensemble_it_says_in_how_many_nets_the_gradient_is_zero():
    trace = Experiment.of(layers=10, width=2, activation="relu", members=20, steps=1).run()
    zero = int((trace["grad_mean_abs"].values[0, 0] == 0).sum())
    assert 10 < zero < 20
    assert trace.sentence().endswith(f" in {zero} of 20 nets.")


def test_decades_lost():
    assert summary.decades_lost(trace_with([1e-3, 5, 10.0])) == pytest.approx(4)
    assert summary.decades_lost(trace_with([1e-3, 5, 10.0], [1, 1, 1]), "delta_rms") == 0
    assert summary.decades_lost(trace_with([0.0, 5, 10.0])) == np.inf
    assert np.isnan(summary.decades_lost(trace_with([np.nan, 5, 10.0])))
    assert np.isnan(summary.decades_lost(trace_with([0.0, 5, 0.0])))


def test_the_table_has_medians_over_members():
    trace = Experiment.of(layers=2, width=3, steps=5, activation="relu", members=5).run()
    rows = trace.table()
    assert [row["layer"] for row in rows] == ["h1", "h2", "out"]
    assert [row["depth"] for row in rows] == [1, 2, 3]
    gradient = np.median(trace["grad_mean_abs"], axis=-1)
    np.testing.assert_array_equal([row["first"] for row in rows], gradient[0])
    np.testing.assert_array_equal([row["last"] for row in rows], gradient[-1])
    np.testing.assert_array_equal(
        [row["delta"] for row in rows], np.median(trace["delta_rms"], axis=-1)[0]
    )
    np.testing.assert_array_equal(
        [row["dead"] for row in rows], np.median(trace["dead_fraction"], axis=-1)[-1]
    )


def test_the_table_tells_missing_from_not_finite():
    trace = Experiment.of(data="iris", layers=1, width=3, steps=2, members=2).run()
    trace.dataset["dead_fraction"][-1, 0] = np.nan
    trace.dataset["grad_mean_abs"][0, 0] = [0.5, np.inf]
    first, last = trace.table()
    assert first["first"] == np.inf
    assert np.isnan(first["dead"])
    assert last["saturated"] is None  # of a softmax


def test_a_trace_of_chosen_quantities_still_says_something():
    trace = trace_with([1e-5, 1e-2, 1], [1e-6, 1e-3, 1])
    without = trace.dataset.drop_vars(["grad_mean_abs"])
    assert "the rms of dL/dW" in Trace(without).sentence()
    delta = Trace(without.drop_vars(["grad_rms"]))
    assert "does not reach the first layer: at the first step the rms of the delta" in (
        delta.sentence()
    )
    assert delta.table()[0]["first"] is None
    with pytest.raises(KeyError, match="record it with quantities="):
        Trace(delta.dataset.drop_vars(["delta_rms"])).sentence()


def test_layers_that_are_not_trained_are_no_ends():
    trace = missing_where_nan(trace_with([np.nan, 1e-2, 1], [np.nan, 1e-3, 1]))
    del trace.attrs["experiment"]
    frozen = Trace(trace.dataset.assign_coords(role=("layer", ["frozen", "trained", "trained"])))
    assert "falls by 2.0 decades from 'out' to 'h2' (the delta falls by 3.0)" in frozen.sentence()
    cut = Trace(trace.dataset.assign_coords(role=("layer", ["unreached", "trained", "trained"])))
    assert cut.sentence() == "No gradient reaches 'h1': the first layer that gets one is 'h2'."


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            [1e-5, 1e-2, 1],
            r"\. At the last step, 2, it does not reach the first layer: mean .* 5\.0",
        ),
        ([1e5, 1e2, 1], r"\. At the last step, 2, it explodes on its way to the first layer: "),
        ([0.1, 1, 1], r"; at the last step, 2, it falls by 1\.0 \(the delta falls by 1\.0\)\."),
        ([0.5, 1, 1], r"; the same at the last step, 2\."),
        ([0.0, 0.0, 1], r"\. At the last step, 2, it does not: it is exactly zero in h1 to h2\."),
        ([np.nan, 1, 1], r"; at the last step, 2, it cannot be compared\."),
    ],
)
def test_what_became_of_it_at_the_last_step(last, words):
    trace = trace_with([0.5, 1, 1])
    for name in ("grad_mean_abs", "delta_rms"):
        trace.dataset[name][-1] = last
    text = trace.sentence()
    assert text.startswith("The gradient reaches the first layer: at the first step mean |dL/dW| ")
    assert re.search(words, text), text


def test_units_that_are_dead_at_the_last_step_are_told():
    trace = trace_with([0.5, 1, 1])
    trace.dataset["dead_fraction"][-1] = [0.2, 0.91, 0.0]
    assert trace.sentence().endswith(" By then 91% of the units of 'h2' are dead.")
    trace.dataset["dead_fraction"][-1] = [0.6, 0.91, 0.5]
    assert (
        "91% of the units of 'h2' are dead, and most units of 2 other layers." in trace.sentence()
    )
    trace.dataset["dead_fraction"][-1] = [0.2, 0.4, 0.0]
    assert "dead" not in trace.sentence()


@pytest.mark.parametrize("role", ["outside", "frozen"])
def test_gradients_that_are_in_the_trace_are_not_denied(role):
    trace = trace_with([0.5, 1, 1])
    del trace.attrs["experiment"]
    odd = Trace(trace.dataset.assign_coords(role=("layer", [role] * 3)))
    assert odd.sentence().startswith(
        "There are no layers to compare: gradients are known only for 'h1'"
    )
    missed = trace_with([np.nan, 1, 1])
    missed.dataset["grad_mean_abs"][-1, 0] = 1.0
    missed = missing_where_nan(missed)
    later = Trace(missed.dataset.assign_coords(role=("layer", ["unreached", "trained", "trained"])))
    assert "No gradient reaches" not in later.sentence()
