"""Every figure, from a Trace (and a gallery of activation functions).

All figures keep the same promises: exact zeros and values that are not finite are drawn as marks
of their own, never dropped; of an ensemble the median over its members is drawn; colours are told
apart by colour-blind readers, and in print by markers, line styles and hatches too.

Figures are made without pyplot, so nothing has to be closed and no display is needed.
"""

from __future__ import annotations

import functools
import io
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dp.activations import Activation

Array = NDArray[Any]

BAND = (0.1, 0.9)  # quantiles over the members of an ensemble

# Okabe and Ito's colours, and two of Paul Tol's for a ninth and a tenth class
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#F0E442", VERMILION, "#000000")
PALETTE += ("#882255", "#999933")
MARKERS = "os^DvPX*<>"
MAP = "viridis"
BRIGHTEST = 0.88  # of the map, for lines on white paper
ZERO, NONFINITE, GREY = "#000000", VERMILION, "#666666"

# what a logarithmic axis can show with a margin in float64
_SMALLEST, _LARGEST = 1e-300, 1e300


class Recorded(Protocol):
    """Anything that has the data set of a run, such as a Trace."""

    @property
    def dataset(self) -> xr.Dataset:
        """Dims step, layer and, for an ensemble, member."""
        ...


# --- the figures ----------------------------------------------------------------------------------


def panels(trace: Recorded, *, log: bool = True) -> Figure:
    """Draw mean |dL/dW| over the steps, one panel per layer, each with its own scale.

    Read row by row, from the input to the output. Of an ensemble: the median over the members,
    and a band from the 10th to the 90th percentile.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    log : bool
        A logarithmic y axis; False for a linear one.
    """
    data = trace.dataset
    names, steps = _names(data), data["step"].values
    spread = _spread(_quantity(data, "grad_mean_abs"))
    columns = 1 + sum(len(names) > limit for limit in (3, 8, 15))
    rows = math.ceil(len(names) / columns)
    figure = _figure(
        data, "Mean |dL/dW| over the steps, layer by layer", (2.4 + 2.2 * columns, 1.35 * rows + 1)
    )
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for i, (name, ax) in enumerate(zip(names, axes, strict=False)):
        one = spread.at(slice(None), i)
        _scale(ax, one, log)
        _band(ax, steps, one, BLUE)
        _line(ax, steps, _drawable(one.middle, log), color=BLUE, linewidth=1.4)
        _runs(ax, steps, one.nonfinite, 1.0, NONFINITE)
        if log:
            _runs(ax, steps, one.zero, 0.0, ZERO)
        if np.isnan(one.middle).all():
            _note(ax, "not recorded")
        sizes = f"{int(data['fan_in'][i])} → {int(data['fan_out'][i])}"
        ax.set_title(f"{name}  ({sizes})", loc="left", fontsize=9)
        _steps_axis(ax, steps)
    for ax in axes[len(names) :]:
        ax.remove()
    for ax in axes[max(len(names) - columns, 0) : len(names)]:
        # also where the row below is not full
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("step", fontsize=9)
    figure.supylabel("mean |dL/dW|", fontsize=9)
    _legend(figure, _mark_handles(spread, log=log, line=BLUE))
    return figure


def gradients(trace: Recorded) -> Figure:
    """Draw mean |dL/dW| of all layers over the steps on one logarithmic axis.

    Layers go from dark (at the input) to light (at the output), and are named at the end of their
    line, or beside a colour bar where there are many. Of an ensemble: the median over the members.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    """
    data = trace.dataset
    names, steps = _names(data), data["step"].values
    spread = _spread(_quantity(data, "grad_mean_abs"))
    height = 4.6
    figure = _figure(data, "Mean |dL/dW| per layer", (8, height))
    ax = figure.subplots()
    _scale(ax, spread, log=True, medians_only=True)
    colors = _depth_colors(len(names))
    direct = len(names) <= 12
    for i, name in enumerate(names):
        one = spread.at(slice(None), i)
        _line(ax, steps, _drawable(one.middle), color=colors[i], linewidth=1.6, label=name)
        _runs(ax, steps, one.zero, 0.0, colors[i], zorder=4 - i / 100)
        _runs(ax, steps, one.nonfinite, 1.0, colors[i], zorder=4 - i / 100)
    if np.isnan(spread.middle).all():
        _note(ax, "not recorded")
    _steps_axis(ax, steps)
    ax.set_xlabel("step", fontsize=9)
    ax.set_ylabel("mean |dL/dW|", fontsize=9)
    if direct:
        _end_labels(ax, steps, spread.middle, names, colors, height)
    else:
        _layer_bar(figure, ax, names, colors)
    _legend(figure, _mark_handles(spread, names=names, line=colors[0], band=False))
    return figure


