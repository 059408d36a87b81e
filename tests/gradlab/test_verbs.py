"""What a trace says, in numbers and in one sentence."""

import re

import numpy as np
import pytest

import gradlab
from gradlab import verbs
from gradlab.experiment import Experiment


def trace_with(gradient, delta=None, **experiment):
    """A run's trace, with a gradient and a delta of our own making at every step and member."""
    settings = {"layers": len(gradient) - 1, "width": 2, "steps": 2, "activation": "tanh"}
    trace = Experiment.of(**settings, **experiment).run()
    for name, values in [("grad_mean_abs", gradient), ("delta_rms", delta or gradient)]:
        array = trace.dataset[name]
        array[...] = np.reshape(values, (1, -1) + (1,) * (array.ndim - 2))
    return trace


@pytest.mark.parametrize("experiment", [{}, {"members": 3}])
@pytest.mark.parametrize(
    ("gradient", "delta", "words"),
    [
        ([1e-5, 1e-2, 1], [1e-6, 1e-3, 1], "does not reach the first layer: .* falls by 5.0 decad"),
        ([1e-5, 1e-2, 1], [1e-6, 1e-3, 1], r"\(the delta falls by 6.0\)\.$"),
        (
            [0.1, 1, 1],
            [0.01, 1, 1],
            r"The gradient reaches .*falls by 1.0 .*\(the delta falls by 2",
        ),
        ([2.0, 1, 1], [1.0, 1, 4], r"reaches the first layer: .* grows by 0.3 .*falls by 0.6"),
        (
            [0.1, 1, 1],
            [1e-4, 1, 1],
            "reaches .* 1.0 .*, but the delta falls by 4.0: only the layers",
        ),
        ([1e4, 1e2, 1], None, "explodes on its way to the first layer: .* grows by 4.0 decades"),
        ([0.0, 1, 1], None, "does not reach the first layer: it is exactly zero in h1"),
        ([0.0, 0.0, 1], None, "it is exactly zero in h1 to h2"),
        ([0.0, 0.0, 0.0], None, "it is exactly zero in h1 to out"),
    ],
)
def test_the_sentence(gradient, delta, words, experiment):
    trace = trace_with(gradient, delta, **experiment)
    assert re.search(words, verbs.sentence(trace)), verbs.sentence(trace)


def test_a_run_that_diverged_says_where():
    trace = Experiment.of(activation="relu", learning_rate=1e200, layers=3, steps=10).run()
    bad = trace["nonfinite_count"].values
    step = int(np.argmax(bad.any(axis=1)))
    layer = str(trace["layer"].values[np.argmax(bad[step] > 0)])
    count = int(bad[step][bad[step] > 0][0])
    assert verbs.sentence(trace) == (
        f"The run diverged: layer {layer!r} is the first with values that are not finite: {count} "
        f"of them in step {step + 1}."
    )


def test_decades_lost():
    assert verbs.decades_lost(trace_with([1e-3, 5, 10.0])) == pytest.approx(4)
    assert verbs.decades_lost(trace_with([1e-3, 5, 10.0], [1, 1, 1]), "delta_rms") == 0
    assert verbs.decades_lost(trace_with([0.0, 5, 10.0])) == np.inf
    assert np.isnan(verbs.decades_lost(trace_with([np.nan, 5, 10.0])))
    assert np.isnan(verbs.decades_lost(trace_with([0.0, 5, 0.0])))


def test_the_table_has_medians_over_members():
    trace = Experiment.of(layers=2, width=3, steps=5, activation="relu", members=5).run()
    rows = verbs.layer_table(trace)
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


def test_run_takes_an_experiment_a_file_or_settings(tmp_path):
    described = Experiment.of(layers=1, steps=2)
    described.save(tmp_path / "e.toml")
    losses = [
        gradlab.run(described)["loss"],
        gradlab.run(tmp_path / "e.toml")["loss"],
        gradlab.run(layers=1, steps=2)["loss"],
        gradlab.run(Experiment.of(layers=5), layers=1, steps=2)["loss"],
    ]
    for loss in losses[1:]:
        np.testing.assert_array_equal(loss, losses[0])


def test_figures_can_be_drawn_from_a_trace_or_its_file(tmp_path):
    trace = gradlab.run(layers=1, steps=2, out=tmp_path)
    for source in [trace, tmp_path / "trace.nc"]:
        drawn = gradlab.plot(source, "profile", out=tmp_path / "again.png")
        assert len(drawn.axes) == 2
        assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"unknown figure 'profil'; did you mean 'profile'\?"):
        gradlab.plot(trace, "profil")
