"""The quantities that are recorded: their names, in words, the arrays they are of, their ranges.

How each is measured stands in `gradiometer.recording.quantities`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Source = Literal["gradient", "delta", "activation", "weights", "everything", "step"]


@dataclass(frozen=True)
class Quantity:
    """What is recorded, one number per step and layer, or per step.

    Attributes
    ----------
    name : str
    of : str
        The array it is measured of: "gradient", "delta", "activation", "weights", or "everything"
        of these; a "step" has it once, not a layer.
    label : str
        What is written beside an axis, and in a legend.
    low, high : float
        The values that it may have.
    whole : bool
        Whether it is a whole number.
    """

    name: str
    of: Source
    label: str
    low: float = -math.inf
    high: float = math.inf
    whole: bool = False


_ALL = (
    Quantity("grad_mean_abs", "gradient", "mean |dL/dW|", low=0),
    Quantity("grad_rms", "gradient", "rms of dL/dW", low=0),
    Quantity("grad_zero_fraction", "gradient", "share of zeros in dL/dW", low=0, high=1),
    Quantity("clip_factor", "gradient", "gradient used over dL/dW", low=0),
    Quantity("delta_rms", "delta", "rms of the delta", low=0),
    Quantity("activation_mean", "activation", "mean of the activation"),
    Quantity("activation_std", "activation", "standard deviation of the activation", low=0),
    Quantity("saturated_fraction", "activation", "saturated share", low=0, high=1),
    Quantity("dead_fraction", "activation", "dead share of the units", low=0, high=1),
    Quantity("weight_rms", "weights", "rms of W", low=0),
    Quantity("update_ratio", "weights", "rms of the change of W over that of W", low=0),
    Quantity("nonfinite_count", "everything", "values that are not finite", low=0, whole=True),
    Quantity("loss", "step", "loss"),
    Quantity("accuracy", "step", "accuracy", low=0, high=1),
)
QUANTITIES: Mapping[str, Quantity] = {quantity.name: quantity for quantity in _ALL}


def of(*sources: Source) -> tuple[str, ...]:
    """Names of the quantities of an array, in order."""
    return tuple(quantity.name for quantity in _ALL if quantity.of in sources)


PER_LAYER = tuple(quantity.name for quantity in _ALL if quantity.of != "step")
PER_STEP = of("step")
GRADIENTS = ("grad_mean_abs", "grad_rms")  # the first that was recorded stands for the gradient
DELTA = "delta_rms"
HISTOGRAM = "grad_log10_histogram"
