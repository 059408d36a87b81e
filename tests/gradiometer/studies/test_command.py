"""`gradiometer study`, and the verb behind it."""

import csv
import os
import re

import pytest
from rich.console import Console
from tests.gradiometer.studies import deadly
from tests.gradiometer.studies.helpers import small
from typer.testing import CliRunner

import gradiometer
from gradiometer.cli import app
from gradiometer.cli.study import StudyPrinter
from gradiometer.events import Begun
from gradiometer.experiment import Experiment
from gradiometer.studies import (
    ExperimentBegun,
    ExperimentFailed,
    ExperimentFinished,
    ExperimentsFailedError,
    ResultSetAside,
    Study,
    StudyError,
    StudyResults,
    WorkerDied,
    compute,
)
from gradiometer.studies.progress import Tally
from gradiometer.studies.ready import READY


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def described(tmp_path):
    study = small(layers=(1, 3), activation=("tanh", "relu"))
    study.save(tmp_path / "mine.toml")
    return tmp_path / "mine.toml"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    small(layers=(1, 3), activation=("tanh", "relu")).save(folder / "mine.toml")
    result = call("study", folder / "mine.toml", "--workers", "1", "--out", folder / "out")
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def test_one_command_runs_draws_and_tells(done):
    folder, output = done
    names = {path.name for path in folder.iterdir()}
    assert {"study.toml", "results", "experiments.csv", "summary.csv", "nets.csv"} <= names
    assert "outcome.png" in names
    for name in names - {".locks", "results", "study.toml"}:
        assert str(folder / name) in output
    assert "Medians over seeds\n" in re.sub(" +\n", "\n", output)  # of three: no intervals
    assert "of 4 experiments learn" in output
    with (folder / "summary.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [(row["layers"], row["activation"], row["nets"]) for row in rows] == [
        ("1", "tanh", "3"), ("1", "relu", "3"), ("3", "tanh", "3"), ("3", "relu", "3")
    ]  # fmt: skip
    with (folder / "nets.csv").open() as file:
        assert len([*csv.DictReader(file)]) == 12


def test_a_folder_can_be_named_instead_of_a_file(done):
    folder, _ = done
    again = call("study", folder, "--resume", "--workers", "1")
    assert again.exit_code == 0, again.output
    assert str(folder / "summary.csv") in again.output
    refused = call("study", folder)
    assert refused.exit_code == 2
    assert "holds a study already (4 results)" in refused.output


def test_a_damaged_result_is_told_of(done):
    folder, _ = done
    damaged = next((folder / "results").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:500])
    again = call("study", folder, "--resume", "--workers", "1")
    assert again.exit_code == 0, again.output
    assert f"warning: {damaged}: it is truncated" in again.output


def test_single_figures(done, tmp_path):
    folder, _ = done
    (folder / "outcome.png").unlink(missing_ok=True)
    assert call("plot", folder).output.strip() == str(folder / "outcome.png")
    assert (folder / "outcome.png").is_file()
    drawn = call("plot", folder, "--figure", "heatmaps", "--out", tmp_path / "h.png")
    assert drawn.exit_code == 0, drawn.output
    refused = call("plot", folder, "--figure", "heatmap")
    assert refused.exit_code == 2
    assert "unknown figure 'heatmap'; did you mean 'heatmaps'?" in refused.output
    refused = call("plot", folder, "--figure", "trainability")
    assert refused.exit_code == 2
    assert "init_scale" in refused.output


def test_without_a_study_those_that_are_ready_are_listed():
    listed = call("study")
    assert listed.exit_code == 0
    for name in READY:
        assert f"\n  {name} " in listed.output


