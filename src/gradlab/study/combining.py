"""Traces of unequal shapes, in one labelled dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradlab.study.study import StudyError

if TYPE_CHECKING:
    import xarray as xr

    from gradlab.experiment import Experiment
    from gradlab.study.results import StudyResults
    from gradlab.trace import Trace

Array = NDArray[Any]


def combine(
    results: StudyResults,
    quantities: Sequence[str] | None,
    steps: Sequence[int] | None,
    largest: int,
) -> xr.Dataset:
    """Make the dataset of `StudyResults.select`, one trace at a time."""
    import xarray as xr

    study = results.study
    axes = _axes(results)
    layers = 1 + max(e.layers for e in study.experiments)
    frame: _Frame | None = None
    cells: dict[str, Array] = {}
    finished = np.zeros(_shape(axes), bool)
    for experiment, trace in results.traces():
        if frame is None:
            frame = _Frame(trace, quantities, steps, study.experiments, layers)
            frame.check_size(_shape(axes), largest, chosen=quantities or steps)
        cell = _cell(results, experiment, axes)
        finished[cell] = True
        for name, values in frame.values(trace, experiment).items():
            if name not in cells:
                whole = (*_shape(axes), *values.shape)
                cells[name] = np.full(whole, np.nan, values.dtype)
            cells[name][cell] = values
    if frame is None:
        raise StudyError(f"{results.folder.path}: no experiment is finished")
    dims = tuple(axes) if study.is_grid else ("experiment",)
    hashes = np.empty(_shape(axes), object)
    for experiment in study.experiments:
        hashes[_cell(results, experiment, axes)] = experiment.hash
    coords: dict[str, Any] = {"hash": (dims, hashes.astype(str)), "finished": (dims, finished)}
    if study.is_grid:
        coords |= {name: _labels(values) for name, values in axes.items()}
    else:
        for name in study.axes:
            settings = tuple(getattr(e, name) for e in study.experiments)
            coords[name] = ("experiment", _labels(settings))
    alike = len({e.seed for e in study.experiments}) == 1
    coords["member"] = study.experiments[0].seeds if alike else range(study.members)
    coords |= {"step": frame.steps, "layer": np.arange(1, layers + 1)}
    return xr.Dataset(
        {name: ((*dims, *frame.dims[name]), values) for name, values in cells.items()},
        coords,
        {"study": study.to_toml()},
    )


class _Frame:
    """What of a trace is kept, and where its steps and layers go."""

    def __init__(
        self,
        trace: Trace,
        quantities: Sequence[str] | None,
        steps: Sequence[int] | None,
        experiments: Sequence[Experiment],
        layers: int,
    ) -> None:
        there = {
            str(name): ("step", "layer", "member")
            if "layer" in variable.dims
            else ("step", "member")
            for name, variable in trace.dataset.data_vars.items()
            if {"step"} <= {*variable.dims} <= {"step", "layer", "member"}
        }
        for name in quantities or ():
            if name not in there:
                raise StudyError(f"no quantity {name!r} was recorded; there are {', '.join(there)}")
        self.dims: dict[str, tuple[str, ...]] = {
            name: there[name] for name in (quantities or there)
        }
        recorded = sorted({s for e in experiments for s in range(1, e.steps + 1, e.every)})
        missing = [step for step in steps or () if step not in set(recorded)]
        if missing:
            raise StudyError(
                f"step {missing[0]!r} was not recorded; there are {len(recorded)} from "
                f"{recorded[0]} to {recorded[-1]}"
            )
        self.steps = np.array(recorded if steps is None else sorted(steps))
        self.layers = layers
        self.members = experiments[0].members

    def check_size(self, cells: tuple[int, ...], largest: int, chosen: Any) -> None:
        """Refuse to fill the memory unasked."""
        numbers = sum(
            len(self.steps) * self.members * (self.layers if "layer" in dims else 1)
            for dims in self.dims.values()
        )
        size = 8 * numbers * int(np.prod(cells))
        if size > largest and not chosen:
            raise StudyError(
                f"the dataset would take {size / 2**30:.1f} GiB; choose quantities or steps: "
                "results.select(quantities=['grad_mean_abs'], steps=[1, 100])"
            )

    def values(self, trace: Trace, experiment: Experiment) -> dict[str, Array]:
        """Each quantity as an array (steps[, layers], members), NaN where the net has none."""
        number = trace.dataset["step"].values
        known = np.isin(number, self.steps)
        at = np.searchsorted(self.steps, number[known])
        found = {}
        for name, dims in self.dims.items():
            values = trace[name].values[known]
            if not trace.ensemble:
                values = values[..., np.newaxis]
            shape = [len(self.steps), *([self.layers] if "layer" in dims else []), self.members]
            whole = np.full(shape, np.nan, values.dtype)
            if "layer" in dims:
                whole[at, : experiment.layers + 1] = values
            else:
                whole[at] = values
            found[name] = whole
        return found


def _axes(results: StudyResults) -> dict[str, tuple[Any, ...]]:
    """The axes of the dataset; a list that is no grid has a single one."""
    study = results.study
    if study.is_grid:
        return study.axes
    return {"experiment": tuple(e.hash for e in study.experiments)}


def _shape(axes: dict[str, tuple[Any, ...]]) -> tuple[int, ...]:
    return tuple(map(len, axes.values()))


def _cell(
    results: StudyResults, experiment: Experiment, axes: dict[str, tuple[Any, ...]]
) -> tuple[int, ...]:
    if not results.study.is_grid:
        return (axes["experiment"].index(experiment.hash),)
    return tuple(values.index(getattr(experiment, name)) for name, values in axes.items())


def _labels(values: tuple[Any, ...]) -> Any:
    """Values as a coordinate: numbers, none of them as NaN; or else words."""
    if all(isinstance(v, bool) for v in values):
        return np.array(values)
    if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
        return np.array([np.nan if v is None else v for v in values])
    return np.array([str(v) for v in values])
