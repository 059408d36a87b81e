"""Nodes: graphs of any depth and width, and how a Node prints, compares and is copied."""

import contextvars
import copy
import gc
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest

import dp
from dp import Node

# --- depth, width, diamonds -----------------------------------------------------------------------


def test_a_chain_of_100_000_operations():
    w = Node(np.array([[0.3]]), "w")
    x = w
    for _ in range(50_000):
        x = x * 0.9999
        x = x + 0.0001
    factor = 0.9999**50_000
    np.testing.assert_allclose(x.value, 1 + (0.3 - 1) * factor, rtol=1e-9)
    np.testing.assert_allclose(x.grad()["w"], [[factor]], rtol=1e-9)
    middle = weakref.ref(x.parents[0])
    del x
    gc.collect()
    assert middle() is None
    assert sys.getrecursionlimit() <= 10_000


def test_a_chain_of_100_000_operations_differentiated_twice():
    w = Node(np.array([[0.3]]), "w")
    x = w
    for _ in range(50_000):
        x = x * 0.99999
        x = x + 0.0
    (slope,) = dp.gradients(x * x, [w], create_graph=True)
    (curvature,) = dp.gradients(slope, [w])
    np.testing.assert_allclose(curvature, 2 * 0.99999**100_000, rtol=1e-8)


def test_a_fan_out_of_10_000():
    w = Node(np.array([[0.5, -1.0]]), "w")
    total = Node(np.zeros((1, 2)))
    for i in range(10_000):
        total = total + w * float(i)
    np.testing.assert_allclose(total.grad()["w"], [[49_995_000.0, 49_995_000.0]])


def test_1000_diamonds():
    start = 1e-4
    w = Node(np.array([[start]]), "w")
    x, value, slope = w, start, 1.0
    for _ in range(1000):
        x = x * x + x
        value, slope = value * value + value, slope * (2 * value + 1)
    np.testing.assert_allclose(x.value, value, rtol=1e-12)
    np.testing.assert_allclose(x.grad()["w"], slope, rtol=1e-10)


def test_one_visit_per_node():
    visits = []

    def rule(g, y, x):
        visits.append(1)
        return g

    same = dp.primitives.Primitive("same", lambda x: x + 0.0, (rule,), True)
    w = Node(1.0, "w")
    x = same(w)
    for _ in range(30):
        x = same(x + x)
    assert x.grad()["w"] == 2.0**30
    assert len(visits) == 31


def test_deep_graphs_die_in_cycles_too():
    holder = {}
    x = Node(1.0)
    for _ in range(100_000):
        x = x + 1.0
    holder["x"], holder["self"] = x, holder
    gone = weakref.ref(x)
    del x, holder
    gc.collect()
    assert gone() is None


# --- the sweep ------------------------------------------------------------------------------------


def test_sweeping_twice_gives_the_same():
    rng = np.random.default_rng(0)
    a, b = Node(rng.normal(size=(3, 4)), "a"), Node(rng.normal(size=(4, 2)), "b")
    loss = (a.dot(b).tanh() * 2 + a.sum(axis=1)).sum()
    first = loss.grad()
    for again in (loss.grad(), loss.grad()):
        assert list(again) == list(first)
        for name in first:
            np.testing.assert_array_equal(again[name], first[name])
            assert not np.shares_memory(again[name], first[name])


def test_a_cotangent_keeps_its_own_history():
    x, c = Node(np.ones((2, 2))), Node(2.0)
    (g,) = dp.gradients(x * 3.0, [x], c, create_graph=True)
    np.testing.assert_array_equal(dp.gradients(g, [c])[0], [[12.0]])
    z = Node(np.ones((1, 1), np.float32))
    (same,) = dp.gradients(z, [z], Node(1.0), create_graph=True)
    assert same.dtype == np.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (x > 0) * x,
        lambda x: (x > 0).mean() * x,
        lambda x: -(x > 0) + (x > 1),
        lambda x: np.array(2.0) * x,
        lambda x: x.leaky_relu(np.float64(0.1)),
        lambda x: x.elu(np.float64(0.1)),
        lambda x: x.clip(np.float64(-0.5), np.float64(1)),
        lambda x: x != 1.0,
    ],
)
def test_float32_stays_float32(make):
    assert make(Node(np.ones((2, 2), np.float32))).dtype == np.float32


