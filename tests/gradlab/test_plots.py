"""Figures of synthetic traces: what is drawn, and that nothing is lost."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from gradlab import plots


def dataset(
    layers=10, steps=60, members=None, classes=2, factor=0.4, seed=0, grid=30, every=1, **attrs
):
    """A trace's data set of a net with `layers` hidden layers whose delta shrinks by `factor`."""
    rng = np.random.default_rng(seed)
    stack = () if members is None else (members,)
    dims = ("step", "layer", *(("member",) if stack else ()))
    depth = np.arange(1, layers + 2)
    shape = (steps, layers + 1, *stack)
    t = np.arange(steps).reshape(-1, *[1] * (len(shape) - 1))
    d = depth.reshape(-1, *[1] * len(stack))
    noise = np.exp(rng.normal(0, 0.25, shape) + rng.normal(0, 0.7, stack))
    fall = factor ** (layers + 1.0 - d)
    grad = 2.0 * fall * noise * (0.3 + np.exp(-t / 25))
    delta = 0.5 * fall * noise[::-1]
    loss = 69 * np.exp(-t[:, 0] / 30) * np.exp(rng.normal(0, 0.05, (steps, *stack))) + 1
    accuracy = np.clip(1 - 0.5 * loss / 69, 0, 1)
    variables = {"grad_mean_abs": (dims, grad), "delta_rms": (dims, delta)}
    variables["nonfinite_count"] = (dims, np.zeros(shape))
    for name in ("loss", "accuracy"):
        variables[name] = (("step", *dims[2:]), {"loss": loss, "accuracy": accuracy}[name])
    centers = rng.normal(0, 2.0, (classes, 2))
    label = np.repeat(np.arange(classes), 40)
    points = centers[label] + rng.normal(0, 0.5, (label.size, 2))
    x = np.linspace(points[:, 0].min() - 0.5, points[:, 0].max() + 0.5, grid)
    y = np.linspace(points[:, 1].min() - 0.5, points[:, 1].max() + 0.5, grid + 2)
    scores = -((x[None, :, None] - centers[:, 0]) ** 2 + (y[:, None, None] - centers[:, 1]) ** 2)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    decided, sure = p.argmax(axis=-1), p.max(axis=-1)
    if stack:
        decided = np.stack([np.roll(decided, 3 * m, axis=1) for m in range(members)], axis=-1)
        sure = np.stack([np.roll(sure, 3 * m, axis=1) for m in range(members)], axis=-1)
    cells = ("grid_y", "grid_x", *dims[2:])
    variables |= {
        "points": (("sample", "component"), points),
        "label": ("sample", label),
        "decision_class": (cells, decided),
        "decision_confidence": (cells, sure),
        "explained_variance": ("component", [0.73, 0.229]),
    }
    coords = {
        "step": 1 + every * np.arange(steps),
        "layer": [*(f"h{i}" for i in range(1, layers + 1)), "out"],
        "depth": ("layer", depth),
        "fan_in": ("layer", [4, *[10] * layers]),
        "fan_out": ("layer", [*[10] * layers, 1]),
        "activation": ("layer", [*["sigmoid"] * layers, "sigmoid"]),
        "component": ["pc1", "pc2"],
        "grid_x": x,
        "grid_y": y,
    }
    if stack:
        coords["member"] = np.arange(7, 7 + members)
    experiment = {
        "data": "iris2" if classes == 2 else "iris",
        "layers": layers,
        "width": 10,
        "activation": "sigmoid",
        "init": "dp",
        "seed": 0,
    }
    facts = {"experiment": json.dumps(experiment), "seed": 0, "interrupted": 0, "nonfinite": ""}
    names = ["setosa", "versicolor", "virginica"] if classes <= 3 else list("0123456789")
    facts["class_names"] = json.dumps(names[:classes])
    return xr.Dataset(variables, coords, {**facts, **attrs})


