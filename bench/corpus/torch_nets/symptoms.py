"""How a fault shows in a net: the kind of a label, where the cause alone does not decide it.

A rate that is too high ends in NaN, in dead units, in saturated ones or in none of these, as the
activation function and the weights have it. The cause of such a label is known from how the net was
built, and verified by its twin; the kind is measured, by the criteria below, and kept in
`shown.json`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from gradiometer.trace import Trace

SHOWN = Path(__file__).with_name("shown.json")
DEAD = 0.95  # share of the units of a hidden layer, at the last step
SATURATED = 0.8
WITH_ENDS = ("tanh", "sigmoid")  # whose units saturate; the zeros of a ReLU are none


@functools.cache
def shown() -> dict[str, str]:
    """Name of a case to how it was seen to show."""
    found: dict[str, str] = json.loads(SHOWN.read_text(encoding="utf-8"))
    return found


def symptom(trace: Trace) -> str:
    """Tell how a fault shows: "non-finite", "dead", "saturated", or "" for none of these."""
    if np.nansum(trace["nonfinite_count"].values) or not np.isfinite(trace["loss"].values).all():
        return "non-finite"
    hidden = trace["layer"].values != "out"
    if (trace["dead_fraction"].values[-1, hidden] >= DEAD).any():
        return "dead"
    hidden &= np.isin(trace["activation"].values, WITH_ENDS)
    if (trace["saturated_fraction"].values[-1, hidden] >= SATURATED).any():
        return "saturated"
    return ""