def test_a_ready_study_can_be_printed_and_changed(tmp_path):
    printed = call("study", "clipping", "--describe", "--members", "2")
    assert printed.exit_code == 0
    (tmp_path / "mine.toml").write_text(printed.output)
    study = Study.load(tmp_path / "mine.toml")
    assert study.members == 2
    assert study.axes["clip"] == (None, 0.5, 1.0, 2.0, 6.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["."], "not the folder of a study: it has no study.toml"),
        (["leson"], "neither a file, nor a study's folder, nor a ready study of"),
        (["nowhere.toml"], "nowhere.toml: cannot be read"),
        (["lesson", "--members", "0"], "members must be an integer of at least 1, got 0"),
        (["lesson", "--workers", "0"], "workers must be an integer of at least 1, got 0"),
        (["lesson", "--cluster", "tcp://127.0.0.1:1", "--workers", "2"], "either cluster or"),
    ],
)
def test_what_is_refused(arguments, words, tmp_path):
    refused = call("study", *arguments, "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert words in refused.output
    assert "done" not in refused.output  # no progress of what does not begin
    assert not (tmp_path / "out").exists()


def test_intervals_are_told_of_where_there_are_some():
    import pandas as pd

    from gradiometer.cli.tables import study_table

    row = {"layers": 1, "accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.75}
    table = study_table(pd.DataFrame([row]), ["layers"])
    assert table.title == "Medians over seeds, with 95 % intervals"


def test_an_interrupt_while_drawing_ends_it(done, monkeypatch):
    from gradiometer.verbs import study

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "save_figure", interrupted)
    ended = call("study", done[0], "--resume", "--workers", "1")
    assert ended.exit_code == 130
    assert "Interrupted while drawing" in ended.output


def test_what_fails_is_told_at_the_end(described, tmp_path, monkeypatch, threads):
    real = Study.events

    def events(study, out, **options):
        options |= {"executor": threads, "workers": None, "compute": deadly.failing}
        return real(study, out, **options)

    monkeypatch.setattr(Study, "events", events)
    ended = call("study", described, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert "ArithmeticError: three is" in ended.output
    assert "Traceback" not in ended.output  # that is in the folder
    for file in (tmp_path / "out" / "failed").iterdir():
        assert "Traceback" in file.read_text()
        assert "ArithmeticError: three is\ntoo many" in file.read_text()
    assert "2 experiments failed" in ended.output
    assert "--resume tries again" in ended.output
    with (tmp_path / "out" / "experiments.csv").open() as file:
        states = {(row["layers"], row["state"]) for row in csv.DictReader(file)}
    assert states == {("1", "finished"), ("3", "failed")}


# --- the verb -------------------------------------------------------------------------------------


def test_the_verb_gives_results(tmp_path, threads):
    seen = []
    results = gradiometer.study(
        small(layers=(1, 2)), out=tmp_path / "out", executor=threads, on_event=seen.append
    )
    assert isinstance(results, StudyResults)
    assert len(results.finished) == 4
    assert sum(isinstance(event, ExperimentFinished) for event in seen) == 4
    assert (tmp_path / "out" / "summary.csv").is_file()


def test_the_verb_raises_after_all_others_are_done(tmp_path, threads, monkeypatch):
    monkeypatch.setattr(compute, "compute", deadly.failing)
    with pytest.raises(ExperimentsFailedError):
        gradiometer.study(small(layers=(1, 3)), out=tmp_path / "out", executor=threads)
    assert (tmp_path / "out" / "summary.csv").is_file()


def test_a_study_in_python_has_its_members():
    with pytest.raises(StudyError, match="members is for descriptions"):
        gradiometer.study(small(), members=3)


def test_the_folder_is_named_after_the_study():
    from gradiometer.verbs.study import describe

    assert describe("widths")[1] == describe(Study(name="widths"))[1]
    assert str(describe("widths")[1]) == os.path.join("runs", "widths")


# --- progress -------------------------------------------------------------------------------------


def test_the_tally():
    study = small(layers=(1, 2, 3), activation=("tanh",), members=4)
    one, two, three = study.experiments
    tally = Tally(study)
    assert tally.counts == "0/3 done · 0 running"
    assert not tally.add(ExperimentFinished(one, False, lambda: None))
    assert tally.counts == "1/3 done · 0 running"
    assert tally.rate == ""
    for experiment in (two, three):
        tally.add(ExperimentBegun(experiment, 1))
    assert tally.counts == "1/3 done · 1 running"
    assert tally.add(WorkerDied(two, "it died", 1)) == (
        f"warning: {two.title}: it died; it will be tried again"
    )
    tally.add(ExperimentFinished(three, True, lambda: None))
    assert "nets/s" in tally.rate
    assert tally.add(ExperimentFailed(two, "no luck", "", 3)) == f"failed: {two.title}: no luck"
    assert tally.counts == "2/3 done · 0 running · 1 failed"
    assert tally.work_done == pytest.approx(tally.work)
    assert tally.add(ResultSetAside(one, "moved")) == "warning: moved"


def test_the_display(threads):
    import io

    study = small(layers=(1, 2), activation=("tanh",))
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with StudyPrinter(console) as printer:
        printer(Begun("study", study, 2))
        assert not shown.getvalue()  # not before there is anything to show
        for event in study.events(None, executor=threads):
            printer(event)
    assert "2/2 done · 0 running" in shown.getvalue()
    assert "nets/s" in shown.getvalue()


def test_longer_experiments_weigh_more():
    from gradiometer.studies.execution import cost

    base = Experiment.of()
    for changes in ({"layers": 20}, {"width": 50}, {"steps": 200}, {"members": 9}):
        assert cost(Experiment.of(**changes)) > cost(base)
