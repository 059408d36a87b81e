"""Perceptrons of the corpus: what is listed can be made, and fits together."""

from collections import Counter

import numpy as np
import pytest
from bench.corpus import mlp
from bench.corpus.cases import check
from bench.corpus.mlp_data import samples, spoilt

from gradiometer.diagnosis import CAUSES


def test_all_cases_fit_together():
    named = check(mlp.cases())
    seeds = Counter(case.make.keywords["seed"] for case in named.values() if case.twin is None)
    assert seeds.most_common(1)[0][1] <= 2  # drawn by name, so that two may coincide
    for case in named.values():
        if case.twin is None:
            continue
        assert case.kind in CAUSES[case.cause].kinds
        failing, twin = case.make.keywords, named[case.twin].make.keywords
        assert failing["seed"] == twin["seed"]
        assert failing != twin


def test_every_kind_is_in_both_parts():
    named = check(mlp.cases())
    for part in ("calibration", "test"):
        kinds = {case.kind for case in named.values() if case.part == part}
        assert len(kinds) == 7


@pytest.mark.parametrize("name", ["iris", "digits", "breast_cancer", "waves", "hills"])
def test_data_sets_are_standardised_and_the_same_every_time(name):
    given = samples(name)
    assert len(given.x) == len(given.y) <= 400
    np.testing.assert_array_equal(given.x, samples(name).x)
    assert np.abs(given.y).max() <= (1 if given.classes else 5)


def test_what_is_wrong_with_data_leaves_the_right_data_as_they_are():
    right = samples("waves")
    before = right.x.copy()
    assert not spoilt(right, "zero", None, 0).x.any()
    assert np.ptp(spoilt(right, "equal", None, 0).x, axis=0).max() == 0
    assert np.isinf(spoilt(right, "inf", None, 0).x).sum() == 1
    assert np.isnan(spoilt(right, None, "nan", 0).y).sum() == 1
    np.testing.assert_allclose(spoilt(right, 10.0, None, 0).x, before + 10)
    shuffled = spoilt(right, None, "shuffled", 0).y
    assert (shuffled != right.y).any()
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(right.y, axis=0))
    np.testing.assert_array_equal(right.x, before)
