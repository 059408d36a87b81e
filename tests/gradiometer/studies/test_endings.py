"""Everything ends: what takes too long, is stopped, cannot start, or is asked to."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from tests.gradiometer.processes import ended, until
from tests.gradiometer.studies import deadly
from tests.gradiometer.studies.deadly import notes
from tests.gradiometer.studies.helpers import small, start_driver

from gradiometer.experiment import Experiment
from gradiometer.interrupts import TimeLimitError
from gradiometer.studies import (
    ExperimentFailed,
    ExperimentFinished,
    NoWorkersError,
    Study,
    StudyError,
    WorkerDied,
    WorkerSilent,
    execution,
    load,
    processes,
)
from gradiometer.studies import compute as in_worker
from gradiometer.studies.progress import Tally

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

LIMIT = "took longer than its time limit of 0.5 s"


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(deadly.LOG, str(tmp_path / "log"))
    return tmp_path / "log"


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def gone(pids):
    return not [pid for pid in pids if psutil.pid_exists(pid)]


# --- time limits ----------------------------------------------------------------------------------


def test_what_never_ends_is_ended_and_the_rest_goes_on(log, tmp_path, threads):
    study = small(layers=(1, 3), activation=("tanh",))
    folder = tmp_path / "out"
    events = [*study.events(folder, workers=1, timeout=3, compute=deadly.sleeping)]
    (failed,) = of(ExperimentFailed, events)
    assert failed.experiment.layers == 3
    assert failed.cause == failed.text == "took longer than its time limit of 3 s"
    assert failed.attempts == 1
    assert not of(WorkerDied, events)
    assert [event.experiment.layers for event in of(ExperimentFinished, events)] == [1]
    text = (folder / "failed" / f"{failed.experiment.hash}.txt").read_text()
    assert failed.cause in text
    assert "Traceback" not in text
    until(lambda: gone({pid for _, _, pid in notes()}), 10)
    again = [*study.events(folder, executor=threads, resume=True)]  # with work that ends
    assert [event.experiment.layers for event in of(ExperimentFinished, again) if event.new] == [3]
    assert not (folder / "failed" / f"{failed.experiment.hash}.txt").exists()


def test_elsewhere_the_time_is_looked_at_after_each_step(tmp_path):
    study = Study({"steps": 10**7, "width": 2, "every": 10**6}, over={"layers": [1, 2]})
    with ThreadPoolExecutor(2) as threads:
        events = [*study.events(None, executor=threads, workers=2, timeout=0.5)]
    assert [event.cause for event in of(ExperimentFailed, events)] == [LIMIT, LIMIT]


def test_groups_of_members_share_the_time():
    experiment = Experiment.of(steps=10**7, width=2, layers=1, members=4, every=10**6)
    with pytest.raises(TimeLimitError, match=LIMIT):
        in_worker.run(experiment, at_once=1, timeout=0.5)


def test_a_run_keeps_what_it_has():
    trace = Experiment.of(steps=10**7, width=2, layers=1, every=1000).run(timeout=0.3)
    assert trace.attrs["time_limit"] == 0.3
    assert trace.attrs["interrupted"] == 1
    assert 0 < trace.attrs["steps_done"] < 10**7
    assert "time_limit" not in Experiment.of(steps=2, width=2).run(timeout=1000).attrs


def test_the_limit_is_kept_with_the_description(tmp_path):
    limited, free = (small(layers=(1,)) for _ in range(2))
    limited = Study(limited.base, over=limited.over, timeout=1.5)
    limited.save(tmp_path / "s.toml")
    found = Study.load(tmp_path / "s.toml")
    assert found.timeout == 1.5
    assert free.timeout is None
    assert {e.hash for e in found.experiments} == {e.hash for e in free.experiments}


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "soon", True])
def test_a_limit_is_a_number_of_seconds(timeout):
    words = "timeout must be a number of seconds above 0, got "
    with pytest.raises(StudyError, match=words):
        Study({}, timeout=timeout)
    with pytest.raises(StudyError, match=words):
        next(Study({}).events(None, timeout=timeout))
    with pytest.raises(ValueError, match=words):
        Experiment.of(steps=1).run(timeout=timeout)


# --- signs of life --------------------------------------------------------------------------------


def test_a_stopped_worker_is_reported_and_ended(log, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SILENT", 1.5)
    monkeypatch.setattr(processes, "SILENCE", 4.0)
    study = small(layers=(1, 3), activation=("tanh",))
    events = [*study.events(tmp_path / "out", workers=2, attempts=1, compute=deadly.stopped)]
    (silent,) = of(WorkerSilent, events)
    assert silent.experiment.layers == 3
    assert "has sent no heartbeat for 1.5 s" in silent.text
    assert silent.text in Tally(study).add(silent)
    (failed,) = of(ExperimentFailed, events)
    assert failed.experiment == silent.experiment
    assert "sent no heartbeat for 4 s, was stopped or stuck, and was ended" in failed.cause
    assert [event.experiment.layers for event in of(ExperimentFinished, events)] == [1]
    until(lambda: gone({pid for _, _, pid in notes()}), 10)


@pytest.mark.long
def test_a_worker_that_works_long_is_not_taken_for_stopped(log, monkeypatch):
    monkeypatch.setattr(processes, "SILENT", 3.0)
    monkeypatch.setattr(processes, "SILENCE", 6.0)
    monkeypatch.setattr(processes, "GRACE", 0.0)
    study = small(layers=(3,), activation=("tanh",))
    events = [*study.events(None, workers=1, timeout=9.0, compute=deadly.sleeping)]
    assert not of(WorkerSilent, events)
    assert [event.cause for event in of(ExperimentFailed, events)] == [
        "took longer than its time limit of 9 s"
    ]


# --- workers that cannot start, or all die --------------------------------------------------------


@pytest.mark.long
def test_workers_that_all_die_end_the_study(log, monkeypatch):
    monkeypatch.setattr(execution, "STORM", 2)
    events = small().events(None, workers=1, compute=deadly.always_deadly)
    with pytest.raises(NoWorkersError, match=r"[4-7] worker processes crashed one after the other"):
        for _ in events:
            pass
    assert len(notes()) <= 7


@pytest.mark.long
def test_what_needs_too_much_does_not_keep_the_rest_from_being_done(log, monkeypatch):
    monkeypatch.setattr(execution, "STORM", 2)
    study = small()
    events = [*study.events(None, workers=1, attempts=2, compute=deadly.deadly_if_deep)]
    assert {event.experiment.layers for event in of(ExperimentFinished, events)} == {1}
    assert {event.experiment.layers for event in of(ExperimentFailed, events)} == {2, 3, 4}


@pytest.mark.parametrize(
    "error", [OSError(12, "Cannot allocate memory"), RuntimeError("can't start new thread"),
              MemoryError()]
)  # fmt: skip
def test_workers_that_cannot_be_started_end_the_study(error, monkeypatch):
    def no_more(*args, **options):
        raise error

    monkeypatch.setattr(processes.ProcessPoolExecutor, "submit", no_more)
    with pytest.raises(NoWorkersError, match="no worker process can be started"):
        for _ in small().events(None, workers=2):
            pass


DRIVER = """
from gradiometer.studies import NoWorkersError, processes
processes.STARTS_WITHIN = 3.0
try:
    for _ in small().events(None, workers=2): pass
