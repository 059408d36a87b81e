"""Where a delta shrinks: terms that sum to the gain, of nets whose cause is known."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import dp
from gradiometer import Experiment, Trace, record
from gradiometer.decomposition import (
    GAIN,
    GRADIENT,
    GRADIENT_TERMS,
    LAST,
    NEEDED,
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
    xr.testing.assert_identical(trace.decompose([2]), decompose(trace, [2]))
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
    told = Trace(trace.dataset.assign_attrs(above="[2, 3, 3, -1]"))
    assert next_layers(told) == {0: 2, 1: 3, 2: 3}
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


# --- whatever the net -----------------------------------------------------------------------------


X, Y = (
    np.random.default_rng(0).normal(size=(12, 4)),
    np.random.default_rng(1).integers(0, 2, (12, 1)).astype(float),
)
NETS = st.fixed_dictionaries(
    {
        "n_hidden_neurons": st.integers(2, 9),
        "n_layers": st.integers(1, 7),
        "act_func": st.sampled_from(sorted(dp.activations.ACTIVATIONS)),
        "init": st.sampled_from(sorted({*dp.initializers.INITIALIZERS} - {"zeros"})),
        "normalisation": st.sampled_from(["none", "layer", "batch"]),
        "residual": st.booleans(),
        "init_scale": st.sampled_from([0.01, 1.0, 3.0]),
        "reduction": st.sampled_from(["sum", "mean"]),
        "seed": st.integers(0, 99),
    }
)


def recorded(net, steps=2, compiled=False):
    sgd = dp.SGD(net, X, Y, {"alpha": 0.1}, 12, seed=0, compile=compiled)
    with record(net, sgd, quantities=[*NEEDED, "weight_rms", "loss"]) as recorder:
        sgd.train(steps, print_each=None)
    return recorder.trace


def rms(x):
    return np.sqrt(np.mean(x**2))


def by_hand(net):
    """The terms of each layer but the last, from dp's derivatives of a forward pass of our own."""
    sgd = dp.SGD(net, X, Y, {"alpha": 0.1}, 12, seed=0)
    x, y = sgd.random_batch()
    nodes, weights = [], []
    for layer in net.layers.values():
        affine = x.dot(layer.weight) + layer.bias
        h = affine if layer.normalise is None else layer.normalise(affine)
        out = h if layer.activation is None else layer.activation(h)
        nodes.append((affine, h, out))
        weights.append(layer.weight.value)
        skips = net.residual and layer.activation is not None and layer.fan_in == layer.fan_out
        x = x + out if skips else out
    loss = dp.losses.binary_cross_entropy(x, y, net.reduction)
    found = []
    for (_, h, out), (affine, h_above, _), weight in zip(
        nodes, nodes[1:], weights[1:], strict=False
    ):
        delta, arriving, at_affine, delta_above = dp.gradients(loss, [h, out, affine, h_above])
        live = ~((out.value == 0).all(axis=0) & (delta == 0).all(axis=0))
        places = [delta_above, at_affine, at_affine @ weight.T, arriving, arriving * live, delta]
        logs = np.log10([rms(place) for place in places])
        norm, weight, skip, dead, slope = np.diff(logs)
        found.append([weight, skip, dead, slope, norm])
    return np.array(found)


