"""Random expressions of every operation: the sweep, differences, and programs agree."""

import numpy as np
import pytest

import dp
from dp import Node

# Each takes Nodes of one shape (3, 4), or of what broadcasts to it, and gives such a Node.
SMOOTH = {
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "softplus": lambda x: x.softplus(),
    "gelu": lambda x: x.gelu(),
    "expm1": lambda x: x.tanh().expm1(),
    "log1p": lambda x: x.square().log1p(),
    "sqrt": lambda x: (x.square() + 0.5).sqrt(),
    "norm": lambda x: x / (x.norm(axis=1) + 1.0),
    "std": lambda x: (x - x.mean(axis=0)) / (x.std(axis=0) + 0.5),
    "var": lambda x: x * x.var(axis=-1, ddof=1).tanh(),
    "logsumexp": lambda x: x - x.logsumexp(axis=1),
    "logsumexp of all": lambda x: x - x.logsumexp(),
    "softmax": lambda x: x.softmax(axis=0),
    "rows": lambda x: x[[2, 0, 1]],
    "entries": lambda x: x[[[0], [1], [2]], [[3, 1, 1, 0]]],
    "product": lambda x: x @ x.T @ x * 0.1,
    "columns": lambda x: dp.concatenate([x[:, :2], x[:, 2:] * 2.0], axis=1),
    "flatten": lambda x: x.flatten().reshape(3, 4),
}
JOINED = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / (b.square() + 1.0),
    "pairs": lambda a, b: -2 * (a @ b.T) @ b + a.square().sum(1) + b.square().sum(0),
    "halves": lambda a, b: dp.concatenate([a, b])[1:4],
}
KINKED = {
    "maximum": lambda a, b: a.maximum(b),
    "minimum": lambda a, b: np.minimum(a, b * 0.5),
    "where": lambda a, b: dp.where((a > b) | (a < -1.0), a * b, b),
    "mask": lambda a, b: a * ((a > 0) & ~(b > 0)) + b,
    "largest": lambda a, b: a - b.max(axis=1) + b.min(axis=0),
    "clip": lambda a, b: a.clip(-0.7, 0.7) + b.abs(),
    "round": lambda a, b: a * b.round(1),
    "equal": lambda a, b: a + dp.equal(b, b.max(axis=0)),
}


def expression(rng, joined):
    """A random function of Nodes, as a list of operations and where their operands come from."""
    steps = []
    for made in range(rng.integers(4, 9)):
        if rng.random() < 0.5:
            steps.append((SMOOTH[rng.choice(list(SMOOTH))], [rng.integers(0, 3 + made)]))
        else:
            name = rng.choice(list(joined))
            steps.append((joined[name], rng.integers(0, 3 + made, size=2)))

    def function(*nodes):
        found = list(nodes)
        for operation, operands in steps:
            found.append(operation(*[found[i] for i in operands]))
        return sum((x.tanh().mean() for x in found[3:]), start=Node(0.0))

    return function


def arrays(rng, stack):
    return [rng.normal(size=shape) for shape in ((*stack, 3, 4), (3, 4), (1, 4))]


def on_the_whole(function):
    """All three operands as a whole matrix, since rows are picked from them."""
    return lambda a, b, c: function(a, b + 0.0 * a, c + a * 0.5)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(150))
def test_the_sweep_agrees_with_differences(seed):
    rng = np.random.default_rng(seed)
    function, stack = on_the_whole(expression(rng, JOINED)), ((), (2,))[seed % 2]
    dp.check_gradient(function, *arrays(rng, stack), tolerance=3e-6)

    def slope(*nodes):
        first = dp.gradients(function(*nodes), nodes, create_graph=True)
        return sum(((g * g).sum() for g in first), start=Node(0.0))

    if seed < 40:
        dp.check_gradient(slope, *arrays(rng, ()), tolerance=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(150))
def test_programs_agree_with_the_sweep(seed, dtype):
    rng = np.random.default_rng(1000 + seed)
    function = on_the_whole(expression(rng, {**JOINED, **KINKED}))
    nodes = [
        Node(array.astype(dtype), name)
        for array, name in zip(arrays(rng, ((), (2,))[seed % 2]), "abc", strict=True)
    ]
    program = dp.capture(lambda: function(*nodes))
    for _ in range(2):
        value = function(*nodes)
        right = value.grad()
        found, output = program()
        tolerance = 1e-10 if dtype == np.float64 else 2e-4
        np.testing.assert_allclose(output, value.value, rtol=tolerance, atol=tolerance)
        assert found.keys() == right.keys()
        for name, g in found.items():
            assert g.dtype == dtype
            scale = max(1.0, float(np.abs(right[name]).max()))
            np.testing.assert_allclose(g, right[name], rtol=tolerance, atol=tolerance * scale)
        for node in nodes:
            node.value *= 0.8
