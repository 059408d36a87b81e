"""What a trace may hold: checks of quantities, coordinates and facts when a file is read.

The range of each quantity stands in `gradiometer.quantities`. The recorder does not check it, since
that takes time and a training may give any number. In a file, a number out of its range is damage,
or was written by something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.quantities import HISTOGRAM, OF_LAYERS, OF_STEPS, QUANTITIES, Quantity
from gradiometer.settings import SETTINGS
from gradiometer.states import (
    MODEL,
    Mask,
    is_mask,
    mask_name,
    not_there,
    places_missing,
    reason_for,
    reasons_of,
)

if TYPE_CHECKING:
    import xarray as xr


ROUNDING = 1e-6  # by which a share that was averaged in single precision may exceed 1


@dataclass(frozen=True)
class Range:
    """The values that a quantity may have; NaN always may."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    def first_outside(self, values: Array) -> Any:
        """The first value outside, or None."""
        with np.errstate(invalid="ignore"):
            wrong = (values < self.low) | (values > self.high)
            if self.whole:
                wrong |= np.isfinite(values) & (values != np.round(values))
        return values[wrong].ravel()[0].item() if wrong.any() else None

    def __str__(self) -> str:
        numbers = "whole numbers" if self.whole else "numbers"
        if math.isfinite(self.high):
            return f"{numbers} from {self.low:g} to {self.high:.0f}"
        return f"{numbers} from {self.low:g}" if math.isfinite(self.low) else numbers


SIZE, COUNT, ANY = Range(0), Range(0, whole=True), Range()
SHARE = Range(0, 1 + ROUNDING)


def _range(quantity: Quantity) -> Range:
    return SHARE if quantity.high == 1 else Range(quantity.low, quantity.high, quantity.whole)


# of the picture of the decision
IN_THE_PLANE = {
    "label": COUNT,
    "explained_variance": SIZE,
    "decision_class": COUNT,
    "decision_confidence": SHARE,
}
# what belongs to that picture, and the dimensions of each; those of nets come after them
PICTURE = {
    "points": ("sample", "component"),
    "label": ("sample",),
    "explained_variance": ("component",),
    "decision_class": ("grid_y", "grid_x"),
    "decision_confidence": ("grid_y", "grid_x"),
    "grid_x": ("grid_x",),
    "grid_y": ("grid_y",),
}
RANGES = {
    **{name: _range(quantity) for name, quantity in QUANTITIES.items()},
    HISTOGRAM: COUNT,
    **IN_THE_PLANE,
}
# 0 and NaN are for layers of which it is not known
COORDINATES = {"fan_in": COUNT, "fan_out": COUNT}
FACTS = {
    "wall_time_s": SIZE,
    "steps_done": COUNT,
    "seed": ANY,
    "interrupted": Range(0, 1, whole=True),
    "asked_to_stop": Range(0, 1, whole=True),
    "recording_overhead": SIZE,
    "nonfinite_step": Range(1, whole=True),
    "nonfinite_values": COUNT,
    "nonfinite_nan": COUNT,
    "nonfinite_inf": COUNT,
    "nonfinite_share": SHARE,
}


def problems(dataset: xr.Dataset) -> Iterator[str]:
    """What is wrong with the contents of a file that has the names of a trace."""
    yield from _dimensions(dataset)
    yield from _labels(dataset)
    yield from _quantities(dataset)
    yield from _facts(dataset.attrs)
    yield from _masks(dataset)
    if "decision_class" in dataset:
        yield from _decision(dataset)
    yield from _settings(dataset)


def _dimensions(dataset: xr.Dataset) -> Iterator[str]:
    axes = ("step", "layer", "member", "bin")
    for name in (*axes, "depth", *COORDINATES, "activation", "role", "kind"):
        expected = (name if name in axes else "layer",)
        if name in dataset and dataset[name].dims != expected:
            shape = f"the dimensions {dataset[name].dims}" if dataset[name].ndim else "no dimension"
            yield f"{name} has {shape}; expected {expected}"
    for dimension, size in dataset.sizes.items():
        if not size:
            yield f"there is no {dimension}: its dimension has the length 0"
    for quantity, variable in dataset.data_vars.items():
        recorded_of_layers = quantity in OF_LAYERS or quantity == HISTOGRAM
        known = recorded_of_layers or quantity in OF_STEPS
        of_layers = recorded_of_layers or (not known and "layer" in variable.dims)
        if not known and "step" not in variable.dims:
            continue
        dims = ("step", "layer") if of_layers else ("step",)
        further = set(variable.dims[len(dims) :]) - {"member", "bin"}
        if variable.dims[: len(dims)] != dims or (known and further):
            yield f"{quantity} has the dimensions {variable.dims}; expected {dims}"


