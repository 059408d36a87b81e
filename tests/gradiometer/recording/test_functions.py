"""The functions that every framework has, by the names each gives them."""

import numpy as np
import pytest

import dp
from gradiometer.recording.functions import UNKNOWN, function, why_not_saturated


@pytest.mark.parametrize(
    ("spelled", "settings", "name"),
    [
        ("LeakyReLU", {"negative_slope": 0.2}, "leaky_relu"),
        ("leaky_relu_", {}, "leaky_relu"),
        ("logistic", {}, "sigmoid"),
        ("expit", {}, "sigmoid"),
        ("linear", {}, "identity"),
        ("Swish", {}, "silu"),
        ("ReLU6", {}, "clipped_relu"),
        ("hardtanh", {"low": 0.0, "high": 2.0}, "clipped_relu"),
        ("hardtanh", {}, "hardtanh"),
        ("clamp", {"low": 0}, "relu"),
        ("clip", {"low": 0, "high": np.ones(3)}, "clamp"),
        ("threshold", {"threshold": 0.0, "value": 0.0}, "relu"),
        ("gelu", {"approximate": "tanh"}, "gelu_tanh"),
        ("gelu", {"approximate": False}, "gelu"),
        ("elu", {"alpha": -1.0}, "elu"),
        ("softmax", {}, "softmax"),
        ("my_own", {}, UNKNOWN),
    ],
)
def test_a_function_by_its_name(spelled, settings, name):
    assert function(spelled, **settings).name == name


@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
def test_every_function_of_dp_is_known_and_saturates_where_dp_says(name):
    found, known = function(name), dp.activations.ACTIVATIONS[name]
    h = np.linspace(-9, 9, 101)
    assert found.name == name
    assert found.saturates
    np.testing.assert_array_equal(found.saturated(h), known.saturated(h))
    assert found.flat_where_zero == (name == "relu")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("softmax", "the units of a softmax do not saturate each by itself"),
        ("mish", "where mish saturates is not known"),
    ],
)
def test_where_a_function_saturates_may_not_be_known(name, why):
    found = function(name)
    assert not found.saturates
    assert found.saturated(np.zeros(3)) is None
    assert why_not_saturated(found.name) == why
