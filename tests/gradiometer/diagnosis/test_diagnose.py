"""From a run to verdicts: of any run, never a traceback, never a verdict without evidence."""

import json

import numpy as np
import pytest

import gradiometer
from gradiometer.diagnosis import CAUSES, Kind, diagnose
from gradiometer.diagnosis.verdict import MOST_BYTES
from gradiometer.quantities import PER_LAYER
from gradiometer.trace import Trace

DIMS = ("step", "layer", "member")
NAN = float("nan")


def run_of(attrs=None, steps=None, layers=None, **quantities):
    """A run of these quantities, (steps, layers[, members]) or (steps[, members])."""
    arrays = {name: np.array(values, float) for name, values in quantities.items()}
    of_layers = [a for name, a in arrays.items() if name not in ("loss", "accuracy")]
    steps = len(next(iter(arrays.values()))) if steps is None else steps
    names = layers or [f"l{i}" for i in range(of_layers[0].shape[1] if of_layers else 1)]
    variables = {}
    for name, a in arrays.items():
        dims = ("step", "member") if name in ("loss", "accuracy") else DIMS
        variables[name] = (dims[: a.ndim], a)
    coords = {"step": range(1, steps + 1), "layer": names}
    return Trace.from_arrays(variables, coords, attrs or {}, {})


def test_the_lesson_s_net_suffers_from_the_slope_of_the_sigmoid():
    found = gradiometer.run(layers=10, activation="sigmoid", steps=30).diagnose()
    verdict = found.verdict
    assert (verdict.kind, verdict.cause) == (Kind.VANISHING, "activation slope")
    assert verdict.sentence.startswith("Vanishing. The delta shrinks ")
    assert "that of sigmoid, at most ¼, costs 0.6" in verdict.sentence
    assert {found.sign for found in verdict.evidence} >= {"delta_fall_most", "slope_gain"}
    assert not found.healthy


def test_an_ensemble_is_judged_net_by_net():
    found = gradiometer.run(layers=10, activation="sigmoid", steps=30, members=4).diagnose()
    assert (found.verdict.nets, found.verdict.total) == (4, 4)
    assert found.sentence.startswith("Vanishing, in 4 of 4 seeds.")


def test_the_verdict_of_most_nets_comes_first():
    fine = np.exp(-np.linspace(0, 3, 20))
    loss = np.stack([fine, fine, np.full(20, NAN)], axis=1)
    delta = np.ones((20, 2, 3))
    delta[:, :, 2] = NAN
    found = diagnose(run_of(loss=loss, delta_rms=delta))
    assert [(v.kind, v.nets, v.total) for v in found] == [
        (Kind.HEALTHY, 2, 3),
        (Kind.NON_FINITE, 1, 3),
    ]


def test_a_net_that_learns_is_healthy_whatever_its_ratios_say():
    found = diagnose(run_of(loss=np.geomspace(1, 1e-3, 30), delta_rms=[[1e-6, 1.0]] * 30))
    assert [verdict.kind for verdict in found] == [Kind.HEALTHY]
    assert found.verdict.cause is None
    assert found.verdict.advice == ""


def test_stalled_says_that_the_gradient_is_not_the_problem():
    found = gradiometer.run(
        layers=3, activation="tanh", init="glorot_normal", learning_rate=1e-9, steps=60
    ).diagnose()
    assert (found.verdict.kind, found.verdict.cause) == (Kind.STALLED, "learning rate too low")
    assert found.sentence.startswith("No gradient problem. ")


