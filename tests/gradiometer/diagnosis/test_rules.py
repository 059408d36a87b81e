"""Rules are data: conditions are read from text, and asked of signs."""

import math

import numpy as np
import pytest

from gradiometer.diagnosis.causes import CAUSES, Kind
from gradiometer.diagnosis.rules import Condition, RuleError, parse, parse_rule, rules
from gradiometer.diagnosis.signs import SIGNS

NAN = float("nan")
SIGNS_OF_NOTHING = {
    name: NAN if sign.per == "net" else np.array([NAN, NAN]) for name, sign in SIGNS.items()
}


def signs(**known):
    return SIGNS_OF_NOTHING | {name: np.asarray(value, float) for name, value in known.items()}


@pytest.mark.parametrize(
    ("text", "of", "value", "holds"),
    [
        ("loss_fall < 0.2", {"loss_fall": 0.1}, 0.1, True),
        ("loss_fall > 0.2", {"loss_fall": 0.1}, 0.1, False),
        ("loss_fall > -1e-3", {"loss_fall": 0.1}, 0.1, True),
        ("most dead > 0.5", {"dead": [0.1, 0.9, NAN]}, 0.9, True),
        ("least dead > 0.5", {"dead": [0.1, 0.9, NAN]}, 0.1, False),
        ("median dead > 0.4", {"dead": [0.1, 0.9, NAN]}, 0.5, True),
        ("first dead > 0.5", {"dead": [NAN, 0.9, 0.1]}, 0.9, True),
        ("last dead > 0.5", {"dead": [0.9, 0.1, NAN]}, 0.1, False),
        ("most dead > 0.5", {"dead": [NAN, NAN]}, NAN, None),
        ("loss_fall < 0.2", {}, NAN, None),
    ],
)
def test_a_condition_asks_a_sign(text, of, value, holds):
    condition = Condition.parse(text)
    assert str(condition) == text.replace("-1e-3", "-0.001")
    np.testing.assert_equal(condition.value(signs(**of)), value)
    assert condition.holds(signs(**of)) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss_fall >= 2", "a condition reads"),
        ("loss_fall", "a condition reads"),
        ("loss_fell > 2", "unknown sign 'loss_fell'"),
        ("dead > 0.5", "precede signs of layers"),
        ("most loss_fall > 0.5", "precede signs of layers"),
    ],
)
def test_what_is_no_condition_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Condition.parse(text)


def test_a_rule_fires_if_all_of_when_and_none_of_unless_hold():
    rule = parse_rule(
        {
            "name": "r",
            "kind": "dead",
            "cause": "dead units: bias",
            "when": ["most dead > 0.5", "loss_fall < 0.2"],
            "unless": ["accuracy > 0.9"],
            "layer": "most dead",
        }
    )
    fires = {"dead": [0.1, 0.9], "loss_fall": 0.0}
    assert rule.fires(signs(**fires)) is True
    assert rule.place(signs(**fires)) == 1
    assert rule.fires(signs(**fires, accuracy=0.95)) is False
    assert rule.fires(signs(**fires, accuracy=0.5)) is True
    assert rule.fires(signs(dead=[0.1, 0.9])) is None, "the loss is not known"
    assert rule.fires(signs(dead=[0.1, 0.2])) is False, "whatever the loss is"
    assert rule.place(signs()) is None


