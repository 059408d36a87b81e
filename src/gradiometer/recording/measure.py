"""What is measured of a layer's arrays in a step, for any framework.

An adapter that has all arrays of a layer at once hands them over (`LayerArrays`); one that has them
one after the other measures each as it comes (`of_gradient` and its like).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiometer.arrays import MATRIX, Array, Numbers, entries, transposed, where_true
from gradiometer.quantities import (
    HISTOGRAM,
    HISTOGRAM_EDGES,
    clip_factor,
    dead_fraction,
    log10_histogram,
    ratio,
    share,
    zero_fraction,
    zero_units,
)
from gradiometer.recording.requires import measured_alone, needing
from gradiometer.reductions import mean, mean_abs, nonfinite_count, rms, std

Axes = Sequence[int] | None  # of a matrix; None for all

FROM_GRADIENT = needing("gradient")
OF_DELTA = needing("delta", "affine_delta", "phi_delta", "arriving")
OF_ACTIVATION = needing("activation", "reference_activation")
OF_WEIGHTS = needing("weight", "weight_after")
OF_INPUT = needing("input")
OF_WAY = needing("affine_delta", "phi_delta", "arriving")  # of the delta from layer to layer
OF_PREACTIVATION = needing("pre_activation")
OF_BACKWARD = tuple(name for name in OF_DELTA if name in OF_WEIGHTS)
# what the weights are kept for before an update
OF_UPDATE = (*(name for name in OF_WEIGHTS if name not in OF_BACKWARD), "nonfinite_count")
# what nothing is known of where activations are not finite, and their number
SHARES = {"saturated_fraction", "dead_fraction", "nonfinite_count"}


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
        The gradient that the update was given, if it was another one than dL/dW.
    used_known : bool
        Whether it is known what the update was given.
    input : array (…, batch, fan_in)
    live : boolean array (…, batch, fan_in)
        Which entries of the input are of a live unit; see `live_units`. By default, as they are in
        `input`.
    pre_activation : array (…, batch, units)
    affine_delta, phi_delta, arriving : array (…, batch, units)
        dL/d(x W + b), the delta at φ's input, and dL/dφ(h). Without the first, nothing is known of
        W^T delta.
    arriving_live : boolean array (…, batch, units)
        Which entries of the last are of a live unit; see `live_outputs`. By default, as they are in
        `activation` and `phi_delta`.
    """

    gradient: Array | None = None
    weight: Array | None = None
    weight_after: Array | None = None
    delta: Array | None = None
    activation: Array | None = None
    saturated: Array | None = None
    reference_activation: Array | None = None
    used: Array | None = None
    used_known: bool = True
    input: Array | None = None
    live: Array | None = None
    pre_activation: Array | None = None
    affine_delta: Array | None = None
    phi_delta: Array | None = None
    arriving: Array | None = None
    arriving_live: Array | None = None

    def mapped(self, function: Callable[[Array], Array]) -> LayerArrays:
        """The same with another array for each of its arrays."""
        found = copy.copy(self)
        for name, value in vars(self).items():
            if value is not None and not isinstance(value, bool):
                setattr(found, name, function(value))
        return found

    def flattened(self, leading: int) -> LayerArrays:
        """The same with a weight of more axes than a matrix as one, so that it is measured whole.

        `leading` is the number of axes before: those that all arrays have.
        """
        found = copy.copy(self)
        for name in ("gradient", "weight", "weight_after", "used"):
            array: Any = getattr(self, name)
            if array is not None and array.ndim > 2 + leading:
                shape = array.shape[:leading]
                setattr(found, name, array.reshape(*shape, -1, array.shape[-1]))
        return found


