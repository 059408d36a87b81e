"""Exports, read back with the tools they are for and compared with the trace."""

import gzip
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import gradiometer
from gradiometer.cli import app
from gradiometer.experiment import Experiment
from gradiometer.exports import FORMATS, to_csv, to_frame
from gradiometer.optional import MissingLibraryError
from gradiometer.quantities import HISTOGRAM, PER_STEP
from gradiometer.trace import Trace

SEED = 3  # members are named by their seeds


def with_special_values(trace):
    """A trace with values that are easily lost."""
    dataset = trace.dataset.copy(deep=True)
    for step, value in enumerate([np.nan, np.inf, -np.inf, 0.0, 5e-324, 0.1]):
        dataset["activation_mean"][step, 1] = value  # may be any number
    dataset["loss"][2] = np.nan
    return Trace(dataset)


@pytest.fixture(scope="module")
def single():
    return with_special_values(Experiment.of(layers=2, width=4, steps=6, histograms=True).run())


@pytest.fixture(scope="module")
def ensemble():
    return with_special_values(
        Experiment.of(layers=2, width=4, steps=6, members=3, seed=SEED, histograms=True).run()
    )


@pytest.fixture(params=["single", "ensemble"])
def trace(request):
    return request.getfixturevalue(request.param)


def recorded(trace):
    """What the table is to hold: (quantity, step, layer or None, member or None) -> value."""
    found = {}
    for name, variable in trace.dataset.data_vars.items():
        if name == HISTOGRAM or "step" not in variable.dims:
            continue
        for at in np.ndindex(variable.shape):
            labels = {
                dim: variable[dim].values[i].item()
                for dim, i in zip(variable.dims, at, strict=True)
            }
            key = (name, labels["step"], labels.get("layer"), labels.get("member"))
            found[key] = float(variable.values[at])
    return found


def in_rows(frame):
    """The same of a table."""
    members = frame["member"] if "member" in frame else [None] * len(frame)
    layers = frame["layer"].astype(object).where(frame["layer"].notna(), None)
    columns = (frame["quantity"], frame["step"], layers, members)
    keys = list(zip(*columns, strict=True))
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, frame["value"], strict=True))


def assert_same(found, expected):
    assert list(found) == list(expected)  # also in this order
    np.testing.assert_array_equal([*found.values()], [*expected.values()])


# --- the table ------------------------------------------------------------------------------------


def test_the_table_has_every_number_in_order(trace):
    expected = recorded(trace)
    assert {key[0] for key in expected} >= {"grad_mean_abs", "delta_rms", "loss", "accuracy"}
    frame = to_frame(trace)
    assert_same(in_rows(frame), expected)
    member = ["member"] if trace.ensemble else []
    facts = ["fan_in", "fan_out", "activation"]
    assert [*frame] == ["step", "layer", "depth", *member, "quantity", "value", "status", *facts]
    assert frame["value"].dtype == np.float64
    assert frame["step"].dtype == np.int64
    pd.testing.assert_frame_equal(trace.to_dataframe(), frame)


def test_facts_of_layers_stand_beside_their_numbers_alone(trace):
    frame = to_frame(trace)
    of_layers = ~frame["quantity"].isin(PER_STEP)
    facts = ["layer", "depth", "fan_in", "fan_out", "activation"]
    assert frame.loc[~of_layers, facts].isna().all(axis=None)
    distinct = frame.loc[of_layers, facts].drop_duplicates()
    columns = [trace.dataset[fact].values.tolist() for fact in facts]
    assert distinct.values.tolist() == [list(row) for row in zip(*columns, strict=True)]
    assert distinct["layer"].tolist() == ["h1", "h2", "out"]
    assert distinct["depth"].dtype == "Int64"


def test_the_table_of_a_saved_trace_is_the_same(trace, tmp_path):
    trace.save(tmp_path / "trace.nc")
    again = to_frame(Trace.load(tmp_path / "trace.nc"))
    pd.testing.assert_frame_equal(again, to_frame(trace))
    assert again.attrs == to_frame(trace).attrs
    assert json.loads(again.attrs["experiment"])["width"] == 4


