"""Carrying a study out: what to start next, what to do when it fails, when to stop.

Written against `concurrent.futures.Executor` alone. The driver, whose loop this is, is the only one
that writes into the study's folder, so that workers may run on other machines.
"""

from __future__ import annotations

import functools
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any

from gradiometer.experiment import Experiment
from gradiometer.files import FAILURES
from gradiometer.interrupts import Interrupts, TimeLimitError
from gradiometer.locks import Lock
from gradiometer.memory import TooLargeError
from gradiometer.studies import compute as in_worker
from gradiometer.studies.events import (
    ExperimentBegun,
    ExperimentEvent,
    ExperimentFailed,
    ExperimentFinished,
    ExperimentTakenBack,
    ResultSetAside,
    StudyStopping,
    StudyWaiting,
    WorkerDied,
    WorkerSilent,
)
from gradiometer.studies.executors import Workers, cause_of_death
from gradiometer.studies.folder import StudyFolder
from gradiometer.studies.processes import NoWorkersError
from gradiometer.trace import Trace

Compute = Callable[[dict[str, Any], str, int | None], bytes]

# Experiments handed out per worker: one is computed, and one waits, so that no worker does.
AHEAD = 2
PATIENCE = 0.2  # seconds between looks at what no future tells: signals, other drivers
WAITED = 10.0  # seconds that experiments under way have left after SIGTERM
# Worker processes that die in a row, with nothing done in between, before the cheapest experiments
# are tried instead; if as many die of these, no more are.
STORM = 12


class ExperimentsFailedError(RuntimeError):
    """Experiments of a study failed; all others are done.

    Attributes
    ----------
    failures : list of ExperimentFailed
    """

    def __init__(self, failures: list[ExperimentFailed]) -> None:
        self.failures = failures
        first = failures[0]
        count = "an experiment" if len(failures) == 1 else f"{len(failures)} experiments"
        super().__init__(f"{count} failed, the first, {first.experiment.title}: {first.cause}")


def execute(
    experiments: Sequence[Experiment],
    workers: Workers,
    folder: StudyFolder | None,
    *,
    at_once: int | None = None,
    attempts: int = 3,
    compute: Compute | None = None,
    timeout: float | None = None,
) -> Iterator[ExperimentEvent]:
    """Run experiments, those first that take longest; give what happens as it does.

    What is finished is in the folder before it is told. Those that another driver works on are left
    to it, and taken over if it dies. An interrupt ends the handing out; what is under way is waited
    for, unless a second one comes: after Ctrl-C until it is done, after SIGTERM for some seconds.
    An experiment that takes longer than `timeout` seconds fails.

    Raises
    ------
    KeyboardInterrupt
        After an interrupt, when what was under way is finished.
    OSError
        If results cannot be written.
    NoWorkersError
        If no worker can be had, or all of them die, or the connection to them is lost.
    """
    if compute is None:
        compute = in_worker.compute
        if timeout is not None:
            compute = functools.partial(in_worker.compute, timeout=timeout)
    run = _Execution(workers, folder, compute, at_once, attempts)
    yield from run.those_there(experiments)
    yield from run.loop()


@dataclass
class _Task:
    experiment: Experiment
    lock: Lock | None = None
    attempts: int = 0

    def release(self) -> None:
        """Let other drivers have it."""
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.release()


