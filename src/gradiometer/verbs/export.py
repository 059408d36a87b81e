"""`export`: a trace for other tools."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dp.validation import unknown
from gradiometer.verbs.output import OutputError, file_of, loaded, named

if TYPE_CHECKING:
    from gradiometer.trace import Trace


def export(
    trace: Trace | str | os.PathLike[str],
    to: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a trace for other tools: a table as CSV or Parquet, or a run for TensorBoard.

    Parameters
    ----------
    trace : Trace or path of a saved one
    to : str, optional
        "csv", "parquet" or "tensorboard"; by default what the ending of `out` says, .csv or
        .parquet.
    out : path, optional
        The file, or for TensorBoard the folder. By default it is beside a saved trace: a file of
        its name, or the folder "tensorboard".

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ValueError
        For an unknown format, or one that the ending of `out` contradicts; and if `out` is missing
        for a trace that was not saved.
    TraceError
        If the file is not a trace.
    OutputError
        If it cannot be written, or would replace the trace itself.
    MissingLibraryError
        If the library that the format needs is not installed.
    FileExistsError
        If the folder for TensorBoard holds anything.
    """
    from gradiometer.exports import FORMATS
    from gradiometer.trace import Trace

    chosen = _export_format(to, out, FORMATS)
    source = None
    if not isinstance(trace, Trace):
        source = file_of(trace)
        trace = loaded(source)
    if out is not None:
        written = named(out, "a file" if chosen != "tensorboard" else "a folder")
    elif source is not None:
        in_folder = chosen == "tensorboard"
        written = source.with_name(chosen) if in_folder else source.with_suffix(f".{chosen}")
    else:
        raise ValueError("out must be given for a trace that was not saved: the path to write to")
    if source is not None and written.exists() and written.samefile(source):
        raise OutputError(f"{written}: is the trace itself; choose another file, with --out")
    try:
        FORMATS[chosen](trace, written)
    except OSError as error:
        if error.errno is None:  # it has a readable message already
            raise
        raise OutputError(f"{written}: cannot be written ({error.strerror})") from None
    return written


def _export_format(to: str | None, out: str | os.PathLike[str] | None, known: Iterable[str]) -> str:
    names = [*known]
    ending = "" if out is None else named(out, "a file or folder").suffix.lower()
    said = ending[1:] if ending in (".csv", ".parquet") else None
    if to is None and said is None:
        where = "nothing" if out is None else repr(os.fspath(out))
        raise ValueError(
            f"the format must be given: to one of {', '.join(names)}, or out with the ending .csv "
            f"or .parquet, got {where}"
        )
    chosen = to or said or ""
    if chosen not in names:
        raise ValueError(unknown("format", chosen, names))
    if said not in (None, chosen):
        raise ValueError(
            f"{os.fspath(out or '')}: the ending says {said}, but the format is {chosen}; "
            "give only one of them"
        )
    return chosen
