"""Pipes, devices and endless files are refused without being opened."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import gradiometer
from gradiometer.experiment import Experiment, ExperimentError
from gradiometer.regular import (
    MOST_BYTES,
    MOST_NESTED,
    MOST_PARTS,
    NotRegularError,
    check_regular,
    parse_toml,
    read_regular,
)
from gradiometer.seal import FileWarning
from gradiometer.studies import ResultSetAside, Study, StudyError, load
from gradiometer.verbs.output import OutputError
from gradiometer.verbs.prove import folder_for

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_what_is_no_regular_file(fifo, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, words in [
        (fifo, "a named pipe"),
        (tmp_path, "a folder"),
        ("/dev/zero", "a device"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(NotRegularError, match=words):
            check_regular(path)
        with pytest.raises(NotRegularError, match=words):
            read_regular(path)
    with pytest.raises(OSError, match="symbolic links"):
        read_regular(tmp_path / "loop")


def test_what_is_too_large(tmp_path):
    file = tmp_path / "large.toml"
    with file.open("wb") as hole:
        hole.truncate(100 * 2**20)
    with pytest.raises(ExperimentError, match=f"104,857,600 bytes; at most {MOST_BYTES:,} are"):
        Experiment.load(file)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="files without a size")
def test_what_says_that_it_is_empty_is_bounded_too():
    assert len(read_regular("/proc/self/status")) > 100
    with pytest.raises(NotRegularError, match="more than 10 bytes"):
        read_regular("/proc/self/status", 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = " + "[" * (MOST_NESTED + 2) + "]" * (MOST_NESTED + 2), "nested more than"),
        ("x = " + "[" * 10_000 + "]" * 10_000, "nested too deeply"),
        (".".join(["a"] * (MOST_PARTS + 2)) + " = 1", "line 1 has a key of more than"),
        ("\n[" + ".".join(["a"] * 20_000) + "]", "line 2 has a key of more than"),
        ("x = {" + ".".join(["a"] * 20_000) + " = 1}", "a key of more than"),
        ("x = [{b = 1, " + ".".join(["a"] * 20_000) + " = 1}]", "a key of more than"),
        ("x = 0x" + "f" * 100, "an integer of 400 bits"),
        ("x = [0x" + "f" * 100 + "]", "an integer of 400 bits"),
    ],
)
def test_toml_is_bounded(text, words):
    with pytest.raises(ValueError, match=words):
        parse_toml(text.encode())


def test_what_descriptions_have_is_within_the_bounds():
    rows = ", ".join(["0.5"] * 1000)
    text = f"[over]\nlearning_rate = [{rows}]\nx = [\n{rows},\n{rows}\n]\n[a.b.c]\nd.e = 1.5\n"
    fields = parse_toml(b"\xef\xbb\xbf" + text.encode())
    assert len(fields["over"]["learning_rate"]) == 1000
    assert len(fields["over"]["x"]) == 2000
    assert fields["a"]["b"]["c"]["d"]["e"] == 1.5


def test_pipes_in_a_study_s_folder(tmp_path):
    study = Study({"steps": 2, "width": 2}, over={"layers": [1, 2]})
    folder = tmp_path / "out"
    with ThreadPoolExecutor(1) as threads:
        for _ in study.run(folder, executor=threads):
            pass
        damaged = next((folder / "results").glob("*.nc"))
        damaged.unlink()
        os.mkfifo(damaged)
        with pytest.warns(FileWarning, match="it is a named pipe"):
            assert len(load(folder).finished) == 1
        events = [*study.events(folder, resume=True, executor=threads)]
    (aside,) = [event for event in events if isinstance(event, ResultSetAside)]
    assert "named pipe" in aside.text
    assert len(load(folder).finished) == 2
    (folder / "study.toml").unlink()
    os.mkfifo(folder / "study.toml")
    with pytest.raises(StudyError, match="not the folder of a study"):
        gradiometer.plot(load(folder))


def test_pipes_in_a_folder_of_proofs(tmp_path):
    os.mkfifo(tmp_path / "proofs.json")
    with (
        pytest.raises(OutputError, match="of something other than gradiometer prove"),
        folder_for(tmp_path),
    ):
        pass
