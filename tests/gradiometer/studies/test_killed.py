"""Workers or the driver killed at any moment: no finished result is lost or computed again."""

import collections
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from tests.gradiometer.processes import until
from tests.gradiometer.studies import deadly
from tests.gradiometer.studies.deadly import notes
from tests.gradiometer.studies.helpers import (
    assert_complete,
    small,
    start_driver,
    undisturbed_study,
)

from gradiometer.studies import ExperimentFailed, ExperimentFinished, WorkerDied

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(deadly.LOG, str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return undisturbed_study(tmp_path_factory.mktemp("undisturbed"))


def begun():
    """How often each experiment was begun."""
    return collections.Counter(name for word, name, _ in notes() if word == "begin")


def in_the_middle():
    """Processes that have begun an experiment and not ended it."""
    open_ = {}
    for word, name, pid in notes():
        if word == "begin":
            open_[pid] = name
        else:
            open_.pop(pid, None)
    return open_


def kill_when(condition, choose):
    """In the background: when `condition()` holds, kill the processes that `choose()` gives."""
    killed = []

    def watch():
        until(condition)
        for pid in choose():
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread, killed


@pytest.mark.parametrize("how_many", [1, pytest.param(2, marks=pytest.mark.long)])
def test_workers_killed_in_the_middle(how_many, log, tmp_path, undisturbed):
    study = small()
    lost = {}

    def choose():
        until(lambda: len(in_the_middle()) >= how_many)
        lost.update([*in_the_middle().items()][:how_many])
        return [*lost]

    thread, killed = kill_when(lambda: len(notes()) >= 3, choose)
    events = [*study.events(tmp_path / "out", workers=2, compute=deadly.slow)]
    thread.join()
    assert len(killed) == how_many
    died = [event for event in events if isinstance(event, WorkerDied)]
    assert {event.experiment.hash for event in died} == set(lost.values())
    assert all("was killed by signal 9 (SIGKILL" in event.cause for event in died)
    assert not [event for event in events if isinstance(event, ExperimentFailed)]
    again = {name for name, times in begun().items() if times > 1}
    assert again == set(lost.values())
    assert_complete(study, tmp_path / "out", undisturbed)


def test_the_driver_killed_and_resumed(log, tmp_path, undisturbed, threads):
    study = small()
    script = "for _ in small().events(sys.argv[1], workers=2, compute=slow): pass"
    driver = start_driver(script, tmp_path / "out", log=log)
    until(lambda: sum(word == "end" for word, *_ in notes()) >= 3)
    driver.kill()
    driver.communicate()
    workers = {pid for _, _, pid in notes()}
    until(lambda: not [pid for pid in workers if psutil.pid_exists(pid)], seconds=10)
    there = {path.stem for path in (tmp_path / "out" / "results").glob("*.nc")}
    assert len(there) >= 1
    first = begun()
    assert len(set(first) - there) <= 2 + 2  # in the middle, or ended and not yet written
    events = [*study.events(tmp_path / "out", resume=True, executor=threads, compute=deadly.slow)]
    new = {e.experiment.hash for e in events if isinstance(e, ExperimentFinished) and e.new}
    assert new == {e.hash for e in study.experiments} - there
    assert not any(begun()[name] > 1 for name in there)
    assert_complete(study, tmp_path / "out", undisturbed)


def test_what_was_half_written_when_the_driver_died_is_not_a_result(tmp_path, undisturbed, threads):
    study = small()
    whole = next((undisturbed / "results").iterdir())
    [*study.events(tmp_path / "out", executor=threads)]
    results = tmp_path / "out" / "results"
    (results / whole.name).unlink()
    (results / f".{whole.name}.abc.nc").write_bytes(whole.read_bytes()[:1000])
    events = study.events(tmp_path / "out", resume=True, executor=threads)
    assert [e.experiment.hash for e in events if isinstance(e, ExperimentFinished) and e.new] == [
        whole.stem
    ]
    assert_complete(study, tmp_path / "out", undisturbed)


@pytest.mark.long
def test_an_experiment_that_always_kills_its_worker(log, tmp_path):
    study = small()
    events = [*study.events(tmp_path / "out", workers=2, compute=deadly.deadly)]
    failed = [event for event in events if isinstance(event, ExperimentFailed)]
    assert [event.experiment.layers for event in failed] == [3, 3]
    for event in failed:
        assert event.cause.startswith("failed after 3 tries: the worker process ")
        text = (tmp_path / "out" / "failed" / f"{event.experiment.hash}.txt").read_text()
        assert event.cause in text
        assert "layers = 3" in text
    assert {begun()[event.experiment.hash] for event in failed} == {3}
    done = [event for event in events if isinstance(event, ExperimentFinished)]
    assert len(done) == 6
    assert {begun()[event.experiment.hash] for event in done} == {1}


@pytest.mark.long
def test_attempts_limits_the_retries(log, tmp_path):
    events = [*small().events(None, workers=1, attempts=1, compute=deadly.deadly)]
    assert {e.attempts for e in events if isinstance(e, ExperimentFailed)} == {1}
    assert not [e for e in events if isinstance(e, WorkerDied)]


def test_an_experiment_that_kills_its_worker_once_is_retried(log, tmp_path, undisturbed):
    study = small(layers=(3, 4), activation=("relu",))
    events = [*study.events(tmp_path / "out", workers=1, compute=deadly.deadly_once)]
    assert len([e for e in events if isinstance(e, WorkerDied)]) == 1
    assert_complete(study, tmp_path / "out", undisturbed)


@pytest.mark.long
def test_a_worker_that_ends_by_itself(log):
    events = [*small().events(None, workers=1, compute=deadly.leaving)]
    causes = {e.cause for e in events if isinstance(e, ExperimentFailed)}
    assert all("ended by itself with status 7" in cause for cause in causes)
    assert len(causes) == 2


def test_a_worker_that_is_asked_to_end_has_not_finished(log, tmp_path, undisturbed):
    study = small()
    events = [*study.events(tmp_path / "out", workers=1, compute=deadly.stopped_once)]
    died = [e for e in events if isinstance(e, WorkerDied)]
    assert all(e.cause.startswith("stopped after step ") for e in died)
    assert len(died) == 2
    assert_complete(study, tmp_path / "out", undisturbed)


@pytest.mark.long
def test_two_drivers_share_the_work(log, tmp_path, undisturbed):
    study = small()
    script = (
        "for _ in small().events(sys.argv[1], workers=1, compute=slow, resume=len(sys.argv) > 2):"
        " pass"
    )
    first = start_driver(script, tmp_path / "out", log=log)
    until(lambda: notes())
    second = start_driver(script, tmp_path / "out", "resume", log=log)
    for driver in (first, second):
        _, complaints = driver.communicate(timeout=120)
        assert driver.returncode == 0, complaints
    assert set(begun().values()) == {1}
    assert len({pid for _, _, pid in notes()}) == 2
    assert_complete(study, tmp_path / "out", undisturbed)


@pytest.mark.long
def test_what_a_dead_driver_had_is_taken_over_by_the_other(log, tmp_path, undisturbed):
    study = small()
    script = "for _ in small().events(sys.argv[1], workers=2, compute=slow): pass"
    driver = start_driver(script, tmp_path / "out", log=log)
    until(lambda: notes())
    killed = threading.Timer(0.5, driver.kill)
    killed.start()
    for _ in study.events(tmp_path / "out", resume=True, workers=1, compute=deadly.slow):
        pass
    driver.communicate()
    assert_complete(study, tmp_path / "out", undisturbed)


def test_no_process_is_left_when_the_loop_is_left(log):
    events = small().events(None, workers=2, compute=deadly.slow)
    until(lambda: next(events) and in_the_middle())
    workers = {pid for _, _, pid in notes()}
    events.close()
    until(lambda: not [pid for pid in workers if psutil.pid_exists(pid)], seconds=10)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "bare.py"
    script.write_text(
        "from gradiometer import Study\n"
        "study = Study({'steps': 2, 'width': 3}, over={'layers': [1, 2, 3]})\n"
        f"for trace in study.run({str(tmp_path / 'out')!r}, workers=1, resume=True): pass\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert 'must stand below: if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "failed").exists()


def test_a_script_from_standard_input_is_told_so(tmp_path):
    script = "from gradiometer import Study\nlist(Study({'steps': 2}).run(workers=1))\n"
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "put it into a file" in done.stderr.splitlines()[-1]


def test_threads_are_given_back(threads):
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info()]
    with ThreadPoolExecutor(3) as several:
        for _ in small().events(None, executor=several, workers=3):
            pass
    assert [pool["num_threads"] for pool in threadpool_info()] == before
