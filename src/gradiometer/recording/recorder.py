"""Recorder: what a recording gives its user, for any framework."""

from __future__ import annotations

import abc
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dp.typing import Array
from gradiometer.events import Listener
from gradiometer.quantities import HISTOGRAM, HISTOGRAM_EDGES, OF_LAYERS, OF_STEPS
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.session import LayerInfo, Session
from gradiometer.states import MODEL, Reasons

if TYPE_CHECKING:
    from gradiometer.diagnosis import Diagnosis, Verdict
    from gradiometer.trace import Trace

NO_LABELS = "there are no labels of classes, on a reference batch, to compare the output with"


class Recorder:
    """What was recorded so far; it may be read at any time.

    Parameters
    ----------
    session : Session
        The recording, as an adapter sees it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        session.diagnose = partial(_diagnose, session)  # it must not keep the recorder alive

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers, in the order of the forward pass; none before the first recorded step."""
        return self.session.layers

    @property
    def chains(self) -> list[list[int]] | None:
        """Layers by position, from first to last; None if it is not known which lead to which."""
        return self.session.chains

    @property
    def missing(self) -> Reasons:
        """Layer -> quantity -> why it cannot be had."""
        return self.session.missing

    @property
    def accuracy(self) -> float:
        """Of the latest step, mean over members; NaN if it cannot be had."""
        return self.session.accuracy

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of every step that is recorded from now on.

        It is called with a `StepRecorded` in the thread that trains, soon after the step: compiled
        steps of dp are measured several at a time, and then told one after the other. Time spent in
        it is counted as the training's. A listener that raises an error is told nothing more, and
        the training goes on.

        Parameters
        ----------
        listener : callable
            Takes one event; see `gradiometer.events`.
        """
        self.session.subscribe(listener)

    @property
    def stopped(self) -> Verdict | None:
        """The verdict that stopped the training; None if none did."""
        return None if self.session.live is None else self.session.live.stopped

    @property
    def n_steps(self) -> int:
        """Number of steps recorded so far."""
        self.session.settle()
        return len(self.session.steps)

    def __getitem__(self, name: str) -> Array:
        """A quantity recorded so far, as a plain array: (steps, layers[, members]).

        Raises
        ------
        KeyError
            If it was not recorded.
        """
        self.session.settle()
        if not self.session.needs(name):
            known = ", ".join(self.session.quantities)
            raise KeyError(f"{name!r} was not recorded; there are {known}")
        return self.session.column(name)

    @property
    def overhead(self) -> float:
        """Share of the time that recording took, of all the time during which it was on."""
        return self.session.schedule.overhead

    @property
    def trace(self) -> Trace:
        """Everything recorded so far; see `to_trace`."""
        return self.to_trace()

    def diagnose(self) -> Diagnosis:
        """Say what the net suffers from, by what was recorded so far; see `Trace.diagnose`."""
        return self.trace.diagnose()

    def to_trace(
        self, attributes: Mapping[str, Any] | None = None, members: Sequence[int] | None = None
    ) -> Trace:
        """Everything recorded so far, as a Trace.

        Parameters
        ----------
        attributes : mapping, optional
            Facts about the run to keep with it.
        members : sequence of ints, optional
            Seeds of an ensemble's members; numbered from 0 if not given.

        Raises
        ------
        ValueError
            If no step has been recorded.
        """
        from gradiometer.trace import Trace

        session = self.session
        session.settle()
        if not session.steps:
            raise ValueError(f"nothing has been recorded yet: {session.why_nothing}")
        missing = {name: session.mask(name) for name in session.quantities}
        facts = {**(attributes or {}), **_facts(session, _reasons(session, missing))}
        return Trace.from_arrays(
            _variables(session), _coordinates(session, members), facts, missing
        )


def _diagnose(session: Session) -> Diagnosis:
    return Recorder(session).diagnose()


class Training(abc.ABC):
    """What an adapter makes of a model's training: it watches steps, and tells a session of them.

    Attributes
    ----------
    attached : bool
        Whether steps are to be seen from outside; set by the recorder.
    told : bool
        Whether the user says where a step begins and ends, and one has begun; set by the recorder.
    """

    attached = told = False

    @abc.abstractmethod
    def attach(self) -> None:
        """Watch for steps from now on."""

    @abc.abstractmethod
    def detach(self, complete: bool) -> None:
        """Watch no longer, and leave no hook behind.

        `complete` is False if an exception ended the training, perhaps in the middle of an update.
        """

    def begin_step(self) -> None:
        """A step begins that the user tells of; the one before may be unfinished.

        Raises
        ------
        RecordingError
            If all steps are seen by themselves.
        """
        raise RecordingError(
            "these steps are seen by themselves; train inside a with block, without before_step "
            "and after_step"
        )

    def end_step(self, loss: Any) -> None:  # noqa: B027  (not called where none begins)
        """It ends; its loss is given, or None."""


class TrainingRecorder(Recorder):
    """A recorder that is attached to a training, or told by hand where a step begins and ends.

    Parameters
    ----------
    session : Session
    training : Training
    """

    def __init__(self, session: Session, training: Training) -> None:
        super().__init__(session)
        self._training = training

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._leave(complete=kind is None)
        live = self.session.live
        return error is not None and live is not None and error is live.error

    def attach(self) -> None:
        """Record steps from now on, as they are seen.

        Raises
        ------
        RuntimeError
            If it is attached already, or between `before_step` and `after_step`.
        """
        if self._training.attached or self._training.told:
            raise RuntimeError("this recorder is recording already; detach() it first")
        self._training.attached = True
        self._training.attach()
        self.session.turn(on=True)

    def detach(self) -> None:
        """Stop recording; it may be attached again, and goes on counting.

        Raises
        ------
        RecordingError
            If it cannot be seen what the last step consists of.
        """
        self._leave(complete=True)

    def _leave(self, complete: bool) -> None:
        try:
            self._training.detach(complete)
        finally:
            self._training.attached = self._training.told = False
            self.session.turn(on=False)

    def before_step(self) -> None:
        """Say that a step begins: before its first forward pass.

        Raises
        ------
        RuntimeError
            If the recorder is attached, so that it sees the steps by itself.
        """
        if self._training.attached:
            raise RuntimeError(
                "this recorder sees the steps by itself; use before_step and after_step without a "
                "with block and without attach()"
            )
        self._training.begin_step()
        if not self._training.told and not self.session.done:
            self.session.turn(on=True)
        self._training.told = True

    def after_step(self, loss: Any = None) -> None:
        """Say that it has ended: after the update.

        Every gradient that was computed within is part of the step, as if they were of one large
        batch: gradients and losses are added up.

        Parameters
        ----------
        loss : number, optional
            The loss to record; by default the sum of those that were differentiated.

        Raises
        ------
        RuntimeError
            Without `before_step`.
        """
        if not self._training.told:
            raise RuntimeError("after_step() without before_step()")
        self._training.told = False
        self._training.end_step(loss)


def _variables(session: Session) -> dict[str, Any]:
    """The quantities, each with its dimensions."""
    member = ("member",) if session.members else ()
    found: dict[str, Any] = {}
    for names, dims in (
        (OF_LAYERS, ("step", "layer", *member)),
        (OF_STEPS, ("step", *member)),
        ((HISTOGRAM,), ("step", "layer", *member, "bin")),
    ):
        found |= {name: (dims, session.column(name)) for name in names if session.needs(name)}
    return found


def _coordinates(session: Session, members: Sequence[int] | None) -> dict[str, Any]:
    layers = session.layers
    found: dict[str, Any] = {
        "step": np.array(session.steps),
        "layer": [info.name for info in layers],
        "depth": ("layer", np.arange(1, len(layers) + 1)),
        "fan_in": ("layer", [info.fan_in for info in layers]),
        "fan_out": ("layer", [info.fan_out for info in layers]),
        "activation": ("layer", [info.activation for info in layers]),
    }
    if any(info.role != "trained" for info in layers):
        found["role"] = ("layer", [info.role for info in layers])
    if any(info.kind != "affine" for info in layers):
        found["kind"] = ("layer", [info.kind for info in layers])
    if session.members:
        found["member"] = list(range(*session.members) if members is None else members)
    rates = session.learning_rates
    if (rates != rates[0]).any() and not np.isnan(rates).all():
        found["learning_rate"] = ("step", rates)
    if session.needs(HISTOGRAM):
        found["bin"] = HISTOGRAM_EDGES
    return found


def _reasons(session: Session, missing: Mapping[str, Array]) -> Reasons:
    """Those that were given, and what goes without saying: an accuracy takes labels."""
    given = {layer: dict(reasons) for layer, reasons in session.missing.items()}
    if missing.get("accuracy", np.zeros(())).any():
        given.setdefault(MODEL, {}).setdefault("accuracy", NO_LABELS)
    return given


def _facts(session: Session, reasons: Reasons) -> dict[str, Any]:
    """What a trace's attributes tell of the recording."""
    found: dict[str, Any] = {}
    if session.optimizer:
        found["optimizer"] = session.optimizer
    rates = session.learning_rates
    if (rates == rates[0]).all():  # or else they are a coordinate of the steps
        found["learning_rate"] = float(rates[0])
    trained = [i for i, info in enumerate(session.layers) if info.role == "trained"]
    if session.chains is not None and session.chains != [trained]:
        found["chains"] = json.dumps(session.chains)
    neighbours = [pair for chain in session.chains or [] for pair in itertools.pairwise(chain)]
    branches = any(pair not in neighbours for pair in session.above.items())
    if branches or session.only is not None:  # or layers in between that are not recorded
        above = [session.above.get(i, -1) for i in range(len(session.layers))]
        found["above"] = json.dumps(above)
    if reasons:
        found["missing"] = json.dumps(reasons)
    if session.live is not None and session.live.stopped is not None:
        found["stopped_on"] = str(session.live.stopped.kind)
    found["recording_overhead"] = session.schedule.overhead
    return {**found, **session.nonfinite}
