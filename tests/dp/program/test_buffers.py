"""The pass that gives every result its buffer."""

import numpy as np
from tests.dp.program.programs import X, small_net

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


def test_a_result_takes_the_buffer_of_what_nobody_needs_any_more():
    a = dp.Node(X.copy(), "a")
    _, merged, buffers = placed(captured(lambda: a.exp().tanh().sin(), (), gradient=False))
    exp, tanh, sin = (op.result for op in merged.operations)
    arrays = buffers.arrays
    assert not np.shares_memory(arrays[exp], arrays[tanh])  # one is read while the other is made
    assert not np.shares_memory(arrays[tanh], arrays[sin])
    longer = captured(lambda: a.exp().tanh().cos().sin(), (), gradient=False)
    _, merged, buffers = placed(longer)
    exp, _, cos, _ = (op.result for op in merged.operations)
    assert np.shares_memory(buffers.arrays[exp], buffers.arrays[cos])


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