def test_equality_compares_entries_with_numbers_and_arrays_and_hashing_identity():
    x = Node([[1.0, 2.0]])
    np.testing.assert_array_equal((x == 1.0).value, [[1.0, 0.0]])
    np.testing.assert_array_equal((x != np.array([[1.0, 3.0]])).value, [[0.0, 1.0]])
    row = np.array([[1.0, 1.0]])
    np.testing.assert_array_equal((row == x).value, [[1.0, 0.0]])
    assert (row < x).dtype == np.float64
    assert (x == None) is False  # noqa: E711
    assert len({x, x, Node([[1.0, 2.0]])}) == 2


def test_an_index_may_be_reused():
    x, rows = Node(np.ones((4, 1)), "x"), np.array([0, 1])
    y = x[rows]
    rows[:] = 3
    np.testing.assert_array_equal(y.grad()["x"], [[1], [1], [0], [0]])


def test_a_transpose_may_be_called_without_a_past():
    with dp.no_grad():
        assert Node(np.ones((2, 3))).T().shape == (3, 2)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))])
def test_copies_of_deep_graphs(twin):
    x = Node(np.full((2, 2), 0.5), "x")
    y = x
    for _ in range(5_000):
        y = y * 0.999 + 0.001
    again = twin(y)
    assert again is not y
    np.testing.assert_array_equal(again.value, y.value)
    np.testing.assert_array_equal(again.grad()["x"], y.grad()["x"])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("seed", [None, 0, [0, 1]])
def test_copies_of_models_train_alike_and_apart(twin, seed):
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20)[:, None] % 2 * 1.0
    sgd = dp.SGD(dp.Net(4, 3, 2, seed=seed), x, y, seed=seed)
    again = twin(sgd)
    if seed is None:
        np.random.seed(0)
    sgd.train(3, None)
    if seed is None:
        np.random.seed(0)
    again.train(3, None)
    for name, value in sgd.model.get_param().items():
        np.testing.assert_array_equal(again.model.get_param()[name], value)
        assert again.model.get_param()[name] is not value


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: (a + b).T,
        lambda a, b: a + b + a,
        lambda a, b: a.concatenate(b),
        lambda a, b: (a + b).sum(),
        lambda a, b: a.reshape(6, 1) + b.reshape(6, 1),
    ],
)
def test_gradients_share_no_memory(function):
    a, b = Node(np.ones((2, 3)), "a"), Node(np.ones((2, 3)), "b")
    output = function(a, b)
    cotangent = np.ones(output.shape)
    grad = output.grad(cotangent)
    listed = dp.gradients(output, [a, b, a], cotangent)
    arrays = [grad["a"], grad["b"], *listed]
    kept = [array.copy() for array in arrays]
    for i, array in enumerate(arrays):
        assert array.flags.writeable
        for other in (*arrays[i + 1 :], cotangent, a.value, b.value):
            assert not np.shares_memory(array, other)
        array += 1.0  # an optimiser may work in place
    for array, was in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, was + 1.0)


def test_the_output_may_be_what_is_asked_for():
    w = Node(np.ones((2, 2)), "w")
    np.testing.assert_array_equal(w.grad()["w"], np.ones((2, 2)))
    y = w * 3.0
    of_y, of_w = dp.gradients(y, [y, w], 2.0)
    np.testing.assert_array_equal(of_y, np.full((2, 2), 2.0))
    np.testing.assert_array_equal(of_w, np.full((2, 2), 6.0))


def test_intermediate_and_unrelated_nodes():
    a, other = Node(np.array([[2.0]]), "a"), Node(np.ones((3, 1), np.float32), "other")
    h = a * a
    loss = h.exp()
    of_h, of_other = dp.gradients(loss, [h, other])
    np.testing.assert_allclose(of_h, np.exp(4.0))
    np.testing.assert_array_equal(of_other, np.zeros((3, 1)))
    assert of_other.dtype == np.float32
    zero = dp.gradients(loss, [other], create_graph=True)[0]
    assert isinstance(zero, Node)
    assert "other" not in loss.grad()


