"""What is changed for a while, and then is as it was: attributes, and random streams."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np


def replace(owner: Any, name: str, value: Any, undo: contextlib.ExitStack) -> None:
    """Give an object another attribute, unnoticed by its class, until `undo` is closed."""
    missing = object()
    before = vars(owner).get(name, missing)

    def restore() -> None:
        if before is missing:
            vars(owner).pop(name, None)
        else:
            object.__setattr__(owner, name, before)

    undo.callback(restore)  # first, for the sake of interrupts
    object.__setattr__(owner, name, value)


@contextlib.contextmanager
def same_streams() -> Iterator[None]:
    """Put the random streams of Python and NumPy back to where they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
