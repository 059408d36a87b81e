"""The tests behind the verdicts, each with the effect it is about and that effect's interval.

Every test is one-sided: its null hypothesis is the contrary of what a statement says. A small p
speaks for the statement, therefore, and an interval that lies wholly on the other side against it.
SciPy does the tests; `gradiometer.claims.estimates` the effects and intervals that belong to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from dp.typing import Array
from gradiometer.claims.estimates import CONFIDENCE, pseudo_median, shift

ALPHA = 0.05  # of the whole run: p-values are corrected for their number
LEAST_NETS = 6  # with fewer a rank test rejects nothing at 5 %, two-sided: there is no interval
MARGIN = 0.03  # decades per layer within which a slope counts as none


@dataclass(frozen=True)
class Finding:
    """One thing that an experiment was asked, and what came out.

    Attributes
    ----------
    what : str
        What is to be shown, in words.
    test : str
        How: the test's name, or "exact check".
    effect, low, high : float
        The measured effect and its 95 % interval (see `gradiometer.claims.estimates`); the interval
        of a check is NaN.
    unit : str
    n : int
        Nets (or points, of a check) that it rests on.
    p : float or None
        Of the null hypothesis that the contrary of `what` holds; None for a check.
    corrected : float or None
        p after Holm's correction over all tests of the run.
    true : bool or None
        What a check found; None for a test.
    no_interval : str
        Why a test has no interval; empty where it has one, and for a check.
    contrary : bool
        Whether what came out contradicts `what`: a check that failed, an interval that lies wholly
        on the other side.
    """

    what: str
    test: str
    effect: float
    low: float
    high: float
    unit: str
    n: int
    p: float | None = None
    corrected: float | None = None
    true: bool | None = None
    contrary: bool = False
    no_interval: str = ""

    @property
    def shown(self) -> bool:
        """Whether `what` was shown: the check is true, or the corrected p is at most 5 %."""
        if self.p is None:
            return bool(self.true)
        return self.corrected is not None and self.corrected <= ALPHA


def check(what: str, true: Any, effect: float, unit: str = "", n: int = 1) -> Finding:
    """What needs no test, since it is true or false of all that was looked at."""
    true = bool(true)
    return Finding(
        what, "exact check", float(effect), np.nan, np.nan, unit, n, true=true, contrary=not true
    )


def signed_rank(what: str, larger: Array, smaller: Array, unit: str, least: float = 0.0) -> Finding:
    """That one quantity is larger than another of the same net, by more than `least`.

    Wilcoxon's signed-rank test (Wilcoxon 1945), paired by seed.

    Parameters
    ----------
    what, unit : str
    larger, smaller : arrays (nets,)
        Of the same seeds, in the same order. Pairs that have no difference as a number are left
        out.
    least : float

    Returns
    -------
    Finding
        The effect is the pseudo-median of `larger - smaller`.

    Raises
    ------
    ValueError
        If the two are not of one length: they could not be paired.
    """
    if larger.shape != smaller.shape:
        raise ValueError(
            f"{what}: {len(larger)} and {len(smaller)} nets cannot be paired by their seeds"
        )
    with np.errstate(invalid="ignore"):
        difference = larger - smaller
    difference = difference[~np.isnan(difference)]
    middle, low, high = pseudo_median(difference)
    p = _rank_p(difference - least, "greater")
    name = "Wilcoxon signed-rank, paired by seed"
    return Finding(
        what, name, middle, low, high, unit, len(difference), p, contrary=high < least,
        no_interval=_why_none(low, len(difference)),
    )  # fmt: skip


def equivalence(
    what: str, values: Array, unit: str, centre: float = 0.0, margin: float = MARGIN
) -> Finding:
    """That values lie about `centre`, within a margin either side.

    Two one-sided tests (Schuirmann 1987), both of them Wilcoxon's signed-rank test: p is the larger
    one. The effect is the pseudo-median of `values`.
    """
    known = values[~np.isnan(values)]
    middle, low, high = pseudo_median(known)
    p = max(
        _rank_p(known - (centre - margin), "greater"), _rank_p(known - (centre + margin), "less")
    )
    outside = low > centre + margin or high < centre - margin
    name = f"equivalence to {centre:.3g} ± {margin:g}: two one-sided Wilcoxon tests"
    return Finding(
        what, name, middle, low, high, unit, len(known), p, contrary=bool(outside),
        no_interval=_why_none(low, len(known)),
    )  # fmt: skip


def mann_whitney(what: str, larger: Array, smaller: Array, unit: str) -> Finding:
    """That one quantity tends to be larger than another, of nets that are not paired.

    The test of Mann & Whitney (1947). The effect is the shift between them.
    """
    a, b = larger[~np.isnan(larger)], smaller[~np.isnan(smaller)]
    effect, low, high = shift(a, b)
    enough = len(a) > 0 and len(b) > 0
    p = float(stats.mannwhitneyu(a, b, alternative="greater").pvalue) if enough else 1.0
    n = len(a) + len(b) if enough else 0
    why = _why_none(low, min(len(a), len(b)), "of each group")
    return Finding(
        what, "Mann–Whitney", effect, low, high, unit, n, p, contrary=high < 0, no_interval=why
    )


def most(what: str, true: Array) -> Finding:
    """That something is true of more than half of the nets.

    A sign test: the exact binomial test against ½. The effect is the share, with the interval of
    Clopper & Pearson (1934).

    Parameters
    ----------
    what : str
    true : array of bool (nets,)
    """
    return _shares(what, "sign test", int(true.sum()), len(true), "of nets")


def more_often(what: str, larger: Array, smaller: Array) -> Finding:
    """That a quantity goes up more often than down, in the same nets.

    The sign test of paired differences; those that are zero, or no numbers, tell nothing and are
    left out. The effect is the share that goes up, with the interval of Clopper & Pearson (1934).
    """
    with np.errstate(invalid="ignore"):
        difference = larger - smaller
    up, down = int((difference > 0).sum()), int((difference < 0).sum())
    return _shares(what, "sign test, paired by seed", up, up + down, "of nets that differ")


def _why_none(low: float, nets: int, of: str = "") -> str:
    """Why an interval is missing, in words; empty if it is there."""
    if not np.isnan(low):
        return ""
    if not nets:
        return "no net has a number to compare"
    return f"too few nets for one: {nets} {of}".rstrip() + f", at least {LEAST_NETS} are needed"


def _shares(what: str, name: str, count: int, n: int, unit: str) -> Finding:
    if not n:
        return Finding(
            what, name, np.nan, np.nan, np.nan, unit, 0, 1.0, no_interval=_why_none(np.nan, 0)
        )
    tested = stats.binomtest(count, n, 0.5, alternative="greater")
    low, high = clopper_pearson(count, n)
    return Finding(
        what, name, count / n, low, high, unit, n, float(tested.pvalue), contrary=high < 0.5
    )


def clopper_pearson(count: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share, two-sided (Clopper & Pearson 1934)."""
    interval = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def _rank_p(difference: Array, alternative: str) -> float:
    """Of Wilcoxon's signed-rank test; 1 where nothing differs."""
    if not difference.any():
        return 1.0
    # exact where it can be: "auto" looks for ties and zeros, and takes the normal law with them
    return float(stats.wilcoxon(difference, alternative=alternative).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values so that, of all that are true nulls, any is rejected with at most 5 %.

    Holm (1979): the smallest times m, the next times m - 1, …, each at least the one before it.

    Examples
    --------
    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p, dtype=np.float64)
    order = values.argsort(kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.maximum.accumulate(np.minimum(values[order] * factors, 1.0))
    found = np.empty_like(values)
    found[order] = adjusted
    return [float(x) for x in found]


def correct(findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, with p corrected for the number of tests among them.

    A finding that stands there several times, in both wordings of a claim, is one test.
    """
    tests = tests_among(findings)
    adjusted = dict(zip(tests, holm([f.p or 0.0 for f in tests]), strict=True))
    return [replace(f, corrected=adjusted.get(f)) for f in findings]


def tests_among(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are tests and not checks, each once, in their order."""
    return [*dict.fromkeys(finding for finding in findings if finding.p is not None)]