@pytest.mark.parametrize(
    "run",
    [
        run_of(loss=[1.0]),
        run_of(loss=[NAN]),
        run_of(loss=np.full(5, NAN), delta_rms=np.full((5, 3), NAN)),
        run_of(loss=np.zeros(5), delta_rms=np.zeros((5, 3)), grad_rms=np.zeros((5, 3))),
        run_of(grad_rms=np.full((5, 1), np.inf)),
        run_of(weight_rms=np.ones((3, 2))),
        run_of(accuracy=[0.5, 0.5]),
        run_of({"nonfinite_step": 1, "nonfinite_layer": "gone"}, loss=[NAN, NAN]),
        run_of({"learning_rate": "fast", "chains": "[]"}, loss=[1.0, 1.0], delta_rms=[[1], [1]]),
    ],
    ids=lambda run: ",".join(run.dataset.data_vars),
)
def test_odd_runs_get_a_statement_and_no_traceback(run):
    found = diagnose(run)
    assert len(found.verdicts) >= 1
    for verdict in found:
        assert verdict.sentence.endswith(".")
        assert verdict.evidence or verdict.kind == Kind.UNKNOWN
        assert verdict.cause is None or verdict.kind in CAUSES[verdict.cause].kinds
    json.loads(found.to_json())


def test_a_run_without_steps_cannot_be_judged():
    found = diagnose(run_of(loss=np.zeros(0), delta_rms=np.zeros((0, 2)), steps=0))
    assert found.verdict.kind == Kind.UNKNOWN
    assert found.sentence == "Cannot be judged: no step was recorded."


@pytest.mark.parametrize("left_out", [*PER_LAYER, "loss", "accuracy"])
def test_a_quantity_that_is_missing_costs_no_more_than_what_it_tells(left_out):
    trace = gradiometer.run(layers=6, activation="sigmoid", steps=20)
    found = diagnose(Trace(trace.dataset.drop_vars(left_out)))
    assert found.verdict.sentence


def test_what_cannot_be_judged_says_what_to_record():
    trace = gradiometer.run(layers=3, activation="tanh", steps=5, quantities=("grad_mean_abs",))
    told = {found.what: found for found in diagnose(trace).not_judged}
    record = told["saturated"].record
    assert "saturated_fraction" in record
    assert set(record).isdisjoint(trace.dataset.data_vars)
    names = ", ".join(f'"{name}"' for name in record)
    assert told["saturated"].sentence == (
        f"Cannot judge saturated: {' and '.join(record)} was not recorded. Add {names} to "
        "quantities."
    )


def test_json_is_small_even_if_names_are_not():
    names = [f"{'block.' * 200}{i}" for i in range(30)]
    trace = run_of(
        layers=names, loss=np.ones(40), delta_rms=np.tile(np.geomspace(1e-9, 1, 30), (40, 1))
    )
    found = diagnose(trace)
    text = found.to_json()
    assert len(text.encode()) <= MOST_BYTES
    assert json.loads(text)["verdicts"][0]["kind"] == str(found.verdict.kind)


def test_the_verb_takes_a_trace_or_its_file(tmp_path):
    trace = gradiometer.run(layers=2, activation="tanh", steps=5)
    trace.save(tmp_path / "trace.nc")
    said = gradiometer.diagnose(trace).to_json()
    assert gradiometer.diagnose(tmp_path).to_json() == said
    assert gradiometer.diagnose(tmp_path / "trace.nc").to_json() == said
    with pytest.raises(TypeError, match="is diagnosed, got int"):
        gradiometer.diagnose(3)


def test_a_recorder_is_diagnosed_while_it_records():
    import dp

    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 4))
    y = (x[:, :1] > 0).astype(float)
    net = dp.Net(4, 5, 2, "tanh", seed=0)
    sgd = dp.SGD(net, x, y, seed=0)
    with gradiometer.record(net, sgd) as recorder:
        sgd.train(3, print_each=None)
        assert recorder.diagnose().verdicts


def test_one_step_is_too_few_and_that_is_said():
    found = diagnose(gradiometer.run(layers=3, activation="tanh", steps=1))
    assert found.sentence.startswith("Cannot be judged: only one step was recorded")


def test_what_takes_two_layers_or_a_hidden_one_is_said_of_a_run_with_one():
    found = diagnose(run_of(loss=np.ones(30), delta_rms=[[1.0]] * 30))
    told = {one.what: one.why for one in found.not_judged}
    assert told["vanishing"] == "it takes two layers with a delta that is known and not zero"
    assert told["dead"] == "dead_fraction was not recorded"


