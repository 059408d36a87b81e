"""Rules: which signs speak for which kind and which cause. They are data, in `rules.toml`.

First the kind is found: by the first rule of kinds that fires. Then its cause: said by that rule,
or else by the first rule of causes that fires and belongs to the kind.

A condition is written as `sign > number` or `sign < number`. A sign of which each layer has one is
preceded by `most`, `least`, `median`, `first` or `last`: which of the layers it is asked of.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from dp.validation import one_of
from gradiometer.diagnosis.causes import CAUSES, Kind
from gradiometer.diagnosis.reading import Floats
from gradiometer.diagnosis.signs import SIGNS
from gradiometer.diagnosis.verdict import Confidence

Signs = Mapping[str, float | Floats]
_LAYERS = ("most", "least", "median", "first", "last")
_CONDITION = re.compile(rf"(?:({'|'.join(_LAYERS)}) )?(\w+) ([<>]) (-?[\d.]+(?:e-?\d+)?)")
_PLACE = re.compile(rf"({'|'.join(_LAYERS)}) (\w+)")


class RuleError(ValueError):
    """A rule that cannot be read; says which, and what would be accepted."""


@dataclass(frozen=True)
class Condition:
    """What a sign must be.

    Attributes
    ----------
    sign : str
    above : bool
        Whether it must be above the threshold, or below it.
    threshold : float
    of : str
        Which layer is asked: "most", "least", "median", "first" or "last"; "" if the sign is of
        the whole net.
    """

    sign: str
    above: bool
    threshold: float
    of: str = ""

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read one, such as "most dead > 0.5"."""
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise RuleError(
                f"a condition reads 'most dead > 0.5' or 'loss_fall < 0.2', got {text!r}"
            )
        of, sign, relation, number = match.groups()
        one_of("sign", sign, tuple(SIGNS))
        if (SIGNS[sign].per == "layer") != bool(of):
            raise RuleError(f"{text!r}: 'most', 'least', … precede signs of layers, and only these")
        return cls(sign, relation == ">", float(number), of or "")

    def __str__(self) -> str:
        of = f"{self.of} " if self.of else ""
        return f"{of}{self.sign} {'>' if self.above else '<'} {self.threshold:g}"

    def value(self, signs: Signs) -> float:
        """What it asks; NaN if it is not known."""
        return value_of(signs[self.sign], self.of)

    def holds(self, signs: Signs) -> bool | None:
        """Whether it holds; None if the sign is not known."""
        value = self.value(signs)
        if math.isnan(value):
            return None
        return value > self.threshold if self.above else value < self.threshold


@dataclass(frozen=True)
class Rule:
    """When all of `when` hold, and none of `unless`, it says a kind, a cause, or both.

    Attributes
    ----------
    name : str
    when, unless : tuple of Condition
        One of `unless` of which nothing is known does not hold.
    kind : Kind or None
        None of a rule that says the cause of kinds that are known already.
    cause : str or None
        None of a rule that leaves the cause to others, or says "healthy".
    dead : str or None
        What the cause is called where units are dead.
    layer : (str, str) or None
        Which layer it names: ("most", sign) or another of these words; None if it names none.
    fixed : bool
        Whether its thresholds follow from what it means, and are not learned.
    shows : tuple of (str, str)
        Further signs that are given as evidence: which layer is asked, or "", and the sign.
    """

    name: str
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()
    kind: Kind | None = None
    cause: str | None = None
    dead: str | None = None
    layer: tuple[str, str] | None = None
    fixed: bool = False
    shows: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """Its evidence: of which layer, and which sign."""
        return (*((condition.of, condition.sign) for condition in self.when), *self.shows)

    def fires(self, signs: Signs) -> bool | None:
        """Whether it does; None if a sign that it needs is not known, and no other denies it."""
        if any(condition.holds(signs) for condition in self.unless):
            return False
        held = [condition.holds(signs) for condition in self.when]
        if False in held:
            return False
        return None if None in held else True

    def place(self, signs: Signs) -> int | None:
        """Position of the layer that it names."""
        if self.layer is None:
            return None
        which, sign = self.layer
        return place_of(np.asarray(signs[sign]), which)

    def cause_of(self, kind: Kind) -> str | None:
        """The cause that it says of a kind; None if it says nothing of it."""
        if kind == Kind.DEAD and self.dead is not None:
            return self.dead
        return self.cause if self.cause and kind in CAUSES[self.cause].kinds else None


@dataclass(frozen=True)
class Said:
    """What the rules say of a net.

    Attributes
    ----------
    kind : Kind
    cause : str or None
    rule : Rule
        That says the kind.
    because : Rule
        That says the cause; the same one, if it says both.
    """

    kind: Kind
    cause: str | None
    rule: Rule
    because: Rule

    def place(self, signs: Signs) -> int | None:
        """Position of the layer: by the rule of the cause, or else by that of the kind."""
        for rule in (self.because, self.rule):
            place = rule.place(signs)
            if place is not None:
                return place
        return None


