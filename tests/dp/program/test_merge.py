"""The pass that merges what several layers do alike."""

import numpy as np
import pytest
from tests.dp.program.programs import Layers, X, Y, close

import dp
from dp import Node
from dp.program.capture import captured
from dp.program.layout import lay_out
from dp.program.lower import STACK, lower, parts
from dp.program.merge import merge, unmerged
from dp.program.pipeline import compile_graph
from dp.program.step import one_step


class Towers(dp.Model):
    """Layers side by side, some of them used twice."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.first = [self.Linear_Layer(4, 5, f"first{i}") for i in range(3)]
        self.second = [self.Linear_Layer(5, 5, f"second{i}") for i in range(3)]
        self.third = [self.Linear_Layer(5, 1, f"third{i}") for i in range(3)]

    def loss(self, x, y):
        a = [first(x).tanh() for first in self.first]
        doubled = [one * 2.0 for one in a]  # like a, it goes into layers: both need their ones
        b = [second(one).tanh() for second, one in zip(self.second, a, strict=True)]
        c = [second(one).tanh() for second, one in zip(self.second, doubled, strict=True)]
        total = 0.0
        for third, *into in zip(self.third, b, c, strict=True):
            total = total + sum((third(part) - y).square().mean() for part in into)
        return total


@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["one", "two"])
def test_layers_side_by_side(seed):
    results = []
    for compiled in (False, True):
        net = Towers(seed)
        dp.SGD(net, X, Y, {"alpha": 0.01}, seed=seed, compile=compiled).train(20, print_each=None)
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)


def test_gradients_of_equal_layers_are_one_product():
    net = dp.Net(4, 5, 8, "sigmoid", seed=0)
    source = one_step(dp.SGD(net, X, Y, batch_size=6)).fast_source
    assert source.count("matmul") == 1
    assert source.count("deltas") == 1


def test_gradients_of_large_layers_follow_their_deltas():
    net = dp.Net(4, 100, 8, "tanh", seed=0)
    sgd = dp.SGD(net, X, Y, batch_size=128)
    kinds = [
        "gradient" if "d_block" in line else "delta"
        for line in one_step(sgd).fast_source.partition("divide")[2].splitlines()
        if "dot" in line
    ]
    assert kinds == ["gradient", "delta"] * 8 + ["gradient"]


def test_merged_operations_are_done_in_an_order_that_is_right():
    def function(a, b):
        square, exp = a.square(), b.exp()
        root = (square + 1.0).log()
        product = exp.tanh() * root
        return (square * exp - (product - product.tanh())).sum()

    rng = np.random.default_rng(0)
    program = dp.capture(function, X, X, gradient=False)
    for _ in range(3):
        a, b = rng.normal(size=(2, 12, 4))
        close(program(a, b), function(Node(a), Node(b)).value)


def side_by_side():
    """Two layers of one shape, each with a tanh."""
    layers = Layers(lambda m, x, y: (m.out(m.a(x).tanh() * m.b(x).tanh()) - y).square().mean())
    found = lay_out(captured(layers.loss, (X, Y)))
    return found, lower(found)


def test_equal_operations_become_one_on_slabs():
    found, lowered = side_by_side()
    merged = merge(found, lowered)
    tanh = [op for op in merged.operations if getattr(op.kind, "name", "") == "tanh"]
    assert [len(parts(op.result)) for op in tanh] == [2]
    results = parts(tanh[0].result)
    assert merged.slab_of[results[0]] == results
    made = [part for op in merged.operations for part in parts(op.result)]
    assert sorted(map(id, made)) == sorted(id(op.result) for op in lowered.operations)
    times = [operation.at for operation in merged.operations]
    assert times == sorted(times)
    # what was given is as it was
    assert all(operation.result.primitive is not STACK for operation in lowered.operations)


def test_what_pays_for_small_nets_only_may_be_left_out():
    found, lowered = side_by_side()
    assert unmerged(lowered).operations == lowered.operations
    assert not unmerged(lowered).slab_of
    graph = found.captured
    results = []
    for small_nets in (False, True):
        fast = compile_graph(graph, small_nets=small_nets)
        for name, view in fast.views.items():
            np.copyto(view, graph.nodes[name].value)
        for value, array in zip(graph.inputs, (X, Y), strict=True):
            np.copyto(fast.arrays[value], array)
        fast.run()
        results.append(fast.gradients.copy())
    np.testing.assert_array_equal(*results)