TABLE = {
    "kind": [
        {"name": "learns", "kind": "healthy", "when": ["loss_fall > 0.5"]},
        {"name": "cut", "kind": "stalled", "cause": "graph cut", "when": ["steps > 5"]},
        {"name": "dies", "kind": "dead", "when": ["most dead > 0.5"], "layer": "most dead"},
        {"name": "shrinks", "kind": "vanishing", "when": ["delta_fall > 2"]},
        {"name": "stalls", "kind": "stalled", "when": ["loss_fall < 2"]},
    ],
    "cause": [
        {"name": "inputs", "cause": "inputs unscaled", "dead": "dead units: inputs",
         "when": ["input_misfit > 1"], "layer": "first input_scale"},
        {"name": "small", "cause": "weights too small", "when": ["update_peak > 1"]},
    ],
    "usual": {
        "dead": {"cause": "dead units: bias"},
        "vanishing": {"cause": "activation slope"},
        "stalled": {"cause": "targets", "layer": "last weight_scale"},
    },
    "confidence": {"dead": {"dead units: bias": [3, 4]}, "healthy": {"": [5, 5]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"loss_fall": 0.9, "dead": [1.0, 0.0]}, [("healthy", None)]),
        ({"loss_fall": 0.0, "steps": 9}, [("stalled", "graph cut")]),
        ({"loss_fall": 0.0}, [("stalled", "targets")]),
        ({"loss_fall": 0.0, "input_misfit": 2}, [("stalled", "inputs unscaled")]),
        ({"loss_fall": 0.0, "update_peak": 2}, [("stalled", "targets")]),
        ({"dead": [1.0, 0.0]}, [("dead", "dead units: bias")]),
        ({"dead": [1.0, 0.0], "input_misfit": 2}, [("dead", "dead units: inputs")]),
        (
            {"loss_fall": 0.0, "dead": [1.0, 0.0], "delta_fall": 3, "update_peak": 2},
            [("dead", "dead units: bias"), ("vanishing", "weights too small")],
        ),
        ({}, []),
    ],
)
def test_the_kind_comes_first_and_then_its_cause(of, expected):
    assert [(said.kind, said.cause) for said in parse(TABLE).say(signs(**of))] == expected


def test_the_layer_is_named_by_the_cause_or_else_by_the_kind():
    table = parse(TABLE)
    (said,) = table.say(signs(dead=[0.1, 0.9]))
    assert said.place(signs(dead=[0.1, 0.9])) == 1
    of = signs(dead=[0.1, 0.9], input_misfit=2, input_scale=[30, 1])
    (said,) = table.say(of)
    assert said.place(of) == 0
    of = signs(loss_fall=0.0, weight_scale=[0.1, 0.2])
    (said,) = table.say(of)
    assert said.place(of) == 1


def test_confidence_is_of_a_verdict():
    found = parse(TABLE).confidence
    assert found[Kind.DEAD, "dead units: bias"].rate == 0.75
    assert found[Kind.HEALTHY, None].hits == 5


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"kind": "dead", "cause": "graph cut", "when": []}, "'graph cut' is no cause of dead"),
        ({"kind": "healthy", "when": [], "whne": []}, r"has \['whne'\], which is not known"),
        ({"kind": "healthy", "when": [], "layer": "dead"}, "a layer reads 'most dead', got 'dead'"),
        ({"cause": "bad luck", "when": []}, "unknown cause 'bad luck'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_its_name(row, words):
    with pytest.raises(RuleError, match=f"rule 'r'.*{words}"):
        parse_rule({"name": "r", **row})


def test_the_table_is_short_and_covers_every_kind():
    table = rules()
    every = [*table.kinds, *table.causes]
    assert len(every) <= 25
    assert len({rule.name for rule in every}) == len(every)
    kinds = {rule.kind for rule in table.kinds}
    assert kinds == set(Kind) - {Kind.UNKNOWN}
    assert set(table.usual) == kinds - {Kind.HEALTHY}
    for rule in table.causes:
        assert rule.kind is None
        assert rule.cause is not None


def test_no_rule_comes_to_a_verdict_without_evidence():
    assert rules().say(SIGNS_OF_NOTHING) == ()
    for rule in (*rules().kinds, *rules().causes):
        assert rule.when, rule.name
        assert rule.fires(SIGNS_OF_NOTHING) is None, rule.name


def test_causes_say_what_to_change():
    for name, cause in CAUSES.items():
        assert cause.name == name
        assert cause.kinds
        assert Kind.HEALTHY not in cause.kinds
        assert cause.meaning[0].islower()
        assert cause.advice[0].isupper()
        assert cause.advice.endswith((".", "?"))


def test_signs_have_words_and_ends():
    for name, sign in SIGNS.items():
        assert sign.name == name
        assert sign.label
        assert sign.of.__doc__
        assert sign.low <= sign.high
        assert not math.isnan(sign.low + sign.high) or math.isinf(sign.low)
