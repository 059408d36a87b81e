"""The pass that gives every result its buffer."""

import itertools

import numpy as np
from tests.dp.program.programs import Layers, X, Y, small_net

import dp
from dp.program.buffers import place
from dp.program.capture import captured
from dp.program.layout import lay_out
from dp.program.lower import lower, parts
from dp.program.merge import merge, unmerged


def placed(graph, merging=False, **options):
    found = lay_out(graph)
    lowered = lower(found)
    merged = merge(found, lowered) if merging else unmerged(lowered)
    return found, merged, place(found, lowered, merged, **options)


def share(buffers, one, other):
    return np.shares_memory(buffers.arrays[one], buffers.arrays[other])


def test_a_result_reuses_memory_that_is_not_needed_any_more():
    a = dp.Node(X.copy(), "a")
    _, merged, buffers = placed(captured(lambda: a.exp().tanh().sin(), (), gradient=False))
    exp, tanh, sin = (op.result for op in merged.operations)
    assert share(buffers, exp, tanh)  # entry by entry, it is read before it is written over
    assert not share(buffers, tanh, sin)  # what is wanted shares with nobody
    later = captured(lambda: (a.exp().sum() + a.exp().tanh()).sin(), (), gradient=False)
    _, merged, buffers = placed(later)
    exp, total, tanh, added, _ = (op.result for op in merged.operations)
    assert share(buffers, exp, tanh)
    assert not share(buffers, total, tanh)
    assert share(buffers, tanh, added)


def test_what_is_read_in_another_order_is_not_written_over():
    a = dp.Node(X[:4].copy(), "a")
    for function in (lambda e: e @ X[:4], lambda e: e + e.T, lambda e: e.T.tanh()):
        _, merged, buffers = placed(
            captured(lambda f=function: f(a.exp()).sin(), (), gradient=False)
        )
        exp, result, _ = (op.result for op in merged.operations)
        assert not share(buffers, exp, result)


def test_a_slab_reuses_memory_that_is_not_needed_any_more():
    found, merged, buffers = placed(captured_layers(), merging=True)
    slabs = {slab for slab in merged.slab_of.values() if found.ones.isdisjoint(slab)}
    assert any(share(buffers, one[0], other[0]) for one, other in itertools.combinations(slabs, 2))


def captured_layers():
    """Two layers of one shape, with slopes to be computed of both."""
    layers = Layers(lambda m, x, y: (m.out(m.b(m.a(x).tanh()).tanh()) - y).square().mean())
    return captured(layers.loss, (X, Y))


def test_no_operation_writes_where_others_still_read():
    for merging in (False, True):
        _, merged, buffers = placed(small_net(), merging)
        last = {}
        for k, operation in enumerate(merged.operations):
            last |= dict.fromkeys((*operation.needed, *parts(operation.result)), k)
        for k, operation in enumerate(merged.operations):
            for result in parts(operation.result):
                made = {r for op in merged.operations[:k] for r in parts(op.result)}
                for other in made:
                    if last[other] > k:
                        arrays = buffers.arrays
                        assert not np.shares_memory(arrays[result], arrays[other])


def test_inputs_of_layers_have_a_column_of_ones():
    found, _, buffers = placed(small_net())
    for value in found.ones:
        whole = buffers.full[value]
        assert whole.shape == (*value.shape[:-1], value.shape[-1] + 1)
        assert (whole[..., -1] == 1).all()
        assert np.shares_memory(whole, buffers.arrays[value])


def test_parameters_gradients_and_stores_are_vectors_of_one_length():
    found, _, buffers = placed(small_net(), stores=2)
    assert buffers.state.shape == (3, found.size)
    assert np.shares_memory(buffers.flat, buffers.state[0])
    assert buffers.flat_gradient.shape == (found.size,)
    assert not buffers.shared
    _, _, beside = placed(small_net(), beside=buffers.flat)
    assert beside.shared
    assert beside.flat is buffers.flat