def heatmap(trace: Recorded) -> Figure:
    """Draw depth × step maps of log10 mean |dL/dW| and of log10 of the deltas' rms, side by side.

    A cell of exactly zero is grey and striped, one that is not finite is red and crossed, one that
    was not recorded is white. Of an ensemble: the median over the members (one that is not finite
    counts as above all numbers); cells with a finite median but some member that is not finite are
    dotted.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    """
    from matplotlib.patches import Patch

    data = trace.dataset
    names, steps = _names(data), data["step"].values
    height = 2.3 + min(max(0.16 * len(names), 1.2), 5.5)
    figure = _figure(data, "Where the gradient goes: depth × step", (9.4, height))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    shown: dict[str, Any] = {}
    quantities = (
        ("grad_mean_abs", "mean |dL/dW|", "Gradient"),
        ("delta_rms", "rms of dL/dh", "Delta"),
    )
    x_edges, y_edges = _edges(steps), np.arange(len(names) + 1) + 0.5
    for ax, (variable, label, title) in zip(axes, quantities, strict=True):
        spread = _spread(_quantity(data, variable))
        logs = np.log10(_drawable(spread.middle))
        present = logs[np.isfinite(logs)]
        low, high = (present.min(), present.max()) if present.size else (0.0, 1.0)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        mesh = ax.pcolormesh(
            x_edges,
            y_edges,
            np.ma.masked_invalid(logs).T,
            cmap=MAP,
            vmin=low,
            vmax=high,
            rasterized=True,
        )
        kinds = (
            ("exactly zero", spread.middle == 0, "#DDDDDD", "////", GREY),
            ("not finite", np.isposinf(spread.middle), NONFINITE, "xxx", "white"),
            (
                "median of members; some not finite",
                spread.nonfinite & np.isfinite(spread.middle),
                "none",
                "...",
                "white",
            ),
            ("not recorded", np.isnan(spread.middle), "white", "", GREY),
        )
        for kind, where, face, hatch, edge in kinds:
            if not where.any():
                continue
            style = {"facecolor": face, "hatch": hatch, "edgecolor": edge, "linewidth": 0.0}
            for i in range(len(names)):
                spans = [(x_edges[a], x_edges[b] - x_edges[a]) for a, b in _spans(where[:, i])]
                if spans:
                    bars = ax.broken_barh(spans, (y_edges[i], 1.0), **style)
                    bars.set_label(f"_{kind}")
            key = style if face != "none" else {**style, "facecolor": GREY}
            if face == "white":
                key = {**style, "linewidth": 0.6}
            shown[kind] = Patch(**key, label=kind)
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_xlabel("step", fontsize=9)
        ax.set_xlim(x_edges[0], x_edges[-1])
        ax.set_ylim(y_edges[0], y_edges[-1])
        ax.tick_params(labelsize=8)
        _integer_ticks(ax.xaxis)
        if present.size:
            bar = figure.colorbar(mesh, ax=ax, pad=0.02)
            bar.set_label(f"log₁₀ {label}", fontsize=9)
            bar.ax.tick_params(labelsize=8)
    _layer_ticks(axes[0].yaxis, names, 30)
    axes[0].set_ylabel("layer, from input (below) to output", fontsize=9)
    _legend(figure, list(shown.values()))
    return figure


def profile(trace: Recorded, *, steps: int | Iterable[int] | None = None) -> Figure:
    """Draw gradient and delta over depth, from input to output, at chosen steps.

    A straight line is a steady factor per layer: falling towards the input, the gradient vanishes;
    rising, it explodes. Zeros are marked on the lower axis, values that are not finite on the
    upper one. Of an ensemble: the median over the members, and a band from the 10th to the 90th
    percentile.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    steps : int or ints, optional
        Recorded steps; the first, the middle and the last one if not given.

    Raises
    ------
    ValueError
        If a step was not recorded, or none is given.
    """
    data = trace.dataset
    names, depth = _names(data), data["depth"].values.astype(float)
    rows = _chosen_steps(data["step"].values, steps)
    figure = _figure(data, "Gradient and delta over depth", (9, 4.2))
    axes = figure.subplots(1, 2)
    quantities = (
        ("grad_mean_abs", "mean |dL/dW|", "Gradient"),
        ("delta_rms", "rms of dL/dh", "Delta"),
    )
    colors = _depth_colors(len(rows)) if len(rows) > 4 else (BLUE, ORANGE, GREEN, "#CC79A7")
    styles = ("-", "--", "-.", ":")
    spreads = []
    for ax, (variable, label, title) in zip(axes, quantities, strict=True):
        # only what is drawn decides the scale
        spread = _spread(_quantity(data, variable)[list(rows.values())])
        spreads.append(spread)
        _scale(ax, spread, log=True)
        for k in range(len(rows)):
            one = spread.at(k)
            _band(ax, depth, one, colors[k])
            ax.plot(
                depth,
                _drawable(one.middle),
                color=colors[k],
                linestyle=styles[k % len(styles)],
                marker=MARKERS[k % len(MARKERS)],
                markersize=4.5 if len(names) <= 12 else 3,
                linewidth=1.4,
            )
            # beside one another, where several steps are zero in the same layer
            x = depth + 0.22 * (k - (len(rows) - 1) / 2) / max(len(rows) - 1, 1)
            _points(ax, x[one.zero], 0.0, colors[k])
            _points(ax, x[one.nonfinite], 1.0, colors[k])
        if np.isnan(spread.middle).all():
            _note(ax, "not recorded")
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_xlabel("layer, from input to output", fontsize=9)
        ax.set_ylabel(label, fontsize=9)
        ax.set_xlim(depth[0] - 0.4, depth[-1] + 0.4)
        _layer_ticks(ax.xaxis, names, 12, depth)
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=colors[k],
            linestyle=styles[k % len(styles)],
            marker=MARKERS[k % len(MARKERS)],
            markersize=4.5,
            label=f"step {step}",
        )
        for k, step in enumerate(rows)
    ]
    both = _Spread(*(np.stack(fields) for fields in zip(*spreads, strict=True)))
    _legend(figure, handles + _mark_handles(both, line=None))
    return figure


