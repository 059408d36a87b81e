"""What a study found: labelled data, tidy tables, outcomes with their intervals."""

import numpy as np
import pandas as pd
import pytest
from tests.gradiometer.studies.helpers import drain, small

from gradiometer.studies import Study, StudyError, load
from gradiometer.studies.outcomes import (
    OUTCOMES,
    median_with_interval,
    outcomes,
    slope,
    summarise,
)
from gradiometer.trace import TraceError


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return ran(small(layers=(1, 3, 4), activation=("sigmoid", "relu")), tmp_path_factory)


def ran(study, tmp_path_factory):
    from concurrent.futures import ThreadPoolExecutor

    folder = tmp_path_factory.mktemp("study")
    with ThreadPoolExecutor(1) as threads:
        drain(study.events(folder, executor=threads))
    return load(folder)


def test_unequal_depths_share_one_labelled_dataset(results):
    data = results.dataset
    assert dict(data.sizes) == {"layers": 3, "activation": 2, "step": 4, "layer": 5, "member": 3}
    assert data["grad_mean_abs"].dims == ("layers", "activation", "step", "layer", "member")
    assert data["loss"].dims == ("layers", "activation", "step", "member")
    assert data["finished"].all()
    for experiment, trace in results.traces():
        at = {"layers": experiment.layers, "activation": experiment.activation}
        cell = data.sel(at)
        there = cell["grad_mean_abs"].sel(layer=slice(1, experiment.layers + 1))
        np.testing.assert_array_equal(there, trace["grad_mean_abs"])
        beyond = slice(experiment.layers + 2, None)
        assert np.isnan(cell["grad_mean_abs"].sel(layer=beyond)).all()
        mask = cell["grad_mean_abs_missing"]
        assert mask.sel(layer=beyond).all()
        assert not mask.sel(layer=slice(1, experiment.layers + 1)).any()
        np.testing.assert_array_equal(cell["accuracy"], trace["accuracy"])
        assert cell["hash"] == experiment.hash
    assert data["member"].values.tolist() == [0, 1, 2]


def test_a_part_of_it(results):
    data = results.select(["delta_rms"], steps=[4, 1])
    assert [*data.data_vars] == ["delta_rms", "delta_rms_missing"]
    assert data["step"].values.tolist() == [1, 4]
    np.testing.assert_array_equal(data["delta_rms"], results.dataset["delta_rms"].sel(step=[1, 4]))
    for one in ("delta_rms", ["delta_rms", "delta_rms"], np.array(["delta_rms"])):
        again = results.select(one, steps=np.array([1, 4, 1]))
        assert [*again.data_vars] == ["delta_rms", "delta_rms_missing"]
    assert results.select(steps=2)["step"].values.tolist() == [2]
    assert not results.select([]).data_vars
    with pytest.raises(StudyError, match="no quantity 'dead_fraction' was recorded"):
        results.select(["dead_fraction"])
    with pytest.raises(StudyError, match="step 9 was not recorded; there are 4 from 1 to 4"):
        results.select(steps=[9])


def test_too_much_for_the_memory_is_not_read_unasked(results, monkeypatch):
    from gradiometer.studies import results as module

    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(StudyError, match=r"the dataset would take .* choose quantities or steps"):
        load(results.folder.path).dataset  # noqa: B018
    assert load(results.folder.path).select(["loss"])["loss"].size


def test_what_is_not_finished_is_missing(results, tmp_path):
    study = small(layers=(1, 3), activation=("sigmoid", "relu"))
    events = study.events(tmp_path, workers=1)
    while not list((tmp_path / "results").glob("[0-9a-f]*.nc") if tmp_path.exists() else []):
        next(events)
    events.close()
    some = load(tmp_path)
    assert 0 < len(some.finished) < 4
    assert some.dataset["finished"].sum() == len(some.finished)
    missing = ~some.dataset["finished"]
    assert np.isnan(some.dataset["loss"].where(missing, drop=True)).all()
    assert len(some.summary()) == len(some.finished)
    gone = next(e for e in study.experiments if e not in some.finished)
    with pytest.raises(TraceError, match="no such file"):
        some.trace(gone)


def test_nothing_is_finished(tmp_path, threads):
    study = small()
    events = study.events(tmp_path, executor=threads)
    next(events)
    events.close()
    for path in (tmp_path / "results").iterdir():
        path.unlink()
    none = load(tmp_path)
    assert none.finished == ()
    assert none.outcomes.empty
    assert none.to_dataframe().empty
    assert none.summary().empty
    with pytest.raises(StudyError, match="no experiment is finished"):
        none.dataset  # noqa: B018


def test_a_tidy_table(results):
    table = results.to_dataframe()
    assert [*table.columns][:2] == ["layers", "activation"]
    assert len(table) == sum(len(trace.to_dataframe()) for _, trace in results.traces())
    chosen = table.query(
        "layers == 3 and activation == 'relu' and quantity == 'delta_rms' and depth == 4 "
        "and step == 2 and member == 1"
    )
    expected = results.dataset["delta_rms"].sel(
        layers=3, activation="relu", step=2, layer=4, member=1
    )
    assert chosen["value"].item() == expected
    assert chosen["layer_activation"].item() == "sigmoid"  # of the output layer


def test_a_list_that_is_no_grid(tmp_path_factory):
    study = Study(
        {"steps": 3, "width": 3},
        experiments=[
            {"layers": 2, "activation": "relu", "clip": 1.0},
            {"layers": 3, "activation": "tanh"},
        ],
    )
    results = ran(study, tmp_path_factory)
    data = results.dataset
    assert data["loss"].dims == ("experiment", "step", "member")
    assert data["layers"].values.tolist() == [2, 3]
    np.testing.assert_array_equal(data["clip"], [1.0, np.nan])
    assert data["activation"].values.tolist() == ["relu", "tanh"]
    assert results.outcomes["clip"].tolist()[0] == 1.0
    assert results.summary().shape[0] == 2


def test_axes_of_every_kind_become_labels(tmp_path_factory):
    study = Study(
        {"steps": 2, "width": 3, "layers": 1, "activation": "relu"},
        over={
            "clip": [None, 1.0], "residual": [True, False], "scaling": ["raw", 2.0],
            "seed": [3, 4], "steps": [2, 3],
        },
    )  # fmt: skip
    data = ran(study, tmp_path_factory).dataset
    np.testing.assert_array_equal(data["clip"], [np.nan, 1.0])
    assert data["residual"].dtype == bool
    assert data["scaling"].values.tolist() == ["raw", "2.0"]
    assert data["member"].values.tolist() == [0]
    assert data["step"].values.tolist() == [1, 2, 3]
    assert np.isnan(data["loss"].sel(steps=2, step=3)).all()
    assert np.isfinite(data["loss"].sel(steps=3, step=3)).all()


def test_a_setting_keeps_its_name_beside_what_was_recorded(tmp_path_factory):
    study = small(layers=(1, 2), activation=("tanh",), members=2)
    study = Study(study.base, {"layers": [1, 2], "loss": ["cross_entropy", "squared_error"]})
    results = ran(study, tmp_path_factory)
    data = results.dataset
    assert data["loss"].values.tolist() == ["cross_entropy", "squared_error"]
    assert data["recorded_loss"].dims == ("layers", "loss", "step", "member")
    assert (
        results.outcomes["loss"].tolist()
        == ["cross_entropy"] * 2
        + ["squared_error"] * 2
        + ["cross_entropy"] * 2
        + ["squared_error"] * 2
    )
    assert results.summary()["loss"].tolist() == ["cross_entropy", "squared_error"] * 2
    assert results.outcomes["final_loss"].dtype == float


def test_experiments_that_record_other_quantities(tmp_path_factory):
    study = Study(
        {"steps": 3, "width": 3, "layers": 2},
        {"quantities": [["grad_rms"], ["grad_mean_abs", "grad_rms"], None], "seed": [0, 1]},
    )
    results = ran(study, tmp_path_factory)
    data = results.select(["grad_mean_abs", "grad_rms", "delta_rms"])
    assert np.isfinite(data["grad_rms"]).all()
    assert np.isnan(data["grad_mean_abs"][0]).all()
    assert np.isfinite(data["grad_mean_abs"][1:]).all()
    # one and the same quantity stands for the gradient in all
    trace = results.trace(study.experiments[-1])
    rms = trace["grad_rms"].values[0]
    assert results.outcomes["gradient_decades"].iloc[-1] == np.log10(rms[-1]) - np.log10(rms[0])
    assert load(results.folder.path).study == study


def test_it_can_be_saved_as_one_file(results, tmp_path):
    import xarray as xr

    results.dataset.to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "all.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), results.dataset)


# --- outcomes -------------------------------------------------------------------------------------


def test_outcomes_are_what_the_traces_say(results):
    table = results.outcomes
    assert len(table) == 6 * 3
    for experiment, trace in results.traces():
        rows = table[table["experiment"] == experiment.hash]
        assert rows["seed"].tolist() == [0, 1, 2]
        np.testing.assert_array_equal(rows["accuracy"], trace["accuracy"][-1])
        gradient = trace["grad_mean_abs"].values[0]
        np.testing.assert_allclose(
            rows["gradient_decades"], np.log10(gradient[-1] / gradient[0]), rtol=1e-12
        )
        if experiment.layers < 3:
            assert rows["gradient_slope"].isna().all()
            continue
        for k, fitted in enumerate(rows["gradient_slope"]):
            logs = np.log10(gradient[1:-1, k])
            expected = np.polyfit(np.arange(len(logs)), logs, 1)[0]
            assert fitted == pytest.approx(expected, rel=1e-9)