def _labels(dataset: xr.Dataset) -> Iterator[str]:
    """Coordinates: what names steps, layers, members and bins."""
    steps = dataset["step"].values
    if steps.dtype.kind not in "iu" or steps[0] < 1 or not (np.diff(steps) > 0).all():
        yield f"its steps are {_some(steps)}; expected whole numbers from 1, in ascending order"
    for name in ("layer", "activation", "role", "kind"):
        if name in dataset and not all(isinstance(text, str) for text in dataset[name].values):
            yield f"{name} is {_some(dataset[name].values)}; expected texts"
    for name in ("layer", "member"):
        values = dataset[name].values.tolist() if name in dataset.coords else []
        twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if twice is not None:
            yield f"two of its {name}s have the same name: {twice!r}"
    count = dataset.sizes["layer"]
    if "depth" in dataset and dataset["depth"].values.tolist() != [*range(1, count + 1)]:
        yield f"depth is {_some(dataset['depth'].values)}; expected 1 to {count}, in order"
    if "member" in dataset.coords and dataset["member"].dtype.kind not in "iu":
        yield f"member is {_some(dataset['member'].values)}; expected whole numbers"
    if "bin" in dataset.coords:
        bins = dataset["bin"].values
        ascending = bins.dtype.kind in "iuf" and (np.diff(bins) > 0).all()
        if not ascending or len(bins) < 3 or not np.isfinite(bins[1:]).all():
            yield f"bins begin at {_some(bins)}; expected three or more numbers, ascending"
    for name, allowed in COORDINATES.items():
        if name in dataset:
            yield from _outside(name, dataset[name].values, allowed)


def _quantities(dataset: xr.Dataset) -> Iterator[str]:
    for name, allowed in RANGES.items():
        if name in dataset.data_vars:
            yield from _outside(name, dataset[name].values, allowed)


def _masks(dataset: xr.Dataset) -> Iterator[str]:
    """Whether what is said to be missing is not there, and has a reason."""
    reasons = reasons_of(dataset.attrs)
    for quantity, variable in dataset.data_vars.items():
        name = mask_name(str(quantity))
        if is_mask(quantity, dataset) or name not in dataset.data_vars:
            continue
        mask, dims = dataset[name], tuple(dim for dim in variable.dims if dim != "bin")
        if mask.dims != dims:
            yield f"{name} has the dimensions {mask.dims}; expected {dims}"
        elif mask.dtype != bool:
            yield f"{name} is of the type {mask.dtype}; expected booleans"
        else:
            yield from _contradictions(dataset, str(quantity), mask.values)
            for place in places_missing(dataset, str(quantity), mask.values):
                if reason_for(reasons, str(quantity), place) is None:
                    of = "" if place == MODEL else f" of layer {place!r}"
                    yield f"{quantity}{of} is missing, but nothing says why"


def _contradictions(dataset: xr.Dataset, quantity: str, mask: Mask) -> Iterator[str]:
    """Numbers that are there, though they are said to be missing."""
    variable = dataset[quantity]
    wrong = mask & ~not_there(variable.values, histogram="bin" in variable.dims)
    if wrong.any():
        at = tuple(index[0] for index in np.nonzero(wrong))
        step = dataset["step"].values[at[0]]
        of = (
            f" of layer {str(dataset['layer'].values[at[1]])!r}" if "layer" in variable.dims else ""
        )
        value = np.asarray(variable.values[at]).max().item()
        yield f"{quantity}{of} has the value {value!r} in step {step}, but is said to be missing"