def test_a_table_of_single_precision_and_few_quantities():
    trace = Experiment.of(layers=1, width=2, steps=2, dtype="float32").run()
    few = Trace(trace.dataset[["grad_rms"]].drop_vars(["depth", "fan_in", "activation"]))
    frame = to_frame(few)
    assert [*frame] == ["step", "layer", "depth", "quantity", "value", "status", "fan_out"]
    assert frame["depth"].tolist() == [1, 2, 1, 2]
    np.testing.assert_array_equal(frame["value"], trace["grad_rms"].values.ravel())
    none = to_frame(Trace(trace.dataset[["step", "layer"]]))
    assert len(none) == 0
    assert [*none] == [*to_frame(trace)]


@pytest.fixture
def partial():
    """A trace with numbers of all four states, and one histogram that is missing."""
    gradient = np.array([[0.5, 0.0], [np.nan, np.nan]])
    histogram = np.zeros((2, 2, 3))
    histogram[:, 0] = 1
    return Trace.from_arrays(
        {
            "grad_rms": (("step", "layer"), gradient),
            HISTOGRAM: (("step", "layer", "bin"), histogram),
            "loss": (("step",), np.array([np.nan, np.inf])),
        },
        {"step": [1, 2], "layer": ["h1", "out"], "bin": [-np.inf, -1.0, 0.0]},
        {},
        {
            "grad_rms": np.array([[False, False], [False, True]]),
            "loss": np.array([True, False]),
            HISTOGRAM: np.array([[False, False], [False, True]]),
        },
    )


def test_four_states_in_every_table(partial, tmp_path):
    frame = to_frame(partial)
    words = ["recorded", "zero", "not_finite", "missing", "missing", "not_finite"]
    assert frame["status"].tolist() == words
    assert frame["quantity"].unique().tolist() == ["grad_rms", "loss"]
    partial.to_csv(tmp_path / "t.csv")
    raw = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert raw["value"].tolist() == ["0.5", "0.0", "NaN", "", "", "inf"]
    assert raw["status"].tolist() == words


