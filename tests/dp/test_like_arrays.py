"""Nodes used as arrays are: identity, a forgotten .value, NumPy's functions, axes, masks."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from tests.dp.cases import refused

import dp
from dp import Node

X = np.array([[0.5, -2.0, 3.0], [1.5, 0.0, -1.0]])
STACK = np.stack([X, 2 * X, -X])


def x():
    return Node(X.copy(), "x")


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, X, STACK])
def test_nodes_are_equal_if_they_are_one_and_the_same(value):
    a, b = Node(value), Node(value)
    assert a == a
    assert (a != a) is False
    assert (a == b) is False
    assert (a != b) is True
    assert a not in [b]
    assert a in [b, a]
    assert [b, a, b].index(a) == 1
    assert [b, b, a].count(b) == 2
    nodes = [b, a]
    nodes.remove(a)
    assert nodes == [b]
    assert {a: 1, b: 2}[a] == 1
    assert (a, b) == (a, b)
    assert a != None  # noqa: E711


def test_entries_are_compared_with_numbers_and_arrays_and_by_name():
    node = x()
    for found in (
        node == X,
        X.__eq__(node),
        np.equal(node, X),
        dp.equal(node, X),
        dp.equal(X, node),
    ):
        np.testing.assert_array_equal(found.value, np.ones_like(X))
    for found in (node != 0.5, np.not_equal(node, 0.5), np.not_equal(0.5, node)):
        np.testing.assert_array_equal(found.value, X != 0.5)
    np.testing.assert_array_equal(dp.equal(node, x() * 1.0).value, np.ones_like(X))
    np.testing.assert_array_equal(np.equal(node, x()).value, np.ones_like(X))
    assert dp.equal(1, 1.0).item() == 1.0
    assert dp.equal(Node(X.astype(np.float32)), X).dtype == np.float32
    assert dp.equal(node, node).grad() == {}
    with refused(dp.ShapeError, "a column meets a row"):
        dp.equal(np.ones((3, 1)), np.ones((1, 3)))


# --- a forgotten .value ---------------------------------------------------------------------------


def test_a_number_is_a_number():
    loss = Node(2.34567)
    assert f"{loss:.3f} {loss:8.2e}" == "2.346 2.35e+00"
    assert f"{loss}" == str(loss) == repr(loss)
    assert "{:.1f}".format(loss) == "2.3"  # noqa: UP032
    assert "%.1f" % loss == "2.3"  # noqa: UP031
    assert round(loss, 2) == 2.35
    assert round(loss) == int(loss) == 2
    assert loss.item() == float(loss) == 2.34567
    assert loss.tolist() == [[2.34567]]
    assert (loss.size, x().size, np.size(x())) == (1, 6, 6)
    for use in (lambda: f"{x():.3f}", lambda: round(x()), lambda: int(x()), lambda: x().item()):
        with refused(TypeError, "only a 1×1 Node is a number", r"node\.value"):
            use()
    with refused(ValueError, "neither true nor false", "& | ~"):
        _ = 0 < x() < 1


@pytest.mark.parametrize(
    ("asked", "right"),
    [
        (lambda n: n.argmax(), 2),
        (lambda n: n.argmax(axis=1), [2, 0]),
        (lambda n: n.argmax(-1), [2, 0]),
        (lambda n: n.argmin(axis=0), [0, 0, 1]),
        (lambda n: n.argsort(), [[1, 0, 2], [2, 1, 0]]),
        (lambda n: (n > 2).any(), True),
        (lambda n: (n > 2).any(axis=1), [True, False]),
        (lambda n: (n > -5).all(), True),
        (lambda n: (n > 0).astype(int), [[1, 0, 1], [1, 0, 0]]),
        (lambda n: n.astype(bool), [[True, True, True], [True, False, True]]),
        (lambda n: n.tolist(), X.tolist()),
    ],
)
def test_answers_without_a_gradient_are_plain(asked, right):
    found = asked(x())
    assert not isinstance(found, Node)
    np.testing.assert_array_equal(found, right)
    with pytest.raises(dp.CaptureError):
        dp.capture(lambda: x().sum() * float(np.any(asked(x()))))


def test_answers_of_a_stack_are_those_of_its_members():
    stack = Node(STACK)
    for ask in (Node.argmax, Node.argmin, Node.any, Node.all):
        for axis in (None, 0, 1):
            right = [ask(Node(member), axis) for member in STACK]
            np.testing.assert_array_equal(ask(stack, axis), right)


def test_rounding_keeps_the_node_and_stops_the_gradient():
    node = Node([[0.24, 1.76]], "x")
    np.testing.assert_array_equal(node.round().value, [[0.0, 2.0]])
    np.testing.assert_array_equal(np.round(node, 1).value, [[0.2, 1.8]])
    assert (node.round() == np.array([[0.0, 2.0]])).mean().item() == 1.0
    assert node.round().grad() == {}
    np.testing.assert_array_equal((node.round() * node).grad()["x"], [[0.0, 2.0]])
    with refused(TypeError, "decimals must be an integer, got 1.5"):
        node.round(1.5)


def test_other_dtypes_keep_the_gradient():
    node = x()
    narrow = node.astype(np.float32)
    assert narrow.dtype == np.float32
    assert (narrow * narrow).sum().grad()["x"].dtype == np.float64
    np.testing.assert_allclose((narrow * narrow).sum().grad()["x"], 2 * X)
    for dtype in (complex, str, object):
        with refused(TypeError, "a Node holds real numbers"):
            x().astype(dtype)


class Wave(Node):
    """A subclass, which gets hints for names that no array has as well."""


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda n: n.cumsum(), r"no 'cumsum'; node\.value\.cumsum"),
        (lambda n: n.copy(), r"node\.value\.copy\(\)"),
        (lambda n: n.squeeze(), r"node\.reshape"),
        (lambda n: n.detach(), r"dp\.Node\(node\.value\)"),
        (lambda n: n.numpy(), r"node\.value"),
        (lambda n: n.backward(), r"loss\.grad\(\)"),
        (lambda n: Wave(n.value).sigmod(), "did you mean 'sigmoid'"),
        (lambda n: Wave(n.value).nothing_like_it, "no 'nothing_like_it'"),
    ],
)
def test_what_a_node_lacks_gets_a_hint(use, words):
    with refused(AttributeError, "a (Node|Wave) has no", words):
        use(x())
    assert not hasattr(x(), "cumsum")
    assert getattr(x(), "nothing", None) is None
    assert not hasattr(Node, "cumsum")
    assert "cumsum" not in dir(x())
    assert {"tanh", "T", "argmax", "value"} <= set(dir(x()))


def test_attributes_of_nodes_are_looked_up_as_fast_as_any():
    # __getattr__ makes Python 3.11 take the slow way to every attribute; only subclasses bring it
    code = "import dp; assert not hasattr(dp.Node, '__getattr__')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_entries_are_not_set_and_nodes_hold_no_nodes():
    with refused(TypeError, "cannot be set", r"dp\.where"):
        x()[0, 0] = 1.0
    assert 3.0 in x()
    assert 7.0 not in x()
    with refused(TypeError, r"dp\.equal"):
        _ = x() in x()
    assert copy.copy(x()).grad()["x"].shape == (2, 3)


# --- NumPy's functions ----------------------------------------------------------------------------

FUNCTIONS = {
    "maximum": (lambda a: np.maximum(a, 0), lambda a: np.maximum(a, 0)),
    "maximum, other side": (lambda a: np.maximum(0.0, a), lambda a: np.maximum(0.0, a)),
    "minimum": (lambda a: np.minimum(a, 2 * a), lambda a: np.minimum(a, 2 * a)),
    "clip": (lambda a: np.clip(a, -1, 1), lambda a: np.clip(a, -1, 1)),
    "clip by name": (lambda a: np.clip(a, a_min=0.0, a_max=None), lambda a: np.maximum(a, 0)),
    "clip by NumPy's newer names": (lambda a: np.clip(a, min=-1), lambda a: np.maximum(a, -1)),
    "where": (lambda a: np.where(X > 0, a, a * a), lambda a: np.where(X > 0, a, a * a)),
    "where of Nodes": (lambda a: np.where(a > 0, a, -a), np.abs),
    "sum": (lambda a: np.sum(a, axis=1, keepdims=True), lambda a: a.sum(1, keepdims=True)),
    "mean": (lambda a: np.mean(a, 0), lambda a: a.mean(0, keepdims=True)),
    "min": (lambda a: np.min(a, axis=-1), lambda a: a.min(1, keepdims=True)),
    "amax": (lambda a: np.amax(a), lambda a: a.max(keepdims=True)),
    "std": (lambda a: np.std(a, axis=1, ddof=1), lambda a: a.std(1, ddof=1, keepdims=True)),
    "var": (lambda a: np.var(a), lambda a: a.var(keepdims=True)),
    "norm": (np.linalg.norm, lambda a: np.linalg.norm(a, keepdims=True)),
    "norm of rows": (
        lambda a: np.linalg.norm(a, axis=1, keepdims=True),
        lambda a: np.linalg.norm(a, axis=1, keepdims=True),
    ),
    "dot": (lambda a: np.dot(a, X.T), lambda a: a @ X.T),
    "dot, other side": (lambda a: np.dot(X.T, a), lambda a: X.T @ a),
    "matmul": (lambda a: np.matmul(X.T, a), lambda a: X.T @ a),
    "concatenate": (lambda a: np.concatenate([a, X, a]), lambda a: np.concatenate([a, X, a])),
    "concatenate columns": (lambda a: np.concatenate((X, a), axis=-1), lambda a: np.hstack((X, a))),
    "vstack": (lambda a: np.vstack([a, a]), lambda a: np.vstack([a, a])),
    "hstack": (lambda a: np.hstack((a, X)), lambda a: np.hstack((a, X))),
    "reshape": (lambda a: np.reshape(a, (3, 2)), lambda a: a.reshape(3, 2)),
    "ravel": (np.ravel, lambda a: a.reshape(-1, 1)),
    "transpose": (np.transpose, np.transpose),
    "exp": (np.exp, np.exp),
    "log1p": (lambda a: np.log1p(np.abs(a)), lambda a: np.log1p(np.abs(a))),
    "expm1": (np.expm1, np.expm1),
    "sin and cos": (lambda a: np.sin(a) * np.cos(a), lambda a: np.sin(a) * np.cos(a)),
    "square and so on": (lambda a: np.sqrt(np.square(a) + 1), lambda a: np.sqrt(a * a + 1)),
    "reciprocal": (lambda a: np.reciprocal(a + 5), lambda a: 1 / (a + 5)),
    "log2": (lambda a: np.log2(a + 5), lambda a: np.log2(a + 5)),
    "fabs": (np.fabs, np.abs),
    "sign": (lambda a: np.sign(a) * a, np.abs),
    "positive": (np.positive, lambda a: a),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_numpy_are_operations(name):
    ours, right = FUNCTIONS[name]
    node = x()
    output = ours(node)
    assert isinstance(output, Node)
    np.testing.assert_allclose(output.value, right(X), rtol=1e-14)
    points = X + 0.01 * np.arange(6.0).reshape(2, 3)  # off the kinks
    moved = lambda n: np.where(points > 0, n, n * n) if name == "where" else ours(n)  # noqa: E731
    dp.check_gradient(moved, points + (0.3 if name != "clip" else 0.05))


@pytest.mark.parametrize(
    "use",
    [
        lambda n: np.sum(n, axis=1, dtype=np.float32),
        lambda n: np.where(n),
        lambda n: np.linalg.norm(n, ord=1),
        lambda n: np.linalg.inv(n),
        lambda n: np.stack([n, n]),
        lambda n: np.argmax(n),
        lambda n: np.cumsum(n),
        lambda n: np.tan(n),
        lambda n: np.maximum.reduce(n),
        lambda n: np.add(n, n, out=np.empty((2, 3))),
        lambda n: np.maximum(n, 0, where=X > 0),
        lambda n: np.allclose(n, n),
        lambda n: np.array([n, n]),
        lambda n: np.vstack(n),
        lambda n: np.concatenate(n),
        lambda n: np.mean([n, n]),
        lambda n: Node([n, n]),
        lambda n: n.concatenate([n, n]),
    ],
)
def test_others_name_the_way(use):
    with refused(TypeError, r"node\.value"):
        use(x())


@pytest.mark.parametrize("name", ["sum", "vstack", "concatenate", "reshape", "dot"])
def test_axes_of_a_stack_are_asked_for_by_methods(name):
    node = Node(STACK)
    calls = {
        "sum": lambda: np.sum(node, axis=0),
        "vstack": lambda: np.vstack([node, node]),
        "concatenate": lambda: np.concatenate([node, X]),
        "reshape": lambda: np.reshape(node, (3, 2)),
        "dot": lambda: np.dot(node, X.T),
    }
    with refused(TypeError, "different axes in a stack"):
        calls[name]()
    np.testing.assert_array_equal(np.maximum(node, 0).value, np.maximum(STACK, 0))
    np.testing.assert_array_equal(np.where(node > 0, node, 0).value, np.maximum(STACK, 0))


def test_shapes_are_told():
    assert (np.shape(x()), np.ndim(x())) == ((2, 3), 2)
    np.testing.assert_array_equal(np.zeros_like(x()), np.zeros((2, 3)))


# --- axes -----------------------------------------------------------------------------------------

REDUCTIONS = ["sum", "mean", "max", "min", "var", "std", "norm", "logsumexp"]


@pytest.mark.parametrize("value", [X, STACK], ids=["matrix", "stack"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_axes_in_every_way(name, value):
    reduce = getattr(Node(value), name)
    for ways in ([0, -2, (0,), np.int64(0)], [1, -1, [1]], [None, (0, 1), (-1, -2)]):
        first, *others = [reduce(axis=axis, keepdims=True).value for axis in ways]
        for other in others:
            np.testing.assert_array_equal(other, first)
        np.testing.assert_array_equal(reduce(ways[0]).value, first)
    for axis in (2, -3, 1.0, "0", (0, 2), True):
        with refused(ValueError, "axis must be None, 0 or 1", "-2 and -1"):
            reduce(axis=axis)
    with refused(ValueError, "keepdims must be True", r"node\.value"):
        reduce(axis=1, keepdims=False)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_one_axis_in_every_way(name):
    node = Node(STACK)
    for axis, other in ((0, -2), (1, -1)):
        np.testing.assert_array_equal(
            getattr(node, name)(axis).value, getattr(node, name)(axis=other).value
        )
    np.testing.assert_array_equal(
        node.concatenate(X, axis=-1).value, node.concatenate(X, axis=1).value
    )


@pytest.mark.parametrize("name", ["mean", "max", "min", "var", "std", "logsumexp"])
def test_of_nothing_there_is_none(name):
    with refused(ValueError, "at least one entry", r"\(0, 3\)"):
        getattr(Node(X[:0]), name)(axis=0)


def test_limits_by_other_names():
    np.testing.assert_array_equal(x().clip(min=0).value, np.clip(X, 0, None))
    np.testing.assert_array_equal(x().clip(max=1, min=0).value, np.clip(X, 0, 1))
    with refused(TypeError, "takes each limit once"):
        x().clip(0, min=1)
    np.testing.assert_array_equal(x().sum(1, True).value, X.sum(1, keepdims=True))


def test_degrees_of_freedom():
    np.testing.assert_allclose(x().var(ddof=1).value, X.var(ddof=1, keepdims=True))
    with refused(ValueError, "at least 3 entries", "ddof=2"):
        x().std(axis=0, ddof=2)


# --- special values of the new operations ---------------------------------------------------------


def test_no_square_overflows_and_nothing_is_lost():
    huge = Node([[3e200, 4e200], [3e-200, 4e-200]], "x")
    norms = huge.norm(axis=1)
    np.testing.assert_allclose(norms.value, [[5e200], [5e-200]], rtol=1e-15)
    np.testing.assert_allclose(norms.sum().grad()["x"], [[0.6, 0.8], [0.6, 0.8]], rtol=1e-14)
    narrow = Node(np.array([[3e30, 4e30]], np.float32))
    np.testing.assert_allclose(narrow.norm().value, [[5e30]], rtol=1e-6)
    np.testing.assert_array_equal(Node([[0.0, 0.0]], "x").norm().grad()["x"], [[0.0, 0.0]])
    np.testing.assert_array_equal(Node([[7.0, 7.0]], "x").std().grad()["x"], [[0.0, 0.0]])
    assert np.isinf(Node([[np.inf, 1.0]]).norm().item())
    assert np.isnan(Node([[np.nan, 1.0]]).norm().item())


def test_logsumexp_of_infinities():
    rows = Node([[1000.0, 1000.0], [-np.inf, 0.0], [-np.inf, -np.inf], [np.inf, 0.0]], "x")
    found = rows.logsumexp(axis=1)
    np.testing.assert_array_equal(found.value, [[1000.0 + np.log(2.0)], [0.0], [-np.inf], [np.inf]])
    gradient = rows[:3].logsumexp(axis=1).sum().grad()["x"]
    np.testing.assert_array_equal(gradient[:3], [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]])


def test_ties_of_maximum_and_minimum_share_the_gradient():
    a, b = Node([[1.0, 2.0, 3.0]], "a"), Node([[1.0, 3.0, 2.0]], "b")
    for made, share in ((a.maximum(b), [[0.5, 0.0, 1.0]]), (a.minimum(b), [[0.5, 1.0, 0.0]])):
        np.testing.assert_array_equal(made.grad()["a"], share)
        np.testing.assert_array_equal(made.grad()["b"], 1.0 - np.array(share))
    assert np.isnan(Node([[np.nan]]).maximum(0.0).item())


# --- masks, choosing, indexing --------------------------------------------------------------------


def test_masks_are_joined():
    node, other = x(), X > -1.5
    for ours, right in (
        ((node > 0) & (node < 2), (X > 0) & (X < 2)),
        ((node > 0) & other, (X > 0) & other),
        (other & (node > 0), (X > 0) & other),
        ((node > 2) | (node < -1), (X > 2) | (X < -1)),
        (other | (node > 0), other | (X > 0)),
        ((node > 0) ^ other, (X > 0) ^ other),
        (~(node > 0), ~(X > 0)),
        (np.logical_not(node), ~X.astype(bool)),
        (np.logical_and(node, other), X.astype(bool) & other),
        (np.logical_or(node, False), X.astype(bool)),
        ((node > 0) & True, X > 0),
    ):
        assert isinstance(ours, Node)
        np.testing.assert_array_equal(ours.value, right)
        assert ours.grad() == {}
    for other in (2, 1.0, np.ones((2, 3)), "a"):
        with refused(TypeError, "join masks"):
            (node > 0) & other


def test_masks_pick_entries():
    node = x()
    for mask in (node > 0, X > 0, (X > 0).tolist()):
        np.testing.assert_array_equal(node[mask].value, X[X > 0].reshape(-1, 1))
    np.testing.assert_array_equal(node[node > 0].sum().grad()["x"], X > 0)
    for mask in (node, (node > 0)[:1], (node > 0).sum(1)):
        with refused(IndexError, "if it is a mask", "astype"):
            node[mask]
    assert node[[]].shape == (0, 3)
    with refused(dp.CaptureError, "as a mask"):
        dp.capture(lambda: node[node > 0].sum())


def test_indices_are_as_large_as_the_platform_has_them():
    for index in ([0, 1], np.array([0, 1], np.int32), np.array([0, 1], np.uint64), [[1], [0]]):
        rows, columns = x()[index, 0].settings["index"]
        assert rows.dtype == np.intp
        assert isinstance(columns, slice) or columns.dtype == np.intp
    assert x()[x() > 0].settings["index"][0].dtype == np.intp
    for seed, net in ((0, dp.Net(3, 2, 1)), ([0, 1], dp.Net(3, 2, 1, seed=[0, 1]))):
        sgd = dp.SGD(net, X, X[:, :1] > 0, seed=seed)
        assert all(rows.dtype == np.intp for rows in sgd.draw_rows(2))
    assert dp.SGD(dp.Net(3, 2, 1), X, X[:, :1] > 0).draw_rows(1)[0].dtype == np.intp


def test_an_embedding_by_2d_indices():
    table, words = Node(np.arange(8.0).reshape(4, 2), "table"), np.array([[0, 3, 3], [1, 0, 2]])
    picked = table[words]
    assert picked.shape == (2, 3, 2)
    np.testing.assert_array_equal(picked.value, table.value[words])
    np.testing.assert_array_equal(picked.grad()["table"], [[2, 2], [1, 1], [1, 1], [2, 2]])
    with refused(IndexError, "2-D array where the rows are a slice"):
        table[:, [[0, 1]]]


# --- joining, reshaping, pairs --------------------------------------------------------------------


def test_lists_are_joined():
    losses = [Node(float(i), f"l{i}") for i in range(9)]
    joined = dp.concatenate(losses)
    np.testing.assert_array_equal(joined.value[:, 0], np.arange(9.0))
    found = (joined * np.arange(9.0)).sum().grad()
    assert [found[f"l{i}"].item() for i in range(9)] == list(range(9))
    assert dp.concatenate([X, x()], axis=1).shape == (2, 6)
    assert dp.concatenate([x()]).shape == (2, 3)
    with refused(TypeError, "takes a list of Nodes"):
        dp.concatenate(x())
    with refused(ValueError, "the list is empty"):
        dp.concatenate([])
    with refused(dp.ShapeError, "concatenate of"):
        dp.concatenate([x(), x().T])
    with refused(TypeError, "stack", r"dp\.concatenate"):
        np.stack([x(), x()])


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda n: n.reshape(shape=(3, 2)), (3, 2)),
        (lambda n: n.reshape(shape=[6]), (6, 1)),
        (lambda n: n.reshape(shape=-1), (6, 1)),
        (lambda n: n.reshape((-1, 2)), (3, 2)),
        (lambda n: n.flatten(), (6, 1)),
        (lambda n: n.ravel(), (6, 1)),
        (lambda n: n.reshape(np.array([3, 2])), (3, 2)),
    ],
)
def test_new_shapes(make, shape):
    assert make(x()).shape == shape
    assert make(Node(STACK)).shape == (3, *shape)
    with refused(TypeError, "sides of a matrix are integers", "2.5"):
        x().reshape(2, 2.5)
    with refused(TypeError, "takes the shape once"):
        x().reshape(3, 2, shape=(3, 2))


def test_pairwise_sums():
    a, b = Node(np.arange(8.0).reshape(4, 2), "a"), Node(np.arange(6.0).reshape(3, 2))
    column, row = a.square().sum(1), b.square().sum(1).T
    for use in (
        lambda: column + row,
        lambda: column + row - 2 * (a @ b.T),
        lambda: dp.where(np.ones((4, 1)), row, 0.0),
        lambda: dp.where(1.0, column, row),
        lambda: dp.where(np.ones((4, 1)), column, row),
        lambda: column.maximum(row),
    ):
        with refused(dp.ShapeError, "a column meets a row", r"matrix \+ column \+ row"):
            use()
    right = ((a.value[:, None] - b.value[None]) ** 2).sum(-1)
    np.testing.assert_array_equal((-2 * (a @ b.T) + column + row).value, right)
    assert dp.where(np.ones((4, 3)), column, row).shape == (4, 3)
    with pytest.raises(dp.ShapeError) as caught:
        column + row
    shown = str(caught.value).split("such as ")[-1]
    assert eval(shown, {"np": np, "column": column, "row": row}).shape == (4, 3)
