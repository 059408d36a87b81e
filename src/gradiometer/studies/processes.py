"""Worker processes of this machine, each watched: that it starts, that it lives, that it ends."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

from gradiometer.interrupts import too_long

BELOW_GUARD = 'what runs a study must stand below: if __name__ == "__main__":'
STARTS = 3  # how often a worker process may die before it has begun to work
STARTS_WITHIN = 120.0  # seconds, on however slow a machine
BEAT = 1.0  # seconds between a worker's signs of life
LOOK = 0.5  # seconds between looks at them
SILENT = 10.0  # seconds without one, after which it is reported
SILENCE = 60.0  # seconds without one, after which the worker is ended
GRACE = 2.0  # seconds beyond a time limit, which the worker keeps by itself if it can


class WorkerDiedError(BrokenExecutor):
    """A worker process ended in the middle of its work; the message says how."""


class NoWorkersError(OSError):
    """There is nobody to do the work: processes cannot be started, a cluster cannot be reached."""


class _Elapsed:
    """Seconds that pass between looks, without those in which nobody could look.

    A machine that is suspended, or a group of processes that is stopped, does not work meanwhile.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def look(self) -> float:
        """Seconds since the last look, at most a few."""
        now = time.monotonic()
        passed, self._last = min(now - self._last, 4 * LOOK), now
        return passed


