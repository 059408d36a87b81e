"""Folders and files that verbs write: refused before any work, never shared, never lost."""

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

import gradiometer
from gradiometer.cli import app
from gradiometer.cli.prove import ProvePrinter
from gradiometer.events import ClaimBegun
from gradiometer.experiment import Experiment, Training
from gradiometer.exports import FORMATS
from gradiometer.files import remove_leftovers, replacing, write_atomically
from gradiometer.locks import IN_FOLDER, Lock
from gradiometer.studies import FolderError, Study, load
from gradiometer.studies.folder import StudyFolder
from gradiometer.trace import Trace, TraceError
from gradiometer.verbs import run as run_verb
from gradiometer.verbs import run_folder
from gradiometer.verbs.output import OutputError
from gradiometer.verbs.run_folder import RunFolder

SETTINGS = {"layers": 1, "width": 2, "steps": 2}
FLAGS = [f"--{name}={value}" for name, value in SETTINGS.items()]


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "trace.nc"
    Experiment.of(**SETTINGS).run().save(path)
    return path


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be computed before the output is known to be good."""

    def refuse(*args, **kwargs):
        raise AssertionError("it was refused too late")

    monkeypatch.setattr(Training, "run", refuse)
    monkeypatch.setattr("gradiometer.claims.prove", refuse)


# --- what is refused ------------------------------------------------------------------------------


def a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file", "it is a file"


def below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "out", "Not a directory"


def a_link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    return tmp_path / "link", "it is a link to .*gone, which is not there"


def too_long(tmp_path):
    return tmp_path / ("x" * 300), "File name too long"


def nobodys(_tmp_path):
    return "/proc/gradiometer", "cannot be written to"


def empty(_tmp_path):
    return "", "must not be empty"


BAD_FOLDERS = [a_file, below_a_file, a_link_to_nothing, too_long, nobodys, empty]


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
@pytest.mark.parametrize("bad", BAD_FOLDERS)
@pytest.mark.parametrize("verb", ["run", "prove", "study"])
def test_a_bad_folder_is_refused_before_any_work(bad, verb, tmp_path, no_work):
    folder, words = bad(tmp_path)
    arguments = {"run": FLAGS, "prove": ["sigmoid-slope"], "study": ["lesson"]}[verb]
    done = call(verb, *arguments, "--out", folder)
    assert done.exit_code == 2
    *before, line = done.stderr.splitlines()
    assert line.startswith("gradiometer: ")
    assert re.search(words, line), line
    assert not before or verb == "study"  # its display
    if bad is a_file:
        assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--out", ""],
        ["run", ""],
        ["study", "lesson", "--out", ""],
        ["prove", "--out", ""],
        ["predict", "--out", ""],
        ["plot", ""],
        ["plot", "TRACE", "--out", ""],
        ["export", "TRACE", "--to", "csv", "--out", ""],
        ["activations", "--out", ""],
    ],
)
def test_an_empty_path_is_refused(arguments, saved, tmp_path, monkeypatch, no_work):
    monkeypatch.chdir(tmp_path)
    done = call(*(saved if argument == "TRACE" else argument for argument in arguments))
    assert done.exit_code == 2
    assert done.stderr == "gradiometer: a path must not be empty; the current folder is .\n"
    assert not [*tmp_path.iterdir()]


def test_an_empty_path_is_refused_in_python_too(saved):
    for verb in (
        lambda: gradiometer.run(out="", **SETTINGS),
        lambda: gradiometer.prove(["sigmoid-slope"], out=""),
        lambda: gradiometer.plot(saved, out=""),
        lambda: gradiometer.export(saved, "csv", out=""),
        lambda: gradiometer.study("lesson", out=""),
    ):
        with pytest.raises(OutputError, match=r"out must be the name of a f.*, got an empty one"):
            verb()


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
def test_folders_pipes_and_links_are_not_replaced(saved, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, words in {
        "folder": "it is a folder",
        "pipe": "it is a device or a pipe",
        "link": "it is a link to .*gone, which is not there",
    }.items():
        for to in ("csv", "parquet"):
            pytest.importorskip({"csv": "csv", "parquet": "pyarrow"}[to])
            with pytest.raises(OutputError, match=f"{name}: cannot be written .*{words}"):
                gradiometer.export(saved, to, tmp_path / name)
        with pytest.raises(OSError, match=words):
            Trace.load(saved).save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_behind_a_link_the_file_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "new"


def test_names_may_be_as_long_as_the_system_allows(tmp_path):
    for name in ("x" * 255, "ö" * 127, "x" * 200 + "." + "y" * 54):
        write_atomically(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"


def killed_while_writing(path):
    """A process that is killed in the middle of writing a file; what it leaves stays."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from gradiometer.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as half:\n"
        "    half.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False)


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    for name in ("trace.nc", "experiment.toml", "heatmap.png"):
        killed_while_writing(tmp_path / name)
    assert len(os.listdir(tmp_path)) == 3
    (tmp_path / ".trace.nc.mine").write_text("mine")
    with replacing(tmp_path / "trace.nc") as in_use:
        in_use.write_bytes(b"whole")
        gradiometer.run(out=tmp_path, **SETTINGS, overwrite=True)
        assert in_use.read_bytes() == b"whole"
    assert {name for name in os.listdir(tmp_path) if name[0] == "."} == {".trace.nc.mine"}


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_what_a_killed_study_or_proof_left_is_removed_by_the_next(tmp_path):
    for name in ("study.toml", "experiments.csv", "summary.csv", "outcome.png", "proofs.json"):
        killed_while_writing(tmp_path / name)
    study = Study({"steps": 2, "width": 2}, over={"layers": [1]})
    with ThreadPoolExecutor(1) as threads:
        gradiometer.study(study, out=tmp_path, executor=threads)
    gradiometer.prove(["relu-slope"], seeds=5, out=tmp_path)
    assert {name for name in os.listdir(tmp_path) if name[0] == "."} <= {".locks"}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_export_that_was_killed_does_not_keep_the_next_out(saved, tmp_path):
    pytest.importorskip("tensorboardX")
    script = (
        "import os, signal, sys\nfrom gradiometer import exports\n"
        "from gradiometer.trace import Trace\n"
        "exports._seconds = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "exports.to_tensorboard(Trace.load(sys.argv[1]), sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", script, saved, tmp_path], check=False)
    assert any(path.is_dir() for path in tmp_path.iterdir())
    gradiometer.export(saved, "tensorboard", tmp_path)
    (made,) = tmp_path.iterdir()
    assert "tfevents" in made.name


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_what_is_removed_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    """Between making a temporary file and locking it, another may take it for a leftover."""
    made = []
    mkstemp = tempfile.mkstemp

    def lost(**options):
        handle, name = mkstemp(**options)
        made.append(name)
        if len(made) == 1:
            remove_leftovers(tmp_path, ["file"])
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", lost)
    write_atomically(tmp_path / "file", b"content")
    assert len(made) == 2
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="folders are not opened there")
def test_the_name_is_on_the_disk_too(tmp_path, monkeypatch):
    """A power failure after the renaming must not undo it."""
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replaced(*paths):
        done.append("renamed")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomically(tmp_path / "file", b"content")
    assert done == ["file", "renamed", "folder"]


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch, saved):
    monkeypatch.chdir(saved.parent)
    for verb in (gradiometer.plot, lambda name: gradiometer.export(name, "csv")):
        with pytest.raises(TraceError, match="got an empty name"):
            verb("")


