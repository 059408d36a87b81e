"""The pass that writes the fast form as text."""

import numpy as np
from tests.dp.program.programs import X

import dp
from dp.program.capture import captured
from dp.program.pipeline import compile_graph


def test_each_operation_is_a_call_into_a_buffer():
    def doubled(x):
        return (x + x).exp()

    fast = compile_graph(captured(doubled, (X,)))
    assert fast.source == ("def run(value=True):\n    add(x, x, t)\n    exp(t, doubled)\n")
    ((value, array),) = [item for item in fast.arrays.items() if item[0].name == "x"]
    np.copyto(array, X)
    fast.run()
    assert value.shape == X.shape
    (result,) = [array for value, array in fast.arrays.items() if value.name == "doubled"]
    np.testing.assert_array_equal(result, np.exp(X + X))


def test_what_only_the_value_needs_can_be_left_out():
    a = dp.Node(X.copy(), "a")

    def squares():
        return a.square().sum()

    source = compile_graph(captured(squares, ())).source
    before, inside = source.split("    if value:\n")
    assert "square(" not in before
    assert "square(" in inside


def test_names_are_those_of_the_graph_whether_its_page_was_read_or_not():
    net = dp.Net(4, 3, 2, "sigmoid", seed=0)
    first, second = (dp.capture(net.loss, X, X[:, :1] > 0) for _ in range(2))
    assert first.source == second.source
    assert second.fast_source == dp.capture(net.loss, X, X[:, :1] > 0).fast_source
