"""Effects and intervals are what listing all pairs gives, and agree with their tests."""

import math

import numpy as np
import pytest
from scipy import stats

from gradiometer.claims.estimates import pseudo_median, shift


def sample(n, seed=0, ties=False):
    values = np.random.default_rng(seed).normal(0.3, 1.0, n)
    return np.round(values, 1) if ties else values


def between(value, low, high):
    return low - 1e-12 <= value <= high + 1e-12


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 24, 60])
def test_median_of_the_means_of_all_pairs(n, ties):
    x = sample(n, n, ties)
    pairs = [(x[i] + x[j]) / 2 for i in range(n) for j in range(i, n)]
    found, low, high = pseudo_median(x)
    assert found == pytest.approx(np.median(pairs), abs=1e-12)
    assert math.isnan(low) if n < 6 else between(found, low, high)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (8, 6), (20, 31)])
def test_median_of_all_differences(n, m, ties):
    a, b = sample(n, n, ties), sample(m, 100 + m, ties)
    found, low, high = shift(a, b)
    assert found == pytest.approx(np.median(a[:, None] - b), abs=1e-12)
    assert math.isnan(low) if n * m < 20 else between(found, low, high)
    assert shift(b, a)[0] == pytest.approx(-found, abs=1e-12)


@pytest.mark.parametrize("n", [8, 20, 100])
def test_the_interval_is_what_the_test_does_not_reject(n):
    x, b = sample(n, n), sample(n + 3, 50)
    for (_, *ends), p in (
        (pseudo_median(x), lambda at: stats.wilcoxon(x - at).pvalue),
        (shift(x, b), lambda at: stats.mannwhitneyu(x - at, b).pvalue),
    ):
        for end, outwards in zip(ends, (-1, 1), strict=True):
            # the test's exact level lies between those of two neighbouring ranks
            assert p(end + outwards * 1e-9) < 0.055
            assert p(end - outwards * 0.3) > 0.05


def test_the_interval_holds_what_is_true_nineteen_times_of_twenty():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        low, high = pseudo_median(rng.normal(2.0, 1.0, 15))[1:]
        held.append(low <= 2.0 <= high)
    assert abs(np.mean(held) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 1000) + 0.01  # it is discrete


def test_of_few_values_the_interval_does_not_collapse():
    """Shares of ten units: the median's own interval would be [0.3, 0.3]."""
    shares = np.repeat([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [10, 14, 20, 12, 8, 6])
    found, low, high = pseudo_median(shares)
    assert low < found < high


def test_what_is_infinite_or_no_number():
    nan, inf = math.nan, math.inf
    assert all(map(math.isnan, pseudo_median(np.array([nan, nan]))))
    assert all(map(math.isnan, shift(np.array([1.0]), np.array([nan]))))
    assert pseudo_median(np.array([nan, 1.0, 2.0, 6.0]))[0] == 2.75
    assert pseudo_median(np.array([1.0, 2.0, 3.0, 4.0] + [inf] * 6)) == (inf, 3.0, inf)
    assert pseudo_median(np.full(9, -inf)) == (-inf, -inf, -inf)
    assert pseudo_median(np.array([-inf, -inf, -inf, 1.0]))[0] == -inf
    assert pseudo_median(np.array([-inf] * 6 + [inf] * 2))[0] == -inf
    assert shift(np.array([-inf] * 2 + [inf] * 6), np.zeros(4))[0] == inf
    assert shift(np.full(9, inf), np.arange(9.0))[0] == inf
    assert pseudo_median(np.zeros(20)) == (0.0, 0.0, 0.0)


def test_many_nets():
    found, low, high = pseudo_median(np.random.default_rng(0).normal(size=40_000))
    assert low < found < high
    assert abs(found) < 0.02
