"""How much of the time recording takes."""

from __future__ import annotations

import threading
from time import perf_counter


class _Here(threading.local):
    depth = 0
    started = 0.0


class Clock:
    """Counts the time that recording takes, of each thread and not twice where blocks are nested.

    Used as a context manager. What is called too often for that takes `perf_counter()` as it
    begins, and tells `since` of it.

    Attributes
    ----------
    seconds : float
        What it has counted, in all threads.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._here = _Here()

    @property
    def total(self) -> float:
        """Seconds that recording took; more than was counted where a clock cannot see all."""
        return self.seconds

    def __enter__(self) -> None:
        here = self._here
        if not here.depth:
            here.started = perf_counter()
        here.depth += 1

    def __exit__(self, *_: object) -> None:
        here = self._here
        here.depth -= 1
        if not here.depth:
            self.seconds += perf_counter() - here.started

    def since(self, began: float) -> None:
        """Count the time from `began` until now, unless a `with` block around it does."""
        if not self._here.depth:
            self.seconds += perf_counter() - began
