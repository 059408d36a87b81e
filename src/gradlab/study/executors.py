"""Where experiments are computed: processes of this machine, a Dask cluster, any Executor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from gradlab.optional import library

BELOW_GUARD = 'what runs a study must stand below: if __name__ == "__main__":'
STARTS = 3  # how often a worker process may die before it has begun to work
CONNECTS_WITHIN = 10  # seconds, to a cluster


class WorkerDiedError(BrokenExecutor):
    """A worker process ended in the middle of its work; the message says how."""


class NoWorkersError(OSError):
    """There is nobody to do the work: processes cannot be started, a cluster cannot be reached."""


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
    """

    executor: Executor
    slots: Callable[[], int]
    take_back: Callable[[Future[Any]], bool] = lambda future: future.cancel()


@contextlib.contextmanager
def workers_for(
    workers: int | None, cluster: str | None, executor: Executor | None
) -> Iterator[Workers]:
    """Choose by what was given; on leaving, what is under way is dropped.

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
        with LocalProcesses(count) as processes:
            try:
                yield Workers(processes, lambda: count)
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


# --- processes of this machine --------------------------------------------------------------------


class LocalProcesses(Executor):
    """Worker processes that die alone: the work of the others goes on, and each is replaced.

    A `ProcessPoolExecutor` ends all of its workers when one dies. Here each is a pool of its own,
    fed by a thread that waits for it.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, "gradlab-worker")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._pools: set[ProcessPoolExecutor] = set()
        self._processes: set[BaseProcess] = set()
        self._over = False

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `function` called in a worker process; the future may raise `WorkerDiedError`."""
        return self._threads.submit(self._call, function, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when they have done what was submitted."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        with self._lock:
            pools, self._pools = self._pools, set()
        for pool in pools:
            pool.shutdown(wait)

    def kill(self) -> None:
        """End the processes at once, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for process in self._processes:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    process.kill()
            self._over = True

    def _call(self, function: Any, args: Any, kwargs: Any) -> Any:
        pool, process = self._worker()
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenExecutor:
            self._forget(pool, process)
            raise WorkerDiedError(
                f"the worker process {process.pid} {_ending(_exitcode(process))}"
            ) from None

    def _worker(self) -> tuple[ProcessPoolExecutor, BaseProcess]:
        """The process of this thread, started anew if there is none."""
        found: tuple[ProcessPoolExecutor, BaseProcess] | None = getattr(self._own, "worker", None)
        if found is not None:
            return found
        for _ in range(STARTS):
            pool, process = self._start()
            try:
                pool.submit(_nothing).result()
            except BrokenExecutor:
                self._forget(pool, process)
                exitcode = _exitcode(process)
                if exitcode == 1:  # an error of Python's, which the next one would have as well
                    break
                continue
            self._own.worker = pool, process
            return pool, process
        hint = f"; in a script, {BELOW_GUARD}" if exitcode == 1 else ""
        raise NoWorkersError(
            f"worker processes end as soon as they start: the last one {_ending(exitcode)}{hint}"
        )

    def _start(self) -> tuple[ProcessPoolExecutor, BaseProcess]:
        context = _Spawning()
        pool = ProcessPoolExecutor(1, context, initializer=_begin_worker)
        with _sigint_blocked():  # until the process can say that it does not want it
            pool.submit(_nothing)
        [process] = context.started
        with self._lock:
            self._pools.add(pool)
            self._processes.add(process)
            if self._over:
                process.kill()
        return pool, process

    def _forget(self, pool: ProcessPoolExecutor, process: BaseProcess) -> None:
        self._own.worker = None
        with self._lock:
            self._pools.discard(pool)
            self._processes.discard(process)
        pool.shutdown(wait=False)


class _Spawning(SpawnContext):
    """Keeps the processes that are started, since a pool does not tell of them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        process = super().Process(*args, **kwargs)
        self.started.append(process)
        return process


def _nothing() -> None:
    """What a worker does to show that it is there."""


def _begin_worker() -> None:
    """Leave Ctrl-C to the driver, which gets it too; end when the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_it() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block Ctrl-C for this thread, and for the processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exitcode(process: BaseProcess) -> int | None:
    """The status of a process that has ended; None if it cannot be had."""
    end = time.monotonic() + 5
    while process.exitcode is None and time.monotonic() < end:
        # the pool asks for it too, and the system tells only one of us
        process.join(0.01)
        time.sleep(0.01)
    return process.exitcode


def _ending(exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is None:
        return "cannot be reached any more"
    if exitcode >= 0:
        return f"ended by itself with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = "unknown"
    why = "; was the memory used up?" if name == "SIGKILL" else ""
    return f"was killed by signal {-exitcode} ({name}{why})"


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
