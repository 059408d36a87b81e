"""Regular files, read without blocking: the kind of file is checked first.

Opening a named pipe blocks, a device such as /dev/zero never ends, and a file of many
gigabytes fills the memory. None of these can describe an experiment.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

MOST_BYTES = 16 * 2**20  # of a description
MOST_NESTED = 50  # tables and arrays in one another; descriptions have three
MOST_BITS = 100  # of an integer: TOML has 63, and a sign
MOST_PARTS = 100  # of a dotted key: parsing takes time quadratic in their number

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NotRegularError(OSError):
    """A path that is not a regular file, or a file that is too large; the message says which."""


def check_regular(path: str | os.PathLike[str], most: int | None = None) -> None:
    """Check what is at a path, without opening it.

    Raises
    ------
    NotRegularError
        If it is a folder, a pipe, a device or a socket; if it has more than `most` bytes.
    OSError
        If there is nothing, or links that go round in a circle.
    """
    try:
        found = os.stat(path)
    except ValueError as error:  # a null byte in the name
        raise NotRegularError(str(error)) from None
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise NotRegularError(f"it is {_KINDS.get(kind, 'no regular file')}, not a regular file")
    if most is not None and found.st_size > most:
        raise NotRegularError(f"it has {found.st_size:,} bytes; at most {most:,} are read")


def read_regular(path: str | os.PathLike[str], most: int | None = MOST_BYTES) -> bytes:
    """Read a regular file of at most so many bytes; errors as those of `check_regular`."""
    check_regular(path, most)
    # in case it was replaced in between: a pipe that is opened so does not wait for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        content = file.read(-1 if most is None else most + 1)
    if most is not None and len(content) > most:  # files in /proc report a size of 0
        raise NotRegularError(f"it has more than {most:,} bytes, which is the most that is read")
    return content


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse TOML, within the limits of a description.

    Raises
    ------
    ValueError
        If it is not TOML, not UTF-8, or nested more deeply than descriptions are.
    """
    text = content.decode("utf-8-sig")
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_PARTS and any(
            key.count(".") >= MOST_PARTS for key in _keys(line)
        ):
            raise ValueError(f"line {number} has a key of more than {MOST_PARTS} parts")
    try:
        fields = tomllib.loads(text)
    except RecursionError:
        raise ValueError("its tables or arrays are nested too deeply") from None
    _check_values(fields)
    return fields


def _keys(line: str) -> Iterator[str]:
    """What may be a key in a line: what stands before each =, and a table's heading."""
    *before, last = line.split("=")
    for chunk in before:
        yield chunk.rsplit(",", 1)[-1].rsplit("{", 1)[-1]
    if not before and "," not in last:
        yield last


def _check_values(fields: dict[str, Any]) -> None:
    """Raise ValueError for what is nested too deeply, or too large to be written; no recursion."""
    level: list[Any] = [fields]
    for _ in range(MOST_NESTED + 1):
        inner: list[Any] = []
        for each in level:
            values: Iterable[Any] = each.values() if isinstance(each, dict) else each
            for value in values:
                if isinstance(value, (dict, list)):
                    inner.append(value)
                elif isinstance(value, int) and value.bit_length() > MOST_BITS:
                    raise ValueError(f"it has an integer of {value.bit_length()} bits")
        if not inner:
            return
        level = inner
    raise ValueError(f"its tables or arrays are nested more than {MOST_NESTED} deep")
