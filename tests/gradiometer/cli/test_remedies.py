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
