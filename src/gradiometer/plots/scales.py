"""Axes that fit what is shown, from 1e-290 to 1e290."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from dp.typing import Array
from gradiometer.plots.canvas import LARGEST, SMALLEST, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HUGE = 1e6  # a linear axis that spans more shows its largest values only
END = 307.0  # of float64, as a power of 10
LOCATABLE = 150.0  # decades; matplotlib places ticks some way beyond wider axes, and overflows


def step_axis(axes: Axes, steps: Array) -> None:
    """Whole numbers on the x axis, and some width to it, if there is a single step."""
    axes.xaxis.set_major_locator(
        MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    )
    if len(steps) == 1:
        axes.set_xlim(steps[0] - 0.5, steps[0] + 0.5)


def log_axis(axes: Axes, *values: Array) -> None:
    """A log y axis for all values, of one decade at least, with room for marks if need be."""
    every = np.concatenate([np.ravel(v) for v in values])
    known = positive(every)
    known = known[np.isfinite(known)]
    # where every value is zero or not finite, there is nothing to scale by
    low, high = (math.log10(f()) for f in (known.min, known.max)) if known.size else (-12.0, 0.0)
    low, high = (min(max(end, math.log10(SMALLEST)), math.log10(LARGEST)) for end in (low, high))
    pad = max(0.04 * (high - low), (1 - (high - low)) / 2)
    low, high = low - pad, high + pad
    if known.size < every.size or (known < SMALLEST).any():
        low -= 0.1 * (high - low)
    low, high = max(low, -END), min(high, END)
    # or the change of scale would pad the data, beyond the largest float
    axes.set_autoscaley_on(False)
    axes.set_yscale("log")
    axes.set_ylim(10.0**low, 10.0**high)
    if high - low > LOCATABLE:
        axes.yaxis.set_major_locator(FixedLocator((10.0 ** _decades(low, high)).tolist()))
        axes.yaxis.set_minor_locator(NullLocator())


def fitting_axis(axes: Axes, *values: Array) -> bool:
    """A linear y axis; or, if the values span too much for it, a log or symlog one.

    Returns
    -------
    bool
        Whether it is a log axis, on which a zero has no place.
    """
    every = np.concatenate([np.ravel(v) for v in values])
    known = every[np.isfinite(every)]
    size = np.abs(known)
    size = size[size >= SMALLEST]
    if not size.size or size.max() / HUGE < size.min():
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useOffset=False)
        return False
    if (known > 0).any() and not (known < 0).any():
        log_axis(axes, every)
        return True
    end = min(math.log10(size.max()) + 1, END)
    # linear between -1 and 1, or where all that is shown is smaller
    inner = min(0.0, end - 2)
    axes.set_autoscaley_on(False)
    axes.set_yscale("symlog", linthresh=10.0**inner)
    axes.set_ylim(-(10.0**end), 10.0**end if (known > 0).any() else 10.0**inner)
    decades = 10.0 ** _decades(inner, end, 4)
    axes.yaxis.set_major_locator(FixedLocator([*(-decades[::-1]).tolist(), 0.0, *decades.tolist()]))
    axes.yaxis.set_minor_locator(NullLocator())
    return False


def _decades(low: float, high: float, most: int = 8) -> Array:
    """Round whole numbers between `low` and `high`, `most` or fewer."""
    ticks = np.asarray(MaxNLocator(most, integer=True).tick_values(low, high))
    return ticks[(low <= ticks) & (ticks <= high)]
