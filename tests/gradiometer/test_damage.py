"""Files that are damaged, or hold what cannot be, are refused by name; never read as others."""

import json
import re
import warnings

import h5py
import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import gradiometer
from gradiometer import contents, seal
from gradiometer.cli import app
from gradiometer.experiment import Experiment
from gradiometer.quantities import HISTOGRAM, QUANTITIES
from gradiometer.seal import FileWarning
from gradiometer.trace import Trace, TraceError


@pytest.fixture(scope="module")
def trace():
    return Experiment.of(layers=2, width=3, steps=4, members=2, histograms=True).run()


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


# --- damage ---------------------------------------------------------------------------------------


def flips(content, count, step):
    """The content with a bit flipped: at so many places evenly spread, and along its seal."""
    rng = np.random.default_rng(0)
    places = {*np.linspace(0, len(content) - 1, count).astype(int).tolist()}
    places |= {*range(len(content) - seal.LENGTH, len(content), step)}
    for place in sorted(places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        yield place, bytes(damaged)


def assert_refused(path, what):
    """`what` shows in the traceback of a failure."""
    with pytest.raises(TraceError, match=re.escape(path.name)):
        Trace.load(path)


def assert_noticed(trace, path, count, step):
    trace.save(path)
    tried = 0
    for place, damaged in flips(path.read_bytes(), count, step):
        path.write_bytes(damaged)
        tried += 1
        assert_refused(path, f"a flipped bit at {place}")
    return tried


def test_a_flipped_bit_is_noticed_wherever_it_is(trace, tmp_path):
    assert assert_noticed(trace, tmp_path / "trace.nc", 40, step=7) > 45


@pytest.mark.long
def test_flipped_bits_at_thousands_of_places_are_noticed(trace, tmp_path, record_property):
    tried = assert_noticed(trace, tmp_path / "trace.nc", 5000, step=1)
    record_property("bits", tried)
    print(f"{tried} bits flipped")


def test_lost_and_added_pieces_are_noticed(trace, tmp_path):
    path = tmp_path / "trace.nc"
    trace.save(path)
    whole = path.read_bytes()
    end = len(whole)
    pieces = {
        "the last byte is lost": whole[:-1],
        "the seal is lost": whole[: -seal.LENGTH],
        "the last block is zeros": whole[: end - end % 512 - 512] + bytes(512 + end % 512),
        "a block in the middle is zeros": whole[: end // 2] + bytes(512) + whole[end // 2 + 512 :],
        "something came after it": whole + b"\n",
        "half is lost": whole[: end // 2],
        "two blocks changed places": whole[2048:4096] + whole[:2048] + whole[4096:],
    }
    for what, damaged in pieces.items():
        assert damaged != whole
        path.write_bytes(damaged)
        assert_refused(path, what)


def test_a_number_changed_by_another_program_is_noticed(trace, tmp_path):
    path = tmp_path / "trace.nc"
    trace.save(path)
    with h5py.File(path, "r+") as file:
        file["loss"][0, 0] = 1.0
    with pytest.raises(TraceError, match=r"trace\.nc: .*changed by another program"):
        Trace.load(path)


def test_every_verb_that_reads_a_trace_verifies_it(trace, tmp_path):
    path = tmp_path / "trace.nc"
    trace.save(path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    for verb in (
        lambda: gradiometer.plot(path),
        lambda: gradiometer.export(path, "csv"),
        lambda: Trace.from_bytes(bytes(damaged)),
    ):
        with pytest.raises(TraceError, match="it is damaged"):
            verb()
    for arguments in (["plot", path], ["export", tmp_path, "--to", "csv"]):
        done = call(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"gradiometer: {path}: it is damaged")
        assert len(done.stderr.splitlines()) == 1


def test_a_file_without_a_checksum_is_read_with_a_warning(trace, tmp_path):
    path = tmp_path / "old.nc"
    trace.dataset.to_netcdf(path, engine="h5netcdf")
    old = Trace.load(path)
    assert old.verified is False
    xr.testing.assert_identical(old.dataset, trace.dataset)
    with pytest.warns(FileWarning, match=r"old\.nc: has no checksum"):
        gradiometer.plot(path)
    done = call("export", path, "--to", "csv")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"gradiometer: {path}: has no checksum, so that damage may go unnoticed; "
        "Trace.load(path).save(path) adds one"
    ]
    old.save(path)
    assert Trace.load(path).verified is True
    assert trace.verified is None


def test_a_checksum_changes_nothing_else(trace, tmp_path):
    trace.save(tmp_path / "trace.nc")
    assert "checksum" not in Trace.load(tmp_path / "trace.nc").attrs
    assert trace.to_bytes() == trace.to_bytes() == (tmp_path / "trace.nc").read_bytes()
    # other programs read the file as before
    with xr.open_dataset(tmp_path / "trace.nc", engine="h5netcdf") as opened:
        assert opened.attrs["checksum"].startswith("BLAKE2b")
        np.testing.assert_array_equal(opened["loss"], trace["loss"])


def test_a_trace_of_no_experiment_is_sealed_too(trace):
    odd = Trace(trace.dataset.copy().assign_attrs(experiment_hash="my run"))
    assert Trace.from_bytes(odd.to_bytes()).verified is True


# --- what cannot be -------------------------------------------------------------------------------


def test_every_quantity_has_a_range():
    assert {*QUANTITIES, HISTOGRAM} <= set(contents.RANGES)


def put(name, value):
    def change(dataset):
        dataset[name].values.flat[0] = value
        return dataset

    return change


def coordinate(name, values, dims="layer"):
    return lambda d: d.assign_coords({name: (dims, values)})


def setting(**changed):
    def change(dataset):
        fields = {**json.loads(dataset.attrs["experiment"]), **changed}
        return dataset.assign_attrs(experiment=json.dumps(fields))

    return change


IMPOSSIBLE = [
    (put("grad_mean_abs", -1e-9), "grad_mean_abs has the value -1e-09; expected numbers from 0"),
    (put("grad_rms", -1.0), "grad_rms has the value"),
    (put("delta_rms", -np.inf), "delta_rms has the value -inf"),
    (put("activation_std", -1.0), "activation_std has the value"),
    (put("weight_rms", -1.0), "weight_rms has the value"),
    (put("update_ratio", -1.0), "update_ratio has the value"),
    (put("clip_factor", -0.1), "clip_factor has the value"),
    (put("grad_zero_fraction", 1.1), "grad_zero_fraction has the value 1.1; .* from 0 to 1"),
    (put("saturated_fraction", -0.1), "saturated_fraction has the value"),
    (put("dead_fraction", 2.0), "dead_fraction has the value"),
    (put("accuracy", 1.5), "accuracy has the value 1.5"),
    (put("accuracy", -0.5), "accuracy has the value -0.5"),
    (put("nonfinite_count", -1.0), "nonfinite_count has the value -1.0"),
    (put("nonfinite_count", 0.5), "nonfinite_count has the value 0.5; expected whole numbers"),
    (put("grad_log10_histogram", -1.0), "grad_log10_histogram has the value"),
    (put("grad_log10_histogram", 1.5), "grad_log10_histogram has the value"),
    (put("decision_confidence", 1.5), "decision_confidence has the value"),
    (put("decision_class", -1), "decision_class has the value"),
    (put("decision_class", 7), "a class of the number 7, but names of 2 classes"),
    (put("label", 2), "a class of the number 2, but names of 2 classes"),
    (lambda d: d.drop_vars("points"), "a decision without points"),
    (lambda d: d.drop_vars("grid_x"), "a decision without grid_x"),
    (lambda d: d.isel(component=slice(1)), "points have 1 coordinates; expected 2"),
    (lambda d: d.isel(grid_y=slice(None, None, -1)), "grid_y begins at"),
    (lambda d: d.assign(label=d["label"].astype(float)), "label is of the type float64"),
    (coordinate("step", [1, 2, 2, 3], "step"), "its steps are 1, 2, 2, 3; expected"),
    (coordinate("step", [1, 3, 2, 4], "step"), "its steps are"),
    (coordinate("step", [0, 1, 2, 3], "step"), "its steps are"),
    (coordinate("step", [1.0, 1.5, 2.0, 3.0], "step"), "its steps are"),
    (coordinate("step", ["a", "b", "c", "d"], "step"), "its steps are"),
    (coordinate("layer", ["h1", "h1", "out"]), "two of its layers have the same name: 'h1'"),
    (coordinate("layer", [1, 2, 3]), "layer is 1, 2, 3; expected texts"),
    (coordinate("depth", [1, 3, 2]), "depth is 1, 3, 2; expected 1 to 3"),
    (coordinate("depth", [0, 1, 2]), "depth is"),
    (coordinate("fan_in", [4, -3, 3]), "fan_in has the value -3"),
    (coordinate("fan_in", [4.5, 3, 3]), "fan_in has the value 4.5"),
    (coordinate("fan_out", ["a", "b", "c"]), "fan_out is of the type"),
    (coordinate("activation", [1, 2, 3]), "activation is 1, 2, 3; expected texts"),
    (coordinate("member", [0, 0], "member"), "two of its members have the same name: 0"),
    (coordinate("member", [0.5, 1.5], "member"), "member is"),
    (lambda d: d.isel(layer=0), "layer has no dimension"),
    (lambda d: d.isel(step=0), "step has no dimension"),
    (lambda d: d.isel(step=slice(0)), "there is no step"),
    (lambda d: d.isel(layer=slice(0)), "there is no layer"),
    (lambda d: d.isel(bin=slice(None, None, -1)), "bins begin at"),
    (lambda d: d.isel(bin=slice(2)), "bins begin at"),
    (lambda d: d.assign(loss=d["loss"].astype(str)), "loss is of the type"),
    (lambda d: d.assign(loss=d["grad_rms"]), "loss has the dimensions"),
    (lambda d: d.assign(grad_rms=d["loss"]), "grad_rms has the dimensions"),
    (lambda d: d.assign(grad_rms=d["grad_rms"].T), "grad_rms has the dimensions"),
    (lambda d: d.assign_attrs(missing="["), "missing is"),
    (lambda d: d.assign_attrs(missing='{"h1": 3}'), "missing is"),
    (lambda d: d.assign_attrs(class_names='"a"'), "class_names is"),
    (lambda d: d.assign_attrs(wall_time_s=-1.0), "wall_time_s has the value"),
    (lambda d: d.assign_attrs(steps_done="four"), "steps_done is of the type"),
    (lambda d: d.assign_attrs(experiment="[" * 10**5), "its experiment is"),
    (setting(layers="two"), "its experiment has layers = 'two'; expected a whole number"),
    (setting(layers=7), "it has 3 layers, but its experiment 7 and an output layer"),
    (setting(members=3), "it has 2 nets, but its experiment 3"),
    (setting(learning_rate=None), "learning_rate = None"),
    (setting(activation=5), "activation = 5"),
    (setting(hyperparameters=[1]), r"hyperparameters = \[1\]"),
]


SPREAD = 3  # of so many rows the fast tests take one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(*row, id=row[1], marks=[pytest.mark.long] if number % SPREAD else [])
        for number, row in enumerate(IMPOSSIBLE)
    ],
)
def test_what_cannot_be_is_refused(change, words, trace, tmp_path):
    odd = Trace(change(trace.dataset.copy(deep=True)))
    odd.save(tmp_path / "odd.nc")  # with a right checksum: the contents alone are at fault
    with pytest.raises(TraceError, match=rf"odd\.nc: not a trace .*{words}"):
        Trace.load(tmp_path / "odd.nc")


@pytest.mark.parametrize(
    "change",
    [
        put("grad_mean_abs", np.nan),
        put("grad_mean_abs", np.inf),
        put("grad_mean_abs", 0.0),
        put("dead_fraction", np.nan),
        put("dead_fraction", 1 + 1e-12),  # an average of shares, rounded
        put("nonfinite_count", np.nan),
        put("loss", -5.0),
        put("loss", -np.inf),
        put("activation_mean", -3.0),
        coordinate("fan_in", [0, 3, 3]),
        coordinate("fan_in", [np.nan, 3, 3]),
        coordinate("step", [1, 5, 6, 1000], "step"),
        lambda d: d.assign(own=("step", [1.0, -2.0, 3.0, 4.0])),
        lambda d: d.assign_attrs(note="mine"),
        setting(later_setting="of a later version"),
    ],
)
def test_what_may_be_is_read(change, trace, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trace(change(trace.dataset.copy(deep=True))).save(tmp_path / "t.nc")
        assert Trace.load(tmp_path / "t.nc").verified
