"""Recorder: what a recording gives its user, for any framework."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradiometer.quantities import HISTOGRAM, OF_LAYERS, OF_STEPS
from gradiometer.recording import quantities as q
from gradiometer.recording.functions import UNKNOWN
from gradiometer.recording.quantities import Array
from gradiometer.recording.session import LayerInfo, Session
from gradiometer.states import MODEL, Reasons

if TYPE_CHECKING:
    from gradiometer.trace import Trace

__all__ = ["UNKNOWN", "LayerInfo", "Recorder"]

NO_LABELS = "there are no labels of classes, on a reference batch, to compare the output with"


class Recorder(Session):
    """What was recorded so far; it may be read at any time.

    Adapters use its `session`.
    """

    @property
    def session(self) -> Session:
        """The recording, as an adapter sees it."""
        return self

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
    if session.members:
        found["member"] = list(range(*session.members) if members is None else members)
    if session.needs(HISTOGRAM):
        found["bin"] = q.HISTOGRAM_EDGES
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
    trained = [i for i, info in enumerate(session.layers) if info.role == "trained"]
    if session.chains is not None and session.chains != [trained]:
        found["chains"] = json.dumps(session.chains)
    if reasons:
        found["missing"] = json.dumps(reasons)
    found["recording_overhead"] = session.schedule.overhead
    return {**found, **session.nonfinite}
