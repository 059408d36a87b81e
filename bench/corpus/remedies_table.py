"""The table of remedies: how often what is recommended mends a net, beside a random remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from bench.corpus.scores import Count

if TYPE_CHECKING:
    from bench.corpus.remedies import Row

SOURCES = {"experiments": "experiments", "torch": "nets of PyTorch"}
LEAST = 0.02  # by which accuracy or R² must improve
HEADINGS = (
    "failing nets", "a remedy is recommended", "it improves the outcome", "unchanged", "mended",
    "a random remedy", "better than a random one by",
)  # fmt: skip


def in_markdown(rows: Sequence[Row]) -> str:
    """A line per source, then a line per cause."""
    lines = [f"| | {' | '.join(HEADINGS)} |", f"|---|{'---|' * len(HEADINGS)}"]
    for source, words in SOURCES.items():
        mine = [row for row in rows if row.source == source]
        lines += [_line(words, mine)] if mine else []
    lines += ["", f"| cause | {' | '.join(HEADINGS[:3])} | most often recommended |"]
    lines.append("|---|---|---|---|---|")
    for cause in sorted({row.cause for row in rows}):
        lines.append(_of_cause(cause, [row for row in rows if row.cause == cause]))
    return "\n".join(lines)


def improves(row: Row) -> bool:
    """Whether there is a recommendation that holds on fresh seeds."""
    return bool(row.recommended) and row.mended - row.unchanged >= LEAST


def beats_random(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Mean difference to a remedy drawn at random, over nets, with its 95 % interval (Student)."""
    differences = np.array([row.mended - row.random for row in rows if row.recommended])
    if len(differences) < 2:
        return math.nan, math.nan, math.nan
    middle, error = float(differences.mean()), float(stats.sem(differences))
    reach = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return middle, middle - reach, middle + reach


def _line(words: str, rows: Sequence[Row]) -> str:
    known = [row for row in rows if row.recommended]
    reached = [(row.unchanged, row.mended, row.random) for row in known]
    means = np.mean(reached, axis=0) if reached else [math.nan] * 3
    middle, low, high = beats_random(rows)
    cells = [
        words, str(len(rows)),
        str(Count.among(bool(row.recommended) for row in rows)),
        str(Count.among(map(improves, rows))),
        *(f"{mean:.2f}" for mean in means),
        f"{middle:.2f} [{low:.2f}, {high:.2f}]",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _of_cause(cause: str, rows: Sequence[Row]) -> str:
    names = [row.recommended for row in rows if row.recommended]
    often = sorted(set(names), key=lambda name: (-names.count(name), name))[:3]
    told = ", ".join(f"{name} ({names.count(name)})" for name in often)
    return f"| {cause} | {len(rows)} | {len(names)} | {sum(map(improves, rows))} | {told} |"
