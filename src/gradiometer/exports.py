"""A trace for other tools: tidy tables, CSV, Parquet, TensorBoard.

The table has one row per recorded step, layer, quantity and, for an ensemble, member. Histograms
are left out of the table, as they are not single numbers; TensorBoard gets them too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.typing import Array
from gradiometer.files import replacing, spreadsheet_text, storable
from gradiometer.locks import IN_FOLDER, Lock
from gradiometer.optional import library
from gradiometer.states import Mask, State, is_mask, mask_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from gradiometer.labelled import LabelledRun


LAYER_FACTS = ("fan_in", "fan_out", "activation")
# TensorBoard knows its files by "tfevents"; no time or host in it: the same trace, the same files
EVENTS = "events.out.tfevents.0.gradiometer"


def to_frame(trace: LabelledRun) -> pd.DataFrame:
    """Give a trace as a tidy table: one row per step, layer, quantity and, if several, member.

    Parameters
    ----------
    trace : Trace

    Returns
    -------
    pandas.DataFrame
        Columns `step`, `layer` (name), `depth` (1 at the input), `member` (for ensembles alone),
        `quantity`, `value` (float64), `status` ("recorded", "zero", "not_finite" or "missing", a
        category; the value is NaN where it is missing), and, where the trace has them, `fan_in`,
        `fan_out` and `activation` of the layer. What is not of a layer, such as the loss, has none
        of these, no `layer` and no `depth`. Sorted by quantity (in the trace's order), step, depth
        and member. Its `attrs` are those of the trace.

    Notes
    -----
    Histograms, which are many numbers per step and layer, are left out, and so is what is not
    recorded step by step.
    """
    import pandas as pd

    dataset = trace.dataset
    steps, members = dataset["step"].values, _members(trace)
    names, blocks = [*_numbers(dataset)], []
    values, codes = [np.empty(0)], [np.empty(0, np.int8)]
    for number, name in enumerate(names):
        of_layers = "layer" in dataset[name].dims
        values.append(_in_rows(trace, dataset[name]).astype(np.float64))
        codes.append(_in_rows(trace, trace.status(name)))
        shape = (len(steps), dataset.sizes["layer"] if of_layers else 1, len(members))
        step, layer, member = np.indices(shape).reshape(3, -1)
        blocks.append([np.full_like(step, number), step, layer if of_layers else layer - 1, member])
    quantity, step, layer, member = np.concatenate([np.empty((4, 0), int), *blocks], axis=1)

    def of_layer(facts: list[Any]) -> Any:
        # whole numbers stay whole beside what is missing; the entry at -1 stands for that
        kind = "Int64" if isinstance(facts[0], int) else None
        return pd.Series([*facts, None], dtype=kind).array.take(layer)

    columns = {
        "step": steps[step],
        "layer": of_layer(_texts(dataset["layer"])),
        "depth": of_layer(_depth(dataset)),
        **({"member": members[member]} if trace.ensemble else {}),
        "quantity": pd.Series(names, dtype=None if names else object).array.take(quantity),
        "value": np.concatenate(values),
        "status": pd.Categorical.from_codes(np.concatenate(codes), [state.word for state in State]),
        **{
            name: of_layer(
                _texts(dataset[name]) if name == "activation" else dataset[name].values.tolist()
            )
            for name in LAYER_FACTS
            if name in dataset.coords
        },
    }
    frame = pd.DataFrame(columns)
    frame.attrs = _plain(trace.attrs)
    return frame


def to_csv(trace: LabelledRun, path: str | os.PathLike[str]) -> None:
    """Write the table of `to_frame` as comma-separated values, atomically.

    Numbers have all their digits. A value that is not finite is written as NaN, inf or -inf; the
    cell of a missing one is empty, and so are the layer and its facts of what is not of a layer.
    The facts in the trace's `attrs` have no place in such a file.
    Texts that a spreadsheet would take for a formula have an apostrophe before them; see
    `without_formulas`.

    Parameters
    ----------
    trace : Trace
    path : path
        An older file is replaced; with the ending .gz it is compressed.

    Raises
    ------
    OSError
        If the file cannot be written; an older one is then untouched.
    """
    frame = without_formulas(to_frame(trace))
    nan = frame["value"].isna() & (frame["status"] == State.NOT_FINITE.word)
    if nan.any():
        frame["value"] = frame["value"].astype(object).where(~nan, "NaN")
    with replacing(Path(path)) as temporary:
        frame.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table for a CSV file, in which no text can be taken for a formula.

    Spreadsheets run what begins with =, +, -, @, a tab or a carriage return, and a layer may be
    called anything. Such a text is given an apostrophe in front, and so is one that begins with an
    apostrophe: without its first apostrophe each text is the original. Numbers stay as they are.
    """
    import pandas as pd

    changed = {}
    for name, column in table.items():
        if column.dtype.kind in "biuf" or pd.api.types.is_numeric_dtype(column):
            continue
        texts = {value for value in column.map(str).unique() if spreadsheet_text(value) != value}
        if texts:
            changed[name] = column.map(
                lambda value: spreadsheet_text(value) if isinstance(value, str) else value
            )
    heads = {name: spreadsheet_text(str(name)) for name in table.columns}
    return table.assign(**changed).rename(columns=heads)


def to_parquet(trace: LabelledRun, path: str | os.PathLike[str]) -> None:
    """Write the table of `to_frame` as a Parquet file, atomically.

    The trace's `attrs` are in the schema's metadata, as JSON under the key `gradiometer`;
    `pandas.read_parquet` gives them as the `attrs` of its frame. A missing value is null, and one
    that is not finite stays NaN or infinite.

    Parameters
    ----------
    trace : Trace
    path : path
        An older file is replaced.

    Raises
    ------
    MissingLibraryError
        If pyarrow is not installed.
    OSError
        If the file cannot be written; an older one is then untouched.
    """
    arrow = _library("pyarrow", "parquet")
    parquet = _library("pyarrow.parquet", "parquet")
    frame = to_frame(trace)
    facts = json.dumps(frame.attrs, default=str)
    frame.attrs = json.loads(facts)
    table = arrow.Table.from_pandas(frame, preserve_index=False)
    # pyarrow takes the NaNs of a frame for missing values
    place = table.schema.get_field_index("value")
    missing = (frame["status"] == State.MISSING.word).to_numpy()
    values = arrow.array(frame["value"].to_numpy(), mask=missing)
    table = table.set_column(place, "value", values)
    metadata = {**table.schema.metadata, "gradiometer": facts, "PANDAS_ATTRS": facts}
    with replacing(Path(path)) as temporary:
        parquet.write_table(table.replace_schema_metadata(metadata), temporary)


def to_tensorboard(trace: LabelledRun, folder: str | os.PathLike[str]) -> None:
    """Write a run that TensorBoard shows, into a folder of its own: wholly, or not at all.

    Parameters
    ----------
    trace : Trace
    folder : path
        New or empty; folders above it are made too.

    Raises
    ------
    MissingLibraryError
        If tensorboardX is not installed.
    FileExistsError
        If the folder holds anything: runs are not mixed.
    OSError
        If it cannot be written.

    Notes
    -----
    Tags are `<quantity>/<layer>`, such as "grad_mean_abs/h1", and the bare name for what is not of
    a layer, such as "loss". Each member of an ensemble is a run of its own, `member_<seed>`, so
    that members share the charts. Histograms of the gradient have log10 |dL/dW| along their axis;
    their outermost bins, which have no end, are drawn half a decade wide. What is missing has no
    point and no histogram.

    TensorBoard keeps scalars in single precision: there, what is below 1e-45 becomes 0, and what
    is above 3e38 infinite. A trace does not know the time of day: times are counted from 1970, the
    run's duration divided evenly among its steps, or a second each where it is unknown.
    """
    events = _library("tensorboardX.proto.event_pb2", "tensorboard")
    records = _library("tensorboardX.record_writer", "tensorboard")
    with _filling(folder) as made:
        for name, dataset in _runs(trace):
            (made / name).mkdir(exist_ok=True)
            # an absolute path, since one that begins with "s3:" would be taken for a bucket
            writer = records.RecordWriter(str((made / name / EVENTS).resolve()))
            try:
                for event in _events(dataset, _seconds(trace), events.Event):
                    writer.write(event.SerializeToString())
                writer.flush()
            finally:
                writer.close()


Export = Callable[["LabelledRun", "str | os.PathLike[str]"], None]
FORMATS: dict[str, Export] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "tensorboard": to_tensorboard,
}


