"""The table of accuracy: ours beside the baselines', on each part of the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.corpus.baselines import BASELINES
from bench.corpus.labelled import Net
from bench.corpus.scores import Count, Said, Scores, by_baseline, by_rules, is_right, score
from gradiometer.diagnosis.rules import Rules

OURS = "gradiometer"
COLUMNS = {
    "kind": "right verdict",
    "cause": "right cause",
    "layer": "right layer",
    "elsewhere": "told “no gradient problem”",
    "pointer": "with the right cause",
    "false_alarms": "false alarms",
}


def scores(nets: Sequence[Net], table: Rules) -> dict[str, Scores]:
    """Ours and the baselines'."""
    found = {OURS: score(nets, by_rules(table))}
    for name in BASELINES:
        found[name] = score(nets, by_baseline(name))
    return found


def in_markdown(nets: Sequence[Net], table: Rules) -> str:
    """The table, with the numbers of nets above it."""
    failing = sum(not net.label.healthy for net in nets)
    lines = [
        f"{failing} failing nets, {len(nets) - failing} healthy ones; shares with their 95 % "
        "Wilson intervals.",
        "",
        f"| | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name, found in scores(nets, table).items():
        lines.append(f"| {name} | {' | '.join(str(getattr(found, c)) for c in COLUMNS)} |")
    return "\n".join(lines)


def misjudged(nets: Sequence[Net], table: Rules) -> list[tuple[Net, Said]]:
    """The nets of which kind or cause are wrong, with what is said of them."""
    say = by_rules(table)
    pairs = [(net, say(net)) for net in nets]
    return [(net, said) for net, said in pairs if not _fine(net, said)]


def _fine(net: Net, said: Said) -> bool:
    if net.label.healthy:
        return said.kind == "healthy"
    return is_right(net.label.kind, net.label.cause, said)


def by_cause(nets: Sequence[Net], table: Rules) -> str:
    """Right verdicts of each kind and cause, and what is said instead."""
    say = by_rules(table)
    lines = [
        "| kind | cause | nets | right verdict | right cause | said instead |",
        "|---|---|---|---|---|---|",
    ]
    labels = sorted({(net.label.kind, net.label.cause or "") for net in nets})
    for kind, cause in labels:
        mine = [n for n in nets if (n.label.kind, n.label.cause or "") == (kind, cause)]
        said = [say(net) for net in mine]
        right = Count.among(s.kind == kind for s in said)
        exact = Count.among(is_right(kind, cause or None, s) for s in said)
        wrong = Counter(
            f"{s.kind}: {s.cause}" if s.cause else f"{s.kind}"
            for s in said
            if not is_right(kind, cause or None, s)
        )
        instead = "; ".join(f"{what} ({count})" for what, count in wrong.most_common(3))
        lines.append(
            f"| {kind} | {cause or '–'} | {len(mine)} | {right.hits} | {exact.hits} | {instead} |"
        )
    return "\n".join(lines)
