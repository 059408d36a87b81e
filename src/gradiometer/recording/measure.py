"""What is measured of a layer's arrays in a step, for any framework.

An adapter that has all arrays of a layer at once hands them over (`LayerArrays`); one that has them
one after the other measures each as it comes (`of_gradient` and its like).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiometer.quantities import HISTOGRAM as HISTOGRAM
from gradiometer.quantities import PER_LAYER as PER_LAYER
from gradiometer.quantities import PER_STEP as PER_STEP
from gradiometer.quantities import of
from gradiometer.recording import quantities as q
from gradiometer.recording.quantities import Array

Axes = Sequence[int] | None  # of a matrix; None for all

OF_GRADIENT, OF_DELTA, OF_ACTIVATION, OF_WEIGHTS = (
    of("gradient"),
    of("delta"),
    of("activation"),
    of("weights"),
)
FROM_GRADIENT = (*OF_GRADIENT, HISTOGRAM)  # all that needs dL/dW
# the arrays in which a layer's entries that are not finite are counted, in the order of a step
KINDS = ("activation", "delta", "gradient", "weight after the update")
# what nothing is known of where activations are not finite, and their number
SHARES = {"saturated_fraction", "dead_fraction", "nonfinite_count"}


# whose units do not saturate each by itself
OF_ALL_UNITS = ("softmax", "log_softmax", "softmin")


def why_not_saturated(function: str) -> str:
    """Why the saturated share of an activation function is missing."""
    if function in OF_ALL_UNITS:
        return f"the units of a {function} do not saturate each by itself"
    return f"where {function} saturates is not known"


@dataclass
class LayerArrays:
    """The arrays of one layer, or of several alike; None for what cannot be had.

    Every array may have leading axes (steps, layers, members of an ensemble), the same ones in all;
    what is missing is recorded as NaN.

    Attributes
    ----------
    gradient, weight, weight_after : array (…, fan_in, fan_out)
        dL/dW, and W before and after the update.
    delta, activation : array (…, batch, units)
        dL/d(pre-activation) and φ(pre-activation) of the training batch.
    saturated : boolean array (…, batch, units)
    reference_activation : array (…, samples, units)
        φ on the reference batch, for dead units.
    used : array (…, fan_in, fan_out)
        The gradient that the update was given, if it was another one than dL/dW; NaN if it is not
        known.
    """

    gradient: Array | None = None
    weight: Array | None = None
    weight_after: Array | None = None
    delta: Array | None = None
    activation: Array | None = None
    saturated: NDArray[np.bool_] | None = None
    reference_activation: Array | None = None
    used: Array | None = None


def one_step(
    number: int, layers: Sequence[LayerArrays], loss: Array, accuracy: Array
) -> tuple[list[int], list[tuple[list[int], LayerArrays]], Array, Array]:
    """The arguments of `Recorder.add` for a single step, from the arrays of each of its layers."""
    groups = [
        # one step and one layer, as leading axes
        ([i], LayerArrays(**{k: None if x is None else x[None, None] for k, x in vars(of).items()}))
        for i, of in enumerate(layers)
    ]
    return [number], groups, np.asarray(loss)[None], np.asarray(accuracy)[None]


def nothing(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What is recorded of a quantity that cannot be had: NaN, or a histogram of no entries."""
    if name == HISTOGRAM:
        return np.zeros((*shape, len(q.HISTOGRAM_EDGES)))
    return np.full(shape, np.nan)


