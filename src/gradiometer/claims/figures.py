"""The figures of claims: values over layers, a value per net, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.claims.estimates import pseudo_median

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[float, str]  # a level, and what it is

WIDE, HIGH = 6.4, 4.3  # inches
MOST_MARKERS = 20  # along a line
DASHES = ((0, (6, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
GREY = "#555555"


def profiles(
    values: Mapping[str, Array],
    label: str,
    *,
    log: bool = True,
    x: str = "hidden layer",
    line: Line | None = None,
) -> Figure:
    """Medians over nets, layer by layer, and the bands from the 10th to the 90th percentile.

    Means instead of medians on a linear axis, where shares are: those of ten units have few values.

    Parameters
    ----------
    values : mapping of str to array (layers, nets)
        A line each.
    label, x : str
        Of the axes.
    log : bool
        Whether the y axis is logarithmic; zeros then have no place and are left out.
    line : (float, str), optional
        A level to compare with.
    """
    from matplotlib.ticker import MaxNLocator

    from gradiometer.plots.canvas import COLOURS, MARKERS

    figure, axes = _empty()
    for (name, each), colour, marker in zip(
        values.items(), cycle(COLOURS), cycle(MARKERS), strict=False
    ):
        layers = np.arange(1, len(each) + 1)
        with np.errstate(invalid="ignore"):
            shown = np.where(np.isfinite(each) & ((each > 0) | (not log)), each, np.nan)
        low, middle, high = _quantiles(shown)
        axes.fill_between(layers, low, high, color=colour, alpha=0.18, lw=0)
        middle = middle if log else _means(shown)
        marked: dict[str, Any] = {"marker": marker, "ms": 4} if len(each) <= MOST_MARKERS else {}
        axes.plot(layers, middle, color=colour, lw=1.3, label=name, **marked)
    if log:
        axes.set_yscale("log")
    else:
        _room_above_zero(axes)
    _level(axes, line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    middles = "medians" if log else "means"
    axes.set_xlabel(f"{x} ({middles}; bands: 10th to 90th percentile of the nets)", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    _legend(axes, len(values) + (line is not None))
    return figure


def _quantiles(values: Array) -> Array:
    """10th, 50th and 90th percentile over nets; NaN where no net has a number; (3, layers)."""
    found = np.full((3, len(values)), np.nan)
    for i, row in enumerate(values):
        known = row[~np.isnan(row)]
        if len(known):
            found[:, i] = np.quantile(known, [0.1, 0.5, 0.9])
    return found


def _means(values: Array) -> Array:
    """Over nets, of those that have a number: (layers,)."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def strips(
    values: Mapping[str, Array],
    label: str,
    *,
    log: bool = False,
    lines: Sequence[Line] = (),
    band: tuple[float, float, str] | None = None,
) -> Figure:
    """A dot for each net, group by group, with the pseudo-median and its 95 % interval.

    Parameters
    ----------
    values : mapping of str to array (nets,)
        A column each.
    label : str
        Of the y axis.
    log : bool
    lines : sequence of (float, str)
        Levels to compare with.
    band : (low, high, str), optional
        A region to compare with, and what it is.
    """
    from gradiometer.plots.canvas import COLOURS

    figure, axes = _empty()
    rng = np.random.default_rng(0)
    if band:
        axes.axhspan(band[0], band[1], color="#000000", alpha=0.08, lw=0, label=band[2])
    for at, ((_, each), colour) in enumerate(zip(values.items(), cycle(COLOURS), strict=False)):
        shown = each[np.isfinite(each) & ((each > 0) | (not log))]
        axes.plot(
            at + rng.uniform(-0.2, 0.2, len(shown)), shown, ".", color=colour, ms=5, alpha=0.45,
            mec="none",
        )  # fmt: skip
        middle, low, high = pseudo_median(shown)
        axes.plot([at + 0.32] * 2, [low, high], color=colour, lw=2)
        axes.plot(at + 0.32, middle, "D", color=colour, mec="black", mew=0.6, ms=5)
    axes.plot(
        [], [], "D", color="white", mec="black", mew=0.6, ms=5, label="pseudo-median, 95 % interval"
    )
    for line, dashes in zip(lines, cycle(DASHES), strict=False):
        _level(axes, line, dashes)
    if log:
        axes.set_yscale("log")
    axes.set_xticks(range(len(values)), [*values], fontsize=9)
    axes.set_xlim(-0.5, len(values) - 0.3)
    axes.set_ylabel(label, fontsize=9)
    _legend(axes, 2)
    return figure