def learning(trace: Recorded) -> Figure:
    """Draw loss and accuracy over the steps, one above the other.

    The loss has a logarithmic axis where it spans more than a factor of 100. Steps whose loss is
    not finite are marked on the upper axis. Of an ensemble: a thin line per member, and their
    median.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    """
    from matplotlib.lines import Line2D

    data = trace.dataset
    steps = data["step"].values
    figure = _figure(data, "Loss and accuracy over the steps", (8, 5))
    axes = figure.subplots(2, 1, sharex=True)
    spreads = {}
    for ax, name, color in zip(axes, ("loss", "accuracy"), (BLUE, GREEN), strict=True):
        values = _quantity(data, name)
        spread = spreads[name] = _spread(values)
        if np.isnan(values).all():
            _note(ax, "not recorded")
        log = False
        if name == "loss":
            finite = values[np.isfinite(values)]
            positive = finite[finite > 0]
            log = bool(
                positive.size
                and (finite >= 0).all()
                and positive.max() / _LARGEST < 1  # a linear axis cannot hold more either
                and positive.max() / 100 > positive.min()
            )
            full = _Spread(
                spread.middle, values.min(axis=-1), values.max(axis=-1), *spread[3:], None
            )
            _scale(ax, full, log)
            _runs(ax, steps, spread.zero, 0.0, ZERO) if log else None
        else:
            ax.set_ylim(-0.03, 1.03)
            _style(ax)
        if values.shape[-1] > 1:
            _line(ax, steps, _drawable(values, log), color=color, linewidth=0.6, alpha=0.35)
        _line(ax, steps, _drawable(spread.middle, log), color=color, linewidth=1.8)
        _runs(ax, steps, spread.nonfinite, 1.0, NONFINITE)
        ax.set_ylabel(name, fontsize=9)
        _steps_axis(ax, steps)
    axes[1].set_xlabel("step", fontsize=9)
    handles: list[Any] = []
    if "member" in data.dims:
        handles = [
            Line2D([], [], color=GREY, linewidth=0.6, alpha=0.6, label="each member"),
            Line2D([], [], color=GREY, linewidth=1.8, label="median of members"),
        ]
    marks = _Spread(*(np.stack(fields) for fields in zip(*spreads.values(), strict=True)))
    log = axes[0].get_yscale() == "log"
    _legend(figure, handles + _mark_handles(marks, log=log, line=None, band=False))
    return figure


