"""Libraries that only a part of gradlab needs."""

from __future__ import annotations

import importlib
from typing import Any


class MissingLibraryError(ImportError):
    """A library is not installed that only this part of gradlab needs."""


def library(module: str, extra: str, what: str) -> Any:
    """Import a module of such a library.

    Parameters
    ----------
    module : str
    extra : str
        Which of gradlab's extras installs it.
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
            f"pip install 'gradlab[{extra}]'",
            name=module,
        ) from None
