"""Modes of a thread or task: whether operations are remembered, checked for NaN, captured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple


class Mode(NamedTuple):
    """Whether operations are remembered (`recording`), checked for NaN, and captured."""

    recording: bool = True
    detecting: bool = False
    capturing: bool = False


MODE: ContextVar[Mode] = ContextVar("dp_mode", default=Mode())  # noqa: B039 (immutable)


def mode() -> Mode:
    """Return the mode in force in this thread or task."""
    return MODE.get()


@contextlib.contextmanager
def _changed(**changes: bool) -> Iterator[None]:
    token = MODE.set(MODE.get()._replace(**changes))
    try:
        yield
    finally:
        MODE.reset(token)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Compute without remembering: Nodes made inside have no history, and so no gradient."""
    return _changed(recording=False)


def detect_anomaly() -> contextlib.AbstractContextManager[None]:
    """Raise `AnomalyError` at the first operation, forward or backward, that gives NaN or Inf."""
    return _changed(detecting=True)


def capturing() -> contextlib.AbstractContextManager[None]:
    """Refuse decisions by a Node's value: a captured program could not decide anew."""
    return _changed(recording=True, capturing=True)
