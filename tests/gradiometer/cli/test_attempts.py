"""Attempts to break the command line: each ends with a message and the right status."""

import os
import re
import shlex
import stat
import subprocess
import sys

import pytest
from tests.gradiometer.cli import attempts
from typer.testing import CliRunner

import gradiometer
from gradiometer.cli import app
from gradiometer.studies import Study

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files of POSIX")

SPREAD = 8  # of so many attempts the fast tests make one


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The trace and the study that attempts are made with."""
    folder = tmp_path_factory.mktemp("made")
    gradiometer.run(layers=2, width=2, steps=2).save(folder / "trace.nc")
    study = Study({"steps": 2, "width": 2}, over={"layers": [1]}, name="small")
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        for _ in study.run(folder / "study", executor=threads):
            pass
    return folder


def arguments(line, made, folder):
    """The words of a command line, with what stands for itself made in `folder`."""
    places = {
        "out": folder / "out",
        "trace": made / "trace.nc",
        "study": made / "study",
        "fifo": folder / "fifo",
        "loop": folder / "loop",
        "folder": folder / "folder",
        "zero": "/dev/zero",
    }
    os.mkfifo(places["fifo"])
    places["loop"].symlink_to(places["loop"])
    places["folder"].mkdir()

    def put(found):
        name = found[1]
        if not name.startswith("file:"):
            return str(places[name])
        file = folder / name.removeprefix("file:")
        file.write_bytes(attempts.FILES[file.name])
        return str(file)

    return [re.sub(r"\{([\w:.-]+)\}", put, word) for word in shlex.split(line)]


def attempt(row, made, folder):
    line, status, words = row
    given = arguments(line, made, folder)
    done = CliRunner().invoke(app, given)
    told = done.output
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, told
    assert "Traceback" not in told
    assert "unexpected" not in told or "unexpected extra" in told
    assert re.sub(r"\s+", " ", words) in re.sub(r"[\s│]+", " ", told)
    if status == 2 and told.startswith("gradiometer: "):
        assert told.count("\n") == 1
        assert len(told) < 2000
        assert told.rstrip("\n").isprintable()
    if status == 2 and "{out}" in line and "--out {out}" in line:
        assert not (folder / "out").exists() or not any((folder / "out").iterdir())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("row", attempts.ATTEMPTS[::SPREAD], ids=lambda row: row[0][:60])
def test_a_spread_of_attempts(row, made, here):
    attempt(row, made, here)


@pytest.mark.long
@pytest.mark.parametrize(
    "row",
    [row for number, row in enumerate(attempts.ATTEMPTS) if number % SPREAD],
    ids=lambda row: row[0][:60],
)
def test_all_other_attempts(row, made, here):
    attempt(row, made, here)


def test_the_table_has_each_attempt_once():
    lines = [line for line, _, _ in attempts.ATTEMPTS]
    assert len(lines) == len(set(lines)) >= 240


def run_process(words, environment, shell=""):
    """The status and complaints of the command, whose streams the shell sets up."""
    command = f'"$@" {shell}'
    if shell.startswith("|"):  # the status of the first command is wanted
        command = f'set -o pipefail; "$@" {shell} > /dev/null'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "gradiometer", *words],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env=environment,
    )
    return done.returncode, done.stderr


def test_a_closed_pipe_and_an_ascii_terminal_get_an_answer(made, here):
    """One of each kind; the others are long."""
    line = "run --activation ünïcödé --out {out}"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "COLUMNS": "1"}
    status, complaints = run_process(arguments(line, made, here), environment, "| true")
    assert status == 2
    assert complaints.startswith("gradiometer: ")
    assert complaints.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("row", attempts.SURROUNDINGS, ids=lambda row: str(row[0]))
def test_surroundings(row, made, here):
    changes, line, statuses = row
    environment = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
    for name in [name for name, value in changes.items() if value is None]:
        environment.pop(name, None)
    status, complaints = run_process(arguments(line, made, here), environment)
    assert status in statuses, complaints
    assert "Traceback" not in complaints


@pytest.mark.long
@pytest.mark.parametrize("row", attempts.STREAMS, ids=lambda row: f"{row[1][:20]} {row[0]}")
def test_streams(row, made, here):
    shell, line, statuses = row
    status, complaints = run_process(arguments(line, made, here), {**os.environ}, shell)
    assert status in statuses, complaints
    assert "Traceback" not in complaints


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users of POSIX")
def test_a_folder_that_cannot_be_written(made, here, monkeypatch):
    """Where the user is root, who may write anywhere, /proc stands for it."""
    if os.geteuid():
        here.chmod(stat.S_IRUSR | stat.S_IXUSR)
    else:
        monkeypatch.chdir("/proc")
    try:
        for line in ("run --layers 1", "predict --layers 1", "activations sigmoid", "study lesson"):
            done = CliRunner().invoke(app, shlex.split(line))
            assert done.exit_code == 2, done.output
            assert "cannot be written" in done.output
            assert done.output.strip().count("\n") == 0
    finally:
        here.chmod(stat.S_IRWXU)