@dataclass(frozen=True)
class Rules:
    """All rules, as `rules.toml` has them.

    Attributes
    ----------
    kinds : tuple of Rule
        The most important first.
    causes : tuple of Rule
        The most telling first.
    usual : mapping of Kind to Rule
        Says the cause of a kind of which no other rule says one.
    confidence : mapping of (Kind, str or None) to Confidence
        Of each verdict, as the calibration found it.
    """

    kinds: tuple[Rule, ...]
    causes: tuple[Rule, ...]
    usual: Mapping[Kind, Rule]
    confidence: Mapping[tuple[Kind, str | None], Confidence]

    def say(self, signs: Signs) -> tuple[Said, ...]:
        """The verdicts on a net, one per kind, the most important first.

        A net that is healthy or stalled has no other verdict.
        """
        found: dict[Kind, Said] = {}
        for rule in self.kinds:
            kind = rule.kind
            if kind is None or kind in found or not rule.fires(signs):
                continue
            if found and kind in (Kind.HEALTHY, Kind.STALLED):
                continue
            found[kind] = self._with_cause(kind, rule, signs)
            if kind in (Kind.HEALTHY, Kind.STALLED):
                break
        return tuple(found.values())

    def _with_cause(self, kind: Kind, rule: Rule, signs: Signs) -> Said:
        if kind == Kind.HEALTHY or rule.cause is not None:
            return Said(kind, rule.cause, rule, rule)
        for because in self.causes:
            cause = because.cause_of(kind)
            if cause is not None and because.fires(signs):
                return Said(kind, cause, rule, because)
        because = self.usual[kind]
        return Said(kind, because.cause, rule, because)


def value_of(sign: float | Floats, of: str) -> float:
    """A sign's number, of the net or of the layer that is asked; NaN if it is not known."""
    if not of:
        return float(sign)
    values = np.asarray(sign)
    known = values[np.isfinite(values)]
    if not known.size:
        return math.nan
    if of == "median":
        return float(np.median(known))
    place = place_of(values, of)
    return math.nan if place is None else float(values[place])


def place_of(values: Floats, of: str) -> int | None:
    """Position of the layer that is asked; None if no layer's number is known."""
    known = np.flatnonzero(np.isfinite(values))
    if not known.size or of == "median":
        return None
    if of in ("first", "last"):
        return int(known[0 if of == "first" else -1])
    best = np.argmax(values[known]) if of == "most" else np.argmin(values[known])
    return int(known[best])


@cache
def rules() -> Rules:
    """Those of `rules.toml`."""
    text = resources.files("gradiometer.diagnosis").joinpath("rules.toml").read_text("utf-8")
    return parse(tomllib.loads(text))


def parse(table: Mapping[str, Any]) -> Rules:
    """Read the tables of `rules.toml`.

    Raises
    ------
    RuleError
        Naming the rule, and what is wrong with it.
    """
    kinds = tuple(parse_rule(row) for row in table["kind"])
    causes = tuple(parse_rule(row) for row in table["cause"])
    usual = {
        Kind(kind): parse_rule({"name": f"usual {kind}", "when": [], **row})
        for kind, row in table["usual"].items()
    }
    confidence = {
        (Kind(kind), cause or None): Confidence(*numbers)
        for kind, of in table.get("confidence", {}).items()
        for cause, numbers in of.items()
    }
    return Rules(kinds, causes, usual, confidence)


def parse_rule(row: Mapping[str, Any]) -> Rule:
    """Read one row.

    Raises
    ------
    RuleError
        Naming the rule, and what is wrong with it.
    """
    name = row.get("name", "?")
    unknown = set(row) - {field.name for field in fields(Rule)}
    if unknown:
        raise RuleError(f"rule {name!r} has {sorted(unknown)}, which is not known")
    kind = Kind(row["kind"]) if "kind" in row else None
    for cause in (row.get("cause"), row.get("dead")):
        if cause is not None and cause not in CAUSES:
            raise RuleError(f"rule {name!r}: unknown cause {cause!r}")
    cause = row.get("cause")
    if kind is not None and cause is not None and kind not in CAUSES[cause].kinds:
        raise RuleError(f"rule {name!r}: {cause!r} is no cause of {kind}")
    return Rule(
        name, _conditions(row["when"]), _conditions(row.get("unless", ())), kind, cause,
        row.get("dead"), _place(name, row.get("layer")), row.get("fixed", False),
        tuple(_shown(name, text) for text in row.get("shows", ())),
    )  # fmt: skip


def _conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    return tuple(Condition.parse(text) for text in texts)


def _shown(rule: str, text: str) -> tuple[str, str]:
    of, _, sign = text.rpartition(" ")
    if sign not in SIGNS or (of not in _LAYERS if SIGNS[sign].per == "layer" else of):
        raise RuleError(f"rule {rule!r}: shows 'median slope_gain' or 'delta_fall', got {text!r}")
    return of, sign


def _place(rule: str, text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    match = _PLACE.fullmatch(text)
    if match is None or match[2] not in SIGNS:
        raise RuleError(f"rule {rule!r}: a layer reads 'most dead', got {text!r}")
    return match[1], match[2]
