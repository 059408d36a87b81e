"""The folder of a study: what is in it, what is set aside, what is never lost."""

import csv
import errno
import os
import tempfile
import time
from concurrent.futures import Future

import numpy as np
import pytest
from tests.gradiometer.studies import deadly
from tests.gradiometer.studies.helpers import assert_complete, small, start_driver

from gradiometer.experiment import Experiment
from gradiometer.seal import FileWarning
from gradiometer.studies import (
    ExperimentFailed,
    ExperimentFinished,
    ExperimentsFailedError,
    FolderError,
    NoWorkersError,
    ResultSetAside,
    Study,
    StudyError,
    load,
)
from gradiometer.studies.folder import StudyFolder
from gradiometer.trace import Trace


@pytest.fixture
def study():
    return small(layers=(1, 2, 3), activation=("tanh",))


@pytest.fixture
def run(study, threads):
    def run(out, study=study, **options):
        return [*study.events(out, executor=threads, **options)]

    return run


def new(events):
    return [e.experiment for e in events if isinstance(e, ExperimentFinished) and e.new]


def test_a_file_for_each_experiment(run, study, tmp_path):
    run(tmp_path / "deep" / "out")
    folder = tmp_path / "deep" / "out"
    assert sorted(p.name for p in folder.iterdir()) == [".locks", "results", "study.toml"]
    assert Study.load(folder / "study.toml") == study
    for experiment in study.experiments:
        trace = Trace.load(folder / "results" / f"{experiment.hash}.nc")
        assert Experiment.of(**trace.experiment) == experiment
    assert not [*(folder / ".locks").iterdir()]


def test_resuming_runs_what_is_missing_alone(run, study, tmp_path):
    run(tmp_path)
    assert not new(run(tmp_path, resume=True))
    gone = study.experiments[1]
    (tmp_path / "results" / f"{gone.hash}.nc").unlink()
    assert new(run(tmp_path, resume=True)) == [gone]


def test_a_folder_that_has_a_study_is_not_touched_unless_resumed(run, tmp_path):
    run(tmp_path)
    with pytest.raises(FolderError, match=r"holds a study already \(3 results\).*--resume"):
        run(tmp_path)


def test_an_extended_study_uses_what_is_there(run, tmp_path):
    run(tmp_path)
    wider = small(layers=(1, 2, 3, 4), activation=("tanh", "relu"))
    events = run(tmp_path, study=wider, resume=True)
    assert len(new(events)) == 5
    assert Study.load(tmp_path / "study.toml") == wider
    assert_complete(wider, tmp_path)


def test_another_study_is_refused(run, study, tmp_path):
    run(tmp_path)
    other = small(layers=(1, 2), activation=("relu",))
    with pytest.raises(FolderError, match=r"of which 3 experiments are not in this one"):
        run(tmp_path, study=other, resume=True)
    assert Study.load(tmp_path / "study.toml") == study


def test_a_damaged_description_is_named(run, tmp_path):
    run(tmp_path)
    (tmp_path / "study.toml").write_text("[over")
    with pytest.raises(FolderError, match=r"study\.toml: not a TOML file"):
        run(tmp_path, resume=True)


def test_results_without_a_description(run, tmp_path):
    run(tmp_path)
    (tmp_path / "study.toml").unlink()
    with pytest.raises(FolderError, match=r"holds results, but no study\.toml"):
        run(tmp_path)
    assert not new(run(tmp_path, resume=True))


@pytest.mark.parametrize("damage", ["truncated", "empty", "zeros", "text", "another", "netcdf"])
def test_a_damaged_file_is_set_aside_and_computed_again(damage, run, study, tmp_path):
    run(tmp_path)
    experiment, other = study.experiments[1], study.experiments[2]
    path = tmp_path / "results" / f"{experiment.hash}.nc"
    whole = path.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "zeros": bytes(len(whole)),
        "text": b"notes on my results\n",
        "another": (path.parent / f"{other.hash}.nc").read_bytes(),
        "netcdf": bytes(Trace.load(path).dataset[["loss"]].drop_attrs().to_netcdf()),
    }[damage]
    path.write_bytes(damaged)
    events = run(tmp_path, resume=True)
    assert new(events) == [experiment]
    [told] = [e for e in events if isinstance(e, ResultSetAside)]
    assert told.text.startswith(str(path))
    [aside] = (tmp_path / "aside").iterdir()
    assert str(aside) in told.text
    assert aside.read_bytes() == damaged
    assert_complete(study, tmp_path)
    path.write_bytes(damaged)
    run(tmp_path, resume=True)
    assert len([*(tmp_path / "aside").iterdir()]) == 2


