import functools
import io
import itertools
import json
import re

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

import dp
from gradiometer import plots
from gradiometer.experiment import Experiment
from gradiometer.plots.canvas import COLOURS, MARKERS, band, middle
from gradiometer.plots.gallery import _range
from gradiometer.plots.values import recorded_values
from gradiometer.trace import Trace

RUNS = {
    "single": {"layers": 10},
    "one layer": {"layers": 1, "steps": 1},
    "deep": {"layers": 30, "width": 4},
    "ensemble": {"layers": 3, "members": 4, "activation": "tanh"},
    "three classes": {"data": "iris", "layers": 2, "activation": "relu"},
    "diverged": {"activation": "relu", "learning_rate": 1e6},
    "diverged at once": {"activation": "relu", "learning_rate": 1e300},
    "overflowed": {
        "activation": "relu",
        "learning_rate": 0.05,
        "scaling": 30.0,
        "dtype": "float32",
    },
    "vanished": {"init": "zeros", "steps": 12},
    "one step": {"steps": 1},
    "no gradient": {"init": "zeros", "activation": "relu", "layers": 3},
}


# those that differ least from the others, or are drawn by other tests too
LESS = {"single", "one step", "diverged at once", "overflowed", "no gradient"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.long) if name in LESS else name for name in RUNS],
)
def trace(request):
    return Experiment.of(**{"steps": 8, **RUNS[request.param]}).run()


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_of_every_kind_of_run(trace, name):
    figure = getattr(trace.plot, name)()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=40)
    assert drawn.getvalue().startswith(b"\x89PNG")
    assert len(drawn.getvalue()) > 2000


def test_panels_have_one_axes_per_layer_titled_by_it():
    trace = Experiment.of(layers=4, steps=3).run()
    titles = [a.get_title() for a in trace.plot.panels().axes if a.get_visible()]
    assert titles == ["1: h1", "2: h2", "3: h3", "4: h4", "5: out"]


def test_gradients_share_a_log_axis():
    axes = Experiment.of(layers=2, steps=3).run().plot.gradients().axes[0]
    assert axes.get_yscale() == "log"


@functools.cache
def _trained(experiment):
    return experiment.run()


def _run(**settings):
    """A small run of its own: equal ones are trained once and copied."""
    trained = _trained(Experiment.of(**{"layers": 2, "steps": 4, **settings}))
    return Trace(trained.dataset.copy(deep=True))


def _altered(trace, change, *quantities):
    """A trace whose quantities were changed in place."""
    dataset = trace.dataset.copy(deep=True)
    for quantity in quantities:
        change(dataset[quantity].values)
    return Trace(dataset)


def _diverged(trace, step):
    """The trace, with entries that are not finite counted wherever the gradient is NaN."""
    trace["nonfinite_count"].values[np.isnan(trace["grad_mean_abs"].values)] = 7
    trace.attrs["nonfinite_step"] = step
    return trace


def _marks(figure, gid):
    return [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]


def _curves(axes):
    return [line for line in axes.lines if line.get_gid() is None]


def _legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _title(figure):
    return figure.get_suptitle().replace("\n", " ")


# --- values that no line can show -----------------------------------------------------------------


def test_zero_and_non_finite_values_are_marked():
    zero = Experiment.of(init="zeros", activation="relu", layers=3, steps=3).run()
    assert _marks(zero.plot.profile(), "zero")
    assert not _marks(zero.plot.profile(), "nonfinite")
    diverged = Experiment.of(activation="relu", learning_rate=1e6, steps=8).run()
    for name in ("panels", "gradients", "profile", "learning"):
        assert _marks(getattr(diverged.plot, name)(), "nonfinite"), name


FLOW = ("panels", "gradients", "profile")


@pytest.fixture(scope="module")
def marked():
    """At step 3 the first layer is exactly zero; the others and the loss are not finite."""

    def mark(values):
        if values.ndim > 1:
            values[2, 0] = 0.0
        values[2, ...] = np.where(values[2] == 0, 0.0, np.nan)

    return _diverged(_altered(_run(), mark, "grad_mean_abs", "delta_rms", "loss"), step=3)


@pytest.mark.parametrize("name", [*FLOW, "heatmap"])
def test_marks_are_in_the_legend(marked, name):
    assert {"exactly zero", "not finite"} <= set(_legend(getattr(marked.plot, name)()))
    assert "exactly zero" not in _legend(getattr(_run().plot, name)())


