"""Where a delta shrinks: terms that sum to the gain, of nets whose cause is known."""

import json

import numpy as np
import pytest
import xarray as xr

from gradiometer import Experiment, Trace
from gradiometer.decomposition import (
    GAIN,
    GRADIENT,
    GRADIENT_TERMS,
    LAST,
    TERMS,
    decompose,
    next_layers,
)

PLAIN = ["delta_rms", "backward_rms", "backward_live_rms", "grad_rms", "input_rms", "weight_rms"]


def run(quantities=PLAIN, **settings):
    return Experiment.of(**{"steps": 3, "quantities": quantities, **settings}).run()


def total(parts, terms=TERMS):
    """The sum of the terms that are there; NaN where none is."""
    every = parts[[*terms]].to_array("term")
    return every.sum("term", skipna=True).where(every.notnull().any("term"))


def why(parts, layer, term):
    return json.loads(parts.attrs["missing"])[layer][term]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_the_terms_sum_to_the_gain(activation, members):
    trace = run(activation=activation, layers=6, init="he_normal", members=members)
    parts = decompose(trace)
    measured = np.diff(-np.log10(trace["delta_rms"].values), axis=1)
    np.testing.assert_allclose(parts[GAIN].values[:, :-1], measured, atol=1e-9)
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)
    assert parts[GAIN].dims == trace["delta_rms"].dims
    assert list(parts["above"].values) == ["h2", "h3", "h4", "h5", "h6", "out", ""]
    assert why(parts, "out", "weight") == LAST


def test_what_was_not_measured_is_part_of_another_term():
    parts = decompose(run(layers=2, activation="tanh"))
    assert parts["skip"].isnull().all()
    assert "part of the slope" in why(parts, "h1", "skip")
    assert "arriving_rms was not recorded" in why(parts, "h1", "skip")
    alone = decompose(run(["grad_rms", "delta_rms", "backward_rms"], layers=2, activation="tanh"))
    assert "backward_live_rms was not recorded" in why(alone, "h1", "dead")
    np.testing.assert_allclose(total(alone), alone[GAIN], atol=1e-9)


def test_without_the_delta_behind_the_weights_there_is_only_an_estimate():
    parts = decompose(run(None, layers=3, activation="sigmoid"))
    assert parts[[*TERMS]].to_array().isnull().all()
    assert "backward_rms was not recorded" in why(parts, "h1", "weight")
    both = parts["estimated_weight"] + parts["estimated_rest"]
    np.testing.assert_allclose(both, parts[GAIN], atol=1e-9)
    wide = run([*PLAIN], layers=4, width=400, activation="tanh", init="he_normal", steps=1)
    exact = decompose(wide).isel(layer=slice(0, 3))  # h4 is below an output of one unit
    np.testing.assert_allclose(exact["estimated_weight"], exact["weight"], atol=0.1)


def test_a_delta_that_is_zero_has_no_terms():
    dead = decompose(run(layers=3, activation="relu", init="zeros"))
    assert dead[[GAIN, *TERMS]].to_array().isnull().all()
    assert "exactly zero" in why(dead, "h1", GAIN)
    assert why(dead, "h3", "weight") == "W^T delta of 'out' is exactly zero"


def test_a_delta_that_is_not_finite_has_no_terms():
    trace = run(layers=2, activation="relu", learning_rate=1e200, steps=6)
    parts = decompose(trace)
    assert set(parts[GAIN].isnull().values.ravel()) == {True, False}
    assert "not finite" in why(parts, "h1", "slope")
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)


def test_steps_can_be_chosen():
    trace = run(layers=2, activation="tanh", steps=5)
    every = decompose(trace)
    xr.testing.assert_equal(decompose(trace, [2, 5]), every.sel(step=[2, 5]))
    for wrong in ([], [6]):
        with pytest.raises(ValueError, match="those recorded, 1 to 5"):
            decompose(trace, wrong)


def test_layers_follow_each_other_in_their_chains():
    trace = run(layers=3, activation="tanh", steps=1)
    assert next_layers(trace) == {0: 1, 1: 2, 2: 3}
    heads = Trace(trace.dataset.assign_attrs(chains="[[0, 1, 2], [0, 1, 3]]"))
    assert next_layers(heads) == {0: 1, 1: 2}
    parts = decompose(Trace(trace.dataset.assign_attrs(chains="[[0, 2]]")))
    assert "no chain" in why(parts, "h2", GAIN)
    old = trace.dataset.copy()
    old.attrs.pop("chains", None)
    old["role"] = "layer", ["trained", "outside", "frozen", "trained"]
    assert next_layers(Trace(old)) == {0: 2, 2: 3}


def test_a_run_of_one_layer_has_no_gain():
    trace = run(layers=1, activation="tanh", steps=1)
    one = decompose(Trace(trace.dataset.isel(layer=[1]).assign_attrs(chains="[[0]]")))
    assert one[[GAIN, *TERMS]].to_array().isnull().all()


def test_what_is_not_known_of_the_gradient_says_why():
    parts = decompose(run(layers=1, activation="tanh"))
    assert why(parts, "h1", "alignment") == "rows was not recorded"
    assert parts[[GRADIENT, "input", "delta"]].to_array().notnull().all()
    assert set(GRADIENT_TERMS) <= {*parts.data_vars}
