"""Effects with their intervals, against changing nothing and against a random remedy."""

import math

import numpy as np
import pytest
from scipy import stats

from gradiometer.remedies.effects import against_random, effect


def test_the_interval_is_that_of_the_paired_t_test():
    better, worse = np.array([0.9, 0.8, 1.0, 0.7]), np.array([0.5, 0.6, 0.5, 0.6])
    found = effect(better, worse)
    known = stats.ttest_rel(better, worse).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_intervals_that_hold_together_are_wider():
    better, worse = np.array([0.9, 0.8, 1.0, 0.7]), np.array([0.5, 0.6, 0.5, 0.6])
    alone, together = effect(better, worse), effect(better, worse, together=10)
    assert together.low < alone.low < alone.high < together.high
    assert together.mean == alone.mean


def test_a_single_seed_has_no_interval_and_excludes_nothing():
    found = effect(np.array([1.0]), np.array([0.0]))
    assert found.mean == 1.0
    assert math.isnan(found.low)
    assert not found.excludes_zero


def test_a_random_remedy_is_the_mean_of_all_seed_by_seed():
    scores = np.array([[1.0, 0.8], [0.5, 0.5], [0.3, 0.5]])
    found = against_random(scores)
    assert np.allclose([one.mean for one in found], scores.mean(axis=1) - scores.mean())
    assert np.isclose(sum(one.mean for one in found), 0)


def test_candidates_that_do_nothing_are_seldom_said_to_help():
    stream, k = np.random.default_rng(0), 15
    wrong = 0
    for _ in range(300):
        before, scores = stream.normal(size=5), stream.normal(size=(k, 5))
        nothing = [effect(own, before, k).excludes_zero for own in scores]
        random = [one.excludes_zero for one in against_random(scores, k)]
        wrong += any(a and b for a, b in zip(nothing, random, strict=True))
    assert wrong <= 0.05 * 300


def test_what_is_infinite_excludes_nothing():
    found = effect(np.array([-1.0, -2.0]), np.array([-np.inf, -np.inf]))
    assert not found.excludes_zero
    assert not effect(np.array([-np.inf, 0.0]), np.array([-np.inf, 0.0])).excludes_zero