def test_learning_names_its_mark(marked):
    assert _legend(marked.plot.learning()) == ["not finite"]


@pytest.mark.parametrize("name", ["gradients", "profile"])
def test_marks_of_two_kinds_have_a_row_each(marked, name):
    figure = getattr(marked.plot, name)()
    figure.draw_without_rendering()
    zero, nonfinite = (
        _marks(figure, gid)[0].get_window_extent().get_points()[:, 1].mean()
        for gid in ("zero", "nonfinite")
    )
    assert nonfinite - zero > 5 * figure.dpi / 72  # by the size of a mark at least


def test_gradients_tell_which_layer_is_marked(marked):
    assert _legend(marked.plot.gradients())[:3] == ["3: out ×", "2: h2 ×", "1: h1 ▼"]


def test_profile_marks_have_the_colour_of_their_step_and_stand_side_by_side():
    trace = _altered(_run(), lambda values: values[1:].fill(np.nan), "grad_mean_abs", "delta_rms")
    figure = _diverged(trace, step=2).plot.profile(steps=[1, 2, 3])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    colours = {line.get_label(): line.get_color() for line in _curves(axes)}
    second, third = (line for line in axes.lines if line.get_gid() == "nonfinite")
    assert second.get_color() == colours["step 2"]
    assert third.get_color() == colours["step 3"]
    assert third.get_window_extent().x0 - second.get_window_extent().x0 > 3


@pytest.mark.parametrize("name", FLOW)
@pytest.mark.parametrize(("value", "gid"), [(1e-300, "below"), (1e300, "above")])
def test_what_is_beyond_a_log_axis_is_marked(name, value, gid):
    def change(values):
        values[:, 0] = value
        values[0, 0] = 1.0

    figure = getattr(_altered(_run(), change, "grad_mean_abs", "delta_rms").plot, name)()
    assert _marks(figure, gid)
    assert any(text.startswith(gid) for text in _legend(figure))


def test_what_float64_can_just_hold_is_on_the_axis():
    trace = _altered(_run(), lambda values: values[:, 0].fill(7.5e-247), "grad_mean_abs")
    axes = trace.plot.gradients().axes[0]
    assert axes.get_ylim()[0] < 7.5e-247
    assert not _marks(axes.figure, "below")


@pytest.mark.parametrize("name", ["panels", "gradients", "learning"])
def test_a_point_alone_is_a_dot(name):
    lines = _curves(getattr(_run(steps=1).plot, name)().axes[0])
    assert lines
    assert all(line.get_marker() == "o" and line.get_markevery() == [0] for line in lines)
    gap = _altered(_run(), lambda values: values[1:3].fill(np.nan), "grad_mean_abs", "loss")
    for line in _curves(getattr(gap.plot, name)().axes[0]):
        assert line.get_markevery() == [0, 3]
    for line in _curves(getattr(_run().plot, name)().axes[0]):
        assert line.get_marker() == "None"


def test_panels_of_zeros_say_so():
    figure = _run(init="zeros", activation="relu").plot.panels()
    for axes in figure.axes[:2]:
        assert [line.get_gid() for line in axes.lines if line.get_gid()] == ["zero"]
        assert axes.get_ylim() == (0, 1)
        assert axes.get_yticks().tolist() == [0]


def test_panels_with_nothing_below_them_have_step_numbers():
    axes = _run(layers=5).plot.panels().axes  # 4 + 2 panels
    figure = axes[0].figure
    figure.draw_without_rendering()
    below = [any(t.get_visible() and t.get_text() for t in a.get_xticklabels()) for a in axes[:6]]
    assert below == [False, False, True, True, True, True]
    assert [a.get_xlabel() for a in axes[:6]] == ["", "", *["step"] * 4]


# --- values that were not recorded ----------------------------------------------------------------


def _of(attrs=None, **variables):
    """A trace of these quantities alone, (steps, layers[, members]) or (steps,)."""
    arrays = {name: np.array(values, dtype=float) for name, values in variables.items()}
    layers = next((a.shape[1] for a in arrays.values() if a.ndim > 1), 1)
    dims = {1: ("step",), 2: ("step", "layer"), 3: ("step", "layer", "member")}
    steps = len(next(iter(arrays.values())))
    return Trace(
        xr.Dataset(
            {name: (dims[a.ndim], a) for name, a in arrays.items()},
            {"step": np.arange(1, steps + 1), "layer": [f"l{i}" for i in range(layers)]},
            {"format": 1, **(attrs or {})},
        )
    )


