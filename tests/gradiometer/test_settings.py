"""The declarations: what is made of them for help, titles and pages, and which verb uses which."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from pydantic import ValidationError, create_model

import dp
from dp.activations import ACTIVATIONS
from dp.initializers import INITIALIZERS
from dp.optimizers import OPTIMIZERS
from gradiometer.data import DATASETS
from gradiometer.declaration import Setting, declared_in, setting
from gradiometer.experiment import Experiment, ExperimentError, _field
from gradiometer.quantities import OF_LAYERS
from gradiometer.settings import (
    DEFAULTS,
    PARTS,
    SETTINGS,
    VERBS,
    UnusedSettingError,
    describe,
    refuse_unused,
    used_by,
)


def test_an_experiment_has_them_all_with_their_defaults():
    assert list(Experiment.model_fields) == list(SETTINGS)
    assert Experiment().model_dump(mode="json") == DEFAULTS


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("activation", ACTIVATIONS),
        ("init", INITIALIZERS),
        ("optimizer", OPTIMIZERS),
        ("data", DATASETS),
        ("quantities", OF_LAYERS),
        ("normalisation", ["none", "layer", "batch"]),
        ("dtype", ["float32", "float64"]),
        ("layers", []),
    ],
)
def test_choices_are_those_of_the_table(name, table):
    assert SETTINGS[name].choices == tuple(table)
    for choice in table:
        assert choice in SETTINGS[name].full_help()


@pytest.mark.parametrize("bound", ["at_least", "above"])
@pytest.mark.parametrize("kind", [float, float | None])
def test_numbers_are_finite_whatever_the_bound(bound, kind):
    declared = Setting(
        name="x", type=kind, default=1.0, help="", part="net", acts="start", **{bound: 0}
    )
    model = create_model("model", x=_field(declared))
    assert model(x=2.0).x == 2.0
    with pytest.raises(ValidationError, match="finite number"):
        model(x=float("inf"))


def test_what_is_added_to_a_table_is_a_choice(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "other", replace(ACTIVATIONS["tanh"], name="other"))
    assert ", other. [sigmoid]" in SETTINGS["activation"].full_help()
    assert Experiment.of(activation="other").net(Experiment().load_data()) is not None
    with pytest.raises(ExperimentError, match="did you mean 'other'"):
        Experiment.of(activation="othr")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layers", "Number of hidden layers. [10]"),
        ("learning_rate", "Learning rate. [0.001]"),
        ("clip", "Ceiling of a clipped relu."),
        ("residual", "Add each hidden layer's input to its output. [no]"),
        (
            "scaling",
            "Scaling of the features: standardise, raw, or a factor on the raw ones. [standardise]",
        ),
    ],
)
def test_help_has_what_it_is_the_choices_and_the_default(name, words):
    assert SETTINGS[name].full_help() == words


def test_every_setting_has_its_place():
    for each in SETTINGS.values():
        assert each.part in PARTS
        assert set(each.beside) <= set(SETTINGS)
        assert each.help[0].isupper()
        assert not each.help.endswith(".")
        assert not {"start", "draw", "training", "record"}.isdisjoint([each.acts])


def test_a_page_is_told_everything_as_json():
    described = json.loads(json.dumps(describe()))
    by_name = {each["name"]: each for each in described}
    assert set(by_name) == set(SETTINGS)
    parts = [PARTS.index(each["part"]) for each in described]
    assert parts == sorted(parts)
    assert {name: each["default"] for name, each in by_name.items()} == DEFAULTS
    assert by_name["activation"]["choices"] == list(ACTIVATIONS)
    assert by_name["layers"]["at_least"] == 1
    assert by_name["scaling"]["types"] == ["string", "number"]
    assert by_name["clip"]["types"] == ["number", "null"]
    assert by_name["histograms"]["changes_numbers"] is False


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("layers", 3, True),
        ("layers", 3.0, False),
        ("layers", True, False),
        ("learning_rate", 1, True),
        ("learning_rate", "1", False),
        ("clip", None, True),
        ("scaling", "raw", True),
        ("scaling", True, False),
        ("dtype", "float32", True),
        ("residual", 1, False),
        ("hyperparameters", {"beta": 0.5}, True),
        ("hyperparameters", {"beta": True}, False),
        ("quantities", ["grad_rms"], True),
        ("quantities", "grad_rms", False),
    ],
)
def test_types_of_json(name, value, right):
    assert SETTINGS[name].accepts_type(value) is right


@pytest.mark.parametrize(
    ("name", "value", "words", "brief"),
    [
        ("layers", 1, "1 layer", "1"),
        ("layers", 10, "10 layers", "10"),
        ("width", 3, "width 3", "× 3"),
        ("clip", None, "no clip", "no clip"),
        ("clip", 0.5, "clip 0.5", "(ceiling 0.5)"),
        ("residual", True, "residual", "residual"),
        ("residual", False, "no residual", "no residual"),
        ("normalisation", "none", "no normalisation", "no normalisation"),
        ("normalisation", "batch", "batch norm", "batch norm"),
        ("init", "he_normal", "he_normal init", "he_normal init"),
        ("init_scale", 1.5, "weights × 1.5", "× 1.5"),
        ("loss", "squared_error", "squared error loss", "squared error loss"),
        ("scaling", "raw", "features raw", "raw"),
        ("scaling", 10.0, "features × 10", "× 10"),
        ("hyperparameters", {}, "hyperparameters default", "(default)"),
        ("hyperparameters", {"beta": 0.5}, "hyperparameters beta 0.5", "(beta 0.5)"),
        ("steps", 1, "1 step", "1 step"),
        ("steps", 1234567, "1234567 steps", "1234567 steps"),
        ("quantities", ("grad_rms",), "quantities grad_rms", "1 quantity"),
        ("quantities", ("grad_rms", "delta_rms"), "quantities grad_rms, delta_rms", "2 quantities"),
    ],
)
def test_values_in_words(name, value, words, brief):
    assert SETTINGS[name].in_words(value) == words
    assert SETTINGS[name].in_words(value, brief=True) == brief


def test_a_default_that_is_none_in_words():
    assert SETTINGS["quantities"].in_words(None) == "usual quantities"
    assert SETTINGS["hyperparameters"].label({}) == "default"


# --- verbs ----------------------------------------------------------------------------------------


def test_a_run_uses_every_setting():
    assert used_by("run") == list(SETTINGS.values())


def test_a_prediction_uses_what_acts_before_training():
    used = {each.name for each in used_by("predict")}
    assert {"layers", "activation", "init", "data", "batch_size"} <= used
    assert used.isdisjoint({"steps", "seed", "every", "decision", "learning_rate"})


@pytest.mark.parametrize("verb", VERBS)
def test_used_and_unknown_names_are_not_refused(verb):
    refuse_unused(verb, ["layers", "no such setting"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("steps", "steps: predict does not use it, because nothing is trained; run does"),
        ("every", "every: predict does not use it, because nothing is recorded; run does"),
        ("seed", "seed: predict does not use it, because it predicts for all seeds; run does"),
    ],
)
def test_unused_settings_are_refused_and_who_uses_them_is_said(name, words):
    with pytest.raises(UnusedSettingError) as refused:
        refuse_unused("predict", ["layers", name])
    assert str(refused.value) == words


# --- declaring ------------------------------------------------------------------------------------


def test_declarations_take_name_and_type_from_the_annotation():
    class Own:
        size: int = setting(default=2, help="Size", part="net", acts="start")
        other = 3

    found = declared_in(Own)
    assert found == {
        "size": Setting(name="size", type=int, default=2, help="Size", part="net", acts="start")
    }
    assert found["size"].word == found["size"].axis_title == "size"
    assert found["size"].in_words(2) == "size 2"


def test_declarations_load_nothing_heavy():
    code = (
        "import sys, gradiometer.settings\n"
        "heavy = {'numpy', 'pydantic', 'dp', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_net_is_made_of_the_choices():
    data = Experiment().load_data()
    for name in INITIALIZERS:
        assert isinstance(Experiment.of(init=name, layers=1).net(data), dp.Net)
