"""The seal: the last bytes of a trace's file, with its checksum and the experiment's hash.

The netCDF content is followed by one line: "gradiometer result", the hash of the experiment (zeros
for a trace recorded without one), and a BLAKE2b digest of all bytes before it and of that hash.
HDF5 does not look beyond its own end, so every netCDF reader opens a sealed file. The digest is of
the file's bytes, and is checked before HDF5 parses any of them: damage can make HDF5 loop or crash.
"""

from __future__ import annotations

import hashlib
import re

NOBODY = "0" * 16  # in place of an experiment's hash
HASH = re.compile(r"[0-9a-f]{16}")
LINE = b"\ngradiometer result %b %b\n"
# files written under the project's first name still load
PATTERN = re.compile(rb"\n(?:gradiometer|gradlab) result ([0-9a-f]{16}) ([0-9a-f]{32})\n\Z")
LENGTH = len(LINE % (b"0" * 16, b"0" * 32))
# an attribute of the file, so that other programs can check it, and a lost seal is noticed
MARK = "checksum"
MARKED = f"BLAKE2b-128 of the file but its last {LENGTH} bytes, and of the 16 digits in these"


class DamagedError(ValueError):
    """Content that differs from what was sealed."""


class FileWarning(UserWarning):
    """A damaged file was left out, or a file without a checksum was used."""


def sealed(content: bytes, owner: str = NOBODY) -> bytes:
    """Content followed by its seal; content that is sealed already is returned as it is."""
    if PATTERN.search(content[-LENGTH:]) is not None:
        return content
    name = (owner if HASH.fullmatch(owner) else NOBODY).encode()
    return content + LINE % (name, _digest(content, name))


def owner_of(content: bytes) -> str | None:
    """The hash of the experiment that the content is of; None if it has no seal.

    Raises
    ------
    DamagedError
        If the digest is not that of the content.
    """
    tail = content[-LENGTH:]
    found = PATTERN.search(tail)
    if found is None:
        return None
    if found[2] != _digest(content[: found.start() - len(tail)], found[1]):
        raise DamagedError("it is damaged: its checksum is not that of its content")
    return found[1].decode()


def _digest(content: bytes, name: bytes) -> bytes:
    digest = hashlib.blake2b(content, digest_size=16)
    digest.update(name)
    return digest.hexdigest().encode()
