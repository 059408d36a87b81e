"""Files: written completely or not at all, so that nothing is lost; read with readable errors."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dp.validation import shown
from gradiometer.regular import parse_toml, read_regular

fcntl: Any
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows, where a file that is open cannot be renamed
    fcntl = None

MOST_LETTERS = 50
# errors that prevent writing
FAILURES = (OSError, MemoryError)


def why(error: BaseException) -> str:
    """Why something could not be read or written."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    return getattr(error, "strerror", None) or str(error)


def check_path(given: object, expected: str) -> None:
    """Raise TypeError for what is no path, saying what is expected."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{expected}, got {shown(given)}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success it becomes `path`, otherwise it is removed.

    The new file, and where the platform can, its name, are on the disk then: a power failure leaves
    the older file or the new one. Of a process that is killed, the temporary file stays; see
    `remove_leftovers`.

    Raises
    ------
    OSError
        Naming `path`, if the folder cannot be written, or the disk is full; `path` is then as it
        was.
    """
    temporary: Path | None = None
    handle: int | None = None
    try:
        target = _file_behind(path)
        temporary, handle = _temporary(target, path.suffix)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        # not the temporary name, which means nothing to the user
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _temporary(target: Path, suffix: str) -> tuple[Path, int | None]:
    """Make an empty file beside `target`, held by a lock, which shows that it is in use."""
    while True:
        handle, name = tempfile.mkstemp(
            # not the whole name, which may have the greatest length already
            prefix=f".{target.name[:MOST_LETTERS]}.",
            suffix=suffix[:MOST_LETTERS],
            dir=target.parent,
        )
        if fcntl is None:
            os.close(handle)
            return Path(name), None
        # on a file system without locks nobody removes the file
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # another process may have removed it as a leftover before it was locked
        if os.fstat(handle).st_nlink:
            return Path(name), handle
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk; where that is impossible, it is not an error."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove temporary files of these names that killed processes left; see `replacing`.

    A file that is being written stays, and so do all files where there are no locks.
    """
    if fcntl is None:
        return
    likely = re.compile(
        "|".join(
            rf"\.{re.escape(name[:MOST_LETTERS])}\.[a-z0-9_]{{8}}{re.escape(Path(name).suffix)}"
            for name in names
        )
    )
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [
            entry.path
            for entry in entries
            if likely.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        ]
        for path in found:
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
                finally:
                    os.close(handle)


def _file_behind(path: Path) -> Path:
    """The file that a path names, existing or not; behind a link, the file it points to."""
    if path.is_symlink():
        if not path.exists():
            raise _dangling(path)
        path = path.resolve()
    if path.is_dir():
        raise OSError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    return path


def _dangling(path: Path) -> OSError:
    words = f"it is a link to {os.readlink(path)}, which is not there"
    return OSError(errno.ENOENT, words, str(path))


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` completely, or leave the file as it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def keep_elsewhere(name: str, content: bytes, folder: Path | None = None) -> Path | None:
    """Write a file that cannot be written where it belongs into a new folder elsewhere.

    Parameters
    ----------
    name : str
        Of the file.
    content : bytes
    folder : Path, optional
        Where earlier files were kept; it is tried first.

    Returns
    -------
    Path or None
        The file: in the system's temporary folder, or else in the current one or the user's. None
        if it can be written nowhere.
    """
    if folder is not None:
        with contextlib.suppress(*FAILURES):
            write_atomically(folder / name, content)
            return folder / name
    for place in (tempfile.gettempdir, Path.cwd, Path.home):
        made = None
        try:
            made = Path(tempfile.mkdtemp(prefix="gradiometer-kept-", dir=place()))
            write_atomically(made / name, content)
            return made / name
        except (*FAILURES, RuntimeError):  # RuntimeError: a user without a home folder
            if made is not None:
                with contextlib.suppress(OSError):
                    made.rmdir()
    return None


def make_writable(folder: Path) -> None:
    """Make a folder, and try to write to it.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    if not folder.exists() and folder.is_symlink():
        raise _dangling(folder)
    if folder.exists() and not folder.is_dir():
        raise OSError(errno.ENOTDIR, "it is a file", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"gradiometer")


def read_toml(path: Path, failure: type[ValueError], expected: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
    failure : exception class
        Raised if the file cannot be read or is not TOML, naming it.
    expected : str
        The expected content, such as "lines such as layers = 10".
    """
    try:
        return parse_toml(read_regular(path))
    except OSError as error:
        raise failure(f"{path}: cannot be read ({why(error)})") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number with too many digits
        raise failure(f"{path}: not a TOML file ({error}); expected {expected}") from None


def storable(text: str) -> str:
    r"""Escape what files cannot hold in a text: null characters and halves of surrogate pairs.

    >>> storable("a\0b")
    'a\\x00b'
    """
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")


def spreadsheet_text(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula.

    >>> spreadsheet_text("=1+1"), spreadsheet_text("h1")
    ("'=1+1", 'h1')
    """
    return f"'{text}" if text.startswith(FORMULAS) else text


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
