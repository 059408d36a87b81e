"""Files and folders that verbs write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.files import make_writable, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACE, DESCRIPTION = "trace.nc", "experiment.toml"


class OutputError(OSError):
    """A folder or file that cannot be written, said before any work is done."""


def writable_folder(out: str | os.PathLike[str]) -> Path:
    """Make a folder, and check that it can be written to.

    Raises
    ------
    OutputError
        If it cannot.
    """
    if not os.fspath(out):
        raise OutputError("out must be the name of a folder, got an empty one")
    folder = Path(out)
    try:
        make_writable(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({error.strerror}); choose a folder that can, with "
            "--out"
        ) from None
    return folder


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the file's ending chooses the format.

    Raises
    ------
    OutputError
        If the ending is of no format that figures have, or the file cannot be written.
    """
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise OutputError(
            f"{path}: a figure's file must end in one of {', '.join(f'.{f}' for f in formats)}"
        )
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def file_of(trace: str | os.PathLike[str]) -> Path:
    """Give the file of a saved trace, which may be named by its folder."""
    path = Path(trace)
    return path / TRACE if path.is_dir() else path
