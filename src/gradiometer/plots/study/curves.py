"""Outcomes of a study's nets over one setting: points, their intervals and marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.plots.canvas import BLUE, COLOURS, MARKERS, depth_colours, finite
from gradiometer.plots.marks import (
    BROKEN,
    ENDLESS,
    NONFINITE,
    NOTHING,
    STUDY_MARKS,
    UNFINISHED,
    Mark,
    draw_mark,
    shift_by,
)
from gradiometer.plots.study.axis import Axis
from gradiometer.plots.study.layout import Layout, by_experiment
from gradiometer.plots.study.places import Places, panel_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradiometer.labelled import DescribedExperiment

STYLES = ("-", "--", "-.", ":")


class Curves:
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

    def _experiments(
        self, settings: Mapping[str, Any], line: Any
    ) -> list[DescribedExperiment | None]:
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


def _numbers(
    curves: Curves, name: str, experiments: Sequence[DescribedExperiment | None]
) -> _Numbers:
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
