"""The figures of a run's report, each with what it shows in words, or why it is not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradiometer.decomposition import NEEDED, decompose, next_layers
from gradiometer.plots import heatmap, learning, waterfall
from gradiometer.plots.canvas import middle
from gradiometer.plots.values import recorded_values
from gradiometer.plots.words import printable, shortened
from gradiometer.quantities import DELTA, GRADIENTS
from gradiometer.summary import decades_lost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace

OF_GRADIENTS = ("grad_rms", "input_rms", "rows")  # of what is needed, not for the delta


@dataclass(frozen=True)
class Shown:
    """A figure, and what belongs to it.

    Attributes
    ----------
    title : str
        Its heading.
    figure : Figure or None
        None if it cannot be drawn.
    alt : str
        What kind of picture it is, for those who do not see it.
    words : str
        What it shows; or why there is none.
    """

    title: str
    figure: Figure | None
    alt: str
    words: str


def figures(trace: Trace, theory: Prediction | None, why_no_theory: str) -> Iterator[Shown]:
    """The figures of a run: depth × step, the waterfall, the learning curve; none of no step."""
    if not trace.dataset.sizes["step"]:
        return
    yield _shown(
        "Where the gradient goes",
        lambda: heatmap(trace, theory=theory),
        "Heatmaps of depth × step, the input below",
        lambda: f"{_falls(trace)} {why_no_theory}",
    )
    yield _shown(
        "What makes the delta smaller",
        lambda: _waterfall(trace),
        "Bars from the output layer to the first, one for each term of the delta's gain",
        lambda: _terms(trace),
    )
    yield _shown(
        "Does it learn?", lambda: learning(trace), "Curves over steps", lambda: _course(trace)
    )


def _shown(title: str, draw: Callable[[], Figure], alt: str, words: Callable[[], str]) -> Shown:
    try:
        return Shown(title, draw(), alt, words().strip())
    except ValueError as error:  # the figure's own words for what was not recorded
        return Shown(title, None, "", f"Not shown: {error}.")


def _waterfall(trace: Trace) -> Figure:
    if DELTA in trace.dataset and not next_layers(trace):
        raise ValueError("there are no two layers that one delta goes through")
    return waterfall(trace)


# --- in words -------------------------------------------------------------------------------------


def _terms(trace: Trace) -> str:
    """Whether the bars are exact, and which quantities they lack."""
    steps = trace.dataset["step"].values
    parts = decompose(trace, sorted({int(steps[0]), int(steps[-1])}))
    exact = bool(parts["slope"].notnull().any())
    absent = [f'"{name}"' for name in NEEDED if name not in (*trace.quantities, *OF_GRADIENTS)]
    to_add = f"add {', '.join(absent)} to quantities"
    if exact and not absent:
        return "The terms add up to the measured gain exactly."
    if exact:
        return (
            "The terms add up to the measured gain exactly, but some are parts of others. To tell "
            f"them apart, {to_add}."
        )
    if absent:
        return f"The terms are estimates. For exact ones, {to_add}."
    return "The terms are estimates: exact ones cannot be had of this net."


def _falls(trace: Trace) -> str:
    """By how much gradient and delta fall, at the first step and the last."""
    ends = _ends(trace)
    told = []
    for names, words in ((GRADIENTS, "the gradient"), ((DELTA,), "the delta")):
        for name in [name for name in names if name in trace.dataset][:1]:
            first, last = (decades_lost(trace, name, step, ends) for step in (0, -1))
            if math.isfinite(first) and math.isfinite(last):
                begins, ends_with = (_change(fall) for fall in (first, last))
                told.append(f"{words} {begins} at the first step and {ends_with} at the last")
    if not told:
        return ""
    below, above = (shortened(printable(trace.layers[end])) for end in ends)
    return f"From layer {above} to layer {below}, {'; '.join(told)}."


def _change(fall: float) -> str:
    return f"{'falls' if fall >= 0 else 'grows'} by {abs(fall):.1f} decades"


def _ends(trace: Trace) -> tuple[int, int]:
    """First and last layer of the first chain, by position."""
    above = next_layers(trace)
    first = last = min(above, default=0)
    while last in above:
        last = above[last]
    return first, last


def _course(trace: Trace) -> str:
    """Loss and accuracy at both ends."""
    told = []
    for name in ("loss", "accuracy"):
        if name in trace.dataset:
            values = middle(trace, recorded_values(trace, name))[[0, -1]]
            if not np.isnan(values).all():
                shown = ["missing" if np.isnan(value) else f"{value:.3g}" for value in values]
                told.append(f"{name} from {' to '.join(shown)}")
    return f"{' and '.join(told)}.".capitalize() if told else ""