def test_several_quantities_that_are_lacking_are_listed():
    found = diagnose(run_of(weight_rms=np.ones((3, 2))))
    told = {one.what: one.why for one in found.not_judged}
    assert told["healthy"] == "accuracy, loss and delta_rms were not recorded"


def test_a_kind_that_another_member_has_is_not_said_to_be_unknown():
    delta = np.tile(np.array([[1.0, 1.0], [1e-6, 1.0]]).T, (30, 1, 1))
    delta[:, 0, 0] = 0.0
    found = diagnose(run_of(loss=np.ones((30, 2)), delta_rms=delta))
    assert Kind.VANISHING in [verdict.kind for verdict in found]
    assert "vanishing" not in [one.what for one in found.not_judged]


def test_a_share_of_dead_units_is_that_of_the_layer_that_is_named():
    dead = np.zeros((30, 3, 3))
    dead[:, 0, :2] = 1.0  # in two nets the first layer, in one the second
    dead[:, 1, 2] = 1.0
    verdict = diagnose(run_of(loss=np.ones((30, 3)), dead_fraction=dead)).verdict
    assert verdict.layer == "l0"
    assert "in layer 'l0'. 100 % of its units are zero" in verdict.sentence


def test_the_layer_of_the_units_and_that_of_the_cause_are_told_apart():
    trace = gradiometer.run(layers=4, activation="tanh", init_scale=30, steps=40)
    verdict = diagnose(trace).verdict
    assert (verdict.kind, verdict.cause) == (Kind.SATURATED, "weights too large")
    evidence = {found.sign: found.layer for found in verdict.evidence}
    assert f"Saturated units, in layer {evidence['saturated']!r}." in verdict.sentence
    assert "unknown share" not in verdict.sentence
    assert evidence["saturated"] != "out"
    assert "Cause, in layer 'out': the weights are too large" in verdict.sentence


def test_a_usual_cause_that_no_number_supports_is_not_certain():
    trace = gradiometer.run(data="iris", scaling=1000, layers=3, activation="sigmoid", steps=40)
    sentence = diagnose(trace).sentence
    assert "The cause is not certain: most often the updates are too large for the" in sentence
    assert "but here the largest moved those of a layer by 0.04 times their size." in sentence


def test_units_that_die_late_were_not_off_from_the_first_step_on():
    dead = np.zeros((60, 2))
    dead[30:, 0] = 1.0
    verdict = diagnose(
        run_of(loss=np.ones(60), dead_fraction=dead, update_ratio=np.full((60, 2), 1e-3))
    ).verdict
    assert (verdict.kind, verdict.step) == (Kind.DEAD, 31)
    assert "The cause is not certain" in verdict.sentence


def test_a_layer_that_a_stalled_net_s_cause_is_in_is_named():
    loss = np.ones(60)
    verdict = diagnose(run_of(loss=loss, delta_rms=np.ones((60, 2)), input_rms=np.zeros((60, 2))))
    assert "Cause, in layer 'l0': the inputs are zero" in verdict.sentence


def test_a_stalled_net_s_sentence_does_not_say_that_the_delta_is_gone():
    found = diagnose(run_of(loss=np.ones(60), delta_rms=[[1e-50, 1]] * 60, input_rms=[[0, 1]] * 60))
    assert found.sentence.startswith("No gradient problem. The loss has not moved")


def test_a_healthy_net_s_sentence_says_what_is_odd():
    loss = np.geomspace(1, 1e-3, 30)
    found = diagnose(run_of(loss=loss, delta_rms=[[1e-50, 1.0]] * 30))
    assert "fell by 100 %, though the delta arrives at layer 'l0' at 1e-48 %" in found.sentence
    rises = diagnose(run_of(loss=np.linspace(1, 2, 30), accuracy=np.full(30, 0.95)))
    assert "accuracy is 0.95, though the loss rose by 97 %." in rises.sentence


