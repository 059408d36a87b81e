"""The verbs as Python functions: what they take, what they write, what they refuse to lose."""

import itertools
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradiometer
from gradiometer.events import (
    Begun,
    ClaimBegun,
    ClaimJudged,
    Compared,
    FileWritten,
    Finished,
    Interrupted,
    ListenerWarning,
    NotCompared,
    Progressed,
    Result,
    StepRecorded,
    TimeLimitReached,
)
from gradiometer.experiment import Experiment
from gradiometer.settings import used_by
from gradiometer.studies import ExperimentEvent, Study, load
from gradiometer.trace import Trace
from gradiometer.verbs import run_folder


def test_run_takes_an_experiment_a_file_or_settings(tmp_path):
    described = Experiment.of(layers=1, steps=2)
    described.save(tmp_path / "e.toml")
    losses = [
        gradiometer.run(described)["loss"],
        gradiometer.run(tmp_path / "e.toml")["loss"],
        gradiometer.run(layers=1, steps=2)["loss"],
        gradiometer.run(Experiment.of(layers=5), layers=1, steps=2)["loss"],
    ]
    for loss in losses[1:]:
        np.testing.assert_array_equal(loss, losses[0])


@pytest.mark.parametrize("verb", [gradiometer.run, gradiometer.predict])
def test_help_lists_the_settings_that_a_verb_uses(verb):
    found = re.findall(r"^    - `(\w+)`: .+\.", verb.__doc__, re.MULTILINE)
    assert found == [each.name for each in used_by(verb.__name__)]
    assert "glorot_uniform" in verb.__doc__


def test_figures_can_be_drawn_from_a_trace_or_its_file(tmp_path):
    trace = gradiometer.run(layers=1, steps=2, out=tmp_path)
    for source in [trace, tmp_path / "trace.nc"]:
        drawn = gradiometer.plot(source, "profile", out=tmp_path / "again.png")
        assert len(drawn.axes) == 2
        assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"unknown figure 'profil'; did you mean 'profile'\?"):
        gradiometer.plot(trace, "profil")


# --- events ---------------------------------------------------------------------------------------

SMALL = {"layers": 1, "width": 2, "steps": 3}


def kinds(told):
    return [kind for kind, _ in itertools.groupby(told, type)]


def test_run_tells_what_happens_in_its_order(tmp_path):
    told = []
    trace = gradiometer.run(out=tmp_path / "{title}", on_event=told.append, **SMALL)
    assert kinds(told) == [Begun, StepRecorded, Result, Compared, FileWritten, Finished]
    assert told[0] == Begun("run", Experiment.of(**SMALL), 3)
    assert [event.step for event in told if isinstance(event, StepRecorded)] == [1, 2, 3]
    assert next(event.value for event in told if isinstance(event, Result)) is trace
    [folder] = tmp_path.iterdir()
    assert folder.name == Experiment.of(**SMALL).title
    written = [event.path for event in told if isinstance(event, FileWritten)]
    assert sorted(written) == sorted(folder.iterdir())


def test_progress_is_told_where_not_every_step_is_recorded():
    told = []
    gradiometer.run(**{**SMALL, "steps": 1000}, every=300, on_event=told.append)
    done = [event.done for event in told if isinstance(event, Progressed)]
    assert done == [*range(1, 1001, 10)]
    assert [e.step for e in told if isinstance(e, StepRecorded)] == [1, 301, 601, 901]


def test_theory_is_shown_in_python_too(tmp_path):
    for theory in (False, True):
        gradiometer.run(out=tmp_path / str(theory), theory=theory, **SMALL)
    with_theory, without = ((tmp_path / t / "profile.png").read_bytes() for t in ("True", "False"))
    assert with_theory != without
    with pytest.raises(ValueError, match="residual: the theory covers nets without"):
        gradiometer.run(theory=True, residual=True, **SMALL)


def test_a_net_too_deep_for_a_quick_prediction_is_not_compared():
    told = []
    gradiometer.run(layers=21, width=2, steps=1, on_event=told.append)
    assert told[-2] == NotCompared("the prediction is slow for more than 20 layers")


def test_a_time_limit_is_told():
    told = []
    trace = gradiometer.run(
        steps=10**7, width=2, layers=1, every=1000, timeout=0.2, on_event=told.append
    )
    assert told[-1] == TimeLimitReached(0.2, trace.attrs["steps_done"], 10**7)


def test_an_interrupt_while_training_gives_what_was_recorded(tmp_path):
    def listener(event):
        told.append(event)
        if isinstance(event, StepRecorded) and event.step == 2:
            raise KeyboardInterrupt

    told = []
    trace = gradiometer.run(out=tmp_path, on_event=listener, **{**SMALL, "steps": 10_000})
    done = trace.attrs["steps_done"]
    assert trace.attrs["interrupted"]
    assert Interrupted(signal.SIGINT, "training", done, 10_000) in told
    assert (tmp_path / "profile.png").is_file()
    assert Finished not in kinds(told)


def test_an_interrupt_while_drawing_is_raised_when_it_was_told(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "save_figure", interrupted)
    told = []
    with pytest.raises(KeyboardInterrupt):
        gradiometer.run(out=tmp_path, on_event=told.append, **SMALL)
    assert told[-1] == Interrupted(signal.SIGINT, "drawing")
    assert (tmp_path / "trace.nc").is_file()