@settings(max_examples=20, deadline=None)
@given(NETS, st.booleans())
def test_the_terms_are_what_they_are_called(options, compiled):
    # of the identity nothing is in the graph; beside a skip it cannot be told from no function
    assume(options["act_func"] != "identity" or not options["residual"])
    parts = decompose(recorded(dp.Net(4, **options), compiled=compiled))
    known = parts[GAIN].notnull().values
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = by_hand(dp.Net(4, **options))
    for i, term in enumerate(TERMS):
        values = parts[term].values[0, :-1]
        np.testing.assert_array_equal(np.isfinite(values), known[0, :-1], err_msg=term)
        right = np.where(known[0, :-1], expected[:, i], np.nan)
        np.testing.assert_allclose(values, right, atol=1e-9, err_msg=term)
    dead = parts["dead"].values[known]
    assert (dead <= 1e-12).all()
    steepest = dp.activations.get(options["act_func"]).max_slope
    assert (parts["slope"].values[known] <= np.log10(steepest) + 1e-9).all()
    if not options["residual"]:
        np.testing.assert_allclose(parts["skip"].values[known], 0, atol=1e-9)
    if options["normalisation"] == "none":
        np.testing.assert_allclose(parts["normalisation"].values[known], 0, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(NETS)
def test_the_gradient_is_the_sum_of_its_terms(options):
    net = dp.Net(4, **options)
    parts = decompose(recorded(net))
    gradient = total(parts, GRADIENT_TERMS).where(parts["alignment"].notnull())
    expected = parts[GRADIENT].where(parts["alignment"].notnull())
    np.testing.assert_allclose(gradient, expected, atol=1e-9)
    assert (parts["alignment"].values[parts["alignment"].notnull()] <= 1e-12).all()
    np.testing.assert_allclose(parts["rows"], np.log10(12))


def test_one_row_is_aligned_with_itself():
    net = dp.Net(4, 5, 2, "tanh", seed=0)
    sgd = dp.SGD(net, X, Y, {"alpha": 0.1}, 1, seed=0)
    with record(net, sgd, quantities=NEEDED) as recorder:
        sgd.train(2, print_each=None)
    np.testing.assert_allclose(decompose(recorder.trace)["alignment"], 0, atol=1e-12)


def test_a_gradient_that_is_more_than_its_product_has_no_alignment():
    trace = recorded(dp.Net(4, 5, 2, "tanh", seed=0))
    trace["grad_rms"].values[:] *= 1e3  # as if the weights were used elsewhere, too
    parts = decompose(trace)
    assert parts["alignment"].isnull().all()
    assert "not the product of these two alone" in why(parts, "h1", "alignment")


# --- nets whose cause is known --------------------------------------------------------------------


def main_term(parts):
    """The term that takes most from the delta on its way to the first layer."""
    sums = {term: float(parts[term].isel(step=0).sum()) for term in TERMS}
    return min(sums, key=sums.get), sums


def test_a_sigmoid_net_loses_by_its_slope():
    parts = decompose(recorded(dp.Net(4, 20, 8, "sigmoid", init="glorot_normal", seed=0)))
    term, sums = main_term(parts)
    assert term == "slope"
    assert (parts["slope"][:, :-1] <= np.log10(0.25) + 1e-12).all()
    assert sums["dead"] == 0


def test_a_net_of_small_weights_loses_by_them():
    net = dp.Net(4, 20, 8, "tanh", init="glorot_normal", init_scale=0.3, seed=0)
    term, sums = main_term(decompose(recorded(net)))
    assert term == "weight"
    assert sums["weight"] < 10 * sums["slope"]


def dying(biases):
    """A ReLU net, in each layer of which so many units are off."""
    net = dp.Net(4, 20, 6, "relu", init="he_normal", seed=0)
    for layer in [*net.layers.values()][:-1]:
        layer.bias.value[..., :biases] = -100
    return net


def test_a_dying_net_loses_by_dead_units():
    parts = decompose(recorded(dying(18)))
    assert main_term(parts)[0] == "dead"
    healthy = decompose(recorded(dying(0)))
    assert main_term(healthy)[1]["dead"] > -0.3 * 6


def test_where_all_units_are_dead_it_says_so():
    parts = decompose(recorded(dying(20)))
    assert why(parts, "h6", "slope") == "all units of 'h6' are dead, so no delta gets through"
    assert "exactly zero" in why(parts, "h6", GAIN)


def test_a_unit_of_tanh_that_is_zero_is_not_dead():
    net = dp.Net(4, 5, 2, "tanh", seed=0)
    net.layers["h1"].weight.value[:] = 0  # and biases are 0 at first
    net.layers["h1"].bias.value[:] = 0
    parts = decompose(recorded(net, steps=1)).isel(step=0)
    assert parts["dead"][0] == 0
    assert parts["slope"][0] == pytest.approx(0, abs=1e-12)
