"""Whatever fails while something is written: what was finished is kept, and no half file stays."""

import pandas as pd
import pytest
from tests.gradiometer.faults import KINDS, sweep
from tests.gradiometer.processes import AtOnce
from typer.testing import CliRunner

import gradiometer
from gradiometer import plots
from gradiometer.claims import Proofs
from gradiometer.cli import app
from gradiometer.experiment import Experiment, Training
from gradiometer.exports import FORMATS
from gradiometer.studies import Study, load
from gradiometer.studies.compute import compute
from gradiometer.trace import Trace
from gradiometer.verbs import prove, run, run_folder
from gradiometer.verbs import study as study_verb
from gradiometer.verbs.output import OutputError

SAMPLE = 12  # of the faults of each kind, one in so many
# without memory for good no file can be made; the error has the trace then (see below)
LASTING = [kind for kind in KINDS if kind != "memory"]
OPTIONS = {False: {}, True: {"lasting": True, "kinds": LASTING, "every": 3}}
SETTINGS = {"layers": 1, "width": 2, "steps": 2}


@pytest.fixture(scope="module")
def trained():
    return Experiment.of(**SETTINGS).run()


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_nothing_half(folder):
    """No temporary file, no lock, and every file is whole."""
    for path in files_below(folder):
        assert not path.name.startswith("."), path
        content = path.read_bytes()
        if path.suffix == ".nc":
            Trace.load(path)
        elif path.suffix == ".png":
            assert content.endswith(b"IEND\xaeB`\x82"), path
        elif path.suffix == ".toml":
            assert content.endswith(b"\n"), path
        elif path.suffix == ".csv":
            assert content.endswith(b"\n"), path
            pd.read_csv(path)


def traces_below(folder):
    return [Trace.load(path) for path in files_below(folder) if path.suffix == ".nc"]


def assert_one_line(text):
    assert text.startswith("gradiometer: "), text
    assert len(text.splitlines()) == 1, text


# --- run ------------------------------------------------------------------------------------------


def sweep_of_run(trained, monkeypatch, tmp_path, **options):
    """`gradiometer run` with a training that is done already, and a single figure."""
    ended = []

    def known(training, **options):
        ended.append(training)
        return trained

    monkeypatch.setattr(Training, "run", known)
    monkeypatch.setattr(run_folder, "FIGURE_NAMES", ("learning",))
    monkeypatch.setattr(run, "compare_with_theory", lambda *_: None)
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]

    def operation(root):
        ended.clear()
        done = CliRunner().invoke(app, ["run", *flags, "--out", str(root / "deep" / "out")])
        if done.exit_code:
            raise AssertionError(done.exit_code, done.stderr, done.exception)

    def check(root, fault, raised):
        assert_nothing_half(root.parent)
        if ended:
            [kept] = traces_below(root.parent)
            assert kept.dataset.equals(trained.dataset)
        if raised is not None:
            code, said, exception = raised.args
            expected = {2, 1} if fault.kind == "memory" else {2}
            assert code in expected, (fault.kind, fault.n, exception)
            line = next(line for line in said.splitlines() if line.startswith("gradiometer:"))
            assert_one_line(said[said.index(line) :].rstrip("\n"))
            if ended and not [*root.rglob("trace.nc")]:
                assert "the trace is kept in" in line
                assert str(root.parent / "elsewhere") in line

    return sweep(operation, check, monkeypatch, tmp_path, **options)


def test_a_sample_of_faults_in_run(trained, monkeypatch, tmp_path):
    assert sweep_of_run(trained, monkeypatch, tmp_path, every=SAMPLE) >= len(KINDS)


@pytest.mark.long
@pytest.mark.parametrize("lasting", [False, True])
def test_every_fault_in_run(trained, monkeypatch, tmp_path, lasting, record_property):
    count = sweep_of_run(trained, monkeypatch, tmp_path, **OPTIONS[lasting])
    record_property("faults", count)
    print(f"run: {count} faults injected")
    assert count > 12


