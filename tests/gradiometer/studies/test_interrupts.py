"""Ctrl-C, once and twice, and SIGTERM: what is finished stays."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.gradiometer.processes import ended, until

from gradiometer.studies import Study, load

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

COMMAND = "if __name__ == '__main__': from gradiometer.cli import main; main()"


@pytest.fixture
def command(tmp_path):
    """A study of a dozen experiments that take about a second each, running."""
    study = Study(
        {"steps": 4000, "width": 5, "every": 1000}, over={"layers": range(5, 17)}, name="long"
    )
    study.save(tmp_path / "long.toml")
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    with subprocess.Popen(
        [
            sys.executable,
            script,
            "study",
            tmp_path / "long.toml",
            "--workers",
            "2",
            "--out",
            tmp_path / "out",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal has it: one group for driver and workers
    ) as process:
        until(lambda: finished(tmp_path))
        yield process
        process.kill()


def finished(tmp_path):
    return {path.stem for path in (tmp_path / "out" / "results").glob("[0-9a-f]*.nc")}


def press_ctrl_c(process):
    """A terminal sends it to the driver and its workers alike."""
    os.killpg(process.pid, signal.SIGINT)


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def test_ctrl_c_waits_for_what_is_under_way(command, tmp_path):
    workers = children(command)
    before = finished(tmp_path)
    press_ctrl_c(command)
    printed, complaints = command.communicate(timeout=60)
    assert command.returncode == 130, complaints
    assert "Interrupted: waiting for 2 experiments under way; interrupt again" in complaints
    assert "Traceback" not in complaints
    results = load(tmp_path / "out")
    done = len(results.finished)
    assert {e.hash for e in results.finished} == finished(tmp_path) > before
    assert done < 12
    assert f"Interrupted; {done} of 12 experiments are saved in" in complaints
    assert "summary.csv" in printed
    until(lambda: not any(worker.is_running() for worker in workers), 10)


def test_twice_does_not_wait(command, tmp_path):
    workers = children(command)
    press_ctrl_c(command)
    time.sleep(0.3)
    press_ctrl_c(command)
    pressed = time.monotonic()
    printed, complaints = command.communicate(timeout=60)
    assert time.monotonic() - pressed < 20
    assert command.returncode == 130, complaints
    assert "--resume runs the others" in complaints
    assert "Traceback" not in complaints
    assert "summary.csv" not in printed
    assert {e.hash for e in load(tmp_path / "out").finished} == finished(tmp_path) != set()
    until(lambda: not any(worker.is_running() for worker in workers), 10)


def test_asked_to_end(command, tmp_path):
    command.terminate()
    _, complaints = command.communicate(timeout=60)
    assert command.returncode == 143, complaints
    assert "Traceback" not in complaints
    assert load(tmp_path / "out").finished


def test_ctrl_c_in_a_loop_of_your_own(tmp_path):
    """KeyboardInterrupt comes once: at once in one's own code, or else when all is saved."""
    script = tmp_path / "loop.py"
    script.write_text(
        "import sys\n"
        "from gradiometer import Study\n"
        "if __name__ == '__main__':\n"
        "    study = Study({'steps': 3000, 'width': 5}, over={'layers': range(5, 17)})\n"
        "    count = 0\n"
        "    try:\n"
        "        for trace in study.run(sys.argv[1], workers=2):\n"
        "            count += 1\n"
        "            print(count, flush=True)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', count)\n"
    )
    command = [sys.executable, script, tmp_path / "out"]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    word, count = printed.splitlines()[-1].split()
    assert word == "interrupted"
    assert 1 <= int(count) <= len(finished(tmp_path)) < 12
    assert process.returncode == 0