except NoWorkersError as error:
    print(error)
"""
TOO_LITTLE = """
import resource
from pathlib import Path
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {mib} * 2**20,) * 2)
"""


@pytest.mark.parametrize(
    ("above", "words"),
    [
        ("raise ValueError('broken')", "end as soon as they start"),
        pytest.param("import no_such_module", "end as soon as they start", marks=pytest.mark.long),
        ("import os; os._exit(3)", "ended by itself with status 3"),
        pytest.param(
            "import time; time.sleep(1000)", "did not start within 3 s", marks=pytest.mark.long
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "did not start within 3 s"),
    ],
)
def test_a_script_whose_workers_cannot_start(above, words, tmp_path):
    in_workers = f"if __name__ != '__main__':\n    {above}\n"
    driver = start_driver(DRIVER, log=tmp_path / "log", above=in_workers)
    printed, complaints = driver.communicate(timeout=120)
    assert words in printed, complaints[-2000:]


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("mib", [0, 8, 32, 100, 200, 400])
def test_too_little_memory_for_workers(mib, tmp_path):
    driver = start_driver(TOO_LITTLE.format(mib=mib) + DRIVER, log=tmp_path / "log")
    printed, complaints = driver.communicate(timeout=120)
    # with more memory it is done; with less the reason is told, by Python's own error at the least
    ended = driver.returncode == 0 or "Error" in complaints
    assert ended, (driver.returncode, printed, complaints[-2000:])


# --- asked to end ---------------------------------------------------------------------------------

COMMAND = """
if __name__ == "__main__":
    from gradiometer.studies import execution
    execution.WAITED = 1.0
    from gradiometer.cli import main
    main()
