"""What a run says: in numbers, as findings, and in a sentence.

The modules::

    numbers.py   a table of the layers, and by how much a quantity falls
    chains.py    which layers may be compared
    judge.py     from these to findings; the thresholds are in `gradiometer.thresholds`
    findings.py  the kinds of findings, each with its evidence
    sentence.py  findings in words
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradiometer.summary.findings import Judgement, Kind, Nets, kind_of_fall
from gradiometer.summary.judge import judge
from gradiometer.summary.numbers import (
    Recorded,
    decades,
    decades_lost,
    diverged_members,
    layer_table,
)
from gradiometer.summary.sentence import in_words

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun

__all__ = [
    "Judgement",
    "Kind",
    "Nets",
    "Recorded",
    "decades",
    "decades_lost",
    "diverged_members",
    "in_words",
    "judge",
    "kind_of_fall",
    "layer_table",
    "sentence",
]


def sentence(run: LabelledRun) -> str:
    """Say whether the gradient reaches the first layer; see `judge`.

    Raises
    ------
    KeyError
        If neither gradients nor deltas were recorded, and the run did not diverge.
    """
    return in_words(judge(run))
