"""What a diagnosis says, as values: verdicts with their evidence, and what could not be judged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from gradiometer.diagnosis.causes import CAUSES, Cause, Kind

MOST_BYTES = 32 * 1024  # of `Diagnosis.to_json`
MOST_NOT_JUDGED = 12  # told one by one in it


@dataclass(frozen=True)
class Evidence:
    """A sign that speaks for a verdict.

    Attributes
    ----------
    sign : str
        Its name in `SIGNS`.
    label : str
        What it is, in words.
    value : float
        The median over the nets that the verdict is of.
    low, high : float
        Between which it usually is in nets that learn; infinite where there is no such end.
    layer : str or None
        Which layer's it is; None if it is of the whole net.
    """

    sign: str
    label: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    layer: str | None = None


@dataclass(frozen=True)
class Confidence:
    """How often a rule was right, among the nets of the calibration in which it came first.

    Attributes
    ----------
    hits, of : int
    """

    hits: int
    of: int

    @property
    def rate(self) -> float:
        """Share of hits; NaN if the rule never came first."""
        return self.hits / self.of if self.of else math.nan


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a net, where, and why.

    Attributes
    ----------
    kind : Kind
    cause : str or None
        A name in `CAUSES`; None for a healthy net.
    layer : str or None
        Where it is worst, or begins; None if it is not in one layer.
    evidence : tuple of Evidence
        What convinces most comes first.
    sentence : str
        All of it in words.
    advice : str
        What to change first; "" for a healthy net. A suggestion, until it was tried.
    rule : str
        The rule that says so; see `gradiometer/diagnosis/rules.toml`.
    confidence : Confidence or None
        That rule's hit rate in the calibration; None if it was not calibrated.
    nets, total : int
        In how many of how many members of an ensemble.
    step : int or None
        When it began, where that can be told.
    """

    kind: Kind
    cause: str | None
    layer: str | None
    evidence: tuple[Evidence, ...]
    sentence: str
    advice: str
    rule: str
    confidence: Confidence | None = None
    nets: int = 1
    total: int = 1
    step: int | None = None

    @property
    def about(self) -> Cause | None:
        """The row of its cause: meaning, and what to change."""
        return None if self.cause is None else CAUSES[self.cause]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: numbers that are not finite are None."""
        return {
            "kind": str(self.kind),
            "cause": self.cause,
            "layer": self.layer,
            "step": self.step,
            "nets": self.nets,
            "of_nets": self.total,
            "sentence": self.sentence,
            "advice": self.advice,
            "confidence": None if self.confidence is None else asdict(self.confidence),
            "evidence": [_finite(asdict(found)) for found in self.evidence],
            "rule": self.rule,
        }


@dataclass(frozen=True)
class NotJudged:
    """Something that a run may suffer from, and of which nothing can be said.

    Attributes
    ----------
    what : str
        A kind and a cause, or what else could not be judged.
    why : str
        What is missing, with the reason where one is known.
    record : tuple of str
        The quantities that would tell; empty if there are none.
    """

    what: str
    why: str
    record: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """In words."""
        text = f"Cannot judge {self.what}: {self.why}."
        if self.record:
            names = ", ".join(f'"{name}"' for name in self.record)
            text += f" Add {names} to quantities."
        return text


@dataclass(frozen=True)
class Diagnosis:
    """What a run suffers from.

    Attributes
    ----------
    verdicts : tuple of Verdict
        The most important first; at least one.
    not_judged : tuple of NotJudged
        What could not be judged, and what to record for it.
    layers : tuple of str
        Of the run.
    steps : tuple of (int, int)
        The first and the last recorded step.
    """

    verdicts: tuple[Verdict, ...]
    not_judged: tuple[NotJudged, ...] = ()
    layers: tuple[str, ...] = ()
    steps: tuple[int, int] = (0, 0)

    @property
    def verdict(self) -> Verdict:
        """The first one."""
        return self.verdicts[0]

    @property
    def healthy(self) -> bool:
        """Whether the first verdict says so."""
        return self.verdict.kind == Kind.HEALTHY

    @property
    def sentence(self) -> str:
        """The first verdict's."""
        return self.verdict.sentence

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __str__(self) -> str:
        lines = [verdict.sentence for verdict in self.verdicts]
        return "\n".join([*lines, *(found.sentence for found in self.not_judged)])

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "format": 1,
            "layers": len(self.layers),
            "steps": list(self.steps),
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "not_judged": [
                {"what": found.what, "why": found.why, "record": list(found.record)}
                for found in self.not_judged[:MOST_NOT_JUDGED]
            ],
        }

    def to_json(self) -> str:
        """At most 32 KB of JSON, for a program or a language model.

        Names of layers and reasons that are very long are cut.
        """
        found = _cut(self.to_dict(), 400)
        text = json.dumps(found, ensure_ascii=False, indent=1)
        if len(text.encode()) > MOST_BYTES:
            text = json.dumps(_cut(found, 100), ensure_ascii=True)
        return text


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _cut(value: Any, most: int) -> Any:
    """The same with strings of at most so many characters."""
    if isinstance(value, str):
        return value if len(value) <= most else value[: most - 1] + "…"
    if isinstance(value, dict):
        return {key: _cut(item, most) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, most) for item in value]
    return value