NAN, INF = float("nan"), float("inf")


def test_values_are_nan_where_missing_and_infinite_where_not_finite():
    rms = [[NAN, 1.0], [NAN, -INF], [0.0, NAN]]
    trace = _of(delta_rms=rms, nonfinite_count=[[0, 0], [1, 1], [0, 3]])
    np.testing.assert_array_equal(
        recorded_values(trace, "delta_rms"), [[NAN, 1.0], [INF, -INF], [0.0, INF]]
    )
    np.testing.assert_array_equal(trace["delta_rms"], rms)  # the trace itself is left alone


def test_members_that_were_not_recorded_do_not_count():
    values = np.array([[1.0, 2.0, 3.0], [NAN, 2.0, 3.0], [INF, INF, 3.0], [NAN, NAN, NAN]])
    trace = _of(grad_mean_abs=values[:, None], nonfinite_count=np.zeros((4, 1, 3)))
    np.testing.assert_array_equal(middle(trace, values), [2.0, 2.5, INF, NAN])
    low, high = band(values)
    np.testing.assert_allclose(low, [1.2, 2.1, NAN, NAN])
    np.testing.assert_allclose(high, [2.8, 2.9, NAN, NAN])


@pytest.fixture(scope="module")
def partial():
    """The first layer is frozen, and the second was not reached in step 2."""

    def leave_out(values):
        values[:, 0] = np.nan
        values[1, 1] = np.nan

    altered = _altered(_run(), leave_out, "grad_mean_abs", "delta_rms")
    # in this format NaN is missing where nothing is counted as not finite
    return Trace(altered.dataset.assign_attrs(format=1))


@pytest.mark.parametrize("name", FLOW)
def test_what_was_not_recorded_is_a_gap(partial, name):
    figure = getattr(partial.plot, name)()
    for gid in ("nonfinite", "zero", "missing"):
        assert not _marks(figure, gid)
    assert not {"not finite", "missing"} & set(_legend(figure))


def test_layers_that_were_never_recorded_are_named(partial):
    assert _legend(partial.plot.gradients()) == ["3: out", "2: h2", "1: h1 (missing)"]
    texts = [[t.get_text() for t in axes.texts] for axes in partial.plot.panels().axes[:3]]
    assert texts == [["missing"], [], []]


def test_heatmap_covers_what_was_not_recorded(partial):
    figure = partial.plot.heatmap()
    assert _legend(figure) == ["missing"]
    for axes in figure.axes[:2]:
        covers = [c for c in axes.collections if c.get_gid()]
        assert [(c.get_gid(), c.get_hatch()) for c in covers] == [("missing", "///")] * 2
    assert "missing" not in _legend(_run().plot.heatmap())


@pytest.mark.parametrize(
    ("quantities", "panels"),
    [
        ({"loss": [1.0, 2.0], "accuracy": [0.5, 0.5]}, ["loss", "accuracy"]),
        ({"loss": [1.0, 2.0], "accuracy": [NAN, NAN]}, ["loss"]),
        ({"loss": [1.0, 2.0]}, ["loss"]),
        ({"loss": [NAN, NAN], "accuracy": [NAN, 0.5]}, ["accuracy"]),
    ],
)
def test_learning_shows_what_was_recorded(quantities, panels):
    figure = _of(**quantities).plot.learning()
    assert [axes.get_ylabel() for axes in figure.axes] == panels
    assert figure.axes[-1].get_xlabel() == "step"
    assert not _legend(figure)


def test_learning_of_a_regression_that_diverged_at_once():
    trace = _of(loss=[NAN, NAN], accuracy=[NAN, NAN], attrs={"nonfinite_step": 1})
    figure = trace.plot.learning()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]
    assert _legend(figure) == ["not finite"]


# --- traces of some quantities --------------------------------------------------------------------

SOME = [[1e-3, 1e-2], [2e-3, 1e-2]]


@pytest.mark.parametrize("name", [*FLOW, "heatmap"])
def test_rms_stands_for_the_mean_of_the_gradient(name):
    figure = getattr(_of(grad_rms=SOME, delta_rms=SOME).plot, name)()
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert any("rms of dL/dW" in text for text in texts)
    assert not any("mean |dL/dW|" in text for text in texts)
    both = getattr(_of(grad_rms=SOME, grad_mean_abs=SOME).plot, name)()
    assert not any("rms of dL/dW" in text.get_text() for text in both.findobj(Text))


