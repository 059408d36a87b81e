"""Recording some layers of a net of dp."""

import json

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.data import load
from gradiometer.quantities import ON_REQUEST, PER_LAYER, PER_STEP

DATA = load("iris2")
ALL = [*PER_LAYER, *PER_STEP, *ON_REQUEST]
compiled = pytest.mark.parametrize("compile", [False, True])


def trained(compile, layers, quantities=ALL):  # noqa: A002
    net = dp.Net(4, 5, 5, "tanh", seed=0)
    sgd = dp.SGD(net, DATA.x, DATA.y, seed=0, compile=compile)
    with record(net, sgd, layers=layers, quantities=quantities) as recorder:
        sgd.train(4, print_each=None)
    return recorder.trace


@compiled
def test_they_are_recorded_as_if_all_were(compile):  # noqa: A002
    whole, part = trained(compile, None), trained(compile, ["h4", "h2", "h5"])
    assert part.layers == ["h2", "h4", "h5"]
    for name in ALL:
        there = whole[name]
        expected = there.sel(layer=part.layers) if "layer" in there.dims else there
        np.testing.assert_array_equal(part[name], expected, err_msg=name)
    # h2 leads to h4, but h3 is in between
    assert json.loads(part.attrs["above"]) == [-1, 2, -1]
    assert part.diagnose().verdicts


@compiled
def test_only_their_arrays_are_measured(compile):  # noqa: A002
    part = trained(compile, ["h3"], quantities=None)
    assert part.layers == ["h3"]
    assert "missing" not in part.attrs


def test_unknown_ones_are_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"unknown layer 'hidden'.*h1, h2, h3, h4, h5, out"):
        trained(False, ["h1", "hidden"])
    with pytest.raises(ValueError, match=r"names of layers, one at least, got \[\]"):
        trained(False, [])


def test_an_infinite_input_of_a_layer_is_not_taken_for_the_nets():
    net = dp.Net(4, 5, 3, "relu", seed=0)
    net.get_param()["h1_weight"][0, 0] = np.nan
    sgd = dp.SGD(net, DATA.x, DATA.y, seed=0)
    with np.errstate(all="ignore"), record(net, sgd, layers=["h2", "out"]) as recorder:
        sgd.train(1, print_each=None)
    assert recorder.trace.attrs["nonfinite_layer"] == "h2"
    assert "nonfinite_began_in" not in recorder.trace.attrs