def _library(module: str, extra: str) -> Any:
    return library(module, extra, f"exporting to {extra}")


def _numbers(dataset: xr.Dataset) -> Iterator[str]:
    """Names of what is one number per step, or per step and layer, of each member."""
    for name, variable in dataset.data_vars.items():
        of_steps = "step" in variable.dims and {*variable.dims} <= {"step", "layer", "member"}
        if of_steps and variable.dtype.kind in "biuf" and not is_mask(name, dataset):
            yield str(name)


def _in_rows(trace: LabelledRun, variable: xr.DataArray) -> Array:
    """Its values in the order of a table's rows: by step, layer and member."""
    if trace.ensemble:
        variable = variable.broadcast_like(trace.dataset["member"])
    of_layers = ["layer"] if "layer" in variable.dims else []
    return variable.transpose("step", *of_layers, ...).values.ravel()


def _histograms(dataset: xr.Dataset) -> Iterator[str]:
    for name, variable in dataset.data_vars.items():
        if {"step", "layer", "bin"} <= {*variable.dims} <= {"step", "layer", "member", "bin"}:
            yield str(name)


def _members(trace: LabelledRun) -> NDArray[Any]:
    return np.asarray(trace.dataset["member"].values) if trace.ensemble else np.zeros(1, int)


def _texts(coordinate: xr.DataArray) -> list[str]:
    return [storable(str(text)) for text in coordinate.values]