@pytest.mark.parametrize("name", ["heatmap", "profile"])
@pytest.mark.parametrize(
    ("quantity", "label"),
    [
        ("grad_rms", "rms of dL/dW"),
        ("grad_mean_abs", "mean |dL/dW|"),
        ("delta_rms", "rms of the delta"),
    ],
)
def test_gradient_or_delta_alone(name, quantity, label):
    figure = getattr(_of(**{quantity: SOME}).plot, name)()
    assert [axes.get_title() for axes in figure.axes if axes.get_xlabel()] == [label]
    assert not any("both sides" in axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gradients", "no mean |dL/dW|; record it with quantities=[…, 'grad_mean_abs']"),
        ("panels", "no mean |dL/dW|; record it with quantities=[…, 'grad_mean_abs']"),
        ("heatmap", "record it with quantities=[…, 'grad_mean_abs', 'delta_rms']"),
        ("profile", "record it with quantities=[…, 'grad_mean_abs', 'delta_rms']"),
        ("learning", "no loss and no accuracy; record it with quantities=[…, 'loss', 'accuracy']"),
    ],
)
def test_figures_tell_what_to_record(name, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        getattr(_of(weight_rms=SOME).plot, name)()


def test_many_layers_have_a_colour_bar_in_place_of_a_legend():
    gradient = np.logspace(-9, 0, 3 * 20).reshape(3, 20)
    assert len(_legend(_of(grad_mean_abs=gradient[:, :12]).plot.gradients())) == 12
    gradient[1, [0, 4]] = 0.0
    gradient[:, 7] = NAN
    figure = _of(grad_mean_abs=gradient, nonfinite_count=np.zeros((3, 20))).plot.gradients()
    assert _legend(figure) == ["exactly zero", "missing"]
    figure.draw_without_rendering()
    axes, bar = figure.axes
    assert bar.get_title() == "layer"
    assert [t.get_text() for t in bar.get_yticklabels()] == ["1: l0 ▼", "▼", "20: l19"]
    assert axes.get_window_extent().width > 0.6 * figure.bbox.width


# --- axes -----------------------------------------------------------------------------------------


def test_loss_has_a_log_axis_where_a_linear_one_shows_nothing():
    assert _run().plot.learning().axes[0].get_yscale() == "linear"

    def diverge(loss):
        loss[:] = [1.0, 10.0, 1e100, 1e270]

    huge = _altered(_run(), diverge, "loss").plot.learning()
    assert huge.axes[0].get_yscale() == "log"
    assert huge.axes[0].get_ylim()[1] > 1e270

    def negative(loss):
        loss[:] = [1.0, -10.0, -1e100, 1e270]

    signed = _altered(_run(), negative, "loss").plot.learning()
    assert signed.axes[0].get_yscale() == "symlog"
    signed.savefig(io.BytesIO(), dpi=40)


@pytest.mark.parametrize("name", ["panels", "gradients", "heatmap", "learning"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_steps_are_whole_numbers(name, steps):
    figure = getattr(_run(steps=steps).plot, name)()
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)


@pytest.mark.parametrize("name", ["gradients", "profile"])
def test_log_axes_span_a_decade(name):
    def flatten(values):
        values[:] = 0.499825
        values[0] = 0.499826

    figure = getattr(_altered(_run(), flatten, "grad_mean_abs", "delta_rms").plot, name)()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low < 0.499825 < high
        assert high / low > 9.999


def test_heatmaps_share_their_colours():
    left, right, bar = _run().plot.heatmap().axes
    assert left.collections[0].get_clim() == right.collections[0].get_clim()
    assert "both sides" in bar.get_ylabel()


def test_heatmap_of_steps_at_unequal_distances():
    trace = _run()
    thin = Trace(trace.dataset.isel(step=[0, 1, 3]))
    first, second, third = thin["step"].values
    cells = thin.plot.heatmap().axes[0].collections[0]
    ends = cells.get_coordinates()[0, :, 0]
    middle, later = (first + second) / 2, (second + third) / 2
    np.testing.assert_allclose(ends, [2 * first - middle, middle, later, 2 * third - later])


def test_long_names_stand_upright_below_a_profile():
    trace = _run(layers=5)
    names = [f"encoder.blocks.{i}.attention" for i in range(trace.dataset.sizes["layer"])]
    long = Trace(trace.dataset.assign_coords(layer=names))
    for shown, angle in ((trace, 0), (long, 90)):
        labels = shown.plot.profile().axes[0].get_xticklabels()
        assert {label.get_rotation() for label in labels} == {angle}


def test_heatmap_of_zeros_has_no_colour_bar():
    def clear(values):
        values[:] = 0.0

    figure = _altered(_run(), clear, "grad_mean_abs", "delta_rms").plot.heatmap()
    assert len(figure.axes) == 2
    assert _legend(figure) == ["exactly zero"]


# --- ensembles ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble():
    return _run(members=5)


@pytest.mark.parametrize("name", FLOW)
def test_ensembles_have_a_band_and_the_title_says_so(ensemble, name):
    figure = getattr(ensemble.plot, name)()
    assert any(c.get_gid() == "band" for c in figure.axes[0].collections)
    assert "median and 10–90 % of 5 nets" in _title(figure)
    assert "10–90 %" not in _title(getattr(_run().plot, name)())


def test_figures_without_a_band_do_not_claim_one(ensemble):
    assert "median of 5 nets" in _title(ensemble.plot.heatmap())
    assert "5 nets, bold: their median" in _title(ensemble.plot.learning())
    assert len(_curves(ensemble.plot.learning().axes[0])) == 6


def test_one_net_that_is_not_finite_is_marked_and_leaves_the_median():
    def mark(values):
        values[2, ..., 0] = np.nan

    trace = _altered(_run(members=5), mark, "grad_mean_abs", "delta_rms")
    figure = _diverged(trace, step=3).plot.gradients()
    assert "not finite (one net or more)" in _legend(figure)
    for line in _curves(figure.axes[0]):
        assert np.isfinite(line.get_ydata()).all()


# --- titles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"residual": True}, "residual"),
        ({"normalisation": "batch"}, "batch norm"),
        ({"loss": "squared_error"}, "squared error"),
        ({"reduction": "mean"}, "mean over the batch"),
        ({"init_scale": 3.0}, "dp init × 3"),
        ({"dtype": "float32"}, "float32"),
        ({"batch_size": 7}, "batch 7"),
        ({"optimizer": "adam", "hyperparameters": {"beta1": 0.8}}, "adam 0.001 (beta1 0.8)"),
        ({"scaling": 30.0}, "iris2 × 30"),
        ({"scaling": "raw"}, "iris2 raw"),
        ({"every": 2}, "one step in 2"),
        ({"histograms": True}, "histograms"),
        ({"quantities": ["grad_rms", "grad_mean_abs"]}, "2 quantities"),
        ({"decision": False}, "no decision"),
        ({"steps": 7}, "7 steps"),
        ({"seed": 3}, "seed 3"),
        ({"seed": 3, "members": 2}, "seeds 3–4"),
        ({"activation": "relu", "clip": 2.5}, "relu (ceiling 2.5)"),
    ],
)
def test_titles_tell_what_differs(settings, words):
    figure = _run(**settings).plot.gradients()
    assert words in _title(figure)
    assert words not in _title(_run(steps=5).plot.gradients())