def test_cotangents_broadcast_and_wrong_ones_are_named():
    a = Node(np.ones((2, 3)), "a")
    y = a * 2.0
    np.testing.assert_array_equal(y.grad(5)["a"], np.full((2, 3), 10.0))
    np.testing.assert_array_equal(y.grad([[1], [2]])["a"], [[2, 2, 2], [4, 4, 4]])
    np.testing.assert_array_equal(dp.gradients(y, [a], Node(3.0))[0], np.full((2, 3), 6.0))
    with pytest.raises(dp.ShapeError, match=r"cotangent has shape \(3, 2\), the output \(2, 3\)"):
        y.grad(np.ones((3, 2)))


def test_each_member_of_a_stack_gets_its_own_gradient():
    rng = np.random.default_rng(1)
    w, x = rng.normal(size=(5, 4, 2)), rng.normal(size=(3, 4))
    stacked = Node(w, "w")
    found = Node(x).dot(stacked).tanh().sum().grad()["w"]
    for member in range(5):
        alone = Node(x).dot(Node(w[member], "w")).tanh().sum().grad()["w"]
        np.testing.assert_allclose(found[member], alone, rtol=1e-13)


def test_third_derivative():
    x = Node(0.4)
    y = x.tanh()
    for _ in range(3):
        (y,) = dp.gradients(y, [x], create_graph=True)
    t = np.tanh(0.4)
    np.testing.assert_allclose(y.value, (1 - t**2) * (6 * t**2 - 2), rtol=1e-13)


def test_two_nodes_of_one_name():
    a, b = Node(1.0, "w"), Node(2.0, "w")
    with pytest.raises(ValueError, match="two different Nodes are both named 'w'"):
        (a * b).grad()
    np.testing.assert_array_equal((a * a).grad()["w"], [[2.0]])


# --- modes ----------------------------------------------------------------------------------------


def test_no_grad():
    w = Node(1.0, "w")
    with dp.no_grad():
        y = w * 2 + 1
        with dp.no_grad():
            pass
        assert (w * 2).parents == ()
    assert y.value == 3
    assert y.parents == ()
    assert y.grad() == {}
    assert "w" in (w * 2).grad()


def test_no_grad_ends_with_an_exception_and_does_not_leak_into_threads():
    w = Node(1.0, "w")
    with pytest.raises(KeyError), dp.no_grad():
        raise KeyError
    assert (w * 2).parents
    seen = []
    with dp.no_grad():
        thread = threading.Thread(target=lambda: seen.append((w * 2).parents))
        thread.start()
        thread.join()
        contextvars.Context().run(lambda: seen.append((w * 2).parents))
    assert all(seen)
    assert len(seen) == 2


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
class TestDetectAnomaly:
    def test_forward(self):
        w = Node(np.array([[1.0, 0.0]]), "h3_weight")
        with (
            dp.detect_anomaly(),
            pytest.raises(dp.AnomalyError, match=r"forward log .*'h3_weight'.*Inf in 1 of 2"),
        ):
            w.log()
        assert np.isinf(w.log().value).any()

    def test_forward_nan(self):
        with (
            dp.detect_anomaly(),
            pytest.raises(dp.AnomalyError, match=r"forward sqrt of \(1, 1\).*NaN in 1 of 1"),
        ):
            Node(-1.0).sqrt()

    def test_an_operand_that_was_bad_already(self):
        bad = Node(np.array([[np.inf]]), "w")
        with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match="'w' is not finite already"):
            bad * 2

    def test_backward(self):
        w = Node(np.array([[0.0, 4.0]]), "w")
        root = w.sqrt()
        assert np.isinf(root.grad()["w"]).any()
        with (
            dp.detect_anomaly(),
            pytest.raises(dp.AnomalyError, match=r"backward of sqrt .*Inf .*operand \(1, 2\) 'w'"),
        ):
            root.grad()

    def test_backward_nan(self):
        w = Node(np.array([[0.0]]), "w")
        product = w.sqrt() * 0.0
        with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match=r"backward of sqrt .*NaN"):
            product.grad()

    def test_backward_in_the_sum_of_two_shares(self):
        w = Node(np.full((1, 1), 0.1, np.float32), "w")
        y = w * 3e38 + w * 3e38
        with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match=r"gave Inf .*'w'"):
            y.grad()

    def test_a_cotangent(self):
        with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match="cotangent is not finite"):
            Node(1.0, "w").grad(np.nan)

    def test_backward_while_the_graph_is_kept(self):
        x = Node([[0.0, 1.0]])
        root = x.sqrt()
        with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match=r"backward of sqrt .*Inf"):
            dp.gradients(root, [x], create_graph=True)

    def test_it_names_the_layer_and_ends(self):
        net = dp.Net(2, 3, 2, "tanh", seed=0)
        net.get_param()["h2_weight"][0, 0] = np.nan
        with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match="h2_weight"):
            net.forward(np.ones((1, 2)))
        assert np.isnan(net.forward(np.ones((1, 2))).value).all()


