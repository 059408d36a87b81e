"""Results depend on what is described, not on who computes it, or how many at a time."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.gradiometer.studies.helpers import assert_complete, drain, same, small

from gradiometer.experiment import Experiment
from gradiometer.studies import Study, load
from gradiometer.studies.compute import run
from gradiometer.trace import Trace


@pytest.fixture(scope="module")
def study():
    return small(layers=(1, 4), activation=("sigmoid", "relu"), members=5, steps=30)


@pytest.fixture(scope="module")
def one_worker(study, tmp_path_factory):
    """The results of one worker, in this process."""
    folder = tmp_path_factory.mktemp("one")
    with ThreadPoolExecutor(1) as thread:
        drain(study.events(folder, executor=thread))
    return folder


def test_the_number_of_processes_makes_no_difference(study, one_worker, tmp_path):
    drain(study.events(tmp_path, workers=2))
    assert_complete(study, tmp_path, one_worker)


def test_the_executor_makes_no_difference(study, one_worker, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        drain(study.events(tmp_path, executor=threads, workers=2))
    assert_complete(study, tmp_path, one_worker)


@pytest.mark.parametrize("at_once", [1, 2, 4, 5, 9])
def test_grouping_of_members_makes_no_difference(at_once, study, one_worker, tmp_path, threads):
    drain(study.events(tmp_path, executor=threads, at_once=at_once))
    assert_complete(study, tmp_path, one_worker, 1e-12)


def test_other_experiments_make_no_difference(study, one_worker):
    results = load(one_worker)
    experiment = study.experiments[2]
    same(experiment.run(), results.trace(experiment), 1e-12)


def test_a_member_is_the_net_that_its_seed_alone_gives(study, one_worker, threads):
    results = load(one_worker)
    experiment = study.experiments[3]
    whole = results.trace(experiment)
    alone = Study({**experiment.model_dump(), "members": 1}, over={"seed": experiment.seeds}).run(
        executor=threads
    )
    for trace in alone:
        member = whole.dataset.sel(member=trace.attrs["seed"])
        for name in trace.dataset.data_vars:
            np.testing.assert_allclose(trace[name], member[name], rtol=1e-12, err_msg=name)


SETTINGS = {"steps": 6, "width": 5, "layers": 3, "members": 5}


def test_some_of_these_diverge():
    at = [Experiment.of(**{**SETTINGS, "init_scale": 1e200, "activation": "relu"}).run()]
    at.append(Experiment.of(**{**SETTINGS, "learning_rate": 1e300, "activation": "relu"}).run())
    assert all("nonfinite_step" in trace.attrs for trace in at)


GROUPED = [
    {},
    {"histograms": True},
    {"decision": False, "activation": "relu"},
    {"seed": 7, "every": 2, "data": "iris"},
    {"learning_rate": 1e3, "activation": "relu", "init": "normal", "steps": 12},
    {"learning_rate": 1e300, "activation": "relu", "steps": 12},
    {"init_scale": 1e200, "activation": "relu"},
]


@functools.cache
def trace_of(experiment, at_once=None):
    """Of all members at once, or of groups of so many that were joined."""
    return experiment.run() if at_once is None else run(experiment, at_once)


@pytest.mark.parametrize("settings", GROUPED)
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_groups_are_joined_into_the_same_trace(settings, at_once):
    experiment = Experiment.of(**{**SETTINGS, **settings})
    whole, joined = trace_of(experiment), trace_of(experiment, at_once)
    same(whole, joined, 1e-12)
    measured = {"recording_overhead", "wall_time_s"}
    assert set(whole.attrs) == set(joined.attrs)
    for name in set(whole.attrs) - measured:
        assert whole.attrs[name] == joined.attrs[name], name
    assert joined.sentence() == whole.sentence()


@pytest.mark.parametrize("settings", GROUPED)
def test_a_joined_trace_can_be_saved(settings):
    experiment = Experiment.of(**{**SETTINGS, **settings})
    whole, joined = trace_of(experiment), trace_of(experiment, 2)
    assert Trace.from_bytes(joined.to_bytes()).sentence() == whole.sentence()
