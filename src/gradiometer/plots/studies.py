"""Figures of what became of a study's nets, as lines over one setting with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradiometer.plots.canvas import (
    BLUE,
    COLOURS,
    MARKERS,
    Array,
    depth_colours,
    finite,
    new_figure,
)
from gradiometer.plots.grids import (
    Axis,
    Layout,
    NotForThisStudyError,
    Places,
    by_experiment,
    panel_size,
)
from gradiometer.plots.marks import (
    BROKEN,
    ENDLESS,
    NONFINITE,
    NOTHING,
    STUDY_MARKS,
    UNFINISHED,
    Mark,
    draw_mark,
    lower_legend,
    mark_handles,
    shift_by,
)
from gradiometer.plots.values import DELTA, GRADIENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradiometer.experiment import Experiment
    from gradiometer.studies import StudyResults

MOST_LINES = 10
MOST_PANELS = 8  # along the side that has one panel for each combination of further settings
LEAST_DEPTH = 3  # hidden layers: the first has another fan-in, and a slope takes two
STYLES = ("-", "--", "-.", ":")
MEDIANS = "medians over {} seeds"
INTERVAL = f"{MEDIANS} with 95 % bootstrap intervals"
GREY = "#555555"


def outcome(results: StudyResults) -> Figure:
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
    curves = _Curves(layout, x, line)
    heads = {
        "accuracy": "accuracy at the last recorded step",
        "delta_decades": f"fall of the {DELTA['delta_rms']}\nfrom output to layer 1 (decades)",
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


def slopes(results: StudyResults) -> Figure:
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
    curves = _Curves(layout, x, line)
    heads = {
        "delta_slope": f"slope of log10 {DELTA['delta_rms']}",
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


def _medians(results: StudyResults) -> str:
    """What points and bars are; {} stands for the number of seeds."""
    summary = results.summary()
    known = summary[[name for name in summary if name.endswith("_low")]].notna()
    return INTERVAL if known.to_numpy().any() else MEDIANS  # it takes six seeds or more


# --- shared by these ------------------------------------------------------------------------------


class _Curves:
    """Draws outcomes over x, a line for each value of another setting."""

    def __init__(self, layout: Layout, x: Axis, line: Axis | None) -> None:
        self.layout, self.x, self.line = layout, x, line
        self.places = Places(x)
        self.summary = by_experiment(layout.results.summary())
        self.nets = by_experiment(layout.results.outcomes)
        count = len(line.values) if line else 1
        ordered = line is not None and line.numeric
        colours = depth_colours(count) if ordered else cycle(COLOURS if line else [BLUE])
        self.styles = [
            {"color": colour, "marker": marker, "ls": style}
            for _, colour, marker, style in zip(
                range(count), colours, cycle(MARKERS), cycle(STYLES), strict=False
            )
        ]
        # lines that lie on each other stand side by side
        each, all_of_them = (4.0, 20.0) if self.places.numeric else (9.0, 60.0)
        self.apart = min(each, min(100 * self.places.closest, all_of_them) / count)

    def has(self, name: str) -> bool:
        """Whether the outcome is known of any experiment."""
        return any(name in row for row in self.summary.values())

    @property
    def _lines(self) -> tuple[Any, ...]:
        return self.line.values if self.line else (None,)

    def _experiments(self, settings: Mapping[str, Any], line: Any) -> list[Experiment | None]:
        """The experiments of a line in a panel, (x,)."""
        whole = {**settings, self.line.name: line} if self.line else settings
        return [self.layout.at({**whole, self.x.name: value}) for value in self.x.values]

    def draw(
        self,
        panels: Iterable[tuple[Axes, str, Mapping[str, Any]]],
        ends: tuple[float, float] | None = None,
    ) -> None:
        """Draw panels that share their y axis.

        Parameters
        ----------
        panels : iterable of (Axes, str, mapping)
            Each with the name of its outcome and its settings.
        ends : (float, float), optional
            Of the y axis; by default those of all that is shown, and 0.
        """
        drawn = [
            (axes, style, shift, _numbers(self, name, self._experiments(settings, line)))
            for axes, name, settings in panels
            for line, style, shift in zip(self._lines, self.styles, self._shifts(), strict=True)
        ]
        low, high = ends or _span(numbers for *_, numbers in drawn)
        kinds = {kind for *_, numbers in drawn for kind in numbers.marks}
        for axes in dict.fromkeys(axes for axes, *_ in drawn):
            self.places.draw(axes, labels=False)
            axes.set_ylim(*_with_room(low, high, kinds, 72 * panel_size(axes)[1]))
            axes.grid(alpha=0.25)
            axes.tick_params(axis="y", labelsize=8)
        for axes, style, shift, numbers in drawn:
            self._line(axes, numbers, style, shift)
            for kind, where in numbers.marks.items():
                draw_mark(axes, kind, self.places.at[where], style["color"], shift)

    def _shifts(self) -> list[float]:
        count = len(self.styles)
        return [self.apart * (k - (count - 1) / 2) for k in range(count)]

    def _line(self, axes: Axes, numbers: _Numbers, style: dict[str, Any], shift: float) -> None:
        shown, x = finite(numbers.middle), self.places.at
        bottom, top = axes.get_ylim()
        known = ~np.isnan(numbers.low)
        bars = axes.vlines(
            x[known], np.clip(numbers.low[known], bottom, top),
            np.clip(numbers.high[known], bottom, top),
            color=style["color"], lw=1.1, gid="interval",
        )  # fmt: skip
        shift_by(axes, bars, shift)
        for where, ls in ((self.places.joined, style["ls"]), (~self.places.joined, "none")):
            if where.any():
                (line,) = axes.plot(
                    x[where], shown[where], **{**style, "ls": ls}, ms=4, lw=1.2, zorder=2.5
                )
                shift_by(axes, line, shift)


@dataclass(frozen=True)
class _Numbers:
    """A line: medians and both ends of their intervals, (x,); and where no line shows what is."""

    middle: Array
    low: Array
    high: Array
    marks: dict[Mark, Array]


def _numbers(curves: _Curves, name: str, experiments: Sequence[Experiment | None]) -> _Numbers:
    """The outcome of some experiments, not all of which need to be there."""
    numbers = np.full((3, len(experiments)), np.nan)
    marks = {kind: np.zeros(len(experiments), bool) for kind in STUDY_MARKS}
    for i, experiment in enumerate(experiments):
        if experiment is None:
            continue
        if not curves.layout.is_finished(experiment):
            marks[UNFINISHED][i] = True
            continue
        row, nets = curves.summary[experiment.hash], curves.nets[experiment.hash]
        numbers[:, i] = [row[column][0] for column in (name, f"{name}_low", f"{name}_high")]
        for kind in _kinds(name, nets):
            marks[kind][i] = True
    there = {kind: where for kind, where in marks.items() if where.any()}
    return _Numbers(numbers[0], numbers[1], numbers[2], there)


def _kinds(name: str, nets: Mapping[str, Array]) -> list[Mark]:
    """Of which kinds there are nets, whose outcome is no number."""
    values = nets[name]
    absent = np.isnan(values)
    diverged = nets["diverged"] > 0 if "diverged" in nets else np.zeros(len(values), bool)
    if name == "accuracy":  # of a net that diverged it is a number, too, and says nothing
        return [NONFINITE] if (diverged | absent).any() else []
    nothing = BROKEN if name.endswith("slope") else NOTHING
    there = {
        ENDLESS: np.isinf(values),
        NONFINITE: absent & diverged,
        nothing: absent & ~diverged,
    }
    return [kind for kind, where in there.items() if where.any()]


def _span(shown: Iterable[_Numbers]) -> tuple[float, float]:
    """From the least to the largest number, and 0."""
    known = np.concatenate([[0.0], *(each for n in shown for each in (n.middle, n.low, n.high))])
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    return (low, high) if low < high else (-1.0, 1.0)


def _with_room(low: float, high: float, kinds: Iterable[Mark], height: float) -> list[float]:
    """Ends of a y axis, so many points high, with room for marks beyond `low` and `high`."""
    rows = [kind.row for kind in kinds]
    below = max([14 + 7 * row for row in rows if row >= 0], default=0)
    above = 14 if any(row < 0 for row in rows) else 0
    share = (high - low) / max(height - below - above, 20)
    pad = 0.05 * (high - low)
    return [low - pad - below * share, high + pad + above * share]


def _finish(figure: Figure, cells: Array, curves: _Curves) -> None:
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


def _gradient(results: StudyResults) -> str:
    """What stands for the gradient: the first that was recorded."""
    chosen = results.finished[0].quantities
    return next(label for name, label in GRADIENTS.items() if chosen is None or name in chosen)


def _height(rows: int, each: float = 2.6) -> float:
    return (each if rows < 4 else 2.0) * rows + 1.5
