"""What a worker does: one experiment, from its description to the content of its file."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from gradiometer.experiment import Experiment
from gradiometer.interrupts import too_long

if TYPE_CHECKING:
    from gradiometer.trace import Trace


class StoppedError(RuntimeError):
    """The worker was told to end while it computed; what it has is not the whole."""


class OtherVersionError(RuntimeError):
    """The worker's gradiometer gives the experiment other numbers, or another description."""


def compute(
    settings: dict[str, Any],
    expected: str,
    at_once: int | None = None,
    timeout: float | None = None,
) -> bytes:
    """Run one experiment on one thread.

    Parameters
    ----------
    settings : dict
        Of an `Experiment`.
    expected : str
        Its hash, as whoever asks for it has computed it.
    at_once : int, optional
        Train at most so many of its members at a time.
    timeout : float, optional
        Seconds that it may take, looked at after each step.

    Returns
    -------
    bytes
        Of a netCDF file, the same as `Trace.save` writes.

    Raises
    ------
    TimeLimitError
        If it takes longer than it may.
    """
    experiment = Experiment.of(**settings)
    if experiment.hash != expected:
        raise OtherVersionError(
            f"this worker's gradiometer names the experiment {experiment.hash}, not {expected}: "
            "its version is another one; install the same on all machines"
        )
    # several threads would sum in another order, and fight for the cores with other workers
    with _one_thread():
        return run(experiment, at_once, timeout).to_bytes()


def run(experiment: Experiment, at_once: int | None = None, timeout: float | None = None) -> Trace:
    """Train all members, or groups of them one after the other; the trace is the same."""
    began = time.monotonic()
    if at_once is None or at_once >= experiment.members:
        return _whole(experiment, timeout, began)
    from gradiometer.studies.grouping import join

    settings = experiment.given()
    traces = []
    for first in range(0, experiment.members, at_once):
        members = min(at_once, experiment.members - first)
        group = {**settings, "seed": experiment.seed + first, "members": members}
        traces.append(_whole(Experiment.of(**group), timeout, began))
    return join(traces, experiment)


def _whole(experiment: Experiment, timeout: float | None, began: float) -> Trace:
    left = None
    if timeout is not None:
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            raise too_long(timeout)
    trace = experiment.run(timeout=left)
    if timeout is not None and "time_limit" in trace.attrs:
        raise too_long(timeout)
    if "asked_to_stop" in trace.attrs or trace.attrs["interrupted"]:
        raise StoppedError(f"stopped after step {trace.attrs['steps_done']} of {experiment.steps}")
    return trace


class _OneThread:
    """Matrix products on one thread while anybody is inside: several workers may be threads.

    The library obeys the thread alone that set a limit first; so a thread of our own does it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None
        self._setter = ThreadPoolExecutor(1, "gradiometer-threads")

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = self._setter.submit(lambda: _threads().limit(limits=1)).result()
                self._setter.submit(self._limit.__enter__).result()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._setter.submit(self._limit.__exit__, None, None, None).result()


def _one_thread() -> AbstractContextManager[Any]:
    if threading.current_thread() is threading.main_thread():
        limit: AbstractContextManager[Any] = _threads().limit(limits=1)
        return limit
    return _limit_for_threads


_limit_for_threads = _OneThread()


@functools.cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
