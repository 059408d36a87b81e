"""Changes to a net that fails, each tried on the same seeds and measured.

The modules::

    candidates.py   the table of changes: which causes each is for, and how it is made
    settings.py     how a change is made to an experiment
    experiments.py  trials of an experiment
    torch/          the same for a user's own model: what it calls, changes to it, trials
    rate.py         the learning rate that fits the updates of a run
    trials.py       what a trial is asked
    applying.py     what trials have in common
    effects.py      effects with their intervals: against changing nothing, against a random remedy
    ranking.py      the best first, and which of them work
    results.py      what came out, as values
    words.py        the same in words
    trying.py       try_remedies
"""

from gradiometer.remedies.candidates import CANDIDATES, Candidate
from gradiometer.remedies.effects import Effect
from gradiometer.remedies.results import NotTried, Remedies, Tried
from gradiometer.remedies.trying import try_remedies

__all__ = [
    "CANDIDATES",
    "Candidate",
    "Effect",
    "NotTried",
    "Remedies",
    "Tried",
    "try_remedies",
]
