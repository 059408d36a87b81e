"""Where the gradient goes in each experiment of a study: small heatmaps of depth × step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dp.typing import Array
from gradiometer.plots.canvas import middle, new_figure
from gradiometer.plots.cells import cell_ends, draw_flow, log_limits
from gradiometer.plots.marks import UNFINISHED, lower_legend
from gradiometer.plots.scales import step_axis
from gradiometer.plots.study.axis import Axis, evenly
from gradiometer.plots.study.layout import MEDIANS, Layout, NotForThisStudyError, fitted
from gradiometer.plots.values import quantities_of, recorded_values
from gradiometer.quantities import GRADIENTS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledStudy

MOST_PANELS = 40
MOST_STEPS = 200  # more than the points that a small panel has
WRAP = 6  # panels side by side where nothing else says how many


def heatmaps(results: LabelledStudy, *, most: int = MOST_PANELS) -> Figure:
    """Small multiples of depth × step heatmaps of log10 mean |dL/dW|, all with the same colours.

    The depth goes across, or whatever else is a number; other settings go down. An experiment that
    is not finished has a hatched panel. Where mean |dL/dW| was not recorded, the rms of dL/dW
    stands for it. Medians over the nets of an experiment.

    Parameters
    ----------
    results : StudyResults
    most : int
        Panels; of larger studies evenly spaced values of the longest axes are shown, as the title
        says.

    Raises
    ------
    NotForThisStudyError
        If no experiment is finished.
    """
    layout = Layout(results)
    across = layout.along_x()
    shown = fitted([across, *layout.others(across)], most)
    panels = _arrange(layout, shown, most)
    flows = [_flow(layout, settings) for settings in panels.settings]
    known = [flow for flow in flows if flow is not None]
    if not known:
        raise NotForThisStudyError("no experiment among those to be shown is finished")
    label = f"log10 {known[0].label}"
    figure = new_figure(*panels.size)
    handles = _draw(figure, panels, flows, f"{label}\n(the same in all panels)")
    figure.supylabel("layer (input below)", fontsize=9)
    lower_legend(figure, [*handles.values()])
    title = f"Where the gradient goes: {label} by depth and step"
    study = results.study
    if not study.is_grid and len(flows) < len(study.experiments):
        title += f"; {len(flows)} of {len(study.experiments)} experiments shown"
    layout.title(figure, title, shown if study.is_grid else (), MEDIANS)
    return figure


def _draw(
    figure: Figure, panels: _Panels, flows: Sequence[_Flow | None], label: str
) -> dict[str, Any]:
    """Draw the panels and the bar of their colours; gives the legend's entries."""
    known = [flow for flow in flows if flow is not None]
    limits = log_limits([flow.values for flow in known])
    cells = figure.subplots(panels.rows, panels.columns, squeeze=False).ravel()
    handles: dict[str, Artist] = {}
    same = len({(flow.ends[0], flow.ends[-1]) for flow in known}) == 1
    for i, (axes, flow) in enumerate(zip(cells, flows, strict=False)):
        if flow is None:
            _unfinished(axes)
            handles[UNFINISHED.gid] = UNFINISHED.cover_handle()
        else:
            image, covers = draw_flow(axes, flow.ends, flow.values, limits)
            handles |= covers
            axes.set_yticks([1, len(flow.values)], ["1", "out"], fontsize=7)
            step_axis(axes, flow.steps)
            axes.tick_params(axis="x", labelsize=7)
        if i + panels.columns >= len(flows):  # nothing below it
            axes.set_xlabel("step", fontsize=8)
        elif same:
            axes.tick_params(labelbottom=False)
        axes.set_title(panels.heads.get(i, ""), fontsize=8)
        axes.set_ylabel(panels.sides.get(i, ""), fontsize=8)
    for unused in cells[len(flows) :]:
        unused.set_visible(False)
    if limits:
        figure.colorbar(
            image, ax=list(cells), label=label, pad=0.02, aspect=max(20, 7 * panels.rows)
        )
    return handles


@dataclass(frozen=True)
class _Flow:
    """What a panel shows: `values` (layers, steps), the median over nets."""

    values: Array
    steps: Array
    ends: Array
    label: str


def _flow(layout: Layout, settings: Mapping[str, Any]) -> _Flow | None:
    """What a panel shows; None if the experiment is not finished."""
    experiment = layout.at(settings)
    if experiment is None or not layout.is_finished(experiment):
        return None
    trace = layout.results.trace(experiment)
    [(quantity, label)] = quantities_of(trace, GRADIENTS)
    steps = trace.dataset["step"].values
    few = np.unique(np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int))
    chosen = middle(trace, recorded_values(trace, quantity)[few])
    return _Flow(chosen.T, steps[few], cell_ends(steps[few]), label)


@dataclass(frozen=True)
class _Panels:
    """Settings of the panels, row by row; words above and beside some of them, by number."""

    settings: list[dict[str, Any]]
    columns: int
    heads: dict[int, str]
    sides: dict[int, str]

    @property
    def rows(self) -> int:
        return math.ceil(len(self.settings) / self.columns)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure, in inches."""
        # words above every row take some room
        lines = 0 if self.sides else self.heads[0].count("\n") + 1
        return (
            max(1.55 * self.columns, 4.4) + 1.6,
            max((1.25 + 0.15 * lines) * self.rows, 1.8) + 1.7,
        )


def _arrange(layout: Layout, axes: Sequence[Axis], most: int) -> _Panels:
    """Where the panels are; the first of the axes goes across."""
    study = layout.results.study
    first, *rest = axes
    if not study.is_grid or not rest:
        every = (
            layout.panels(axes)
            if study.is_grid
            else [
                {name: getattr(e, name) for name in layout.axes}
                for e in evenly(study.experiments, most)
            ]
        )
        heads = {i: layout.in_words(settings, "\n") for i, settings in enumerate(every)}
        return _Panels(every, min(len(every), WRAP), heads, {})
    # as near to the shape of a page as it gets
    chosen = [
        [first, *others]
        for count in range(len(rest))
        for others in itertools.combinations(rest, count)
    ]
    across = min(chosen, key=lambda some: _shape(some, axes))
    down = [axis for axis in rest if axis not in across]
    above, beside = layout.panels(across), layout.panels(down)
    return _Panels(
        [left | top for left in beside for top in above],
        len(above),
        {i: layout.in_words(top, "\n") for i, top in enumerate(above)},
        {i * len(above): layout.in_words(left, "\n") for i, left in enumerate(beside)},
    )


def _shape(across: Sequence[Axis], axes: Sequence[Axis]) -> float:
    """How far from a square the panels are, with some of the axes across."""
    columns = math.prod(len(axis.values) for axis in across)
    rows = math.prod(len(axis.values) for axis in axes) / columns
    return abs(math.log(1.25 * columns / rows))


def _unfinished(axes: Axes) -> None:
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, gid=UNFINISHED.gid, lw=0,
                  **UNFINISHED.cover())
    )  # fmt: skip
    axes.set(xticks=[], yticks=[])
