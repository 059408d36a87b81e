"""Does the net learn? Loss and accuracy over steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from gradiometer.plots.canvas import (
    BLUE,
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

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def learning(trace: LabelledRun) -> Figure:
    """Loss and accuracy over steps; an ensemble's members thin, their median bold.

    The axis of the loss is linear, or a log one if the loss spans more than six decades. Values
    that are not finite are marked at the lower edge. What is missing has no panel.

    Raises
    ------
    ValueError
        If neither was recorded.
    """
    recorded = {
        name: recorded_values(trace, name) for name in ("loss", "accuracy") if name in trace.dataset
    }
    recorded = {name: values for name, values in recorded.items() if not np.isnan(values).all()}
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
