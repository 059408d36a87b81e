"""How remedies are judged on the corpus."""

import pytest
from bench.corpus import mlp
from bench.corpus.remedies import Row, experiment_of
from bench.corpus.remedies_table import beats_random, improves, in_markdown


def row(name="a", source="experiments", recommended="tanh", mended=0.9, random=0.6, **more):
    given = {
        "kind": "vanishing", "cause": "activation slope", "said": "vanishing: activation slope",
        "tried": 12, "unchanged": 0.5, "better": 1.0, "seconds": 1.0, **more,
    }  # fmt: skip
    return Row(name, source, recommended=recommended, mended=mended, random=random, **given)


NONE = row("none", recommended="", mended=float("nan"), random=float("nan"), unchanged=float("nan"))


def test_perceptrons_are_experiments_where_their_faults_are_settings():
    found = {case.name: experiment_of(case) for case in mlp.cases() if case.kind != "healthy"}
    experiments = {name: each for name, each in found.items() if each is not None}
    assert len(experiments) >= 100
    assert len(experiments) < len(found)
    name = next(name for name in experiments if name.endswith("weights-x0.1"))
    assert experiments[name].init_scale == 0.1
    assert experiments[name].reduction == "mean"


def test_an_improvement_must_hold_on_fresh_seeds():
    assert improves(row())
    assert not improves(row(mended=0.51))
    assert not improves(NONE)


def test_a_random_remedy_is_compared_net_by_net():
    middle, low, high = beats_random([row(random=0.5), row(random=0.6), row(random=0.7), NONE])
    assert middle == pytest.approx(0.3)
    assert low < 0.3 < high
    assert low == pytest.approx(0.3 - 4.302653 * 0.1 / 3**0.5)


def test_the_table_has_a_line_per_source_and_cause():
    text = in_markdown([row(), row(random=0.7), NONE, row(source="torch"), row(source="torch")])
    assert "| experiments | 3 | 66.7% " in text
    assert "| nets of PyTorch | 2 | 100.0% " in text
    assert "| activation slope | 5 | 4 | 4 | tanh (4) |" in text