def test_what_is_missing_is_null_in_parquet(partial, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    partial.to_parquet(tmp_path / "t.parquet")
    values = parquet.read_table(tmp_path / "t.parquet")["value"].to_pylist()
    assert [value is None for value in values] == [False, False, False, True, True, False]
    assert np.isnan(values[2])


def test_what_is_missing_is_not_in_the_event_files(partial, tmp_path):
    pytest.importorskip("tensorboardX")
    partial.to_tensorboard(tmp_path / "run")
    _, first, second = events_in(tmp_path / "run")
    bars = f"{HISTOGRAM}/h1", f"{HISTOGRAM}/out"
    assert {v.tag for v in first.summary.value} == {"grad_rms/h1", "grad_rms/out", *bars}
    assert {v.tag for v in second.summary.value} == {"grad_rms/h1", "loss", bars[0]}


def test_what_is_alike_in_all_members_is_repeated(ensemble):
    dataset = ensemble.dataset[["loss", "layer"]].assign(shared=("step", np.arange(6.0)))
    frame = to_frame(Trace(dataset)).query("quantity == 'shared'")
    assert frame["value"].tolist() == np.repeat(np.arange(6.0), 3).tolist()
    assert frame["member"].tolist() == [SEED, SEED + 1, SEED + 2] * 6


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_keeps_every_digit_and_what_is_not_finite(trace, tmp_path):
    trace.to_csv(tmp_path / "t.csv")
    assert os.listdir(tmp_path) == ["t.csv"]
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert all(
        f",activation_mean,{value}," in text for value in ("NaN", "inf", "-inf", "5e-324", "0.1")
    )
    # an empty cell is not a NaN
    raw = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert not (raw["value"] == "").any()
    assert (raw.loc[raw["quantity"] == "loss", ["layer", "depth"]] == "").all(axis=None)
    assert raw.loc[raw["layer"] == "h2", "depth"].unique().tolist() == ["2"]
    again = pd.read_csv(tmp_path / "t.csv")
    again["value"] = [float(text) for text in raw["value"]]  # pandas' own may err in the last digit
    assert_same(in_rows(again), recorded(trace))


def test_csv_is_compressed_if_its_name_says_so(single, tmp_path):
    single.to_csv(tmp_path / "t.csv")
    single.to_csv(tmp_path / "t.csv.gz")
    content = gzip.decompress((tmp_path / "t.csv.gz").read_bytes())
    assert content == (tmp_path / "t.csv").read_bytes()


def test_a_failed_export_leaves_the_old_file(single, tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("older")

    def full(self, path, **options):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/t\.csv'"):
        to_csv(single, path)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["t.csv"]


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_keeps_numbers_kinds_and_attrs(trace, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    trace.to_parquet(tmp_path / "t.parquet")
    assert os.listdir(tmp_path) == ["t.parquet"]
    table = parquet.read_table(tmp_path / "t.parquet")
    # a NaN that was measured is not a missing value
    assert table["value"].null_count == 0
    assert np.isnan(table["value"].to_numpy()).sum() == to_frame(trace)["value"].isna().sum() > 0
    assert table["layer"].null_count == (to_frame(trace)["layer"].isna()).sum() > 0
    assert str(table.schema.field("depth").type) == "int64"
    assert json.loads(table.schema.metadata[b"gradiometer"]) == to_frame(trace).attrs
    again = pd.read_parquet(tmp_path / "t.parquet", engine="pyarrow")
    assert_same(in_rows(again), recorded(trace))
    pd.testing.assert_frame_equal(again, to_frame(trace))
    assert again.attrs == to_frame(trace).attrs


def test_parquet_takes_facts_of_any_kind(single, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    facts = {"count": np.int64(3), "sizes": np.array([1, 2]), "path": tmp_path}
    Trace(single.dataset.assign_attrs(facts)).to_parquet(tmp_path / "t.parquet")
    kept = json.loads(parquet.read_schema(tmp_path / "t.parquet").metadata[b"gradiometer"])
    assert (kept["count"], kept["sizes"], kept["path"]) == (3, [1, 2], str(tmp_path))


# --- TensorBoard ----------------------------------------------------------------------------------


def events_in(folder):
    """The events of a folder's one file, from the length-prefixed records."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    (file,) = (path for path in folder.iterdir() if path.is_file())
    assert "tfevents" in file.name
    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def runs_of(trace, folder):
    """Each run's folder and its part of the trace."""
    if not trace.ensemble:
        return [(folder, trace.dataset)]
    assert sorted(os.listdir(folder)) == ["member_3", "member_4", "member_5"]
    return [(folder / f"member_{m}", trace.dataset.sel(member=m)) for m in (3, 4, 5)]


def scalars_of(dataset):
    """Tag -> values over the steps, as TensorBoard is to have them."""
    found = {}
    for name, variable in dataset.data_vars.items():
        if variable.dims == ("step",):
            found[name] = variable.values
        elif variable.dims == ("step", "layer"):
            for layer in dataset["layer"].values:
                found[f"{name}/{layer}"] = variable.sel(layer=layer).values
    assert {"loss", "accuracy", "grad_mean_abs/h1", "delta_rms/out"} <= {*found}
    return {tag: values.astype(np.float32) for tag, values in found.items()}


def test_every_scalar_is_in_the_event_files(trace, tmp_path):
    pytest.importorskip("tensorboardX")
    trace.to_tensorboard(tmp_path / "new" / "run")
    assert os.listdir(tmp_path / "new") == ["run"]
    for folder, dataset in runs_of(trace, tmp_path / "new" / "run"):
        first, *events = events_in(folder)
        assert first.file_version == "brain.Event:2"
        assert [event.step for event in events] == dataset["step"].values.tolist()
        found = {}
        for event in events:
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append(value.simple_value)
        expected = scalars_of(dataset)
        assert {*found} == {*expected}
        for tag, values in expected.items():
            np.testing.assert_array_equal(np.float32(found[tag]), values, err_msg=tag)
        times = [event.wall_time for event in events]
        assert times == sorted(times)
        assert times[-1] == pytest.approx(trace.attrs["wall_time_s"])


@pytest.mark.frameworks  # TensorBoard itself comes with them
def test_tensorboard_reads_them(trace, tmp_path):
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trace.to_tensorboard(tmp_path / "run")
    for folder, dataset in runs_of(trace, tmp_path / "run"):
        events = reader.EventAccumulator(str(folder), {"scalars": 0, "histograms": 0}).Reload()
        expected = scalars_of(dataset)
        assert {*events.Tags()["scalars"]} == {*expected}
        for tag, values in expected.items():
            found = events.Scalars(tag)
            assert [one.step for one in found] == dataset["step"].values.tolist()
            np.testing.assert_array_equal(np.float32([one.value for one in found]), values)
        tags = {f"{HISTOGRAM}/{layer}" for layer in dataset["layer"].values}
        assert {*events.Tags()["histograms"]} == tags
        assert [one.step for one in events.Histograms(f"{HISTOGRAM}/h2")] == [1, 2, 3, 4, 5, 6]


def test_histograms_have_the_counts_of_the_trace(ensemble, tmp_path):
    pytest.importorskip("tensorboardX")
    dataset = ensemble.dataset.copy(deep=True)
    counts = dataset[HISTOGRAM]
    counts[1, 0] = 0  # nothing finite
    counts[2, 0] = 0
    counts[2, 0, :, [0, -1]] = 2.0  # zeros and huge ones: bins that have no end
    Trace(dataset).to_tensorboard(tmp_path / "run")
    edges = np.append(dataset["bin"].values, 5.5)
    edges[0] = -20.5
    for folder, part in runs_of(Trace(dataset), tmp_path / "run"):
        for event, step in zip(events_in(folder)[1:], part["step"].values, strict=True):
            found = {v.tag: v.histo for v in event.summary.value if v.HasField("histo")}
            assert len(found) == 3
            for layer in part["layer"].values:
                histogram = found[f"{HISTOGRAM}/{layer}"]
                expected = part[HISTOGRAM].sel(step=step, layer=layer).values
                assert histogram.num == sum(histogram.bucket) == expected.sum()
                right = np.array(histogram.bucket_limit)
                left = np.append(histogram.min, right[:-1])
                assert (left < right).all()
                assert histogram.max == right[-1]
                at = np.searchsorted(edges, left)
                np.testing.assert_array_equal(edges[at], left)
                np.testing.assert_array_equal(edges[at + 1], right)
                np.testing.assert_array_equal(expected[at], histogram.bucket)


def test_the_same_trace_gives_the_same_files(trace, tmp_path):
    pytest.importorskip("tensorboardX")
    contents = []
    for name in ("a", "b"):
        trace.to_tensorboard(tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(file.relative_to(tmp_path / name), file.read_bytes()) for file in files])
    assert len(contents[0]) == (3 if trace.ensemble else 1)
    assert contents[0] == contents[1]


def test_without_known_times_a_step_takes_a_second(single, tmp_path):
    pytest.importorskip("tensorboardX")
    dataset = single.dataset.copy()
    del dataset.attrs["wall_time_s"]
    Trace(dataset).to_tensorboard(tmp_path / "run")
    assert [event.wall_time for event in events_in(tmp_path / "run")] == [0, 1, 2, 3, 4, 5, 6]


def test_numbers_beyond_single_precision(single, tmp_path):
    pytest.importorskip("tensorboardX")
    dataset = single.dataset[["loss"]].copy(deep=True)
    dataset["loss"][:] = [1e300, -1e300, 1e-60, 1e-40, 3e38, 0]
    Trace(dataset).to_tensorboard(tmp_path / "run")
    values = [e.summary.value[0].simple_value for e in events_in(tmp_path / "run")[1:]]
    assert values == [np.inf, -np.inf, 0, np.float32(1e-40), np.float32(3e38), 0]


def test_runs_are_not_mixed(trace, tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "run").mkdir()
    trace.to_tensorboard(tmp_path / "run")  # an empty folder will do
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match=r"run: holds files; choose a new or an empty"):
        trace.to_tensorboard(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match=r"file: is a file; choose a new"):
        trace.to_tensorboard(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="must have a name"):
        trace.to_tensorboard("")
    (tmp_path / "file").unlink()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_run_leaves_nothing(ensemble, tmp_path, monkeypatch, present, problem):
    records = pytest.importorskip("tensorboardX.record_writer")
    write, written = records.RecordWriter.write, []

    def full(self, data):
        write(self, data)
        written.append(data)
        if len(written) == 10:  # in the second member
            raise problem

    monkeypatch.setattr(records.RecordWriter, "write", full)
    if present:
        (tmp_path / "run").mkdir()
    with pytest.raises(type(problem), match=r"left on device: '.*run'|^$"):
        ensemble.to_tensorboard(tmp_path / "run")
    assert len(written) == 10
    assert [path.name for path in tmp_path.rglob("*")] == (["run"] if present else [])


def test_a_run_that_cannot_be_moved_leaves_nothing(ensemble, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    rename = Path.rename

    def refused(self, target):
        if self.name == "member_5":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError, match=r"run'$"):
        ensemble.to_tensorboard(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []


# --- what they refuse, and the verb ---------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_a_folder_that_cannot_be_written_is_named(single, tmp_path, to):
    pytest.importorskip({"parquet": "pyarrow", "tensorboard": "tensorboardX"}.get(to, "pandas"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/out'$"):
        getattr(single, f"to_{to}")(tmp_path / "file" / "out")
    with pytest.raises(OSError, match=r"file/out: cannot be written \((Not a dir|File ex)"):
        gradiometer.export(single, to, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("to", "library", "module"),
    [
        ("parquet", "pyarrow", "pyarrow"),
        ("tensorboard", "tensorboardX", "tensorboardX.proto.event_pb2"),
    ],
)
def test_a_missing_library_is_said_in_a_line(single, tmp_path, monkeypatch, to, library, module):
    for name in (library, module):
        monkeypatch.setitem(sys.modules, name, None)
    words = (
        f"exporting to {to} needs {library} .*; install it: pip install 'gradiometer\\[{to}\\]'$"
    )
    with pytest.raises(MissingLibraryError, match=words):
        getattr(single, f"to_{to}")(tmp_path / "out")
    single.save(tmp_path / "trace.nc")
    done = CliRunner().invoke(app, ["export", str(tmp_path), "--to", to])
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert f"gradiometer: exporting to {to} needs {library}" in done.output
    assert os.listdir(tmp_path) == ["trace.nc"]


def test_the_verb_writes_what_the_method_writes(ensemble, tmp_path):
    ensemble.save(tmp_path / "trace.nc")
    ensemble.to_csv(tmp_path / "expected.csv")
    expected = (tmp_path / "expected.csv").read_bytes()
    for source in (ensemble, tmp_path, tmp_path / "trace.nc"):
        assert gradiometer.export(source, out=tmp_path / "a.csv") == tmp_path / "a.csv"
        assert (tmp_path / "a.csv").read_bytes() == expected
        (tmp_path / "a.csv").unlink()
    assert gradiometer.export(str(tmp_path), "csv") == tmp_path / "trace.csv"
    assert (tmp_path / "trace.csv").read_bytes() == expected
    assert gradiometer.export(ensemble, "csv", tmp_path / "table.txt") == tmp_path / "table.txt"
    assert (tmp_path / "table.txt").read_bytes() == expected


def test_the_command_line_writes_every_format(ensemble, tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("tensorboardX")
    ensemble.save(tmp_path / "trace.nc")
    written = {
        ("--to", "csv"): "trace.csv",
        ("--to", "parquet"): "trace.parquet",
        ("--to", "tensorboard"): "tensorboard",
        ("--out", tmp_path / "b.CSV"): "b.CSV",
        ("--out", tmp_path / "b.parquet"): "b.parquet",
    }
    for flags, name in written.items():
        done = CliRunner().invoke(app, ["export", str(tmp_path), *map(str, flags)])
        assert (done.exit_code, done.output) == (0, f"{tmp_path / name}\n")
    assert sorted(os.listdir(tmp_path)) == sorted(["trace.nc", *written.values()])
    again = CliRunner().invoke(app, ["export", str(tmp_path), "--to", "tensorboard"])
    assert again.exit_code == 2
    assert "tensorboard: holds files; choose a new or an empty folder" in again.output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "to one of csv, parquet, tensorboard, or out with the ending .csv or .parquet"),
        (["--out", "table.xlsx"], "or .parquet, got 'table.xlsx'"),
        (["--to", "parket"], "unknown format 'parket'; did you mean 'parquet'?"),
        (["--to", "csv", "--out", "t.parquet"], "t.parquet: the ending says parquet, but the form"),
        (
            ["--to", "tensorboard", "--out", "t.csv"],
            "the ending says csv, but the format is tensorb",
        ),
        (["--to", "csv", "--out", "trace.nc"], "trace.nc: is the trace itself; choose another"),
        (["--to", "csv", "--out", "none/t.csv"], "t.csv: cannot be written (No such file or dir"),
    ],
)
def test_bad_flags_are_named(single, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    single.save("trace.nc")
    before = (tmp_path / "trace.nc").read_bytes()
    done = CliRunner().invoke(app, ["export", ".", *flags])
    assert done.exit_code == 2
    assert words in done.output
    assert os.listdir() == ["trace.nc"]
    assert (tmp_path / "trace.nc").read_bytes() == before


def test_what_is_no_trace_is_refused(single, tmp_path):
    done = CliRunner().invoke(app, ["export", str(tmp_path / "none.nc"), "--to", "csv"])
    assert done.exit_code == 2
    assert "none.nc: no such file; expected a trace" in done.output
    with pytest.raises(ValueError, match="out must be given for a trace that was not saved"):
        gradiometer.export(single, "csv")