@pytest.mark.parametrize("name", plots.FIGURES)
def test_long_titles_are_not_cut_off(name):
    figure = getattr(
        _run(
            layers=1, activation="clipped_relu", residual=True, normalisation="layer",
            loss="squared_error", reduction="mean", init="glorot_uniform", init_scale=1.25,
            optimizer="adam", hyperparameters={"beta1": 0.85, "beta2": 0.99, "epsilon": 1e-6},
            batch_size=7, scaling=30.0, dtype="float32", seed=1234, members=2,
        ).plot,
        name,
    )()  # fmt: skip
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_title_without_an_experiment_is_the_figures_own():
    dataset = _run().dataset.copy()
    dataset.attrs = {k: v for k, v in dataset.attrs.items() if k != "experiment"}
    assert _title(Trace(dataset).plot.gradients()) == "mean |dL/dW| of all layers"


def test_title_tells_an_interrupted_run():
    trace = _run()
    trace.attrs["interrupted"] = 1
    assert "interrupted after step 4" in _title(trace.plot.learning())


# --- profile and decision -------------------------------------------------------------------------


def test_profile_refuses_a_step_that_was_not_recorded():
    trace = Experiment.of(layers=2, steps=9, every=4).run()
    with pytest.raises(ValueError, match="step 2 was not recorded; the trace has 3 steps from 1"):
        trace.plot.profile(steps=[2])


def test_profile_refuses_no_steps():
    with pytest.raises(ValueError, match="no step to show; the trace has 4 steps from 1 to 4"):
        _run().plot.profile(steps=[])


