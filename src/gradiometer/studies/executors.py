"""Where experiments are computed: processes of this machine, a Dask cluster, any Executor."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from typing import Any

from gradiometer.optional import library
from gradiometer.studies.processes import LocalProcesses, NoWorkersError

CONNECTS_WITHIN = 10  # seconds, to a cluster


@dataclass(frozen=True)
class Workers:
    """An Executor, and what `Executor` does not tell.

    Attributes
    ----------
    executor : Executor
    slots : callable
        How many experiments it can work on at a time, now.
    take_back : callable
        Cancels a future if its work has not begun; tells whether it could.
    complaint : callable
        What is wrong with the worker that is at a future's work; empty if nothing is known.
    """

    executor: Executor
    slots: Callable[[], int]
    take_back: Callable[[Future[Any]], bool] = lambda future: future.cancel()
    complaint: Callable[[Future[Any]], str] = lambda _: ""


@contextlib.contextmanager
def workers_for(
    workers: int | None,
    cluster: str | None,
    executor: Executor | None,
    timeout: float | None = None,
) -> Iterator[Workers]:
    """Choose by what was given; on leaving, what is under way is dropped.

    Processes of this machine are ended if an experiment takes longer than `timeout` seconds.

    Raises
    ------
    ValueError
        If more than one was given.
    NoWorkersError
        If the cluster cannot be reached.
    """
    if cluster is not None and (workers is not None or executor is not None):
        raise ValueError("a cluster has its own workers; give either cluster or workers")
    if executor is not None:  # somebody else's: it goes on afterwards
        yield Workers(executor, lambda: workers or 1)
    elif cluster is not None:
        with _dask(cluster) as found:
            yield found
    else:
        count = workers or _cores()
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is not None and not os.path.exists(script):
            raise NoWorkersError(
                f"worker processes read the script again, and cannot read {script}; put it into a "
                "file"
            )
        with LocalProcesses(count, timeout) as processes:
            try:
                yield Workers(processes, lambda: count, complaint=processes.complaint)
            finally:
                processes.kill()


def cause_of_death(error: BaseException) -> tuple[str, int] | None:
    """What made the worker die, and how many attempts that were; None if it is alive."""
    if isinstance(error, BrokenExecutor):
        return str(error), 1
    if type(error).__name__ == "KilledWorker":  # Dask tries again on its own
        attempts = getattr(error, "allowed_failures", 0) + 1
        return f"the Dask worker process died, {attempts} times in a row", attempts
    return None


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- Dask -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Workers]:
    distributed = library("distributed", "dask", "a cluster")
    try:
        client = distributed.Client(address, timeout=CONNECTS_WITHIN, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NoWorkersError(
            f"{address}: no Dask scheduler answers there ({error}); start one with `dask "
            "scheduler`, and workers with `dask worker`"
        ) from None
    asked, threads = -1.0, 0

    def slots() -> int:
        # workers come and go; asking takes a while
        nonlocal asked, threads
        if time.monotonic() - asked > 1.0:
            threads, asked = sum(client.nthreads().values()), time.monotonic()
        return threads

    executor = client.get_executor(pure=False)
    try:
        # Dask would cancel also what its workers are in the middle of
        yield Workers(executor, slots, lambda _: False)
    finally:
        executor.shutdown(wait=False)
        client.close()
