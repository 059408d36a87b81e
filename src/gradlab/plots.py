"""Every figure, from a Trace and nothing else; and the gallery of activation functions.

Figures are matplotlib Figures made without pyplot, so nothing is shown, kept open, or shared.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

import dp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradlab.trace import Trace

Array = NDArray[Any]

# Okabe & Ito 2008: told apart by colour-blind readers, and by their lightness in print
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
CLASS_COLOURS = (BLUE, ORANGE, GREEN, "#E69F00", PINK, "#56B4E9", "#F0E442", "#000000", "#999999")
CLASS_MARKERS = "osD^vP*Xhd"
DEPTH_MAP = "viridis"
# matplotlib places ticks some steps beyond an axis, which must not overflow; what lies beyond is
# about to be non-finite anyway
SMALLEST, LARGEST = 1e-200, 1e200
GRADIENT = "mean |dL/dW|"
DELTA = "rms of the delta"


def panels(trace: Trace) -> Figure:
    """Gradients over steps, one panel per layer on its own scale, as in the lesson.

    An ensemble shows its median and the band from the 10th to the 90th percentile. Steps whose
    value is not finite are marked by crosses at the lower edge.
    """
    names = [str(name) for name in trace.dataset["layer"].values]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(3.0 * columns + 0.4, 1.9 * rows + 0.9)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    steps = trace.dataset["step"].values
    values = trace["grad_mean_abs"].values
    for i, name in enumerate(names):
        _line(axes[i], steps, values[:, i], BLUE)
        _mark_nonfinite(axes[i], steps, values[:, i])
        axes[i].set_title(f"{i + 1}: {name}", fontsize=9)
        axes[i].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes[i].set_ylim(bottom=0)
    for unused in axes[len(names) :]:
        unused.set_visible(False)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel(GRADIENT, fontsize=10)
    _title(figure, trace, f"{GRADIENT} of each layer, each on its own scale")
    return figure


def gradients(trace: Trace) -> Figure:
    """Mean |dL/dW| of all layers over steps in one chart with a log axis.

    Gradients that are exactly zero, and values that are not finite, are marked at the lower edge.
    """
    figure = _figure(8, 4.8)
    axes = figure.subplots()
    steps = trace.dataset["step"].values
    values = _over_members(trace, trace["grad_mean_abs"].values)
    colours = _depth_colours(values.shape[1])
    for i, name in enumerate(trace.dataset["layer"].values):
        label = f"{i + 1}: {name}"
        axes.plot(steps, _positive(values[:, i]), color=colours[i], lw=1.4, label=label)
        _mark_zero(axes, steps, values[:, i])
        _mark_nonfinite(axes, steps, values[:, i])
    _log_axis(axes, values)
    axes.set(xlabel="step", ylabel=GRADIENT)
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="outside right center",
        fontsize=8,
        title="layer",
        ncols=math.ceil(len(labels) / 18),
    )
    _title(figure, trace, f"{GRADIENT} of all layers")
    return figure


def heatmap(trace: Trace) -> Figure:
    """Depth × step heatmaps of log10 mean |dL/dW| and of log10 of the delta's rms.

    Exact zeros are white, values that are not finite red; both are named in the legend.
    """
    figure = _figure(11, 4.6)
    both = figure.subplots(1, 2, sharey=True)
    names = [f"{i + 1}: {name}" for i, name in enumerate(trace.dataset["layer"].values)]
    steps = trace.dataset["step"].values
    half = (steps[-1] - steps[0]) / max(len(steps) - 1, 1) / 2 or 0.5
    extent = (steps[0] - half, steps[-1] + half, 0.5, len(names) + 0.5)
    zeros = nonfinite = False
    for axes, quantity, label in zip(
        both, ("grad_mean_abs", "delta_rms"), (GRADIENT, DELTA), strict=True
    ):
        values = _over_members(trace, trace[quantity].values).T
        image: dict[str, Any] = {
            "extent": extent,
            "origin": "lower",
            "aspect": "auto",
            "interpolation": "nearest",
        }
        shown = axes.imshow(_log10(values), cmap=DEPTH_MAP, **image)
        bad = np.where(~np.isfinite(values), 1.0, np.nan)
        axes.imshow(bad, cmap=ListedColormap(["#B2182B"]), **image)
        figure.colorbar(shown, ax=axes, label=f"log10 {label}")
        axes.set(title=label, xlabel="step")
        axes.set_yticks(range(1, len(names) + 1), names, fontsize=7 if len(names) > 15 else 9)
        zeros |= bool((values == 0).any())
        nonfinite |= bool((~np.isfinite(values)).any())
    both[0].set_ylabel("layer (input below)")
    marks = [("exactly zero", "white", zeros), ("not finite", "#B2182B", nonfinite)]
    handles = [Patch(fc=c, ec="black", label=text) for text, c, present in marks if present]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    _title(figure, trace, "Where the gradient goes: depth × step")
    return figure


def profile(trace: Trace, steps: Sequence[int] | None = None) -> Figure:
    """Mean |dL/dW| and the delta's rms over the layers, at chosen steps, on a log axis.

    Parameters
    ----------
    trace : Trace
    steps : sequence of ints, optional
        Recorded steps; by default the first, the middle and the last.

    Raises
    ------
    ValueError
        If a step was not recorded.
    """
    recorded = [int(step) for step in trace.dataset["step"].values]
    if steps is None:
        steps = list(dict.fromkeys([recorded[0], recorded[len(recorded) // 2], recorded[-1]]))
    for step in steps:
        if step not in recorded:
            raise ValueError(
                f"step {step!r} was not recorded; the trace has {len(recorded)} steps from "
                f"{recorded[0]} to {recorded[-1]}"
            )
    figure = _figure(10, 4.4)
    both = figure.subplots(1, 2)
    names = [str(name) for name in trace.dataset["layer"].values]
    depth = np.arange(1, len(names) + 1)
    for axes, quantity, label in zip(
        both, ("grad_mean_abs", "delta_rms"), (GRADIENT, DELTA), strict=True
    ):
        for step, colour, marker in zip(steps, cycle(CLASS_COLOURS), cycle("osD^v"), strict=False):
            values = trace[quantity].values[recorded.index(step)]
            middle = _over_members(trace, values)
            axes.plot(
                depth, _positive(middle), color=colour, marker=marker, ms=4, label=f"step {step}"
            )
            if values.ndim > 1:
                low, high = _band(values)
                axes.fill_between(
                    depth, _positive(low), _positive(high), color=colour, alpha=0.15, lw=0
                )
            _mark_zero(axes, depth, middle)
            _mark_nonfinite(axes, depth, middle)
        _log_axis(axes, _over_members(trace, trace[quantity].values))
        many = len(names) > 15
        axes.set_xticks(depth[:: 1 + len(names) // 15], names[:: 1 + len(names) // 15])
        axes.tick_params(axis="x", labelsize=7 if many else 9)
        axes.set(title=label, xlabel="layer, from the input to the output")
        axes.grid(alpha=0.25)
    both[0].legend(fontsize=8)
    _title(figure, trace, "The gradient's profile over the layers")
    return figure


def learning(trace: Trace) -> Figure:
    """Loss and accuracy over steps; an ensemble's members thin, their median bold."""
    figure = _figure(7.5, 5)
    both = figure.subplots(2, 1, sharex=True)
    steps = trace.dataset["step"].values
    for axes, quantity, colour in zip(both, ("loss", "accuracy"), (ORANGE, BLUE), strict=True):
        values = trace[quantity].values
        if values.ndim > 1:
            axes.plot(steps, _finite(values), color=colour, lw=0.6, alpha=0.35)
        axes.plot(steps, _finite(_over_members(trace, values)), color=colour, lw=2)
        _mark_nonfinite(axes, steps, values)
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.25)
    both[1].set(xlabel="step", ylim=(-0.03, 1.03))
    _title(figure, trace, "Does it learn?")
    return figure


