"""Sizes of effects, each with the interval that belongs to its rank test.

A signed-rank test is about the pseudo-median, and the Mann-Whitney test about the shift between two
samples. Hodges & Lehmann (1963) estimate both as medians: of the means of all pairs, and of the
differences of all pairs. The values that the test would not reject (at 5 %, two-sided, in its
normal approximation) are the interval (Hollander & Wolfe 1999, sections 3.3 and 4.3): estimate,
interval and p never contradict one another.

Pairs are counted and not listed: of 40,000 nets there are 800 million.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from dp.typing import Array

Estimate = tuple[float, float, float]  # the effect, and the ends of its interval

CONFIDENCE = 0.95
NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
NOTHING = (math.nan, math.nan, math.nan)


def pseudo_median(values: Array) -> Estimate:
    """Median of the means (x_i + x_j)/2 of all pairs, i ≤ j; of symmetric values, their median.

    Parameters
    ----------
    values : array (n,)
        NaNs are left out; infinite ones count as what they are.

    Returns
    -------
    (estimate, low, high)
        NaN where there is no number; the interval is NaN with fewer than six.

    Examples
    --------
    >>> pseudo_median(np.array([1.0, 2.0, 6.0]))[0]
    2.75
    """
    x = np.sort(values[~np.isnan(values)])
    n = len(x)

    def at_most(mean: float) -> int:
        partners = np.searchsorted(x, 2 * mean - x, side="right")
        return int(np.maximum(partners - np.arange(n), 0).sum())

    # under the null hypothesis the sum of positive ranks has this mean and deviation
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return _estimate(at_most, n * (n + 1) // 2, spread, x, x)


def shift(larger: Array, smaller: Array) -> Estimate:
    """Median of the differences a_i - b_j of all pairs, of two samples that are not paired.

    Parameters
    ----------
    larger, smaller : arrays (n,), (m,)
        NaNs are left out.

    Returns
    -------
    (estimate, low, high)
        NaN where a sample has no number; the interval is NaN where there are too few.

    Examples
    --------
    >>> shift(np.array([3.0, 5.0, 8.0]), np.array([1.0, 2.0]))[0]
    3.5
    """
    a, b = (np.sort(x[~np.isnan(x)]) for x in (larger, smaller))
    n, m = len(a), len(b)

    def at_most(difference: float) -> int:
        return int((m - np.searchsorted(b, a - difference, side="left")).sum())

    spread = math.sqrt(n * m * (n + m + 1) / 12)
    return _estimate(at_most, n * m, spread, a, -b[::-1])


def _estimate(
    at_most: Callable[[float], int], pairs: int, spread: float, x: Array, y: Array
) -> Estimate:
    """The median of combinations of x and y, and its interval, from the count of those up to t."""
    if not pairs:
        return NOTHING

    def ranked(rank: int) -> float:
        return _smallest(at_most, rank, x, y)

    middle = (ranked((pairs + 1) // 2) + ranked(pairs // 2 + 1)) / 2
    rank = math.floor(pairs / 2 - NORMAL * spread)
    if rank < 1:  # not even from the least to the largest
        return middle, math.nan, math.nan
    return middle, ranked(rank), ranked(pairs + 1 - rank)


def _smallest(at_most: Callable[[float], int], rank: int, x: Array, y: Array) -> float:
    """The combination of this rank (from 1), by bisection between the least and the largest."""
    # a mean or a difference of any two that are finite lies in between
    reach = 1.0 + sum(float(np.abs(each[np.isfinite(each)]).max(initial=0.0)) for each in (x, y))
    low, high = -reach, reach
    if at_most(low) >= rank:
        return -math.inf
    if at_most(high) < rank:
        return math.inf
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if at_most(middle) >= rank else (middle, high)
    return high
