"""Which layers of a trace may be compared: those of one chain, through which one gradient goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from gradiometer.quantities import DELTA, GRADIENTS

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def roles(trace: LabelledRun) -> list[str]:
    """What part each layer has in the training; see `LayerInfo`."""
    if "role" not in trace.dataset:
        return ["trained"] * trace.dataset.sizes["layer"]
    return [str(role) for role in trace.dataset["role"].values]


def gradient_of(trace: LabelledRun) -> str | None:
    """The quantity by which the gradient is told, the first that was recorded."""
    return next((name for name in GRADIENTS if name in trace.dataset), None)


def median(trace: LabelledRun, quantity: str, step: int, layer: int) -> float:
    """Of the members."""
    return float(np.median(trace[quantity].values[step, layer]))


def chains(trace: LabelledRun) -> list[list[int]]:
    """The trained layers of each chain, of which what is compared is known at the first step.

    A chain goes from a layer that has none before it to one that has none after it. What adapters
    saw of that is kept in `attrs["chains"]`; without it all layers are one chain, in their order.
    Compared is the delta; or the gradient, if no delta is known at all. Where no layer is trained,
    but something before them is, such as a prompt, the deltas of the frozen ones are compared.
    """
    part, shown = roles(trace), gradient_of(trace)
    trained = [i for i, role in enumerate(part) if role == "trained"]
    known: list[int] = []
    for quantity in (DELTA, gradient_of(trace)):
        if quantity in trace.dataset and not known:
            known = [i for i in trained if not np.isnan(median(trace, str(quantity), 0, i))]
    if not trained and DELTA in trace.dataset:
        known = [
            i
            for i, role in enumerate(part)
            if role == "frozen"
            and not np.isnan(median(trace, DELTA, 0, i))
            and (shown is None or np.isnan(median(trace, shown, 0, i)))
        ]
    if "chains" in trace.attrs:
        told: list[list[int]] = json.loads(trace.attrs["chains"])
    else:
        told = [list(range(len(part)))]
    found: list[list[int]] = []
    for chain in told:
        mine = [i for i in chain if i in known]
        if mine and mine not in found:
            found.append(mine)
    return found
