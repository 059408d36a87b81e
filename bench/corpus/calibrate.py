"""Learn the thresholds of `rules.toml` on the calibration part of the corpus.

What the rules ask, and in which order, is written by hand; here the numbers are found, by going
through the conditions one after the other and taking for each the threshold with which most nets
are judged right, until nothing changes. Where many thresholds are equally good, the one in the
middle is taken, so that a net that is a little different is judged alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.corpus.labelled import Net
from gradiometer.diagnosis.causes import Kind
from gradiometer.diagnosis.rules import Condition, Rule

FALSE_ALARM = 3.0  # what a false alarm costs, beside a net that is missed
CAUSE = 0.5  # what the right cause is worth, beside the right kind
CANDIDATES = 80  # thresholds tried per condition
ROUNDS = 10  # at most
FIXED = {"finite_share", "nonfinite_input", "nonfinite_in_loss"}  # signs that are 0 or 1

Flags = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """What the calibration looks at: labels as numbers, and how much each net counts."""

    nets: Sequence[Net]
    weight: Values

    @classmethod
    def of(cls, nets: Sequence[Net]) -> Corpus:
        """Each group counts alike for each cause, however many nets it has of it."""
        keys = [(net.label.group, net.label.kind, net.label.cause) for net in nets]
        weight = np.array([1 / np.sqrt(keys.count(key)) for key in keys])
        return cls(nets, weight / weight.mean())

    def gains(self, table: Sequence[Rule]) -> Values:
        """What each net gives if each rule comes first, and if none does; (rules + 1, nets)."""
        rows = [[_gain(net, rule) for net in self.nets] for rule in (*table, None)]
        return np.array(rows) * self.weight


def _gain(net: Net, rule: Rule | None) -> float:
    label = net.label
    if rule is None:
        return 0.0
    if label.healthy:
        return 1.0 if rule.kind == Kind.HEALTHY else -FALSE_ALARM
    if rule.kind != label.kind:
        return 0.0
    return 1.0 + (CAUSE if rule.cause == label.cause else 0.0)


def calibrate(table: Sequence[Rule], nets: Sequence[Net]) -> list[Rule]:
    """The same rules with the thresholds that these nets teach, and with their hit rates."""
    corpus = Corpus.of(nets)
    search = _Search(list(table), corpus)
    for _ in range(ROUNDS):
        if not search.improve():
            break
    return search.table


class _Search:
    """Thresholds, one at a time."""

    def __init__(self, table: list[Rule], corpus: Corpus) -> None:
        self.table = table
        self.nets = corpus.nets
        self._gains = corpus.gains(table)
        self._fires = np.array([self._of(rule) for rule in table])

    def improve(self) -> bool:
        """Go through all conditions once; whether any threshold changed."""
        before = list(self.table)
        for i in range(len(self.table)):
            for part in ("when", "unless"):
                for j, condition in enumerate(getattr(self.table[i], part)):
                    if condition.sign not in FIXED:
                        self._set(i, part, j, condition)
        return before != self.table

    def _set(self, i: int, part: str, j: int, condition: Condition) -> None:
        values = np.array([condition.value(net.signs) for net in self.nets])
        tried = _candidates(values)
        found = [self._score(i, self._with(i, part, j, threshold)) for threshold in tried]
        if not found:
            return
        now = self._score(i, self.table[i])
        best = max(found)
        if best < now + 1e-9:
            best = now
        chosen = _middle(tried, [value >= best - 1e-9 for value in found], condition.threshold)
        self.table[i] = self._with(i, part, j, chosen)
        self._fires[i] = self._of(self.table[i])

    def _with(self, i: int, part: str, j: int, threshold: float) -> Rule:
        conditions = list(getattr(self.table[i], part))
        conditions[j] = replace(conditions[j], threshold=threshold)
        return replace(self.table[i], **{part: tuple(conditions)})

    def _score(self, i: int, rule: Rule) -> float:
        fires = self._fires.copy()
        fires[i] = self._of(rule)
        return float(self._gains[_first(fires), np.arange(len(self.nets))].sum())

    def _of(self, rule: Rule) -> Flags:
        """For which nets a rule fires."""
        held = np.ones(len(self.nets), bool)
        for condition in rule.when:
            held &= self._holds(condition)
        for condition in rule.unless:
            held &= ~self._holds(condition)
        return held

    def _holds(self, condition: Condition) -> Flags:
        key = condition.sign, condition.of
        if key not in self._cache:
            self._cache[key] = np.array([condition.value(net.signs) for net in self.nets])
        values = self._cache[key]
        with np.errstate(invalid="ignore"):
            found = (
                values > condition.threshold if condition.above else values < condition.threshold
            )
        return np.asarray(found)

    @property
    def _cache(self) -> dict[tuple[str, str], Values]:
        return self.__dict__.setdefault("_values", {})


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


# --- confidence and the file ----------------------------------------------------------------------


def with_hits(table: Sequence[Rule], nets: Sequence[Net]) -> dict[str, tuple[int, int]]:
    """Of each rule: in how many nets it came first and was right, and in how many it came first."""
    search = _Search(list(table), Corpus.of(nets))
    first = _first(search._fires)
    found = {}
    for i, rule in enumerate(table):
        mine = [net.label for net, at in zip(nets, first, strict=True) if at == i]
        right = [label for label in mine if (label.kind, label.cause) == (rule.kind, rule.cause)]
        found[rule.name] = len(right), len(mine)
    return found


def write(path: Path, table: Sequence[Rule], hits: dict[str, tuple[int, int]]) -> None:
    """Put the numbers into the file, and leave all else in it as it is."""
    lines: list[str] = []
    rule: Rule | None = None
    by_name = {rule.name: rule for rule in table}
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"(hits|of) = ", line):
            continue
        if line.startswith("name = "):
            rule = by_name[line.removeprefix("name = ").strip('"')]
        elif rule is not None and (match := re.match(r"(when|unless) = ", line)):
            texts = ", ".join(f'"{condition}"' for condition in getattr(rule, match[1]))
            line = f"{match[1]} = [{texts}]"
        lines.append(line)
        if rule is not None and line.startswith("kind = "):
            right, first = hits[rule.name]
            lines += [f"hits = {right}", f"of = {first}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