def _depth(dataset: xr.Dataset) -> list[int]:
    if "depth" in dataset.coords:
        return [int(depth) for depth in dataset["depth"].values]
    return list(range(1, dataset.sizes["layer"] + 1))


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    """Numbers and texts of Python's own, which JSON can hold."""
    return {
        str(key): value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for key, value in attrs.items()
    }


# --- TensorBoard ----------------------------------------------------------------------------------


def _runs(trace: LabelledRun) -> Iterator[tuple[str, xr.Dataset]]:
    """The subfolder and the data of each member; one alone has no subfolder."""
    if not trace.ensemble:
        yield "", trace.dataset
        return
    for i, member in enumerate(_members(trace)):
        yield f"member_{member}", trace.dataset.isel(member=i)


def _seconds(trace: LabelledRun) -> NDArray[np.float64]:
    steps = trace.dataset["step"].values.astype(np.float64)
    spent, done = trace.attrs.get("wall_time_s"), trace.attrs.get("steps_done")
    return steps * float(spent) / float(done) if spent and done else steps


def _events(
    dataset: xr.Dataset, seconds: NDArray[np.float64], Event: Callable[..., Any]
) -> Iterator[Any]:
    """One event per step, after the one that every file begins with."""
    scalars, histograms = _scalars(dataset), _bars(dataset)
    yield Event(wall_time=0.0, file_version="brain.Event:2")
    for i, step in enumerate(dataset["step"].values):
        event = Event(wall_time=float(seconds[i]), step=int(step))
        for tag, (values, missing) in scalars.items():
            if not missing[i]:
                event.summary.value.add(tag=tag, simple_value=values[i])
        for tag, (edges, counts, missing) in histograms.items():
            if missing[i]:
                continue
            occupied = np.flatnonzero(counts[i])
            # TensorBoard draws every bin it is given, and their ends where min and max are; with
            # no entries there are empty bins, for it cannot read a histogram without any
            first, last = occupied[[0, -1]] if len(occupied) else (0, len(counts[i]) - 1)
            histogram = event.summary.value.add(tag=tag).histo
            histogram.min, histogram.max = edges[first], edges[last + 1]
            histogram.num = counts[i].sum()
            histogram.bucket_limit.extend(edges[first + 1 : last + 2])
            histogram.bucket.extend(counts[i, first : last + 1])
        yield event


