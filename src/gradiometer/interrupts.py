"""Ctrl-C, SIGTERM and time limits: the work stops, and what was done is still saved."""

from __future__ import annotations

import math
import signal
import sys
import threading
from contextvars import ContextVar
from numbers import Real
from types import FrameType, TracebackType
from typing import Any, ClassVar

_STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class TimeLimitError(RuntimeError):
    """An experiment took longer than its time limit."""


def too_long(seconds: float) -> TimeLimitError:
    """The error of an experiment with a time limit of so many seconds."""
    return TimeLimitError(f"took longer than its time limit of {seconds:g} s")


class OutOfTime(KeyboardInterrupt):
    """Ends a training at its time limit, as Ctrl-C would."""


def check_time_limit(timeout: Any, name: str = "timeout") -> None:
    """Raise ValueError for a value that is not a time limit; None means no limit."""
    if timeout is None:
        return
    known = isinstance(timeout, Real) and not isinstance(timeout, bool)
    if not known or not 0 < timeout < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0, got {timeout!r}")


class Interrupts:
    """The first interrupt inside the block raises KeyboardInterrupt; later ones are only noted.

    After `finish()` the first one, too, is only noted: what is being saved is saved. A block inside
    another one shares its state, and what was noted ends with the outermost block. In threads other
    than the main one nothing is changed, as signals reach the main thread only.

    Attributes
    ----------
    signal : int or None
        The first signal that came.
    again : bool
        Whether another one came after it.
    latest : int or None
        Of the class: the last signal that came in any block, which outlives it.
    raised : bool
        Whether KeyboardInterrupt was raised. Whoever goes on nevertheless, since a callback or a
        finaliser swallowed it, is to raise it again, with `check`.
    """

    latest: ClassVar[int | None] = None
    _current: ContextVar[Interrupts | None] = ContextVar("gradiometer_interrupts", default=None)

    def __init__(self) -> None:
        self.signal: int | None = None
        self.again = self.raised = False
        self._finishing = False
        self._before: dict[int, Any] = {}
        self._hook: Any = None  # the one before, while this one is the outermost block

    def __enter__(self) -> Interrupts:
        outer = self._current.get()
        if outer is not None:
            return outer
        if threading.current_thread() is threading.main_thread():
            self._token = self._current.set(self)
            for number in _STOPPING:
                # a signal that the parent process ignores (nohup) stays ignored
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._came)
            self._hook = sys.unraisablehook
            sys.unraisablehook = self._unraisable
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._hook is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        sys.unraisablehook, self._hook = self._hook, None
        self._current.reset(self._token)

    @classmethod
    def noted(cls) -> bool:
        """Whether a signal came inside the block that we are in, and was noted."""
        current = cls._current.get()
        return current is not None and current.signal is not None

    def finish(self) -> None:
        """From now on only note interrupts."""
        self._finishing = True

    def check(self) -> None:
        """Raise KeyboardInterrupt again if it was raised in here, and swallowed."""
        if self.raised:
            raise KeyboardInterrupt

    def _unraisable(self, error: sys.UnraisableHookArgs) -> None:
        """An interrupt inside a finaliser cannot go up from there; it is noted, and no fault."""
        if not issubclass(error.exc_type, KeyboardInterrupt):
            self._hook(error)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        Interrupts.latest = number
        if self.signal is None:
            self.signal = number
        else:
            self.again = True
        if not self._finishing:
            self._finishing = self.raised = True
            raise KeyboardInterrupt
