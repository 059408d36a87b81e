"""The pass that lays the parameters out in memory."""

import numpy as np
import pytest
from tests.dp.cases import refused
from tests.dp.program.programs import EACH_OPTIMISER, Y, small_net

import dp
from dp import Node
from dp.program import layout
from dp.program.capture import captured
from dp.program.pipeline import compile_graph
from dp.program.step import one_step

X255 = np.random.default_rng(0).normal(size=(12, 255))


class LargeTowers(dp.Model):
    """Layers of the data, of 256 KiB each."""

    def __init__(self):
        super().__init__(seed=0)
        self.towers = [self.Linear_Layer(255, 128, f"tower{i}") for i in range(3)]
        self.out = self.Linear_Layer(128, 1, "out")

    def loss(self, x, y):
        total = sum(self.out(tower(x).tanh()) for tower in self.towers)
        return (total - y).square().mean()


@EACH_OPTIMISER
@pytest.mark.parametrize("rows", [3, 12])  # of 3, the gradients of all towers are one product
def test_large_layers_of_the_data(optimiser, rows, monkeypatch):
    monkeypatch.setattr(layout, "LARGE", 1 << 18)
    results = []
    for compiled in (False, True):
        net = LargeTowers()
        sgd = optimiser(net, X255, Y, {}, rows, seed=0, compile=compiled)
        sgd.train(4, print_each=None)
        results.append([net.get_param(), *sgd.grad_stores])
    for found, right in zip(results[1], results[0], strict=True):
        for name in right:
            np.testing.assert_allclose(found[name], right[name], rtol=1e-9, atol=1e-9)

    step = one_step(sgd)
    assert _held_by_columns(step.compiled, "tower1_weight")
    assert step.fast_source.count("matmul") == (rows == 3)
    forward = captured(net.loss, [X255, Y], gradient=False)
    assert compile_graph(forward, beside=step.compiled).shares_parameters


def test_large_layers_that_are_read_in_every_step(monkeypatch):
    monkeypatch.setattr(layout, "LARGE", 1 << 18)
    sgd = dp.SGD(LargeTowers(), X255, Y, {}, 12, callbacks=[lambda step: None])
    assert not _held_by_columns(one_step(sgd).compiled, "tower1_weight")


def _held_by_columns(compiled, name):
    view = compiled.views[name]
    return view.strides[0] == view.itemsize


def test_parameters_of_several_dtypes_are_refused():
    a, b = Node(np.ones((2, 2)), "a"), Node(np.ones((2, 2), np.float32), "b")
    program = dp.capture(lambda: (a @ b).sum())
    with refused(dp.CaptureError, "several dtypes"):
        program()


def test_a_weight_and_its_bias_are_one_block():
    graph = small_net()
    found = layout.lay_out(graph)
    assert [(b.shape, b.start, list(b.members)) for b in found.blocks] == [
        ((5, 3), 0, ["h1_weight", "h1_bias"]),
        ((4, 3), 15, ["h2_weight", "h2_bias"]),
        ((4, 1), 27, ["out_weight", "out_bias"]),
    ]
    assert found.size == 31
    # the inputs of all three layers get a column of ones
    assert {value.name for value in found.ones} == {"x", "h1", "h2"}
    assert len(found.affine) == len(found.block_gradients) == 3
    assert found.by_block == set(graph.parameters)
    # they are parts of the blocks' gradients
    assert found.dropped == set(graph.gradients.values())


def test_views_of_a_flat_vector():
    found = layout.lay_out(small_net())
    views = found.views(np.arange(31.0))
    assert views["h2_weight"].tolist() == [[15, 16, 17], [18, 19, 20], [21, 22, 23]]
    assert views["h2_bias"].tolist() == [[24, 25, 26]]


def test_layouts_are_alike_where_every_parameter_is_at_the_same_place():
    found = layout.lay_out(small_net())
    assert found.like(layout.lay_out(small_net(loss="squared_error")))
    assert not found.like(layout.lay_out(small_net(normalisation="layer")))
    assert not found.like(None)