def nothing(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What is recorded of a quantity that cannot be had: NaN, or a histogram of no entries."""
    if name == HISTOGRAM:
        return np.zeros((*shape, len(HISTOGRAM_EDGES)))
    return np.full(shape, np.nan)


def measure(
    arrays: LayerArrays, wanted: Collection[str]
) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
    """Quantities of layers that are alike, and where their entries are not finite.

    Returns
    -------
    found : dict of name to array
        The quantities wanted, as far as they can be had; the arrays' leading axes are kept.
    counts : dict of kind to array
        Number of entries that are not finite, in each of `KINDS` that is there.
    """
    found: dict[str, Numbers] = {}
    counts: dict[str, Numbers] = {}
    if arrays.gradient is not None:
        found |= of_gradient(arrays.gradient, wanted, counts)
        if "clip_factor" in wanted and arrays.used_known:
            found["clip_factor"] = _clip_factor(arrays.gradient, arrays.used)
    if arrays.delta is not None:
        found |= of_delta(arrays.delta, wanted, counts)
    if arrays.activation is not None:
        found |= of_activation(arrays.activation, arrays.saturated, wanted, counts)
    if arrays.reference_activation is not None and "dead_fraction" in wanted:
        found["dead_fraction"] = dead_fraction(arrays.reference_activation)
    for name in ("input", "pre_activation", "affine_delta", "phi_delta", "arriving"):
        array = getattr(arrays, name)
        if array is not None:
            found |= of_entries(name, array, wanted)
    if arrays.input is not None and "rows" in wanted:
        *lead, rows, _ = arrays.input.shape
        found["rows"] = np.full(lead, rows)
    if arrays.arriving is not None and "arriving_live_rms" in wanted:
        live = arrays.arriving_live
        if live is None and arrays.activation is not None and arrays.phi_delta is not None:
            live = live_outputs(arrays.activation, arrays.phi_delta)
        if live is not None:
            found["arriving_live_rms"] = rms(entries(where_true(live, arrays.arriving)))
    if arrays.affine_delta is not None and arrays.weight is not None:
        live = arrays.live
        if live is None and arrays.input is not None and "backward_live_rms" in wanted:
            live = live_units(arrays.input)
        found |= of_backward(arrays.affine_delta, arrays.weight, live, wanted)
    found |= of_weights(arrays.weight, arrays.weight_after, wanted, counts)
    return found, counts


def _clip_factor(gradient: Array, used: Array | None) -> Numbers:
    if used is None:  # dL/dW itself
        return np.ones(gradient.shape[:-2])
    return clip_factor(rms(entries(gradient)), rms(entries(used)))


def of_gradient(
    gradient: Array, wanted: Collection[str], counts: dict[str, Numbers], axes: Axes = MATRIX
) -> dict[str, Numbers]:
    """Quantities of dL/dW; its entries that are not finite are put into `counts`."""
    x = entries(gradient, axes)
    found = _by_table("gradient", x, wanted)
    summary: Numbers | None = None
    if "grad_mean_abs" in wanted:
        found["grad_mean_abs"] = summary = mean_abs(x)
    if "grad_rms" in wanted:
        found["grad_rms"] = summary = rms(x)
    if "grad_zero_fraction" in wanted or "nonfinite_count" in wanted:
        counts["gradient"] = nonfinite_count(x, summary)
    if "grad_zero_fraction" in wanted:
        found["grad_zero_fraction"] = zero_fraction(x, counts["gradient"])
    if HISTOGRAM in wanted:
        found[HISTOGRAM] = log10_histogram(x)
    return found


def of_delta(
    delta: Array, wanted: Collection[str], counts: dict[str, Numbers], axes: Axes = MATRIX
) -> dict[str, Numbers]:
    """Quantities of dL/d(pre-activation)."""
    x = entries(delta, axes)
    found = _by_table("delta", x, wanted)
    if "delta_rms" in wanted:
        found["delta_rms"] = rms(x)
    if "nonfinite_count" in wanted:
        counts["delta"] = nonfinite_count(x, found.get("delta_rms"))
    return found


def of_entries(
    array: str, x: Array, wanted: Collection[str], axes: Axes = MATRIX
) -> dict[str, Numbers]:
    """The quantities of one array alone, by its name in `gradiometer.quantities`."""
    measured = any(name in wanted for name, _ in measured_alone(array))
    return _by_table(array, entries(x, axes), wanted) if measured else {}


def _by_table(array: str, x: Array, wanted: Collection[str]) -> dict[str, Numbers]:
    """The quantities whose row in the table names one array, and the function of its entries."""
    return {name: of(x) for name, of in measured_alone(array) if name in wanted}


def live_units(x: Array) -> Array:
    """Which entries of a layer's input are of a live unit: one that is not zero on every sample.

    Parameters
    ----------
    x : array (…, samples, units)
        Of one call of the layer.

    Returns
    -------
    boolean array (…, 1, units)
    """
    zero: Array = zero_units(x == 0)
    return ~zero[..., None, :]


def of_backward(
    delta: Array, weight: Array, live: Array | None, wanted: Collection[str]
) -> dict[str, Numbers]:
    """Quantities of W^T delta: of the delta as it comes to the layer's input, before φ' of it.

    Parameters
    ----------
    delta : array (…, batch, units)
        At x W + b.
    weight : array (…, fan_in, units)
    live : boolean array (…, batch or 1, fan_in), optional
        See `live_units`.
    """
    found: dict[str, Numbers] = {}
    if "backward_rms" not in wanted and (live is None or "backward_live_rms" not in wanted):
        return found
    back = delta @ transposed(weight)
    if "backward_rms" in wanted:
        found["backward_rms"] = rms(entries(back))
    if live is not None and "backward_live_rms" in wanted:
        found["backward_live_rms"] = rms(entries(where_true(live, back)))
    return found


def live_outputs(activation: Array, phi_delta: Array) -> Array:
    """Which entries of a layer's output are of a live unit.

    A unit is dead if its output is zero on every sample, and it passes no delta, since φ is flat
    there. A unit of tanh may be zero too, but its slope there is 1.

    Parameters
    ----------
    activation, phi_delta : array (…, samples, units)
        Of one call of the layer.

    Returns
    -------
    boolean array (…, 1, units)
    """
    dead: Array = zero_units(activation == 0) & zero_units(phi_delta == 0)
    return ~dead[..., None, :]


def of_activation(
    activation: Array,
    saturated: Array | None,
    wanted: Collection[str],
    counts: dict[str, Numbers],
    axes: Axes = MATRIX,
) -> dict[str, Numbers]:
    """Quantities of φ(h) on the training batch; `saturated` are booleans of the same shape."""
    x = entries(activation, axes)
    found = _by_table("activation", x, wanted)
    summary: Numbers | None = None
    if "activation_mean" in wanted:
        found["activation_mean"] = summary = mean(x)
    if "activation_std" in wanted:
        found["activation_std"] = std(x, summary)
    if not SHARES.isdisjoint(wanted):
        counts["activation"] = nonfinite_count(x, summary)
    if "saturated_fraction" in wanted and saturated is not None:
        found["saturated_fraction"] = share(entries(saturated, axes), counts["activation"])
    return found


def of_weights(
    before: Array | None,
    after: Array | None,
    wanted: Collection[str],
    counts: dict[str, Numbers],
    axes: Axes = MATRIX,
    before_rms: Numbers | None = None,
    overwrite: bool = False,
) -> dict[str, Numbers]:
    """Quantities of W, before and after the update.

    The update ratio is 0 where neither moved from zero weights, Inf where zero weights moved.
    `before_rms` is for those who have it already; with `overwrite`, `before` is used up.
    """
    found: dict[str, Numbers] = {}
    if before is not None:
        found |= of_entries("weight", before, wanted, axes)
    if after is not None:
        found |= of_entries("weight_after", after, wanted, axes)
    change = None
    if before is not None and ("weight_rms" in wanted or "update_ratio" in wanted):
        size = rms(entries(before, axes)) if before_rms is None else before_rms
        if "weight_rms" in wanted:
            found["weight_rms"] = size
        if after is not None and "update_ratio" in wanted:
            if overwrite:
                before -= after
            else:
                before = before - after
            change = rms(entries(before, axes))
            found["update_ratio"] = ratio(change, size)
    if after is not None and "nonfinite_count" in wanted:
        # finite weights plus a finite change are finite
        summary = None if change is None else change + size
        counts["weight after the update"] = nonfinite_count(entries(after, axes), summary)
    return found
