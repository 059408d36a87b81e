"""Where the values of a setting lie along x, and which of their labels have room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from dp.typing import Array
from gradiometer.plots.canvas import LARGEST, SMALLEST
from gradiometer.plots.study.axis import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTER = 5.2  # points, of a digit below an axis


def panel_size(axes: Axes) -> tuple[float, float]:
    """About the width and height that a panel will have, in inches."""
    figure = axes.get_figure(root=True)
    spec = axes.get_subplotspec()
    if figure is None or spec is None:
        raise ValueError("not a panel of a figure")
    rows, columns, *_ = spec.get_geometry()
    width, height = figure.get_size_inches()
    return float(0.8 * width / columns - 0.3), float((height - 1.5) / rows - 0.4)


class Places:
    """Where the values of an axis lie along x.

    Numbers are at themselves, None beyond the largest of them; words are at 0, 1, ….
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.numeric = axis.numeric
        known = [value for value in axis.values if value is not None]
        numbers = np.array(known if self.numeric else range(len(axis.values)), float)
        self.log = self.numeric and _is_log(axis.declared.scale, numbers)
        scaled = np.log10(numbers) if self.log else numbers
        width = np.ptp(scaled) or (math.log10(4) if self.log else 1.0)
        if self.numeric and len(known) < len(axis.values):
            beyond = scaled[-1] + max(width / max(len(known) - 1, 1), width / 8)
            scaled = np.append(scaled, beyond)
        self._scaled = scaled
        self.at: Array = 10.0**scaled if self.log else scaled

    @property
    def closest(self) -> float:
        """The least distance between two places, as a share of all of x."""
        gaps = np.diff(self._scaled)
        return float(gaps.min() / (gaps.sum() + 0.1)) if len(gaps) else 1.0

    @property
    def joined(self) -> Array:
        """Which of the places a line joins, (n,)."""
        whole = [self.numeric and value is not None for value in self.axis.values]
        return np.array(whole)

    def draw(self, axes: Axes, *, labels: bool = True) -> None:
        """Ticks at the values, as many as have room, and limits."""
        width = np.ptp(self._scaled)
        pad = 0.06 * width if width and self.numeric else 0.5
        if self.log and not width:
            pad = math.log10(2)
        low, high = self._scaled[0] - pad, self._scaled[-1] + pad
        if self.log:
            axes.set_autoscalex_on(False)
            axes.set_xscale("log")
            ends = math.log10(SMALLEST), math.log10(LARGEST)
            low, high = 10.0 ** max(low, ends[0]), 10.0 ** min(high, ends[1])
        axes.set_xlim(low, high)
        axes.xaxis.set_minor_locator(NullLocator())
        texts = [self.axis.label(value) for value in self.axis.values]
        axes.xaxis.set_major_locator(FixedLocator(self.at.tolist()))
        if labels:
            axes.set_xlabel(self.axis.title, fontsize=9)
        self._label(axes, texts)

    def _label(self, axes: Axes, texts: list[str]) -> None:
        points = 72 * panel_size(axes)[0]
        share = (self._scaled - self._scaled[0]) / (np.ptp(self._scaled) or 1.0) * 0.9
        centres = share * points
        halves = np.array([len(text) * LETTER / 2 + 2 for text in texts])
        if not self.numeric:
            room = points / len(texts)
            upright = (2 * halves > room).any()
            axes.xaxis.set_major_formatter(FixedFormatter(texts))
            axes.tick_params(axis="x", labelrotation=90 if upright else 0, labelsize=8)
            return
        kept = [len(texts) - 1]  # the end, then from the start whatever has room
        for i in range(len(texts) - 1):
            if all(abs(centres[i] - centres[k]) >= halves[i] + halves[k] for k in kept):
                kept.append(i)
        axes.xaxis.set_major_formatter(
            FixedFormatter([text if i in kept else "" for i, text in enumerate(texts)])
        )
        axes.tick_params(axis="x", labelsize=8)


def _is_log(scale: str, numbers: Array) -> bool:
    """Whether numbers are better shown on a log axis: where that spaces them more evenly."""
    if scale == "linear" or numbers[0] <= 0:
        return False
    if scale == "log":
        return True
    if len(numbers) < 3:
        return bool(numbers[-1] / numbers[0] > 8)
    gaps = [np.diff(scale) for scale in (numbers, np.log10(numbers))]
    linear, log = (gap.std() / gap.mean() for gap in gaps)
    return bool(log < linear)