def troubled(members=None, layers=10):
    """Zeros in the first two layers; NaN and Inf at the end, in one member or in all."""
    data = dataset(layers=layers, members=members, factor=0.5)
    data["grad_mean_abs"][:, 0] = 0.0
    data["grad_mean_abs"][20:30, 1] = 0.0
    who = (slice(None),) * 0 if members is None else (0,)
    for start, value in ((50, np.inf), (55, np.nan)):
        for name in ("grad_mean_abs", "delta_rms"):
            data[name][(slice(start, None), slice(3, None), *who)] = value
        data["loss"][(slice(start, None), *who)] = value
    data["nonfinite_count"][(slice(50, None), slice(3, None), *who)] = 5
    data["decision_confidence"][(slice(5, 9), slice(5, 12), *who)] = np.nan
    return data


def all_zero():
    data = dataset(layers=4, steps=40)
    data["grad_mean_abs"][:] = 0.0
    data["delta_rms"][:] = 0.0
    data["loss"][:] = 69.3
    return data


def all_nonfinite():
    data = dataset(layers=4, steps=40)
    for name in ("grad_mean_abs", "delta_rms", "loss", "accuracy", "decision_confidence"):
        data[name][:] = np.nan
    data["nonfinite_count"][:] = 3
    return data


def extreme():
    """From the smallest number of float64 to nearly the largest."""
    data = dataset(layers=4, steps=40)
    data["grad_mean_abs"][:] = np.array([5e-324, 1e-300, 1e-8, 1e100, 1e308])
    data["loss"][:] = np.geomspace(1e-320, 1.7e308, 40)
    return data


def blinking():
    """Every second step is zero, every third one is not finite."""
    data = dataset(layers=4, steps=40)
    data["grad_mean_abs"][::2] = 0.0
    data["grad_mean_abs"][::3] = np.inf
    return data


def unmeasured():
    """A framework that gives no deltas and no accuracy."""
    data = dataset(layers=4)
    data["delta_rms"][:] = np.nan
    data["accuracy"][:] = np.nan
    data["nonfinite_count"][-5:] = 1
    data["grad_mean_abs"][-5:] = np.nan
    data["loss"][-5:] = np.nan
    return data


FIXTURES = {
    "single": lambda: dataset(),
    "ensemble": lambda: dataset(members=8),
    "troubled": troubled,
    "troubled_ensemble": lambda: troubled(members=8),
    "all_zero": all_zero,
    "all_nonfinite": all_nonfinite,
    "extreme": extreme,
    "blinking": blinking,
    "unmeasured": unmeasured,
    "one_layer": lambda: dataset(layers=1, factor=0.9),
    "thirty_layers": lambda: dataset(layers=30, steps=200, factor=0.25),
    "three_classes": lambda: dataset(layers=3, classes=3),
    "ten_classes": lambda: dataset(layers=6, classes=10),
    "one_step": lambda: dataset(layers=3, steps=1),
    "every_tenth": lambda: dataset(layers=12, steps=10, every=10),
    "one_member": lambda: dataset(layers=2, members=1),
}


def trace(data):
    return SimpleNamespace(dataset=data)


def draw(name, data, **options):
    return plots.FIGURES[name](trace(data), **options)


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    return file.getvalue()


def artists(ax, label):
    return [a for a in (*ax.lines, *ax.collections, *ax.patches) if a.get_label() == label]


def marked(ax, label):
    """Where marks stand, in data of the x axis."""
    return sorted({float(x) for line in artists(ax, label) for x in line.get_xdata()})


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


@pytest.mark.parametrize("fixture", FIXTURES)
@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_renders_without_warnings(name, fixture):
    figure = draw(name, FIXTURES[fixture]())
    assert isinstance(figure, Figure)
    assert png(figure).startswith(b"\x89PNG")
    assert figure.get_suptitle()


