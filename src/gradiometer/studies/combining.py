"""Traces of unequal shapes, in one labelled dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.quantities import OF_LAYERS, OF_STEPS, PER_LAYER, PER_STEP
from gradiometer.states import Mask, State, mask_name
from gradiometer.studies.description import StudyError
from gradiometer.studies.study import Study

if TYPE_CHECKING:
    import xarray as xr

    from gradiometer.experiment import Experiment
    from gradiometer.trace import Trace


def combine(
    study: Study,
    traces: Iterable[tuple[Experiment, Trace]],
    quantities: Sequence[str] | None,
    steps: Sequence[int] | None,
    largest: int,
) -> xr.Dataset:
    """Make the dataset of `StudyResults.select`, one trace of a finished experiment at a time."""
    import xarray as xr

    axes = _axes(study)
    frame = _Frame(study.experiments, _names(quantities), _numbers(steps))
    frame.check_size(_shape(axes), largest, chosen=not (quantities is None and steps is None))
    cells = {
        name: np.full((*_shape(axes), *frame.shape(name)), np.nan) for name in frame.quantities
    }
    missing = {name: np.ones(values.shape, bool) for name, values in cells.items()}
    finished = np.zeros(_shape(axes), bool)
    for experiment, trace in traces:
        cell = _cell(study, experiment, axes)
        finished[cell] = True
        for name, values in cells.items():
            frame.fill(name, values[cell], missing[name][cell], trace, experiment)
    dims = tuple(axes) if study.is_grid else ("experiment",)
    hashes = np.empty(_shape(axes), object)
    for experiment in study.experiments:
        hashes[_cell(study, experiment, axes)] = experiment.hash
    coords: dict[str, Any] = {"hash": (dims, hashes.astype(str)), "finished": (dims, finished)}
    if study.is_grid:
        coords |= {name: _labels(values) for name, values in axes.items()}
    else:
        for name in study.axes:
            settings = tuple(getattr(e, name) for e in study.experiments)
            coords[name] = ("experiment", _labels(settings))
    alike = len({e.seed for e in study.experiments}) == 1
    coords["member"] = study.experiments[0].seeds if alike else range(study.members)
    coords |= {"step": frame.steps, "layer": np.arange(1, frame.layers + 1)}
    # a setting, such as the kind of loss, has the plain name
    variables = {}
    for name, values in cells.items():
        told = f"recorded_{name}" if name in coords else name
        variables[told] = ((*dims, *frame.dims(name)), values)
        if missing[name].any():
            variables[mask_name(told)] = ((*dims, *frame.dims(name)), missing[name])
    return xr.Dataset(variables, coords, {"study": study.to_toml()})


class _Frame:
    """What of the traces is kept, and where their steps and layers go."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        quantities: Sequence[str] | None,
        steps: Sequence[int] | None,
    ) -> None:
        recorded = {name for e in experiments for name in (e.quantities or PER_LAYER)}
        there = [*(name for name in OF_LAYERS if name in recorded), *PER_STEP]
        for name in quantities or ():
            if name not in there:
                raise StudyError(f"no quantity {name!r} was recorded; there are {', '.join(there)}")
        self.quantities = [*dict.fromkeys(there if quantities is None else quantities)]
        numbers = sorted({s for e in experiments for s in range(1, e.steps + 1, e.every)})
        missing = [step for step in steps or () if step not in set(numbers)]
        if missing:
            raise StudyError(
                f"step {missing[0]!r} was not recorded; there are {len(numbers)} from "
                f"{numbers[0]} to {numbers[-1]}"
            )
        self.steps = np.array(numbers if steps is None else sorted(set(steps)))
        self.layers = 1 + max(e.layers for e in experiments)
        self.members = experiments[0].members

    def dims(self, name: str) -> tuple[str, ...]:
        """Of a quantity of one experiment."""
        return ("step", *(() if name in OF_STEPS else ("layer",)), "member")

    def shape(self, name: str) -> tuple[int, ...]:
        """In the order of `dims`."""
        of_layers = () if name in OF_STEPS else (self.layers,)
        return (len(self.steps), *of_layers, self.members)

    def check_size(self, cells: tuple[int, ...], largest: int, *, chosen: bool) -> None:
        """Refuse to fill the memory unasked."""
        size = 9 * math.prod(cells) * sum(math.prod(self.shape(name)) for name in self.quantities)
        if size > largest and not chosen:
            raise StudyError(
                f"the dataset would take {size / 2**30:.1f} GiB; choose quantities or steps: "
                "results.select(quantities=['grad_mean_abs'], steps=[1, 100])"
            )

    def fill(
        self, name: str, values: Array, missing: Mask, trace: Trace, experiment: Experiment
    ) -> None:
        """Write a trace's numbers into the cell of its experiment, and say which are there."""
        if name not in trace.dataset:
            return
        number = trace.dataset["step"].values
        known = np.isin(number, self.steps)
        at = np.searchsorted(self.steps, number[known])
        absent = trace.status(name).values == State.MISSING
        for cell, found in ((values, trace[name].values), (missing, absent)):
            chosen = found[known] if trace.ensemble else found[known, ..., np.newaxis]
            if name in OF_STEPS:
                cell[at] = chosen
            else:
                cell[at, : experiment.layers + 1] = chosen


def _names(given: Any) -> list[str] | None:
    """Names that were chosen; a single one may stand alone."""
    if given is None:
        return None
    return [given] if isinstance(given, str) else [str(name) for name in given]


def _numbers(given: Any) -> list[int] | None:
    """Steps that were chosen; a single one may stand alone."""
    return None if given is None else np.atleast_1d(given).tolist()


def _axes(study: Study) -> dict[str, tuple[Any, ...]]:
    """The axes of the dataset; a list that is no grid has a single one."""
    if study.is_grid:
        return study.axes
    return {"experiment": tuple(e.hash for e in study.experiments)}


def _shape(axes: dict[str, tuple[Any, ...]]) -> tuple[int, ...]:
    return tuple(map(len, axes.values()))


def _cell(
    study: Study, experiment: Experiment, axes: dict[str, tuple[Any, ...]]
) -> tuple[int, ...]:
    if not study.is_grid:
        return (axes["experiment"].index(experiment.hash),)
    return tuple(values.index(getattr(experiment, name)) for name, values in axes.items())


def _labels(values: tuple[Any, ...]) -> Any:
    """Values as a coordinate: numbers, none of them as NaN; or else words."""
    if all(isinstance(v, bool) for v in values):
        return np.array(values)
    if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
        return np.array([np.nan if v is None else v for v in values])
    return np.array([str(v) for v in values])
