"""Recorded, zero, not finite and missing are four different things."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gradiometer.contents import problems
from gradiometer.experiment import Experiment
from gradiometer.netcdf import FORMAT
from gradiometer.recording.recorder import Recorder
from gradiometer.recording.session import LayerInfo, Session
from gradiometer.states import MODEL, NO_REASON, State, mask_of, states
from gradiometer.studies.grouping import join
from gradiometer.trace import Trace, TraceError

OLD = Path(__file__).parent / "written_by_gradlab"
FROZEN = "its weight was frozen"


def made(missing=(), reasons=None, **changed):
    """A trace of two steps and three layers; `missing` are (quantity, index)."""
    rms = np.array([[0.5, 0.0, np.nan], [np.inf, np.nan, 0.25]])
    variables = {
        "grad_rms": (("step", "layer"), rms),
        "nonfinite_count": (("step", "layer"), np.array([[0.0, 0, 2], [1, 0, 0]])),
        "loss": (("step",), np.array([np.nan, 1.0])),
        **changed,
    }
    masks = {}
    for name, index in missing:
        masks.setdefault(name, np.zeros(np.shape(variables[name][1])[:2], bool))[index] = True
    attrs = {} if reasons is None else {"missing": json.dumps(reasons)}
    coords = {"step": [1, 2], "layer": ["h1", "h2", "out"]}
    return Trace.from_arrays(variables, coords, attrs, masks)


EXPLAINED = {
    "missing": [("grad_rms", (1, 1)), ("loss", (0,))],
    "reasons": {"h2": {"grad_rms": FROZEN}, MODEL: {"loss": "nobody told it"}},
}


def test_a_status_tells_the_four_apart():
    trace = made(**EXPLAINED)
    status = trace.status("grad_rms")
    assert status.dims == ("step", "layer")
    assert [[State(code).name for code in row] for row in status.values] == [
        ["RECORDED", "ZERO", "NOT_FINITE"],
        ["NOT_FINITE", "MISSING", "RECORDED"],
    ]
    assert status.attrs["flag_meanings"] == "recorded zero not_finite missing"
    assert status.attrs["flag_values"].tolist() == [0, 1, 2, 3]
    assert status.sel(layer="h2", step=2) == State.MISSING
    assert trace.status("loss").values.tolist() == [State.MISSING, State.RECORDED]
    with pytest.raises(KeyError, match="it has grad_rms, nonfinite_count, loss"):
        trace.status("delta_rms")
    for other in ("layer", "grad_rms_missing"):  # a coordinate, a mask
        with pytest.raises(KeyError, match="no quantity"):
            trace.status(other)
        with pytest.raises(KeyError, match="no quantity"):
            trace.why(other, "h1")


def test_why_gives_the_reason_or_none():
    trace = made(**EXPLAINED)
    assert trace.why("grad_rms", layer="h2") == FROZEN
    assert trace.why("grad_rms", layer="out") is None  # not finite
    assert trace.why("loss") == "nobody told it"
    assert trace.why("nonfinite_count", "h1") is None
    with pytest.raises(ValueError, match="such as 'h1'"):
        trace.why("grad_rms")
    with pytest.raises(KeyError, match="no layer 'h9' in this trace; it has h1, h2, out"):
        trace.why("grad_rms", "h9")


def test_masks_are_no_quantities_and_only_where_needed():
    trace = made(**EXPLAINED)
    assert trace.quantities == ["grad_rms", "nonfinite_count", "loss"]
    assert {*trace.dataset.data_vars} - {*trace.quantities} == {"grad_rms_missing", "loss_missing"}
    assert trace["grad_rms"].attrs["ancillary_variables"] == "grad_rms_missing"
    assert {*made().dataset.data_vars} == {*made().quantities}


def test_a_file_keeps_them(tmp_path):
    trace = made(**EXPLAINED)
    trace.save(tmp_path / "trace.nc")
    again = Trace.load(tmp_path / "trace.nc")
    xr.testing.assert_identical(again.dataset, trace.dataset)
    assert again.attrs["format"] == FORMAT == 2
    assert (again.status("grad_rms") == trace.status("grad_rms")).all()


def test_reasons_follow_names_that_a_file_cannot_hold(tmp_path):
    trace = made(**EXPLAINED)
    trace.dataset = trace.dataset.assign_coords(layer=["h1", "h\0b", "out"])
    trace.attrs["missing"] = json.dumps({"h\0b": {"grad_rms": FROZEN}, MODEL: {"loss": "no"}})
    again = Trace.from_bytes(trace.to_bytes())
    assert again.why("grad_rms", "h\\x00b") == FROZEN


def edited(trace, **changed):
    return trace.dataset.assign(changed)


def test_what_contradicts_itself_is_refused():
    trace = made(**EXPLAINED)
    mask = trace.dataset["grad_rms_missing"]
    there = mask.copy()
    there[0, 0] = True
    for dataset, words in (
        (
            edited(trace, grad_rms_missing=there),
            "grad_rms of layer 'h1' has the value 0.5 in step",
        ),
        (edited(trace, grad_rms_missing=mask.astype(float)), "float64; expected booleans"),
        (edited(trace, grad_rms_missing=mask[:, 0]), "expected ('step', 'layer')"),
        (
            trace.dataset.assign_attrs(missing=json.dumps({"h1": {"grad_rms": FROZEN}})),
            "grad_rms of layer 'h2' is missing, but nothing says why",
        ),
    ):
        assert words in next(problems(dataset))
        with pytest.raises(TraceError, match="not a trace written by gradiometer"):
            Trace.from_bytes(Trace(dataset).to_bytes())


def test_a_reason_that_was_not_given_is_said_to_be_unknown():
    trace = made([("grad_rms", (1, 1))])
    assert trace.why("grad_rms", "h2") == NO_REASON
    assert not [*problems(trace.dataset)]


def test_states_of_a_histogram_are_of_all_its_bins():
    counts = np.array([[[3.0, 0.0], [0.0, 0.0]]])
    found = states(counts, np.array([[False, True]]))
    assert found.tolist() == [[[0, 1], [3, 3]]]


# --- files that keep no masks ---------------------------------------------------------------------


def old(reasons=None, drop=()):
    dataset = made().dataset.drop_vars(drop).assign_attrs(format=1)
    return dataset if reasons is None else dataset.assign_attrs(missing=json.dumps(reasons))


def test_of_an_old_trace_they_are_inferred():
    trace = Trace(old({"h2": {"grad_rms": FROZEN}}))
    # NaN in a layer of which nothing was counted, and a loss before anything was not finite
    assert mask_of("grad_rms", trace.dataset).tolist() == [[False] * 3, [False, True, False]]
    assert trace.why("grad_rms", "h2") == FROZEN
    assert trace.why("loss") == NO_REASON
    assert trace.attrs["format"] == 2
    unknown = Trace(old({}))
    assert unknown.status("grad_rms").values[1, 1] == State.MISSING
    assert unknown.why("grad_rms", "h2") == NO_REASON


def test_without_counts_a_reason_decides():
    trace = Trace(old({"out": {"grad_rms": FROZEN}}, drop=["nonfinite_count"]))
    status = trace.status("grad_rms").values
    assert status[0, 2] == State.MISSING
    assert status[1, 1] == State.NOT_FINITE


NAN, INF = float("nan"), float("inf")


def inferred_in(values, attrs=None, quantity="delta_rms", **more):
    """Where a quantity of a trace of format 1 is missing."""
    dims = ("step", "layer") if np.ndim(values) == 2 else ("step",)
    variables = {quantity: (dims, np.array(values))}
    variables |= {name: (dims, np.array(values, float)) for name, values in more.items()}
    coords = {"step": range(1, len(values) + 1), "layer": ["l0", "l1"]}
    reasons = {"missing": json.dumps((attrs or {}).get("missing", {}))}
    dataset = xr.Dataset(variables, coords, {"format": 1, **(attrs or {}), **reasons})
    return (Trace(dataset).status(quantity).values == State.MISSING).tolist()


def test_nan_is_missing_where_no_entry_is_counted():
    values, count = [[NAN, 1.0], [NAN, INF], [NAN, NAN]], [[0, 0], [0, 0], [3, 3]]
    found = inferred_in(values, nonfinite_count=count)
    assert found == [[True, False], [True, False], [False, False]]
    # what can never be had of the first layer is not what diverged
    reasons = {"l0": {"delta_rms": "it cannot be seen"}}
    found = inferred_in(values, {"missing": reasons}, nonfinite_count=count)
    assert [row[0] for row in found] == [True, True, True]


@pytest.mark.parametrize("count", [{}, {"nonfinite_count": np.full((2, 2), NAN)}])
def test_nan_with_a_reason_is_missing_where_nothing_is_counted(count):
    values = [[NAN, NAN], [1.0, 1.0]]
    assert inferred_in(values, **count) == [[False, False]] * 2
    reasons = {"l1": {"delta_rms": "it is frozen"}}
    assert inferred_in(values, {"missing": reasons}, **count) == [[False, True], [False, False]]


def test_a_loss_is_missing_before_the_first_step_that_is_not_finite():
    loss = [NAN, 1.0, NAN, INF]
    assert inferred_in(loss, quantity="loss") == [True, False, True, False]
    attrs = {"nonfinite_step": 3}
    assert inferred_in(loss, attrs, quantity="loss") == [True, False, False, False]
    # a share of right answers is a number in a net that diverged, too
    assert inferred_in(loss, attrs, quantity="accuracy") == [True, False, True, False]


def test_files_of_format_1_are_read():
    for path in (OLD / "study/results").iterdir():
        trace = Trace.load(path)
        assert trace.attrs["format"] == 2
        again = Trace.from_bytes(trace.to_bytes())
        xr.testing.assert_identical(again.dataset, trace.dataset)


def test_in_old_files_of_pytorch_what_is_missing_is_told_from_what_diverged():
    """One with a frozen layer, an LSTM, and a layer that every other step skips; one diverges."""
    partial = Trace.load(OLD / "torch/partial.nc")
    codes = {name: partial.status(name).values for name in partial.quantities}
    assert not any((found == State.NOT_FINITE).any() for found in codes.values())
    frozen, skipped = partial.layers.index("frozen"), partial.layers.index("skipped")
    assert (codes["grad_rms"][:, frozen] == State.MISSING).all()
    assert (codes["grad_rms"][:, skipped] == [0, 3, 0, 3]).all()
    assert (codes["grad_rms"][:, partial.layers.index("lstm.weight_hh_l0")] == State.ZERO).all()
    assert partial.why("grad_rms", "frozen") == "it is frozen"
    assert partial.why("delta_rms", "lstm.weight_ih_l0").startswith("what LSTM computes")
    assert partial.why("accuracy") == NO_REASON

    diverged = Trace.load(OLD / "torch/diverged.nc")
    found = diverged.status("grad_rms").sel(layer=["0", "2"]).values
    assert found.tolist() == [[3, 0], [3, 2], [3, 2], [3, 2]]
    assert diverged.status("loss").values.tolist() == [0, 2, 2, 2]
    for trace in (partial, diverged):
        assert not [*problems(trace.dataset)]
        xr.testing.assert_identical(Trace.from_bytes(trace.to_bytes()).dataset, trace.dataset)


# --- as they are recorded -------------------------------------------------------------------------


def session(**settings):
    found = Session(**settings)
    found.begin([LayerInfo("a", 2, 2, "tanh"), LayerInfo("b", 2, 2, "tanh")])
    return found


def add(found, step, values, missing=None):
    values = {name: np.array([row], float) for name, row in values.items()}
    counts = {"gradient": np.array([[0.0, 1.0]])}
    missing = {name: np.array([row]) for name, row in (missing or {}).items()}
    found.add_measured([step], values, counts, np.array([1.0]), np.array([np.nan]), missing=missing)


def test_a_recorder_is_told_what_is_missing():
    found = session(quantities=("grad_rms", "delta_rms", "nonfinite_count"))
    add(found, 1, {"grad_rms": [np.nan, np.nan]}, {"grad_rms": [False, True]})
    add(found, 2, {"grad_rms": [0.5, np.nan], "delta_rms": [0.1, 0.2]}, {"grad_rms": [False] * 2})
    found.miss("b", ["grad_rms"], FROZEN)
    trace = Recorder(found).trace
    assert trace.status("grad_rms").values.tolist() == [[2, 3], [0, 2]]
    assert trace.status("delta_rms").values.tolist() == [[3, 3], [0, 0]]
    assert trace.why("grad_rms", "b") == FROZEN
    assert trace.why("delta_rms", "a") == NO_REASON
    found.forget_after(1)
    assert Recorder(found).trace.status("grad_rms").values.tolist() == [[2, 3]]


def test_members_that_miss_other_things_are_joined():
    experiment = Experiment.of(layers=2, width=3, steps=2, members=3, decision=False)
    one = experiment.model_copy(update={"members": 1}).run()
    two = experiment.model_copy(update={"members": 2, "seed": 1}).run()
    two.dataset["delta_rms"][:, 1, 0] = np.nan
    mask = np.zeros(two["delta_rms"].shape, bool)
    mask[:, 1, 0] = True
    variables = {name: (two[name].dims, two[name].values) for name in two.quantities}
    attrs = {**two.attrs, "missing": json.dumps({"h2": {"delta_rms": FROZEN}})}
    two = Trace.from_arrays(variables, two.dataset.coords, attrs, {"delta_rms": mask})
    joined = join([one, two], experiment)
    assert mask_of("delta_rms", joined.dataset)[:, 1].tolist() == [[False, True, False]] * 2
    assert joined.why("delta_rms", "h2") == FROZEN
    assert not [*problems(joined.dataset)]