# --- signals that a finaliser swallows ---------------------------------------------------------


class Swallowing:
    """Python calls `__del__` wherever it likes; what that raises goes no further."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


@pytest.mark.parametrize("where", ["draw", "compare_with_theory"])
def test_a_signal_that_a_finaliser_swallows_ends_a_run(
    where, tmp_path, monkeypatch, capsys, every_figure
):
    owner = RunFolder if where == "draw" else run_verb
    real = getattr(owner, where)

    def swallowing(*args, **options):
        Swallowing()
        return real(*args, **options)

    monkeypatch.setattr(owner, where, swallowing)
    done = call("run", *FLAGS, "--out", tmp_path)
    assert done.exit_code == 128 + signal.SIGTERM
    assert "Traceback" not in capsys.readouterr().err + done.output
    assert (tmp_path / "trace.nc").exists()
    assert (tmp_path / "profile.png").exists() == (where == "compare_with_theory")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_keeps_the_claims_that_are_proved(tmp_path, monkeypatch):
    show = ProvePrinter.show

    def ended_at_the_second(printer, event):
        if isinstance(event, ClaimBegun) and event.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        show(printer, event)

    monkeypatch.setattr(ProvePrinter, "show", ended_at_the_second)
    done = call("prove", "relu-slope", "sigmoid-slope", "--seeds", 5, "--out", tmp_path)
    assert done.exit_code == 128 + signal.SIGTERM, done.output
    assert "relu-slope" in (tmp_path / "proofs.json").read_text()


# --- two at once ----------------------------------------------------------------------------------


def test_of_two_runs_that_overlap_both_are_kept(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    run = Training.run

    def slow(training, **options):
        begun.set()
        assert go_on.wait(60)
        return run(training, **options)

    monkeypatch.setattr(Training, "run", slow)
    first = threading.Thread(target=gradiometer.run, kwargs={"out": tmp_path / "out", **SETTINGS})
    first.start()
    assert begun.wait(60)
    monkeypatch.setattr(Training, "run", run)
    gradiometer.run(out=tmp_path / "out", **{**SETTINGS, "layers": 2})
    go_on.set()
    first.join()
    kept = [len(Trace.load(path).layers) for path in sorted(tmp_path.rglob("trace.nc"))]
    assert sorted(kept) == [2, 3]
    assert IN_FOLDER not in os.listdir(tmp_path / "out")


def test_while_one_writes_another_waits(tmp_path, monkeypatch):
    """Between the look at the folder and the writing nobody else may write."""
    looked, go_on = threading.Event(), threading.Event()
    may_replace = run_folder._may_replace

    def slow(folder, experiment, trace):
        found = may_replace(folder, experiment, trace)
        if experiment.layers == 1:
            looked.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(run_folder, "_may_replace", slow)
    first = threading.Thread(target=gradiometer.run, kwargs={"out": tmp_path / "out", **SETTINGS})
    first.start()
    assert looked.wait(60)
    second = threading.Thread(
        target=gradiometer.run, kwargs={"out": tmp_path / "out", **SETTINGS, "layers": 2}
    )
    second.start()
    second.join(1.0)
    assert second.is_alive()
    go_on.set()
    first.join()
    second.join()
    kept = [len(Trace.load(path).layers) for path in sorted(tmp_path.rglob("trace.nc"))]
    assert kept == [2, 3]  # in out, and in out-2


def test_a_second_proof_is_refused_before_any_work(tmp_path, no_work):
    (tmp_path / "out").mkdir()
    with (
        Lock.take(tmp_path / "out" / IN_FOLDER),
        pytest.raises(OutputError, match="another gradiometer is running there"),
    ):
        gradiometer.prove(["sigmoid-slope"], out=tmp_path / "out")


START = """
import sys, gradiometer
from gradiometer.verbs import run_folder
run_folder.FIGURE_NAMES = ("learning",)
try:
    gradiometer.run(out=sys.argv[1], layers=int(sys.argv[2]), width=2, steps=3)
