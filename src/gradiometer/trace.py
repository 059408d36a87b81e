"""Trace: what one run recorded, labelled: step × layer (× member)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradiometer.files import write_atomically
from gradiometer.netcdf import FORMAT, TraceError, from_bytes, read, to_bytes, upgraded
from gradiometer.states import (
    State,
    is_mask,
    mask_of,
    places_missing,
    reason_for,
    reasons_of,
    states,
    with_missing,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from gradiometer.diagnosis import Diagnosis

__all__ = ["Trace", "TraceError"]


class Trace:
    """What one run recorded.

    Parameters
    ----------
    dataset : xarray.Dataset
        Dims `step`, `layer` and, for an ensemble, `member`; a variable per quantity, and beside a
        quantity with missing numbers a boolean one, `<quantity>_missing`. In one whose
        `attrs["format"]` is 1, as in files of older versions, these are inferred.

    Attributes
    ----------
    dataset : xarray.Dataset
        The data themselves; its `attrs` tell the experiment, versions, seed and times.
    verified : bool or None
        Of a trace that was read: whether its file has a checksum, which was then found right. False
        for files of older versions, or of other programs, in which damage may go unnoticed; None
        for a trace that was not read.
    plot
        Every figure, as a method: `trace.plot.heatmap()` gives a matplotlib Figure.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        if dataset.attrs.setdefault("format", FORMAT) == 1:
            dataset = upgraded(dataset)
        self.dataset = dataset
        self.verified: bool | None = None

    @classmethod
    def from_arrays(
        cls,
        variables: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]],
        coords: Mapping[str, Any],
        attrs: Mapping[str, Any],
        missing: Mapping[str, NDArray[np.bool_]],
    ) -> Trace:
        """Label what a recorder measured.

        Parameters
        ----------
        variables : mapping of quantity to (dims, array)
            Dims are ("step", "layer"), or ("step",), then "member" for an ensemble, then "bin" for
            a histogram.
        coords : mapping
            As xarray takes them; with `step` and `layer`.
        attrs : mapping
            Facts about the run. `attrs["missing"]`, JSON, gives the reasons: layer (or "(model)")
            -> quantity -> why it is missing.
        missing : mapping of quantity to boolean array
            Where a quantity is missing, of the quantity's shape, without the bins of a histogram.
            The numbers there must be NaN, and a histogram's 0.
        """
        import xarray as xr

        return cls(with_missing(xr.Dataset(variables, coords, dict(attrs)), missing))

    def __getitem__(self, name: str) -> xr.DataArray:
        """A quantity by name, such as trace["grad_mean_abs"]; (step, layer[, member])."""
        if name not in self.dataset:
            raise self._unknown(name)
        return self.dataset[name]

    def _quantity(self, name: str) -> xr.DataArray:
        """A quantity, and no coordinate or mask."""
        if name not in self.quantities:
            raise self._unknown(name)
        return self.dataset[name]

    def _unknown(self, name: str) -> KeyError:
        return KeyError(f"no quantity {name!r} in this trace; it has {', '.join(self.quantities)}")

    @property
    def quantities(self) -> list[str]:
        """Names of what was recorded."""
        dataset = self.dataset
        return [str(name) for name in dataset.data_vars if not is_mask(name, dataset)]

    def status(self, name: str) -> xr.DataArray:
        """Tell the state of each number of a quantity: recorded, zero, not finite or missing.

        Parameters
        ----------
        name : str
            Of a quantity.

        Returns
        -------
        DataArray of int8
            Codes of `gradiometer.State`, of the quantity's shape; its `attrs` name them, as the CF
            conventions have it (`flag_values`, `flag_meanings`).

        Raises
        ------
        KeyError
            If the quantity was not recorded.
        """
        variable = self._quantity(name)
        mask = mask_of(name, self.dataset)
        found = variable.copy(data=states(variable.values, mask)).rename(f"{name}_status")
        found.attrs = {
            "flag_values": np.array([*State], np.int8),
            "flag_meanings": " ".join(state.word for state in State),
        }
        return found

    def why(self, name: str, layer: str | None = None) -> str | None:
        """Say why a quantity is missing, in some step or all; None if it is not.

        Parameters
        ----------
        name : str
            Of a quantity.
        layer : str, optional
            Needed for a quantity that each layer has.

        Raises
        ------
        KeyError
            If the quantity was not recorded, or there is no such layer.
        ValueError
            If no layer is given for a quantity that each layer has.
        """
        of_layers = "layer" in self._quantity(name).dims
        if of_layers and layer is None:
            raise ValueError(f"{name} is one of each layer: name it, such as {self.layers[0]!r}")
        if of_layers and layer not in self.layers:
            raise KeyError(f"no layer {layer!r} in this trace; it has {', '.join(self.layers)}")
        mask = mask_of(name, self.dataset)
        if mask is None:
            return None
        places = places_missing(self.dataset, name, mask)
        if of_layers and layer not in places:
            return None
        return reason_for(reasons_of(self.attrs), name, layer)

    @property
    def attrs(self) -> dict[str, Any]:
        """Facts about the run."""
        return self.dataset.attrs

    @property
    def experiment(self) -> dict[str, Any]:
        """The fields of the experiment; empty if the trace was recorded without one."""
        fields: dict[str, Any] = json.loads(self.attrs.get("experiment", "{}"))
        return fields

    @property
    def layers(self) -> list[str]:
        """Their names, in the order of the forward pass."""
        return [str(name) for name in self.dataset["layer"].values]

    @property
    def ensemble(self) -> bool:
        """Whether there are several members."""
        return "member" in self.dataset.dims

    @property
    def grad_w(self) -> NDArray[Any]:
        """The course's array: mean |dL/dW|, (layers, steps), or (layers, steps, members)."""
        return np.moveaxis(self["grad_mean_abs"].values, 1, 0)

    @property
    def plot(self) -> Plots:
        """Every figure of this trace, as a method."""
        return Plots(self)

    def sentence(self) -> str:
        """Say in one sentence whether the gradient reaches the first layer; see `summary`."""
        from gradiometer.summary import sentence

        return sentence(self)

    def diagnose(self) -> Diagnosis:
        """Say what the net suffers from, in which layer, and why; see `gradiometer.diagnosis`."""
        from gradiometer.diagnosis import diagnose

        return diagnose(self)

    def table(self) -> list[dict[str, Any]]:
        """One row per layer: gradient, delta, dead and saturated share; see `summary`."""
        from gradiometer.summary import layer_table

        return layer_table(self)

    def decompose(self, steps: Sequence[int] | None = None) -> xr.Dataset:
        """Take the gain of the delta, and each gradient, apart; see `decomposition.decompose`."""
        from gradiometer.decomposition import decompose

        return decompose(self, steps)

    def to_dataframe(self) -> pd.DataFrame:
        """Give a tidy table: a row per step, layer, quantity and member; see `exports.to_frame`."""
        from gradiometer.exports import to_frame

        return to_frame(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write that table as comma-separated values, atomically; see `exports`."""
        from gradiometer.exports import to_csv

        to_csv(self, path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write that table, and `attrs`, as a Parquet file, atomically; see `exports`."""
        from gradiometer.exports import to_parquet

        to_parquet(self, path)

    def to_tensorboard(self, folder: str | os.PathLike[str]) -> None:
        """Write what TensorBoard shows into a new folder, or an empty one; see `exports`."""
        from gradiometer.exports import to_tensorboard

        to_tensorboard(self, folder)

    def __repr__(self) -> str:
        sizes = self.dataset.sizes
        members = f", {sizes['member']} members" if self.ensemble else ""
        e = self.experiment
        what = f" of {e['activation']} net" if "activation" in e else ""
        return f"<Trace{what}: {sizes['step']} steps, {sizes['layer']} layers{members}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one netCDF file, atomically.

        Raises
        ------
        OSError
            If the folder cannot be written or the disk is full; an older file is then untouched.
        """
        write_atomically(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Give the content of that file; see `gradiometer.netcdf`.

        It ends with a checksum of all its bytes; see `gradiometer.seal`.
        """
        return to_bytes(self.dataset)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a file written by `save`, and verify its checksum.

        Raises
        ------
        TraceError
            If the file is missing, damaged, holds something else, or what cannot be: a negative
            mean of sizes, steps that do not ascend, two layers of one name, …
        """
        return cls.from_bytes(read(Path(path)), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "") -> Trace:
        """Read what `to_bytes` gave.

        Parameters
        ----------
        content : bytes
        name : str
            Where it comes from, for errors.

        Raises
        ------
        TraceError
            As `load` does.
        """
        dataset, verified = from_bytes(content, name or f"{len(content)} bytes")
        trace = cls(dataset)
        trace.verified = verified
        return trace


class Plots:
    """The figures of a trace; see `gradiometer.plots`."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __getattr__(self, name: str) -> Any:
        from gradiometer.plots import FIGURES

        if name not in FIGURES:
            raise AttributeError(f"no figure {name!r}; there are {', '.join(FIGURES)}")
        figure = FIGURES[name]

        def draw(**options: Any) -> Figure:
            drawn: Figure = figure(self._trace, **options)
            return drawn

        draw.__doc__ = figure.__doc__
        return draw

    def __dir__(self) -> list[str]:
        from gradiometer.plots import FIGURES

        return [*FIGURES]
