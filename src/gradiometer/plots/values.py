"""What a trace holds of a quantity, and of which kind the values are that no line can show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradiometer.plots.canvas import Array
from gradiometer.quantities import QUANTITIES

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def recorded_values(trace: LabelledRun, name: str) -> Array:
    """A quantity's values: ±inf where they are not finite, NaN where they were not recorded.

    A trace has NaN for both. NaN of a layer was not recorded where none of the layer's entries is
    counted in `nonfinite_count`, or where `missing` gives a reason and no count contradicts it. The
    loss and the accuracy cannot be NaN before the first step that is not finite.
    """
    variable = trace[name]
    values = np.array(variable.values, dtype=np.float64)
    unknown = np.isnan(values)
    if unknown.any():
        absent = _absent_of_layers if "layer" in variable.dims else _absent_of_steps
        values[unknown & ~absent(trace, name, unknown)] = np.inf
    return values


def _absent_of_layers(trace: LabelledRun, name: str, unknown: Array) -> Array:
    reasons = _reasons(trace)
    explained = np.array([name in reasons.get(layer, {}) for layer in trace.layers])
    explained = explained.reshape(1, -1, *[1] * (unknown.ndim - 2))
    if "nonfinite_count" not in trace.dataset:
        return np.broadcast_to(explained, unknown.shape)
    count = trace["nonfinite_count"].values
    # a layer of which the quantity can never be had may still diverge, and be counted
    never = unknown.all(axis=0, keepdims=True)
    return np.asarray((count == 0) | (explained & (np.isnan(count) | never)))


def _absent_of_steps(trace: LabelledRun, name: str, unknown: Array) -> Array:
    if unknown.all() and any(name in reasons for reasons in _reasons(trace).values()):
        return unknown
    if "nonfinite_step" not in trace.attrs:
        return unknown
    before = trace.dataset["step"].values < int(trace.attrs["nonfinite_step"])
    return np.broadcast_to(before.reshape(-1, *[1] * (unknown.ndim - 1)), unknown.shape)


def _reasons(trace: LabelledRun) -> dict[str, dict[str, Any]]:
    """Layer -> quantity -> why it is missing."""
    found: dict[str, dict[str, Any]] = json.loads(trace.attrs.get("missing", "{}"))
    return found


# --- which quantities there are -------------------------------------------------------------------


def quantities_of(trace: LabelledRun, *choices: Sequence[str]) -> list[tuple[str, str]]:
    """Of each choice the first quantity that was recorded, and its label.

    Raises
    ------
    ValueError
        If there is none of any choice.
    """
    chosen = []
    for choice in choices:
        chosen += [name for name in choice if name in trace.dataset][:1]
    if not chosen:
        wanted = [choice[0] for choice in choices]
        raise not_recorded(" and no ".join(QUANTITIES[name].label for name in wanted), *wanted)
    return [(name, QUANTITIES[name].label) for name in chosen]


def not_recorded(what: str, *names: str) -> ValueError:
    """The error that says so, and how to record it."""
    return ValueError(
        f"this trace has no {what}; record it with "
        f"quantities=[…, {', '.join(repr(name) for name in names)}]"
    )
