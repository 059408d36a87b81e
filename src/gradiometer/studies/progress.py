"""How far a study is: how many experiments are done, running, failed; how fast they are done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gradiometer.studies.events import (
    ExperimentBegun,
    ExperimentEvent,
    ExperimentFailed,
    ExperimentFinished,
    ResultSetAside,
    StudyStopping,
    StudyWaiting,
    WorkerDied,
    WorkerSilent,
)
from gradiometer.studies.execution import cost

if TYPE_CHECKING:
    from gradiometer.studies.study import Study


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

    def add(self, event: ExperimentEvent) -> str:
        """Count an event; gives what is to be said of it, or ""."""
        experiment = event.experiment
        name = experiment.title
        if isinstance(event, ExperimentBegun):
            self._handed_out.add(experiment.hash)
            self._slots = event.slots
            return ""
        if isinstance(event, ResultSetAside):
            return f"warning: {event.text}"
        if isinstance(event, StudyWaiting):
            return event.text
        if isinstance(event, WorkerSilent):
            return f"warning: {name}: {event.text}"
        if isinstance(event, StudyStopping):
            return (
                f"Interrupted: waiting for {self.running} experiments under way; "
                "interrupt again to drop them."
            )
        self._handed_out.discard(experiment.hash)
        if isinstance(event, WorkerDied):
            return f"warning: {name}: {event.cause}; it will be tried again"
        if isinstance(event, ExperimentFinished):
            self.done += 1
            self.new += event.new
            if event.new:
                self.work_done += cost(experiment)
            else:  # it was no work
                self.work -= cost(experiment)
        if isinstance(event, ExperimentFailed):
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
