"""A sample of the corpus is trained anew: labels hold, and verdicts are as good as published."""

import pytest
from bench.corpus.collect import read_table
from bench.corpus.labelled import Label, Net
from bench.corpus.mlp import cases
from bench.corpus.scores import by_rules, score

from gradiometer.diagnosis.reading import readings
from gradiometer.diagnosis.rules import rules
from gradiometer.diagnosis.signs import read_signs

EVERY = 14  # of the perceptrons of the test part: some fifty nets


@pytest.mark.long
def test_a_sample_of_the_test_part_is_judged_as_published():
    made = {case.name: case for case in cases()}
    rows = [row for row in read_table() if row["part"] == "test" and row["name"] in made][::EVERY]
    nets = []
    for row in rows:
        case = made[row["name"]]
        trace, outcome = case.make()
        assert case.learns(outcome) == (case.kind == "healthy"), case.name
        (reading,) = readings(trace)
        nets.append(Net(Label.of(row), read_signs(reading), trace.layers))
    assert len(nets) > 40
    found = score(nets, by_rules(rules()))
    # lower than published by what a sample of this size may differ
    assert found.kind.hits / found.kind.of > 0.75
    assert found.cause.hits / found.cause.of > 0.6
    assert found.false_alarms.hits <= 2
