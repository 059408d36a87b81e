"""How a fault shows in a net: the kind of a label, where the cause alone does not decide it.

A rate that is too high ends in NaN, in dead units, in saturated ones or in none of these, as the
activation function and the weights have it. The cause of such a label is known from how the net was
built, and verified by its twin. The kind, and the layers that show it, are measured by the criteria
below, and kept in `shown.json`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradiometer.trace import Trace

SHOWN = Path(__file__).with_name("shown.json")
DEAD = 0.95  # share of the units of a hidden layer, at the last step
SATURATED = 0.8
WITH_ENDS = ("tanh", "sigmoid")  # whose units saturate; the zeros of a ReLU are none


class Symptom(NamedTuple):
    """How a fault shows.

    Attributes
    ----------
    kind : str
        "non-finite", "dead", "saturated", or "" for none of these.
    layers : tuple of str
        The hidden layers whose units are dead or saturated.
    """

    kind: str = ""
    layers: tuple[str, ...] = ()


@functools.cache
def shown() -> dict[str, Symptom]:
    """Name of a case to how it was seen to show."""
    found = json.loads(SHOWN.read_text(encoding="utf-8"))
    return {name: Symptom(kind, tuple(layers)) for name, (kind, *layers) in found.items()}


def symptom(trace: Trace) -> Symptom:
    """Measure how a fault shows."""
    if np.nansum(trace["nonfinite_count"].values) or not np.isfinite(trace["loss"].values).all():
        return Symptom("non-finite")
    hidden = trace["layer"].values != "out"
    dead = hidden & (trace["dead_fraction"].values[-1] >= DEAD)
    if dead.any():
        return Symptom("dead", _named(trace, dead))
    hidden &= np.isin(trace["activation"].values, WITH_ENDS)
    saturated = hidden & (trace["saturated_fraction"].values[-1] >= SATURATED)
    if saturated.any():
        return Symptom("saturated", _named(trace, saturated))
    return Symptom()


def _named(trace: Trace, chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, yes in zip(trace.layers, chosen, strict=True) if yes)
