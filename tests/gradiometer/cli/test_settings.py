"""Flags are those of the declared settings, each verb has its own, and help lists the choices."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import gradiometer
from dp.activations import ACTIVATIONS
from dp.initializers import INITIALIZERS
from dp.optimizers import OPTIMIZERS
from gradiometer.cli import app
from gradiometer.data import DATASETS
from gradiometer.quantities import PER_LAYER
from gradiometer.settings import SETTINGS, UnusedSettingError, used_by


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flags_of(verb):
    shown = call(verb, "--help").output.split()
    return {word for word in shown if word.startswith("--")}


def flag(setting):
    return "--" + (setting.flag or setting.name).replace("_", "-")


@pytest.mark.parametrize("verb", ["run", "predict"])
def test_a_verb_offers_what_it_uses_and_no_more(verb):
    of_settings = {flag(setting) for setting in SETTINGS.values()}
    assert flags_of(verb) & of_settings == {flag(setting) for setting in used_by(verb)}


@pytest.mark.parametrize(
    "table", [ACTIVATIONS, INITIALIZERS, OPTIMIZERS, DATASETS, PER_LAYER, ["layer", "batch"]]
)
def test_help_lists_the_choices(table):
    words = {word.strip(".,") for word in call("run", "--help").output.split()}
    assert set(table) <= words


def test_the_gallery_lists_its_activation_functions():
    words = {word.strip(".,;") for word in call("activations", "--help").output.split()}
    assert set(ACTIVATIONS) <= words


def test_help_of_a_verb_is_light():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from gradiometer.cli import app\n"
        "verbs = 'run predict study prove diagnose plot export activations'.split()\n"
        "for verb in verbs:\n"
        "    assert CliRunner().invoke(app, [verb, '--help']).exit_code == 0\n"
        "heavy = {'matplotlib', 'sklearn', 'xarray', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", 3], "steps: predict does not use it, because nothing is trained; run does"),
        (["--quantity", "grad_rms"], "quantities: predict does not use it"),
        (["--no-decision"], "decision: predict does not use it, because nothing is recorded"),
        (["--hyperparameter", "beta=0.5"], "hyperparameters: predict does not use it"),
    ],
)
def test_a_flag_of_another_verb_is_refused_with_the_reason(arguments, words, tmp_path):
    done = call("predict", *arguments, "--out", tmp_path / "prediction.png")
    assert done.exit_code == 2
    assert words in done.output
    assert not list(tmp_path.iterdir())


def test_so_is_a_keyword():
    with pytest.raises(UnusedSettingError, match="every: predict does not use it"):
        gradiometer.predict(layers=2, every=2)


def test_a_described_experiment_may_have_settings_that_a_verb_does_not_use(tmp_path):
    described = gradiometer.Experiment.of(layers=1, width=3, steps=5, decision=False)
    described.save(tmp_path / "e.toml")
    for given in (described, tmp_path / "e.toml"):
        assert len(gradiometer.predict(given).layers) == 2