def decision(trace: Recorded, *, member: int | None = None) -> Figure:
    """Draw the samples and the net's decision in the plane of two principal components.

    Each point of the plane has the colour of the class that the net decides on there, the stronger
    the more confident it is. Samples lie where they project to; with more than two features the
    net was asked in the plane itself, so a sample far from the plane may be decided otherwise.

    Parameters
    ----------
    trace : Trace
        What was recorded, with a decision plane.
    member : int, optional
        Seed of the member of an ensemble; the first one if not given.

    Raises
    ------
    ValueError
        If the trace has no decision plane, or no such member.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    data = trace.dataset
    if "decision_class" not in data or "points" not in data:
        raise ValueError(
            "this trace has no decision plane (points, decision_class); it is recorded by an "
            "experiment on data with at least two features"
        )
    which = ""
    plane = data[["decision_class", "decision_confidence"]]
    if "member" in plane.dims:
        members = [int(m) for m in data["member"].values]
        if member is None:
            member = members[0]
        if member not in members:
            raise ValueError(f"no member {member!r}; this trace has {_some(members)}")
        plane = plane.isel(member=members.index(member))
        which = f", member with seed {member}"
    elif member is not None:
        raise ValueError(
            f"member {member!r} was asked for, but this trace is of one net; leave member out"
        )
    plane = plane.transpose("grid_y", "grid_x")
    x, y = data["grid_x"].values, data["grid_y"].values
    classes = plane["decision_class"].values.astype(int)
    confidence = plane["decision_confidence"].values.astype(float)
    labels = data["label"].values.astype(int)
    points = data["points"].transpose("sample", "component").values
    n_classes = int(max(labels.max(), classes.max())) + 1
    names = json.loads(data.attrs.get("class_names", "[]"))
    names = [*names, *(f"class {c}" for c in range(len(names), n_classes))]

    figure = _figure(data, f"What the net decides{which}", (6.8, 5.9))
    ax = figure.subplots()
    ink = np.array([to_rgb(PALETTE[c % len(PALETTE)]) for c in range(n_classes)])
    finite = np.isfinite(confidence)
    # from no colour at a guess to half of it at certainty, so that samples stand out
    guess = 1 / max(n_classes, 2)
    share = 0.08 + 0.47 * np.clip((np.where(finite, confidence, 0) - guess) / (1 - guess), 0, 1)
    image = 1 - share[..., None] * (1 - ink[np.clip(classes, 0, n_classes - 1)])
    image[~finite] = 0.87
    ax.pcolormesh(_edges(x), _edges(y), image, rasterized=True)
    for c in range(n_classes if len(x) > 1 and len(y) > 1 else 0):
        region = (classes == c) & finite
        if region.any() and not region.all():
            ax.contour(x, y, region.astype(float), levels=[0.5], colors=GREY, linewidths=0.8)
    handles: list[Any] = []
    present = np.unique(labels)
    for c in range(n_classes):
        style: dict[str, Any] = {
            "color": PALETTE[c % len(PALETTE)],
            "marker": MARKERS[c % len(MARKERS)],
            "linestyle": "",
            "markeredgecolor": "white" if c % len(PALETTE) != 5 else "black",
            "markeredgewidth": 0.6,
            "markersize": 6.5,
        }
        if c in present:
            here = points[labels == c]
            ax.plot(here[:, 0], here[:, 1], **style, label=f"_{names[c]}")
            handles.append(Line2D([], [], **style, label=str(names[c])))
    if not finite.all():
        for j in range(len(y)):
            spans = [(_edges(x)[a], _edges(x)[b] - _edges(x)[a]) for a, b in _spans(~finite[j])]
            if spans:
                low, high = _edges(y)[j : j + 2]
                bars = ax.broken_barh(
                    spans,
                    (low, high - low),
                    facecolor="none",
                    hatch="xxx",
                    edgecolor=NONFINITE,
                    linewidth=0.0,
                )
                bars.set_label("_not finite")
        handles.append(
            Patch(
                facecolor="#DDDDDD",
                hatch="xxx",
                edgecolor=NONFINITE,
                linewidth=0,
                label="output not finite",
            )
        )
    shares = data["explained_variance"].values if "explained_variance" in data else None
    for k, (axis, word) in enumerate(((ax.xaxis, "first"), (ax.yaxis, "second"))):
        share_text = "" if shares is None else f" ({100 * float(shares[k]):.1f} % of variance)"
        axis.set_label_text(f"{word} principal component{share_text}", fontsize=9)
    ax.set_xlim(_edges(x)[[0, -1]])
    ax.set_ylim(_edges(y)[[0, -1]])
    ax.tick_params(labelsize=8)
    greys = LinearSegmentedColormap.from_list("confidence", ["#EBEBEB", "#737373"])
    bar = figure.colorbar(ScalarMappable(Normalize(guess, 1), greys), ax=ax, pad=0.02, aspect=30)
    bar.set_label("confidence of the class decided on", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    _legend(figure, handles)
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {
    "panels": panels,
    "gradients": gradients,
    "heatmap": heatmap,
    "profile": profile,
    "learning": learning,
    "decision": decision,
}


def activations(names: str | Activation | Iterable[str | Activation] | None = None) -> Figure:
    """Draw a gallery of activation functions φ with their derivatives φ′.

    Each title tells the range and the largest slope; where the function is saturated (|φ′| below
    5 % of its maximum) the ground is shaded.

    Parameters
    ----------
    names : str or Activation, or several, optional
        Which ones; all in the table if not given.

    Raises
    ------
    ValueError
        If there is no such function, or none is given.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from dp import activations as table

    if names is None:
        names = list(table.ACTIVATIONS)
    elif isinstance(names, (str, table.Activation)):
        names = [names]
    chosen = [table.get(name) for name in names]
    if not chosen:
        raise ValueError(
            f"no activation function given; choose from {', '.join(table.ACTIVATIONS)}"
        )
    columns = min(len(chosen), 4 if len(chosen) > 6 else 3)
    rows = math.ceil(len(chosen) / columns)
    figure = _blank(
        "Activation functions and their derivatives",
        "how much gradient each lets through, and where it lets almost none",
        (max(2.6 * columns, 5.2), 2.15 * rows + 1),
    )
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    h = np.linspace(-8, 8, 1601)
    for phi, ax in zip(chosen, axes, strict=False):
        value, slope = np.asarray(phi(h)), phi.derivative(h)
        _style(ax)
        ax.axhline(0, color="#AAAAAA", linewidth=0.7, zorder=1)
        ax.axvline(0, color="#AAAAAA", linewidth=0.7, zorder=1)
        for a, b in _spans(phi.saturated(h)):
            ax.axvspan(h[a], h[b - 1], color="#E4E4E4", linewidth=0, zorder=0, label="_saturated")
        ax.plot(h, value, color=BLUE, linewidth=1.7)
        # a jump of the derivative is a gap, not a steep line
        jump = np.abs(np.diff(slope, append=slope[-1])) > 0.2 * phi.max_slope
        ax.plot(h, np.where(jump, np.nan, slope), color=VERMILION, linewidth=1.5, linestyle="--")
        low, high = (_bound(end) for end in phi.range)
        ax.set_title(
            f"{phi.name}\nrange {low} … {high}, max slope {phi.max_slope:.4g}".replace("-", "−"),
            loc="left",
            fontsize=8.5,
        )
        ax.set_xlim(h[0], h[-1])
        ax.set_xticks([-8, -4, 0, 4, 8])
    for ax in axes[len(chosen) :]:
        ax.remove()
    for ax in axes[max(len(chosen) - columns, 0) : len(chosen)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("pre-activation h", fontsize=9)
    _legend(
        figure,
        [
            Line2D([], [], color=BLUE, linewidth=1.7, label="φ(h)"),
            Line2D([], [], color=VERMILION, linewidth=1.5, linestyle="--", label="φ′(h)"),
            Patch(color="#E4E4E4", linewidth=0, label="saturated: |φ′| below 5 % of its maximum"),
        ],
    )
    return figure


# --- numbers --------------------------------------------------------------------------------------


class _Spread(NamedTuple):
    """A quantity over the members: median and band, with 0, Inf (not finite), NaN (not recorded).

    `zero` and `nonfinite` tell where it is so in at least one member; `several` whether there are
    several members.
    """

    middle: Array
    low: Array
    high: Array
    zero: Array
    nonfinite: Array
    several: Any

    def at(self, *index: Any) -> _Spread:
        """The same of a part of the array."""
        return _Spread(*(field[index] for field in self[:5]), self.several)


def _quantity(data: xr.Dataset, name: str) -> Array:
    """A quantity, (step[, layer], member), one member if it has none.

    Inf stands for whatever is not finite, NaN only for what was not recorded.
    """
    inner = [d for d in ("step", "layer", "member") if d in data[name].dims]
    values = data[name].transpose(*inner).values.astype(np.float64)
    nan = np.isnan(values)
    if "layer" in inner and "nonfinite_count" in data:
        # NaN without any non-finite entry behind it was never measured; so for the whole run, if
        # it is NaN throughout
        missing = nan & (data["nonfinite_count"].transpose(*inner).values == 0)
        missing |= nan.all(axis=0) & missing.any(axis=0)
    else:
        missing = nan if nan.all() and name == "accuracy" else np.zeros_like(nan)
    values = np.where(np.isfinite(values) | missing, values, np.inf)
    return values if "member" in inner else values[..., None]


def _spread(values: Array) -> _Spread:
    """Median and band over the last axis."""
    ordered = np.sort(values, axis=-1)  # Inf above all numbers, NaN above Inf
    return _Spread(
        _quantile(ordered, 0.5),
        *(_quantile(ordered, q) for q in BAND),
        (values == 0).any(axis=-1),
        np.isposinf(values).any(axis=-1),
        np.array(values.shape[-1] > 1),
    )


def _quantile(ordered: Array, q: float) -> Array:
    """Quantile along the sorted last axis; np.quantile would make NaN of Inf - Inf."""
    place = q * (ordered.shape[-1] - 1)
    below, above = ordered[..., math.floor(place)], ordered[..., math.ceil(place)]
    part = place - math.floor(place)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(above), (1 - part) * below + part * above, above)


