"""What a study is: a base and axes, or a list; and what is refused."""

import numpy as np
import pytest
from tests.gradiometer.studies.helpers import small

import gradiometer
from gradiometer.experiment import Experiment
from gradiometer.studies import Study, StudyError
from gradiometer.studies.ready import READY, path_of, question, ready


def test_a_grid_has_an_experiment_for_each_combination():
    study = Study(
        Experiment.of(width=7, seed=3),
        over={"layers": range(1, 4), "activation": ["tanh", "relu"]},
        members=5,
    )
    found = [(e.layers, e.activation) for e in study.experiments]
    assert found == [(n, name) for n in (1, 2, 3) for name in ("tanh", "relu")]
    assert {(e.width, e.seed, e.members) for e in study.experiments} == {(7, 3, 5)}
    assert study.axes == {"layers": (1, 2, 3), "activation": ("tanh", "relu")}
    assert study.is_grid
    assert repr(study) == (
        "<Study 'study': 6 experiments (3 layers × 2 activation) of 5 nets each>"
    )


def test_a_list_has_its_experiments_alone():
    study = Study(
        {"steps": 3},
        experiments=[{"layers": 2, "init": "dp"}, {"layers": 3, "init": "orthogonal"}],
    )
    assert [e.layers for e in study.experiments] == [2, 3]
    assert study.axes == {"layers": (2, 3), "init": ("dp", "orthogonal")}
    assert not study.is_grid


def test_a_list_may_be_crossed_with_a_grid():
    study = Study(
        experiments=[{"activation": "relu", "clip": 2.0}, {"activation": "tanh"}],
        over={"layers": [1, 2]},
    )
    assert [(e.activation, e.clip, e.layers) for e in study.experiments] == [
        ("relu", 2.0, 1), ("relu", 2.0, 2), ("tanh", None, 1), ("tanh", None, 2)
    ]  # fmt: skip


def test_a_setting_that_does_not_differ_is_no_axis_of_a_list():
    study = Study(experiments=[{"layers": 2, "width": 5}, {"layers": 3, "width": 5}])
    assert [*study.axes] == ["layers"]


def test_a_study_of_one_experiment():
    assert [e.layers for e in Study({"layers": 4}).experiments] == [4]
    assert Study().is_grid


def test_the_plane_of_the_data_is_kept_only_if_asked_for():
    assert not Study({}).experiments[0].decision
    assert not Study(Experiment.of(layers=1)).experiments[0].decision
    assert Study({"decision": True}).experiments[0].decision
    assert Study(Experiment.of(decision=True)).experiments[0].decision


def test_numbers_of_numpy_are_numbers():
    study = Study(over={"layers": np.arange(1, 3), "init_scale": np.array([0.5, 1.0])})
    assert study.axes == {"layers": (1, 2), "init_scale": (0.5, 1.0)}
    assert study == Study.load(save(study))


def save(study, path="study.toml"):
    import tempfile
    from pathlib import Path

    file = Path(tempfile.mkdtemp()) / path
    study.save(file)
    return file


@pytest.mark.parametrize(
    "study",
    [
        small(),
        Study({"activation": "relu"}, over={"clip": [None, 2.0]}, name="clipped"),
        Study({"activation": "relu"}, experiments=[{"clip": None}, {"clip": 2.0}]),
        Study({"clip": None}, over={"quantities": [None, ["grad_rms"]]}),
        Study(experiments=[{"width": np.int64(3)}, {"width": np.int64(4)}]),
        Study(experiments=[{"layers": 2}, {"layers": 3, "quantities": ["grad_rms"]}], members=4),
        Study(
            Experiment.of(optimizer="momentum", hyperparameters={"beta": 0.5}, scaling=10.0),
            over={"scaling": ["raw", 2.0], "residual": [True, False]},
        ),
        Study(
            over={"hyperparameters": [{"beta": 0.5}, {"beta": 0.9}]}, base={"optimizer": "momentum"}
        ),
    ],
)
def test_files(study):
    again = Study.load(save(study))
    assert again == study
    assert again.name == study.name
    assert again.members == study.members
    assert again.axes == study.axes