def _scalars(dataset: xr.Dataset) -> dict[str, tuple[list[float], Mask]]:
    """Values over the steps, in TensorBoard's precision, and which are missing; by tag."""
    found = {}
    for name in _numbers(dataset):
        variable = dataset[name].transpose("step", ...)
        with np.errstate(over="ignore"):
            values = variable.values.astype(np.float32)
        missing = _missing(dataset, name)
        if "layer" not in variable.dims:
            found[name] = values.tolist(), missing
            continue
        for i, layer in enumerate(_texts(dataset["layer"])):
            found[f"{name}/{layer}"] = values[:, i].tolist(), missing[:, i]
    return found


def _bars(dataset: xr.Dataset) -> dict[str, tuple[Array, Array, Mask]]:
    """Of histograms the edges (bins + 1), counts (steps, bins), and which are missing; by tag."""
    found = {}
    for name in _histograms(dataset):
        counts = dataset[name].transpose("step", "layer", "bin").values
        left = dataset["bin"].values.astype(np.float64)
        width = left[-1] - left[-2]
        # the outermost bins have no end, and a chart needs one
        edges = np.array([left[1] - width, *left[1:], left[-1] + width])
        missing = _missing(dataset, name)
        for i, layer in enumerate(_texts(dataset["layer"])):
            found[f"{name}/{layer}"] = (edges, counts[:, i], missing[:, i])
    return found


def _missing(dataset: xr.Dataset, name: str) -> Mask:
    """Where a quantity is missing: (steps,) or (steps, layers)."""
    found = mask_of(name, dataset)
    if found is not None:
        return found
    return np.zeros([size for dim, size in dataset[name].sizes.items() if dim != "bin"], bool)


@contextlib.contextmanager
def _filling(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder; on success it, or what is in it, becomes `folder`."""
    if not os.fspath(folder):
        raise FileNotFoundError("the folder must have a name, got an empty one")
    wanted = Path(folder)
    present = wanted.is_dir()
    if not present:
        with _filled(wanted, present) as made:
            yield made
        return
    try:
        lock = Lock.take(wanted / IN_FOLDER)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(wanted)) from None
    if lock is None:
        raise FileExistsError(
            f"{wanted}: another gradiometer is at work there; choose another folder"
        )
    with lock, _filled(wanted, present) as made:
        yield made


@contextlib.contextmanager
def _filled(wanted: Path, present: bool) -> Iterator[Path]:
    """As `_filling`; nobody else fills a folder that is present."""
    temporary: Path | None = None
    moved: list[Path] = []
    try:
        if present:
            # of a process that was killed; nobody else is at work there
            leftover = re.compile(rf"\.{re.escape(wanted.name)}\.[0-9a-f]{{32}}")
            for name in filter(leftover.fullmatch, os.listdir(wanted)):
                shutil.rmtree(wanted / name, ignore_errors=True)
        if wanted.exists() and (not present or {*os.listdir(wanted)} - {IN_FOLDER}):
            raise FileExistsError(
                f"{wanted}: {'holds files' if present else 'is a file'}; choose a new or an empty "
                "folder, so that runs are not mixed"
            )
        if not present:
            wanted.parent.mkdir(parents=True, exist_ok=True)
        # on the same disk, so that it can be renamed
        beside = wanted if present else wanted.parent
        temporary = beside / f".{wanted.name}.{uuid.uuid4().hex}"
        temporary.mkdir()
        yield temporary
        if present:
            # not replaced itself: it may be somebody's working directory, or a link
            for made in sorted(temporary.iterdir()):
                moved.append(made.rename(wanted / made.name))
            moved.clear()
        else:
            temporary.rename(wanted)
    except OSError as error:
        if error.errno is None:
            raise
        # not the temporary name, which says nothing to anybody
        raise OSError(error.errno, error.strerror or str(error), str(wanted)) from None
    finally:
        if temporary is not None:
            for left in (temporary, *moved):
                shutil.rmtree(left, ignore_errors=True)
