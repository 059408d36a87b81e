"""The learning rate that fits the updates of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun

USUAL = (
    0.01  # the largest update of a layer, beside its weights, in trainings of a few hundred steps
)
FIRST = 5  # steps: later ones may be of a net that is lost
WITHIN = 3.0  # times; a rate that is so near needs no change


def fitting_factor(run: LabelledRun) -> float | None:
    """The factor on the learning rate at which the largest update is `USUAL` times the weights.

    Parameters
    ----------
    run : LabelledRun
        With `update_ratio`.

    Returns
    -------
    float or None
        With one digit; None if it is not known, or not worth a change.
    """
    if "update_ratio" not in run.dataset:
        return None
    ratios = np.asarray(run["update_ratio"].values[:FIRST], np.float64)
    ratios = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.nan)
    ratios = ratios.reshape(len(ratios), ratios.shape[1], -1)  # step, layer, member
    known = ratios[np.isfinite(ratios)]
    if not known.size:
        return None
    largest = np.nanmax(np.where(np.isfinite(ratios), ratios, -np.inf), axis=1)
    typical = float(np.median(largest[np.isfinite(largest)]))
    factor = USUAL / typical
    if 1 / WITHIN < factor < WITHIN or not 0 < factor < math.inf:
        return None
    digit = 10.0 ** math.floor(math.log10(factor))
    return round(factor / digit) * digit
