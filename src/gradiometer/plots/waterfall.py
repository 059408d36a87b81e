"""Where the delta shrinks: from the output to the first layer, a bar for each term of its gain."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dp.typing import Array
from gradiometer.decomposition import ESTIMATES, GAIN, TERMS, decompose, next_layers
from gradiometer.plots.canvas import band, loggable, middle, new_figure
from gradiometer.plots.marks import draw_marks, lower_legend, mark_handles
from gradiometer.plots.scales import log_axis
from gradiometer.plots.titles import set_title
from gradiometer.plots.values import not_recorded, recorded_values
from gradiometer.plots.words import escaped, plain, printable
from gradiometer.quantities import DELTA
from gradiometer.states import reason_for, reasons_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledRun

MOST_COLUMNS = 20  # of a deeper net, each column has the terms of several layers together
# Okabe & Ito 2008, and hatches for print: (colour, hatch)
_STYLES = {
    "weight": ("#0072B2", ""),
    "skip": ("#E69F00", "///"),
    "dead": ("#333333", ""),
    "slope": ("#D55E00", "\\\\\\"),
    "normalisation": ("#009E73", "..."),
    "estimated_weight": ("#0072B2", ""),
    "estimated_rest": ("#CCCCCC", "///"),
}
_WORDS = {
    "weight": "weights",
    "skip": "skips, or others between layers",
    "dead": "dead units",
    "slope": "slope of live units",
    "normalisation": "normalisations",
    "estimated_weight": "weights (estimated)",
    "estimated_rest": "all the rest: slope, dead units … (estimated)",
}
_NEGLIGIBLE = 1e-6  # decades: what a term may have by rounding
LEGEND_WIDTH = 50  # letters
RANGE = "medians and 10–90 % of {} nets"


def waterfall(trace: LabelledRun, step: int | None = None, *, ax: Axes | None = None) -> Figure:
    """The delta from the output layer to the first, and what makes it smaller or larger.

    Each bar is a term of the gain from one layer to the next (see `decompose`), from where the
    delta was to where the term takes it, on a log axis; the dots are the measured delta. The legend
    has each term's sum over all layers, in decades. Deep nets have several layers in a column:
    their terms are added up. Of an ensemble the medians are drawn, and a line from the 10th to the
    90th percentile of the measured delta. Where the quantities of an exact decomposition were not
    recorded, bars are an estimate, and the legend says so.

    Parameters
    ----------
    trace : Trace
    step : int, optional
        A recorded step; by default the last at which the deltas of all layers are finite and not
        zero, or else the last.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default, a new figure.

    Raises
    ------
    ValueError
        If the delta was not recorded, or not at that step.
    """
    if DELTA not in trace.dataset:
        raise not_recorded("rms of the delta", DELTA)
    chain = _longest_chain(trace)
    step = _shown_step(trace, chain) if step is None else step
    steps = trace.dataset["step"].values.tolist()
    if step not in steps:
        raise ValueError(f"step {step!r} was not recorded; there are {steps[0]} to {steps[-1]}")
    fall = _Fall.of(trace, chain, step)
    figure = new_figure(max(6.5, min(11.0, 2.5 + 0.55 * len(fall.names))), 5.0)
    axes = figure.subplots() if ax is None else ax
    _draw(axes, trace, fall)
    handles = _handles(fall)
    text = f"Where the delta shrinks, from the output to the first layer: step {step}"
    if len(chain) < len(trace.layers):
        text += f", {len(chain)} of {len(trace.layers)} layers"
    if ax is None:
        handles += mark_handles(figure, ensemble=trace.ensemble)
        lower_legend(figure, handles, columns=3 if len(handles) < 4 else 2)
        set_title(figure, trace, text, RANGE)
        return figure
    axes.legend(handles=handles, fontsize=8)
    axes.set_title(text, fontsize=9)
    found = axes.get_figure(root=True)
    assert isinstance(found, Figure)
    return found


# --- what is shown --------------------------------------------------------------------------------


def _longest_chain(trace: LabelledRun) -> list[int]:
    """The longest chain of layers, from the output to the first."""
    above = next_layers(trace)
    starts = [i for i in range(len(trace.layers)) if i not in above.values()]
    longest: list[int] = []
    for start in starts:
        chain = [start]
        while chain[-1] in above:
            chain.append(above[chain[-1]])
        longest = max(longest, chain, key=len)
    return longest[::-1]


def _shown_step(trace: LabelledRun, chain: Sequence[int]) -> int:
    deltas = np.asarray(trace[DELTA].values)[:, chain]
    usual = (np.isfinite(deltas) & (deltas > 0)).reshape(len(deltas), -1).all(axis=1)
    at = np.flatnonzero(usual)
    steps = trace.dataset["step"].values
    return int(steps[at[-1] if len(at) else -1])


@dataclass(frozen=True)
class _Fall:
    """What is drawn of one step, column by column from the output.

    Attributes
    ----------
    names : list of str
        Of the layers at which the columns end; the first is the output layer.
    measured : array (columns + 1[, members])
        The delta there; infinite or NaN as in `recorded_values`.
    terms : dict of term to array (columns[, members])
        In decades; NaN where they are missing.
    exact : bool
    why_not : str
        Why the first column without bars has none; "" if all have.
    """

    names: list[str]
    measured: Array
    terms: Mapping[str, Array]
    exact: bool
    why_not: str

    @classmethod
    def of(cls, trace: LabelledRun, chain: Sequence[int], step: int) -> _Fall:
        """Of a step, and the layers of a chain from the output."""
        parts = decompose(trace, [step]).isel(step=0)
        exact = bool(parts["slope"].notnull().any())
        below = [*chain[1:]]
        terms = {name: _of_layers(parts, name, below) for name in (TERMS if exact else ESTIMATES)}
        gain = _of_layers(parts, GAIN, below)
        size = -(-len(below) // MOST_COLUMNS) if below else 1
        ends = [*range(0, len(below), size)]
        if exact:  # a term that was not measured is part of another; without any, none is known
            known = np.isfinite(terms["slope"]) & np.isfinite(gain)
            terms = {name: np.where(np.isnan(x), 0.0, x) for name, x in terms.items()}
            terms = {name: np.where(known, x, np.nan) for name, x in terms.items()}
        terms = {
            name: np.stack([x[i : i + size].sum(axis=0) for i in ends]) if ends else x
            for name, x in terms.items()
        }
        shown = [chain[0], *(below[min(i + size, len(below)) - 1] for i in ends)]
        at = trace.dataset["step"].values.tolist().index(step)
        names = [f"{i + 1}: {plain(trace.layers[i])}" for i in shown]
        deltas = recorded_values(trace, DELTA)[at][shown]
        return cls(
            names,
            deltas,
            terms,
            exact,
            _why_not(parts, "slope" if exact else "estimated_rest", below),
        )


def _why_not(parts: xr.Dataset, term: str, layers: Sequence[int]) -> str:
    """Why the first of these layers that lacks a term does."""
    names = [str(name) for name in parts["layer"].values]
    reasons = reasons_of(parts.attrs)
    found = (reason_for(reasons, term, names[i]) for i in layers)
    return next((why for why in found if why), "")


def _of_layers(parts: xr.Dataset, name: str, layers: Sequence[int]) -> Array:
    return np.asarray(parts[name].values)[[*layers]]


# --- drawing --------------------------------------------------------------------------------------


def _draw(axes: Axes, trace: LabelledRun, fall: _Fall) -> None:
    """Bars, the measured delta, marks and labels."""
    x = np.arange(len(fall.names))
    centre = middle(trace, fall.measured)
    shown = [centre, *_draw_bars(axes, trace, fall)]
    if trace.ensemble:
        shown += _draw_range(axes, x, fall.measured)
    axes.plot(
        x, loggable(centre), ls="none", marker="o", ms=4.5, color="black", mfc="white", zorder=4
    )
    draw_marks(axes, x, centre)
    log_axis(axes, *shown)
    many = len(x) > 8
    axes.set_xticks(
        x, fall.names, fontsize=8, rotation=45 if many else 0, ha="right" if many else "center"
    )
    axes.set_xlim(-0.6, len(x) - 0.4)
    axes.set(xlabel="layer, from the output to the input", ylabel="rms of the delta")
    axes.grid(alpha=0.25, axis="y")


def _draw_bars(axes: Axes, trace: LabelledRun, fall: _Fall) -> list[Array]:
    """A bar for each term of each column; gives the levels where they end."""
    drawn = [name for name in fall.terms if _matters(fall.terms[name])]
    with np.errstate(all="ignore"):
        level = np.log10(np.where(fall.measured > 0, fall.measured, np.nan))[:-1]
    width = 0.8 / max(len(drawn), 1)
    ends = []
    x = np.arange(len(level))
    before = middle(trace, level)
    for i, name in enumerate(drawn):
        level = level + fall.terms[name]
        after = middle(trace, level)
        begin, end = (loggable(10.0**each) for each in (before, after))
        colour, hatch = _STYLES[name]
        left = x + 0.1 + i * width
        corners = np.stack([left, begin, left + width, begin, left + width, end, left, end], axis=1)
        bars = PolyCollection(
            [each.reshape(4, 2) for each in corners if np.isfinite(each).all()],
            fc=colour, hatch=hatch, ec="white", lw=0.3, gid=name, zorder=2,
        )  # fmt: skip
        axes.add_collection(bars)
        if i:  # from the end of the one before
            axes.hlines(
                begin, x + 0.1 + (i - 0.5) * width, x + 0.1 + (i + 0.5) * width,
                color="black", lw=0.5, zorder=3,
            )  # fmt: skip
        ends += [end]
        before = after
    return [end[np.isfinite(end)] for end in ends]


def _matters(term: Array) -> bool:
    return bool((np.abs(term[np.isfinite(term)]) > _NEGLIGIBLE).any())


def _draw_range(axes: Axes, x: Array, measured: Array) -> list[Array]:
    """A line from the 10th to the 90th percentile of the measured delta."""
    low, high = (loggable(end) for end in band(measured))
    axes.vlines(x, low, high, color="black", lw=1.2, gid="range", zorder=3)
    return [end[np.isfinite(end)] for end in (low, high)]


def _handles(fall: _Fall) -> list[Artist]:
    """Legend entries: each term, with its sum over all layers."""
    handles: list[Artist] = []
    for name, values in fall.terms.items():
        if not _matters(values):
            continue
        colour, hatch = _STYLES[name]
        sums: Any = np.nansum(values, axis=0)
        total = float(np.median(sums))
        label = f"{_WORDS[name]}: {total:+.2f} decades".replace("-", "−")
        handles.append(Patch(fc=colour, hatch=hatch, ec="white", lw=0.3, label=label))
    if fall.why_not:
        why = textwrap.fill(f"no bars: {printable(fall.why_not)}", LEGEND_WIDTH)
        handles.append(Patch(fc="none", ec="#BBBBBB", label=escaped(why)))
    return handles