def _drawable(values: Array, log: bool = True) -> Array:
    """The numbers an axis can show, NaN for the others."""
    shown = np.isfinite(values) & ((values > 0) if log else True)
    smallest = _SMALLEST if log else -_LARGEST
    return np.clip(np.where(shown, values, np.nan), smallest, _LARGEST)


def _spans(where: Array) -> list[tuple[int, int]]:
    """Runs of True as (start, stop) pairs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _edges(centers: Array) -> Array:
    """Borders of the cells around increasing centres."""
    centers = np.asarray(centers, dtype=float)
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    inner = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - inner[0]], inner, [2 * centers[-1] - inner[-1]]])


def _chosen_steps(recorded: Array, wanted: int | Iterable[int] | None) -> dict[int, int]:
    """Steps and their places among the recorded ones."""
    places = {int(step): i for i, step in enumerate(recorded)}
    known = list(places)
    if wanted is None:
        wanted = [known[0], known[(len(known) - 1) // 2], known[-1]]
    elif isinstance(wanted, (int, np.integer)):
        wanted = [int(wanted)]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise ValueError(f"no step given; recorded were {_some(known)}")
    for step in wanted:
        if step not in places:
            raise ValueError(f"step {step!r} was not recorded; recorded were {_some(known)}")
    return {int(step): places[step] for step in wanted}


# --- words ----------------------------------------------------------------------------------------


def _names(data: xr.Dataset) -> list[str]:
    return [str(name) for name in data["layer"].values]


def _some(numbers: Sequence[int]) -> str:
    """A short list of integers: "1, 11, 21, …, 91"."""
    if len(numbers) <= 6:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[:3]))}, …, {numbers[-1]}"


def _ranges(names: Sequence[str], where: Array) -> str:
    """Names of the layers chosen: "h1–h4, out"."""
    spans = [names[a] if b - a == 1 else f"{names[a]}–{names[b - 1]}" for a, b in _spans(where)]
    return ", ".join(spans)


def _subtitle(data: xr.Dataset) -> str:
    """What was run, in one line: "iris2, 10 × 10 sigmoid, dp init, seed 0"."""
    e: dict[str, Any] = json.loads(data.attrs.get("experiment") or "{}")
    parts = []
    if "data" in e:
        parts.append(str(e["data"]))
    if "activation" in e and "layers" in e:
        parts.append(f"{e['layers']} × {e.get('width', '?')} {e['activation']}")
    else:
        parts.append(f"{data.sizes['layer']} layers")
    if "init" in e:
        scale = e.get("init_scale", 1.0)
        parts.append(f"{e['init']} init" + (f" × {scale:g}" if scale != 1 else ""))
    if e.get("normalisation", "none") != "none":
        parts.append(f"{e['normalisation']} normalisation")
    if e.get("residual"):
        parts.append("residual")
    if "member" in data.dims:
        seeds = [int(m) for m in data["member"].values]
        one = "member" if len(seeds) == 1 else "members"
        parts.append(f"{len(seeds)} {one} (seeds {_some(seeds)})")
    elif "seed" in data.attrs or "seed" in e:
        parts.append(f"seed {data.attrs.get('seed', e.get('seed'))}")
    if data.attrs.get("interrupted"):
        parts.append(f"interrupted after step {int(data['step'][-1])}")
    return ", ".join(parts)


def _bound(end: float) -> str:
    if math.isinf(end):
        return "∞" if end > 0 else "-∞"
    return f"{end:.4g}"


# --- ink ------------------------------------------------------------------------------------------


def _figure(data: xr.Dataset, title: str, size: tuple[float, float]) -> Figure:
    return _blank(title, _subtitle(data), size)


def _blank(title: str, subtitle: str, size: tuple[float, float]) -> Figure:
    """An empty figure with a title, a subtitle, and a strip below for the legend; size in inches."""
    from matplotlib.figure import Figure

    width, height = size
    lines = textwrap.wrap(subtitle, int(width * 13))
    top = 0.42 + 0.17 * len(lines)
    figure = Figure(figsize=(width, height + 0.17 * (len(lines) - 1)), dpi=120, facecolor="white")
    height = figure.get_figheight()
    margins = {"w_pad": 0.06, "h_pad": 0.05, "wspace": 0.03, "hspace": 0.03}
    strip = 0.34 / height
    figure.set_layout_engine("constrained", rect=(0, strip, 1, 1 - strip - top / height), **margins)
    left = 0.1 / width
    figure.suptitle(
        title, x=left, y=1 - 0.09 / height, ha="left", va="top", fontsize=12, fontweight="bold"
    )
    figure.text(
        left, 1 - 0.34 / height, "\n".join(lines), ha="left", va="top", fontsize=9, color="#444444"
    )
    # notebooks show what has this method, and otherwise only figures made by pyplot
    figure.__dict__["_repr_png_"] = functools.partial(_png, figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _legend(figure: Figure, handles: list[Any]) -> None:
    """A legend in the strip below; made higher if it takes several rows."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), int(width / (0.55 + 0.072 * longest))))
    rows = math.ceil(len(handles) / columns)
    extra = 0.19 * (rows - 1)
    if extra:
        # the strip grows downwards, and the rest keeps its size
        engine: Any = figure.get_layout_engine()
        x, y, w, h = engine.get()["rect"]
        grown = height + extra
        figure.set_size_inches(width, grown)
        engine.set(rect=(x, (y * height + extra) / grown, w, h * height / grown))
        for text in (figure._suptitle, *figure.texts):  # type: ignore[attr-defined]
            place_x, place_y = text.get_position()
            text.set_position((place_x, 1 - (1 - place_y) * height / grown))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=columns,
        fontsize=8.5,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.4,
        labelspacing=0.35,
        borderaxespad=0.25,
    )


