"""How much of the time recording takes."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable


class Clock(threading.local):
    """Counts the time inside `with` blocks, of each thread and not twice where they are nested.

    Parameters
    ----------
    spent : weak reference to a method
        Which is told the seconds.
    """

    def __init__(self, spent: weakref.WeakMethod[Callable[[float], None]]) -> None:
        self._spent = spent
        self._depth, self._started = 0, 0.0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            seconds = time.perf_counter() - self._started
            if (spent := self._spent()) is not None:
                spent(seconds)
