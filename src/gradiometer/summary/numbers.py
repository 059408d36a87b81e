"""What a trace says in numbers: a table of its layers, and by how much a quantity falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def layer_table(trace: LabelledRun) -> list[dict[str, Any]]:
    """One row per layer: its gradient at the first and last step, delta, dead and saturated share.

    Returns
    -------
    list of dicts
        `layer` (name), `depth` (from 1), and, as medians over the members of an ensemble: `first`
        and `last`, mean |dL/dW| at the first and last step; `delta`, its rms at the first step;
        `dead` and `saturated`, shares at the last step, NaN where a layer is not finite. What was
        not recorded is NaN too.
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
            known = quantity in trace.dataset
            row[key] = float(np.median(trace[quantity].values[step, i])) if known else np.nan
        rows.append(row)
    return rows


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
        The median over members is taken first. Infinite if the first layer's is exactly zero;
        negative if it grows; NaN if either is not finite.
    """
    values = trace[quantity].values[step]
    first, output = (float(np.median(values[i])) for i in layers)
    with np.errstate(all="ignore"):
        if not np.isfinite([first, output]).all():
            return float("nan")
        return float(np.log10(np.divide(output, first)))