class _Execution:
    def __init__(
        self,
        workers: Workers,
        folder: StudyFolder | None,
        compute: Compute,
        at_once: int | None,
        attempts: int,
    ) -> None:
        self.workers, self.folder, self.compute = workers, folder, compute
        self.at_once, self.attempts = at_once, attempts
        self.waiting: deque[_Task] = deque()
        self.elsewhere: deque[_Task] = deque()  # another driver works on them
        self.running: dict[Future[bytes], _Task] = {}
        self.taken: list[tuple[Future[bytes], _Task]] = []  # done, but not written yet
        self.interrupts = 0
        self.end: float | None = None  # when what is under way is dropped
        self.deaths = self.in_a_row = 0  # of workers, with nothing done in between
        self.cheapest_first = self.able = False  # able: something was done since
        self.complained: set[Future[bytes]] = set()
        self.told = False
        self.waited_for = ""

    def those_there(self, experiments: Sequence[Experiment]) -> Iterator[ExperimentEvent]:
        """Tell what the folder has; the rest waits, the longest first."""
        missing = []
        there = self.folder.files() if self.folder is not None else set()
        for experiment in experiments:
            if Interrupts.noted():  # to look at thousands of files takes a while
                raise KeyboardInterrupt
            if experiment.hash in there and self._is_done(experiment):
                yield self._found(experiment)
            else:
                missing.append(_Task(experiment))
        self.waiting.extend(sorted(missing, key=lambda task: -cost(task.experiment)))

    def loop(self) -> Iterator[ExperimentEvent]:
        """Hand out, wait, take what is done, until there is nothing left."""
        try:
            while self.waiting or self.running or self.elsewhere:
                if self.interrupts:
                    yield from self._take_back()
                    late = self.end is not None and time.monotonic() > self.end
                    if self.interrupts > 1 or late or not self.running:
                        raise KeyboardInterrupt
                    if not self.told:
                        self.told = True
                        yield StudyStopping(next(iter(self.running.values())).experiment)
                else:
                    yield from self._hand_out()
                    yield from self._say_for_what_one_waits()
                done = self._wait()
                yield from self._complain()
                self.taken = [(future, self.running.pop(future)) for future in done]
                lost = None
                if not self.interrupts:  # before results are written: workers need not wait for it
                    try:
                        yield from self._hand_out()
                    except NoWorkersError as error:
                        lost = error
                while self.taken:
                    event = self._take(*self.taken[0])
                    del self.taken[0]
                    yield event
                if lost is not None:
                    raise lost
        except FAILURES as error:
            unwritten = self._write_what_is_done()
            if self.folder is None or not unwritten:
                raise
            raise self.folder.keep(error, unwritten) from None
        finally:
            for task in (*self.waiting, *self.running.values(), *(task for _, task in self.taken)):
                task.release()
            for future in self.running:
                future.cancel()

    # --- handing out ------------------------------------------------------------------------------

    def _hand_out(self) -> Iterator[ExperimentEvent]:
        slots = self.workers.slots()
        looked_at = len(self.elsewhere)
        while len(self.running) < AHEAD * slots:
            if self.waiting:
                task = self.waiting.popleft()
            elif looked_at:  # another driver may have finished them, or died
                looked_at -= 1
                task = self.elsewhere.popleft()
            else:
                return
            yield from self._start(task, slots)

    def _say_for_what_one_waits(self) -> Iterator[ExperimentEvent]:
        others = len(self.elsewhere)
        if self.running:
            text = ""
        elif self.workers.slots() == 0:
            text = "no workers are there yet; waiting for one to join"
        elif others:
            text = f"waiting for {others} experiments that another driver works on"
        else:
            text = ""
        if text and text != self.waited_for:
            task = (self.elsewhere or self.waiting)[0]
            yield StudyWaiting(task.experiment, text)
        self.waited_for = text

    def _start(self, task: _Task, slots: int) -> Iterator[ExperimentEvent]:
        if self.folder is not None and task.lock is None:
            task.lock = self.folder.lock(task.experiment)
            if task.lock is None:
                self.elsewhere.append(task)
                return
            # looked at only now that nobody else can be writing it
            if self._is_done(task.experiment):
                task.release()
                yield self._found(task.experiment)
                return
            aside = self.folder.set_aside(task.experiment)
            if aside:
                yield ResultSetAside(task.experiment, aside)
        settings = task.experiment.given()
        try:
            future = self.workers.executor.submit(
                self.compute, settings, task.experiment.hash, self.at_once
            )
        except RuntimeError as error:  # BrokenExecutor among them: an executor of the user's
            task.release()
            raise NoWorkersError(f"the executor takes no more work ({error})") from None
        self.running[future] = task
        yield ExperimentBegun(task.experiment, slots)

    def _take_back(self) -> Iterator[ExperimentEvent]:
        """Keep workers from beginning anything new."""
        for future, task in [*self.running.items()]:
            if self.workers.take_back(future):
                del self.running[future]
                task.release()
                self.waiting.appendleft(task)
                yield ExperimentTakenBack(task.experiment)

    def _is_done(self, experiment: Experiment) -> bool:
        return self.folder is not None and self.folder.is_done(experiment)

    def _found(self, experiment: Experiment) -> ExperimentFinished:
        assert self.folder is not None
        folder, path = self.folder, str(self.folder.path_of(experiment))
        return ExperimentFinished(
            experiment, False, lambda: Trace.from_bytes(folder.read(experiment), path)
        )

    # --- waiting ----------------------------------------------------------------------------------

    def _wait(self) -> set[Future[bytes]]:
        """Wait a moment for results, and note signals instead of being torn out of the work."""
        with Interrupts() as interrupts:
            interrupts.finish()
            if self.running:
                done = wait(self.running, PATIENCE, FIRST_COMPLETED).done
            else:
                done = set()
                time.sleep(PATIENCE)
            self._note(interrupts)
        return done

    def _note(self, interrupts: Interrupts) -> None:
        """Count the signals that came; whoever is asked to end has not much time."""
        self.interrupts = max(self.interrupts, _came(interrupts))
        if self.end is None and interrupts.signal not in (None, signal.SIGINT):
            self.end = time.monotonic() + WAITED

    def _complain(self) -> Iterator[ExperimentEvent]:
        """Tell once of each worker that is stopped or stuck."""
        for future, task in self.running.items():
            text = "" if future in self.complained else self.workers.complaint(future)
            if text:
                self.complained.add(future)
                yield WorkerSilent(task.experiment, text)
        self.complained.intersection_update(self.running)

    # --- taking results ---------------------------------------------------------------------------

    def _take(self, future: Future[bytes], task: _Task) -> ExperimentEvent:
        try:
            content = future.result()
        except CancelledError:
            raise NoWorkersError(
                "the connection to the workers was lost; what is finished is saved"
            ) from None
        except NoWorkersError:
            raise
        except BaseException as error:
            return self._failed(task, error)
        experiment = task.experiment
        if self.folder is not None:
            with Interrupts() as interrupts:
                interrupts.finish()
                self.folder.write(experiment, content)
                self._note(interrupts)
        task.release()
        self._was_able()
        return ExperimentFinished(experiment, True, lambda: Trace.from_bytes(content))

    def _write_what_is_done(self) -> list[tuple[Experiment, bytes]]:
        """Write what workers have sent before an error ends the study; gives what cannot be."""
        unwritten = []
        for future, task in {**dict(self.taken), **self.running}.items():
            if not future.done() or future.cancelled() or future.exception() is not None:
                continue
            try:
                if self.folder is not None:
                    self.folder.write(task.experiment, future.result())
            except FAILURES:
                unwritten.append((task.experiment, future.result()))
        return unwritten

    def _failed(self, task: _Task, error: BaseException) -> ExperimentEvent:
        death = cause_of_death(error)
        if death is None and isinstance(error, in_worker.StoppedError):
            death = str(error), 1
        cause, spent = death or (_line(error), 1)
        task.attempts += spent
        if death:
            self._count_death(cause)
        else:
            self._was_able()
        if death and task.attempts < self.attempts:
            # at the end: what kills workers must not keep the others waiting
            self.waiting.append(task)
            return WorkerDied(task.experiment, cause, task.attempts)
        if death:
            cause = f"failed after {task.attempts} tries: {cause}"
        in_words = isinstance(error, (TimeLimitError, TooLargeError))
        if in_words:
            cause = str(error)
        text = cause if death or in_words else "".join(traceback.format_exception(error))
        if self.folder is not None:
            self.folder.note_failure(task.experiment, text)
        task.release()
        return ExperimentFailed(task.experiment, cause, text, task.attempts)

    def _was_able(self) -> None:
        """Note that a worker lived to the end of an experiment."""
        self.able, self.deaths, self.in_a_row = True, 0, 0

    def _count_death(self, cause: str) -> None:
        """End a study whose workers all die, instead of starting new ones for each experiment."""
        self.deaths += 1
        self.in_a_row += 1
        if self.deaths < STORM:
            return
        if self.cheapest_first:
            if self.able:
                return
            raise NoWorkersError(
                f"{self.in_a_row} worker processes crashed one after the other, and nothing was "
                f"finished in between; the last one: {cause}"
            )
        # those that need the most come first: it may be these that there is no memory for
        # what is handed out already may die as well, and tells nothing of the cheapest
        self.cheapest_first, self.able, self.deaths = True, False, -len(self.running)
        self.waiting = deque(sorted(self.waiting, key=lambda task: cost(task.experiment)))


def _came(interrupts: Interrupts) -> int:
    return 0 if interrupts.signal is None else 1 + interrupts.again


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def cost(experiment: Experiment) -> float:
    """About how long an experiment takes compared with others; no unit."""
    e = experiment
    hidden = (e.layers + 1) * e.width
    per_member = e.batch_size * hidden * (e.width + 30)  # products, and what is done entry by entry
    return e.steps * ((e.layers + 1) * 2e5 + e.members * per_member)