def measure(
    arrays: LayerArrays, wanted: Collection[str]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Quantities of layers that are alike, and where their entries are not finite.

    Returns
    -------
    found : dict of name to array
        The quantities wanted, as far as they can be had; the arrays' leading axes are kept.
    counts : dict of kind to array
        Number of entries that are not finite, in each of `KINDS` that is there.
    """
    found: dict[str, Array] = {}
    counts: dict[str, Array] = {}
    if arrays.gradient is not None:
        found |= of_gradient(arrays.gradient, wanted, counts)
        if "clip_factor" in wanted:
            found["clip_factor"] = _clip_factor(arrays.gradient, arrays.used)
    if arrays.delta is not None:
        found |= of_delta(arrays.delta, wanted, counts)
    if arrays.activation is not None:
        found |= of_activation(arrays.activation, arrays.saturated, wanted, counts)
    if arrays.reference_activation is not None and "dead_fraction" in wanted:
        found["dead_fraction"] = q.dead_fraction(arrays.reference_activation)
    found |= of_weights(arrays.weight, arrays.weight_after, wanted, counts)
    return found, counts


def _clip_factor(gradient: Array, used: Array | None) -> Array:
    if used is None:  # dL/dW itself
        return np.ones(gradient.shape[:-2])
    return q.clip_factor(q.rms(q.entries(gradient)), q.rms(q.entries(used)))


def of_gradient(
    gradient: Array, wanted: Collection[str], counts: dict[str, Array], axes: Axes = q.MATRIX
) -> dict[str, Array]:
    """Quantities of dL/dW; its entries that are not finite are put into `counts`."""
    x = q.entries(gradient, axes)
    found: dict[str, Array] = {}
    summary = None
    if "grad_mean_abs" in wanted:
        found["grad_mean_abs"] = summary = q.mean_abs(x)
    if "grad_rms" in wanted:
        found["grad_rms"] = summary = q.rms(x)
    if "grad_zero_fraction" in wanted or "nonfinite_count" in wanted:
        counts["gradient"] = q.nonfinite_count(x, summary)
    if "grad_zero_fraction" in wanted:
        found["grad_zero_fraction"] = q.zero_fraction(x, counts["gradient"])
    if HISTOGRAM in wanted:
        found[HISTOGRAM] = q.log10_histogram(x)
    return found


def of_delta(
    delta: Array, wanted: Collection[str], counts: dict[str, Array], axes: Axes = q.MATRIX
) -> dict[str, Array]:
    """Quantities of dL/d(pre-activation)."""
    x = q.entries(delta, axes)
    found = {"delta_rms": q.rms(x)} if "delta_rms" in wanted else {}
    if "nonfinite_count" in wanted:
        counts["delta"] = q.nonfinite_count(x, found.get("delta_rms"))
    return found


def of_activation(
    activation: Array,
    saturated: Array | None,
    wanted: Collection[str],
    counts: dict[str, Array],
    axes: Axes = q.MATRIX,
) -> dict[str, Array]:
    """Quantities of φ(h) on the training batch; `saturated` are booleans of the same shape."""
    x = q.entries(activation, axes)
    found: dict[str, Array] = {}
    summary = None
    if "activation_mean" in wanted:
        found["activation_mean"] = summary = q.mean(x)
    if "activation_std" in wanted:
        found["activation_std"] = q.std(x, summary)
    if not SHARES.isdisjoint(wanted):
        counts["activation"] = q.nonfinite_count(x, summary)
    if "saturated_fraction" in wanted and saturated is not None:
        found["saturated_fraction"] = q.share(q.entries(saturated, axes), counts["activation"])
    return found


def of_weights(
    before: Array | None,
    after: Array | None,
    wanted: Collection[str],
    counts: dict[str, Array],
    axes: Axes = q.MATRIX,
    before_rms: Array | None = None,
    overwrite: bool = False,
) -> dict[str, Array]:
    """Quantities of W, before and after the update.

    The update ratio is 0 where neither moved from zero weights, Inf where zero weights moved.
    `before_rms` is for those who have it already; with `overwrite`, `before` is used up.
    """
    found: dict[str, Array] = {}
    change = None
    if before is not None and ("weight_rms" in wanted or "update_ratio" in wanted):
        size = q.rms(q.entries(before, axes)) if before_rms is None else before_rms
        if "weight_rms" in wanted:
            found["weight_rms"] = size
        if after is not None and "update_ratio" in wanted:
            if overwrite:
                before -= after
            else:
                before = before - after
            change = q.rms(q.entries(before, axes))
            found["update_ratio"] = q.ratio(change, size)
    if after is not None and "nonfinite_count" in wanted:
        # finite weights plus a finite change are finite
        summary = None if change is None else change + size
        counts["weight after the update"] = q.nonfinite_count(q.entries(after, axes), summary)
    return found
