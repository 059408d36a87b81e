"""The calls of a layer, and all of them as one batch."""

import numpy as np

from gradiometer.recording.calls import call_arrays, joined_calls
from gradiometer.recording.functions import RELU, function
from gradiometer.recording.session import LayerInfo, Session

ALL = frozenset({"delta", "activation", "saturated", "input", "pre_activation"})


def test_what_follows_from_a_call():
    h = np.array([[-1.0, 2.0], [-3.0, 0.5]])
    x = np.array([[0.0, 1.0, 0.0], [0.0, 2.0, 3.0]])
    found = call_arrays(ALL, RELU, pre_activation=h, activation=np.maximum(h, 0), input=x, delta=h)
    np.testing.assert_array_equal(found.saturated, h <= 0)
    np.testing.assert_array_equal(found.live, [[False, True, True]] * 2)
    assert found.pre_activation is h
    few = call_arrays({"delta"}, None, pre_activation=h, activation=h, input=x, delta=h)
    assert few.delta is h
    assert [few.activation, few.saturated, few.input, few.live, few.pre_activation] == [None] * 5


def test_where_a_softmax_saturates_is_not_known():
    h = np.zeros((2, 3))
    found = call_arrays(ALL, function("softmax"), pre_activation=h, activation=h + 1 / 3)
    assert found.saturated is None
    assert found.activation is not None


def test_several_calls_are_one_batch():
    parts = [
        call_arrays(ALL, RELU, pre_activation=np.full((n, 2), n), activation=np.full((n, 2), n))
        for n in (1, 3)
    ]
    found = joined_calls(parts)
    np.testing.assert_array_equal(found.activation, [[1, 1], [3, 3], [3, 3], [3, 3]])
    assert found.saturated.shape == (4, 2)
    assert found.delta is None
    assert joined_calls(parts[:1]) is parts[0]


def test_the_first_function_of_a_layer_counts():
    session = Session()
    session.begin([LayerInfo("h1", 3, 2)])
    assert session.applies(0, "tanh") == ""
    assert session.applies(0, "tanh") == ""
    assert session.applies(0, "relu") == ("relu was applied to its output, where it had been tanh")
    assert session.layers[0].activation == "tanh"
