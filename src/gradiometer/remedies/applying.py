"""What trials have in common: when they end, and why one is not made."""

from __future__ import annotations

import time

import numpy as np

from dp.typing import Array
from gradiometer.interrupts import OutOfTime


class NotApplicable(Exception):  # noqa: N818 (no error: the remedy is not tried)
    """A remedy cannot be applied; its message says why."""


class Deadline:
    """When the time is over.

    Parameters
    ----------
    seconds : float, optional
        From now; None means never.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise OutOfTime if it is."""
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime


def bounded(values: Array) -> Array:
    """An accuracy or R², of which what is not finite or below 0 counts as 0."""
    return np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0)