def test_the_trace_that_cannot_be_written_is_in_the_error(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(Training, "run", lambda *_, **__: trained)
    monkeypatch.setattr(run_folder, "keep_elsewhere", lambda *_: None)
    monkeypatch.setattr(Trace, "save", lambda *_: (tmp_path / "none" / "x").touch())
    with pytest.raises(OutputError, match="nor can the trace be kept in any other") as raised:
        gradiometer.run(out=tmp_path / "out", **SETTINGS)
    assert raised.value.trace is trained


def test_a_picture_for_which_there_is_no_memory_costs_no_training(monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr("gradiometer.experiment.add_decision", refuse)
    trace = Experiment.of(**SETTINGS).run()
    assert trace.dataset.sizes["step"] == 2
    assert "decision_class" not in trace.dataset
    assert trace.attrs["decision_missing"] == "there was not enough memory"


def test_an_error_that_comes_again_and_again_loses_no_training(trained, monkeypatch, tmp_path):
    def refuse(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(Training, "run", lambda *_, **__: trained)
    monkeypatch.setattr(Trace, "to_bytes", refuse)
    with pytest.raises(OutputError, match="cannot be kept elsewhere, for lack of memory") as raised:
        gradiometer.run(out=tmp_path / "out", **SETTINGS)
    assert raised.value.trace is trained
    assert not files_below(tmp_path)


# --- study ----------------------------------------------------------------------------------------


def sweep_of_study(monkeypatch, tmp_path, **options):
    study = Study({"steps": 2, "width": 2}, over={"layers": [1, 2]})
    contents = {e.hash: compute(e.given(), e.hash) for e in study.experiments}
    monkeypatch.setattr(plots, "STUDY_FIGURES", {})
    computed = []

    def known(settings, expected, at_once):
        computed.append(expected)
        return contents[expected]

    def events(root, resume=False):
        return study.events(root / "out", resume=resume, executor=AtOnce(), compute=known)

    def operation(root):
        computed.clear()
        for _ in events(root):
            pass
        for _ in study_verb.write(load(root / "out")):
            pass

    def check(root, fault, raised):
        assert_nothing_half(root.parent)
        there = {path.stem for path in root.parent.rglob("*.nc")}
        assert there >= set(computed), (fault.kind, fault.n, raised)
        if raised is not None:
            assert isinstance(raised, (OSError, MemoryError)), (fault.kind, fault.n, raised)
            assert "\n" not in str(raised)
            before = len([*root.rglob("results/*.nc")])
            computed.clear()
            for _ in events(root, resume=True):
                pass
            assert len(computed) == len(contents) - before
        assert len(load(root / "out").finished) == len(contents)

    return sweep(operation, check, monkeypatch, tmp_path, **options)


def test_a_sample_of_faults_in_a_study(monkeypatch, tmp_path):
    assert sweep_of_study(monkeypatch, tmp_path, every=SAMPLE) >= len(KINDS)


@pytest.mark.long
@pytest.mark.parametrize("lasting", [False, True])
def test_every_fault_in_a_study(monkeypatch, tmp_path, lasting, record_property):
    count = sweep_of_study(monkeypatch, tmp_path, **OPTIONS[lasting])
    record_property("faults", count)
    print(f"study: {count} faults injected")
    assert count > 12


# --- exports and reports --------------------------------------------------------------------------


def sweep_of_export(to, there, trained, monkeypatch, tmp_path, **options):
    name = "board" if to == "tensorboard" else f"t.{to}"
    reference = tmp_path / "reference" / name
    reference.parent.mkdir()
    FORMATS[to](trained, reference)
    expected = {path.relative_to(reference): path.read_bytes() for path in contents_of(reference)}

    def operation(root):
        if there and to == "tensorboard":
            (root / name).mkdir(exist_ok=True)
        FORMATS[to](trained, root / name)

    def check(root, fault, raised):
        found = {
            path.relative_to(root / name): path.read_bytes() for path in contents_of(root / name)
        }
        assert found == ({} if raised is not None else expected), (fault.kind, fault.n, raised)
        assert {path.name for path in root.iterdir()} <= {name}
        assert raised is None or isinstance(raised, (OSError, MemoryError))

    return sweep(operation, check, monkeypatch, tmp_path, **options)


def contents_of(path):
    return files_below(path) if path.is_dir() else [path] if path.exists() else []


@pytest.mark.parametrize(("to", "there"), [*((to, False) for to in FORMATS), ("tensorboard", True)])
def test_every_fault_in_an_export(to, there, trained, monkeypatch, tmp_path, record_property):
    pytest.importorskip({"parquet": "pyarrow", "tensorboard": "tensorboardX"}.get(to, "csv"))
    count = sweep_of_export(to, there, trained, monkeypatch, tmp_path)
    record_property("faults", count)
    print(f"{to}: {count} faults injected")
    assert count >= 4


def sweep_of_proofs(monkeypatch, tmp_path, **options):
    proofs = gradiometer.prove(["sigmoid-slope"])
    began = []

    def operation(root):
        began.clear()
        with prove.folder_for(root / "out") as folder:
            began.append(folder)
            for _ in prove.save(proofs, folder):
                pass

    def check(root, fault, raised):
        assert_nothing_half(root.parent)
        kept = [*root.parent.rglob("proofs.json")]
        if raised is None:
            assert {p.name for p in (root / "out").iterdir()} >= {"proofs.json", "report.html"}
        else:
            assert isinstance(raised, (OSError, MemoryError)), (fault.kind, fault.n, raised)
            assert "\n" not in str(raised)
        for path in kept:
            assert Proofs.from_json(path.read_text()).to_json() == proofs.to_json()
        if began:  # or it was refused before anything was proved
            assert kept, (fault.kind, fault.n, raised)

    return sweep(operation, check, monkeypatch, tmp_path, **options)


def test_a_sample_of_faults_in_a_report(monkeypatch, tmp_path):
    assert sweep_of_proofs(monkeypatch, tmp_path, every=SAMPLE) >= len(KINDS)


@pytest.mark.long
def test_every_fault_in_a_report(monkeypatch, tmp_path, record_property):
    count = sweep_of_proofs(monkeypatch, tmp_path)
    record_property("faults", count)
    print(f"report: {count} faults injected")
    assert count > 10
