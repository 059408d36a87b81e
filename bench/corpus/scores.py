"""How often verdicts are right: counts with Wilson intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scipy.stats import binomtest

from bench.corpus.labelled import Net
from gradiometer.diagnosis.rules import Rules


@dataclass(frozen=True)
class Said:
    """What somebody says of a net.

    Attributes
    ----------
    kind : str or None
        None if there is no alarm and no verdict.
    cause, layer : str or None
    told : bool
        Whether causes and layers are told at all.
    """

    kind: str | None
    cause: str | None = None
    layer: str | None = None
    told: bool = True


@dataclass(frozen=True)
class Count:
    """So many of so many."""

    hits: int
    of: int

    @classmethod
    def among(cls, answers: Iterable[bool]) -> Count:
        """Count the true ones."""
        found = list(answers)
        return cls(sum(found), len(found))

    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the share (Wilson 1927)."""
        if not self.of:
            return 0.0, 1.0
        found = binomtest(self.hits, self.of).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if not self.of:
            return "–"
        low, high = self.interval()
        return f"{self.hits / self.of:.1%} ({low:.0%}–{high:.0%})"


@dataclass(frozen=True)
class Scores:
    """What is right, among failing nets; and what is a false alarm, among healthy ones.

    Attributes
    ----------
    caught : Count
        Failing nets with any alarm.
    kind, cause, layer : Count
        With the right kind first; the right cause, too; the right layer, where one is meant.
    elsewhere, pointer : Count
        Of those that fail for another reason than the gradient's way: told so; and with the cause.
    false_alarms : Count
        Healthy nets with an alarm.
    """

    caught: Count
    kind: Count
    cause: Count
    layer: Count
    elsewhere: Count
    pointer: Count
    false_alarms: Count


def by_rules(table: Rules) -> Callable[[Net], Said]:
    """The first verdict of the diagnosis."""

    def said(net: Net) -> Said:
        found = table.say(net.signs)
        if not found:
            return Said("unknown")
        place = found[0].place(net.signs)
        layer = None if place is None else net.layers[place]
        return Said(str(found[0].kind), found[0].cause, layer)

    return said


def by_baseline(name: str) -> Callable[[Net], Said]:
    """The alarm of a baseline, which tells neither cause nor layer."""
    return lambda net: Said(net.baselines[name], told=False)


def score(nets: Iterable[Net], say: Callable[[Net], Said]) -> Scores:
    """Compare what is said of nets with their labels."""
    pairs = [(net.label, say(net)) for net in nets]
    failing = [(label, said) for label, said in pairs if not label.healthy]
    stalled = [(label, said) for label, said in failing if label.kind == "stalled"]
    placed = [(label, said) for label, said in failing if label.layers and said.told]
    told = [(label, said) for label, said in failing if said.told]
    quiet = (None, "healthy", "unknown")
    return Scores(
        caught=Count.among(said.kind not in quiet for _, said in failing),
        kind=Count.among(said.kind == label.kind for label, said in failing),
        cause=Count.among(is_right(label.kind, label.cause, said) for label, said in told),
        layer=Count.among(
            said.kind == label.kind and said.layer in label.layers for label, said in placed
        ),
        elsewhere=Count.among(said.kind == "stalled" for _, said in stalled),
        pointer=Count.among(
            is_right(label.kind, label.cause, said) for label, said in stalled if said.told
        ),
        false_alarms=Count.among(said.kind not in quiet for label, said in pairs if label.healthy),
    )


def is_right(kind: str, cause: str | None, said: Said) -> bool:
    """Whether kind and cause are the right ones."""
    return (said.kind, said.cause) == (kind, cause)
