"""The table of a run's layers, as a report has it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gradiometer.plots.canvas import middle
from gradiometer.plots.values import recorded_values
from gradiometer.plots.words import printable, shortened
from gradiometer.quantities import GRADIENTS, QUANTITIES

if TYPE_CHECKING:
    from gradiometer.diagnosis import Diagnosis
    from gradiometer.trace import Trace

MOST_ROWS = 400  # of a deeper net, layers in the middle are left out
MOST_LETTERS = 80  # of a name
MISSING = "–"
SHARES = ("dead_fraction", "saturated_fraction")
SHORT = {
    "delta_rms": "delta rms",
    "update_ratio": "update / weight",
    "dead_fraction": "dead units",
    "saturated_fraction": "saturated",
}


def columns(trace: Trace) -> list[tuple[str, str, int]]:
    """Which columns there are: heading, quantity, and position of the step."""
    gradient = next((name for name in GRADIENTS if name in trace.dataset), None)
    steps = trace.dataset["step"].values
    if not len(steps):
        return []
    wanted = [("delta_rms", 0), ("delta_rms", -1)]
    wanted += [] if gradient is None else [(gradient, 0), (gradient, -1)]
    wanted += [("update_ratio", -1), ("dead_fraction", -1), ("saturated_fraction", -1)]
    return [
        (f"{SHORT.get(name, QUANTITIES[name].label)}, step {steps[at]}", name, at)
        for name, at in wanted
        if name in trace.dataset and not (at == -1 and len(steps) == 1 and (name, 0) in wanted)
    ]


def rows(trace: Trace, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """A row per layer, in the order of the forward pass; of very deep nets both ends.

    Returns
    -------
    list of dicts
        `depth` (from 1), `layer`, `activation` ("" if not known), `kinds` (what the diagnosis says
        of this layer), `cells` (one for each of `columns`), and `left_out`: how many layers before
        this one are left out.
    """
    shown = [
        (name, middle(trace, recorded_values(trace, name)[step]))
        for _, name, step in columns(trace)
    ]
    names = trace.layers
    half = MOST_ROWS // 2
    places = [*range(len(names))]
    if len(places) > MOST_ROWS:
        places = places[:half] + places[-half:]
    found, before = [], -1
    for at in places:
        found.append(
            {
                "depth": at + 1,
                "layer": shortened(printable(names[at]), MOST_LETTERS),
                "activation": _activation(trace, at),
                "kinds": [*dict.fromkeys(str(v.kind) for v in diagnosis if v.layer == names[at])],
                "cells": [_cell(name, float(values[at])) for name, values in shown],
                "left_out": at - before - 1,
            }
        )
        before = at
    return found


def _activation(trace: Trace, at: int) -> str:
    dataset = trace.dataset
    return str(dataset["activation"].values[at]) if "activation" in dataset.coords else ""


def _cell(name: str, value: float) -> str:
    """A number in words: infinite where it is not finite, NaN where it is missing."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "not finite"
    return f"{100 * value:.0f} %" if name in SHARES else f"{value:.2e}".replace("e-", "e−")
