"""Rules: which signs speak for which verdict. They are data, in `rules.toml`.

A condition is written as `sign > number` or `sign < number`. A sign of which each layer has one is
preceded by `most`, `least`, `median`, `first` or `last`: which of the layers it is asked of.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """When all of `when` hold, and none of `unless`, this is the verdict.

    Attributes
    ----------
    name : str
    kind : Kind
    cause : str or None
    when, unless : tuple of Condition
        One of `unless` of which nothing is known does not hold.
    layer : (str, str) or None
        Which layer it names: ("most", sign) or another of these words; None if it names none.
    confidence : Confidence or None
    """

    name: str
    kind: Kind
    cause: str | None
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()
    layer: tuple[str, str] | None = None
    confidence: Confidence | None = None

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
def rules() -> tuple[Rule, ...]:
    """Those of `rules.toml`, the most important first."""
    text = resources.files("gradiometer.diagnosis").joinpath("rules.toml").read_text("utf-8")
    return tuple(parse_rule(row) for row in tomllib.loads(text)["rule"])


def parse_rule(row: Mapping[str, Any]) -> Rule:
    """Read a table of `rules.toml`.

    Raises
    ------
    RuleError
        Naming the rule, and what is wrong with it.
    """
    name = row.get("name", "?")
    unknown = set(row) - {"name", "kind", "cause", "when", "unless", "layer", "hits", "of", "why"}
    if unknown:
        raise RuleError(f"rule {name!r} has {sorted(unknown)}, which is not known")
    kind, cause = Kind(row["kind"]), row.get("cause")
    if cause is not None and kind not in CAUSES[cause].kinds:
        raise RuleError(f"rule {name!r}: {cause!r} is no cause of {kind}")
    confidence = Confidence(row["hits"], row["of"]) if "of" in row else None
    return Rule(
        name, kind, cause, _conditions(row["when"]), _conditions(row.get("unless", ())),
        _place(name, row.get("layer")), confidence,
    )  # fmt: skip


def _conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    return tuple(Condition.parse(text) for text in texts)


def _place(rule: str, text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    match = _PLACE.fullmatch(text)
    if match is None or match[2] not in SIGNS:
        raise RuleError(f"rule {rule!r}: a layer reads 'most dead', got {text!r}")
    return match[1], match[2]