# --- NumPy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        np.exp,
        np.log,
        np.sqrt,
        np.square,
        np.tanh,
        np.abs,
        np.negative,
        np.sum,
        np.mean,
        np.max,
        np.transpose,
    ],
)
def test_numpy_functions_that_work(function):
    x = Node(np.array([[0.5, 2.0], [1.0, 3.0]]), "x")
    y = function(x)
    assert isinstance(y, Node)
    np.testing.assert_allclose(y.value, np.reshape(function(x.value), y.shape), rtol=1e-15)
    assert y.grad()["x"].shape == (2, 2)


@pytest.mark.parametrize(
    "operate",
    [
        lambda a, x: a + x,
        lambda a, x: a - x,
        lambda a, x: a * x,
        lambda a, x: a / x,
        lambda a, x: a**x,
        lambda a, x: a @ x,
        lambda a, x: np.matmul(a, x),
        lambda a, x: x + a,
        lambda a, x: x - a,
        lambda a, x: x / a,
        lambda a, x: x @ a,
        lambda a, x: a > x,
    ],
)
def test_arrays_on_either_side(operate):
    array, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 9.0]])
    y = operate(array, Node(x, "x"))
    assert isinstance(y, Node)
    np.testing.assert_array_equal(y.value, operate(array, x))
    assert isinstance(np.float64(3) * Node(x), Node)
    assert isinstance(np.clip(Node(x), 5.5, 8), Node)
    assert isinstance(np.dot(Node(x), array), Node)


@pytest.mark.parametrize(
    "call",
    [
        np.tan,
        np.asarray,
        np.array,
        np.vstack,
        np.argmax,
        np.isnan,
        np.add.reduce,
        lambda x: np.exp(x, out=np.empty((1, 2))),
        lambda x: np.dot(x, x, np.empty((1, 1))),
        lambda x: np.linalg.norm(x, ord="nuc"),
    ],
)
def test_what_would_lose_the_gradient_fails_loudly(call):
    with pytest.raises(TypeError, match=r"node\.value"):
        call(Node(np.array([[0.5, 2.0]])))


def test_assignment_into_an_array_fails_loudly():
    into = np.zeros((2, 2))
    with pytest.raises((TypeError, ValueError)):
        into[:] = Node(np.ones((2, 2)))
    with pytest.raises((TypeError, ValueError)):
        into += Node(np.ones((2, 2)))
    np.testing.assert_array_equal(into, np.zeros((2, 2)))


# --- what a Node is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        (3, (1, 1), np.float64),
        (True, (1, 1), np.float64),
        ([1, 2, 3], (3, 1), np.float64),
        ([[1, 2, 3]], (1, 3), np.float64),
        (np.ones((2, 3, 4), np.float32), (2, 3, 4), np.float32),
        (np.float32(2.5), (1, 1), np.float32),
        (np.arange(4, dtype=np.int8), (4, 1), np.float64),
    ],
)
def test_values_become_matrices(value, shape, dtype):
    node = Node(value, name="w")
    assert node.shape == node.value.shape == shape
    assert node.dtype == dtype
    assert node.ndim == len(shape)
    assert node.name == "w"
    assert len(node) == shape[-2]


def test_an_array_is_not_copied():
    array = np.zeros((2, 2))
    node = Node(array)
    array[0, 0] = 7
    assert node.value[0, 0] == 7