except OSError as error:
    print(error)
    sys.exit(2)
"""


def test_of_two_processes_at_once_both_are_kept_or_one_is_refused(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path / "out"), str(layers)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for layers in (1, 2)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    kept = {len(Trace.load(path).layers) - 1 for path in tmp_path.rglob("trace.nc")}
    finished = {layers for layers, p in zip((1, 2), processes, strict=True) if p.returncode == 0}
    assert finished
    assert kept == finished, said
    for process, text in zip(processes, said, strict=True):
        if process.returncode:
            assert "holds the trace of another" in text


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_writer_keeps_nobody_out(tmp_path):
    script = """
import sys, time
from pathlib import Path
from gradiometer.locks import Lock
lock = Lock.take(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""
    path = tmp_path / IN_FOLDER
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    assert Lock.take(path) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.exists()
    gradiometer.run(out=tmp_path, **SETTINGS)
    assert not path.exists()


def test_a_trace_without_its_description_is_not_replaced_by_another(tmp_path):
    gradiometer.run(out=tmp_path, **SETTINGS)
    (tmp_path / "experiment.toml").unlink()
    with pytest.raises(OutputError, match="holds the trace of another experiment"):
        gradiometer.run(out=tmp_path, **{**SETTINGS, "layers": 2})
    gradiometer.run(out=tmp_path, **SETTINGS)


def test_of_two_studies_that_begin_at_once_one_is_refused(tmp_path):
    one = Study(SETTINGS, over={"seed": [1, 2]})
    two = Study(SETTINGS, over={"seed": [3, 4]})
    folders = StudyFolder(tmp_path / "out"), StudyFolder(tmp_path / "out")
    # both have looked before either has written
    folders[0].check(one, False)
    folders[1].check(two, False)
    folders[0].open(one)
    with pytest.raises(FolderError, match="holds another study"):
        folders[1].open(two)
    assert Study.load(tmp_path / "out" / "study.toml") == one


def test_of_two_exports_at_once_one_is_refused(saved, tmp_path):
    pytest.importorskip("tensorboardX")
    trace = Trace.load(saved)
    folder = tmp_path / "board"
    folder.mkdir()
    with Lock.take(folder / IN_FOLDER), pytest.raises(FileExistsError, match="at work"):
        FORMATS["tensorboard"](trace, folder)
    FORMATS["tensorboard"](trace, folder)
    with pytest.raises(FileExistsError, match="holds files"):
        FORMATS["tensorboard"](trace, folder)


def test_a_lock_is_for_one_and_can_be_had_again(tmp_path):
    path = tmp_path / "lock"
    held = []
    for _ in range(3):
        lock = Lock.take(path)
        assert lock is not None
        assert Lock.take(path) is None
        assert Lock.is_here(path)
        lock.release()
        lock.release()
        assert not path.exists()
    # many at once: never two together
    inside, most = [], []

    def work(name):
        for _ in range(10):
            lock = Lock.take(path, wait=120)
            inside.append(name)
            most.append(len(inside))
            inside.remove(name)
            lock.release()
            held.append(name)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 40
    assert max(most) == 1


# --- damaged results of a study -------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path, threads):
    study = Study(SETTINGS, over={"layers": [1, 2, 3]})
    for _ in study.run(tmp_path / "out", executor=threads):
        pass
    path = StudyFolder(tmp_path / "out").path_of(study.experiments[1])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return tmp_path / "out", path, study


def test_a_damaged_result_is_reported_by_load(damaged):
    folder, path, study = damaged
    words = rf"1 result is damaged and left out \(.*{path.name}: it is damaged\); run .* --resume"
    with pytest.warns(gradiometer.seal.FileWarning, match=words):
        results = load(folder)
    assert len(results.finished) == 2
    assert {*results.damaged} == {study.experiments[1]}
    assert "2 experiments finished, 1 damaged" in repr(results)
    assert "1 result is damaged" in results.sentence()
    with pytest.raises(gradiometer.trace.TraceError, match=rf"{path.name}: it is damaged; run"):
        results.trace(study.experiments[1])
    results.folder.write_index(study, results.finished)
    assert ",damaged," in (folder / "experiments.csv").read_text()


def test_damage_that_comes_after_loading_is_noticed_too(damaged):
    folder, *_ = damaged
    with pytest.warns(gradiometer.seal.FileWarning):
        results = load(folder)
    other = results.folder.path_of(results.finished[0])
    other.write_bytes(other.read_bytes()[:-100])
    for read in (lambda: results.outcomes, lambda: [*results.traces()], results.to_dataframe):
        with pytest.raises(gradiometer.trace.TraceError, match=other.name):
            read()


def test_the_command_line_tells_of_damage_and_resuming_mends_it(damaged, threads, monkeypatch):
    folder, path, _ = damaged
    done = call("plot", folder, "--out", folder / "shown.png")
    assert done.exit_code == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("gradiometer: ")
    assert "1 result is damaged" in line
    assert str(path) in line
    events = Study.events
    given = {"executor": threads, "workers": None}  # no process, which takes seconds to start
    monkeypatch.setattr(
        Study, "events", lambda study, out, **options: events(study, out, **options | given)
    )
    done = call("study", folder, "--resume")
    assert done.exit_code == 0, done.stderr
    assert load(folder).damaged == {}
