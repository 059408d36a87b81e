"""The file of a trace: netCDF, sealed with a checksum, and checked when it is read."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradiometer.contents import problems
from gradiometer.files import storable, why
from gradiometer.regular import read_regular
from gradiometer.seal import MARK, MARKED, DamagedError, owner_of, sealed
from gradiometer.states import Reasons, inferred, reasons_of, with_missing

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 2  # 1 kept no masks of what is missing
REQUIRED = ("step", "layer")


class TraceError(ValueError):
    """A file that holds no trace."""


def to_bytes(dataset: xr.Dataset) -> bytes:
    """Give the content of a file, made in memory: HDF5 ends the process on a full disk."""
    marked = _writable(dataset).assign_attrs({MARK: MARKED})
    with _without_cluster():
        content = bytes(marked.to_netcdf(engine="h5netcdf"))
    return sealed(content, str(dataset.attrs.get("experiment_hash", "")))


def read(file: Path) -> bytes:
    """Read a file.

    Raises
    ------
    TraceError
        If it is missing, or cannot be read.
    """
    expected = "expected a trace written by gradiometer (.nc)"
    try:
        return read_regular(file, None)
    except FileNotFoundError:
        what = "a link to nothing" if file.is_symlink() else "no such file"
        raise TraceError(f"{file}: {what}; {expected}") from None
    except OSError as error:
        raise TraceError(f"{file}: cannot be read ({why(error)}); {expected}") from None


def from_bytes(content: bytes, name: str) -> tuple[xr.Dataset, bool]:
    """Give the dataset of a file, and whether its checksum was verified.

    Parameters
    ----------
    content : bytes
    name : str
        Where it comes from, for errors.

    Raises
    ------
    TraceError
        If it is damaged, holds something else, or what cannot be.
    """
    try:
        verified = owner_of(content) is not None
    except DamagedError as error:
        raise TraceError(f"{name}: {error}; expected a trace written by gradiometer") from None
    dataset = _parsed(content, name)
    if dataset.attrs.pop(MARK, None) is not None and not verified:
        raise TraceError(
            f"{name}: it is damaged, or was changed by another program: its checksum is not at "
            f"its end (without the attribute {MARK!r} it is read unverified)"
        )
    _check(dataset, name)
    return dataset, verified


def _writable(dataset: xr.Dataset) -> xr.Dataset:
    """Give the dataset with texts that netCDF can hold: those it cannot are escaped.

    There are two kinds, in names that came from elsewhere: with a null character, or with half of a
    surrogate pair.
    """
    changed = {
        name: (variable.dims, np.array([storable(str(text)) for text in variable.values]))
        for name, variable in dataset.coords.items()
        if variable.ndim == 1 and variable.dtype.kind in "OUT"
    }
    changed = {
        name: new
        for name, new in changed.items()
        if new[1].tolist() != dataset[name].values.tolist()
    }
    attrs = {
        name: storable(value) if isinstance(value, str) else value
        for name, value in dataset.attrs.items()
    }
    if "layer" in changed and "missing" in attrs:
        attrs["missing"] = json.dumps(_storable_layers(reasons_of(dataset.attrs)))
    return dataset.assign_coords(changed).assign_attrs(attrs)


def _storable_layers(reasons: Reasons) -> Reasons:
    """The reasons, by the names that layers have in a file."""
    return {storable(layer): of for layer, of in reasons.items()}


def upgraded(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset of a file of format 1, with what is missing in it as far as can be told."""
    if "missing" in dataset.attrs:
        reasons = _storable_layers(reasons_of(dataset.attrs))
        dataset = dataset.assign_attrs(missing=json.dumps(reasons))
    return with_missing(dataset, inferred(dataset)).assign_attrs(format=FORMAT)


def _parsed(content: bytes, name: str) -> xr.Dataset:
    import xarray as xr

    try:
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:  # h5py raises many kinds for a damaged file
        raise TraceError(
            f"{name}: not a readable netCDF file, perhaps truncated ({error}); expected a "
            "trace written by gradiometer"
        ) from None
    missing = [variable for variable in REQUIRED if variable not in dataset]
    if missing or "format" not in dataset.attrs:
        raise TraceError(
            f"{name}: a netCDF file, but not a trace written by gradiometer (it lacks "
            f"{', '.join(missing) or 'the format mark'})"
        )
    return dataset


@contextlib.contextmanager
def _without_cluster() -> Iterator[None]:
    """Keep xarray, inside a worker of Dask, from asking the cluster for a lock on the memory."""
    dask = sys.modules.get("dask")
    if dask is None:
        yield
        return
    with dask.config.set(scheduler="synchronous"):
        yield


def _check(dataset: xr.Dataset, file: str) -> None:
    """Raise TraceError for what has the names of a trace but is none."""
    try:
        number = int(dataset.attrs["format"])
    except (TypeError, ValueError):
        raise TraceError(
            f"{file}: not a trace written by gradiometer: its format is "
            f"{dataset.attrs['format']!r:.80}"
        ) from None
    if not 1 <= number <= FORMAT:
        raise TraceError(f"{file}: format {number}; this version reads 1 to {FORMAT}")
    problem = next(problems(dataset), None)
    if problem is not None:
        raise TraceError(f"{file}: not a trace written by gradiometer: {problem}")
