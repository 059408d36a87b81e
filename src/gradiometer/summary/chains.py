"""Which layers of a run may be compared: those of one chain, through which one gradient goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gradiometer.quantities import DELTA, GRADIENTS
from gradiometer.summary.numbers import median

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def roles(run: LabelledRun) -> list[str]:
    """What part each layer has in the training; see `LayerInfo`."""
    if "role" not in run.dataset:
        return ["trained"] * run.dataset.sizes["layer"]
    return [str(role) for role in run.dataset["role"].values]


def gradient_of(run: LabelledRun) -> str | None:
    """The quantity by which the gradient is told, the first that was recorded."""
    return next((name for name in GRADIENTS if name in run.dataset), None)


def chains(run: LabelledRun) -> list[list[int]]:
    """The trained layers of each chain, of which what is compared is known at the first step.

    A chain goes from a layer that has none before it to one that has none after it. What adapters
    saw of that is kept in `attrs["chains"]`; without it all layers are one chain, in their order.
    Compared is the delta; or the gradient, if no delta is known at all. Where no layer is trained,
    but something before them is, such as a prompt, the deltas of the frozen ones are compared.
    """
    part = roles(run)
    gradient = gradient_of(run)

    def is_known(quantity: str | None, layer: int) -> bool:
        return quantity is not None and median(run, quantity, 0, layer) is not None

    trained = [i for i, role in enumerate(part) if role == "trained"]
    known: list[int] = []
    for quantity in (DELTA, gradient):
        if not known:
            known = [i for i in trained if is_known(quantity, i)]
    if not trained:
        known = [
            i
            for i, role in enumerate(part)
            if role == "frozen" and is_known(DELTA, i) and not is_known(gradient, i)
        ]
    if "chains" in run.attrs:
        told: list[list[int]] = json.loads(run.attrs["chains"])
    else:
        told = [list(range(len(part)))]
    found: list[list[int]] = []
    for chain in told:
        mine = [i for i in chain if i in known]
        if mine and mine not in found:
            found.append(mine)
    return found
