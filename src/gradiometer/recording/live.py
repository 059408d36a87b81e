"""Live: a run is diagnosed while it is recorded, and stopped if that is wanted."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, cast

from dp.validation import one_of
from gradiometer.events import Guarded
from gradiometer.recording.errors import GradientWarning, TrainingStopped

if TYPE_CHECKING:
    from gradiometer.diagnosis import Diagnosis, Verdict

FIRST_LOOK = 10  # recorded steps; the next looks come after twice as many
APART = 10  # steps between two looks that confirm each other
STALLED_FROM = 40  # steps before which it is too early to say that a net does not learn
NO_FAULT = ("healthy", "unknown")

OnVerdict = Callable[["Verdict"], object]


class Live:
    """Looks at a run after 10, 20, 40, 80 … recorded steps.

    A verdict counts once two looks in a row say it. What is not finite counts at once, and is
    looked at as soon as it is seen. "Stalled" counts from step 40 on, and not if its cause is that
    there were too few steps. Of an ensemble at least half of the nets must have it.

    Parameters
    ----------
    stop_on : collection of str
        The kinds of verdicts that stop the training.
    on_verdict : callable, optional
        Takes the first verdict of each kind. Without it, the first verdict of the run is warned of.

    Attributes
    ----------
    next_look : int
        After how many recorded steps the next look comes.
    stopped : Verdict, optional
        What stopped the training.
    error : TrainingStopped, optional
        What was raised for that.
    raises : bool
        Whether it is raised; or else whoever trains asks for `stopped`.
    """

    def __init__(self, stop_on: Collection[str], on_verdict: OnVerdict | None) -> None:
        self.stop_on = checked_kinds(stop_on)
        if on_verdict is not None and not callable(on_verdict):
            raise TypeError(f"on_verdict must be a function of one verdict, got {on_verdict!r}")
        self._guarded = None if on_verdict is None else Guarded(cast(Any, on_verdict))
        self._told: set[str] = set()
        self._before: set[str] = set()  # said at the latest regular look
        self._at = 0  # step of that look
        self._saw_nonfinite = False
        self.next_look = FIRST_LOOK
        self.stopped: Verdict | None = None
        self.error: TrainingStopped | None = None
        self.raises = True

    def is_due(self, recorded: int, nonfinite: bool) -> bool:
        """Whether it is time for a look, after so many recorded steps."""
        if self.stopped is not None:
            return False
        return recorded >= self.next_look or (nonfinite and not self._saw_nonfinite)

    def look(self, diagnosis: Diagnosis, recorded: int, step: int, nonfinite: bool) -> None:
        """Take note of what the run is said to suffer from, `step` being the latest."""
        regular = recorded >= self.next_look
        self._saw_nonfinite |= nonfinite
        said = {str(one.kind): one for one in reversed(diagnosis.verdicts) if _counts(one, step)}
        confirmed = self._before if step - self._at >= APART else set()
        if regular:
            self._before, self._at = set(said), step
            while self.next_look <= recorded:
                self.next_look *= 2
        for kind, verdict in reversed(said.items()):
            if kind == "non-finite" or (regular and kind in confirmed):
                self._tell(verdict, step)

    def _tell(self, verdict: Verdict, step: int) -> None:
        kind = str(verdict.kind)
        if kind in self._told:
            return
        if self._guarded is not None:
            self._guarded(cast(Any, verdict))
        elif not self._told:
            _warn(f"after step {step}: {verdict.sentence}")
        self._told.add(kind)
        if kind in self.stop_on and self.stopped is None:
            self.stopped = verdict

    def check(self) -> None:
        """Raise TrainingStopped, once, if the training is to end."""
        if self.stopped is not None and self.error is None and self.raises:
            self.error = TrainingStopped(self.stopped)
            raise self.error


def live_of(stop_on: Collection[str], on_verdict: OnVerdict | None) -> Live | None:
    """What looks at a run; None if nobody wants to know."""
    return Live(stop_on, on_verdict) if stop_on or on_verdict is not None else None


def checked_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    """The kinds of verdicts that may stop a training.

    Raises
    ------
    TypeError
        If they cannot be gone through.
    ValueError
        If one of them is unknown, or says that nothing is wrong.
    """
    from gradiometer.diagnosis.causes import Kind

    if not isinstance(kinds, Iterable):
        raise TypeError(f"stop_on must be a list of kinds of verdicts, got {kinds!r}")
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for name in names:
        one_of("kind of verdict", name, [str(kind) for kind in Kind if kind not in NO_FAULT])
    return tuple(str(name) for name in names)


def _counts(verdict: Verdict, step: int) -> bool:
    """Whether a verdict says that something is wrong, with enough nets and steps behind it."""
    if verdict.kind in NO_FAULT or 2 * verdict.nets < verdict.total:
        return False
    if verdict.kind == "stalled":
        return step >= STALLED_FROM and verdict.cause != "too few steps"
    return True


def _warn(words: str) -> None:
    try:
        warnings.warn(words, GradientWarning, stacklevel=2)
    except GradientWarning:  # where warnings are errors: the training must go on
        print(f"warning: {words}", file=sys.stderr)
