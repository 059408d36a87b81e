"""What is recorded: each quantity's name, words, range, the arrays it needs, and its function.

A new quantity of one array (`input`, `pre_activation`, `activation`, `delta`, `gradient`, `weight`
or `weight_after`) is one row here, with the function that it is measured by: one of
`gradiometer.reductions`, or one that is written here. One of several arrays, or of another one,
needs lines in `gradiometer.recording.measure` too.

The arrays of a layer, by name:

- `input` (batch, fan_in): what the layer multiplies by its weights
- `pre_activation` (batch, units): h
- `activation` (batch, units): φ(h)
- `saturated` (batch, units): where φ is saturated
- `delta` (batch, units): dL/dh
- `affine_delta`, `phi_delta` (batch, units): dL/d(x W + b), and the delta at φ's input. One of them
  is the delta itself, and both are where no normalisation is between x W + b and φ
- `arriving` (batch, units): dL/dφ(h), by all ways from there to the loss
- `gradient` (fan_in, units): dL/dW
- `used` (fan_in, units): the gradient that the optimiser was given
- `weight`, `weight_after` (fan_in, units): W before and after the update
- `reference_activation` (samples, units): φ(h) on the reference batch
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradiometer.arrays import Array, Numbers, SameArray, entries, namespace
from gradiometer.reductions import mean, nonfinite_count, rms

Pooling = Literal["mean", "rms", "spread", "sum"]


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
    of : callable, optional
        The function that it is measured by, of the entries of the one array that it needs (see
        `entries`); None if `gradiometer.recording.measure` has lines of its own for it.
    pooling : str
        How it is joined over several calls of a layer in one step: the mean, weighted by size; the
        root of the mean square; the standard deviation of the union ("spread"); or the sum.
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
    of: Callable[[Array], Numbers] | None = None
    pooling: Pooling = "mean"
    grows: bool = False
    on_request: bool = False


# --- functions of arrays of any library -----------------------------------------------------------

# log10 bins of the gradient histogram: half a decade each; zeros fall into the first, which has
# no lower end
HISTOGRAM_EDGES = np.concatenate([[-np.inf], np.arange(-20.0, 5.5, 0.5)])


def share(true: Array, nonfinite: Numbers) -> Numbers:
    """Share of entries that are true; NaN where the layer has entries that are not finite.

    Nothing is known of such a layer's units: NaN is neither zero nor saturated, and to count it as
    "no" would make a broken layer look healthy.
    """
    if isinstance(true, np.ndarray):
        if true.ndim == 1:  # much faster without an axis
            return np.count_nonzero(true) / true.size if nonfinite == 0 else math.nan
        return np.where(nonfinite == 0, np.count_nonzero(true, axis=-1) / true.shape[-1], np.nan)
    xp = namespace(true)
    found = xp.sum(xp.astype(true, xp.int32), axis=-1) / true.shape[-1]
    return xp.where(nonfinite == 0, found, xp.full_like(found, xp.nan))


def zero_fraction(x: Array, nonfinite: Numbers | None = None) -> Numbers:
    """Share of entries that are exactly zero; NaN if any is not finite.

    `nonfinite` is their number (see `nonfinite_count`), for those who have it already.
    """
    return share(x == 0, nonfinite_count(x) if nonfinite is None else nonfinite)


def zero_units(zero: SameArray, lead: int | None = None, unit: int = -1) -> SameArray:
    """Which units are exactly zero on every sample: booleans (…, units).

    Parameters
    ----------
    zero : array of bool
        Where the activation is zero.
    lead : int, optional
        The first axes, so many, are kept; all but two if it is not given.
    unit : int
        The axis of the units; all the others are samples.
    """
    samples = _all_but(unit, zero.ndim - 2 if lead is None else lead, zero.ndim)
    if isinstance(zero, np.ndarray):
        return np.logical_and.reduce(zero, axis=samples)
    return namespace(zero).all(zero, axis=samples)


@functools.cache
def _all_but(axis: int, lead: int, ndim: int) -> tuple[int, ...]:
    return tuple(other for other in range(lead, ndim) if other != axis % ndim)


def dead_fraction(activation: Array) -> Numbers:
    """Share of units whose output is zero on every sample; activations are (…, samples, units)."""
    return share(zero_units(activation == 0), nonfinite_count(entries(activation)))


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Share of samples whose class is right; one number per member.

    Parameters
    ----------
    output : array (…, samples, outputs)
        Probability of class 1, or one column per class.
    labels : array (samples,) or (…, samples, outputs)
        0 and 1, or one-hot rows.
    """
    if labels.ndim == 1:
        labels = labels[:, None]
    if output.shape[-1] == 1:
        right = ((output > 0.5) == (labels > 0.5))[..., 0]
    else:
        right = output.argmax(axis=-1) == labels.argmax(axis=-1)
    # comparisons call NaN "class 0": a net that gives NaN has decided nothing
    return np.asarray((right & np.isfinite(output).all(axis=-1)).mean(axis=-1))


