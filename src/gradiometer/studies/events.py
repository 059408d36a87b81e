"""What happens to the experiments of a study, told by `Study.events` as it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gradiometer.events import Event
from gradiometer.experiment import Experiment
from gradiometer.trace import Trace


@dataclass(frozen=True, slots=True)
class ExperimentEvent(Event):
    """Something that happened to an experiment of a study."""

    experiment: Experiment


@dataclass(frozen=True, slots=True)
class ExperimentBegun(ExperimentEvent):
    """It was handed to the workers, which can work on `slots` at a time; some may have to wait."""

    slots: int


@dataclass(frozen=True, slots=True)
class ExperimentTakenBack(ExperimentEvent):
    """It was handed to the workers, but will not be begun."""


@dataclass(frozen=True, slots=True)
class ExperimentFinished(ExperimentEvent):
    """It is done; `new` tells whether it was computed by this driver."""

    new: bool
    _read: Callable[[], Trace] = field(repr=False, compare=False)

    @property
    def trace(self) -> Trace:
        """What it recorded; read from its file, or as the worker sent it."""
        return self._read()


@dataclass(frozen=True, slots=True)
class WorkerDied(ExperimentEvent):
    """Its worker process died; it will be tried again."""

    cause: str
    attempt: int


@dataclass(frozen=True, slots=True)
class WorkerSilent(ExperimentEvent):
    """Its worker gives no sign of life; `text` says for how long, and what will become of it."""

    text: str


@dataclass(frozen=True, slots=True)
class ExperimentFailed(ExperimentEvent):
    """It will not be done: `cause` says why in a line, `text` with the traceback."""

    cause: str
    text: str
    attempts: int


@dataclass(frozen=True, slots=True)
class ResultSetAside(ExperimentEvent):
    """Its file was damaged, or another's; `text` says where it is now. It is done anew."""

    text: str


@dataclass(frozen=True, slots=True)
class StudyWaiting(ExperimentEvent):
    """Nothing can be done for a while; `text` says for what one waits: workers, other drivers."""

    text: str


@dataclass(frozen=True, slots=True)
class StudyStopping(ExperimentEvent):
    """An interrupt came: this experiment, and others under way, are waited for."""
