"""From a run to its diagnosis: signs are read, rules asked, and verdicts made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradiometer.diagnosis.causes import Kind
from gradiometer.diagnosis.reading import Reading, readings
from gradiometer.diagnosis.rules import Said, Signs, place_of, rules, value_of
from gradiometer.diagnosis.signs import SIGNS, death, read_signs, worst_ends
from gradiometer.diagnosis.verdict import Diagnosis, Evidence, NotJudged, Verdict
from gradiometer.diagnosis.words import Facts

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


@dataclass(frozen=True)
class _Net:
    """One net of a run with its signs, and what the rules say of it."""

    reading: Reading
    signs: Signs
    said: tuple[Said, ...]


def diagnose(run: LabelledRun) -> Diagnosis:
    """Say what a run suffers from: what is wrong, in which layer, and why.

    The whole run is judged, not the first step alone. Signs are read off it (`signs.py`), and rules
    tell what they speak for (`rules.toml`). A net that learns is healthy, whatever its ratios say.
    Of an ensemble each net is judged by itself, and the verdict that holds for most comes first.

    Parameters
    ----------
    run : Trace
        Of any framework, with whatever was recorded.

    Returns
    -------
    Diagnosis
        With at least one verdict.
    """
    steps = run.dataset["step"].values
    if not len(steps) or not run.layers:
        nothing = "no step was recorded" if run.layers else "there are no layers"
        return Diagnosis((_unknown(nothing),), (), tuple(run.layers))
    judged = [_judged(reading) for reading in readings(run)]
    verdicts = _verdicts(run, judged) or (_unknown(_nothing(len(steps))),)
    ends = int(steps[0]), int(steps[-1])
    return Diagnosis(verdicts, _not_judged(run, judged), tuple(run.layers), ends)


def _unknown(why: str) -> Verdict:
    return Verdict(Kind.UNKNOWN, None, None, (), f"Cannot be judged: {why}.", "", "")


def _nothing(steps: int) -> str:
    if steps == 1:
        return "only one step was recorded, and it takes two to see whether the net learns"
    return "nothing that was recorded tells"


def _judged(reading: Reading) -> _Net:
    signs = read_signs(reading)
    return _Net(reading, signs, rules().say(signs))


def _verdicts(run: LabelledRun, judged: Sequence[_Net]) -> tuple[Verdict, ...]:
    """One per kind and cause that holds for any net: first those that come first in most nets."""
    nets: dict[tuple[Kind, str | None], list[_Net]] = {}
    said_of: dict[tuple[Kind, str | None], Said] = {}
    firsts: Counter[tuple[Kind, str | None]] = Counter()
    for net in judged:
        for position, said in enumerate(net.said):
            key = said.kind, said.cause
            nets.setdefault(key, []).append(net)
            said_of.setdefault(key, said)
            firsts[key] += position == 0
    order = sorted(nets, key=lambda key: (-firsts[key], -len(nets[key])))
    return tuple(_verdict(run, said_of[key], nets[key], len(judged)) for key in order)


def _verdict(run: LabelledRun, said: Said, nets: Sequence[_Net], total: int) -> Verdict:
    place = _mode([said.place(net.signs) for net in nets])
    layer = None if place is None else str(run.layers[place])
    step = _begin(nets, said.kind)
    signs, first = [net.signs for net in nets], nets[0].reading
    is_usual = said.because is rules().usual.get(said.kind)
    ends, ends_first = worst_ends(first), worst_ends(first, at_first=True)
    facts = Facts(run, signs, said.kind, said.cause, is_usual, place, step, total, ends, ends_first)
    return Verdict(
        said.kind,
        said.cause,
        layer,
        _evidence(run, said, nets),
        facts.sentence(),
        facts.advice(),
        said.rule.name,
        rules().confidence.get((said.kind, said.cause)),
        len(nets),
        total,
        step,
    )


def _mode(places: Sequence[int | None]) -> int | None:
    """The one that is there most often, and the first of several; None if there is none."""
    known = [place for place in places if place is not None]
    return max(sorted(set(known)), key=known.count) if known else None


def _begin(nets: Sequence[_Net], kind: Kind) -> int | None:
    """The earliest recorded step at which what the verdict says was so in one of the nets."""
    steps = nets[0].reading.steps
    if kind == Kind.NON_FINITE:
        begins = [net.reading.steps_finite for net in nets if net.reading.diverged]
    elif kind == Kind.DEAD:
        begins = [at for net in nets if (at := death(net.reading)) is not None]
    else:
        return None
    return int(steps[min(begins)]) if begins else None


def _evidence(run: LabelledRun, said: Said, nets: Sequence[_Net]) -> tuple[Evidence, ...]:
    """The signs that the rules asked, of the kind and of the cause."""
    because = () if said.because is said.rule else said.because.asked
    found = []
    for of, name in dict.fromkeys((*said.rule.asked, *because)):
        sign = SIGNS[name]
        layer, place = None, None
        if of in ("most", "least"):
            place = _mode([place_of(np.asarray(net.signs[name]), of) for net in nets])
            layer = None if place is None else str(run.layers[place])
        if place is None:
            values = np.array([value_of(net.signs[name], of) for net in nets])
        else:  # of the layer that is named, in every net
            values = np.array([np.asarray(net.signs[name])[place] for net in nets])
        known = values[np.isfinite(values)]
        if not known.size:
            continue
        value = float(np.median(known))
        found.append(Evidence(name, sign.label, value, sign.low, sign.high, layer))
    return tuple(found)


def _not_judged(run: LabelledRun, nets: Sequence[_Net]) -> tuple[NotJudged, ...]:
    """The kinds of which no rule could be asked, with the quantities that these need."""
    found = []
    for kind in Kind:
        mine = [rule for rule in rules().kinds if rule.kind == kind]
        if not mine or any(rule.fires(net.signs) is not None for rule in mine for net in nets):
            continue
        lacking = {
            quantity: None
            for rule in mine
            for condition in rule.when
            if condition.holds(nets[0].signs) is None
            for quantity in SIGNS[condition.sign].needs
            if quantity not in nets[0].reading
        }
        recorded = [name for name in lacking if name in run.dataset]
        record = tuple(name for name in lacking if name not in run.dataset)
        if record:
            why = f"{_list(record)} not recorded"
        elif recorded:
            why = f"{_list(recorded)} nowhere known and finite"
        else:
            why = _TOO_LITTLE.get(kind, "what was recorded is not enough")
        found.append(NotJudged(str(kind), why, record))
    return tuple(found)


_ONE_LAYER = "it takes two layers with a delta that is known and not zero"
_NO_HIDDEN = "it is not known of any hidden layer"
_TOO_LITTLE = {
    Kind.VANISHING: _ONE_LAYER,
    Kind.EXPLODING: _ONE_LAYER,
    Kind.DEAD: _NO_HIDDEN,
    Kind.SATURATED: _NO_HIDDEN,
}


def _list(names: Sequence[str]) -> str:
    """Names with their verb: "a was", "a, b and c were"."""
    if len(names) == 1:
        return f"{names[0]} was"
    return f"{', '.join(names[:-1])} and {names[-1]} were"