def decision(trace: Trace, member: int | None = None) -> Figure:
    """The samples and the net's decision in the plane of the first two principal components.

    The paler a region, the less sure the net is there.

    Parameters
    ----------
    trace : Trace
    member : int, optional
        Seed of the member whose decision is shown; the first by default.

    Raises
    ------
    ValueError
        If the trace holds no decision, or no such member.
    """
    data = trace.dataset
    if "decision_class" not in data:
        raise ValueError("this trace holds no decision: it was not recorded by an experiment")
    chosen = data
    if "member" in data.dims:
        seeds = data["member"].values.tolist()
        if member is not None and member not in seeds:
            raise ValueError(f"no member {member!r} in this trace; it has {seeds}")
        chosen = data.sel(member=seeds[0] if member is None else member)
    labels = data["label"].values
    classes = json.loads(data.attrs.get("class_names", "[]")) or sorted(set(labels.tolist()))
    figure = _figure(6.4, 5)
    axes = figure.subplots()
    colours = np.array([to_rgb(CLASS_COLOURS[k % len(CLASS_COLOURS)]) for k in range(len(classes))])
    confidence = chosen["decision_confidence"].values
    chance = 1.0 / len(classes)
    strength = np.nan_to_num(np.clip((confidence - chance) / (1 - chance), 0, 1))
    shade = (0.08 + 0.42 * strength)[..., None]
    x, y = data["grid_x"].values, data["grid_y"].values
    axes.imshow(
        1 - shade * (1 - colours[chosen["decision_class"].values]),
        extent=(x[0], x[-1], y[0], y[-1]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    for k, name in enumerate(classes):
        points = data["points"].values[labels == k]
        style: dict[str, Any] = {
            "marker": CLASS_MARKERS[k % len(CLASS_MARKERS)],
            "s": 22,
            "lw": 0.6,
        }
        axes.scatter(*points.T, color=colours[k], edgecolor="white", label=str(name), **style)
    share = data["explained_variance"].values
    axes.set(
        xlabel=f"first principal component ({share[0]:.0%} of the variance)",
        ylabel=f"second principal component ({share[1]:.0%})",
    )
    figure.legend(loc="outside right center", fontsize=9)
    shown = f"seed {chosen['member'].item()}" if "member" in chosen.coords else None
    _title(figure, trace, "The net's decision, in the data's principal plane", shown)
    return figure


def activations(names: Sequence[str] | None = None) -> Figure:
    """Activation functions and their derivatives; the saturated region is shaded.

    Parameters
    ----------
    names : sequence of str, optional
        Names in `dp.activations.ACTIVATIONS`; all of them by default.

    Raises
    ------
    ValueError
        For an unknown name, naming those there are.
    """
    chosen = [dp.activations.get(name) for name in names or dp.activations.ACTIVATIONS]
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = _figure(3.6 * columns, 2.7 * rows + 0.5)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, activation in zip(cells, chosen, strict=False):
        reach = 8.0 if activation.name == "clipped_relu" else 6.0
        h = np.linspace(-reach, reach, 1201)
        axes.plot(h, activation(h), color=BLUE, lw=1.8, label="φ(h)")
        axes.plot(h, activation.derivative(h), color=ORANGE, lw=1.6, ls="--", label="φ'(h)")
        where = activation.saturated(h)
        axes.fill_between(
            h, 0, 1, where=where, color="#BBBBBB", alpha=0.35, lw=0,
            transform=axes.get_xaxis_transform(), label="saturated",
        )  # fmt: skip
        low, high = (f"{end:.3g}".replace("inf", "∞") for end in activation.range)
        axes.set_title(
            f"{activation.name}\nrange ({low}, {high}), largest slope {activation.max_slope:.3g}",
            fontsize=8.5,
        )
        axes.grid(alpha=0.25)
        axes.axhline(0, color="black", lw=0.6)
        axes.axvline(0, color="black", lw=0.6)
    for unused in cells[len(chosen) :]:
        unused.set_visible(False)
    handles: dict[str, Any] = {}
    for axes in cells[: len(chosen)]:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles=[*handles.values()], loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle("Activation functions φ(h) and their derivatives", fontsize=11)
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {
    "gradients": gradients,
    "panels": panels,
    "heatmap": heatmap,
    "profile": profile,
    "learning": learning,
    "decision": decision,
}


# --- shared by the figures ------------------------------------------------------------------------


class _Figure(Figure):
    """Shows itself in a notebook, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=self.dpi)
        return png.getvalue()


def _figure(width: float, height: float) -> Figure:
    figure = _Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, trace: Trace, text: str, shown: str | None = None) -> None:
    """`text`, and below it what was run, and which of its nets are shown."""
    e = json.loads(trace.dataset.attrs.get("experiment", "{}"))
    if e:
        name = e["activation"] + (f" (ceiling {e['clip']:g})" if e.get("clip") else "")
        several = e["members"] > 1
        shown = shown or (f"median of {e['members']} nets" if several else f"seed {e['seed']}")
        text += (
            f"\n{e['layers']} × {e['width']} {name}, {e['init']} init, {e['optimizer']} "
            f"{e['learning_rate']:g}, {e['data']} ({e['scaling']}), {shown}"
        )
    figure.suptitle(text, fontsize=11)


def _over_members(trace: Trace, values: Array) -> Array:
    """The median over the members, the last axis of an ensemble's values."""
    return np.asarray(np.median(values, axis=-1)) if "member" in trace.dataset.dims else values


def _positive(values: Array) -> Array:
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, np.nan)


def _log10(values: Array) -> Array:
    return np.log10(_positive(values))


def _band(values: Array) -> tuple[Array, Array]:
    with np.errstate(all="ignore"):
        low, high = np.quantile(values, [0.1, 0.9], axis=-1)
    return low, high


def _line(axes: Axes, x: Array, values: Array, colour: str) -> None:
    if values.ndim > 1:
        low, high = _band(values)
        axes.fill_between(x, _finite(low), _finite(high), color=colour, alpha=0.2, lw=0)
        values = np.median(values, axis=-1)
    axes.plot(x, _finite(values), color=colour, lw=1.3)


def _mark(axes: Axes, x: Array, where: Array, marker: str, colour: str, gid: str) -> None:
    if where.ndim > 1:
        where = np.asarray(where.any(axis=-1))
    if where.any():
        at = x[where]
        axes.plot(
            at, np.full(len(at), 0.02), transform=axes.get_xaxis_transform(), ls="none",
            marker=marker, ms=5, color=colour, clip_on=False, gid=gid,
        )  # fmt: skip


def _mark_zero(axes: Axes, x: Array, values: Array) -> None:
    _mark(axes, x, values == 0, "v", "black", "zero")


def _mark_nonfinite(axes: Axes, x: Array, values: Array) -> None:
    _mark(axes, x, ~np.isfinite(values), "x", "#B2182B", "nonfinite")


def _log_axis(axes: Axes, values: Array) -> None:
    axes.set_yscale("log")
    if not np.isfinite(_positive(values)).any():
        axes.set_ylim(1e-12, 1.0)  # nothing to scale by: every gradient is zero or not finite
    low, high = axes.get_ylim()
    if low < SMALLEST or high > LARGEST:
        axes.set_ylim(max(low, SMALLEST), min(high, LARGEST))


def _depth_colours(count: int) -> Any:
    # the palest end of the map would vanish on paper
    return matplotlib.colormaps[DEPTH_MAP](np.linspace(0.0, 0.9, count))
