"""Which nets of a study train: maps of depth × scale of the initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from dp.typing import Array
from gradiometer.plots.canvas import DEPTH_MAP, LARGEST, SMALLEST, finite, new_figure
from gradiometer.plots.cells import cell_ends, cover
from gradiometer.plots.marks import ENDLESS, NONFINITE, NOTHING, UNFINISHED, lower_legend
from gradiometer.plots.study.axis import Axis
from gradiometer.plots.study.layout import MEDIANS, Layout, NotForThisStudyError, by_experiment
from gradiometer.plots.study.places import Places
from gradiometer.quantities import DELTA, QUANTITIES
from gradiometer.thresholds import LEARNT

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar

    from gradiometer.labelled import LabelledStudy

DIVERGING = "PuOr"  # told apart by colour-blind readers
MOST_MAPS = 6
FALLS = {
    "delta_decades": f"the {QUANTITIES[DELTA].label}",
    "gradient_decades": "the gradient",
}
EDGE = "black"


def trainability(results: LabelledStudy, *, trains: float = LEARNT) -> Figure:
    """Maps of depth × scale of the initial weights: final accuracy, and the fall of the delta.

    The fall, in decades from the output layer to layer 1 at the first step, is of the delta's rms
    or, if that was not recorded, of the gradient. A line goes round the nets that train. A row of
    maps for each combination of further settings. Medians over the nets of an experiment; a cross
    is where a net or more diverged.

    Parameters
    ----------
    results : StudyResults
    trains : float
        The median accuracy at the last recorded step from which on a net counts as one that trains.

    Raises
    ------
    NotForThisStudyError
        If the study does not vary both `layers` and `init_scale`, or nothing is finished.
    """
    layout = Layout(results)
    lacking = [
        name
        for name in ("layers", "init_scale")
        if name not in layout.axes or layout.axes[name].total < 2
    ]
    if lacking:
        raise NotForThisStudyError(
            "a map of trainability needs a study over depth and scale of the initial weights; this "
            f"one does not vary {' and '.join(lacking)}: over={{"
            + ", ".join(f'"{name}": …' for name in ("layers", "init_scale"))
            + "}"
        )
    depth, scale = layout.axes["layers"], layout.axes["init_scale"]
    facets = layout.few_panels(layout.others(depth, scale), MOST_MAPS)
    fall = next(name for name in FALLS if name in results.outcomes)
    heads = {
        "accuracy": "accuracy at the last recorded step",
        fall: f"fall of {FALLS[fall]}\nfrom output to layer 1 (decades)",
    }
    maps = [_Map(layout, depth, scale, settings, trains) for settings in facets.panels]
    figure = new_figure(5.0 * len(heads) + 0.6, 3.4 * len(maps) + 1.4)
    cells = figure.subplots(len(maps), len(heads), sharex=True, sharey=True, squeeze=False)
    largest = max(float(np.nanmax(np.abs(finite(m.medians(fall))), initial=1.0)) for m in maps)
    norms = {"accuracy": Normalize(0, 1), fall: AsinhNorm(1.0, -largest, largest)}
    handles: dict[str, Artist] = {}
    for axes, head in zip(cells[0], heads.values(), strict=True):
        axes.set_title(head, fontsize=10)
    for row, each in zip(cells, maps, strict=True):
        for axes, name in zip(row, heads, strict=True):
            image, found = each.draw(axes, name, norms[name])
            handles |= found
            bar = figure.colorbar(image, ax=axes, pad=0.02)
            bar.ax.tick_params(labelsize=8)
            if name == fall:
                _decades(bar, largest)
        words = layout.in_words(each.settings)
        row[0].set_ylabel(f"{words}\n" * bool(words) + depth.title, fontsize=9)
    for axes in cells[-1]:
        axes.set_xlabel(f"{scale.title} (log)", fontsize=9)
    none = "" if any(each.trained.any() for each in maps) else " (none)"
    line = Line2D([], [], color=EDGE, lw=2, label=f"trains: accuracy {trains:g} or more{none}")
    lower_legend(figure, [line, *handles.values()])
    text = "Which nets train: depth × scale of the initial weights"
    layout.title(figure, text, facets.axes, MEDIANS, facets.note)
    return figure


class _Map:
    """The nets of all depths and scales, other settings being the same."""

    def __init__(
        self, layout: Layout, depth: Axis, scale: Axis, settings: Mapping[str, Any], trains: float
    ) -> None:
        self.settings, self.scale = settings, scale
        self.nets = by_experiment(layout.results.outcomes)
        self.cells = [
            [layout.at({**settings, depth.name: d, scale.name: s}) for s in scale.values]
            for d in depth.values
        ]
        self.unfinished = np.array(
            [[e is not None and not layout.is_finished(e) for e in row] for row in self.cells]
        )
        self.depths = np.array(depth.values, float)
        ends = cell_ends(np.log10(np.array(scale.values, float)))
        self.x_ends = 10.0 ** np.clip(ends, math.log10(SMALLEST), math.log10(LARGEST))
        self.y_ends = cell_ends(self.depths)
        self.trained = self.medians("accuracy") >= trains

    def _each(self, of_nets: Callable[[dict[str, Array]], Any], absent: Any) -> Array:
        """Something of the nets in each cell (depths, scales); `absent` where there are none."""
        return np.array(
            [
                [
                    of_nets(self.nets[e.hash]) if e is not None and e.hash in self.nets else absent
                    for e in row
                ]
                for row in self.cells
            ]
        )

    def medians(self, name: str) -> Array:
        """The median over nets of an outcome, those left out that have none; (depths, scales)."""
        return self._each(lambda nets: _median(nets[name]), np.nan)

    def draw(self, axes: Axes, name: str, norm: Normalize) -> tuple[QuadMesh, dict[str, Artist]]:
        """A map of one outcome; and the legend's entries."""
        values = self.medians(name)
        finished = self._each(lambda _: True, False)
        diverged = self._each(
            lambda nets: "diverged" in nets and bool(nets["diverged"].any()), False
        )
        # from the start: matplotlib would add a margin, perhaps beyond the largest float
        axes.set_autoscale_on(False)
        Places(self.scale).draw(axes, labels=False)
        axes.set_xlim(self.x_ends[0], self.x_ends[-1])
        axes.set_ylim(self.y_ends[0], self.y_ends[-1])
        axes.set_yticks(_apart(self.depths))
        axes.tick_params(labelsize=8)
        image = axes.pcolormesh(
            self.x_ends, self.y_ends, finite(values), norm=norm, rasterized=True,
            cmap=DEPTH_MAP if name == "accuracy" else DIVERGING,
        )  # fmt: skip
        absent = np.isnan(values) & finished
        handles: dict[str, Artist] = {}
        for kind, where in (
            (ENDLESS, np.isinf(values) & finished),
            (NOTHING, absent & ~diverged),
            (NONFINITE, absent & diverged),
            (UNFINISHED, self.unfinished),
        ):
            if where.any():
                cover(axes, where, self.x_ends, self.y_ends, gid=kind.gid, **kind.cover())
                handles[kind.gid] = kind.cover_handle()
        if diverged.any():
            handles["diverged"] = self._cross(axes, diverged)
        self._surround(axes, self.trained)
        return image, handles

    def _cross(self, axes: Axes, where: Array) -> Line2D:
        x = 10.0 ** ((np.log10(self.x_ends[1:]) + np.log10(self.x_ends[:-1])) / 2)
        y = (self.y_ends[1:] + self.y_ends[:-1]) / 2
        rows, columns = np.nonzero(where)
        style = {**NONFINITE.style(), "ms": 6, "mew": 1.5}
        axes.plot(
            x[columns], y[rows], **style, gid="diverged",
            path_effects=[Stroke(linewidth=3.5, foreground="white"), Normal()],
        )  # fmt: skip
        return Line2D([], [], **style, label="a net or more diverged")

    def _surround(self, axes: Axes, where: Array) -> None:
        """A line round cells; it goes along their sides, for between them nothing is known."""
        padded = np.pad(where, 1)
        x, y = self.x_ends, self.y_ends
        sides = [
            [(x[j - 1], y[i]), (x[j], y[i])] for i, j in np.argwhere(padded[1:] != padded[:-1])
        ]  # below and above cells
        sides += [
            [(x[j], y[i - 1]), (x[j], y[i])]
            for i, j in np.argwhere(padded[:, 1:] != padded[:, :-1])
        ]
        lines = LineCollection(
            sides, colors=EDGE, linewidths=2, capstyle="projecting", clip_on=False, zorder=4,
            gid="trains", path_effects=[Stroke(linewidth=4, foreground="white"), Normal()],
        )  # fmt: skip
        axes.add_collection(lines, autolim=False)


def _median(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _apart(depths: Array) -> list[float]:
    """Those depths that have room for a number beside the axis."""
    least = 0.05 * float(np.ptp(depths))
    chosen = [float(depths[-1])]
    for depth in depths[-2::-1]:
        if chosen[-1] - depth >= least:
            chosen.append(float(depth))
    return chosen


def _decades(bar: Colorbar, largest: float) -> None:
    """Ticks of a scale that is narrower for larger numbers, and what the sign means."""
    ticks = [t for t in (1, 3, 10, 30, 100, 300) if t <= largest]
    bar.set_ticks(
        [*(-t for t in ticks[::-1]), 0, *ticks],
        labels=[*(f"−{t}" for t in ticks[::-1]), "0", *map(str, ticks)],
    )
    bar.minorticks_off()
    bar.set_label("← grows   towards the input   shrinks →", fontsize=8)
