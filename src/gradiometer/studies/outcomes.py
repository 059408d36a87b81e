"""What became of each net of a study, in a few numbers; and medians over seeds with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.quantities import GRADIENTS
from gradiometer.summary import Recorded, decades, diverged_members

if TYPE_CHECKING:
    import pandas as pd


# name -> what it is, with its unit; in the order of tables
OUTCOMES = {
    "accuracy": "accuracy at the last recorded step",
    "final_loss": "loss at the last recorded step",
    "gradient_decades": "decades by which mean |dL/dW| falls from the output layer to layer 1",
    "delta_decades": "decades by which the delta's rms falls from the output layer to layer 1",
    "gradient_slope": "slope of log10 mean |dL/dW| over hidden layers 2, 3, …, decades per layer",
    "delta_slope": "slope of log10 of the delta's rms over them, decades per layer",
    "dead": "share of dead units in the hidden layers at the last recorded step",
    "saturated": "share of saturated units in the hidden layers at the last recorded step",
    "diverged": "whether a loss, gradient or delta was not finite at any step",
}
LEAST = 3  # hidden layers: the first has another fan-in, and a slope takes two
RESAMPLES = 2000


_OF_LAYERS = {"dead": "dead_fraction", "saturated": "saturated_fraction"}


def outcomes(recorded: Recorded, hidden: int, gradient: str | None = None) -> dict[str, Array]:
    """What became of the members of one experiment.

    Parameters
    ----------
    recorded : Recorded
        Quantities as array-likes (steps[, layers], members), as in a Trace.
    hidden : int
        Number of hidden layers; the output layer comes after them.
    gradient : str, optional
        Which of `GRADIENTS` stands for the gradient; the first that was recorded by default.

    Returns
    -------
    dict of str to array (members,)
        Those of `OUTCOMES` that can be told from what was recorded; NaN where a net has no such
        number. Decays and slopes are at the first step: they say what the initial weights do.
        For zeros see `gradiometer.summary.decades`.
    """
    found: dict[str, Array] = {}
    # not "loss", which is a setting too: which loss it is
    for name, quantity in (("accuracy", "accuracy"), ("final_loss", "loss")):
        if quantity in recorded:
            found[name] = np.asarray(recorded[quantity][-1], np.float64)
    if gradient is None:
        gradient = next((name for name in GRADIENTS if name in recorded), None)
    for name, of_layers in (("gradient", gradient), ("delta", "delta_rms")):
        if of_layers is not None and of_layers in recorded:
            first = np.asarray(recorded[of_layers][0], np.float64)
            found[f"{name}_decades"] = decades(first[0], first[-1])
            found[f"{name}_slope"] = slope(first[:hidden])
    for name, quantity in _OF_LAYERS.items():
        if quantity in recorded:
            found[name] = np.asarray(recorded[quantity][-1], np.float64)[:hidden].mean(axis=0)
    found["diverged"] = diverged_members(recorded)
    return {name: found[name] for name in OUTCOMES if name in found}


def slope(values: Array) -> Array:
    """Slope of log10 over the hidden layers from the second, by least squares.

    Parameters
    ----------
    values : array (hidden layers, members)

    Returns
    -------
    array (members,)
        Decades per layer: positive where values shrink towards the input. NaN where a value is zero
        or not finite, and where there are fewer than three hidden layers.
    """
    if len(values) < LEAST:
        return np.full(values.shape[1:], np.nan)
    with np.errstate(all="ignore"):
        logs = np.log10(values[1:])
    known = np.isfinite(logs).all(axis=0)
    return np.where(known, trend(np.where(known, logs, 0.0)), np.nan)


def trend(values: Array) -> Array:
    """Slope over the layers by least squares, per layer: (layers, members) -> (members,)."""
    depth = np.arange(len(values)) - (len(values) - 1) / 2
    return np.asarray(np.tensordot(depth, values, 1) / (depth @ depth))


def median_with_interval(
    values: Array, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """The median over seeds, and its interval by the percentile bootstrap (Efron 1979).

    Parameters
    ----------
    values : array (members,)
        One number per seed; NaNs are left out.
    confidence : float
    resamples : int
    seed : int
        Of the resampling: equal values give equal intervals.

    Returns
    -------
    (median, low, high)
        The median may be infinite. The interval is NaN if there are too few numbers for so much
        confidence (for 95 %, fewer than six), and all are NaN if there is none.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan, np.nan
    median = float(np.median(known))
    # not even from the least of n numbers to the largest does a median lie with more confidence
    if 1 - 2.0 ** (1 - len(known)) < confidence:
        return median, np.nan, np.nan
    drawn = np.random.default_rng(seed).integers(len(known), size=(resamples, len(known)))
    medians = np.median(known[drawn], axis=1)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    # without interpolation, which has no answer between two that are infinite
    low, high = np.quantile(medians, ends, method="inverted_cdf")
    return median, float(low), float(high)


def summarise(table: pd.DataFrame, by: list[str], confidence: float = 0.95) -> pd.DataFrame:
    """Medians over seeds, with their intervals, of each experiment.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per net; see `StudyResults.outcomes`.
    by : list of str
        The columns that tell experiments apart.
    confidence : float
        Of the intervals, 0.95 for 95 %.

    Returns
    -------
    pandas.DataFrame
        A row per experiment, in the order of the table: `by`, `nets` (their number), for each
        outcome its median (under its own name), `…_low` and `…_high`; `diverged` is a share.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    # a key of its own: settings may be None or dicts, by which pandas does not group
    for _, group in table.groupby("experiment", sort=False):
        row: dict[str, Any] = {name: group[name].iloc[0] for name in ["experiment", *by]}
        row["nets"] = len(group)
        for name in OUTCOMES:
            if name not in group:
                continue
            values = group[name].to_numpy(np.float64)
            if name == "diverged":
                row[name] = float(values.mean())
                continue
            middle, low, high = median_with_interval(values, confidence)
            row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    summary = pd.DataFrame(rows)
    for name in by:  # a setting that is None stays so
        summary[name] = pd.Series([row[name] for row in rows], dtype=table[name].dtype)
    return summary