"""


def start(tmp_path, *arguments, script_of=COMMAND):
    script = tmp_path / "command.py"
    script.write_text(script_of)
    process = subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    )
    return ended(process)


def session(process):
    """The processes that it started, and itself; whoever started them."""
    found = []
    for each in psutil.process_iter():
        try:
            if os.getsid(each.pid) == process.pid and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def assert_ended(process, status, seconds=60):
    printed, complaints = process.communicate(timeout=seconds)
    assert process.returncode in status, complaints
    assert "Traceback" not in complaints
    until(lambda: not session(process), 15)
    return printed, complaints


@pytest.fixture
def long_study(tmp_path):
    study = Study({"steps": 10**6, "width": 5, "every": 10**5}, over={"layers": range(5, 9)})
    study.save(tmp_path / "long.toml")
    return tmp_path / "long.toml"


def workers_of(process):
    return [
        each
        for each in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(each.cmdline())
    ]


@pytest.mark.parametrize("stop", [pytest.param(False, marks=pytest.mark.long), True])
def test_sigterm_ends_a_study_whose_experiments_do_not_end(stop, long_study, tmp_path):
    with start(tmp_path, "study", long_study, "--workers", "2", "--out", tmp_path / "o") as process:
        until(lambda: len(workers_of(process)) == 2)
        time.sleep(0.5)
        if stop:
            for each in workers_of(process):
                each.suspend()
        process.terminate()
        assert_ended(process, {143, -15})
    assert load(tmp_path / "o").finished == ()


def test_twice_ends_at_once_whatever_goes_on(tmp_path):
    """In a library's own loop, where no handler of Python's runs."""
    script = tmp_path / "stuck.py"
    script.write_text(
        "import time, signal\n"
        "from gradiometer.cli import ending\n"
        "from gradiometer.interrupts import Interrupts\n"
        "ending.LEFT = 0.5\n"
        "ending.end_if_asked_twice()\n"
        "with Interrupts() as interrupts:\n"
        "    interrupts.finish()\n"
        "    print('begun', flush=True)\n"
        "    while True: time.sleep(1)\n"
    )
    command = [sys.executable, script]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.long
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
@pytest.mark.parametrize("verb", ["study", "run", "prove"])
@pytest.mark.parametrize("part", [0.1, 0.35, 0.6, 0.85])
def test_asked_to_end_at_many_moments(part, verb, signals, tmp_path):
    """Spread over what a quiet command takes: start-up, work, writing, figures."""
    Study({"steps": 300, "width": 5}, over={"layers": [1, 2, 3]}).save(tmp_path / "s.toml")
    command = {
        "study": ["study", tmp_path / "s.toml", "--workers", "2"],
        "run": ["run", "--layers", "3", "--steps", "3000", "--every", "10"],
        "prove": ["prove", "tanh-keeps", "relu-slope", "--seeds", "5"],
    }[verb]
    plain = "if __name__ == '__main__':\n    from gradiometer.cli import main\n    main()\n"
    with start(tmp_path, *command, "--out", tmp_path / "out", script_of=plain) as process:
        time.sleep(part * 5.0)
        for number in signals:
            if process.poll() is None:
                process.send_signal(number)
            time.sleep(0.05)
        # done before the signal came; ended by it (130 too, if Ctrl-C was the first)
        assert_ended(process, {0, 143, -15, 130, -2, 1})
    for half in (tmp_path / "out").rglob(".*.nc*"):
        raise AssertionError(f"{half} is left")
    if verb == "study" and (tmp_path / "out" / "study.toml").exists():
        assert len(load(tmp_path / "out").finished) <= 3