def test_a_delta_that_grew_at_the_first_step_only_is_told_of_that_step():
    delta = np.ones((30, 3))
    delta[0] = [1e4, 1e2, 1.0]
    delta[1:, 0] = 0.1
    verdict = diagnose(run_of(loss=np.ones(30), delta_rms=delta)).verdict
    assert verdict.kind == Kind.EXPLODING
    assert "At the first step the delta arrives at layer 'l0' at 10000 × its size" in (
        verdict.sentence
    )
    assert "shrinks" not in verdict.sentence


def test_a_huge_rise_is_a_power_of_ten():
    found = diagnose(run_of(loss=np.geomspace(1, 1e30, 40)))
    assert "the loss rose by 1e+29 times in 40" in found.sentence.lower()


def test_inputs_that_began_it_are_the_cause_though_their_size_was_not_recorded():
    attrs = {
        "nonfinite_step": 1,
        "nonfinite_layer": "l0",
        "nonfinite_in": "activation",
        "nonfinite_values": 3,
        "nonfinite_began_in": "inputs",
    }
    verdict = diagnose(run_of(attrs, loss=[NAN, NAN], delta_rms=np.full((2, 2), NAN))).verdict
    assert (verdict.kind, verdict.cause) == (Kind.NON_FINITE, "non-finite data")


def test_the_layer_of_a_member_that_diverged_is_named():
    count = np.zeros((20, 3, 2))
    count[5:, 1, 0] = 7
    found = diagnose(run_of(loss=np.ones((20, 2)), nonfinite_count=count))
    told = [v.sentence for v in found if v.kind == Kind.NON_FINITE]
    assert "The first values that are not finite come up in layer 'l1'." in told[0]


@pytest.mark.parametrize("loss", [np.linspace(1, 2, 20), np.ones(20)])
def test_a_loss_that_does_not_fall_is_not_said_to_fall(loss):
    verdict = diagnose(run_of(loss=loss)).verdict
    assert verdict.cause == "too few steps"
    assert "falling" not in verdict.sentence
    assert "so few steps do not show whether the net learns" in verdict.sentence


def test_how_a_loss_that_begins_with_zero_falls_is_not_known():
    for end in (-1.0, 1.0):
        found = diagnose(run_of(loss=np.linspace(0, end, 40), delta_rms=np.ones((40, 2))))
        assert "inf" not in found.sentence
        assert found.verdict.evidence


def test_the_gain_of_weights_is_no_evidence_where_it_speaks_against_the_cause():
    run = run_of(
        loss=np.ones(60), delta_rms=[[1e-6, 1e-3, 1.0]] * 60, weight_rms=np.full((60, 3), 0.1)
    )
    fans = {"fan_in": ("layer", [10, 10, 10]), "fan_out": ("layer", [1000, 1000, 1000])}
    verdict = diagnose(Trace(run.dataset.assign_coords(fans))).verdict
    assert (verdict.kind, verdict.cause) == (Kind.VANISHING, "weights too small")
    assert "their gain is +" not in verdict.sentence


def test_without_a_delta_a_gradient_problem_is_not_ruled_out():
    sentence = diagnose(run_of(loss=np.ones(60))).sentence
    assert sentence.startswith("No gradient problem was seen. The loss has not moved")


def test_the_loss_is_not_blamed_where_nothing_tells_what_came_first():
    verdict = diagnose(run_of(grad_rms=np.full((5, 1), np.inf))).verdict
    assert verdict.cause != "loss numerics"
    assert "It was not recorded where it came up." in verdict.sentence
    assert "The cause is not certain" in verdict.sentence


def test_facts_of_what_is_not_finite_may_be_incomplete():
    attrs = {
        "nonfinite_step": 2,
        "nonfinite_layer": "l0",
        "nonfinite_in": "delta",
        "nonfinite_values": 3,
        "nonfinite_share": 0.5,
    }
    found = diagnose(run_of(attrs, loss=[1.0, NAN], delta_rms=[[1.0, 1.0], [NAN, NAN]]))
    assert "The first 3 values that are not finite come up in layer 'l0'" in found.sentence
