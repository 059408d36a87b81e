"""Figures of what the training led to: loss and accuracy, and what the net decides."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gradiometer.plots.canvas import (
    BLUE,
    COLOURS,
    MARKERS,
    ORANGE,
    draw_line,
    finite,
    loggable,
    middle,
    new_figure,
)
from gradiometer.plots.marks import MARKS, NONFINITE, draw_marks, lower_legend, mark_handles
from gradiometer.plots.scales import fitting_axis, step_axis
from gradiometer.plots.titles import set_title
from gradiometer.plots.values import not_recorded, recorded_values
from gradiometer.plots.words import plain

if TYPE_CHECKING:
    from gradiometer.trace import Trace

UNKNOWN_GREY = 0.75
USUAL = 250  # samples: more of them are drawn smaller, and let each other shine through


def learning(trace: Trace) -> Figure:
    """Loss and accuracy over steps; an ensemble's members thin, their median bold.

    The axis of the loss is linear, or a log one if the loss spans more than six decades. Values
    that are not finite are marked at the lower edge. What was not recorded has no panel.

    Raises
    ------
    ValueError
        If neither was recorded.
    """
    recorded = {
        name: recorded_values(trace, name) for name in ("loss", "accuracy") if name in trace.dataset
    }
    recorded = {name: values for name, values in recorded.items() if not np.isnan(values).all()}
    # a share of right answers is a number in a net that diverged, too: none at all was not measured
    if not np.isfinite(recorded.get("accuracy", 0.0)).any():
        del recorded["accuracy"]
    if not recorded:
        raise not_recorded("loss and no accuracy", "loss", "accuracy")
    figure = new_figure(7.5, 5 if len(recorded) > 1 else 3.2)
    all_axes = figure.subplots(len(recorded), 1, sharex=True, squeeze=False).ravel()
    steps = trace.dataset["step"].values
    for axes, (quantity, values) in zip(all_axes, recorded.items(), strict=True):
        colour = ORANGE if quantity == "loss" else BLUE
        log = quantity == "loss" and fitting_axis(axes, values)
        shown = loggable if log else finite
        for member in values.T if trace.ensemble else ():
            draw_line(axes, steps, shown(member), color=colour, lw=0.6, alpha=0.35)
        draw_line(axes, steps, shown(middle(trace, values)), color=colour, lw=2)
        draw_marks(axes, steps, values, MARKS if log else (NONFINITE,))
        step_axis(axes, steps)
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.25)
        if quantity == "accuracy":
            axes.set_ylim(-0.03, 1.03)
    all_axes[-1].set_xlabel("step")
    lower_legend(figure, mark_handles(figure, ensemble=trace.ensemble))
    set_title(figure, trace, "Does it learn?", "{} nets, bold: their median")
    return figure


def decision(trace: Trace, member: int | None = None) -> Figure:
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
    data = trace.dataset
    if "decision_class" not in data:
        raise ValueError("this trace holds no decision: it was not recorded by an experiment")
    chosen, shown = data, ""
    if trace.ensemble:
        seeds = data["member"].values.tolist()
        if member is not None and member not in seeds:
            raise ValueError(f"no member {member!r} in this trace; it has {seeds}")
        seed = seeds[0] if member is None else member
        chosen, shown = data.sel(member=seed), f"seed {seed} of {len(seeds)} nets"
    elif member is not None:
        raise ValueError(f"no member {member!r} in this trace; it holds a single net")
    labels = data["label"].values
    classes = json.loads(data.attrs.get("class_names", "[]")) or sorted(set(labels.tolist()))
    figure = new_figure(6.6, 5)
    axes = figure.subplots()
    colours = np.array([to_rgb(COLOURS[k % len(COLOURS)]) for k in range(len(classes))])
    confidence = chosen["decision_confidence"].values
    chance = 1.0 / len(classes)
    unknown = ~np.isfinite(confidence)
    strength = np.clip((np.where(unknown, chance, confidence) - chance) / (1 - chance), 0, 1)
    region = 1 - (0.08 + 0.42 * strength[..., None]) * (
        1 - colours[chosen["decision_class"].values]
    )
    region[unknown] = UNKNOWN_GREY
    x, y = data["grid_x"].values, data["grid_y"].values
    half_x, half_y = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    axes.imshow(
        region,
        extent=(x[0] - half_x, x[-1] + half_x, y[0] - half_y, y[-1] + half_y),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    if unknown.any():
        with_hatch = axes.contourf(x, y, unknown, levels=[0.5, 1.5], colors="none", hatches=["///"])
        with_hatch.set(gid=NONFINITE.gid, edgecolor="white")
    for k in np.unique(chosen["decision_class"].values[~unknown])[1:]:
        # in print two colours may be one grey
        before = np.where(unknown, np.nan, chosen["decision_class"].values < k)
        axes.contour(x, y, before, levels=[0.5], colors="#444444", linewidths=0.6)
    many = min(1.0, USUAL / len(labels))
    for k, name in enumerate(classes):
        points = data["points"].values[labels == k]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            color=colours[k],
            edgecolor="black",
            marker=MARKERS[k % len(MARKERS)],
            s=22 * math.sqrt(many),
            lw=0.5 * math.sqrt(many),
            alpha=0.9 if many == 1 else 0.6,
            label=plain(str(name)),
        )
        if len(classes) > 4 and len(points):
            # ten colours and marks are a lot to learn by heart
            axes.annotate(
                plain(str(name)), np.median(points, axis=0), ha="center", va="center",
                weight="bold",
                path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
            )  # fmt: skip
    share = data["explained_variance"].values
    axes.set(
        xlabel=f"first principal component ({share[0]:.0%} of the variance)",
        ylabel=f"second principal component ({share[1]:.0%})",
    )
    handles = axes.get_legend_handles_labels()[0]
    if unknown.any():
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
