"""The table of quantities: names, in words, the arrays each needs, ranges.

A new quantity of one array (`input`, `pre_activation`, `activation`, `delta` or `gradient`) is one
row here: `by` names the function in `gradiometer.recording.quantities` that it is measured by. One
of another array, or of several, needs lines in `gradiometer.recording.measure` too.

The arrays of a layer, by name:

- `input` (batch, fan_in): what the layer multiplies by its weights
- `pre_activation` (batch, units): h
- `activation` (batch, units): φ(h)
- `saturated` (batch, units): where φ is saturated
- `delta` (batch, units): dL/dh
- `gradient` (fan_in, units): dL/dW
- `used` (fan_in, units): the gradient that the optimiser was given
- `weight`, `weight_after` (fan_in, units): W before and after the update
- `reference_activation` (samples, units): φ(h) on the reference batch
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "rms", "spread"]


@dataclass(frozen=True)
class Quantity:
    """What is recorded, one number per step and layer, or per step.

    Attributes
    ----------
    name : str
    label : str
        What is written beside an axis, and in a legend.
    needs : tuple of str
        The arrays of a layer without any of which it cannot be had.
    looks_at : tuple of str
        The arrays of a layer of which it is measured where they can be had.
    per : str
        "layer", or "step" if it is one number for the whole net.
    low, high : float
        The values that it may have.
    whole : bool
        Whether it is a whole number.
    by : str
        The function that it is measured by, of the entries of the one array that it needs; "" if
        `measure` has lines of its own for it.
    pooling : str
        How it is joined over several calls of a layer in one step: the mean, weighted by size; the
        root of the mean square; or the standard deviation of the union ("spread").
    grows : bool
        Whether it is proportional to the loss: twice the loss, twice the number. Such a quantity is
        divided by the factor of a gradient scaler.
    on_request : bool
        Whether it is recorded only if it is asked for.
    """

    name: str
    label: str
    needs: tuple[str, ...] = ()
    looks_at: tuple[str, ...] = ()
    per: Literal["layer", "step"] = "layer"
    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    by: str = ""
    pooling: Pooling = "mean"
    grows: bool = False
    on_request: bool = False


_ALL = (
    Quantity("grad_mean_abs", "mean |dL/dW|", ("gradient",), low=0, grows=True),
    Quantity("grad_rms", "rms of dL/dW", ("gradient",), low=0, grows=True),
    Quantity("grad_zero_fraction", "share of zeros in dL/dW", ("gradient",), low=0, high=1),
    Quantity("clip_factor", "gradient used over dL/dW", ("gradient", "used"), low=0),
    Quantity("delta_rms", "rms of the delta", ("delta",), low=0, pooling="rms", grows=True),
    Quantity("activation_mean", "mean of the activation", ("activation",)),
    Quantity(
        "activation_std", "standard deviation of the activation", ("activation",), low=0,
        pooling="spread",
    ),
    Quantity("saturated_fraction", "saturated share", ("activation", "saturated"), low=0, high=1),
    Quantity("dead_fraction", "dead share of the units", ("reference_activation",), low=0, high=1),
    Quantity("weight_rms", "rms of W", ("weight",), low=0),
    Quantity(
        "update_ratio", "rms of the change of W over that of W", ("weight", "weight_after"), low=0
    ),
    Quantity(
        "nonfinite_count", "values that are not finite", low=0, whole=True,
        looks_at=("activation", "delta", "gradient", "weight_after"),
    ),
    Quantity(
        "input_rms", "rms of the input", ("input",), low=0, by="rms", pooling="rms",
        on_request=True,
    ),
    Quantity(
        "preactivation_mean", "mean of the pre-activation", ("pre_activation",), by="mean",
        on_request=True,
    ),
    Quantity(
        "backward_rms", "rms of W^T delta", ("delta", "weight"), low=0, pooling="rms",
        grows=True, on_request=True,
    ),
    Quantity(
        "backward_live_rms", "rms of W^T delta at live units", ("delta", "weight", "input"), low=0,
        pooling="rms", grows=True, on_request=True,
    ),
    Quantity("loss", "loss", per="step", grows=True),
    Quantity("accuracy", "accuracy", per="step", low=0, high=1),
    # of all parameters together, biases too, before it is clipped
    Quantity(
        "grad_norm", "norm of the whole gradient", per="step", low=0, grows=True, on_request=True
    ),
)  # fmt: skip
QUANTITIES: Mapping[str, Quantity] = {quantity.name: quantity for quantity in _ALL}
OF_LAYERS = tuple(quantity.name for quantity in _ALL if quantity.per == "layer")
OF_STEPS = tuple(quantity.name for quantity in _ALL if quantity.per == "step")

# recorded by default
PER_LAYER = tuple(name for name in OF_LAYERS if not QUANTITIES[name].on_request)
PER_STEP = tuple(name for name in OF_STEPS if not QUANTITIES[name].on_request)
ON_REQUEST = tuple(quantity.name for quantity in _ALL if quantity.on_request)

GRADIENTS = ("grad_mean_abs", "grad_rms")  # the first that was recorded stands for the gradient
DELTA = "delta_rms"
HISTOGRAM = "grad_log10_histogram"