def _mark_handles(
    spread: _Spread,
    *,
    log: bool = True,
    names: Sequence[str] = (),
    line: Any = None,
    band: bool = True,
) -> list[Any]:
    """Legend entries for what is there: median, band, zeros and values that are not finite.

    With `names`, the layers that are zero or not finite at some step are told.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    several = bool(np.any(spread.several))
    handles: list[Any] = []
    if several and line is not None:
        handles.append(Line2D([], [], color=line, linewidth=1.6, label="median of members"))
    if several and band:
        handles.append(
            Patch(color=line or GREY, alpha=0.25, linewidth=0, label="10th to 90th percentile")
        )
    some = " in some member" if several else ""
    kinds = [("not finite", spread.nonfinite, "X", NONFINITE)]
    if log:
        kinds.insert(0, ("exactly zero", spread.zero, "v", ZERO))
    for kind, where, marker, color in kinds:
        if where.any():
            which = f": {_ranges(names, where.any(axis=0))}" if len(names) else ""
            handles.append(
                Line2D(
                    [],
                    [],
                    color=GREY if len(names) else color,
                    marker=marker,
                    markersize=6,
                    linestyle="",
                    label=kind + some + which,
                )
            )
    return handles


def _style(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#E2E2E2", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8)


def _scale(ax: Axes, spread: _Spread, log: bool, *, medians_only: bool = False) -> None:
    """Set the y axis from the data, also where all of them are zero or not finite."""
    from matplotlib.ticker import LogLocator, NullFormatter

    fields = spread[:1] if medians_only else spread[:3]
    shown = np.concatenate([_drawable(field, log).ravel() for field in fields])
    shown = shown[np.isfinite(shown)]
    _style(ax)
    if not log:
        low, high = (min(0.0, shown.min()), max(0.0, shown.max())) if shown.size else (0.0, 1.0)
        margin = 0.06 * (high - low) or 0.5
        ax.set_ylim(low - (margin if low < 0 else 0.0), high + margin)
        return
    ax.set_yscale("log")
    low, high = (math.log10(shown.min()), math.log10(shown.max())) if shown.size else (-1.0, 1.0)
    if high - low < 2:
        # whole decades, so that there are always two numbers at the axis
        low, high = math.floor(low - 0.05), math.ceil(high + 0.05)
    else:
        low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    ax.set_ylim(10.0 ** max(low, -307), 10.0 ** min(high, 307))
    # a tick every n decades, by whole n
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if high - low > 6:
        ax.yaxis.set_minor_locator(LogLocator(numticks=1))
    if not shown.size:
        ax.set_yticks([], minor=False)
        ax.set_yticks([], minor=True)
        if spread.zero.any() or spread.nonfinite.any():
            zero, inf = bool(spread.zero.any()), bool(spread.nonfinite.any())
            words = "zero or not finite" if zero and inf else "zero" if zero else "not finite"
            _note(ax, f"{words} throughout")


def _note(ax: Axes, words: str) -> None:
    ax.text(
        0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=GREY, fontsize=9
    )


def _line(ax: Axes, x: Array, y: Array, **style: Any) -> None:
    """A line, or one per column, that also shows numbers without a neighbour on either side."""
    columns = y.reshape(len(x), -1)
    lines = ax.plot(x, columns, **{**style, "label": None})
    if "label" in style:
        lines[0].set_label(f"_{style['label']}")
    gap = np.isnan(columns)
    edge = np.ones_like(gap[:1])
    alone = ~gap & np.concatenate([edge, gap[:-1]]) & np.concatenate([gap[1:], edge])
    if alone.any():
        at = np.broadcast_to(x[:, None], columns.shape)[alone]
        ax.plot(
            at,
            columns[alone],
            linestyle="",
            marker="o",
            markersize=3.5,
            color=style["color"],
            alpha=style.get("alpha"),
        )


def _band(ax: Axes, x: Array, spread: _Spread, color: Any) -> None:
    """The band over the members, down to the axis where it reaches zero, up where it has no end."""
    if not spread.several:
        return
    bottom, top = ax.get_ylim()
    low = np.where(np.isfinite(spread.low), np.clip(spread.low, bottom, top), top)
    high = np.where(np.isfinite(spread.high), np.clip(spread.high, bottom, top), top)
    there = ~np.isnan(spread.high)
    if there.any():
        band = ax.fill_between(x, low, high, where=there, color=color, alpha=0.2, linewidth=0)
        band.set_label("_band")


def _runs(ax: Axes, x: Array, where: Array, y: float, color: Any, zorder: float = 4) -> None:
    """Mark steps at the lower (y = 0, zeros) or upper axis (y = 1, not finite).

    A run of steps is a thick line with a mark at either end; one mark per step would be a blur.
    """
    if not where.any():
        return
    spans = _spans(where)
    transform = ax.get_xaxis_transform()
    for a, b in spans:
        if b - a > 1:
            ax.plot(
                [x[a], x[b - 1]],
                [y, y],
                transform=transform,
                color=color,
                linewidth=2.6,
                solid_capstyle="butt",
                clip_on=False,
                zorder=zorder,
            )
    ends = np.unique([i for a, b in spans for i in (a, b - 1)])
    _points(ax, x[ends], y, color, zorder=zorder)


def _points(ax: Axes, x: Array, y: float, color: Any, zorder: float = 4) -> None:
    """Marks at the lower (y = 0, zeros) or upper axis (y = 1, not finite)."""
    if not len(x):
        return
    ax.plot(
        x,
        np.full(len(x), y),
        transform=ax.get_xaxis_transform(),
        linestyle="",
        marker="v" if y == 0 else "X",
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        color=color,
        clip_on=False,
        zorder=zorder + 0.5,
        label="_zero" if y == 0 else "_nonfinite",
    )


def _steps_axis(ax: Axes, steps: Array) -> None:
    margin = 0.02 * float(steps[-1] - steps[0]) or 0.5
    ax.set_xlim(steps[0] - margin, steps[-1] + margin)
    _integer_ticks(ax.xaxis)


def _integer_ticks(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _layer_ticks(axis: Any, names: Sequence[str], limit: int, depth: Array | None = None) -> None:
    """Name every layer, or every n-th and the last."""
    depth = np.arange(1.0, len(names) + 1) if depth is None else depth
    every = math.ceil(len(names) / limit)
    places = list(range(0, len(names), every))
    if places[-1] != len(names) - 1:
        # the output layer is always named
        places = [i for i in places if len(names) - 1 - i >= every / 2] + [len(names) - 1]
    axis.set_ticks([depth[i] for i in places], [names[i] for i in places], fontsize=8)


def _depth_colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps[MAP](share) for share in np.linspace(0, BRIGHTEST, count)]


def _layer_bar(figure: Figure, ax: Axes, names: Sequence[str], colors: list[Any]) -> None:
    """A colour bar with a field per layer."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = np.arange(len(names) + 1) + 0.5
    fields = ScalarMappable(BoundaryNorm(edges, len(names)), ListedColormap(colors))
    bar = figure.colorbar(fields, ax=ax, pad=0.02, aspect=30)
    bar.set_label("layer, from input (below) to output", fontsize=9)
    bar.ax.minorticks_off()
    _layer_ticks(bar.ax.yaxis, names, 16)


def _end_labels(
    ax: Axes,
    steps: Array,
    middle: Array,
    names: Sequence[str],
    colors: list[Any],
    height: float,
) -> None:
    """Name each line at its right end, moved apart where lines end close together."""
    bottom, top = np.log10(ax.get_ylim())
    ends = []
    for i in range(len(names)):
        shown = np.flatnonzero(np.isfinite(_drawable(middle[:, i])))
        if shown.size:
            y = middle[shown[-1], i]
            ends.append(((math.log10(y) - bottom) / (top - bottom), steps[shown[-1]], y, i))
    ends.sort(key=lambda end: end[0])
    gap = 0.155 / (height - 1.4)  # one line of text, as a share of the axis
    places: list[float] = []
    for end in ends:
        places.append(max(end[0], places[-1] + gap) if places else max(end[0], 0.0))
    ceiling = 1.0
    for k in reversed(range(len(places))):
        places[k] = min(places[k], ceiling)
        ceiling = places[k] - gap
    for place, (_, x, y, i) in zip(places, ends, strict=True):
        ax.annotate(
            names[i],
            (x, y),
            (1.035, place),
            textcoords="axes fraction",
            color=colors[i],
            fontsize=8.5,
            fontweight="bold",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colors[i],
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )
