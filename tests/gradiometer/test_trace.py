import os

import numpy as np
import pytest
import xarray as xr

from gradiometer.experiment import Experiment
from gradiometer.plots import FIGURES
from gradiometer.trace import Trace, TraceError


@pytest.fixture(scope="module")
def trace():
    return Experiment.of(layers=2, width=4, steps=6, members=2, histograms=True).run()


def test_round_trip_is_exact(trace, tmp_path):
    trace.dataset["loss"][2, 1] = np.nan
    trace.dataset["loss"][3, 0] = np.inf
    trace.save(tmp_path / "trace.nc")
    again = Trace.load(tmp_path / "trace.nc")
    xr.testing.assert_identical(again.dataset, trace.dataset)
    assert os.listdir(tmp_path) == ["trace.nc"]


def test_a_failed_save_leaves_the_old_file(trace, tmp_path, monkeypatch):
    path = tmp_path / "trace.nc"
    trace.save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="No space left"):
        trace.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["trace.nc"]


def test_a_truncated_file_is_said_to_be_one(trace, tmp_path):
    path = tmp_path / "trace.nc"
    trace.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TraceError, match=r"trace\.nc.*truncated"):
        Trace.load(path)


def test_a_foreign_file_is_said_to_be_one(tmp_path):
    xr.Dataset({"a": ("x", [1, 2])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(TraceError, match="not a trace"):
        Trace.load(tmp_path / "other.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(TraceError, match=r"text\.nc"):
        Trace.load(tmp_path / "text.nc")
    with pytest.raises(TraceError, match="no such file"):
        Trace.load(tmp_path / "none.nc")


def test_quantities_and_figures_are_found_by_name(trace):
    assert trace["grad_mean_abs"].dims == ("step", "layer", "member")
    assert trace.grad_w.shape == (3, 6, 2)
    with pytest.raises(KeyError, match="no quantity 'gradient'"):
        trace["gradient"]
    assert dir(trace.plot) == sorted(FIGURES)
    with pytest.raises(AttributeError, match="no figure 'pie'"):
        trace.plot.pie()


def test_histograms_count_every_entry(trace):
    counts = trace["grad_log10_histogram"].sum("bin").values
    sizes = (trace.dataset["fan_in"] * trace.dataset["fan_out"]).values
    np.testing.assert_array_equal(counts, np.broadcast_to(sizes[None, :, None], counts.shape))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: d.rename(layer="storey"), "it lacks layer"),
        (lambda d: d.transpose("layer", ...), "grad_mean_abs has the dimensions"),
        (lambda d: d.assign_attrs(experiment="{"), "its experiment"),
        (lambda d: d.assign_attrs(experiment='{"a": 1}'), "its experiment is"),
        (lambda d: d.assign_attrs(format="NETCDF4"), "its format is 'NETCDF4'"),
        (lambda d: d.assign_attrs(format=99), "format 99; this version reads 1 to 2"),
        (lambda d: d.assign_attrs(format=0), "format 0; this version reads 1 to 2"),
        (lambda d: d.assign_attrs(missing='{"h1": {"loss": 3}}'), "expected an object of JSON"),
        (lambda d: d.assign_attrs(missing="x"), "expected an object of JSON"),
        (lambda d: d.assign_attrs(chains="x"), "expected a list of JSON: the layers"),
        (lambda d: d.assign_attrs(chains="[3]"), "expected a list of JSON: the layers"),
        (lambda d: d.assign_attrs(nonfinite_shape="x"), "expected a list of JSON"),
    ],
)
def test_what_only_looks_like_a_trace_is_refused(trace, tmp_path, spoil, words):
    path = tmp_path / "odd.nc"
    spoil(trace.dataset.copy()).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(TraceError, match=rf"odd\.nc: .*{words}"):
        Trace.load(path)


def test_where_it_cannot_be_saved_is_named(trace, tmp_path):
    with pytest.raises(OSError, match=r"none/trace\.nc'$"):
        trace.save(tmp_path / "none" / "trace.nc")