def test_every_cut_is_noticed(run, study, tmp_path):
    run(tmp_path)
    folder = StudyFolder(tmp_path)
    experiment = study.experiments[0]
    path = folder.path_of(experiment)
    whole = path.read_bytes()
    for end in [1, 8, 100, 1000, len(whole) // 3, len(whole) - 4096, len(whole) - 100]:
        path.write_bytes(whole[:end])
        assert folder.fault(experiment), end
    path.write_bytes(whole)
    assert folder.fault(experiment) is None


def test_damage_anywhere_is_noticed(run, study, tmp_path):
    run(tmp_path)
    folder = StudyFolder(tmp_path)
    experiment = study.experiments[0]
    path = folder.path_of(experiment)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        assert folder.fault(experiment), place
    for start in rng.integers(0, len(whole) - 512, 10):
        damaged = bytearray(whole)
        damaged[start : start + 512] = bytes(512)
        if damaged != whole:
            path.write_bytes(damaged)
            assert folder.fault(experiment), start
    path.write_bytes(whole + b"more")
    assert folder.fault(experiment)


def test_a_file_that_cannot_be_read_is_not_set_aside(run, study, tmp_path, monkeypatch):
    run(tmp_path)

    def refuse(path, most):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr("gradiometer.studies.folder.read_regular", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        run(tmp_path, resume=True)
    monkeypatch.undo()
    assert not (tmp_path / "aside").exists()


def test_a_start_that_failed_leaves_nothing(study, tmp_path):
    with pytest.raises(ValueError, match="either cluster or workers"):
        next(study.events(tmp_path / "out", cluster="tcp://127.0.0.1:1", workers=2))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_results_needs_no_resume(run, study, tmp_path):
    StudyFolder(tmp_path).open(study)
    assert len(new(run(tmp_path))) == 3


def test_a_name_too_long_for_the_system(run):
    with pytest.raises(FolderError, match="File name too long"):
        run("x" * 300)


def test_an_executor_that_breaks_loses_nothing(study, tmp_path):
    class Breaking:
        def __init__(self):
            self.left = 2

        def submit(self, function, *args):
            if not self.left:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.left -= 1
            future = Future()
            future.set_result(function(*args))
            return future

    with pytest.raises(NoWorkersError, match="takes no more work"):
        list(study.events(tmp_path, executor=Breaking()))
    assert len(load(tmp_path).finished) == 2


def test_other_files_in_the_folder_stay(run, study, tmp_path):
    run(tmp_path)
    (tmp_path / "results" / "notes.txt").write_text("mine")
    (tmp_path / "results" / "0123456789abcdef.nc").write_text("mine too")
    assert not new(run(tmp_path, resume=True))
    assert (tmp_path / "results" / "notes.txt").read_text() == "mine"
    with pytest.warns(FileWarning, match=r"no experiment .* \(0123456789abcdef\.nc\)"):
        assert len(load(tmp_path).finished) == 3


def test_what_fails_is_reported_and_stops_nothing(run, study, tmp_path):
    events = run(tmp_path, compute=deadly.failing)
    [failed] = [e for e in events if isinstance(e, ExperimentFailed)]
    assert failed.experiment.layers == 3
    assert failed.cause == "ArithmeticError: three is"
    assert "Traceback" in failed.text
    assert "deadly.py" in failed.text
    text = (tmp_path / "failed" / f"{failed.experiment.hash}.txt").read_text()
    assert failed.text.strip() in text
    assert "layers = 3" in text
    assert len(new(events)) == 2
    states = {row["layers"]: row["state"] for row in index(tmp_path, study)}
    assert states == {"1": "finished", "2": "finished", "3": "failed"}
    # tried again, and forgotten when it is done
    assert [e.layers for e in new(run(tmp_path, resume=True))] == [3]
    assert not [*(tmp_path / "failed").iterdir()]


def index(folder, study):
    StudyFolder(folder).write_index(study, load(folder).finished)
    with (folder / "experiments.csv").open() as file:
        return [*csv.DictReader(file)]


def test_failures_are_raised_after_all_others_are_done(study, threads, monkeypatch):
    from gradiometer.studies import compute

    monkeypatch.setattr(compute, "compute", deadly.failing)
    traces = []
    with pytest.raises(ExperimentsFailedError, match=r"an experiment failed, .*three is") as raised:
        traces.extend(study.run(executor=threads))
    assert len(traces) == 2
    assert [failure.experiment.layers for failure in raised.value.failures] == [3]


def test_the_index_says_which_file_is_which(run, study, tmp_path):
    run(tmp_path)
    rows = index(tmp_path, study)
    assert [row["hash"] for row in rows] == [e.hash for e in study.experiments]
    assert {row["state"] for row in rows} == {"finished"}
    assert [row["layers"] for row in rows] == ["1", "2", "3"]


def test_an_unwritable_folder_is_said_before_training(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"file/out: cannot be written to \(Not a directory\)"):
        run(tmp_path / "file" / "out")
    with pytest.raises(FolderError, match="out must be the name of a folder"):
        run("")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that nobody can write to")
def test_a_folder_nobody_can_write_to(run):
    with pytest.raises(FolderError, match=r"/proc/.*: cannot be written to"):
        run("/proc/gradiometer")


def test_a_full_disk_stops_the_study_and_loses_nothing(
    run, study, tmp_path, tmp_path_factory, monkeypatch
):
    write = StudyFolder.write
    written = []

    def full(folder, experiment, content):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder.path))
        write(folder, experiment, content)
        written.append(experiment)

    monkeypatch.setattr(StudyFolder, "write", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("system")))
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path)
    monkeypatch.undo()
    assert set(load(tmp_path).finished) == set(written)
    assert len(new(run(tmp_path, resume=True))) == 1
    assert_complete(study, tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_file_that_cannot_be_written_whole(tmp_path, threads):
    """As above, with the system itself refusing."""
    script = """
import resource, gradiometer
from gradiometer.studies import Study
study = small(layers=(1, 2, 30), members=50)
with ThreadPoolExecutor(1) as thread:
    [*small(layers=(1, 2), members=50).events(sys.argv[1], executor=thread)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
    [*study.events(sys.argv[1], executor=thread, resume=True)]
"""
    driver = start_driver(script, tmp_path / "out", log=tmp_path / "log")
    _, complaints = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "File too large" in complaints.splitlines()[-1]
    assert len(load(tmp_path / "out").finished) == 4
    again = small(layers=(1, 2, 30), members=50)
    assert len(new([*again.events(tmp_path / "out", resume=True, executor=threads)])) == 2


def test_the_clock_on_the_wall_does_not_matter(run, study, tmp_path, monkeypatch):
    run(tmp_path)
    for path, when in zip((tmp_path / "results").iterdir(), [0, 4e9, 1e9], strict=True):
        os.utime(path, (when, when))
    backwards = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(backwards)))
    assert not new(run(tmp_path, resume=True))
    gone = study.experiments[0]
    (tmp_path / "results" / f"{gone.hash}.nc").unlink()
    assert new(run(tmp_path, resume=True)) == [gone]


