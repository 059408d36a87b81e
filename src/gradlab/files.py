"""Files: written so that nothing is lost, wholly or not at all; and read with errors in words."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradlab.regular import parse_toml, read_regular, words_of


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success it becomes `path`, otherwise it vanishes.

    Raises
    ------
    OSError
        Naming `path`, if the folder cannot be written, or the disk is full; `path` is then as it
        was.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        temporary.replace(path)
    except OSError as error:
        # not the temporary name, which says nothing to anybody
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, or leave what was there."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def make_writable(folder: Path) -> None:
    """Make a folder, and try to write to it.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"gradlab")


def read_toml(path: Path, failure: type[ValueError], expected: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
    failure : exception class
        Raised if the file cannot be read or is not TOML, naming it.
    expected : str
        What it would have, such as "lines such as layers = 10".
    """
    try:
        return parse_toml(read_regular(path))
    except OSError as error:
        raise failure(f"{path}: cannot be read ({words_of(error)})") from None
    except ValueError as error:  # no TOML, no UTF-8, a number of too many digits
        raise failure(f"{path}: not a TOML file ({error}); expected {expected}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