def test_data_are_left_as_they_were():
    data = troubled(members=3)
    before = data.copy(deep=True)
    for name in plots.FIGURES:
        draw(name, data)
    assert data.identical(before)


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 10, 15, 30])
def test_panels_has_one_panel_per_layer(layers):
    figure = draw("panels", dataset(layers=layers, steps=5))
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert len(titles) == layers + 1
    assert titles[0].startswith("h1 ")
    assert "4 → 10" in titles[0]
    assert titles[-1].startswith("out ")
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert {ax.get_yscale() for ax in figure.axes} == {"log"}
    width, height = figure.get_size_inches()
    assert width <= 12
    assert height <= 14


def test_panels_have_their_own_scale_and_can_be_linear():
    figure = draw("panels", dataset(), log=False)
    assert {ax.get_yscale() for ax in figure.axes} == {"linear"}
    first, last = figure.axes[0].get_ylim(), figure.axes[-1].get_ylim()
    assert first[1] < last[1] / 100


def test_panels_draw_the_numbers():
    data = dataset()
    for i, ax in enumerate(draw("panels", data).axes):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), data["grad_mean_abs"][:, i])


def test_ensemble_shows_median_and_band():
    data = dataset(members=8)
    figure = draw("panels", data)
    ax = figure.axes[2]
    values = data["grad_mean_abs"].values[:, 2]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(values, axis=-1))
    (band,) = artists(ax, "_band")
    vertices = band.get_paths()[0].vertices
    np.testing.assert_allclose(vertices[:, 1].max(), np.quantile(values, 0.9, axis=-1).max())
    np.testing.assert_allclose(vertices[:, 1].min(), np.quantile(values, 0.1, axis=-1).min())
    assert any("median" in text for text in legend(figure))
    assert not artists(draw("panels", dataset()).axes[0], "_band")


def test_gradients_log_axis_and_names_of_layers():
    ax = draw("gradients", dataset()).axes[0]
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.texts] != []
    assert {text.get_text() for text in ax.texts} == {*(f"h{i}" for i in range(1, 11)), "out"}
    figure = draw("gradients", dataset(layers=30))
    assert len(figure.axes) == 2  # and the colour bar
    ticks = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert ticks[0] == "h1"
    assert ticks[-1] == "out"


@pytest.mark.parametrize("members", [None, 4])
def test_zero_and_nonfinite_steps_are_marked(members):
    data = troubled(members=members)
    figure = draw("panels", data)
    assert marked(figure.axes[0], "_zero") == [1, 60]  # ends of the run
    assert marked(figure.axes[1], "_zero") == [21, 30]
    assert marked(figure.axes[2], "_nonfinite") == []
    assert marked(figure.axes[3], "_nonfinite") == [51, 60]
    texts = " ".join(legend(figure))
    assert "exactly zero" in texts
    assert "not finite" in texts

    figure = draw("gradients", data)
    assert marked(figure.axes[0], "_zero") == [1, 21, 30, 60]
    assert marked(figure.axes[0], "_nonfinite") == [51, 60]
    texts = " ".join(legend(figure))
    assert "h1–h2" in texts
    assert "h4–out" in texts

    figure = draw("learning", data)
    assert marked(figure.axes[0], "_nonfinite") == [51, 60]


def test_no_marks_without_need():
    figure = draw("panels", dataset())
    assert not any(artists(ax, m) for ax in figure.axes for m in ("_zero", "_nonfinite"))
    assert legend(figure) == []


def test_a_number_between_gaps_is_seen():
    data = dataset(layers=2, steps=9)
    data["grad_mean_abs"][:, 0] = 0.0
    data["grad_mean_abs"][4, 0] = 0.3
    ax = draw("panels", data).axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(list(d.get_xdata()), list(d.get_ydata())) for d in dots] == [([5], [0.3])]
    assert marked(ax, "_zero") == [1, 4, 6, 9]


