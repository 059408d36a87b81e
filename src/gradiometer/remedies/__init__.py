"""Changes to a net that fails, each tried on the same seeds and measured.

The modules::

    candidates.py   the table of changes: which causes each is for, and how it is made
    settings.py     how a change is made to an experiment
    pytorch.py      how it is made to a model of PyTorch and its optimizer
    seen.py         what a model of PyTorch does in its first forward pass
    rate.py         the learning rate that fits the updates of a run
    experiments.py  trials of an experiment
    models.py       trials of a user's own model
    effects.py      effects with their intervals: against changing nothing, against a random remedy
    results.py      what came out, as values
    words.py        the same in words
    trying.py       try_remedies
"""

from gradiometer.remedies.candidates import CANDIDATES, Candidate
from gradiometer.remedies.results import Effect, NotTried, Remedies, Tried
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