def test_a_single_net_has_outcomes_too(tmp_path_factory):
    results = ran(small(layers=(3,), activation=("tanh",), members=1), tmp_path_factory)
    [row] = results.outcomes.to_dict("records")
    trace = results.trace(results.finished[0])
    assert row["final_loss"] == trace["loss"].values[-1]
    assert row["delta_decades"] == np.log10(
        trace["delta_rms"].values[0, -1] / trace["delta_rms"].values[0, 0]
    )


def test_outcomes_know_zero_and_divergence():
    recorded = {
        "loss": np.array([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0]]),
        "grad_rms": np.array([[[0.0, 1.0, 2.0], [0.1, 1.0, np.nan], [1.0, 10.0, 2.0]]] * 2),
        "nonfinite_count": np.array([[[0, 0, 1], [0, 0, 0], [0, 0, 0]]] * 2),
        "dead_fraction": np.array([[[0.5, 0.0, 1.0]] * 3] * 2),
    }
    found = outcomes(recorded, 2)
    assert [*found] == [n for n in OUTCOMES if n in found]
    np.testing.assert_array_equal(found["gradient_decades"], [np.inf, 1.0, 0.0])
    np.testing.assert_array_equal(found["diverged"], [False, True, True])
    np.testing.assert_array_equal(found["dead"], [0.5, 0.0, 1.0])
    assert "delta_decades" not in found


def test_a_net_that_recovers_has_diverged_all_the_same():
    steps = np.ones((3, 2))
    steps[1, 1] = np.inf
    np.testing.assert_array_equal(outcomes({"loss": steps}, 3)["diverged"], [False, True])
    delta = np.ones((3, 4, 2))
    delta[1, 2, 0] = np.nan
    found = outcomes({"loss": np.ones((3, 2)), "delta_rms": delta}, 3)
    np.testing.assert_array_equal(found["diverged"], [True, False])


def test_slopes_are_of_hidden_layers_from_the_second():
    values = 10.0 ** np.array([[9.0, 0.0], [1.0, 3.0], [1.5, 2.0], [2.0, 1.0]])
    np.testing.assert_allclose(slope(values), [0.5, -1.0], rtol=1e-12)
    assert np.isnan(slope(values[:2])).all()
    values[2, 0] = 0.0
    np.testing.assert_array_equal(np.isnan(slope(values)), [True, False])


def test_intervals_cover_the_median_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = []
    for trial in range(400):
        values = rng.normal(size=25)
        middle, low, high = median_with_interval(values, 0.9, resamples=500, seed=trial)
        assert low <= middle <= high
        covered.append(low <= 0.0 <= high)
    # 0.9 within four standard errors of 400 trials; the percentile bootstrap of a median is a
    # little wide
    assert 0.84 <= np.mean(covered) <= 0.96


def test_intervals_of_few_or_infinite_values():
    assert median_with_interval(np.array([np.nan]))[0] is np.nan
    for few in ([2.0, np.nan], [2.0, 2.0, 1.0, 3.0, 2.0]):  # 1 - 2⁻⁴ < 0.95
        middle, low, high = median_with_interval(np.array(few))
        assert middle == 2.0
        assert np.isnan([low, high]).all()
    assert np.isfinite(median_with_interval(np.arange(6.0))).all()
    assert np.isfinite(median_with_interval(np.arange(5.0), 0.9)).all()
    half = np.array([1.0, 1.0, 1.0, np.inf, np.inf, np.inf, np.inf])
    assert median_with_interval(half) == (np.inf, 1.0, np.inf)
    assert median_with_interval(half) == median_with_interval(half)


def test_summaries_have_medians_and_intervals(results):
    summary = results.summary()
    assert len(summary) == 6
    assert [*summary.columns][:4] == ["experiment", "layers", "activation", "nets"]
    row = summary.iloc[0]
    nets = results.outcomes[results.outcomes["experiment"] == row["experiment"]]
    assert row["final_loss"] == nets["final_loss"].median()
    assert np.isnan(row["final_loss_low"])  # three seeds
    assert row["nets"] == 3
    assert row["diverged"] == 0.0
    wide, narrow = results.summary(0.75), results.summary(0.3)
    assert (wide["final_loss_low"] <= narrow["final_loss_low"]).all()
    assert (narrow["final_loss_low"] <= narrow["final_loss"]).all()


def test_experiments_are_told_apart_by_their_hash():
    table = pd.DataFrame(
        {"experiment": ["a", "a", "b"], "clip": [None, None, 1.0], "final_loss": [1.0, 3.0, 5.0]}
    )
    summary = summarise(table, ["clip"])
    assert summary["final_loss"].tolist() == [2.0, 5.0]
    table["clip"] = table["clip"].astype(object).where(table["clip"].notna(), None)
    assert summarise(table, ["clip"])["clip"].tolist() == [None, 1.0]