def shares(values: Mapping[str, tuple[int, int]], label: str, line: Line | None = None) -> Figure:
    """Shares of nets, from (count, of how many), with their Clopper–Pearson intervals."""
    from gradiometer.claims.statistics import clopper_pearson
    from gradiometer.plots.canvas import COLOURS

    figure, axes = _empty()
    for at, ((count, n), colour) in enumerate(zip(values.values(), cycle(COLOURS), strict=False)):
        share = count / n
        low, high = clopper_pearson(count, n)
        axes.bar(at, share, color=colour, width=0.55, alpha=0.75)
        axes.errorbar(at, share, [[share - low], [high - share]], color="black", lw=1.2, capsize=4)
        axes.annotate(
            f"{count} of {n}", (at, high), (0, 3), textcoords="offset points", ha="center",
            va="bottom", fontsize=8,
        )  # fmt: skip
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticks(range(len(values)), [*values], fontsize=9)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylabel(label, fontsize=9)
    _level(axes, line)
    _legend(axes, int(line is not None))
    return figure


def curves(
    x: Array,
    values: Mapping[str, Array],
    labels: tuple[str, str],
    lines: Sequence[Line] = (),
    *,
    log: bool = False,
) -> Figure:
    """Functions of one variable; gaps where they are not defined (NaN)."""
    from gradiometer.plots.canvas import COLOURS

    figure, axes = _empty()
    for (name, each), colour, style in zip(
        values.items(), cycle(COLOURS), cycle(("-", "--", "-.", ":")), strict=False
    ):
        axes.plot(x, each, color=colour, ls=style, lw=1.6, label=name)
    for line in lines:
        _level(axes, line)
    if log:
        axes.set_yscale("log")
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    _legend(axes, len(values) + len(lines))
    return figure


def scatter(
    values: Mapping[str, tuple[Array, Array]], labels: tuple[str, str], diagonal: str
) -> Figure:
    """One quantity against another, with the line on which both are equal."""
    from gradiometer.plots.canvas import COLOURS, MARKERS

    figure, axes = _empty()
    end = 0.0
    for (name, (x, y)), colour, marker in zip(
        values.items(), cycle(COLOURS), cycle(MARKERS), strict=False
    ):
        known = np.isfinite(x) & np.isfinite(y)
        axes.plot(x[known], y[known], marker, color=colour, ms=3, alpha=0.4, mec="none", label=name)
        for each in (x[known], y[known]):
            if len(each):
                end = max(end, float(each.max()))
    axes.plot([0, end], [0, end], color="black", lw=1, label=diagonal)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    _legend(axes, 2)
    return figure


def _empty() -> tuple[Figure, Axes]:
    from gradiometer.plots.canvas import new_figure

    figure = new_figure(WIDE, HIGH)
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    return figure, axes


def _level(axes: Axes, line: Line | None, dashes: Any = DASHES[0]) -> None:
    if line is not None:
        axes.axhline(line[0], color=GREY, lw=1.2, ls=dashes, label=line[1])


def _room_above_zero(axes: Axes) -> None:
    low, high = axes.get_ylim()
    if low >= -0.05 * high:
        axes.set_ylim(bottom=-0.03 * high)


def _legend(axes: Axes, entries: int) -> None:
    if entries > 0:
        axes.figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
        )
