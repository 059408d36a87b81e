"""Libraries that only a part of gradiometer needs."""

from __future__ import annotations

import importlib
from typing import Any


class MissingLibraryError(ImportError):
    """A library is not installed that only this part of gradiometer needs."""


def library(module: str, extra: str, what: str) -> Any:
    """Import a module of such a library.

    Parameters
    ----------
    module : str
    extra : str
        Which of gradiometer's extras installs it.
    what : str
        What needs it, such as "exporting to parquet".

    Raises
    ------
    MissingLibraryError
        Saying what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"{what} needs {module.split('.')[0]} ({error}); install it: "
            f"pip install 'gradiometer[{extra}]'",
            name=module,
        ) from None
