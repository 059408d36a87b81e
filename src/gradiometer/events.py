"""Events: what verbs, studies, proofs and recorders report while they work.

A listener is any function of one event. A verb calls it for everything that happens, in order, and
returns its result as usual::

    gradiometer.run(layers=3, on_event=print)

The command line prints these events; a page or a notebook shows them. Events are values: they are
frozen, hold no more than one step's numbers, and stay valid when the verb has ended.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


Listener = Callable[[Event], object]


@dataclass(frozen=True, slots=True)
class Begun(Event, Generic[Value]):
    """A verb has checked its arguments, and begins.

    Attributes
    ----------
    verb : str
        "run", "study" or "prove".
    subject : Experiment, Study, or tuple of str
        What is run; for `prove` the names of the claims, and of the papers after them.
    total : int
        Number of steps, of experiments, or of claims and numbers from papers.
    """

    verb: str
    subject: Value
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class StepRecorded(Event):
    """A training step was recorded.

    Steps are reported in order. Steps that are measured together are reported one after the other,
    soon after the last of them.

    Attributes
    ----------
    step : int
        Its number, from 1.
    steps : int or None
        How many there will be, if that is known.
    loss, accuracy : float
        Means over members; NaN if not recorded.
    layers : tuple of str
        Names of the layers, in the order of the forward pass.
    quantities : mapping of str to array (layers,) or (layers, members)
        What was recorded of every layer at this step. The arrays are read-only.
    missing : mapping of str to boolean array
        Where a quantity, the loss or the accuracy is missing, in its shape; only those with missing
        values. Any other NaN is a value that is not finite.
    """

    step: int
    steps: int | None
    loss: float
    accuracy: float
    layers: tuple[str, ...]
    quantities: Mapping[str, NDArray[Any]]
    missing: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progressed(Event):
    """A training of which not every step is recorded has come so far.

    It is told about a hundred times. Recorded steps before it may be told after it.

    Attributes
    ----------
    done, total : int
        How many steps were completed, recorded or not, and how many are wanted.
    """

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ClaimBegun(Event):
    """A claim, or a number from a paper, is now tested.

    Attributes
    ----------
    name : str
        Of the claim, or the paper.
    done, total : int
        How many were tested before it, and how many there are.
    """

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ClaimJudged(Event):
    """The verdict on a claim; reported at the end, as p-values are corrected over all tests.

    Attributes
    ----------
    name, verdict : str
    """

    name: str
    verdict: str


@dataclass(frozen=True, slots=True)
class TooFewSeeds(Event):
    """A claim that cannot be shown with so few seeds, whatever the results are.

    Attributes
    ----------
    name, why : str
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class RemediesBegun(Event):
    """Remedies will now be tried; the unchanged net is trained first.

    Attributes
    ----------
    total : int
        Number of candidates; some may turn out not to be applicable.
    seeds : int
        How many nets are trained with each.
    """

    total: int
    seeds: int


@dataclass(frozen=True, slots=True)
class RemedyTried(Event):
    """A remedy was tried on all seeds.

    Attributes
    ----------
    words : str
        The remedy.
    done, total : int
        How many candidates were looked at, this one included, and how many there are.
    outcome : str
        "accuracy", "R²" or "loss".
    reached, unchanged : float
        Its mean over the seeds, with the remedy and without.
    """

    words: str
    done: int
    total: int
    outcome: str
    reached: float
    unchanged: float


@dataclass(frozen=True, slots=True)
class RemediesFound(Event, Generic[Value]):
    """No more remedies are tried.

    Attributes
    ----------
    remedies : Remedies
        What `try_remedies` returns.
    """

    remedies: Value


@dataclass(frozen=True, slots=True)
class Result(Event, Generic[Value]):
    """The result. It is saved by now, or an error follows that says why not.

    Attributes
    ----------
    value : Trace, StudyResults or Proofs
        What the verb returns.
    """

    value: Value


@dataclass(frozen=True, slots=True)
class Compared(Event, Generic[Value]):
    """A run was compared with the prediction of its first step.

    Attributes
    ----------
    comparison : Comparison
    """

    comparison: Value


@dataclass(frozen=True, slots=True)
class NotCompared(Event):
    """A run was not compared with the prediction, though there is one.

    Attributes
    ----------
    why : str
    """

    why: str


@dataclass(frozen=True, slots=True)
class KeptElsewhere(Event):
    """Other results were written into the folder meanwhile, and stay; these are in another folder.

    Attributes
    ----------
    wanted, folder : Path
        The folder that was asked for, and the one that the files are in.
    """

    wanted: Path
    folder: Path


@dataclass(frozen=True, slots=True)
class FileWritten(Event):
    """A file is complete: data, a table, a figure or a report.

    Attributes
    ----------
    path : Path
    """

    path: Path


@dataclass(frozen=True, slots=True)
class Interrupted(Event):
    """A signal ended part of the work. What was finished until then is kept.

    Attributes
    ----------
    signal : int
        The signal's number.
    doing : str
        What it ended: "training", "comparing", "drawing", "running" (a study), "proving" or
        "trying" (remedies).
    done, total : int
        How many steps, experiments, claims or remedies were finished, and how many there are; 0
        where that is not known.
    """

    signal: int
    doing: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class TimeLimitReached(Event):
    """The time limit ended a training. What was recorded until then is kept.

    Attributes
    ----------
    seconds : float
        The limit.
    done, total : int
        How many steps were completed, and how many were wanted.
    """

    seconds: float
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StoppedOn(Event):
    """A verdict ended a training, as was asked for. What was recorded until then is kept.

    Attributes
    ----------
    kind : str
        Of the verdict, such as "vanishing".
    done, total : int
        How many steps were completed, and how many were wanted.
    """

    kind: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The verb has finished; the last event.

    Attributes
    ----------
    verb : str
    """

    verb: str


class ListenerWarning(RuntimeWarning):
    """A listener raised an error, and is not called again."""


class Guarded:
    """Passes events on to a listener whose errors must not end the work.

    The first error becomes a `ListenerWarning`; the listener is then not called again.
    KeyboardInterrupt and SystemExit do not count as errors of the listener, and are raised.

    Parameters
    ----------
    listener : callable, optional
        Without one, events are dropped.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener

    @classmethod
    def of(cls, listener: Listener) -> Guarded:
        """Guard a listener, unless it is guarded already."""
        return listener if isinstance(listener, cls) else cls(listener)

    def __bool__(self) -> bool:
        return self._listener is not None

    def __call__(self, event: Event) -> None:
        """Call the listener, if there still is one."""
        if self._listener is None:
            return
        try:
            self._listener(event)
        except Exception as error:
            self._listener = None
            words = (
                f"the listener raised {type(error).__name__} ({error}) at "
                f"{type(event).__name__}; it is not called again, and the work goes on"
            )
            try:
                warnings.warn(words, ListenerWarning, stacklevel=2)
            except ListenerWarning:  # where warnings are errors: the work must go on
                print(f"warning: {words}", file=sys.stderr)
