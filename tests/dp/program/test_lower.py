"""The pass that chooses the operations of the fast form."""

import numpy as np
import pytest
from tests.dp.program.programs import Layers, X, Y, close, kinds, small_net

import dp
from dp import primitives as p
from dp.program.capture import captured
from dp.program.layout import lay_out
from dp.program.lower import lifetimes, lower
from dp.program.step import one_step

X255 = np.random.default_rng(0).normal(size=(12, 255))


def scaled_data(m, x, y):
    return (m.out(m.a(x * 2.0 - 1.0).tanh() + m.b(x.square()).tanh()) - (1.0 - y)).square().mean()


def signs(m, x, y):
    return ((1.0 - 2.0 * y) * m.out(m.a(x).tanh() * x.tanh())).softplus().mean()


def gated_signs(m, x, y):
    signs = 1.0 - 2.0 * y
    return ((m.out(x) * signs).sigmoid() * m.out(m.a(x).tanh())).square().mean()


def columns_beside(m, x, y):
    return (m.out(m.a(x * y).tanh() * (x * y)) * y + m.out(x - y)).square().mean()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [4, 30])  # few, and more than are gathered one by one
@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["one", "two"])
@pytest.mark.parametrize("loss", [scaled_data, signs, gated_signs, columns_beside])
def test_what_is_computed_from_the_data_alone(loss, seed, columns, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, columns)), (rng.random((50, 1)) > 0.5).astype(float)
    results = []
    for options in ({}, {"compile": True}, {"compile": True, "callbacks": [lambda step: None]}):
        model = Layers(loss, seed, dtype, widths=(columns, columns))
        sgd = dp.SGD(model, x, y, {"alpha": 0.01}, 12, seed=seed, **options)
        sgd.train(20, print_each=None)
        results.append(model.get_param())
    for found in results[1:]:
        for name, right in results[0].items():
            close(found[name], right, dtype, least=1.0)


def test_what_is_computed_from_the_data_alone_is_no_part_of_a_step():
    step = one_step(dp.SGD(Layers(signs), X, Y, batch_size=6))
    assert step.fast_source.count("tanh(") == 1  # of the layer, not of x
    assert "1 - 2 * y" in step.source  # the page to read has it all
    # where it is much, to copy it costs more than to compute it
    large = dp.SGD(Layers(scaled_data, widths=(255, 4)), X255, Y, batch_size=12)
    assert "square(x" in one_step(large).fast_source


def test_the_operations_of_a_small_net():
    found = lower(lay_out(small_net(loss="squared_error")))
    assert kinds(found.operations)[:5] == ["affine", "tanh", "affine", "tanh", "affine"]
    assert kinds(found.operations).count("gradient") == 3
    assert "transpose" not in kinds(found.operations)  # a view, and no operation
    assert not found.prepared
    assert not found.negated
    times = [operation.at for operation in found.operations]
    assert times == sorted(times)


def test_a_mask_is_two_operations_on_integers():
    a = dp.Node(X.copy(), "a")
    graph = captured(lambda: p.where(a > 0.0, a, 0.0).sum(), (), gradient=False)
    assert kinds(lower(lay_out(graph)).operations) == ["greater", "where", "sum"]
    graph = captured(lambda: p.where(a > 0.0, 0.0, a).sum(), (), gradient=False)
    assert kinds(lower(lay_out(graph)).operations) == ["greater", "bits", "keep", "sum"]


def test_where_only_sigmoids_want_them_all_parameters_are_negated():
    graph = captured(dp.Net(4, 3, 2, "sigmoid", seed=0).loss, (X, Y))
    assert {h.name for h in lower(lay_out(graph)).negated} == {"h1_pre", "h2_pre"}
    assert not lower(lay_out(graph), small_nets=False).negated
    # not where that would be more work than the units
    graph = captured(dp.Net(4, 3, 2, "sigmoid", seed=0).loss, (X[:1], Y[:1]))
    assert not lower(lay_out(graph)).negated


def test_when_values_are_made_and_needed():
    a = dp.Node(X.copy(), "a")
    graph = captured(lambda: a.exp() * a, (), gradient=False)
    found = lay_out(graph)
    made, used = lifetimes(found, lower(found).operations)
    (product,) = found.outputs
    exp, given = product.operands
    assert (made[exp], made[product]) == (0, 1)
    assert (used[exp], used[given], used[product]) == ([1], [0, 1], [2.0])


def softplus_layers(m, x, y):
    return (m.out(m.b(m.a(x).softplus()).softplus()) - y).square().mean()


def test_a_product_with_a_sigmoid_is_one_division():
    """As in the backward pass of softplus."""
    graph = one_step(dp.SGD(Layers(softplus_layers), X, Y)).captured
    found = kinds(lower(lay_out(graph)).operations)
    assert found.count("sigmoid_times") == 2
    assert "sigmoid" not in found
    found = kinds(lower(lay_out(graph), small_nets=False).operations)
    assert found.count("sigmoid") == 2
    assert "sigmoid_times" not in found
