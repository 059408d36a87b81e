"""`gradiometer prove`, the verb behind it, and the report on disk."""

import functools
import json
import os
import signal
import threading

import pytest
from typer.testing import CliRunner

import gradiometer
from gradiometer.claims import CLAIMS, Proofs
from gradiometer.claims.catalogue import CLAIMS as TABLE
from gradiometer.claims.claim import Claim
from gradiometer.cli import app
from gradiometer.verbs import prove as verb
from gradiometer.verbs.output import OutputError


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_one_command_proves_and_tells(tmp_path):
    names = ["sigmoid-slope", "tanh-keeps", "relu-cures"]
    result = call("prove", *names, "--seeds", 5, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    files = {"proofs.json", "report.html", *(f"{name}.png" for name in names)}
    assert {path.name for path in tmp_path.iterdir()} == files
    for file in files:
        assert str(tmp_path / file) in result.output.replace("\n", "")
    for words in (*names, "corrected p", "exact", "holds"):
        assert words in result.output
    kept = Proofs.from_json((tmp_path / "proofs.json").read_text(encoding="utf-8"))
    assert [proof.name for proof in kept.proofs] == names
    assert kept.seeds == 5
    assert (tmp_path / "tanh-keeps.png").read_bytes().startswith(b"\x89PNG")
    again = call("prove", "sigmoid-slope", "--out", tmp_path)  # earlier proofs may be replaced
    assert again.exit_code == 0, again.output
    assert "The claim sigmoid-slope holds." in again.output


def test_papers(tmp_path, monkeypatch):
    from gradiometer.claims import papers, proving
    from gradiometer.claims.reproductions import Target

    few = papers.targets()[:2]
    monkeypatch.setattr(proving, "targets", lambda: few)
    result = call("prove", "--papers", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "2 of 2 numbers from papers are reproduced within tolerance." in result.output
    fields = json.loads((tmp_path / "proofs.json").read_text(encoding="utf-8"))
    assert [row["passed"] for row in fields["reproductions"]] == [True, True]
    assert [row["basis"] for row in fields["reproductions"]] == ["stated", "formula"]
    assert fields["reproductions"][0]["place"] == "section 4.4, property (a)"
    assert fields["reproductions"][0]["printed"] == "±1"
    assert "LeCun et al. 1998" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # a table of each kind, and "published" over one of them alone
    assert result.output.count("published") == 1
    assert result.output.count("by formula") == 1
    assert "section 4.4" in result.output
    wrong = Target("Nobody 1900", "one", 1.0, 0.1, "absolute", "theory", lambda: 2.0)
    monkeypatch.setattr(proving, "targets", lambda: [*few, wrong])
    result = call("prove", "sigmoid-slope", "--papers", "--out", tmp_path)
    assert result.exit_code == 1
    assert "NO" in result.output
    assert "The claim sigmoid-slope holds. 2 of 3 numbers" in result.output


def test_list():
    result = call("prove", "--list")
    assert result.exit_code == 0
    for name, claim in CLAIMS.items():
        assert f"{name} " in result.output
        assert claim.said in result.output


def test_bad_input(tmp_path):
    for arguments, words in (
        (["tanh-keep"], "unknown claim 'tanh-keep'; did you mean 'tanh-keeps'? Known: "),
        (["--seeds", 1], "seeds must be a whole number from 5 (with fewer, no rank test can"),
    ):
        result = call("prove", *arguments, "--out", tmp_path / "new")
        assert result.exit_code == 2
        assert words in result.output
        assert not (tmp_path / "new").exists()
    file = tmp_path / "file"
    file.write_text("mine")
    result = call("prove", "sigmoid-slope", "--out", file / "folder")
    assert result.exit_code == 2
    assert f"{file / 'folder'}: cannot be written to" in result.output
    with pytest.raises(OutputError, match="got an empty one"):
        gradiometer.prove(["sigmoid-slope"], out="")


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    result = call("prove", "sigmoid-slope", "--out", tmp_path)
    assert result.exit_code == 2
    assert "holds report.html, of something other than gradiometer prove" in result.output
    assert (tmp_path / "report.html").read_text() == "mine"
    assert call("prove", "sigmoid-slope", "--out", tmp_path, "--overwrite").exit_code == 0
    assert "sigmoid-slope" in (tmp_path / "report.html").read_text()


def test_the_verb_is_the_same(tmp_path):
    found = gradiometer.prove(["sigmoid-slope"], out=tmp_path)
    assert found["sigmoid-slope"].verdict == "holds"
    assert (tmp_path / "report.html").exists()
    assert gradiometer.prove(["sigmoid-slope"]).to_json() == found.to_json()


# --- interrupts -----------------------------------------------------------------------------------


def long(laboratory, number=signal.SIGINT):
    """Is interrupted while it trains."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("whoever started the tests has the signal ignored")
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    return laboratory.trained(activation="tanh", steps=200_000, every=100_000)


def idle(laboratory):
    """Is asked to end between two trainings."""
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("went on")


@pytest.mark.parametrize(
    ("gather", "number"),
    [
        (long, signal.SIGINT),
        (functools.partial(long, number=signal.SIGTERM), signal.SIGTERM),
        (idle, signal.SIGTERM),
    ],
    ids=["INT", "TERM", "idle"],
)
def test_being_asked_to_end_saves_what_is_proved(gather, number, tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE, "long", Claim("long", "It takes long.", "A long one.", gather))
    result = call("prove", "tanh-keeps", "long", "tanh-range", "--seeds", 5, "--out", tmp_path)
    assert result.exit_code == 128 + number, result.output
    assert "The claim tanh-keeps holds. Interrupted" in result.output
    kept = Proofs.from_json((tmp_path / "proofs.json").read_text(encoding="utf-8"))
    assert [proof.name for proof in kept.proofs] == ["tanh-keeps"]
    assert kept.interrupted
    assert "Interrupted" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_ctrl_c_before_anything_is_proved(tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE, "long", Claim("long", "It takes long.", "A long one.", long))
    result = call("prove", "long", "--out", tmp_path)
    assert result.exit_code == 130
    assert "interrupted before the first claim" in result.output
    assert [*tmp_path.iterdir()] == []


def test_the_folder_is_known_by_its_files():
    assert (verb.RESULT, verb.REPORT) == ("proofs.json", "report.html")
