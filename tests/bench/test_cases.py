"""Cases: what a label must be, and what makes it hold."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from bench.corpus.cases import Case, Measured, check, doubt
from bench.corpus.outcomes import accuracy, r_squared


def train(seed):
    raise AssertionError("nothing is trained here")


TWIN = Case("net-mended", "a kind", "test", "healthy", partial(train, seed=1), 0.9)
FAILING = Case(
    "net", "a kind", "test", "vanishing", partial(train, seed=0), 0.9,
    cause="activation slope", twin="net-mended",
)  # fmt: skip


def measured(**outcomes):
    return {
        name.replace("_", "-"): Measured(outcome, np.isfinite(outcome))
        for name, outcome in outcomes.items()
    }


def test_a_label_that_measurement_confirms():
    assert check([FAILING, TWIN]) == {"net": FAILING, "net-mended": TWIN}
    assert doubt(FAILING, measured(net=0.5, net_mended=1.0)) is None
    assert doubt(TWIN, measured(net_mended=0.9)) is None
    lost = replace(FAILING, kind="non-finite", cause="loss numerics")
    assert doubt(lost, measured(net=np.nan, net_mended=0.9)) is None


@pytest.mark.parametrize(
    ("case", "found", "words"),
    [
        (FAILING, measured(net=0.86, net_mended=1.0), "does not fail: 0.860, accepted from 0.9 on"),
        (FAILING, measured(net=0.5, net_mended=0.89), "its twin does not learn: 0.890"),
        (FAILING, measured(net=0.5), "its twin was not trained"),
        (FAILING, measured(net=np.nan, net_mended=1.0), "labelled vanishing, but something was"),
        (
            replace(FAILING, kind="non-finite"),
            measured(net=0.5, net_mended=1.0),
            "labelled non-finite, but everything was finite",
        ),
        (
            replace(FAILING, kind="dead"),
            {"net": Measured(0.5, True, dead=0.3), "net-mended": Measured(1.0, True)},
            "labelled dead, but no more than 30% of any layer was",
        ),
        (TWIN, measured(net_mended=np.nan), "does not learn: nothing finite"),
    ],
)
def test_a_label_that_measurement_refutes(case, found, words):
    assert doubt(case, found).startswith(words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "A net"}, "small letters"),
        ({"part": "train"}, "calibration or test"),
        ({"twin": None}, "a failing net has a cause and a twin"),
        ({"kind": "healthy"}, "a failing net has a cause and a twin"),
    ],
)
def test_a_case_that_contradicts_itself(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(FAILING, **changes)


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([FAILING], "not among the healthy cases"),
        ([FAILING, TWIN, TWIN], "two cases have this name"),
        ([FAILING, replace(TWIN, part="calibration")], "in both parts"),
        ([FAILING, replace(TWIN, accept=0.8)], "differs in group or accept"),
    ],
)
def test_cases_that_contradict_each_other(cases, words):
    with pytest.raises(ValueError, match=words):
        check(cases)


def test_the_digest_tells_how_it_is_trained():
    assert FAILING.digest == replace(FAILING, accept=0.5).digest
    assert FAILING.digest != TWIN.digest


def test_outcomes():
    assert accuracy([[0.2], [0.8], [0.9]], [[0], [1], [0]]) == pytest.approx(2 / 3)
    assert accuracy([[0.2, 0.8], [0.6, 0.4]], [[0, 1], [1, 0]]) == 1
    assert np.isnan(accuracy([[np.nan]], [[1]]))
    assert r_squared([[1.0], [2.0]], [[1.0], [2.0]]) == 1
    assert r_squared([[1.5], [1.5]], [[1.0], [2.0]]) == 0
    assert np.isnan(r_squared([[np.inf]], [[1.0]]))
