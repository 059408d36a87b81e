"""`gradiometer predict`, predictions behind measurements, and how a run compares with its own."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import gradiometer
from gradiometer import plots
from gradiometer.cli import app
from gradiometer.experiment import Experiment
from gradiometer.recording import record
from gradiometer.states import with_missing
from gradiometer.theory import Comparison, TheoryError, compare, predict
from gradiometer.trace import Trace

SMALL = {"layers": 3, "width": 6, "activation": "tanh", "steps": 3}


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def experiment():
    return Experiment.of(**SMALL, members=12)


@pytest.fixture(scope="module")
def prediction(experiment):
    return predict(experiment)


@pytest.fixture(scope="module")
def trace(experiment):
    return experiment.run()


# --- the verb -------------------------------------------------------------------------------------


def test_predict_answers_in_a_table_a_sentence_and_a_figure(tmp_path):
    out = tmp_path / "p.png"
    done = call("predict", "--layers", "4", "--activation", "tanh", "--out", out)
    assert done.exit_code == 0, done.output
    chi = gradiometer.predict(layers=4, activation="tanh").phase.chi
    assert f"χ₁ = {chi:.3g}, above 1" in done.output
    assert "edge of chaos" in done.output
    assert "nets simulated at initialisation, none of them trained." in done.output
    for layer in ("1 h1", "4 h4", "5 out"):
        assert layer in done.output
    assert out.read_bytes().startswith(b"\x89PNG")


def test_predict_takes_a_file_and_changes_to_it(tmp_path):
    Experiment.of(layers=2, activation="relu").save(tmp_path / "e.toml")
    from_file = gradiometer.predict(tmp_path / "e.toml", layers=3)
    plain = gradiometer.predict(layers=3, activation="relu")
    np.testing.assert_array_equal(from_file.gradient, plain.gradient)


def test_what_theory_does_not_cover_is_named(tmp_path):
    done = call("predict", "--normalisation", "batch", "--out", tmp_path / "p.png")
    assert done.exit_code == 2
    assert "normalisation: the theory covers 'none' alone, got 'batch'" in done.output
    done = call("predict", "--layers", "0", "--out", tmp_path / "p.png")
    assert done.exit_code == 2
    assert "layers: input should be greater than or equal to 1, got 0" in done.output
    done = call("predict", "--layers", "1", "--out", tmp_path)
    assert done.exit_code == 2
    assert "must end in one of" in done.output


# --- beside what was measured ---------------------------------------------------------------------


def test_a_comparison_counts_nets_and_layers(prediction, trace):
    found = compare(prediction, trace)
    values = trace["grad_mean_abs"].values[0]
    expected = np.log10(np.median(values, axis=1)) - np.log10(prediction.gradient)
    np.testing.assert_allclose(found.error, expected)
    inside = (values >= prediction.gradient_low[:, None]) & (
        values <= prediction.gradient_high[:, None]
    )
    assert found.coverage == pytest.approx(inside.mean())
    assert found.nets == 12
    assert found.mean_error < 0.5
    assert f"{inside.mean():.0%} of the layers' mean |dL/dW| in 12 nets" in found.sentence()


def test_a_comparison_of_one_net(prediction):
    found = compare(prediction, Experiment.of(**SMALL).run())
    count = int(found.inside.sum())
    assert f"mean |dL/dW| of {count} of 4 layers lies in its 90% band" in found.sentence()


def test_another_net_compares_badly(prediction):
    other = Experiment.of(**{**SMALL, "members": 20, "init_scale": 0.05}).run()
    found = compare(prediction, other)
    assert found.coverage < 0.5
    assert "Predicted badly" in found.sentence()


def test_a_prediction_of_other_layers_is_refused(prediction):
    other = Experiment.of(**{**SMALL, "layers": 2}).run()
    with pytest.raises(TheoryError, match="is of the layers h1, h2, h3, out, the trace has h1, h2"):
        compare(prediction, other)
    for name in ("profile", "heatmap"):
        with pytest.raises(ValueError, match="predict the experiment that the trace is of"):
            getattr(other.plot, name)(theory=prediction)


def test_a_trace_without_what_is_predicted(prediction):
    other = Experiment.of(**SMALL, quantities=["grad_rms"]).run()
    with pytest.raises(TheoryError, match="has no grad_mean_abs"):
        compare(prediction, other)


@pytest.mark.parametrize(
    ("error", "inside", "nets", "words"),
    [
        ([0.1, -0.1], 0.9, 20, "Predicted well from the initial weight distribution: the medians"),
        ([0.1, -0.1], 0.7, 20, "Predicted roughly"),
        ([0.3, -0.3], 0.9, 20, "Predicted roughly"),
        ([0.6, -0.6], 0.9, 20, "Predicted badly"),
        ([0.1, -0.1], 0.9, 19, "distribution: 90% of the layers' mean |dL/dW| in 19 nets"),
        (
            [-np.inf, 0.1],
            0.9,
            20,
            "badly: the median in h1 is zero, but was predicted not to be; 9",
        ),
        (
            [np.inf, np.nan],
            0.9,
            20,
            "in h1 is not zero, but was predicted to be; the median in out is",
        ),
    ],
)
def test_words_go_with_medians_and_bands(error, inside, nets, words):
    found = Comparison(np.array(error), np.full(2, inside), nets, ("h1", "out"))
    assert words in found.sentence()


def test_a_comparison_says_where_the_prediction_is_doubtful(prediction, trace):
    assert compare(prediction, trace).sentence().endswith("90% band.")
    doubted = replace(prediction, doubts=("Take it as a guide.",))
    assert compare(doubted, trace).sentence().endswith("90% band. Take it as a guide.")
    assert "nets. Take it as a guide." not in prediction.sentence()
    assert "Take it as a guide. χ₁" in doubted.sentence()


def test_dead_nets_are_told_of():
    experiment = Experiment.of(layers=2, init="zeros", activation="relu", members=20, steps=1)
    found = compare(predict(experiment), experiment.run())
    # zero was predicted, and is in the band; the output's bias alone makes no gradient of a weight
    assert (found.error == 0).all()
    assert found.coverage == 1
    assert "Predicted well" in found.sentence()


def test_of_deep_nets_run_compares_if_it_is_asked(tmp_path, one_figure):
    settings = {"layers": 21, "width": 3, "steps": 2, "members": 2, "batch-size": 4}
    deep = ["run", *(f"--{name}={value}" for name, value in settings.items())]
    done = call(*deep, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "add --theory" in done.output
    done = call(*deep, "--theory", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert "add --theory" not in done.output
    assert "Prediction from the initial weight distribution" in done.output


def test_run_says_how_it_compares(tmp_path, one_figure):
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    done = call("run", *flags, "--members", 20, "--out", tmp_path / "run", "--theory")
    assert done.exit_code == 0, done.output
    assert "Predicted " in done.output
    drawn = call("plot", tmp_path / "run", "--figure", "profile", "--theory")
    assert drawn.exit_code == 0, drawn.output
    refused = call("plot", tmp_path / "run", "--figure", "learning", "--theory")
    assert refused.exit_code == 2
    assert "theory can be shown in heatmap and profile, got 'learning'" in refused.output


def test_run_is_silent_where_theory_does_not_reach(tmp_path, one_figure):
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    done = call("run", *flags, "--residual", "--out", tmp_path / "run")
    assert done.exit_code == 0
    assert "heory" not in done.output
    refused = call("run", *flags, "--residual", "--theory", "--out", tmp_path / "other")
    assert refused.exit_code == 2
    assert "without residual connections" in refused.output
    assert not (tmp_path / "other").exists()


def test_a_trace_of_no_experiment_has_no_theory():
    import dp
    from gradiometer.data import load

    data = load("iris2")
    net = dp.Net(4, 3, 2, "tanh", seed=0)
    sgd = dp.SGD(net, data.x, data.y, seed=0)
    with record(net, sgd) as recorder:
        sgd.train(2, print_each=None)
    with pytest.raises(ValueError, match="recorded without an experiment"):
        gradiometer.plot(recorder.trace, "profile", theory=True)


# --- figures --------------------------------------------------------------------------------------


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_the_figure_of_a_prediction_shows_its_numbers(prediction):
    left, right = plots.prediction(prediction).axes
    np.testing.assert_array_equal(lines(left)["predicted: median"], prediction.gradient)
    np.testing.assert_array_equal(lines(left)["theory: infinite width"], prediction.gradient_wide)
    np.testing.assert_array_equal(lines(right)["predicted: median"], prediction.delta)
    [band] = [c for c in left.collections if c.get_gid() == "theory"]
    drawn = band.get_paths()[0].vertices[:, 1]
    for end in (prediction.gradient_low, prediction.gradient_high):
        assert np.isin(end, drawn).all()


def test_it_says_what_it_was_taken_from(prediction):
    assert prediction.simulated_width == 6
    nets = len(prediction.gradient_draws)
    assert prediction.basis.startswith(f"Median and band: {nets} nets simulated at initialisation")
    figure = plots.prediction(prediction)
    title = " ".join(text.get_text() for text in [figure._suptitle, *figure.texts] if text)
    assert f"{nets} nets simulated" in " ".join(title.split())
    wide = replace(prediction, simulated_width=4)
    assert wide.basis.endswith("of width 4 and scaled to 6.")


def test_a_profile_has_the_prediction_behind_it(prediction, trace):
    left, right = trace.plot.profile(theory=prediction).axes
    np.testing.assert_array_equal(lines(left)["predicted: median"], prediction.gradient)
    np.testing.assert_array_equal(lines(right)["predicted: median"], prediction.delta)
    assert "step 1" in lines(left)
    low, high = left.get_ylim()
    assert low <= prediction.gradient_low.min()
    assert high >= prediction.gradient_high.max()


def test_a_heatmap_has_a_column_of_the_prediction(prediction, trace):
    column, _, second, _ = trace.plot.heatmap(theory=prediction).axes[:4]
    for axes, values in ((column, prediction.gradient), (second, prediction.delta)):
        [mesh] = [
            c for c in axes.collections if hasattr(c, "get_array") and c.get_array() is not None
        ]
        np.testing.assert_allclose(mesh.get_array().ravel(), np.log10(values))


def test_what_is_not_predicted_has_nothing_behind_it(prediction):
    other = Experiment.of(**SMALL, quantities=["grad_rms", "delta_rms"]).run()
    left, right = other.plot.profile(theory=prediction).axes
    assert "predicted: median" not in lines(left)
    assert "predicted: median" in lines(right)
    assert len(other.plot.heatmap(theory=prediction).axes) == 4  # with the bar of the colours


def test_a_layer_that_the_trace_lacks_is_named():
    experiment = Experiment.of(**SMALL)
    trace = experiment.run()
    trace.dataset["grad_mean_abs"][0, 1] = np.nan
    mask = np.zeros(trace["grad_mean_abs"].shape, bool)
    mask[0, 1] = True
    dataset = trace.dataset.assign_attrs(missing='{"h2": {"grad_mean_abs": "it was frozen"}}')
    with pytest.raises(TheoryError, match=r"no mean .* of layer 'h2' at step 1: it was frozen"):
        compare(predict(experiment), Trace(with_missing(dataset, {"grad_mean_abs": mask})))