def test_a_file_written_by_hand(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'members = 2\n[base]\nsteps = 7\n[over]\nlayers = [1, 2]\nclip = ["none", 1.5]\n'
        'activation = ["relu"]\n'
    )
    study = Study.load(path)
    assert study.name == "mine"
    assert study.axes == {"layers": (1, 2), "clip": (None, 1.5), "activation": ("relu",)}
    assert Study.load(path, members=9).members == 9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"over": {"layer": [1]}}, "over: unknown setting 'layer'; did you mean 'layers'"),
        ({"over": {"layers": 3}}, "over: layers takes a list of values, got 3"),
        ({"over": {"activation": "tanh"}}, "takes a list of values, got 'tanh'"),
        ({"over": {"layers": []}}, "over: layers has no values"),
        ({"over": {"layers": [1, 2, 1]}}, "over: layers has the value 1 more than once"),
        ({"over": {"layers": [1, 0]}}, "layers = 0: layers: input should be greater than or equal"),
        ({"over": {"activation": ["tanh", "tan"]}}, "unknown activation 'tan'; did you"),
        ({"over": {"members": [1, 2]}}, "members are the same in all experiments"),
        ({"over": {"clip": [1.0], "activation": ["tanh"]}}, "clip = 1.0, activation = 'tanh'"),
        ({"over": {"layers": range(1, 10**9)}}, "layers has too many values"),
        ({"over": {"seed": range(2000), "layers": range(1, 999)}}, "experiments .* are too many"),
        ({"base": {"stps": 3}}, "base: unknown setting 'stps'; did you mean 'steps'"),
        ({"base": {"steps": 0}}, "base: steps: "),
        ({"members": 0}, "members must be an integer of at least 1, got 0"),
        ({"members": 2.5}, "members must be an integer of at least 1, got 2.5"),
        ({"experiments": []}, "a study needs at least one experiment"),
        ({"experiments": [{"layers": 1}, {"layers": 1}]}, "layers = 1: the same experiment as"),
        ({"experiments": [{"layers": 10}, {}]}, "base: the same experiment as layers = 10"),
        ({"experiments": [{"layers": 1}], "over": {"layers": [1]}}, "given both in over and in"),
        ({"name": "a/b"}, "name must be fit for a folder"),
        ({"name": ".."}, "name must be fit for a folder"),
        ({"name": "a\nb"}, "name must be fit for a folder"),
        ({"over": {"layers": {1, 2}}}, "layers takes a list of values"),
        ({"base": "nowhere.toml"}, "base: nowhere.toml: cannot be read"),
    ],
)  # fmt: skip
def test_what_is_refused(settings, words):
    with pytest.raises(StudyError, match=words):
        Study(**settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layers = 3", "unknown key of a study 'layers'"),
        ("[over]\nlayers = 3", "over: layers takes a list"),
        ("over = 3", r"over: expected a table \[over\], got 3"),
        ("experiments = [3]", "experiments: expected tables of settings, got 3"),
        ("[base", "not a TOML file"),
        ('[base]\ninit = "none"', "base: init: unknown initialiser 'none'"),
        ("members = 0", "members must be an integer of at least 1"),
    ],
)
def test_files_that_are_refused_are_named(tmp_path, text, words):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(StudyError, match=f"bad.toml: {words}"):
        Study.load(path)


def test_no_file(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        Study.load(tmp_path / "none.toml")


@pytest.mark.parametrize("name", READY)
def test_ready_studies(name):
    study = ready(name)
    assert study.name == name
    assert study.members == 20
    assert question(name)[0].isupper()
    assert path_of(name).is_file()
    assert ready(name, members=2).members == 2


def test_the_lesson_is_600_nets():
    lesson = ready("lesson")
    assert sum(e.members for e in lesson.experiments) == 600
    assert lesson.axes == {
        "layers": tuple(range(1, 11)), "activation": ("sigmoid", "tanh", "relu")
    }  # fmt: skip


def test_no_such_ready_study():
    with pytest.raises(StudyError, match="unknown study 'leson'; did you mean 'lesson'"):
        ready("leson")


def test_study_is_a_public_name():
    assert gradiometer.Study is Study
