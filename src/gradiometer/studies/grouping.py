"""Members trained in groups, one after the other: the trace of all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradiometer.recording.nonfinite import places_in_order
from gradiometer.recording.origin import share_of
from gradiometer.states import (
    Mask,
    Reasons,
    mask_of,
    reasons_of,
    with_missing,
    without_masks,
)
from gradiometer.trace import Trace

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment


def join(traces: Sequence[Trace], experiment: Experiment) -> Trace:
    """Join the traces of an experiment's members into the one that all of them at once would give.

    Parameters
    ----------
    traces : sequence of Trace
        Each of some of the members, in their order, all of the same steps and layers.
    experiment : Experiment
        The whole.
    """
    import xarray as xr

    parts = [_with_members(trace) for trace in traces]
    of_members = [name for name, v in parts[0].data_vars.items() if "member" in v.dims]
    joined = xr.concat(
        parts,
        "member",
        data_vars=of_members,
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop",
    )
    # as one recording lays them out
    for name in of_members:
        joined[name] = joined[name].transpose(*_dims(traces[0].dataset, str(name)))
    first = traces[0].attrs
    spent = [trace.attrs["wall_time_s"] for trace in traces]
    share = sum(
        t.attrs["recording_overhead"] * s for t, s in zip(traces, spent, strict=True)
    ) / sum(spent)
    whole = {
        "experiment": experiment.model_dump_json(),
        "experiment_hash": experiment.hash,
        "seed": experiment.seed,
        "wall_time_s": sum(spent),
        "recording_overhead": share,
    }
    kept = {name: value for name, value in first.items() if not name.startswith("nonfinite_")}
    joined.attrs = {**kept, **whole, **_reasons(traces), **_first_nonfinite(traces)}
    return Trace(with_missing(joined, _missing(traces)))


def _with_members(trace: Trace) -> Any:
    """Its dataset without masks; that of a single net as an ensemble of one."""
    dataset = without_masks(trace.dataset)
    if trace.ensemble:
        return dataset
    of_net = [
        name
        for name, variable in dataset.data_vars.items()
        if "step" in variable.dims or str(name).startswith("decision_")
    ]
    alone = dataset.expand_dims(member=[int(trace.attrs["seed"])])
    # what belongs to the data is the same for all members
    return alone.assign({n: dataset[n] for n in dataset.data_vars if n not in of_net})


def _missing(traces: Sequence[Trace]) -> dict[str, Mask]:
    """Where quantities are missing; members are along the last axis."""
    found = {}
    for name in traces[0].quantities:
        masks = [mask_of(name, trace.dataset) for trace in traces]
        if all(mask is None for mask in masks):
            continue
        parts = []
        for trace, mask in zip(traces, masks, strict=True):
            sizes = [size for dim, size in trace[name].sizes.items() if dim != "bin"]
            part = np.zeros(sizes, bool) if mask is None else mask
            parts.append(part if trace.ensemble else part[..., np.newaxis])
        found[name] = np.concatenate(parts, axis=-1)
    return found


def _reasons(traces: Sequence[Trace]) -> dict[str, str]:
    """Why something is missing in any of them, as a fact of the trace; the first reason stays."""
    found: Reasons = {}
    for trace in traces:
        for layer, reasons in reasons_of(trace.attrs).items():
            found[layer] = {**reasons, **found.get(layer, {})}
    return {"missing": json.dumps(found)} if found else {}


def _dims(dataset: Any, name: str) -> list[str]:
    dims = [str(dim) for dim in dataset[name].dims]
    if "member" in dims:
        return dims
    # histograms have their bins last
    return [*dims[:-1], "member", "bin"] if dims[-1] == "bin" else [*dims, "member"]


def _first_nonfinite(traces: Sequence[Trace]) -> dict[str, Any]:
    """Where the first value that is not finite came up in any of them, as a recorder says it."""
    bad = [trace for trace in traces if "nonfinite_step" in trace.attrs]
    if not bad:
        return {}
    step = min(trace.attrs["nonfinite_step"] for trace in bad)
    bad = [trace for trace in bad if trace.attrs["nonfinite_step"] == step]
    layers = bad[0].layers
    order = places_in_order(len(layers))

    def place(trace: Trace) -> int:
        if "nonfinite_layer" not in trace.attrs:
            return len(order)  # of the loss alone
        layer = layers.index(str(trace.attrs["nonfinite_layer"]))
        return order.index((trace.attrs["nonfinite_in"], layer))

    first = min(map(place, bad))
    there = [trace for trace in bad if place(trace) == first]
    found = {k: v for k, v in there[0].attrs.items() if k.startswith("nonfinite_")}
    if "nonfinite_values" in found:
        for name in ("nonfinite_values", "nonfinite_nan", "nonfinite_inf"):
            if name in found:
                found[name] = sum(int(trace.attrs[name]) for trace in there)
    if "nonfinite_share" in found:
        shape = json.loads(found["nonfinite_shape"])
        nets = sum(trace.dataset.sizes.get("member", 1) for trace in traces)
        found["nonfinite_share"] = share_of(found["nonfinite_values"], shape, nets)
    for name in ("nonfinite_operation", "nonfinite_began_in"):
        if len({trace.attrs.get(name, "") for trace in there}) > 1:
            found.pop(name, None)
    return found
