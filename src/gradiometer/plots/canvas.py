"""What the figures are drawn on and with: the canvas, the colours, lines and bands."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dp.typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledRun


# Okabe & Ito 2008 and, from the sixth on, Tol 2021: told apart by colour-blind readers. In print
# the markers help.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = (
    BLUE, ORANGE, GREEN, "#E69F00", "#CC79A7",
    "#56B4E9", "#882255", "#F0E442", "#332288", "#661100",
)  # fmt: skip
MARKERS = "osD^vP*Xhd"
# what a log axis can show: at the ends of float64 the positions of ticks overflow, or are lost
SMALLEST, LARGEST = 1e-290, 1e290
DEPTH_MAP = "viridis"  # its lightness rises evenly, so it reads in grey


@contextlib.contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Draw boxes for letters that the font lacks, without a warning for each of them.

    A layer's name may be in any script; a font that has it is the reader's to choose, by
    `matplotlib.rcParams["font.family"]`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")
        yield


class _Figure(Figure):
    """Shows itself in a notebook, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        with without_glyph_warnings():
            self.savefig(png, format="png", dpi=self.dpi)
        return png.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, sized in inches."""
    figure = _Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def depth_colours(count: int) -> Any:
    """One colour per layer, dark at the input; (count, 4)."""
    # the palest end of the map would vanish on paper
    return matplotlib.colormaps[DEPTH_MAP](np.linspace(0.0, 0.9, count))


# --- values ---------------------------------------------------------------------------------------


def finite(values: Array) -> Array:
    """The values, NaN where they are not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def positive(values: Array) -> Array:
    """The values, NaN where they are not finite or not above 0."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def loggable(values: Array) -> Array:
    """The values, NaN where a log axis cannot show them."""
    return np.where((values >= SMALLEST) & (values <= LARGEST), values, np.nan)


def middle(trace: LabelledRun, values: Array) -> Array:
    """The median over an ensemble's members, the last axis; else the values themselves.

    A member that is not finite counts as larger than all others, so the median is not finite where
    half of them are not. A missing one (NaN) does not count.
    """
    # not as a quantile: between two that are infinite that is NaN
    return _over_members(values, np.median, np.nanmedian) if trace.ensemble else values


def band(values: Array) -> tuple[Array, Array]:
    """The 10th and the 90th percentile over the last axis; NaN where they are not finite."""
    low, high = _over_members(values, np.quantile, np.nanquantile, q=[0.1, 0.9])
    return finite(low), finite(high)


def _over_members(
    values: Array, of_all: Callable[..., Any], of_some: Callable[..., Any], **options: Any
) -> Array:
    """Reduce the last axis to what holds of the values that were recorded; NaN where none was."""
    values = np.where(np.isneginf(values), np.inf, values)
    absent = np.isnan(values)
    never = np.asarray(absent.all(axis=-1))
    # only where members differ in what was recorded: it is much slower
    reduce = of_some if (absent.any(axis=-1) & ~never).any() else of_all
    with np.errstate(all="ignore"):
        found = reduce(np.where(never[..., None], 0.0, values), axis=-1, **options)
    return np.where(never, np.nan, found)


# --- lines ----------------------------------------------------------------------------------------


def draw_line(axes: Axes, x: Array, values: Array, **style: Any) -> None:
    """A line with gaps where values are NaN; a point between two gaps is a dot."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    if len(alone) and "marker" not in style:
        style |= {"marker": "o", "ms": 4, "markevery": alone.tolist()}
    axes.plot(x, values, **style)


def draw_band(
    axes: Axes, x: Array, values: Array, colour: Any, alpha: float, *, log: bool = False
) -> None:
    """The band from the 10th to the 90th percentile; `log` lets it reach down to a zero."""
    low, high = band(values)
    if log:
        tiny = np.finfo(np.float64).tiny
        low, high = np.fmax(low, tiny), np.where(high > 0, high, np.nan)
    axes.fill_between(x, low, high, color=colour, alpha=alpha, lw=0, gid="band")