def test_a_listener_that_fails_costs_neither_training_nor_files(tmp_path):
    def fails(event):
        raise ZeroDivisionError

    with pytest.warns(ListenerWarning, match="ZeroDivisionError"):
        trace = gradiometer.run(out=tmp_path, on_event=fails, **SMALL)
    assert trace.attrs["steps_done"] == 3
    assert (tmp_path / "profile.png").is_file()


def test_prove_tells_what_happens_in_its_order(tmp_path):
    told = []
    proofs = gradiometer.prove(["relu-slope"], seeds=5, out=tmp_path, on_event=told.append)
    assert kinds(told) == [Begun, ClaimBegun, ClaimJudged, Result, FileWritten, Finished]
    assert next(event.value for event in told if isinstance(event, Result)) is proofs
    assert sorted(e.path for e in told if isinstance(e, FileWritten)) == sorted(tmp_path.iterdir())


def test_study_tells_what_happens_in_its_order(tmp_path):
    told = []
    study = Study({"steps": 2, "width": 2}, over={"layers": [1, 2]})
    with ThreadPoolExecutor(1) as threads:
        gradiometer.study(study, out=tmp_path / "out", executor=threads, on_event=told.append)
    known = [k for k in kinds(told) if not issubclass(k, ExperimentEvent)]
    assert known == [Begun, Result, FileWritten, Finished]
    assert told[0] == Begun("study", study, 2)


@pytest.mark.parametrize("given", [5, {"layers": 5}, ["relu"]])
def test_what_is_no_experiment_is_refused_with_the_way_to_give_settings(given):
    with pytest.raises(TypeError, match="settings go by name, such as layers=5"):
        gradiometer.run(given)


A_TRACE = "expected a trace, or the path of its file or folder, got 3"
A_STUDY = "expected a Study, the name of a ready one, a TOML file or a study's folder, got 3"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradiometer.plot(3), A_TRACE),
        (lambda: gradiometer.export(3, "csv"), A_TRACE),
        (lambda: gradiometer.study(3), A_STUDY),
        (lambda: load(3), "a study is named by its folder, got 3"),
        (lambda: Study(3), "base is an Experiment, settings of one, or a TOML file, got 3"),
        (lambda: Study({}, over=3), "over takes lists of values by setting, got 3"),
        (lambda: Study({}, experiments=3), "experiments takes a list of settings, got 3"),
        (lambda: gradiometer.run(out=3), "out must be the path of a folder, got 3"),
        (lambda: gradiometer.study("lesson", out=3), "out must be the path of a folder, got 3"),
        (
            lambda: gradiometer.prove(["relu-slope"], out=3),
            "out must be the path of a folder, got 3",
        ),
        (lambda: gradiometer.predict(layers=1, out=3), "out must be the path of a file, got 3"),
    ],
)
def test_what_is_no_path_is_refused_with_what_is_expected(call, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        call()


def raising(error, at, count=1):
    """A listener that raises an error at the event of a kind that is `count`-th."""
    left = [count]

    def listener(event):
        if isinstance(event, at):
            left[0] -= 1
            if left[0] == 0:
                raise error

    return listener


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_interrupt_by_the_listener_is_one_at_any_step(step, every, tmp_path):
    told = []
    interrupting = raising(KeyboardInterrupt, StepRecorded, step)

    def listener(event):
        told.append(event)
        interrupting(event)

    trace = gradiometer.run(layers=1, steps=6, every=every, out=tmp_path / "out", on_event=listener)
    assert trace.attrs["interrupted"] or trace.attrs["asked_to_stop"]
    assert trace.dataset.sizes["step"] >= step
    saved = Trace.load(tmp_path / "out" / "trace.nc")
    assert saved.dataset.sizes["step"] == trace.dataset.sizes["step"]
    assert Interrupted in kinds(told)
    assert not {Compared, Finished} & {*kinds(told)}


@pytest.mark.parametrize("step", [1, 6])
def test_leaving_by_the_listener_saves_what_was_recorded_and_leaves(step, tmp_path):
    leaving = SystemExit(5)
    with pytest.raises(SystemExit) as left:
        gradiometer.run(
            layers=1, steps=6, out=tmp_path, on_event=raising(leaving, StepRecorded, step)
        )
    assert left.value is leaving
    assert left.value.code == 5
    saved = Trace.load(tmp_path / "trace.nc")
    assert saved.dataset.sizes["step"] == left.value.trace.dataset.sizes["step"] >= step


def test_leaving_by_the_listener_saves_the_proofs_until_then_and_leaves(tmp_path):
    with pytest.raises(SystemExit) as left:
        gradiometer.prove(
            ["relu-slope", "sigmoid-slope"], out=tmp_path,
            on_event=raising(SystemExit(5), ClaimBegun, 2),
        )  # fmt: skip
    assert left.value.code == 5
    assert [proof.name for proof in left.value.proofs.proofs] == ["relu-slope"]
    assert (tmp_path / "proofs.json").is_file()


def test_leaving_before_the_first_step_leaves(tmp_path):
    with pytest.raises(SystemExit):
        gradiometer.run(layers=1, out=tmp_path, on_event=raising(SystemExit, Begun))
    assert not any(tmp_path.glob("*.nc"))


def test_a_signal_after_the_training_is_told_to_whoever_has_more_to_do(monkeypatch):
    def asked(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("gradiometer.experiment.add_decision", asked)
    trace = Experiment.of(layers=1, steps=2).run()
    assert (trace.attrs["asked_to_stop"], trace.attrs["interrupted"]) == (1, 0)
