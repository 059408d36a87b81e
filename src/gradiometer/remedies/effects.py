"""The effect of a remedy, paired over seeds, against changing nothing and against a random remedy.

The interval of a mean difference is Student's (1908), of the differences seed by seed. As the best
of several candidates is looked for, intervals hold together: with k candidates each has the level
1 - 5 %/k (Bonferroni; Dunn 1961), so that in 95 of 100 runs all of them cover. Differences that are
the same for all seeds have an interval of width zero.

A remedy drawn at random is one of the candidates that were tried, each equally likely, the best one
among them. On a seed it reaches the mean of their scores, and the remedy's difference to that is
paired over seeds, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dp.typing import Array

LEVEL = 0.95  # of all intervals together


@dataclass(frozen=True)
class Effect:
    """A mean difference with its interval; positive where the remedy is better.

    Attributes
    ----------
    mean, low, high : float
        In units of the outcome; the ends are NaN with a single seed.
    """

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on the remedy's side."""
        return self.low > 0


def effect(better: Array, worse: Array, together: int = 1) -> Effect:
    """Mean of `better - worse`, paired over seeds, with its interval.

    Parameters
    ----------
    better, worse : array
        Scores, one for each seed; larger is better.
    together : int
        Number of intervals that hold at once.

    Examples
    --------
    >>> found = effect(np.array([0.9, 1.0, 1.0]), np.array([0.5, 0.5, 0.6]))
    >>> print(f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]")
    0.43 [0.29, 0.58]
    """
    with np.errstate(invalid="ignore"):  # infinite losses
        difference = np.asarray(better, np.float64) - np.asarray(worse, np.float64)
        mean, n = float(difference.mean()), len(difference)
    if n < 2:
        return Effect(mean, math.nan, math.nan)
    from scipy import stats

    with np.errstate(invalid="ignore"):
        error = float(difference.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf(1 - (1 - LEVEL) / (2 * together), n - 1)) * error
    return Effect(mean, mean - reach, mean + reach)


def against_random(scores: Array, together: int = 1) -> list[Effect]:
    """Effect of each candidate against one of them drawn at random.

    Parameters
    ----------
    scores : array
        A row for each candidate, a column for each seed.
    together : int
        As in `effect`.
    """
    random = scores.mean(axis=0)
    return [effect(own, random, together) for own in scores]
