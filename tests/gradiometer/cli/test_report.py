"""`gradiometer report`, and `run --report`: where the report goes, and what it never replaces."""

import errno
import subprocess
import sys

import pytest
from tests.gradiometer.studies.helpers import small
from typer.testing import CliRunner

import gradiometer
from gradiometer.cli import app
from gradiometer.trace import Trace
from gradiometer.verbs.output import OutputError

SMALL = ["--layers", "2", "--width", "3", "--steps", "4"]


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    gradiometer.run(layers=2, width=3, steps=4, out=tmp_path / "run")
    return tmp_path / "run"


def test_it_is_beside_the_trace_and_its_name_is_printed(folder, tmp_path):
    for given in (folder, folder / "trace.nc"):
        done = call("report", given)
        assert done.exit_code == 0, done.output
        assert done.output.splitlines()[-1] == str(folder / "report.html")
    done = call("report", folder, "-o", tmp_path / "other.htm")
    assert done.output.splitlines()[-1] == str(tmp_path / "other.htm")
    text = (tmp_path / "other.htm").read_text(encoding="utf-8")
    assert text == (folder / "report.html").read_text(encoding="utf-8")
    assert Trace.load(folder / "trace.nc").diagnose().verdict.kind in text


def test_that_of_a_study_is_in_its_folder(tmp_path, threads):
    results = gradiometer.study(
        small(layers=(1,), activation=("relu",)), out=tmp_path, executor=threads
    )
    assert gradiometer.report(results) == tmp_path / "report.html"
    done = call("report", tmp_path, "--out", tmp_path / "again.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "report.html").read_bytes()
    with pytest.raises(ValueError, match="this is a study"):
        gradiometer.report(results, theory=True)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("trace.nc", "must end in .html or .htm"),
        ("", "a path must not be empty"),
        ("nowhere/report.html", "nowhere/report.html: cannot be written (No such file"),
        ("folder.html", "folder.html: cannot be written"),
    ],
)
def test_files_that_cannot_be_the_report(folder, out, words):
    before = (folder / "trace.nc").read_bytes()
    (folder / "folder.html").mkdir()
    done = call("report", folder, "--out", folder / out if out else "")
    assert done.exit_code == 2
    assert words in done.output
    assert (folder / "trace.nc").read_bytes() == before


def test_it_never_replaces_the_trace(folder):
    trace = folder / "trace.html"
    (folder / "trace.nc").rename(trace)
    before = trace.read_bytes()
    with pytest.raises(OutputError, match="is the trace itself"):
        gradiometer.report(trace, trace)
    assert trace.read_bytes() == before


def test_an_older_report_stays_if_the_new_one_cannot_be_written(folder, monkeypatch):
    (folder / "report.html").write_text("older")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = call("report", folder)
    assert done.exit_code == 2
    assert "report.html: cannot be written (No space left on device)" in done.output
    assert (folder / "report.html").read_text() == "older"
    assert [*folder.glob(".report*")] == []


def test_what_is_no_trace_is_named(tmp_path):
    done = call("report", tmp_path / "none.nc")
    assert done.exit_code == 2
    assert "none.nc" in done.output
    with pytest.raises(ValueError, match="out must be given"):
        gradiometer.report(gradiometer.run(layers=1, steps=1))
    with pytest.raises(TypeError, match="remedies are what try_remedies gave, got int"):
        gradiometer.report(gradiometer.run(layers=1, steps=1), tmp_path / "report.html", remedies=3)
    with pytest.raises(TypeError, match="expected a trace"):
        gradiometer.report(3)


def test_run_writes_one_too(tmp_path):
    done = call("run", *SMALL, "--report", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "report.html") in done.output
    assert "Remedies tried" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="report: out must be given"):
        gradiometer.run(layers=1, steps=1, report=True)


def test_with_the_remedies_if_they_are_tried(tmp_path):
    done = call("run", *SMALL, "--report", "--try", "--budget", 1, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "Remedies tried" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_of_the_users_own_is_not_replaced_by_run(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    done = call("run", *SMALL, "--report", "--out", tmp_path)
    assert done.exit_code == 2
    assert "holds files of no known experiment (report.html)" in done.output
    assert call("run", *SMALL, "--out", tmp_path).exit_code == 0
    assert (tmp_path / "report.html").read_text() == "mine"


def test_help_loads_none_of_the_libraries():
    heavy = ("matplotlib", "xarray", "jinja2", "numpy")
    code = (
        "import sys; from gradiometer.cli import app\n"
        "try: app(['report', '--help'])\n"
        f"finally: print([n for n in {heavy!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
