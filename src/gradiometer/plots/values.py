"""What a trace holds of a quantity, and of which kind the values are that no line can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradiometer.plots.canvas import Array
from gradiometer.states import State

if TYPE_CHECKING:
    from gradiometer.trace import Trace

# the first that a trace has stands for the gradient
GRADIENTS = {"grad_mean_abs": "mean |dL/dW|", "grad_rms": "rms of dL/dW"}
DELTA = {"delta_rms": "rms of the delta"}


def recorded_values(trace: Trace, name: str) -> Array:
    """A quantity's values: ±inf where they are not finite, NaN where they are missing."""
    values = np.array(trace[name].values, dtype=np.float64)
    status = trace.status(name).values
    values[(status == State.NOT_FINITE) & np.isnan(values)] = np.inf
    return values


# --- which quantities there are -------------------------------------------------------------------


def quantities_of(trace: Trace, *choices: dict[str, str]) -> list[tuple[str, str]]:
    """Of each choice the first quantity that was recorded, and its label.

    Raises
    ------
    ValueError
        If there is none of any choice.
    """
    chosen = []
    for choice in choices:
        there = [(name, label) for name, label in choice.items() if name in trace.dataset]
        chosen += there[:1]
    if not chosen:
        wanted = [next(iter(choice.items())) for choice in choices]
        raise not_recorded(
            " and no ".join(label for _, label in wanted), *(name for name, _ in wanted)
        )
    return chosen


def not_recorded(what: str, *names: str) -> ValueError:
    """The error that says so, and how to record it."""
    return ValueError(
        f"this trace has no {what}; record it with "
        f"quantities=[…, {', '.join(repr(name) for name in names)}]"
    )