def test_numbers_and_integer_arrays_take_the_dtype_they_meet():
    x = Node(np.ones((2, 2), np.float32), "x")
    for y in (x + 1, 2.5 * x, x / 3, x**2, 1 - x, x * np.arange(2).reshape(1, 2), x.mean()):
        assert y.dtype == np.float32
        assert y.grad()["x"].dtype == np.float32
    mixed = x * Node(np.ones((2, 2)), "y")
    assert mixed.dtype == np.float64
    assert mixed.grad()["x"].dtype == np.float32
    assert mixed.grad()["y"].dtype == np.float64


def test_transpose_three_ways():
    x = Node(np.arange(6.0).reshape(2, 3))
    for y in (x.transpose(), x.T, x.T()):
        np.testing.assert_array_equal(y.value, x.value.T)
    np.testing.assert_array_equal(x.T().T().value, x.value)
    stack = Node(np.ones((5, 2, 3)))
    assert stack.T.shape == (5, 3, 2)
    with pytest.raises(TypeError, match="not a function"):
        x()


X = np.arange(12.0).reshape(3, 4)
INDICES = [
    (1, X[1:2]),
    (-1, X[2:]),
    (slice(0, 2), X[:2]),
    (slice(None, None, -1), X[::-1]),
    ((1, 2), X[1:2, 2:3]),
    ((slice(None), 1), X[:, 1:2]),
    ((slice(None), slice(1, 3)), X[:, 1:3]),
    ([2, 0, 2], X[[2, 0, 2]]),
    (np.array([True, False, True]), X[[0, 2]]),
    ((slice(None), [3, 3]), X[:, [3, 3]]),
    ((0, [1, 2]), X[0:1, [1, 2]]),
    (([0, 1, 2], [3, 2, 1]), X[[0, 1, 2], [3, 2, 1]].reshape(-1, 1)),
    (X > 6, X[X > 6].reshape(-1, 1)),
]


@pytest.mark.parametrize(("index", "expected"), INDICES, ids=[repr(i) for i, _ in INDICES])
def test_indexing(index, expected):
    x = Node(X, "x")
    y = x[index]
    np.testing.assert_array_equal(y.value, expected)
    cotangent = np.random.default_rng(0).normal(size=y.shape)
    dp.check_gradient(lambda node: node[index], X)
    stacked = Node(np.stack([X, -X]), "x")[index]
    np.testing.assert_array_equal(stacked.value, np.stack([expected, -expected]))
    np.testing.assert_array_equal(stacked.grad(cotangent)["x"][1], y.grad(cotangent)["x"])


@pytest.mark.parametrize(
    "index", [3, -4, (0, 4), (0, 0, 0), "a", 1.5, [[[0, 1]]], np.ones((2, 2)) > 0]
)
def test_indices_that_do_not_fit(index):
    with pytest.raises(IndexError):
        Node(X)[index]


def test_rows_are_iterated():
    rows = list(Node(X))
    assert [row.shape for row in rows] == [(1, 4)] * 3


def test_numbers_and_truth():
    assert float(Node(2.5)) == 2.5
    assert bool(Node(2.0) > 1.0)
    assert not Node(2.0) < 1.0
    with pytest.raises(TypeError, match="1×1"):
        float(Node(X))
    with pytest.raises(ValueError, match="neither true nor false"):
        bool(Node(X) > 1)


@pytest.mark.parametrize("value", ["a", None, 1j, [[1, 2], [3]], np.array([object()]), Node(1.0)])
def test_values_that_are_not_numbers_are_refused(value):
    with pytest.raises(TypeError, match="value"):
        Node(value)


def test_a_name_is_a_string():
    with pytest.raises(TypeError, match="name must be a string or None, got 3"):
        Node(1.0, 3)


def test_repr():
    text = repr(Node(np.ones((2, 3)), "w") * 2)
    assert "2×3" in text
    assert "multiply" in text
    assert "'w'" in repr(Node(1.0, "w"))


def test_primitives_are_pickled_by_name():
    tanh = dp.primitives.tanh
    assert pickle.loads(pickle.dumps(tanh)) is tanh