def test_decision_of_a_member():
    trace = Experiment.of(layers=2, steps=2, members=2, seed=5).run()
    trace.plot.decision(member=6)
    with pytest.raises(ValueError, match=r"no member 1 in this trace; it has \[5, 6\]"):
        trace.plot.decision(member=1)


def test_decision_of_a_member_of_a_single_net():
    with pytest.raises(ValueError, match="no member 3 in this trace; it holds a single net"):
        _run().plot.decision(member=3)


def test_a_net_that_is_not_finite_decides_nothing():
    def lose(confidence):
        confidence[:40] = np.nan

    figure = _altered(_run(), lose, "decision_confidence").plot.decision()
    axes = figure.axes[0]
    assert any(c.get_gid() == "nonfinite" and any(c.hatches) for c in axes.collections)
    region = np.asarray(axes.images[0].get_array())
    assert np.ptp(region[:40], axis=-1).max() == 0  # grey
    assert np.ptp(region[40:], axis=-1).min() > 0
    assert _legend(figure)[-1] == "not finite"
    assert "not finite" not in _legend(_run().plot.decision())


def _samples(figure):
    return [c for c in figure.axes[0].collections if len(c.get_offsets()) > 1]


def test_ten_classes_are_told_apart():
    trace = _run(data="digits", steps=1)
    samples = _samples(trace.plot.decision())
    assert len({to_hex(c.get_facecolor()[0]) for c in samples}) == 10
    for classes in (samples, _samples(_run(steps=1).plot.decision())):
        assert {to_hex(c.get_edgecolor()[0]) for c in classes} == {"#000000"}
    few = _samples(_run(steps=1).plot.decision())[0]
    assert samples[0].get_sizes()[0] < few.get_sizes()[0] / 2
    assert samples[0].get_alpha() < few.get_alpha()


def test_colours_are_told_apart_by_the_colour_blind():
    # Machado, Oliveira & Fernandes 2009, full severity, on linear RGB
    seen = {
        "usual": np.eye(3),
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritan": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    assert len(set(COLOURS)) == len(set(MARKERS)) == 10
    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for eyes, matrix in seen.items():
        lab = _lab(np.clip(linear @ np.transpose(matrix), 0, 1))
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))
        assert nearest > 15, eyes


def _lab(linear):
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


# --- the gallery ----------------------------------------------------------------------------------


def test_gallery():
    figure = plots.activations(["sigmoid", "relu"])
    visible = [a for a in figure.axes if a.get_visible()]
    assert len(visible) == 2
    sigmoid = visible[0].lines[0].get_ydata()
    np.testing.assert_allclose(sigmoid[[0, -1]], [1 / (1 + np.exp(6)), 1 / (1 + np.exp(-6))])
    with pytest.raises(ValueError, match="unknown activation 'relo'; did you mean 'relu'"):
        plots.activations(["relo"])


def test_gallery_takes_one_name():
    figure = plots.activations("relu")
    assert figure.axes[0].get_title().startswith("relu\nrange [0, ∞)")
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().x0 >= 0
    clipped = plots.activations(dp.activations.clipped_relu(20.0))
    assert "range [0, 20]" in clipped.axes[0].get_title()


def test_gallery_names_its_axis():
    axes = [a for a in plots.activations(["relu", "tanh", "elu", "silu"]).axes if a.get_visible()]
    assert [a.get_xlabel() for a in axes] == ["", "h", "h", "h"]


def test_ranges_are_closed_where_the_end_is_attained():
    assert {name: _range(a) for name, a in dp.activations.ACTIVATIONS.items()} == {
        "identity": "(−∞, ∞)",
        "sigmoid": "(0, 1)",
        "tanh": "(−1, 1)",
        "lecun_tanh": "(−1.72, 1.72)",
        "relu": "[0, ∞)",
        "clipped_relu": "[0, 6]",
        "leaky_relu": "(−∞, ∞)",
        "elu": "(−1, ∞)",
        "selu": "(−1.76, ∞)",
        "gelu": "[−0.17, ∞)",
        "silu": "[−0.278, ∞)",
        "softplus": "(0, ∞)",
    }


def test_names_of_classes_may_be_broken_mathtext():
    trace = Experiment.of(layers=1, width=2, steps=1, data="digits").run()
    trace.attrs["class_names"] = json.dumps([rf"$\frac{{{k}$" for k in range(10)])
    trace.plot.decision().canvas.draw()
