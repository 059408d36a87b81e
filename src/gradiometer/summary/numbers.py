"""What a trace says in numbers: a table of its layers, and by how much a quantity falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dp.typing import Array
from gradiometer.quantities import DELTA, GRADIENTS
from gradiometer.states import Mask, mask_name, mask_of

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def layer_table(trace: LabelledRun) -> list[dict[str, Any]]:
    """One row per layer: its gradient at the first and last step, delta, dead and saturated share.

    Returns
    -------
    list of dicts
        `layer` (name), `depth` (from 1), and, as medians over the members of an ensemble: `first`
        and `last`, mean |dL/dW| at the first and last step; `delta`, its rms at the first step;
        `dead` and `saturated`, shares at the last step. None is what is missing; NaN, or an
        infinity, what is not finite.
    """
    rows = []
    for i, name in enumerate(trace.layers):
        row: dict[str, Any] = {"layer": str(name), "depth": i + 1}
        for key, quantity, step in (
            ("first", "grad_mean_abs", 0),
            ("last", "grad_mean_abs", -1),
            ("delta", "delta_rms", 0),
            ("dead", "dead_fraction", -1),
            ("saturated", "saturated_fraction", -1),
        ):
            row[key] = median(trace, quantity, step, i)
        rows.append(row)
    return rows


def median(trace: LabelledRun, quantity: str, step: int, layer: int) -> float | None:
    """Of a quantity's numbers over members; None if it is missing in all, or was not recorded.

    Parameters
    ----------
    trace : Trace
    quantity : str
    step, layer : int
        Positions.
    """
    if quantity not in trace.dataset:
        return None
    values, missing = trace[quantity].values[step, layer], mask_of(quantity, trace.dataset)
    if missing is not None:
        values = np.atleast_1d(values)[~np.atleast_1d(missing[step, layer])]
    return float(np.median(values)) if np.size(values) else None


def decades_lost(
    trace: LabelledRun,
    quantity: str = "grad_mean_abs",
    step: int = 0,
    layers: tuple[int, int] = (0, -1),
) -> float:
    """Decades by which a quantity falls from the output layer to the first, at a step.

    Parameters
    ----------
    trace : Trace
    quantity : str
        A quantity per layer, such as "delta_rms".
    step : int
        Position among the recorded steps.
    layers : (int, int)
        Positions of the first and of the last layer that are compared.

    Returns
    -------
    float
        The median over members is taken first, then `decades`; NaN if either is missing.

    Raises
    ------
    KeyError
        If the quantity was not recorded.
    """
    trace[quantity]  # raises a KeyError that says what there is
    first, output = (median(trace, quantity, step, layer) for layer in layers)
    return float("nan") if first is None or output is None else float(decades(first, output))


def decades(first: Array | float, output: Array | float) -> Array:
    """By how many decades sizes fall from the output layer to the first, entry by entry.

    Infinite where only the first layer's is exactly zero, minus infinite where only the output
    layer's is; NaN where both are, and where one is not finite.
    """
    with np.errstate(all="ignore"):
        found = np.log10(output) - np.log10(first)  # their quotient may overflow
    return np.where(np.isfinite(first) & np.isfinite(output), found, np.nan)


class Recorded(Protocol):
    """Quantities by name: a dict of arrays, a dataset, or an open file."""

    def __contains__(self, name: object, /) -> bool: ...
    def __getitem__(self, name: str, /) -> Any: ...


def diverged_members(recorded: Recorded) -> Mask:
    """Which members have a loss, gradient or delta that is not finite, at any step.

    Parameters
    ----------
    recorded : Recorded
        Quantities as array-likes (steps[, layers], members), as in a trace.

    Returns
    -------
    boolean array (members,)
    """
    found = []
    if "nonfinite_count" in recorded:
        found.append(np.asarray(recorded["nonfinite_count"][:]).any(axis=(0, 1)))
    for name in ("loss", *GRADIENTS, DELTA):
        if name not in recorded:
            continue
        spoilt = ~np.isfinite(np.asarray(recorded[name][:]))
        if mask_name(name) in recorded:
            spoilt &= ~np.asarray(recorded[mask_name(name)][:], bool)
        found.append(spoilt.reshape(-1, spoilt.shape[-1]).any(axis=0))
    return np.asarray(np.any(found, axis=0))