def test_extremes_stay_inside_the_axis():
    for ax in draw("panels", extreme()).axes:
        bottom, top = ax.get_ylim()
        assert 0 < bottom < top < np.inf
        assert (ax.lines[0].get_ydata() > bottom).all()
        assert (ax.lines[0].get_ydata() < top).all()


def test_heatmap_cells_and_bars():
    data = dataset()
    figure = draw("heatmap", data)
    gradient, delta, *bars = figure.axes
    assert [ax.get_title(loc="left") for ax in (gradient, delta)] == ["Gradient", "Delta"]
    assert len(bars) == 2
    assert "log₁₀ mean |dL/dW|" in bars[0].get_ylabel()
    mesh = gradient.collections[0]
    np.testing.assert_allclose(
        np.asarray(mesh.get_array()).reshape(11, 60), np.log10(data["grad_mean_abs"].values.T)
    )


def test_heatmap_draws_zero_nonfinite_and_unmeasured_apart():
    figure = draw("heatmap", troubled())
    gradient, delta = figure.axes[:2]
    assert len(artists(gradient, "_exactly zero")) == 2
    assert len(artists(gradient, "_not finite")) == 8
    assert len(artists(delta, "_exactly zero")) == 0
    assert artists(gradient, "_exactly zero")[0].get_hatch()
    assert legend(figure) == ["exactly zero", "not finite"]

    figure = draw("heatmap", unmeasured())
    assert len(artists(figure.axes[1], "_not recorded")) == 5
    assert not artists(figure.axes[1], "_not finite")
    assert len(artists(figure.axes[0], "_not finite")) == 5


def test_heatmap_of_an_ensemble_with_one_diverged_member():
    data = troubled(members=8)
    figure = draw("heatmap", data)
    gradient = figure.axes[0]
    assert not artists(gradient, "_not finite")  # the median is a number
    assert len(artists(gradient, "_median of members; some not finite")) == 8
    assert any("some not finite" in text for text in legend(figure))


def test_profile_takes_first_middle_and_last_step():
    data = dataset()
    figure = draw("profile", data)
    gradient, delta = figure.axes
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log"]
    assert legend(figure) == ["step 1", "step 30", "step 60"]
    for ax, name in ((gradient, "grad_mean_abs"), (delta, "delta_rms")):
        for line, step in zip(ax.lines, (1, 30, 60), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), data[name].sel(step=step))
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 12))
    assert [t.get_text() for t in gradient.get_xticklabels()][::10] == ["h1", "out"]


def test_profile_marks_and_bands():
    gradient, delta = draw("profile", troubled()).axes
    assert len(marked(gradient, "_zero")) == 4  # h1 in three steps, h2 in one
    assert len(marked(gradient, "_nonfinite")) == 8
    assert len(marked(delta, "_nonfinite")) == 8
    assert len(artists(draw("profile", dataset(members=5)).axes[0], "_band")) == 3


@pytest.mark.parametrize("steps", [5, [5], (1, 5, 60, 7, 8, 9), np.array([2, 3])])
def test_profile_at_chosen_steps(steps):
    figure = draw("profile", dataset(), steps=steps)
    assert legend(figure) == [f"step {step}" for step in np.atleast_1d(steps)]


@pytest.mark.parametrize("steps", [61, [1, 0], [-1], [1.5], []])
def test_profile_refuses_a_step_that_was_not_recorded(steps):
    with pytest.raises(ValueError, match=r"recorded were 1, 2, 3, …, 60"):
        draw("profile", dataset(), steps=steps)


def test_learning_draws_loss_and_accuracy():
    data = dataset(members=5)
    loss, accuracy = draw("learning", data).axes
    assert loss.get_ylabel() == "loss"
    assert accuracy.get_ylabel() == "accuracy"
    assert len(loss.lines) == 6  # members and their median
    np.testing.assert_allclose(loss.lines[-1].get_ydata(), data["loss"].median("member"))
    assert loss.get_yscale() == "linear"
    data["loss"][-1] = 1e-4
    assert draw("learning", data).axes[0].get_yscale() == "log"