def ratio(change: Numbers, size: Numbers) -> Numbers:
    """change / size of what cannot be negative; 0 where both are 0."""
    if isinstance(size, float) and size > 0:  # the usual case, at once
        return change / size
    xp = namespace(change)
    found = xp.divide(change, size) if xp is np else change / size
    return xp.where((change == 0) & (size == 0), 0.0, found)


def clip_factor(gradient_rms: Numbers, used_rms: Numbers) -> Numbers:
    """Rms of the gradient that the optimiser was given, over the rms of dL/dW.

    1 where nothing was clipped, also where both are 0.
    """
    nothing = (gradient_rms == 0) & (used_rms == 0)
    return namespace(nothing).where(nothing, 1.0, ratio(used_rms, gradient_rms))


def log10_histogram(x: Array) -> Array:
    """Counts of log10 |entries| in the bins of `HISTOGRAM_EDGES`; shape (…, bins).

    A bin holds its lower edge; the last one, and what lies above, are counted together; entries
    that are not finite are in no bin (see `nonfinite_count`).
    """
    xp = namespace(x)
    size = xp.abs(x)
    finite = xp.isfinite(x)
    # how many lie at or above each edge; edges as sizes, so that they are exact powers of ten
    edges = 10.0**HISTOGRAM_EDGES
    above = [xp.sum(xp.astype(finite & (size >= float(edge)), xp.int32), axis=-1) for edge in edges]
    return xp.stack([*(a - b for a, b in itertools.pairwise(above)), above[-1]], axis=-1)


# --- the table ------------------------------------------------------------------------------------

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
        "input_rms", "rms of the input", ("input",), low=0, of=rms, pooling="rms",
        on_request=True,
    ),
    Quantity(
        "rows", "rows of the input", ("input",), low=0, whole=True, pooling="sum", on_request=True
    ),
    Quantity(
        "preactivation_mean", "mean of the pre-activation", ("pre_activation",), of=mean,
        on_request=True,
    ),
    Quantity(
        "backward_rms", "rms of W^T delta", ("delta", "weight"), ("affine_delta",), low=0,
        pooling="rms", grows=True, on_request=True,
    ),
    Quantity(
        "backward_live_rms", "rms of W^T delta at live units", ("delta", "weight", "input"),
        ("affine_delta",), low=0, pooling="rms", grows=True, on_request=True,
    ),
    Quantity(
        "affine_delta_rms", "rms of the delta at x W + b", ("affine_delta",), low=0, of=rms,
        pooling="rms", grows=True, on_request=True,
    ),
    Quantity(
        "phi_delta_rms", "rms of the delta at φ's input", ("phi_delta",), low=0, of=rms,
        pooling="rms", grows=True, on_request=True,
    ),
    Quantity(
        "arriving_rms", "rms of the delta at φ(h)", ("arriving",), low=0, of=rms, pooling="rms",
        grows=True, on_request=True,
    ),
    Quantity(
        "arriving_live_rms", "rms of the delta at φ(h) of live units", ("arriving", "phi_delta"),
        ("activation",), low=0, pooling="rms", grows=True, on_request=True,
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
