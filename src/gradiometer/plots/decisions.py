"""What a net decides in the plane of the data's first two principal components."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dp.typing import Array
from gradiometer.plots.canvas import COLOURS, MARKERS, new_figure
from gradiometer.plots.marks import NONFINITE
from gradiometer.plots.titles import set_title
from gradiometer.plots.words import plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledRun

UNKNOWN_GREY = 0.75
USUAL = 250  # samples: more of them are drawn smaller, and let each other shine through
MOST_COLOURS = 4  # classes: of more, each has its name on it


def decision(trace: LabelledRun, member: int | None = None) -> Figure:
    """The samples and the net's decision in the plane of the first two principal components.

    The paler a region, the less sure the net is there; where its output is not finite it decides
    nothing, and the region is grey and hatched.

    Parameters
    ----------
    trace : Trace
    member : int, optional
        Seed of the member whose decision is shown; the first by default.

    Raises
    ------
    ValueError
        If the trace holds no decision, or no such member, or no members at all.
    """
    if "decision_class" not in trace.dataset:
        why = trace.attrs.get("decision_missing", "it was not recorded by an experiment")
        raise ValueError(f"this trace holds no decision: {why}")
    data, shown = _of_member(trace, member)
    plane = _Plane(data)
    figure = new_figure(6.6, 5)
    axes = figure.subplots()
    plane.draw_regions(axes)
    plane.draw_samples(axes)
    share = data["explained_variance"].values
    axes.set(
        xlabel=f"first principal component ({share[0]:.0%} of the variance)",
        ylabel=f"second principal component ({share[1]:.0%})",
    )
    handles = axes.get_legend_handles_labels()[0]
    if plane.unknown.any():
        fc = str(UNKNOWN_GREY)
        handles.append(Patch(fc=fc, ec="white", hatch="///", label=NONFINITE.text))
    legend = figure.legend(handles=handles, loc="outside right center", fontsize=9)
    for handle in legend.legend_handles:
        if handle is not None and not isinstance(handle, Patch):
            handle.set(alpha=1.0, sizes=[30])
    set_title(
        figure, trace, "The net's decision in the data's principal plane (pale: unsure)", shown
    )
    return figure


def _of_member(trace: LabelledRun, member: int | None) -> tuple[xr.Dataset, str]:
    """The data of one net, and which of an ensemble it is."""
    data = trace.dataset
    if trace.ensemble:
        seeds = data["member"].values.tolist()
        if member is not None and member not in seeds:
            raise ValueError(f"no member {member!r} in this trace; it has {seeds}")
        seed = seeds[0] if member is None else member
        return data.sel(member=seed), f"seed {seed} of {len(seeds)} nets"
    if member is not None:
        raise ValueError(f"no member {member!r} in this trace; it holds a single net")
    return data, ""


@dataclass(frozen=True)
class _Plane:
    """The plane of two principal components: the decision of one net, and the samples."""

    data: xr.Dataset

    @cached_property
    def labels(self) -> Array:
        return np.asarray(self.data["label"].values)

    @cached_property
    def classes(self) -> list[Any]:
        named: list[Any] = json.loads(self.data.attrs.get("class_names", "[]"))
        return named or sorted(set(self.labels.tolist()))

    @cached_property
    def colours(self) -> Array:
        """Red, green and blue; (classes, 3)."""
        return np.array([to_rgb(COLOURS[k % len(COLOURS)]) for k in range(len(self.classes))])

    @cached_property
    def decided(self) -> Array:
        """The class decided for; (grid_y, grid_x)."""
        return np.asarray(self.data["decision_class"].values)

    @cached_property
    def unknown(self) -> Array:
        """Where the net's output is not finite; (grid_y, grid_x)."""
        return np.asarray(~np.isfinite(self.data["decision_confidence"].values))

    def _shades(self) -> Array:
        """Colours of the plane, pale where the net is unsure; (grid_y, grid_x, 3)."""
        confidence, chance = self.data["decision_confidence"].values, 1.0 / len(self.classes)
        known = np.where(self.unknown, chance, confidence)
        strength = np.clip((known - chance) / (1 - chance), 0, 1)
        shades = 1 - (0.08 + 0.42 * strength[..., None]) * (1 - self.colours[self.decided])
        shades[self.unknown] = UNKNOWN_GREY
        return np.asarray(shades)

    def draw_regions(self, axes: Axes) -> None:
        """The regions of the classes, with lines between them."""
        x, y = self.data["grid_x"].values, self.data["grid_y"].values
        half_x, half_y = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
        axes.imshow(
            self._shades(),
            extent=(x[0] - half_x, x[-1] + half_x, y[0] - half_y, y[-1] + half_y),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
        )
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        if self.unknown.any():
            hatched = axes.contourf(
                x, y, self.unknown, levels=[0.5, 1.5], colors="none", hatches=["///"]
            )
            hatched.set(gid=NONFINITE.gid, edgecolor="white")
        for k in np.unique(self.decided[~self.unknown])[1:]:
            # in print two colours may be one grey
            before = np.where(self.unknown, np.nan, self.decided < k)
            axes.contour(x, y, before, levels=[0.5], colors="#444444", linewidths=0.6)

    def draw_samples(self, axes: Axes) -> None:
        """The samples by class."""
        many = min(1.0, USUAL / len(self.labels))
        for k, name in enumerate(self.classes):
            points = self.data["points"].values[self.labels == k]
            axes.scatter(
                points[:, 0],
                points[:, 1],
                color=self.colours[k],
                edgecolor="black",
                marker=MARKERS[k % len(MARKERS)],
                s=22 * math.sqrt(many),
                lw=0.5 * math.sqrt(many),
                alpha=0.9 if many == 1 else 0.6,
                label=plain(str(name)),
            )
            if len(self.classes) > MOST_COLOURS and len(points):
                # ten colours and marks are a lot to learn by heart
                axes.annotate(
                    plain(str(name)), np.median(points, axis=0), ha="center", va="center",
                    weight="bold",
                    path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
                )  # fmt: skip
