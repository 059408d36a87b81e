"""What a trace holds of a quantity, and of which kind the values are that no line can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dp.typing import Array
from gradiometer.quantities import QUANTITIES
from gradiometer.states import State

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def recorded_values(trace: LabelledRun, name: str) -> Array:
    """A quantity's values: ±inf where they are not finite, NaN where they are missing."""
    values = np.array(trace[name].values, dtype=np.float64)
    status = trace.status(name).values
    values[(status == State.NOT_FINITE) & np.isnan(values)] = np.inf
    return values


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
