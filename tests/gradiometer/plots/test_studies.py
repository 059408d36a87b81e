import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from matplotlib.colors import to_hex

from gradiometer import plots
from gradiometer.plots.canvas import COLOURS, MARKERS
from gradiometer.plots.cells import cell_ends
from gradiometer.plots.study.axis import Axis, evenly
from gradiometer.plots.study.layout import Layout, fitted
from gradiometer.plots.study.places import Places
from gradiometer.studies import Study, load
from gradiometer.studies.folder import StudyFolder

QUICK = {"steps": 3, "width": 4, "quantities": ["grad_mean_abs", "delta_rms"]}
STUDIES = {
    "grid": Study(
        QUICK, over={"layers": [1, 3, 5], "activation": ["sigmoid", "relu"]}, members=7, name="grid"
    ),
    "scales": Study(
        QUICK | {"activation": "relu"},
        over={"layers": [2, 4], "init_scale": [0.01, 1.0, 1e200]},
        members=2,
    ),
    "four axes": Study(
        QUICK,
        over={
            "layers": [3, 4],
            "residual": [False, True],
            "init": ["dp", "he_normal"],
            "activation": ["tanh", "relu"],
        },
        members=2,
    ),
    "ceilings": Study(
        QUICK | {"layers": 3, "activation": "relu"}, over={"clip": [None, 0.5, 4.0]}, members=2
    ),
    "words": Study(
        QUICK | {"layers": 3},
        over={"init": ["dp", "zeros"], "scaling": ["standardise", 30.0]},
        members=2,
    ),
    "zeros": Study(
        QUICK | {"activation": "relu"},
        over={"layers": [3, 4], "init": ["zeros", "he_normal"]},
        members=2,
    ),
    "list": Study(
        QUICK,
        experiments=[
            {"layers": 2, "activation": "tanh"},
            {"layers": 3, "activation": "relu"},
            {"layers": 9, "activation": "relu", "init": "normal"},
        ],
        members=2,
    ),
    "one net": Study(QUICK | {"quantities": ["grad_rms"]}, over={"activation": ["tanh", "relu"]}),
    "one experiment": Study(QUICK),
    "one value": Study(QUICK | {"steps": 1}, over={"layers": [3]}),
    "unlike": Study(
        QUICK,
        experiments=[
            {"layers": 1 + i % 9, "width": 2 + i, "learning_rate": 0.001 * (1 + i)}
            for i in range(9)
        ],
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each study's results by its name; those of "part" lack some of the grid's."""
    folder = tmp_path_factory.mktemp("studies")
    found = {}
    for name, study in STUDIES.items():
        for _ in study.run(folder / name, executor=ThreadPoolExecutor(1)):
            pass
        found[name] = load(folder / name)
    shutil.copytree(folder / "grid", folder / "part")
    whole = found["grid"]
    relu = [e for e in whole.study.experiments[1::2] if e.layers > 1]
    found["part"] = without(folder / "part", relu)
    return found


def without(folder, experiments):
    """The results of a study, some of which are removed first."""
    for experiment in experiments:
        StudyFolder(folder).path_of(experiment).unlink()
    return load(folder)


def _panels(figure):
    """The axes, without colour bars and unused ones."""
    bars = {id(c.colorbar.ax) for a in figure.axes for c in a.collections if c.colorbar}
    return [axes for axes in figure.axes if axes.get_visible() and id(axes) not in bars]


def _curves(axes):
    return [line for line in axes.lines if line.get_gid() is None]


def _marks(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def _legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _title(figure):
    return figure.get_suptitle().replace("\n", " ")


def _row(results, **settings):
    table = results.summary()
    for name, value in settings.items():
        table = table[table[name] == value]
    [row] = table.to_dict("records")
    return row


# those that differ least from the others, or are drawn by other tests too
LESS = {"grid", "ceilings", "four axes", "one experiment", "words", "zeros"}


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(name, marks=pytest.mark.long) if name in LESS else name
        for name in [*STUDIES, "part"]
    ],
)
@pytest.mark.parametrize("name", plots.STUDY_FIGURES)
def test_every_figure_of_every_kind_of_study(results, study, name):
    with suppress(plots.NotForThisStudyError):
        figure = getattr(results[study].plot, name)()
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=40)
        assert drawn.getvalue().startswith(b"\x89PNG")
        box = figure._suptitle.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


# --- outcome --------------------------------------------------------------------------------------


def test_outcome_draws_medians_over_depth_by_activation(results):
    figure = results["grid"].plot.outcome()
    panels = _panels(figure)
    outcomes = ("accuracy", "delta_decades", "gradient_decades")
    for axes, outcome in zip(panels, outcomes, strict=True):
        for line, activation in zip(_curves(axes), ("sigmoid", "relu"), strict=True):
            assert list(line.get_xdata()) == [1, 3, 5]
            rows = [_row(results["grid"], layers=d, activation=activation) for d in (1, 3, 5)]
            np.testing.assert_array_equal(line.get_ydata(), [row[outcome] for row in rows])
    assert [axes.get_title().split("\n")[0] for axes in panels] == [
        "accuracy at the last recorded step", "fall of the rms of the delta", "fall of mean |dL/dW|"
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in panels} == {"number of hidden layers"}
    assert _legend(figure) == ["sigmoid", "relu"]
    assert figure.legends[0].get_title().get_text() == "activation"


def test_intervals_are_those_of_the_summary(results):
    axes = _panels(results["grid"].plot.outcome())[1]
    for bars, activation in zip(axes.collections, ("sigmoid", "relu"), strict=True):
        for depth, ((x, low), (_, high)) in zip((1, 3, 5), bars.get_segments(), strict=True):
            row = _row(results["grid"], layers=depth, activation=activation)
            assert (x, low, high) == (depth, row["delta_decades_low"], row["delta_decades_high"])
    # of a single net there is none
    for axes in _panels(results["one net"].plot.outcome()):
        assert not [bars for bars in axes.collections if len(bars.get_segments())]


def test_lines_are_told_apart_without_colours(results):
    lines = _curves(_panels(results["grid"].plot.outcome())[0])
    assert [to_hex(line.get_color()).upper() for line in lines] == [*COLOURS[:2]]
    assert [line.get_marker() for line in lines] == [*MARKERS[:2]]
    assert len({line.get_linestyle() for line in lines}) == 2


def test_falls_share_an_axis_whose_sign_is_told(results):
    accuracy, delta, gradient = _panels(results["grid"].plot.outcome())
    assert delta.get_ylim() == gradient.get_ylim()
    assert [t.get_text() for t in gradient.texts] == ["shrinks", "grows"]
    assert not delta.texts
    assert accuracy.get_ylim()[0] < 0 < 1 < accuracy.get_ylim()[1]


def test_further_axes_are_rows_of_panels(results):
    panels = _panels(results["four axes"].plot.outcome())
    assert len(panels) == 3 * 4
    assert [axes.get_ylabel() for axes in panels[::3]] == [
        "no residual\ndp init", "no residual\nhe_normal init",
        "residual\ndp init", "residual\nhe_normal init",
    ]  # fmt: skip


def test_none_stands_beyond_the_numbers_and_is_not_joined(results):
    axes = _panels(results["ceilings"].plot.outcome())[0]
    numbers, none = _curves(axes)
    assert list(numbers.get_xdata()) == [0.5, 4.0]
    assert none.get_xdata()[0] > 4.0
    assert none.get_linestyle() == "None"
    axes.figure.draw_without_rendering()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.5", "4", "none"]


def test_words_are_places_that_no_line_joins(results):
    axes = _panels(results["words"].plot.outcome())[0]
    assert axes.get_xlabel() == "initialiser"
    for line in _curves(axes):
        assert line.get_linestyle() == "None"
        assert list(line.get_xdata()) == [0, 1]
    axes.figure.draw_without_rendering()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["dp", "zeros"]
    assert _legend(axes.figure)[:2] == ["standardise", "30"]


def test_rms_stands_for_the_mean_of_the_gradient(results):
    figure = results["one net"].plot.outcome()
    assert "fall of rms of dL/dW" in _panels(figure)[1].get_title()
    assert "log10 rms of dL/dW" in _title(results["one net"].plot.heatmaps())


def test_a_list_shows_what_it_has(results):
    panels = _panels(results["list"].plot.outcome())
    assert [axes.get_ylabel() for axes in panels[::3]] == ["dp init", "normal init"]
    known = [
        [int(np.isfinite(line.get_ydata()).sum()) for line in _curves(axes)] for axes in panels[::3]
    ]
    assert known == [[1, 1], [0, 1]]
    assert "not finished" not in _legend(panels[0].figure)


def test_experiments_that_are_not_finished_are_marked(results):
    figure = results["part"].plot.outcome()
    for axes in _panels(figure):
        [mark] = _marks(axes, "unfinished")
        assert list(mark.get_xdata()) == [3, 5]
        assert to_hex(mark.get_color()).upper() == COLOURS[1]
    assert "not finished" in _legend(figure)
    assert "4 of 6 experiments finished" in _title(figure)


def test_a_fall_to_zero_is_marked_at_the_upper_edge(results):
    figure = results["zeros"].plot.outcome()
    _, delta, gradient = _panels(figure)
    [mark] = _marks(delta, "endless")
    assert list(mark.get_xdata()) == [3, 4]
    assert mark.get_ydata()[0] == 1.0  # of the axes' height
    assert np.isnan(_curves(delta)[0].get_ydata()).all()
    # nothing in the output layer either: no fall at all
    assert list(_marks(gradient, "nothing")[0].get_xdata()) == [3, 4]
    assert "falls to exactly zero in layer 1 (one net or more)" in _legend(figure)
    assert any(text.startswith("exactly zero, in layer 1") for text in _legend(figure))


def test_an_interval_without_an_end_reaches_the_edge(results):
    changed = load(results["grid"].folder.path)
    table = changed.outcomes
    table.loc[(table["layers"] == 3) & (table["seed"] < 4), "delta_decades"] = np.inf
    axes = _panels(changed.plot.outcome())[1]
    tops = [segment[1, 1] for segment in axes.collections[0].get_segments()]
    assert tops[1] == axes.get_ylim()[1] > max(tops[0], tops[2])


def test_nets_that_diverged_are_marked(results):
    figure = results["scales"].plot.outcome()
    accuracy, delta, _ = _panels(figure)
    colour = _curves(accuracy)[2].get_color()
    for axes in (accuracy, delta):
        marks = _marks(axes, "nonfinite")
        assert marks
        assert all(np.allclose(mark.get_color(), colour) for mark in marks)
    assert "not finite (one net or more)" in _legend(figure)


# --- slopes ---------------------------------------------------------------------------------------


def test_slopes_by_initialiser_over_depths_that_have_one(results):
    figure = results["four axes"].plot.slopes()
    assert _legend(figure)[:2] == ["dp", "he_normal"]
    panels = _panels(figure)
    assert [axes.get_title() for axes in panels[:4]] == [
        "no residual, tanh", "no residual, relu", "residual, tanh", "residual, relu",
    ]  # fmt: skip
    assert len(panels) == 8
    line = _curves(panels[1])[0]
    rows = [
        _row(results["four axes"], layers=d, activation="relu", init="dp", residual=False)
        for d in (3, 4)
    ]
    np.testing.assert_array_equal(line.get_ydata(), [row["delta_slope"] for row in rows])


def test_slopes_leave_out_depths_that_have_none(results):
    panels = _panels(results["grid"].plot.slopes())
    for axes in panels:
        assert all(list(line.get_xdata()) == [3, 5] for line in _curves(axes))
        [zero] = _marks(axes, "zero line")
        assert set(zero.get_ydata()) == {0}
        assert [t.get_text() for t in axes.texts] == ["shrinks", "grows"]
    assert [axes.get_ylabel() for axes in panels] == [
        "slope of log10 rms of the delta\n(decades per layer)",
        "slope of log10 mean |dL/dW|\n(decades per layer)",
    ]


def test_no_slope_through_a_zero(results):
    figure = results["zeros"].plot.slopes()
    for axes in _panels(figure):
        assert list(_marks(axes, "broken")[0].get_xdata()) == [3, 4]
    assert "exactly zero in a hidden layer (one net or more)" in _legend(figure)


@pytest.mark.parametrize(
    ("name", "study", "words"),
    [
        ("slopes", "ceilings", "varies its number of hidden layers"),
        ("slopes", "one value", "varies its number of hidden layers"),
        ("trainability", "grid", "does not vary init_scale"),
        ("trainability", "words", "does not vary layers and init_scale"),
    ],
)
def test_figures_say_what_they_need(results, name, study, words):
    with pytest.raises(plots.NotForThisStudyError, match=words):
        getattr(results[study].plot, name)()
    assert issubclass(plots.NotForThisStudyError, ValueError)


def test_slopes_need_three_hidden_layers(tmp_path):
    study = Study(QUICK, over={"layers": [1, 2]})
    list(study.run(tmp_path / "s", executor=ThreadPoolExecutor(1)))
    with pytest.raises(plots.NotForThisStudyError, match="3 hidden layers or more; this study has"):
        load(tmp_path / "s").plot.slopes()


@pytest.mark.parametrize("name", plots.STUDY_FIGURES)
def test_an_empty_study_has_no_figure(results, tmp_path, name):
    shutil.copytree(results["scales"].folder.path, tmp_path / "empty")
    empty = without(tmp_path / "empty", results["scales"].study.experiments)
    with pytest.raises(plots.NotForThisStudyError, match="no experiment of this study is finished"):
        getattr(empty.plot, name)()


# --- heatmaps -------------------------------------------------------------------------------------


def _image(axes):
    [image] = [c for c in axes.collections if c.get_array() is not None]
    return np.ma.filled(image.get_array(), np.nan)


def test_heatmaps_are_log10_of_the_median_over_nets(results):
    figure = results["grid"].plot.heatmaps()
    panels = _panels(figure)
    assert [axes.get_title() for axes in panels[:3]] == ["1 layer", "3 layers", "5 layers"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["sigmoid", "relu"]
    study = results["grid"].study
    for axes, experiment in zip(panels[:3], study.experiments[::2], strict=True):  # sigmoid
        gradient = results["grid"].trace(experiment)["grad_mean_abs"].values
        np.testing.assert_allclose(_image(axes), np.log10(np.median(gradient, axis=-1)).T)
    scales = {axes.collections[0].get_clim() for axes in panels}
    assert len(scales) == 1
    known = np.concatenate([_image(axes).ravel() for axes in panels])
    assert scales == {(np.nanmin(known), np.nanmax(known))}


def test_heatmaps_have_the_input_at_the_bottom(results):
    axes = _panels(results["grid"].plot.heatmaps())[2]
    assert axes.get_ylim() == (0.5, 6.5)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["1", "out"]


def test_heatmaps_show_what_is_not_finished(results):
    figure = results["part"].plot.heatmaps()
    covered = [
        any(patch.get_gid() == "unfinished" for patch in axes.patches) for axes in _panels(figure)
    ]
    assert covered == [False] * 4 + [True] * 2
    assert _legend(figure) == ["not finished"]


def test_heatmaps_of_a_list_are_named_each(results):
    assert [axes.get_title() for axes in _panels(results["list"].plot.heatmaps())] == [
        "2 layers\ntanh\ndp init", "3 layers\nrelu\ndp init", "9 layers\nrelu\nnormal init",
    ]  # fmt: skip


def test_many_heatmaps_are_thinned_and_the_title_says_so(results):
    figure = results["grid"].plot.heatmaps(most=4)
    assert [axes.get_title() for axes in _panels(figure)[:2]] == ["1 layer", "5 layers"]
    assert "2 of 3 values of layers shown" in _title(figure)
    few = results["list"].plot.heatmaps(most=2)
    assert len(_panels(few)) == 2
    assert "2 of 3 experiments shown" in _title(few)


def test_heatmaps_of_many_steps_are_thinned(tmp_path):
    study = Study({"layers": 1, "width": 2, "steps": 500, "batch_size": 1})
    list(study.run(tmp_path / "s", executor=ThreadPoolExecutor(1)))
    figure = load(tmp_path / "s").plot.heatmaps()
    [axes] = _panels(figure)
    assert _image(axes).shape == (2, 200)
    assert axes.get_xlim()[0] <= 1
    assert axes.get_xlim()[1] >= 500


# --- trainability ---------------------------------------------------------------------------------


def test_trainability_maps_depth_and_scale(results):
    accuracy, delta = _panels(results["scales"].plot.trainability())
    for axes, outcome in ((accuracy, "accuracy"), (delta, "delta_decades")):
        assert axes.get_xscale() == "log"
        expected = [
            [_row(results["scales"], layers=d, init_scale=s)[outcome] for s in (0.01, 1, 1e200)]
            for d in (2, 4)
        ]
        expected = np.where(np.isfinite(expected), expected, np.nan)
        np.testing.assert_allclose(_image(axes), expected)
    assert accuracy.collections[0].get_clim() == (0, 1)
    low, high = delta.collections[0].get_clim()
    assert low == -high  # neither grows nor shrinks is the middle
    assert [*accuracy.get_yticks()] == [4, 2]


def test_a_line_goes_round_the_nets_that_train(results):
    changed = load(results["scales"].folder.path)
    table = changed.outcomes
    table["accuracy"] = np.where((table["layers"] == 2) & (table["init_scale"] == 1.0), 0.8, 0.2)
    figure = changed.plot.trainability(trains=0.7)
    for axes in _panels(figure):
        [lines] = [c for c in axes.collections if c.get_gid() == "trains"]
        corners = np.unique(np.concatenate(lines.get_segments()), axis=0)
        assert len(lines.get_segments()) == len(corners) == 4
        assert corners[:, 0].min() < 1 < corners[:, 0].max()
        assert corners[:, 1].max() == 3
    assert "trains: accuracy 0.7 or more" in _legend(figure)
    assert "trains: accuracy 0.9 or more (none)" in _legend(changed.plot.trainability())


def test_trainability_shows_nets_that_diverged(results):
    figure = results["scales"].plot.trainability()
    accuracy, delta = _panels(figure)
    for axes in (accuracy, delta):
        [crosses] = _marks(axes, "diverged")
        table = results["scales"].summary()
        assert len(crosses.get_xdata()) == (table["diverged"] > 0).sum() > 0
    assert {"a net or more diverged", "not finite"} <= set(_legend(figure))
    assert any(c.get_gid() == "nonfinite" for c in delta.collections)


def test_trainability_of_a_part(results, tmp_path):
    shutil.copytree(results["scales"].folder.path, tmp_path / "part")
    part = without(tmp_path / "part", results["scales"].study.experiments[1:2])
    figure = part.plot.trainability()
    assert "not finished" in _legend(figure)
    for axes in _panels(figure):
        assert any(c.get_gid() == "unfinished" for c in axes.collections)
        assert np.isnan(_image(axes)[0, 1])


# --- titles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("grid", ["width 4, dp init", "3 steps", "42 nets: medians over 7 seeds with 95 %"]),
        ("scales", ["width 4 relu, dp init, sgd 0.001", "12 nets: medians over 2 seeds"]),
        ("ceilings", ["by ceiling of a clipped relu", "3 × 4 relu"]),
        ("words", ["3 × 4 sigmoid, sgd 0.001", "iris2"]),
        ("unlike", ["8 of 9 panels shown", "sigmoid, dp init, sgd,", "9 nets"]),
        ("one value", ["3 × 4 sigmoid", "1 step,", "1 net"]),
    ],
)
def test_titles_tell_what_is_fixed(results, name, words):
    title = _title(results[name].plot.outcome())
    for word in words:
        assert word in title
    assert "no decision" not in title
    if name != "one value":
        assert "10 ×" not in title


# --- layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "x"),
    [("grid", "layers"), ("scales", "layers"), ("ceilings", "clip"), ("words", "init")],
)
def test_numbers_go_along_x_and_depth_before_all(results, study, x):
    assert Layout(results[study]).along_x().name == x


def test_values_are_thinned_evenly_with_both_ends():
    assert evenly(range(9), 3) == [0, 4, 8]
    assert evenly(range(3), 5) == [0, 1, 2]
    words, numbers = Axis("init", (*"abcd",), 4), Axis("width", (1, 2, 3, 4), 4)
    assert [len(axis.values) for axis in fitted([words, numbers], 12)] == [4, 3]
    assert [len(axis.values) for axis in fitted([words, numbers], 1)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "values", "log"),
    [
        ("layers", (1, 10, 100), False),
        ("width", (3, 10, 30, 100), True),
        ("width", (10, 20, 30), False),
        ("width", (5, 500), True),
        ("init_scale", (1.0, 1.1, 1.2), True),
        ("clip", (0.5, 1.0, 2.0, 6.0, None), True),
        ("scaling", ("raw", 3.0), False),
    ],
)
def test_axes_are_log_where_that_spaces_values_evenly(name, values, log):
    places = Places(Axis(name, values, len(values)))
    assert places.log == log
    assert len(places.at) == len(values)
    assert (np.diff(places.at) > 0).all()


@pytest.mark.parametrize(
    ("name", "value", "label", "words"),
    [
        ("clip", None, "none", "no clip"),
        ("clip", 0.5, "0.5", "clip 0.5"),
        ("residual", True, "yes", "residual"),
        ("residual", False, "no", "no residual"),
        ("normalisation", "none", "none", "no normalisation"),
        ("normalisation", "batch", "batch", "batch norm"),
        ("layers", 1, "1", "1 layer"),
        ("init", "he_normal", "he_normal", "he_normal init"),
        ("loss", "squared_error", "squared_error", "squared error loss"),
        ("hyperparameters", {}, "default", "hyperparameters default"),
        ("hyperparameters", {"beta": 0.5}, "beta 0.5", "hyperparameters beta 0.5"),
        ("learning_rate", 0.001, "0.001", "learning rate 0.001"),
    ],
)
def test_values_have_short_names(name, value, label, words):
    axis = Axis(name, (value,), 1)
    assert axis.label(value) == label
    assert axis.in_words(value) == words


def test_cells_end_half_way():
    np.testing.assert_allclose(cell_ends(np.array([2.0, 4.0, 10.0])), [1, 3, 7, 13])
    np.testing.assert_allclose(cell_ends(np.array([3.0])), [2.5, 3.5])
