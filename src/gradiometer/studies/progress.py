"""The live display of a study: how many are done, running, failed; how fast; how long still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gradiometer.studies.execution import (
    Began,
    Died,
    Event,
    Failed,
    Finished,
    SetAside,
    Silent,
    Stopping,
    Waiting,
    cost,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gradiometer.studies.study import Study


@contextmanager
def display(study: Study, console: Console | None = None) -> Iterator[Callable[[Event], None]]:
    """Show the progress while inside; each event is to be told to the function it gives.

    Parameters
    ----------
    study : Study
    console : rich.console.Console, optional
        The standard error stream by default.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.fields[counts]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
    )
    tally = Tally(study)
    task = bar.add_task("", total=tally.work, counts=tally.counts, rate="")

    def saw(event: Event) -> None:
        bar.start()  # not before there is anything to show
        words = tally.add(event)
        # work counts, not experiments: deep nets take longer
        bar.update(
            task,
            total=tally.work,
            completed=tally.work_done,
            counts=tally.counts,
            rate=tally.rate,
        )
        if words:
            bar.console.print(words, markup=False, highlight=False, soft_wrap=True)

    try:
        yield saw
    finally:
        bar.stop()


class Tally:
    """Counts what happens in a study.

    Attributes
    ----------
    done, running, failed, new : int
        Numbers of experiments; `new` are those done since it began.
    work, work_done : float
        What there was to do when it began, and what of it is done, in the unit of `cost`.
    """

    def __init__(self, study: Study) -> None:
        self.total = len(study.experiments)
        self.members = study.members
        self.done = self.new = self.failed = 0
        self._handed_out: set[str] = set()
        self._slots = 0
        self.work, self.work_done = sum(map(cost, study.experiments)), 0.0
        self._since = time.monotonic()  # the clock on the wall may be set meanwhile

    @property
    def running(self) -> int:
        """Experiments that workers are at; others may wait in front of them."""
        return min(len(self._handed_out), self._slots)

    def add(self, event: Event) -> str:
        """Count an event; gives what is to be said of it, or ""."""
        experiment = event.experiment
        name = experiment.title
        if isinstance(event, Began):
            self._handed_out.add(experiment.hash)
            self._slots = event.slots
            return ""
        if isinstance(event, SetAside):
            return f"warning: {event.text}"
        if isinstance(event, Waiting):
            return event.text
        if isinstance(event, Silent):
            return f"warning: {name}: {event.text}"
        if isinstance(event, Stopping):
            return (
                f"Interrupted: waiting for {self.running} experiments under way; "
                "interrupt again to drop them."
            )
        self._handed_out.discard(experiment.hash)
        if isinstance(event, Died):
            return f"warning: {name}: {event.cause}; it will be tried again"
        if isinstance(event, Finished):
            self.done += 1
            self.new += event.new
            if event.new:
                self.work_done += cost(experiment)
            else:  # it was no work
                self.work -= cost(experiment)
        if isinstance(event, Failed):
            self.failed += 1
            self.work_done += cost(experiment)
            return f"failed: {name}: {event.cause}"
        return ""

    @property
    def counts(self) -> str:
        """In words: done, running, failed."""
        failed = f" · {self.failed} failed" if self.failed else ""
        return f"{self.done}/{self.total} done · {self.running} running{failed}"

    @property
    def rate(self) -> str:
        """Nets per second since it began."""
        elapsed = time.monotonic() - self._since
        return f"{self.new * self.members / max(elapsed, 1e-9):.3g} nets/s" if self.new else ""
