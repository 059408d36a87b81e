"""Learn the thresholds of `rules.toml` on the calibration part of the corpus.

What the rules ask, and in which order, is written by hand; here the numbers are found, by going
through the conditions one after the other and taking for each the threshold with which most nets
are judged right, until nothing changes. Where many thresholds are equally good, the one in the
middle is taken, so that a net that is a little different is judged alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.corpus.labelled import Net
from gradiometer.diagnosis.causes import Kind
from gradiometer.diagnosis.rules import Condition, Rule, Rules
from gradiometer.diagnosis.verdict import Confidence

FALSE_ALARM = 5.0  # what a false alarm costs, beside a net that is missed
CAUSE = 0.5  # what the right cause is worth, beside the right kind
CANDIDATES = 80  # thresholds tried per condition
ROUNDS = 10  # at most

RATES = "how often a verdict was right in the calibration: right, of how many"
Flags = NDArray[np.bool_]
Values = NDArray[np.float64]


def calibrate(table: Rules, nets: Sequence[Net]) -> Rules:
    """The same rules with the thresholds that these nets teach, and with their hit rates."""
    search = _Search(table, nets)
    for _ in range(ROUNDS):
        if not search.improve():
            break
    return replace(search.table, confidence=confidence(search.table, nets))


def confidence(table: Rules, nets: Sequence[Net]) -> dict[tuple[Kind, str | None], Confidence]:
    """Of each verdict: how often it was right among the nets of which it came first."""
    found: dict[tuple[Kind, str | None], list[bool]] = {}
    for net in nets:
        said = table.say(net.signs)
        if said:
            key = said[0].kind, said[0].cause
            found.setdefault(key, []).append(key == (net.label.kind, net.label.cause))
    order = sorted(found, key=lambda key: ([*Kind].index(key[0]), key[1] or ""))
    return {key: Confidence(sum(found[key]), len(found[key])) for key in order}


class _Search:
    """Thresholds, one at a time.

    For speed, all nets are judged at once: which rule comes first for each, and which cause.
    """

    def __init__(self, table: Rules, nets: Sequence[Net]) -> None:
        self.table = table
        self._nets = nets
        self._weight = _weights(nets)
        self._healthy = np.array([net.label.healthy for net in nets])
        self._values: dict[tuple[str, str], Values] = {}
        self._fires = {
            part: np.array([self._of(rule) for rule in getattr(table, part)])
            for part in ("kinds", "causes")
        }

    def improve(self) -> bool:
        """Go through all conditions once; whether any threshold changed."""
        before = self.table
        for part in ("kinds", "causes"):
            for i in range(len(getattr(self.table, part))):
                for side in ("when", "unless"):
                    for j in range(len(getattr(getattr(self.table, part)[i], side))):
                        self._set(part, i, side, j)
        return before != self.table

    def _set(self, part: str, i: int, side: str, j: int) -> None:
        rule = getattr(self.table, part)[i]
        condition = getattr(rule, side)[j]
        if rule.fixed:
            return
        tried = _candidates(self._values_of(condition))
        if not tried:
            return
        scores = [self._try(part, i, side, j, threshold) for threshold in tried]
        now = self._try(part, i, side, j, condition.threshold)
        best = max(*scores, now)
        good = [score >= best - 1e-9 for score in scores]
        self._put(part, i, side, j, _middle(tried, good, condition.threshold))

    def _try(self, part: str, i: int, side: str, j: int, threshold: float) -> float:
        before = self.table, self._fires[part][i].copy()
        self._put(part, i, side, j, threshold)
        found = self._score()
        self.table, self._fires[part][i] = before
        return found

    def _put(self, part: str, i: int, side: str, j: int, threshold: float) -> None:
        rules = list(getattr(self.table, part))
        conditions = list(getattr(rules[i], side))
        conditions[j] = replace(conditions[j], threshold=threshold)
        rules[i] = replace(rules[i], **{side: tuple(conditions)})
        self.table = replace(self.table, **{part: tuple(rules)})
        self._fires[part][i] = self._of(rules[i])

    def _score(self) -> float:
        """What all nets give: 1 for the right kind, more for the cause; less for false alarms."""
        first = _first(self._fires["kinds"])
        gain = np.zeros(len(self._nets))
        causes: dict[Kind, NDArray[np.object_]] = {}
        for i, rule in enumerate(self.table.kinds):
            mine = first == i
            if not mine.any() or rule.kind is None:
                continue
            if rule.kind == Kind.HEALTHY:
                gain[mine & self._healthy] = 1.0
                continue
            gain[mine & self._healthy] = -FALSE_ALARM
            right = mine & (self._kinds == rule.kind)
            if rule.cause is not None:
                cause: Any = rule.cause
            else:
                if rule.kind not in causes:
                    causes[rule.kind] = self._causes_of(rule.kind)
                cause = causes[rule.kind]
            gain[right] = 1.0
            gain[right & (self._causes == cause)] = 1.0 + CAUSE
        return float((gain * self._weight).sum())

    def _causes_of(self, kind: Kind) -> NDArray[np.object_]:
        """The cause that would be said of each net, if it were of this kind."""
        names = [rule.cause_of(kind) for rule in self.table.causes]
        belongs = np.array([name is not None for name in names])
        first = _first(self._fires["causes"] & belongs[:, None])
        return np.array([*names, self.table.usual[kind].cause], object)[first]

    @cached_property
    def _kinds(self) -> NDArray[np.object_]:
        return np.array([net.label.kind for net in self._nets], object)

    @cached_property
    def _causes(self) -> NDArray[np.object_]:
        return np.array([net.label.cause for net in self._nets], object)

    def _of(self, rule: Rule) -> Flags:
        """For which nets a rule fires."""
        held = np.ones(len(self._nets), bool)
        for condition in rule.when:
            held &= self._holds(condition)
        for condition in rule.unless:
            held &= ~self._holds(condition)
        return held

    def _holds(self, condition: Condition) -> Flags:
        values = self._values_of(condition)
        with np.errstate(invalid="ignore"):
            above = values > condition.threshold if condition.above else None
            return np.asarray(values < condition.threshold if above is None else above)

    def _values_of(self, condition: Condition) -> Values:
        key = condition.sign, condition.of
        if key not in self._values:
            self._values[key] = np.array([condition.value(net.signs) for net in self._nets])
        return self._values[key]


def _weights(nets: Sequence[Net]) -> Values:
    """How much each net counts: less, the more there are of its group with its cause."""
    keys = [(net.label.group, net.label.kind, net.label.cause) for net in nets]
    count = Counter(keys)
    weight = np.array([1 / np.sqrt(count[key]) for key in keys])
    return np.asarray(weight / weight.mean())


def _first(fires: Flags) -> NDArray[np.int64]:
    """Which rule comes first for each net; the number of rules where none fires."""
    none = np.ones((1, fires.shape[1]), bool)
    return np.asarray(np.concatenate([fires, none]).argmax(axis=0))


def _candidates(values: Values) -> list[float]:
    """Thresholds between the values that occur, rounded to two digits."""
    known = np.unique(values[np.isfinite(values)])
    if known.size < 2:
        return []
    between = (known[1:] + known[:-1]) / 2
    if between.size > CANDIDATES:
        between = np.quantile(between, np.linspace(0, 1, CANDIDATES))
    return sorted({float(f"{value:.2g}") for value in between})


def _middle(tried: Sequence[float], good: Sequence[bool], now: float) -> float:
    """The middle of the longest run of good thresholds."""
    runs: list[list[float]] = [[]]
    for threshold, fine in zip(tried, good, strict=True):
        if fine:
            runs[-1].append(threshold)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=lambda run: (run[-1] - run[0], len(run)) if run else (-1.0, 0))
    return longest[len(longest) // 2] if longest else now


# --- the file -------------------------------------------------------------------------------------


def write(path: Path, table: Rules) -> None:
    """Put the numbers into the file, and leave all else in it as it is."""
    lines: list[str] = []
    rule: Rule | None = None
    by_name = {rule.name: rule for rule in (*table.kinds, *table.causes)}
    for line in path.read_text(encoding="utf-8").split(f"\n# --- {RATES}")[0].splitlines():
        if line.startswith("name = "):
            rule = by_name[line.removeprefix("name = ").strip('"')]
        elif rule is not None and (match := re.match(r"(when|unless) = ", line)):
            texts = ", ".join(f'"{condition}"' for condition in getattr(rule, match[1]))
            line = f"{match[1]} = [{texts}]"
        lines.append(line)
    path.write_text("\n".join([*lines, *_rates(table)]) + "\n", encoding="utf-8")


def _rates(table: Rules) -> list[str]:
    lines = ["", f"# --- {RATES} ---".ljust(100, "-")]
    for kind in dict.fromkeys(kind for kind, _ in table.confidence):
        lines += ["", f"[confidence.{kind}]"]
        for (of, cause), found in table.confidence.items():
            if of == kind:
                lines.append(f'"{cause or ""}" = [{found.hits}, {found.of}]')
    return lines