def _decision(dataset: xr.Dataset) -> Iterator[str]:
    """Whether the picture of the decision can be drawn: it is all there, and fits together."""
    for name, dims in PICTURE.items():
        if name not in dataset:
            yield f"it has a decision without {name}"
            return
        found, nets = dataset[name].dims, () if name not in IN_THE_PLANE else ("member",)
        if found != dims and found != (*dims, *nets):
            yield f"{name} has the dimensions {found}; expected {dims}"
    if dataset.sizes["component"] != 2:
        yield f"points have {dataset.sizes['component']} coordinates; expected 2"
    for name in ("grid_x", "grid_y"):
        values = dataset[name].values
        if values.dtype.kind not in "iuf" or len(values) < 2 or not (np.diff(values) > 0).all():
            yield f"{name} begins at {_some(values)}; expected numbers in ascending order"
    if dataset["points"].dtype.kind not in "iuf":
        yield f"points are of the type {dataset['points'].dtype}; expected numbers"
    for name in ("label", "decision_class"):
        if dataset[name].dtype.kind not in "iu":
            yield f"{name} is of the type {dataset[name].dtype}; expected whole numbers"
            return
    classes = len(json.loads(dataset.attrs.get("class_names", "[]")))
    most = max(int(dataset[name].max()) for name in ("label", "decision_class"))
    if classes and most >= classes:
        yield f"it has a class of the number {most}, but names of {classes} classes"


def _outside(name: str, values: Array, allowed: Range) -> Iterator[str]:
    if values.dtype.kind not in "biuf":
        yield f"{name} is of the type {values.dtype}; expected {allowed}"
        return
    outside = allowed.first_outside(values)
    if outside is not None:
        yield f"{name} has the value {outside!r}; expected {allowed}"


def _some(values: Array) -> str:
    """The first of many values."""
    shown = ", ".join(f"{value!r:.40}" for value in values.ravel()[:4].tolist())
    return f"{shown}, …" if values.size > 4 else shown


# --- facts and settings ---------------------------------------------------------------------------


def _facts(attrs: Mapping[Any, Any]) -> Iterator[str]:
    for name, allowed in FACTS.items():
        if name in attrs:
            yield from _outside(name, np.asarray(attrs[name]), allowed)
    for name, kind, words in (
        ("missing", dict, "an object of JSON: layers, quantities, reasons"),
        ("class_names", list, "a list of JSON"),
        ("versions", dict, "an object of JSON"),
        ("nonfinite_shape", list, "a list of JSON"),
        ("chains", list, "a list of JSON: the layers of each chain"),
    ):
        if name not in attrs:
            continue
        try:
            found = json.loads(attrs[name])
        except (TypeError, ValueError):
            found = None
        inner = found.values() if name == "missing" and isinstance(found, dict) else ()
        wrong = name == "chains" and not _are_chains(found)
        if wrong or not isinstance(found, kind) or not all(map(_are_reasons, inner)):
            yield f"{name} is {attrs[name]!r:.80}; expected {words}"


def _are_chains(found: Any) -> bool:
    return isinstance(found, list) and all(
        isinstance(chain, list) and all(isinstance(layer, int) for layer in chain)
        for chain in found
    )


def _are_reasons(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(reason, str) for reason in found.values())


def _settings(dataset: xr.Dataset) -> Iterator[str]:
    try:
        fields = json.loads(dataset.attrs.get("experiment", "{}"))
    except (TypeError, ValueError, RecursionError):
        yield f"its experiment is {dataset.attrs['experiment']!r:.80}; expected an object of JSON"
        return
    if not isinstance(fields, dict) or (fields and "activation" not in fields):
        yield f"its experiment is {fields!r:.80}"
        return
    for name, setting in SETTINGS.items():
        if name in fields and not setting.accepts_type(fields[name]):
            expected = setting.type_in_words
            yield f"its experiment has {name} = {fields[name]!r:.80}; expected {expected}"
            return
    yield from _counts(dataset, fields)


def _counts(dataset: xr.Dataset, fields: Mapping[str, Any]) -> Iterator[str]:
    """Whether there are as many layers and nets as the experiment says."""
    layers, members = dataset.sizes["layer"], dataset.sizes.get("member", 1)
    if fields.get("layers", layers - 1) != layers - 1:
        yield f"it has {layers} layers, but its experiment {fields['layers']} and an output layer"
    if fields.get("members", members) != members:
        yield f"it has {members} nets, but its experiment {fields['members']}"
