"""Each operation, alone and in random small graphs: as the page, and as the fast form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dp.cases import CASES
from tests.dp.program.programs import BINARY, UNARY, check

import dp
from dp import Node
from dp import primitives as p
from dp.program.notation import NOTATIONS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operation(case, dtype):
    for number, shapes in enumerate(case.shapes):
        arrays = case.arrays(shapes, seed=number, dtype=dtype)
        weights = np.random.default_rng(number).normal(size=case.function(*map(Node, arrays)).shape)
        weights = weights.astype(dtype)
        check(lambda *nodes, w=weights: case.function(*nodes) * w, arrays, dtype)


def test_every_primitive_has_a_notation():
    # an index; or written out while capturing
    by_hand = {p.take, p.scatter, p.affine, p.gelu, p.silu}
    assert set(NOTATIONS) | by_hand == set(p.TABLE.values())


SPECIAL = [0.0, -0.0, 1000.0, -1000.0, 1e-30, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values(name, dtype):
    phi = dp.activations.get(name)
    x = Node(np.array([SPECIAL], dtype), "x")
    value = phi(x)
    program = dp.capture(lambda: phi(x))
    gradients, output = program()
    np.testing.assert_array_equal(output, value.value)
    np.testing.assert_array_equal(gradients["x"], value.grad()["x"])


@st.composite
def small_graphs(draw):
    """A list of (operation, positions of its operands) over three leaves of 4 × 4."""
    rows = []
    for size in range(3, 3 + draw(st.integers(1, 12))):
        name = draw(st.sampled_from([*UNARY, *BINARY]))
        count = 1 if name in UNARY else 2
        # the latest values more often, so that graphs grow deep
        at = st.integers(0, size - 1) | st.just(size - 1)
        rows.append((name, [draw(at) for _ in range(count)]))
    return rows


def grown(rows, leaves):
    leaves, parameters = leaves[:3], list(zip(leaves[3::2], leaves[4::2], strict=True))
    values = list(leaves)
    for name, at in rows:
        if name.startswith("layer"):
            weight, bias = parameters[int(name[-1]) - 1]
            values.append(values[at[0]] @ weight + bias)
        else:
            operation = UNARY.get(name) or BINARY[name]
            values.append(operation(*(values[i] for i in at)))
    return values[-1].sum() + values[len(values) // 2].sum()


@settings(max_examples=150, deadline=None)
@given(rows=small_graphs(), seed=st.integers(0, 5), stacked=st.booleans())
def test_random_small_graphs(rows, seed, stacked):
    rng = np.random.default_rng(seed)
    shapes = [(4, 4), (1, 4), (4, 1)]
    stack = (2,) if stacked else ()
    leaves = [np.broadcast_to(rng.normal(size=stack + s), (*stack, 4, 4)) for s in shapes]
    for _ in range(3):
        leaves += [rng.normal(size=(*stack, 4, 4)) / 2, rng.normal(size=(*stack, 1, 4))]
    with np.errstate(all="ignore"):
        nodes = [Node(leaf.copy()) for leaf in leaves]
        value = grown(rows, nodes)
        sizes = [np.abs(part).max() for part in (value.value, *dp.gradients(value, nodes))]
        if not max(sizes) < 100.0:  # beyond it, rounding errors are as large
            return
        check(lambda *nodes: grown(rows, nodes), [leaf.copy() for leaf in leaves])
