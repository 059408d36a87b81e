"""The four states of a recorded number: recorded, zero, not finite, missing.

A number that is not finite was there: it is NaN or infinite in the array. One that is missing could
not be had, and its place holds NaN too. So a trace keeps, beside each quantity with a missing
number, a boolean variable `<quantity>_missing`, and the reason in `attrs["missing"]`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.typing import Array

if TYPE_CHECKING:
    import xarray as xr

Mask = NDArray[np.bool_]
Reasons = dict[str, dict[str, str]]  # layer -> quantity -> why it is missing

MODEL = "(model)"  # in the place of a layer, where a reason is not of one layer
NO_REASON = "the reason was not recorded"
_SUFFIX = "_missing"


class State(IntEnum):
    """What a number in a trace is."""

    RECORDED = 0  # finite, and not zero
    ZERO = 1  # exactly zero
    NOT_FINITE = 2  # NaN or infinite
    MISSING = 3  # it could not be had

    @property
    def word(self) -> str:
        """As tables have it."""
        return self.name.lower()


def states(values: Array, missing: Mask | None = None) -> NDArray[np.int8]:
    """The state of each value.

    Parameters
    ----------
    values : array
    missing : boolean array, optional
        Which of them are missing; none by default. It may lack the last axis, the bins of a
        histogram.

    Returns
    -------
    int8 array of the same shape

    Examples
    --------
    >>> import numpy as np
    >>> found = states(np.array([0.5, 0.0, np.inf, np.nan]), np.array([False, False, False, True]))
    >>> [State(code).name for code in found]
    ['RECORDED', 'ZERO', 'NOT_FINITE', 'MISSING']
    """
    found = np.where(values == 0, np.int8(State.ZERO), np.int8(State.RECORDED))
    found[~np.isfinite(values)] = State.NOT_FINITE
    if missing is not None:
        found[missing] = State.MISSING
    return found


# --- in a dataset ---------------------------------------------------------------------------------


def mask_name(quantity: str) -> str:
    """The variable that says where a quantity is missing."""
    return quantity + _SUFFIX


def is_mask(name: Any, dataset: xr.Dataset) -> bool:
    """Whether a variable says where another one is missing."""
    base = str(name).removesuffix(_SUFFIX)
    return base != name and base in dataset.data_vars


def mask_of(quantity: str, dataset: xr.Dataset) -> Mask | None:
    """Where a quantity is missing; None if it is nowhere."""
    name = mask_name(quantity)
    return np.asarray(dataset[name].values) if name in dataset.data_vars else None


def without_masks(dataset: xr.Dataset) -> xr.Dataset:
    """Give the dataset of the quantities alone."""
    return dataset.drop_vars([name for name in dataset.data_vars if is_mask(name, dataset)])


def reasons_of(attrs: Mapping[Any, Any]) -> Reasons:
    """Why quantities are missing: layer (or `MODEL`) -> quantity -> reason."""
    found: Reasons = json.loads(attrs.get("missing", "{}"))
    return found


def reason_for(reasons: Reasons, quantity: str, layer: str | None = None) -> str | None:
    """Why a quantity is missing in a layer; of the whole model, if the layer has no reason."""
    for place in (layer, MODEL):
        if place is not None and quantity in reasons.get(place, {}):
            return reasons[place][quantity]
    return None


def with_missing(dataset: xr.Dataset, missing: Mapping[str, Mask]) -> xr.Dataset:
    """Give a dataset that says where its quantities are missing.

    Parameters
    ----------
    dataset : xarray.Dataset
        Its `attrs["missing"]` has the reasons; one that it lacks becomes `NO_REASON`.
    missing : mapping of quantity to boolean array
        Each of the quantity's shape, without the bins of a histogram. One without any True is left
        out.
    """
    import xarray as xr

    masks, marks = {}, {}
    reasons = reasons_of(dataset.attrs)
    for quantity, mask in missing.items():
        if not np.any(mask):
            continue
        dims = tuple(dim for dim in dataset[quantity].dims if dim != "bin")
        name = mask_name(quantity)
        masks[name] = xr.Variable(dims, np.asarray(mask, bool), _mask_attrs(quantity))
        marks[quantity] = dataset[quantity].assign_attrs(ancillary_variables=name)
        for place in places_missing(dataset, quantity, mask):
            if reason_for(reasons, quantity, place) is None:
                reasons.setdefault(place, {})[quantity] = NO_REASON
    if not masks:
        return dataset
    found = dataset.assign(marks).assign(masks)
    return found.assign_attrs(missing=json.dumps(reasons))


def places_missing(dataset: xr.Dataset, quantity: str, mask: Mask) -> list[str]:
    """The layers in which a quantity is missing in a step or more; `MODEL` if it has no layers."""
    if "layer" not in dataset[quantity].dims:
        return [MODEL] if np.any(mask) else []
    layers = np.moveaxis(mask, 1, 0).reshape(mask.shape[1], -1).any(axis=1)
    return [str(name) for name in dataset["layer"].values[layers]]


def _mask_attrs(quantity: str) -> dict[str, Any]:
    """As the CF conventions have it for a variable that tells the status of another."""
    return {
        "long_name": f"whether {quantity} is missing",
        "flag_values": np.array([0, 1], np.int8),
        "flag_meanings": "had missing",
    }


# --- in files of format 1, which keep no masks ----------------------------------------------------


def inferred(dataset: xr.Dataset) -> dict[str, Mask]:
    """Where the quantities of a trace that keeps no masks are missing, as far as can be told."""
    reasons = reasons_of(dataset.attrs)
    count = dataset["nonfinite_count"].values if "nonfinite_count" in dataset else None
    found = {}
    for quantity, variable in dataset.data_vars.items():
        name, dims = str(quantity), variable.dims
        if dims[:1] != ("step",) or variable.dtype.kind != "f":
            continue
        empty = not_there(variable.values, histogram="bin" in dims)
        if not empty.any():
            continue
        if "layer" not in dims:
            found[name] = _inferred_of_steps(dataset, name, empty, reasons)
            continue
        layers = [str(layer) for layer in dataset["layer"].values]
        explained = [reason_for(reasons, name, layer) is not None for layer in layers]
        found[name] = _inferred_of_layers(empty, explained, None if "bin" in dims else count)
    return found


def not_there(values: Array, histogram: bool = False) -> Mask:
    """Where there may be no number: where it is NaN, or a histogram has no entries."""
    return np.asarray((values == 0).all(axis=-1) if histogram else np.isnan(values))


def _inferred_of_layers(nan: Mask, explained: list[bool], count: Array | None) -> Mask:
    """Which NaNs of a quantity are missing numbers.

    NaN is one where no entry of the layer is counted as not finite, or where there is a reason that
    no count contradicts.

    Parameters
    ----------
    nan : boolean array (steps, layers) or (steps, layers, members)
        Where the quantity is NaN.
    explained : list of bool
        Whether there is a reason, for each layer.
    count : array of the same shape, optional
        `nonfinite_count`, if it was recorded.
    """
    reason = np.array(explained).reshape(1, -1, *[1] * (nan.ndim - 2))
    if count is None:
        return np.asarray(nan & reason)
    # a layer of which the quantity can never be had may still diverge, and be counted
    never = nan.all(axis=0, keepdims=True)
    return np.asarray(nan & ((count == 0) | (reason & (np.isnan(count) | never))))


def _inferred_of_steps(dataset: xr.Dataset, name: str, nan: Mask, reasons: Reasons) -> Mask:
    explained = any(name in of for of in reasons.values())
    # a share of right answers is a number in a net that diverged, too
    if name == "accuracy" or "nonfinite_step" not in dataset.attrs or (nan.all() and explained):
        return nan
    # before the first step that is not finite, a loss is finite
    before = dataset["step"].values < int(dataset.attrs["nonfinite_step"])
    return np.asarray(nan & before.reshape(-1, *[1] * (nan.ndim - 1)))
