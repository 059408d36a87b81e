"""Files and folders that verbs write: checked before any work, and written so nothing is lost."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gradiometer.files import FAILURES, check_path, make_writable, replacing, why
from gradiometer.locks import IN_FOLDER, Lock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.trace import Trace

TRACE, DESCRIPTION, REPORT = "trace.nc", "experiment.toml", "report.html"
# of a run; named here too, so that a folder can be checked without loading matplotlib
FIGURE_NAMES = ("gradients", "panels", "heatmap", "profile", "learning", "decision")
WITH_THEORY = ("heatmap", "profile")  # figures that can show a prediction


class OutputError(OSError):
    """A folder or file that cannot be written.

    Attributes
    ----------
    trace : Trace or None
        The result of a training that could not be written where it should.
    """

    trace: Trace | None = None


def named(out: str | os.PathLike[str], what: str = "a folder") -> Path:
    """Give a path that was asked for.

    Raises
    ------
    TypeError, OutputError
        If it is no path, or is empty.
    """
    check_path(out, f"out must be the path of {what}")
    if not os.fspath(out):
        raise OutputError(f"out must be the name of {what}, got an empty one")
    return Path(out)


def writable_folder(out: str | os.PathLike[str]) -> Path:
    """Make a folder, and check that it can be written to.

    Raises
    ------
    OutputError
        If it cannot.
    """
    folder = named(out)
    try:
        make_writable(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({why(error)}); choose a folder that can, with --out"
        ) from None
    return folder


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder until the block ends, however it ends.

    Raises
    ------
    OutputError
        If another one is running there.
    """
    try:
        lock = Lock.take(folder / IN_FOLDER)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({why(error)}); choose a folder that can, with --out"
        ) from None
    if lock is None:
        raise OutputError(
            f"{folder}: another gradiometer is running there; choose another folder, or wait for "
            "it to end"
        )
    with lock:
        yield


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Raise an error that says which file cannot be written, and why.

    Raises
    ------
    OutputError
        For any OSError or MemoryError in the block.
    """
    try:
        yield
    except OutputError:
        raise
    except FAILURES as error:
        raise OutputError(f"{path}: cannot be written ({why(error)})") from None


def save_figure(figure: Figure, out: str | os.PathLike[str]) -> None:
    """Write a figure; the file's ending chooses the format.

    Raises
    ------
    OutputError
        If the ending is not a format of figures, or the file cannot be written.
    """
    path = named(out, "a file")
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise OutputError(
            f"{path}: a figure's file must end in one of {', '.join(f'.{f}' for f in formats)}"
        )
    from gradiometer.plots.canvas import without_glyph_warnings

    with errors_of(path), replacing(path) as temporary, without_glyph_warnings():
        figure.savefig(temporary, dpi=150)


def file_of(trace: str | os.PathLike[str]) -> Path:
    """Give the file of a saved trace, which may be named by its folder.

    Raises
    ------
    TypeError
        If it is neither a path nor a trace.
    TraceError
        If the name is empty: it would mean the current folder.
    """
    check_path(trace, "expected a trace, or the path of its file or folder")
    if not os.fspath(trace):
        from gradiometer.trace import TraceError

        raise TraceError("a trace is named by its file or its folder, got an empty name")
    path = Path(trace)
    return path / TRACE if path.is_dir() else path


def loaded(trace: str | os.PathLike[str]) -> Trace:
    """Read a saved trace, named by its file or its folder.

    Raises
    ------
    TraceError
        If the file is not a trace, or is damaged.

    Warns
    -----
    FileWarning
        If the file has no checksum.
    """
    from gradiometer.seal import FileWarning
    from gradiometer.trace import Trace

    file = file_of(trace)
    found = Trace.load(file)
    if not found.verified:
        warnings.warn(
            f"{file}: has no checksum, so that damage may go unnoticed; "
            "Trace.load(path).save(path) adds one",
            FileWarning,
            stacklevel=2,
        )
    return found
