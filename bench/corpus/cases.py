"""Case: one net of the corpus, its label, and how to train it; what makes a label hold."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from gradiometer.quantities import QUANTITIES

if TYPE_CHECKING:
    from gradiometer.trace import Trace

Kind = Literal["healthy", "vanishing", "exploding", "dead", "saturated", "non-finite", "stalled"]
Part = Literal["calibration", "test"]

# what is recorded of every net: all that there is, those on request too
RECORDED = tuple(QUANTITIES)

# by which a failing net must stay below `accept`, so that no label hangs on the last digit
MARGIN = 0.05

# share of a layer from which on a net may be labelled dead or saturated
MOST = 0.5


class Trained(NamedTuple):
    """What a training gave.

    Attributes
    ----------
    trace : Trace
    outcome : float
        Accuracy, or R² where there is none, on fixed rows after the last step; NaN if the net's
        output is not finite.
    """

    trace: Trace
    outcome: float


class Measured(NamedTuple):
    """What a label is checked against.

    Attributes
    ----------
    outcome : float
        As in `Trained`.
    finite : bool
        Whether the losses and all that was looked at in the layers were finite at every step.
    dead, saturated : float
        The greatest share of dead units, and of saturated values, in any layer at any step; NaN
        if it was not recorded.
    """

    outcome: float
    finite: bool
    dead: float = math.nan
    saturated: float = math.nan


@dataclass(frozen=True)
class Case:
    """A net of the corpus and its label.

    Attributes
    ----------
    name : str
        Unique; also the name of its trace's file: small letters, digits, hyphens and dots.
    group : str
        Kind of net, such as "sigmoid MLP on iris"; all nets of a group are in the same part.
    part : "calibration" or "test"
        Whether rules may be calibrated on it.
    kind : str
        The verdict that is right.
    make : partial
        Trains and records the net: a function of a module, and its arguments by name, which JSON
        can write. Gives `Trained`.
    accept : float
        Outcome from which on the net counts as learning.
    cause : str or None
        The cause that is right; None for a healthy net.
    layers : tuple of str
        Names of the layers each of which is right; empty if no one layer is meant.
    twin : str or None
        Name of the case that differs by one repair and learns; None for a healthy net.
    trap : str
        Of a healthy net: why a naive rule would flag it; "" if it is the twin of a failing one.
    """

    name: str
    group: str
    part: Part
    kind: Kind
    make: partial[Trained]
    accept: float
    cause: str | None = None
    layers: tuple[str, ...] = ()
    twin: str | None = None
    trap: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.name):
            raise ValueError(f"{self.name!r}: a name has small letters, digits, hyphens and dots")
        if self.part not in ("calibration", "test"):
            raise ValueError(f"{self.name}: part must be calibration or test, got {self.part!r}")
        healthy = self.kind == "healthy"
        if healthy != (self.cause is None) or healthy != (self.twin is None):
            raise ValueError(
                f"{self.name}: a failing net has a cause and a twin, a healthy one has neither; "
                f"got {self.kind}, {self.cause}, {self.twin}"
            )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of how it is trained: the function and its arguments."""
        function = self.make.func
        told = [function.__module__, function.__qualname__, self.make.keywords]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def learns(self, outcome: float) -> bool:
        """Whether an outcome counts as learning; NaN does not."""
        return outcome >= self.accept


def check(cases: Iterable[Case]) -> dict[str, Case]:
    """Cases by name, checked together.

    Raises
    ------
    ValueError
        If a name occurs twice, a group is in both parts, or a twin is missing, not healthy, of
        another group, or accepted from another outcome on.
    """
    named: dict[str, Case] = {}
    parts: dict[str, Part] = {}
    for case in cases:
        if case.name in named:
            raise ValueError(f"{case.name}: two cases have this name")
        named[case.name] = case
        if parts.setdefault(case.group, case.part) != case.part:
            raise ValueError(f"{case.name}: the group {case.group!r} is in both parts")
    for case in named.values():
        if case.twin is None:
            continue
        twin = named.get(case.twin)
        if twin is None or twin.kind != "healthy":
            raise ValueError(f"{case.name}: its twin {case.twin!r} is not among the healthy cases")
        if (twin.group, twin.accept) != (case.group, case.accept):
            raise ValueError(f"{case.name}: its twin {case.twin!r} differs in group or accept")
    return named


def doubt(case: Case, measured: Mapping[str, Measured]) -> str | None:
    """Why a label does not hold, or None if it does.

    A failing net is labelled "non-finite" if, and only if, something was not finite; "dead" or
    "saturated" only if most of some layer was.

    Parameters
    ----------
    case : Case
    measured : dict of str to Measured
        By name, of the case and of its twin.
    """
    found = measured[case.name]
    if case.twin is None:
        reached = _shown(case, found.outcome)
        return None if case.learns(found.outcome) else f"does not learn: {reached}"
    if found.outcome >= case.accept - MARGIN:
        return f"does not fail: {_shown(case, found.outcome)}"
    twin = measured.get(case.twin)
    if twin is None:
        return "its twin was not trained"
    if not case.learns(twin.outcome):
        return f"its twin does not learn: {_shown(case, twin.outcome)}"
    return _unlike(case, found)


def _unlike(case: Case, found: Measured) -> str | None:
    """Why a net that fails is not of the kind that it is labelled."""
    if found.finite == (case.kind == "non-finite"):
        state = "everything was" if found.finite else "something was not"
        return f"labelled {case.kind}, but {state} finite"
    share = {"dead": found.dead, "saturated": found.saturated}.get(case.kind, math.nan)
    if share < MOST:
        return f"labelled {case.kind}, but no more than {share:.0%} of any layer was"
    return None


def _shown(case: Case, outcome: float) -> str:
    reached = "nothing finite" if math.isnan(outcome) else f"{outcome:.3f}"
    return f"{reached}, accepted from {case.accept:g} on"
