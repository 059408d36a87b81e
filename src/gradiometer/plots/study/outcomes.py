"""What became of a study's nets: lines over one setting, with intervals over seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dp.typing import Array
from gradiometer.plots.canvas import new_figure
from gradiometer.plots.marks import STUDY_MARKS, lower_legend, mark_handles
from gradiometer.plots.study.curves import Curves
from gradiometer.plots.study.layout import MEDIANS, Layout, NotForThisStudyError
from gradiometer.quantities import DELTA, GRADIENTS, QUANTITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledStudy

MOST_LINES = 10
MOST_PANELS = 8  # along the side that has one panel for each combination of further settings
LEAST_DEPTH = 3  # hidden layers: the first has another fan-in, and a slope takes two
INTERVAL = f"{MEDIANS} with 95 % bootstrap intervals"
GREY = "#555555"


def outcome(results: LabelledStudy) -> Figure:
    """Final accuracy, and how far the gradient falls from the output to layer 1, over a setting.

    Along x goes a setting that is a number, the depth before all others, and else words. One line
    for each value of a second setting, the activation before all others; a row of panels for each
    combination of the rest. The falls are those of the delta's rms and of mean |dL/dW| (or of the
    rms of dL/dW, if only that was recorded) at the first step, in decades: above 0 where they
    shrink towards the input. Medians over seeds, with 95 % bootstrap intervals.

    A fall to exactly zero is marked at the upper edge, what has no number at the lower: nets that
    diverged, gradients that are zero throughout, experiments that are not finished.

    Raises
    ------
    NotForThisStudyError
        If no experiment is finished.
    """
    layout = Layout(results)
    x = layout.along_x()
    line = layout.pick([x], "activation", "init")
    line = line and line.thinned(MOST_LINES)
    facets = layout.few_panels(layout.others(x, line), MOST_PANELS, x, line)
    curves = Curves(layout, x, line)
    heads = {
        "accuracy": "accuracy at the last recorded step",
        "delta_decades": f"fall of the {QUANTITIES[DELTA].label}\nfrom output to layer 1 (decades)",
        "gradient_decades": f"fall of {_gradient(results)}\nfrom output to layer 1 (decades)",
    }
    heads = {name: head for name, head in heads.items() if curves.has(name)}
    rows = facets.panels
    figure = new_figure(3.5 * len(heads) + (1.6 if line else 0.4), _height(len(rows)))
    cells = figure.subplots(len(rows), len(heads), sharex=True, squeeze=False)
    falls = [name for name in heads if name != "accuracy"]
    panels = [
        (axes, name, settings)
        for settings, row in zip(rows, cells, strict=True)
        for axes, name in zip(row, heads, strict=True)
    ]
    curves.draw([panel for panel in panels if panel[1] in falls])
    curves.draw([panel for panel in panels if panel[1] not in falls], (0.0, 1.0))
    for axes, name, _ in panels:
        if name in falls:
            _sign(axes, told=name == falls[-1])
        else:
            axes.set_yticks(np.linspace(0, 1, 6))
    for axes, head in zip(cells[0], heads.values(), strict=True):
        axes.set_title(head, fontsize=10)
    for settings, row in zip(rows, cells, strict=True):
        row[0].set_ylabel(layout.in_words(settings, "\n"), fontsize=9)
    _finish(figure, cells, curves)
    told = ["final accuracy"] if "accuracy" in heads else []
    told += ["fall of the gradient at the first step"] if falls else []
    what = " and ".join(told).capitalize()
    shown = [line, *facets.axes] if line else facets.axes
    layout.title(figure, f"{what}, by {x.title}", shown, _medians(results), facets.note)
    return figure


def slopes(results: LabelledStudy) -> Figure:
    """By how much gradient and delta change from layer to layer, over depth.

    The slopes of log10 mean |dL/dW| and of log10 of the delta's rms at the first step, over the
    hidden layers from the second, in decades per layer: above 0 where they shrink towards the
    input. One line for each initialiser or, if that is the same in all experiments, activation; a
    column of panels for each combination of the rest. Medians over seeds, with 95 % bootstrap
    intervals. What has no slope is marked at the lower edge.

    Raises
    ------
    NotForThisStudyError
        If the study does not vary its depth, has no depth of three hidden layers or more, or none
        of its experiments is finished.
    """
    layout = Layout(results)
    if "layers" not in layout.axes or layout.axes["layers"].total < 2:
        raise NotForThisStudyError(
            "slopes over depth need a study that varies its number of hidden layers: "
            'over={"layers": …}'
        )
    x = layout.axes["layers"]
    x = replace(x, values=tuple(depth for depth in x.values if depth >= LEAST_DEPTH))
    if not x.values:
        raise NotForThisStudyError(
            f"a slope needs nets of {LEAST_DEPTH} hidden layers or more; "
            f"this study has at most {max(layout.axes['layers'].values)}"
        )
    line = layout.pick([x], "init", "activation")
    line = line and line.thinned(MOST_LINES)
    facets = layout.few_panels(layout.others(x, line), MOST_PANELS, x, line)
    curves = Curves(layout, x, line)
    heads = {
        "delta_slope": f"slope of log10 {QUANTITIES[DELTA].label}",
        "gradient_slope": f"slope of log10 {_gradient(results)}",
    }
    heads = {name: head for name, head in heads.items() if curves.has(name)}
    columns = facets.panels
    figure = new_figure(
        max(2.9 * len(columns), 4.8) + (1.9 if line else 0.6), _height(len(heads), 2.7)
    )
    cells = figure.subplots(len(heads), len(columns), sharex=True, squeeze=False)
    curves.draw(
        [
            (axes, name, settings)
            for name, row in zip(heads, cells, strict=True)
            for axes, settings in zip(row, columns, strict=True)
        ]
    )
    for axes, settings in zip(cells[0], columns, strict=True):
        axes.set_title(layout.in_words(settings), fontsize=10)
    for row, head in zip(cells, heads.values(), strict=True):
        for axes in row:
            _sign(axes, told=axes is row[-1])
        row[0].set_ylabel(f"{head}\n(decades per layer)", fontsize=9)
    _finish(figure, cells, curves)
    text = "Slope of the gradient over hidden layers 2, 3, …, at the first step"
    shown = [line, *facets.axes] if line else facets.axes
    layout.title(figure, text, shown, _medians(results), facets.note)
    return figure


def _medians(results: LabelledStudy) -> str:
    """What points and bars are; {} stands for the number of seeds."""
    summary = results.summary()
    known = summary[[name for name in summary if name.endswith("_low")]].notna()
    return INTERVAL if known.to_numpy().any() else MEDIANS  # it takes six seeds or more


def _finish(figure: Figure, cells: Array, curves: Curves) -> None:
    """What x is, and the legends."""
    for axes in cells[-1]:
        axes.set_xlabel(curves.x.title, fontsize=9)
    if curves.line:
        handles = [
            Line2D([], [], **style, ms=4, lw=1.2, label=curves.line.label(value))
            for style, value in zip(curves.styles, curves.line.values, strict=True)
        ]
        for handle in handles if not curves.places.numeric else ():
            handle.set_linestyle("none")
        figure.legend(
            handles=handles, loc="outside right center", fontsize=8, title=curves.line.word,
            title_fontsize=8, handlelength=3,
        )  # fmt: skip
    several = curves.layout.results.study.members > 1
    lower_legend(figure, mark_handles(figure, ensemble=several, neutral=True, kinds=STUDY_MARKS))


def _sign(axes: Axes, *, told: bool) -> None:
    """A line at 0; where it is `told`, the meaning of the sign beside it."""
    axes.axhline(0, color="black", lw=0.8, zorder=1, gid="zero line")
    if told:
        for text, up, side in (("shrinks", 2, "bottom"), ("grows", -2, "top")):
            axes.annotate(
                text, (1, 0), (4, up), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", va=side, fontsize=7, color=GREY,
            )  # fmt: skip


def _gradient(results: LabelledStudy) -> str:
    """What stands for the gradient: the first that was recorded."""
    chosen = results.finished[0].quantities
    name = next(name for name in GRADIENTS if chosen is None or name in chosen)
    return QUANTITIES[name].label


def _height(rows: int, each: float = 2.6) -> float:
    return (each if rows < 4 else 2.0) * rows + 1.5
