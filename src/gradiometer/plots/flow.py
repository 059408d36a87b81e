"""Figures of the gradient's flow: over steps, over layers, over both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgba
from matplotlib.figure import Figure

from dp.typing import Array
from gradiometer.plots.canvas import (
    BLUE,
    COLOURS,
    band,
    depth_colours,
    draw_band,
    draw_line,
    finite,
    loggable,
    middle,
    new_figure,
)
from gradiometer.plots.cells import cell_ends, draw_flow, log_limits
from gradiometer.plots.marks import MISSING, draw_marks, lower_legend, mark_handles
from gradiometer.plots.predictions import (
    ARRAYS,
    depth_axis,
    draw_behind,
    predicted,
)
from gradiometer.plots.scales import fitting_axis, log_axis, step_axis
from gradiometer.plots.titles import set_title
from gradiometer.plots.values import quantities_of, recorded_values
from gradiometer.plots.words import plain
from gradiometer.quantities import DELTA, GRADIENTS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledPrediction, LabelledRun

BAND = "median and 10–90 % of {} nets"
MOST_NAMES = 12  # layers: a legend of more would crowd out the chart


def panels(trace: LabelledRun) -> Figure:
    """Gradients over steps, one panel per layer on its own scale, as in the lesson.

    An ensemble shows its median and the band from the 10th to the 90th percentile. Values that are
    exactly zero or not finite are marked at the lower edge. A panel whose values span more than six
    decades has a log axis. Where mean |dL/dW| was not recorded, the rms of dL/dW stands for it.

    Raises
    ------
    ValueError
        If neither was recorded.
    """
    [(quantity, label)] = quantities_of(trace, GRADIENTS)
    names = _names(trace)
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(3.0 * columns + 0.4, 1.9 * rows + 0.9)
    cells = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    steps = trace.dataset["step"].values
    gradient = recorded_values(trace, quantity)
    for i, (axes, name) in enumerate(zip(cells, names, strict=False)):
        values = gradient[:, i]
        centre = middle(trace, values)
        log = fitting_axis(axes, centre, *(band(values) if trace.ensemble else ()))
        if trace.ensemble:
            draw_band(axes, steps, values, BLUE, 0.2, log=log)
        draw_line(axes, steps, loggable(centre) if log else finite(centre), color=BLUE, lw=1.3)
        if not log:
            _flat_axis(axes, centre)
        _mark(axes, steps, values, centre)
        if np.isnan(centre).all():
            axes.set_yticks([])
            axes.text(
                0.5, 0.5, MISSING.text, transform=axes.transAxes,
                ha="center", va="center", fontsize=8, color="#777777",
            )  # fmt: skip
        axes.set_title(name, fontsize=9)
        step_axis(axes, steps)
        if i + columns >= len(names):  # nothing below it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step")
    for unused in cells[len(names) :]:
        unused.set_visible(False)
    figure.supylabel(label, fontsize=10)
    lower_legend(figure, mark_handles(figure, ensemble=trace.ensemble))
    set_title(figure, trace, f"{label} of each layer, each on its own scale", BAND)
    return figure


def gradients(trace: LabelledRun) -> Figure:
    """Mean |dL/dW| of all layers over steps in one chart with a log axis.

    An ensemble shows its median and the band from the 10th to the 90th percentile. Gradients that
    are exactly zero, not finite or beyond the axis are marked at its edge, and in the legend beside
    the name of their layer. More than a dozen layers have a colour bar of their depth instead.
    Where mean |dL/dW| was not recorded, the rms of dL/dW stands for it.

    Raises
    ------
    ValueError
        If neither was recorded.
    """
    [(quantity, ylabel)] = quantities_of(trace, GRADIENTS)
    figure = new_figure(8, 4.8)
    axes = figure.subplots()
    steps = trace.dataset["step"].values
    values = recorded_values(trace, quantity)
    centre = middle(trace, values)
    shown = [centre]
    if trace.ensemble:
        shown += band(values)
    names = _names(trace)
    colours = depth_colours(len(names))
    signs, absent = [], np.asarray(np.isnan(centre).all(axis=0))
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        if trace.ensemble:
            draw_band(axes, steps, values[:, i], colour, 0.12, log=True)
        signs.append(_mark(axes, steps, values[:, i], centre[:, i]))
        label = f"{name} ({MISSING.text})" if absent[i] else f"{name} {signs[i]}".rstrip()
        draw_line(axes, steps, loggable(centre[:, i]), color=colour, lw=1.4, label=label)
    log_axis(axes, *shown)
    step_axis(axes, steps)
    axes.set(xlabel="step", ylabel=ylabel)
    axes.grid(alpha=0.25)
    marks = mark_handles(figure, ensemble=trace.ensemble)
    if len(names) > MOST_NAMES:
        _depth_bar(axes, colours, names, signs, absent)
        if absent.any():
            marks.append(MISSING.cover_handle(hatch=None))
    else:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1], labels[::-1], loc="outside right center", fontsize=8, title="layer"
        )
    lower_legend(figure, marks)
    set_title(figure, trace, f"{ylabel} of all layers", BAND)
    return figure


def heatmap(trace: LabelledRun, theory: LabelledPrediction | None = None) -> Figure:
    """Depth × step heatmaps of log10 mean |dL/dW| and of log10 of the delta's rms.

    Both have the same colours. Exact zeros are white and dotted, values that are not finite red and
    crossed, missing ones grey and hatched; the legend names the kinds that occur.
    An ensemble shows its median. Where mean |dL/dW| was not recorded, the rms of dL/dW stands for
    it; where only the gradient or only the delta was, there is a single heatmap.

    Parameters
    ----------
    trace : Trace
    theory : Prediction, optional
        Its median at step 1 is drawn as a column of its own, before the first step.

    Raises
    ------
    ValueError
        If neither was recorded, or the prediction is of other layers.
    """
    chosen = quantities_of(trace, GRADIENTS, [DELTA])
    if theory is not None:
        theory.check_layers(trace.layers)
    figure = new_figure(11 if len(chosen) > 1 else 6.5, 4.6)
    both, columns = _heatmap_axes(figure, [name for name, _ in chosen], theory)
    names = _names(trace)
    steps = trace.dataset["step"].values
    ends = cell_ends(steps)
    quantities = [middle(trace, recorded_values(trace, name)).T for name, _ in chosen]
    predicted_columns = {
        name: predicted(theory, name)[0][:, None] for name in columns if theory is not None
    }
    limits = log_limits([*quantities, *predicted_columns.values()])
    handles: dict[str, Artist] = {}
    for name, axes in columns.items():
        handles |= draw_flow(axes, np.array([0.0, 1.0]), predicted_columns[name], limits)[1]
        axes.set_xticks([0.5], ["predicted"], fontsize=8, rotation=90)
    for axes, values, (_, label) in zip(both, quantities, chosen, strict=True):
        image, covers = draw_flow(axes, ends, values, limits)
        handles |= covers
        axes.set(title=label, xlabel="step")
        few = slice(None, None, 1 + len(names) // 40)
        axes.set_yticks(
            range(1, len(names) + 1)[few], names[few], fontsize=7 if len(names) > 15 else 9
        )
        step_axis(axes, steps)
    if limits:
        same = ", the same on both sides" if len(chosen) > 1 else ""
        figure.colorbar(image, ax=figure.axes, label=f"log10{same}", pad=0.02)
    for axes in figure.axes[1 : len(both) + len(columns)]:
        axes.tick_params(labelleft=False)
    figure.axes[0].set_ylabel("layer (input below)")
    lower_legend(figure, [*handles.values()])
    set_title(figure, trace, "Where the gradient goes: depth × step")
    return figure


def profile(
    trace: LabelledRun, steps: Sequence[int] | None = None, theory: LabelledPrediction | None = None
) -> Figure:
    """Mean |dL/dW| and the delta's rms over the layers, at chosen steps, on a log axis.

    An ensemble shows its median and the band from the 10th to the 90th percentile. Values that are
    exactly zero, not finite or beyond the axis are marked at its edge, in the colour of their step.
    Where mean |dL/dW| was not recorded, the rms of dL/dW stands for it; where only the gradient or
    only the delta was, there is a single chart.

    Parameters
    ----------
    trace : Trace
    steps : sequence of ints, optional
        Recorded steps; by default the first, the middle and the last.
    theory : Prediction, optional
        Drawn behind: its median, and the band that holds 90 % of nets, both at step 1. Of what was
        measured, step 1 alone then has a band.

    Raises
    ------
    ValueError
        If a step was not recorded, or none is given; if neither gradient nor delta was recorded; or
        if the prediction is of other layers.
    """
    chosen = quantities_of(trace, GRADIENTS, [DELTA])
    recorded = [int(step) for step in trace.dataset["step"].values]
    if steps is None:
        steps = list(dict.fromkeys([recorded[0], recorded[len(recorded) // 2], recorded[-1]]))
    there = f"the trace has {len(recorded)} steps from {recorded[0]} to {recorded[-1]}"
    if len(steps) == 0:
        raise ValueError(f"no step to show; {there}")
    for step in steps:
        if step not in recorded:
            raise ValueError(f"step {step!r} was not recorded; {there}")
    if theory is not None:
        theory.check_layers(trace.layers)
    figure = new_figure(10 if len(chosen) > 1 else 6.5, 4.8)
    both = figure.subplots(1, len(chosen), squeeze=False).ravel()
    names = trace.layers
    depth = np.arange(1, len(names) + 1)
    # marks of several steps stand side by side above their layer
    apart = min(6.0, 270 / len(names) / len(steps))
    for axes, (quantity, label) in zip(both, chosen, strict=True):
        recorded_here = recorded_values(trace, quantity)
        shown = [] if theory is None else draw_behind(axes, depth, theory, quantity)
        for k, (step, colour, marker) in enumerate(
            zip(steps, cycle(COLOURS), cycle("osD^v"), strict=False)
        ):
            values = recorded_here[recorded.index(step)]
            centre = middle(trace, values)
            shown.append(centre)
            if trace.ensemble and (theory is None or step == 1):
                draw_band(axes, depth, values, colour, 0.15, log=True)
                shown += band(values)
            draw_line(
                axes, depth, loggable(centre), color=colour, marker=marker, ms=4,
                label=f"step {step}",
            )  # fmt: skip
            _mark(axes, depth, values, centre, colour, apart * (k - (len(steps) - 1) / 2))
        log_axis(axes, *shown)
        depth_axis(axes, depth, names)
        axes.set_xlim(0.5, len(names) + 0.5)
        axes.set(title=label, xlabel="layer, from the input to the output")
        axes.grid(alpha=0.25)
    handles = [*both[0].get_legend_handles_labels()[0]]
    handles += mark_handles(figure, ensemble=trace.ensemble, neutral=True)
    lower_legend(figure, handles, columns=7 if len(chosen) > 1 else 4)
    set_title(figure, trace, "The gradient's profile over the layers", BAND)
    return figure


def _heatmap_axes(
    figure: Figure, quantities: list[str], theory: LabelledPrediction | None
) -> tuple[list[Axes], dict[str, Axes]]:
    """Axes of the heatmaps, and of the columns of what is predicted, by quantity."""
    predicted_columns = [name for name in quantities if theory is not None and name in ARRAYS]
    widths = [w for name in quantities for w in ([1, 20] if name in predicted_columns else [20])]
    grid = figure.subplots(
        1, len(widths), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    every = iter(grid.ravel())
    columns: dict[str, Axes] = {}
    maps = []
    for name in quantities:
        if name in predicted_columns:
            columns[name] = next(every)
        maps.append(next(every))
    return maps, columns


# --- shared by these ------------------------------------------------------------------------------


def _names(trace: LabelledRun) -> list[str]:
    return [f"{i}: {plain(name)}" for i, name in enumerate(trace.layers, start=1)]


def _depth_bar(
    axes: Axes, colours: Array, names: list[str], signs: list[str], absent: Array
) -> None:
    """A colour bar of the layers: the first and the last by name, beside each its marks' signs."""
    figure = axes.get_figure()
    assert figure is not None
    count = len(names)
    colours = np.where(absent[:, None], to_rgba(MISSING.cover()["fc"]), colours)
    mapped = ScalarMappable(Normalize(0.5, count + 0.5), ListedColormap(colours))
    bar = figure.colorbar(mapped, ax=axes, pad=0.02)
    bar.ax.set_title("layer", fontsize=8)
    named = [i for i in range(count) if signs[i] or i in (0, count - 1)]
    texts = [f"{names[i]} {signs[i]}" if i in (0, count - 1) else signs[i] for i in named]
    bar.set_ticks([i + 1 for i in named], labels=[text.rstrip() for text in texts])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.minorticks_off()


def _mark(
    axes: Axes, x: Array, values: Array, centre: Array, colour: Any = None, shift: float = 0.0
) -> str:
    """Marks where the line of the median has no place, and where any net is not finite."""
    shown = np.where(np.isinf(centre), 1.0, centre)
    spoilt = np.where(np.isinf(values).reshape(len(x), -1).any(axis=1), np.inf, 1.0)
    return draw_marks(axes, x, np.stack([shown, spoilt], axis=1), colour=colour, shift=shift)


def _flat_axis(axes: Axes, centre: Array) -> None:
    """A linear axis from 0, also where there is nothing else."""
    if not np.isfinite(loggable(centre)).any():
        axes.set_ylim(0, 1)
        axes.set_yticks([0])
    axes.set_ylim(bottom=0)
