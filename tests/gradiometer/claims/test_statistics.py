"""Tests keep their level, reject in the right direction, and pair nets of the same seed."""

import math

import numpy as np
import pytest
from scipy import stats

from gradiometer.claims import statistics as s
from gradiometer.claims.estimates import pseudo_median
from gradiometer.claims.flow import GRADIENT, logs
from gradiometer.claims.laboratory import Laboratory
from gradiometer.studies.outcomes import slope

TIMES = 600
# of 600 true nulls, at 5 %: three standard errors either side
LOW, HIGH = 0.05 - 3 * math.sqrt(0.05 * 0.95 / TIMES), 0.05 + 3 * math.sqrt(0.05 * 0.95 / TIMES)


@pytest.fixture(scope="module")
def ensemble():
    """log10 mean |dL/dW| of 200 sigmoid nets: (hidden layers, nets)."""
    net = Laboratory(5).flow(activation="sigmoid")
    return np.stack([logs(net, GRADIENT, i) for i in range(1, 11)])


def rate(p_of):
    rng = np.random.default_rng(0)
    return np.mean([p_of(rng) <= 0.05 for _ in range(TIMES)])


# --- under a null ---------------------------------------------------------------------------------


def test_signed_rank_of_numbers_without_difference():
    def p(rng):
        return s.signed_rank("", rng.normal(size=50), rng.normal(size=50), "").p

    assert LOW < rate(p) < HIGH


def test_layers_whose_labels_are_shuffled(ensemble):
    """Real gradients, which fall by four decades: without their order no test finds a fall."""

    def p(rng):
        nets = ensemble[:, rng.integers(ensemble.shape[1], size=30)]
        shuffled = rng.permuted(nets, axis=0)
        return s.signed_rank("", shuffled[-1], shuffled[0], "").p

    assert LOW < rate(p) < HIGH
    assert s.signed_rank("", ensemble[-1], ensemble[0], "").p < 1e-30


def test_slopes_of_layers_whose_labels_are_shuffled(ensemble):
    def p(rng):
        nets = ensemble[:, rng.integers(ensemble.shape[1], size=30)]
        found = slope(10.0 ** rng.permuted(nets, axis=0))
        return s.signed_rank("", found, np.zeros(30), "").p

    assert LOW < rate(p) < HIGH


def test_equal_activations(ensemble):
    """Two groups of nets of one activation function, drawn anew each time."""
    slopes = slope(10.0**ensemble)

    def p(rng):
        a, b = rng.permutation(slopes)[:60].reshape(2, 30)
        return s.mann_whitney("", a, b, "").p

    assert LOW < rate(p) < HIGH


@pytest.mark.parametrize("side", [-1, 1])
def test_equivalence_at_the_edge_of_its_margin(side):
    def p(rng):
        return s.equivalence("", rng.normal(0.5 + side * 0.03, 0.02, 50), "", 0.5).p

    assert LOW < rate(p) < HIGH


def test_sign_tests_are_exact_and_so_never_reject_too_often():
    def of_nets(rng):
        return s.most("", rng.random(50) < 0.5).p

    def of_pairs(rng):
        return s.more_often("", rng.normal(size=50), rng.normal(size=50)).p

    expected = stats.binom.sf(31, 50, 0.5)  # the largest level not above 5 %
    for p in (of_nets, of_pairs):
        assert abs(rate(p) - expected) < 3 * math.sqrt(expected * (1 - expected) / TIMES)


def test_no_true_null_of_a_run_is_rejected_more_often_than_in_one_run_of_twenty():
    def smallest(rng):
        normals = rng.normal(size=(40, 2, 12))
        return min(s.holm([stats.wilcoxon(a, b, alternative="greater").pvalue for a, b in normals]))

    rng = np.random.default_rng(0)
    rejected = np.mean([smallest(rng) <= 0.05 for _ in range(200)])
    assert rejected < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_the_power_is_there(ensemble):
    rng = np.random.default_rng(0)
    ten = ensemble[:, rng.integers(ensemble.shape[1], size=10)]
    assert s.signed_rank("", ten[-1], ten[0], "").p == 2.0**-10
    assert s.equivalence("", rng.normal(0, 0.01, 20), "").p < 1e-4
    assert s.mann_whitney("", slope(10.0**ten), rng.normal(0, 0.01, 10), "").p < 1e-4