@dataclass(eq=False)
class _Job:
    """What is known of a piece of work while it is done."""

    process: int | None = None
    silent: float = 0.0


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process, the pool whose only one it is, and the number of its signs of life."""

    pool: ProcessPoolExecutor
    process: BaseProcess
    beats: ctypes.c_ulonglong

    def kill(self) -> None:
        """End it at once, also if it is stopped."""
        with contextlib.suppress(ValueError):  # closed meanwhile
            self.process.kill()


class LocalProcesses(Executor):
    """Worker processes that die alone: the work of the others goes on, and each is replaced.

    A `ProcessPoolExecutor` ends all of its workers when one dies, and waits for ever for one that
    is stopped. Here each is a pool of its own, fed by a thread that waits for it, and looks at its
    signs of life.

    Parameters
    ----------
    count : int
    limit : float, optional
        Seconds that a piece of work may take; its future then raises `TimeLimitError`.
    """

    # those that are at work, for whoever must end the process at once
    living: ClassVar[weakref.WeakSet[LocalProcesses]] = weakref.WeakSet()

    def __init__(self, count: int, limit: float | None = None) -> None:
        self._limit = limit
        self._threads = ThreadPoolExecutor(count, "gradiometer-worker")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._jobs: weakref.WeakKeyDictionary[Future[Any], _Job] = weakref.WeakKeyDictionary()
        self._over = False
        self.living.add(self)

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `function` called in a worker process; the future may raise `WorkerDiedError`."""
        job = _Job()
        future = self._threads.submit(self._call, job, function, args, kwargs)
        self._jobs[future] = job
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when they have done what was submitted."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        with self._lock:
            workers, self._workers = self._workers, set()
        for worker in workers:
            worker.pool.shutdown(wait)

    def kill(self) -> None:
        """End the processes at once, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for worker in self._workers:
                worker.kill()
            self._over = True

    def complaint(self, future: Future[Any]) -> str:
        """What is wrong with the worker that is at this work; empty if nothing is."""
        job = self._jobs.get(future)
        if job is None or job.silent < SILENT:
            return ""
        limit = SILENCE if self._limit is None else min(SILENCE, self._limit + GRACE)
        return (
            f"the worker process {job.process} has sent no heartbeat for {SILENT:g} s: it is "
            f"stopped, or stuck; it will be ended after {limit:g} s"
        )

    # --- work, in the thread of a worker ----------------------------------------------------------

    def _call(self, job: _Job, function: Any, args: Any, kwargs: Any) -> Any:
        worker = self._worker()
        job.process = worker.process.pid
        try:
            future = worker.pool.submit(function, *args, **kwargs)
            self._watch(job, worker, future)
            return future.result()
        except BrokenExecutor:
            self._forget(worker)
            raise WorkerDiedError(
                f"the worker process {worker.process.pid} {_ending(_exitcode(worker.process))}"
            ) from None
        except (_SilentError, _LateError) as error:
            worker.kill()
            self._forget(worker)
            if isinstance(error, _LateError):
                raise too_long(self._limit or 0.0) from None
            raise WorkerDiedError(
                f"the worker process {worker.process.pid} sent no heartbeat for {SILENCE:g} s, was "
                "stopped or stuck, and was ended"
            ) from None

    def _watch(self, job: _Job, worker: _Worker, future: Future[Any]) -> None:
        """Wait until the work is done, as long as the worker lives and the time limit allows."""
        elapsed, worked, heard = _Elapsed(), 0.0, worker.beats.value
        while not wait([future], LOOK).done:
            passed = elapsed.look()
            worked += passed
            beats = worker.beats.value
            job.silent = job.silent + passed if beats == heard else 0.0
            heard = beats
            if self._limit is not None and worked > self._limit + GRACE:
                raise _LateError
            if job.silent > SILENCE:
                raise _SilentError

    def _worker(self) -> _Worker:
        """The process of this thread, started anew if there is none."""
        found: _Worker | None = getattr(self._own, "worker", None)
        if found is not None:
            return found
        for _ in range(STARTS):
            worker = self._start()
            try:
                self._wait_for_start(worker, worker.pool.submit(_get_ready))
            except BrokenExecutor:
                self._forget(worker)
                exitcode = _exitcode(worker.process)
                if exitcode == 1:  # an error of Python's, which the next one would have as well
                    break
                continue
            self._own.worker = worker
            return worker
        hint = (
            f"; in a script, {BELOW_GUARD}; or is there too little memory?" if exitcode == 1 else ""
        )
        raise NoWorkersError(
            f"worker processes end as soon as they start: the last one {_ending(exitcode)}{hint}"
        )

    def _wait_for_start(self, worker: _Worker, future: Future[Any]) -> None:
        elapsed, waited = _Elapsed(), 0.0
        while not wait([future], LOOK).done:
            waited += elapsed.look()
            if waited > STARTS_WITHIN:
                worker.kill()
                self._forget(worker)
                raise NoWorkersError(
                    f"a worker process did not start within {STARTS_WITHIN:g} s: it is stopped or "
                    "stuck, or there is too little memory"
                )
        future.result()

    def _start(self) -> _Worker:
        context = _Spawning()
        try:
            beats = context.RawValue(ctypes.c_ulonglong)
            pool = ProcessPoolExecutor(1, context, initializer=_begin_worker, initargs=(beats,))
            with _sigint_blocked():  # until the process can say that it does not want it
                pool.submit(_get_ready)
        except (OSError, RuntimeError, MemoryError) as error:  # no memory, no threads, no files
            for process in context.started:
                with contextlib.suppress(ValueError, AttributeError):  # it never ran
                    process.kill()
            raise NoWorkersError(
                f"no worker process can be started ({error or type(error).__name__}); free some "
                "memory, or start fewer, with --workers 1"
            ) from None
        worker = _Worker(pool, context.started[0], beats)
        with self._lock:
            self._workers.add(worker)
            if self._over:
                worker.kill()
        return worker

    def _forget(self, worker: _Worker) -> None:
        self._own.worker = None
        with self._lock:
            self._workers.discard(worker)
        worker.pool.shutdown(wait=False)


class _SilentError(Exception):
    """A worker gave no sign of life for too long."""


class _LateError(Exception):
    """Work took longer than it may."""


class _Spawning(SpawnContext):
    """Keeps the processes that are started, since a pool does not tell of them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        process = super().Process(*args, **kwargs)
        self.started.append(process)
        return process


def _get_ready() -> None:
    """Show that a worker is there by the smallest experiment, which loads all that others need.

    Otherwise the first experiment's time limit would pay for it; and a library that cannot be
    loaded, as for lack of memory, would look like an experiment that is stuck.
    """
    importlib.import_module("gradiometer.studies.compute")
    experiment = importlib.import_module("gradiometer.experiment").Experiment
    experiment.of(layers=1, width=1, steps=1, decision=False).run().to_bytes()


def _begin_worker(beats: ctypes.c_ulonglong) -> None:
    """Leave Ctrl-C to the driver, which gets it too; show that one lives; end with the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    parent = multiprocessing.parent_process()
    assert parent is not None

    def beat() -> None:
        while parent.is_alive():
            beats.value += 1
            parent.join(BEAT)
        os._exit(1)

    threading.Thread(target=beat, daemon=True).start()


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
