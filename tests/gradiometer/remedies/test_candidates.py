"""The table of candidates, and what each changes about an experiment."""

import numpy as np
import pytest

from gradiometer.diagnosis import CAUSES
from gradiometer.experiment import Experiment
from gradiometer.remedies import CANDIDATES
from gradiometer.remedies.applying import Deadline, NotApplicable
from gradiometer.remedies.candidates import chosen, in_turn
from gradiometer.remedies.experiments import ExperimentTrials
from gradiometer.remedies.rate import fitting_factor

# each belongs to one thing that is changed
TOGETHER = (
    {"activation", "clip"},
    {"init", "init_scale"},
    {"optimizer", "learning_rate", "hyperparameters"},
)
FAILS = Experiment.of(
    activation="relu", init_scale=0.5, scaling="raw", loss="squared_error", layers=3, steps=5
)


def of_experiments():
    return [name for name, row in CANDIDATES.items() if not isinstance(row.settings, str)]


def test_causes_are_those_of_the_diagnosis():
    for candidate in CANDIDATES.values():
        assert set(candidate.causes) <= set(CAUSES), candidate.name
        assert candidate.words
        assert candidate.code


@pytest.mark.parametrize("name", of_experiments())
def test_each_candidate_changes_exactly_one_thing(name):
    trials = ExperimentTrials(FAILS, 2, factor=3.0)
    try:
        changed = trials.changed(CANDIDATES[name])
    except NotApplicable:
        assert name == "relu"
        return
    things = bool(changed.settings) + (changed.net is not None) + (changed.callback is not None)
    assert things == 1
    different = {key for key, value in changed.settings.items() if getattr(FAILS, key) != value}
    assert len(different) == 1 or any(different <= group for group in TOGETHER), different
    stack = trials._experiment(changed, trials.seeds)
    same = FAILS.model_copy(update={"members": 2, "every": 5, "decision": False})
    expected = {**same.model_dump(), **changed.settings}
    assert stack.model_dump() == Experiment.of(**expected).model_dump()


@pytest.mark.parametrize("name", of_experiments())
def test_a_candidate_that_changes_nothing_is_not_applied(name):
    trials = ExperimentTrials(FAILS, 2, factor=3.0)
    try:
        changed = trials.changed(CANDIDATES[name])
    except NotApplicable:
        return
    if not changed.settings or "rate" in name:
        return  # the rate can always be divided
    mended = Experiment.of(**{**FAILS.given(), **changed.settings})
    with pytest.raises(NotApplicable):
        ExperimentTrials(mended, 2).changed(CANDIDATES[name])


def test_nets_are_those_of_the_seeds_and_see_the_same_batches():
    together = ExperimentTrials(FAILS, 3).run(None, Deadline())
    alone = []
    for seed in range(3):
        trace = Experiment.of(**{**FAILS.given(), "seed": seed, "steps": 6}).run()
        alone.append(float(trace["accuracy"].values[-1]))  # before the sixth update
    assert np.array_equal(together, alone)
    assert np.array_equal(together, ExperimentTrials(FAILS, 3).run(None, Deadline()))


def test_batches_are_the_same_whatever_is_changed(monkeypatch):
    seen = []
    original = Experiment.optimizer_for

    def spied(self, net, data):
        optimizer = original(self, net, data)
        batches = []
        optimizer.callbacks.append(lambda step: batches.append(step.y.value.copy()))
        seen.append(batches)
        return optimizer

    monkeypatch.setattr(Experiment, "optimizer_for", spied)
    trials = ExperimentTrials(FAILS, 2)
    trials.run(None, Deadline())
    for name in ("tanh", "he", "standardised inputs", "clipping", "layer normalisation"):
        trials.run(CANDIDATES[name], Deadline())
    assert all(np.array_equal(seen[0], batches) for batches in seen[1:])


def test_clipping_limits_each_net_by_itself():
    from gradiometer.remedies.settings import Clip

    class Step:
        grad = {"a": np.array([[[3.0]], [[0.1]]]), "b": np.array([[[4.0]], [[0.1]]])}  # noqa: RUF012

    Clip().before_update(Step)
    assert np.allclose(Step.grad["a"].ravel(), [0.6, 0.1], rtol=1e-5)
    assert np.allclose(Step.grad["b"].ravel(), [0.8, 0.1], rtol=1e-5)


# --- order ----------------------------------------------------------------------------------------


def test_what_the_diagnosis_names_comes_first():
    names = [candidate.name for candidate in chosen(None, ["weights too small"])]
    assert names[:3] == ["he", "residual", "xavier"] or names[0] == "he"
    assert sorted(names) == sorted(CANDIDATES)


def test_others_are_tried_between_promising_ones():
    causes = ["activation slope"]
    order = in_turn(chosen(None, causes), causes)
    assert sorted(each.name for each in order) == sorted(CANDIDATES)
    promising = [causes[0] in each.causes for each in order]
    assert promising[:6] == [True, False] * 3
    assert order == in_turn(chosen(None, causes), causes)


def test_an_unknown_candidate_is_refused():
    with pytest.raises(ValueError, match="tanh"):
        chosen(["tan"], [])


# --- the learning rate that fits ------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "larger"), [(1e-7, True), (3.0, False)])
def test_the_fitting_rate_brings_updates_near_what_is_usual(rate, larger):
    settings = {"layers": 2, "activation": "tanh", "steps": 3}
    factor = fitting_factor(Experiment.of(**settings, learning_rate=rate).run())
    assert (factor > 1) == larger
    again = Experiment.of(**settings, learning_rate=rate * factor).run()
    assert 0.002 < again["update_ratio"].values[0].max() < 0.05
    assert fitting_factor(again) is None


def test_without_updates_there_is_no_fitting_rate():
    trace = Experiment.of(layers=2, steps=2, quantities=("grad_rms",)).run()
    assert fitting_factor(trace) is None
