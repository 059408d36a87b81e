"""`--try` of `run` and `diagnose`."""

import json

import pytest
from typer.testing import CliRunner

from gradiometer.cli import app

FAILS = ["--layers", "6", "--learning-rate", "0.01", "--steps", "40"]


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failing") / "run"
    assert call("run", *FAILS, "--out", folder).exit_code == 0
    return folder


def test_diagnose_tries_remedies(folder):
    done = call("diagnose", folder, "--try")
    assert done.exit_code == 0, done.output
    assert "Vanishing." in done.output
    assert "(unchanged)" in done.output
    assert "Do that first." in done.output
    assert "gradiometer.run(experiment, " in done.output


def test_as_json_too(folder):
    done = call("diagnose", folder, "--try", "--json", "--budget", 20)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdicts"]
    assert found["remedies"]["outcome"] == "accuracy"


def test_run_tries_remedies_at_the_end(tmp_path):
    done = call("run", *FAILS, "--out", tmp_path / "out", "--try", "--budget", 0.001)
    assert done.exit_code == 0, done.output
    assert "Nothing was tried, because the time was over." in done.output


def test_a_healthy_net_is_left_alone(tmp_path):
    healthy = ["--layers", 2, "--activation", "tanh", "--learning-rate", 0.01]
    done = call("run", *healthy, "--out", tmp_path / "out", "--try")
    assert done.exit_code == 0, done.output
    assert "Nothing to mend: the net learns." in done.output


def test_a_training_that_a_verdict_stopped_is_mended_too(tmp_path):
    stop = ["--stop-on", "vanishing", "--try", "--budget", 0.001]
    done = call("run", "--layers", 10, "--steps", 60, *stop, "--out", tmp_path / "out")
    assert done.exit_code == 1, done.output
    assert "Stopped on vanishing after step 20 of 60" in done.output
    assert "Nothing was tried, because the time was over." in done.output


def test_of_a_training_that_did_not_end_no_remedies_are_tried_and_that_is_said(tmp_path):
    short = ["--layers", 10, "--steps", 100_000, "--timeout", 0.2, "--out", tmp_path / "out"]
    done = call("run", *short, "--try")
    assert done.exit_code == 1, done.output
    assert "No remedies were tried, as the training did not come to its end." in done.output


@pytest.mark.parametrize("budget", [0, -1, "nan"])
def test_a_budget_that_is_none_is_refused_before_anything_is_said(folder, budget):
    done = call("diagnose", folder, "--try", "--budget", budget)
    assert done.exit_code == 2
    assert "budget must be a number of seconds above 0" in done.output
    assert "Vanishing." not in done.output


def test_a_budget_without_try_is_refused(folder):
    done = call("diagnose", folder, "--budget", 5)
    assert done.exit_code == 2
    assert "--budget is the time for --try" in done.output
