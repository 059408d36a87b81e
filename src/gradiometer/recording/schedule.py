"""Which steps are recorded: every k-th, and no more than `max_overhead` allows."""

from __future__ import annotations

import time

from dp.validation import number, positive_integer
from gradiometer.recording.clock import Clock


class Schedule:
    """Decides which steps are recorded, and counts the time that recording takes.

    Parameters
    ----------
    every : int
        Record every k-th step, starting with the first.
    max_overhead : float, optional
        Leave out steps, so that recording takes at most this share of the time.
    always : int
        So many steps are recorded whatever they take.

    Attributes
    ----------
    clock : Clock
        `with clock:` around what recording takes. An adapter may put one of its own here.
    """

    def __init__(self, every: int = 1, max_overhead: float | None = None, always: int = 1) -> None:
        positive_integer("every", every)
        if max_overhead is not None and not 0 < number("max_overhead", max_overhead) <= 1:
            raise ValueError(
                f"max_overhead must be a share of the time, above 0 and at most 1 (0.05 for 5 %), "
                f"got {max_overhead!r}"
            )
        self.every, self.max_overhead, self.always = every, max_overhead, always
        self.clock = Clock()
        self._before = 0.0  # seconds it was on until it was last turned off
        self._since: float | None = None
        self._decided = (0, False)  # a step, and whether it is recorded
        self._chosen = 0  # how many were decided to be
        self._then = (0.0, 0.0)  # spent, and on, when the last such step began

    @property
    def all(self) -> bool:
        """Whether every step is recorded."""
        return self.every == 1 and self.max_overhead is None

    def wants(self, step: int) -> bool:
        """Whether step number `step` (from 1) is to be recorded; the answer stays the same."""
        if (step - 1) % self.every:
            return False
        if self.max_overhead is None:
            return True
        if step != self._decided[0]:
            # since the step that was recorded last, so that a slow beginning earns no credit
            spent, on = self.clock.total - self._then[0], self.on - self._then[1]
            wanted = self._chosen < self.always or spent <= self.max_overhead * on
            self._decided = (step, wanted)
            if wanted:
                self._chosen += 1
                self._then = self.clock.total, self.on
        return self._decided[1]

    def turn(self, on: bool) -> None:
        """Say that training goes on while it is recorded, or that it does not any more."""
        now = time.perf_counter()
        if self._since is not None:
            self._before += now - self._since
        self._since = now if on else None

    @property
    def on(self) -> float:
        """Seconds during which it was on."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def overhead(self) -> float:
        """Share of the time that recording took, of all the time during which it was on."""
        # a clock that estimates what it cannot see may count too much
        return min(1.0, self.clock.total / max(self.on, 1e-12))