# --- correction -----------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted: .005 × 4, .01 × 3, .03 × 2 and .04 × 1, the last raised to the one before it
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([0.5, 0.9]) == [1.0, 1.0]
    assert s.holm([]) == []
    assert s.holm([0.02]) == [0.02]
    assert s.holm([0.01, 0.01, 0.01]) == pytest.approx([0.03, 0.03, 0.03])


def test_checks_have_no_part_in_the_correction_and_a_test_counts_once():
    one = s.most("a", np.ones(10, bool))
    two = s.most("b", np.ones(12, bool))
    found = s.correct([s.check("c", True, 1.0), one, two, one])
    assert [f.corrected for f in found] == [
        None, 2.0**-10, 2 * 2.0**-12, 2.0**-10
    ]  # fmt: skip


# --- one by one -----------------------------------------------------------------------------------


def test_pairs_are_pairs():
    rng = np.random.default_rng(0)
    level = rng.normal(size=20)
    larger, smaller = level + 0.1 + rng.normal(0, 0.05, 20), level
    paired = s.signed_rank("", larger, smaller, "")
    shuffled = s.signed_rank("", rng.permutation(larger), smaller, "")
    assert paired.p < 1e-4 < 0.05 < shuffled.p
    assert (
        s.more_often("", larger, smaller).p < s.more_often("", rng.permutation(larger), smaller).p
    )
    assert paired.effect == pseudo_median(larger - smaller)[0]
    with pytest.raises(ValueError, match="20 and 19 nets cannot be paired"):
        s.signed_rank("", larger, smaller[1:], "")
    # of nets that are not paired the order is nothing
    assert s.mann_whitney("", rng.permutation(larger), smaller, "").p == pytest.approx(
        s.mann_whitney("", larger, smaller, "").p
    )


def test_nets_of_one_seed_are_pairs():
    """The same first random numbers and the same batches, whatever the activation or scaling."""
    laboratory = Laboratory(5)
    nets = [
        laboratory.flow(activation=name, scaling=scaling).experiment
        for name, scaling in (("sigmoid", "standardise"), ("tanh", "standardise"), ("relu", "raw"))
    ]
    weights = [e.net(e.load_data()).get_param()["h3_weight"] for e in nets]
    for other in weights[1:]:
        np.testing.assert_array_equal(other, weights[0])
    assert len({tuple(e.seeds) for e in nets}) == 1


def test_directions():
    up = np.linspace(0.5, 1.5, 20)
    for found, against in (
        (s.signed_rank("", up, 0 * up, ""), s.signed_rank("", 0 * up, up, "")),
        (s.mann_whitney("", up, up - 3, ""), s.mann_whitney("", up - 3, up, "")),
        (s.most("", up > 0), s.most("", up < 0)),
        (s.more_often("", up, 0 * up), s.more_often("", 0 * up, up)),
        (s.equivalence("", up / 100, ""), s.equivalence("", up, "")),
        (s.check("", True, 1.0), s.check("", False, 1.0)),
    ):
        assert not found.contrary
        assert against.contrary
        if found.p is not None:
            assert found.p < 0.001
            assert against.p > 0.99
    unclear = s.signed_rank("", np.array([1.0, -1.1, 1.2, -1.3, 1.4]), np.zeros(5), "")
    assert not unclear.contrary
    assert unclear.p > 0.05


def test_a_least_difference():
    values = np.random.default_rng(0).normal(0.2, 0.01, 30)
    assert s.signed_rank("", values, 0 * values, "", 0.1).p < 1e-4
    above = s.signed_rank("", values, 0 * values, "", 0.3)
    assert above.p > 0.99
    assert above.contrary


def test_numbers_that_are_none_are_left_out_and_nothing_is_shown_by_nothing():
    nan, inf = np.full(6, np.nan), np.full(6, np.inf)
    some = np.array([1.0, np.nan, 2.0, np.inf, 3.0, 4.0])
    assert s.signed_rank("", some, np.zeros(6), "").n == 5
    for empty in (
        s.signed_rank("", nan, nan, ""),
        s.signed_rank("", inf, inf, ""),
        s.signed_rank("", np.zeros(6), np.zeros(6), ""),
        s.mann_whitney("", nan, some, ""),
        s.equivalence("", nan, ""),
        s.more_often("", some, some),
    ):
        assert empty.p == 1.0
        assert not empty.shown
        assert not empty.contrary


def test_clopper_and_pearson():
    # the rule of three: nothing of 50 is compatible with 1 - .025^(1/50)
    low, high = s.clopper_pearson(0, 50)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert s.clopper_pearson(50, 50) == pytest.approx((1 - high, 1.0))