def test_a_lock_is_for_one_driver(study, tmp_path):
    one, two = StudyFolder(tmp_path), StudyFolder(tmp_path)
    one.open(study)
    experiment = study.experiments[0]
    lock = one.lock(experiment)
    assert lock is not None
    with pytest.raises(FolderError, match="this process is running a study there already"):
        two.lock(experiment)
    assert two.lock(study.experiments[1]) is not None
    lock.release()
    lock.release()
    assert two.lock(experiment) is not None


def test_a_loop_that_was_not_left(study, tmp_path, threads):
    traces = study.run(tmp_path, executor=threads)
    next(traces)
    with pytest.raises(FolderError, match="in a loop that was not left; close it"):
        list(study.run(tmp_path, executor=threads, resume=True))
    traces.close()
    assert len(list(study.run(tmp_path, executor=threads, resume=True))) == 3


def test_a_file_system_without_locks(study, tmp_path, run, monkeypatch):
    from filelock import FileLock

    def refuse(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert len(new(run(tmp_path))) == 3


def test_load_refuses_what_is_no_study(tmp_path):
    with pytest.raises(StudyError, match="not the folder of a study"):
        load(tmp_path)


def test_files_of_no_experiment_are_told_of(run, study, tmp_path):
    """A result that was renamed would otherwise be left out in silence."""
    run(tmp_path)
    first = StudyFolder(tmp_path).path_of(study.experiments[0])
    first.rename(first.with_name("renamed.nc"))
    (first.parent / ".half.nc").write_bytes(b"")  # being written
    with pytest.warns(FileWarning, match=r"1 file is of no experiment .* \(renamed\.nc\)"):
        results = load(tmp_path)
    assert results.strays == ("renamed.nc",)
    assert len(results.finished) == len(study.experiments) - 1


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_link_that_leads_to_itself_is_set_aside(run, study, tmp_path):
    run(tmp_path)
    first = StudyFolder(tmp_path).path_of(study.experiments[0])
    first.unlink()
    first.symlink_to(first.name)
    with pytest.warns(FileWarning, match="it is a link that leads to itself"):
        load(tmp_path)
    assert [e.experiment for e in run(tmp_path, resume=True) if isinstance(e, ResultSetAside)]
    assert len(load(tmp_path).finished) == len(study.experiments)
