"""How verbs report their end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from signal import SIGINT

from gradiometer.events import Guarded, Interrupted
from gradiometer.interrupts import Interrupts


@contextlib.contextmanager
def interruptible(tell: Guarded, doing: str) -> Iterator[Interrupts]:
    """Let an interrupt end only the block, and report it.

    Afterwards `raised` says whether one did. Within the block `check` raises KeyboardInterrupt
    again that something in it swallowed.
    """
    with Interrupts() as interrupts:
        try:
            yield interrupts
            interrupts.check()
        except KeyboardInterrupt:
            interrupts.raised = True
            tell(Interrupted(interrupts.signal or SIGINT, doing))
