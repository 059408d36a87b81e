"""The versions that a run was made with."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """Of Python, NumPy, gradiometer, and other packages that took part, by name.

    >>> {"numpy", "python", "scipy"} <= versions("scipy").keys()
    True
    """
    found = {"python": platform.python_version()}
    for name in ("numpy", "gradiometer", *packages):
        with contextlib.suppress(PackageNotFoundError):  # gradiometer, running from a source tree
            found[name] = version(name)
    return found
