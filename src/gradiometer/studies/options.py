"""How a study is run: in which processes, how often, for how long."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, fields
from typing import Any, Self

from dp.validation import positive_integer, unknown
from gradiometer.interrupts import check_time_limit
from gradiometer.studies.description import StudyError, checked

MOST_WORKERS = 1000


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a study is run; its results do not depend on it.

    Attributes
    ----------
    resume : bool
        Go on in a folder that holds results of this study, or of a part of it.
    workers : int, optional
        Processes on this machine, each with one thread for matrix products; one for each core by
        default.
    cluster : str, optional
        Address of a Dask scheduler, such as "tcp://127.0.0.1:8786", whose workers run the
        experiments instead.
    executor : concurrent.futures.Executor, optional
        Runs the experiments instead, `workers` of them at a time.
    at_once : int, optional
        Train at most so many of an experiment's nets at a time, to save memory.
    attempts : int
        How often an experiment is tried that makes its worker process die.
    timeout : float, optional
        Seconds that an experiment may take, instead of the study's own limit. Processes of this
        machine are ended then; elsewhere the time is looked at after each training step.

    Raises
    ------
    StudyError
        Naming the option, its value and what would be accepted.
    """

    resume: bool = False
    workers: int | None = None
    cluster: str | None = None
    executor: Executor | None = None
    at_once: int | None = None
    attempts: int = 3
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "at_once", "attempts"):
            number = getattr(self, name)
            if number is not None:
                checked(positive_integer, name, number)
        if self.workers is not None and self.workers > MOST_WORKERS:
            raise StudyError(f"workers must be at most {MOST_WORKERS}, got {self.workers}")
        checked(check_time_limit, self.timeout)

    @classmethod
    def of(cls, given: dict[str, Any]) -> Self:
        """Make them of keyword arguments; TypeError for one that there is not."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise TypeError(unknown("option", name, known))
        return cls(**given)