def test_decision_names_classes_axes_and_member():
    figure = draw("decision", dataset(classes=3))
    ax = figure.axes[0]
    assert legend(figure) == ["setosa", "versicolor", "virginica"]
    assert "73.0 % of variance" in ax.get_xlabel()
    assert "22.9 % of variance" in ax.get_ylabel()
    markers = {artists(ax, f"_{name}")[0].get_marker() for name in legend(figure)}
    assert len(markers) == 3
    points = sum(len(artists(ax, f"_{name}")[0].get_xdata()) for name in legend(figure))
    assert points == 120

    data = dataset(members=3)
    first, last = draw("decision", data), draw("decision", data, member=9)
    assert "seed 7" in first.get_suptitle()
    assert "seed 9" in last.get_suptitle()
    images = [np.asarray(f.axes[0].collections[0].get_array()) for f in (first, last)]
    assert not np.array_equal(*images)


def test_decision_marks_where_the_net_has_no_answer():
    figure = draw("decision", troubled())
    assert "output not finite" in legend(figure)
    assert len(artists(figure.axes[0], "_not finite")) == 4


def test_decision_errors_say_what_there_is():
    with pytest.raises(ValueError, match=r"no member 0; this trace has 7, 8"):
        draw("decision", dataset(members=2), member=0)
    with pytest.raises(ValueError, match="of one net"):
        draw("decision", dataset(), member=0)
    with pytest.raises(ValueError, match="no decision plane"):
        draw("decision", dataset().drop_vars(["points", "decision_class"]))


def test_subtitle_tells_the_experiment():
    def subtitle(data):
        return draw("learning", data).texts[0].get_text()

    assert subtitle(dataset()) == "iris2, 10 × 10 sigmoid, dp init, seed 0"
    assert "8 members (seeds 7, 8, 9, …, 14)" in subtitle(dataset(members=8))
    assert "interrupted after step 60" in subtitle(dataset(interrupted=1))
    assert subtitle(dataset(experiment="")) == "11 layers, seed 0"
    fields = {"layers": 3, "width": 5, "activation": "relu", "init": "he_normal"}
    fields |= {"init_scale": 2.0, "normalisation": "layer", "residual": True}
    text = subtitle(dataset(experiment=json.dumps(fields)))
    assert text == "3 × 5 relu, he_normal init × 2, layer normalisation, residual, seed 0"


def test_activations_gallery():
    figure = plots.activations()
    assert png(figure).startswith(b"\x89PNG")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert len(titles) == 12
    assert titles[1] == "sigmoid\nrange 0 … 1, max slope 0.25"
    assert titles[0].startswith("identity\nrange −∞ … ∞")
    assert not artists(figure.axes[0], "_saturated")
    assert len(artists(figure.axes[1], "_saturated")) == 2


def test_activations_by_name_or_object():
    from dp import activations

    assert len(plots.activations("tanh").axes) == 1
    clipped = activations.get("relu", ceiling=2)
    figure = plots.activations(["relu", clipped])
    png(figure)
    assert "range 0 … 2" in figure.axes[1].get_title(loc="left")
    with pytest.raises(ValueError, match="sigmoid"):
        plots.activations(["sigmoyd"])
    with pytest.raises(ValueError, match="choose from"):
        plots.activations([])


def test_notebooks_show_figures_and_figures_can_be_pickled():
    figure = draw("learning", dataset(steps=5))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert png(pickle.loads(pickle.dumps(figure))).startswith(b"\x89PNG")


def test_no_pyplot_and_no_eager_matplotlib():
    code = (
        "import sys; import gradlab.plots as p; assert 'matplotlib' not in sys.modules; "
        "p.activations(['relu']); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
