"""Paths that are given as options and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradiometer.cli.app import fail


def a_path(given: Any) -> Path:
    """Read a path; an empty one, such as from an unset shell variable, is refused."""
    if not str(given):
        fail("a path must not be empty; the current folder is .")
    return Path(given)


# of an option or an argument
PATH: dict[str, Any] = {"parser": a_path, "metavar": "PATH"}
