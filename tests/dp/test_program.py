"""Programs give what the graph gives: as a page that runs on its own, and as the fast form."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dp.cases import CASES, refused

import dp
from dp import Node
from dp import primitives as p
from dp.program import layout, products
from dp.program.capture import captured
from dp.program.notation import NOTATIONS
from dp.program.pipeline import compile_graph
from dp.program.step import TrainingStep, one_step

X = np.random.default_rng(0).normal(size=(12, 4))
Y = (np.arange(12) % 3 == 0)[:, None].astype(float)
ONE_HOT = np.eye(3)[np.arange(12) % 3]
EACH_OPTIMISER = pytest.mark.parametrize(
    "optimiser", [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam]
)


def close(found, right, dtype=np.float64, least=0.0):
    """Within 1e-12 (float64) or 1e-5 (float32) of the largest entry, or of `least`."""
    assert found.dtype == right.dtype == dtype
    assert found.shape == right.shape
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    scale = max(float(np.abs(right).max(initial=0.0)), least)
    np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance * scale)


def run_page(source, name, *arguments):
    space = {}
    exec(compile(source, "page.py", "exec"), space)
    return space[name](*arguments)


def check(function, arrays, dtype=np.float64):
    """Compare value and gradients of a function of named Nodes: graph, page, and fast form."""
    names = [f"p{i}" for i in range(len(arrays))]
    nodes = [Node(array.copy(), name) for array, name in zip(arrays, names, strict=True)]

    def closed():
        return function(*nodes)

    value = closed()
    gradients = value.grad()
    program = dp.capture(closed)
    for _ in range(2):  # the second time on buffers that the first one has used
        found, output = program()
        assert set(found) == set(gradients)
        close(output, value.value, dtype, least=1.0)
        for name in found:
            close(found[name], gradients[name], dtype, least=1.0)
    param = {node.name: node.value for node in nodes}
    page = run_page(program.source, "closed_gradients", param)
    close(page[1], value.value, dtype, least=1.0)
    for name in found:
        close(page[0][name], gradients[name], dtype, least=1.0)


# --- every operation ------------------------------------------------------------------------------


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


UNARY = {
    "tanh": Node.tanh,
    "sigmoid": Node.sigmoid,
    "relu": Node.relu,
    "softplus": Node.softplus,
    "square": Node.square,
    "negative": Node.__neg__,
    "gelu": Node.gelu,
    "elu": Node.elu,
    "leaky": Node.leaky_relu,
    "clip": lambda x: x.clip(-0.5, 0.7),
    "softmax": Node.softmax,
    "log_softmax": Node.log_softmax,
    "transpose twice": lambda x: x.T.tanh().T,
    "rows": lambda x: x[[2, 0, 0, 1]],
    "sum": lambda x: x + x.sum(axis=1),
    "mean": lambda x: x - x.mean(axis=0),
    "max": lambda x: x - x.max(axis=1),
    "plus": lambda x: x + 1.0,
    "times": lambda x: x * -0.5,
    "over": lambda x: x / 3.0,
    "layer 1": None,  # with weights and biases, see `grown`
    "layer 2": None,
    "layer 3": None,
}
BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / (b.square() + 1.0),
    "@": lambda a, b: a @ b.T @ b,
    "where": lambda a, b: p.where(a > b, a, b * 0.5),
}


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


# --- nets -----------------------------------------------------------------------------------------


def net_and_batch(seed=0, dtype=np.float64, n_outputs=1, **options):
    net = dp.Net(4, 5, 3, seed=seed, dtype=dtype, n_outputs=n_outputs, **options)
    y = Y if n_outputs == 1 else ONE_HOT
    members = () if np.ndim(seed) == 0 else (len(seed),)
    batch = [np.broadcast_to(part, (*members, *part.shape)).astype(dtype) for part in (X, y)]
    return net, *batch


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
@pytest.mark.parametrize("activation", dp.activations.ACTIVATIONS)
def test_a_step_of_every_activation(activation, seed, dtype):
    net, x, y = net_and_batch(seed, dtype, act_func=activation)
    right, loss = net.get_grad(x, y)
    found, output = dp.capture(net.loss, x, y)(x, y)
    close(output, loss.value, dtype)
    assert list(found) == list(right)
    for name in right:
        close(found[name], right[name], dtype)


@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
@pytest.mark.parametrize(
    ("loss", "reduction", "n_outputs", "normalisation", "residual"),
    list(itertools.product(
        ["cross_entropy", "squared_error"], ["sum", "mean"], [1, 3], ["none", "layer", "batch"],
        [False, True],
    )),
)  # fmt: skip
def test_a_step_of_every_net(seed, loss, reduction, n_outputs, normalisation, residual):
    net, x, y = net_and_batch(
        seed, n_outputs=n_outputs, loss=loss, reduction=reduction, normalisation=normalisation,
        residual=residual,
    )  # fmt: skip
    right, value = net.get_grad(x, y)
    found, output = dp.capture(net.loss, x, y)(x, y)
    close(output, value.value)
    for name in right:  # behind a normalisation a bias has the gradient 0, but for rounding
        close(found[name], right[name], least=0.0 if normalisation == "none" else 1.0)


def trained(compiled, optimiser=dp.SGD, steps=100, seed=0, dtype=np.float64, rate=None, **options):
    net = dp.Net(4, 5, 3, seed=seed, dtype=dtype, **options)
    hyperparam = {} if rate is None else {"alpha": rate}
    sgd = optimiser(net, X, Y, hyperparam, 8, seed=seed, compile=compiled)
    last = sgd.train(steps, print_each=None)
    return net.get_param(), last, sgd.grad_stores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, [0, 1, 2]], ids=["one", "three"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "selu"])
@EACH_OPTIMISER
def test_a_hundred_steps(optimiser, activation, seed, dtype):
    right = trained(False, optimiser, seed=seed, dtype=dtype, act_func=activation, rate=0.01)
    found = trained(True, optimiser, seed=seed, dtype=dtype, act_func=activation, rate=0.01)
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(found[1], right[1], rtol=tolerance, atol=tolerance)
    for name in right[0]:
        np.testing.assert_allclose(found[0][name], right[0][name], rtol=tolerance, atol=tolerance)
    assert len(found[2]) == len(right[2])
    for ours, theirs in zip(found[2], right[2], strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            scale = np.abs(theirs[name]).max()
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=tolerance, atol=tolerance * scale
            )


def test_a_member_does_not_depend_on_the_others():
    together = trained(True, seed=[3, 4, 5], act_func="tanh")[0]
    apart = trained(True, seed=[5, 3], act_func="tanh")[0]
    alone = trained(True, seed=5, act_func="tanh")[0]
    for name, value in alone.items():
        np.testing.assert_allclose(together[name][2], value, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(apart[name][0], value, rtol=1e-12, atol=1e-14)


# --- pages to read --------------------------------------------------------------------------------


def test_the_page_of_a_small_net():
    net = dp.Net(4, 3, 1, "tanh", seed=0)
    assert (
        dp.capture(net.loss, X, Y).source
        == """\
import numpy as np


@np.errstate(over="ignore")
def loss_gradients(x, y, param):
    h1_weight = param["h1_weight"]
    h1_bias = param["h1_bias"]
    out_weight = param["out_weight"]
    out_bias = param["out_bias"]

    # layer h1: 4 -> 3, tanh
    h1_pre = x @ h1_weight + h1_bias
    h1 = np.tanh(h1_pre)

    # layer out: 3 -> 1
    out_pre = h1 @ out_weight + out_bias

    # loss
    t1 = 1 - 2 * y
    t2 = out_pre * t1
    loss = np.logaddexp(t2, 0).sum(keepdims=True)

    # backward through the loss
    d_out_pre = 1 / (1 + np.exp(-t2)) * t1

    # backward through layer out
    d_out_bias = d_out_pre.sum(axis=0, keepdims=True)
    d_out_weight = h1.T @ d_out_pre
    d_h1 = d_out_pre @ out_weight.T

    # backward through layer h1, tanh
    d_h1_pre = d_h1 * (1 - h1 * h1)
    d_h1_bias = d_h1_pre.sum(axis=0, keepdims=True)
    d_h1_weight = x.T @ d_h1_pre

    return {
        "h1_weight": d_h1_weight,
        "h1_bias": d_h1_bias,
        "out_weight": d_out_weight,
        "out_bias": d_out_bias,
    }, loss
"""
    )


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "relu"])
def test_the_page_runs_with_numpy_alone(activation, tmp_path):
    net = dp.Net(4, 5, 2, activation, n_outputs=3, seed=0)
    right, loss = net.get_grad(X, ONE_HOT)
    np.savez(tmp_path / "given.npz", x=X, y=ONE_HOT, **net.get_param())
    page = dp.capture(net.loss, X, ONE_HOT).source
    script = f"""{page}
import sys
param = dict(np.load("given.npz"))
found, loss = loss_gradients(param.pop("x"), param.pop("y"), param)
np.savez("found.npz", loss=loss, **found)
assert "dp" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["loss"], loss.value)
    for name in right:
        np.testing.assert_array_equal(found[name], right[name])


@EACH_OPTIMISER
def test_the_page_of_a_whole_step(optimiser):
    class All_Rows(optimiser):
        def random_batch(self):
            return Node(X), Node(Y)

    net = dp.Net(4, 3, 2, "tanh", seed=0)
    eager = All_Rows(net, X, Y, batch_size=12)
    page = dp.capture(eager).source
    param = {name: value.copy() for name, value in net.get_param().items()}
    stores = [
        {name: np.zeros_like(value) for name, value in param.items()}
        for _ in range(optimiser.num_grad_stores)
    ]
    assert f"# {optimiser.__name__}\n" in page.replace("All_Rows", optimiser.__name__)
    for i in (1, 2, 3):
        arguments = [X, Y, param, *([stores] if stores else [])]
        run_page(page, "step", *arguments, *([i] if "stores, i)" in page else []))
    eager.train(3, print_each=None)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(param[name], value)


def test_a_captured_step_makes_steps():
    net, other = (dp.Net(4, 3, 2, "tanh", seed=0) for _ in range(2))
    step = dp.capture(dp.Adam(net, X, Y, batch_size=12))
    for number in (1, 2):
        gradients, loss = step(X, Y, number)

    class All_Rows(dp.Adam):
        def random_batch(self):
            return Node(X), Node(Y)

    right, value = None, None
    seen = []
    adam = All_Rows(other, X, Y, callbacks=[lambda s: seen.append((s.grad, s.loss.value))])
    adam.train(2, print_each=None)
    right, value = seen[-1]
    close(loss, value)
    for name in right:
        close(gradients[name], right[name])
        close(net.get_param()[name], other.get_param()[name])
    with pytest.raises(dp.ShapeError, match=r"'x' was captured with shape \(12, 4\)"):
        step(X[:3], Y[:3])


# --- what cannot be captured ----------------------------------------------------------------------


def with_loss(loss):
    class Line(dp.Model):
        def __init__(self):
            super().__init__(seed=0)
            self.out = self.Linear_Layer(4, 1, "out")

    Line.loss = loss
    return Line()


RANDOM = np.random.default_rng(0)


def dropout(self, x, y):
    kept = np.random.rand(*x.shape) > 0.5
    return (self.out(x * kept) - y).square().sum()


def own_dropout(self, x, y):
    kept = RANDOM.random(x.shape) > 0.5
    return (self.out(x * kept) - y).square().sum()


def centred_outside(self, x, y):
    return (self.out(x - x.value.mean(axis=0, keepdims=True)) - y).square().sum()


def branching(self, x, y):
    error = (self.out(x) - y).square().sum()
    return error if error > 1.0 else error * 0.5


def hard_rows(self, x, y):
    error = (self.out(x) - y).square()
    return error[np.argsort(error.value[:, 0])[:2]].sum()


def branching_outside(self, x, y):
    h = self.out(x)
    return (h.tanh() if x.value[0, 0] == x.value[1, 0] else h).sum()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (dropout, "'loss' draws random numbers|'dropout' draws random numbers"),
        (own_dropout, "a constant of shape .* differs from call to call: it is random"),
        (centred_outside, "was computed from node.value"),
        (branching, "the truth of .* was asked for"),
        (lambda self, x, y: self.out(x).sum() * float(self.out(x).sum()), "the number of"),
        (hard_rows, "settings or operands of 'take' differ"),
        (branching_outside, "does .* for one batch and .* for another"),
        (lambda self, x, y: 3.0, "must give a Node to be captured, got float"),
    ],
)
def test_what_a_program_would_freeze_is_refused(loss, words):
    model = with_loss(loss)
    with refused(dp.CaptureError, words):
        dp.capture(model.loss, X, Y)
    with refused(dp.CaptureError, words):
        dp.SGD(model, X, Y, seed=0, compile=True).train(2, print_each=None)


def test_other_shapes_and_types_are_refused():
    net, x, y = net_and_batch()
    program = dp.capture(net.loss, x, y)
    with refused(dp.ShapeError, r"'x' was captured with shape \(12, 4\), got \(3, 4\)"):
        program(x[:3], y[:3])
    with refused(TypeError, "'x' was captured as float64, got float32"):
        program(x.astype(np.float32), y)
    with refused(TypeError, "takes 2 arguments, got 1"):
        program(x)
    assert program(x.astype(int), y)[1].dtype == np.float64


def test_a_column_of_labels_by_mistake_a_row():
    net, x, y = net_and_batch()
    with refused(dp.ShapeError, "the labels have shape"):
        dp.capture(net.loss, x, y.T)


class Own_Train(dp.SGD):
    def _train(self, *arguments):
        return None


def test_subclasses_that_a_program_would_pass_over():
    net, x, y = net_and_batch()
    with refused(ValueError, "Own_Train has its own _train"):
        Own_Train(net, x, y, compile=True)

    class Own_Grad(dp.Net):
        def get_grad(self, x, y):
            return super().get_grad(x, y)

    with refused(dp.CaptureError, "Own_Grad has its own get_grad"):
        dp.SGD(Own_Grad(4, 3, 1, seed=0), x, y, compile=True).train(1, print_each=None)
    with refused(TypeError, "the model must have get_param"):
        dp.SGD(object(), x, y, compile=True).train(1, print_each=None)


def test_a_named_node_that_is_no_parameter_would_be_frozen():
    model = with_loss(lambda self, x, y: (self.out(x) * Node(2.0, "scale") - y).square().sum())
    with refused(dp.CaptureError, "no parameters of the model: scale"):
        dp.SGD(model, X, Y, seed=0, compile=True).train(1, print_each=None)


def test_labels_are_looked_at_although_the_steps_do_not():
    y = Y.copy()
    y[7] = 0.5
    with refused(ValueError, "labels of the binary cross-entropy must be 0 or 1, got 0.5"):
        dp.SGD(dp.Net(4, 3, 1, seed=0), X, y, batch_size=1, seed=0, compile=True).train(1, None)


# --- training with compile=True -------------------------------------------------------------------


def test_it_prints_what_eager_training_prints(capsys):
    printed = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 1, "tanh", seed=0)
        dp.SGD(net, X, Y, seed=0, compile=compiled).train(30, print_each=10)
        printed.append(capsys.readouterr().out.split())
    assert [float(a) for a in printed[0][2:]] == pytest.approx([float(b) for b in printed[1][2:]])
    assert printed[0][:2] == printed[1][:2] == ["iteration", "loss"]


class Watching(dp.Callback):
    def __init__(self):
        self.seen = []

    def before_update(self, step):
        self.seen.append({name: value.copy() for name, value in step.param.items()})

    def after_update(self, step):
        self.seen.append(step)


@EACH_OPTIMISER
def test_callbacks_see_the_same(optimiser):
    runs = []
    for compiled in (False, True):
        net, watching = dp.Net(4, 3, 2, "tanh", seed=0), Watching()
        kept = []
        optimiser(
            net, X, Y, batch_size=8, seed=0, compile=compiled, callbacks=[watching, kept.append]
        ).train(5, print_each=None)
        assert kept == watching.seen[1::2]
        runs.append(watching.seen)
    for right, found in zip(*runs, strict=True):
        if isinstance(right, dict):
            for name in right:
                close(found[name], right[name])
        else:
            assert found.number == right.number
            for part in ("x", "y", "loss"):
                close(getattr(found, part).value, getattr(right, part).value)
            for name in right.grad:  # of every step, so they were copies
                close(found.grad[name], right.grad[name])


def test_a_callback_may_change_the_parameters():
    results = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 2, "tanh", seed=0)

        def clip(step, net=net):
            for value in net.get_param().values():
                np.clip(value, -0.1, 0.1, out=value)

        dp.SGD(net, X, Y, {"alpha": 0.1}, seed=0, compile=compiled, callbacks=[clip]).train(5, None)
        results.append(net.get_param())
    for name, value in results[0].items():
        assert np.abs(value).max() <= 0.1
        close(results[1][name], value)


class Interrupted(dp.Callback):
    def before_update(self, step):
        if step.number == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize("seed", [None, 0, [0, 1]])
def test_an_interrupt_leaves_everything_as_eager_training_would(seed):
    results = []
    for compiled in (False, True):
        np.random.seed(0)
        net = dp.Net(4, 3, 2, "tanh", seed=seed)
        adam = dp.Adam(net, X, Y, seed=seed, compile=compiled, callbacks=[Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            adam.train(10, print_each=None)
        adam.callbacks.clear()
        adam.train(5, print_each=None)  # with the batches that come next
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)


class Growing_Batches(dp.Adam):
    def random_batch(self):
        self.calls = getattr(self, "calls", 0) + 1
        rows = np.arange(4 + self.calls % 3)
        return Node(self.x_train[rows]), self.y_train[rows]


def test_batches_of_several_shapes_are_captured_anew():
    results = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 2, "tanh", seed=0)
        Growing_Batches(net, X, Y, compile=compiled).train(9, print_each=None)
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)


class Weights_Only(dp.SGD):
    def _update(self, param, grad, g, i):
        if g.endswith("_weight"):
            param[g] = param[g] - self.alpha * np.sign(grad[g])


def test_an_update_of_ones_own():
    results = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 2, "tanh", seed=0)
        live = net.get_param()
        Weights_Only(net, X, Y, seed=0, compile=compiled).train(9, print_each=None)
        assert all(net.get_param()[name] is live[name] for name in live)
        results.append(live)
    for name, value in results[0].items():
        close(results[1][name], value)


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
        for third, *parts in zip(self.third, b, c, strict=True):
            total = total + sum((third(part) - y).square().mean() for part in parts)
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


def test_gradients_of_equal_layers_are_one_product():
    net = dp.Net(4, 5, 8, "sigmoid", seed=0)
    source = one_step(dp.SGD(net, X, Y, batch_size=6)).fast_source
    assert source.count("matmul") == 1
    assert source.count("deltas") == 1


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("batch", [64, 96, 127, 400, 2000])  # some too few, too many, or odd
@pytest.mark.parametrize("features", [120, 6])
def test_products_are_made_in_parts_where_there_are_kernels_for_small_ones(
    features, batch, kernels, monkeypatch
):
    monkeypatch.setattr(products, "has_small_kernels", lambda: kernels)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(batch, features)), np.eye(9)[rng.integers(0, 9, batch)]
    net = dp.Net(features, 120, 3, "tanh", n_outputs=9, seed=0, dtype=np.float32)
    step = one_step(dp.SGD(net, x, y, batch_size=batch))
    rows = rng.integers(0, batch, batch)
    x, y = x[rows].astype(np.float32), y[rows].astype(np.float32)
    right, loss = net.get_grad(Node(x), Node(y))
    found, value = step(x, y)
    close(value, loss.value, np.float32)
    for name in right:
        close(found[name], right[name], np.float32)
    # 120 x 121 x 96 is 1.4 million, and the last one's 9 x 121 x 2000 is 2.2 million
    assert ("_parts" in step.fast_source) == (kernels and batch in (96, 2000))


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((100, 101, 128), 2),
        ((128, 129, 128), 4),  # three do not divide it
        ((10, 1025, 256), 4),  # few rows
        ((100, 100, 100), None),  # a small kernel does it whole
        ((200, 201, 256), None),  # so large that repacking pays
        ((100, 101, 127), None),
        ((500, 501, 8), None),  # too few columns
    ],
)
def test_how_a_product_is_parted(shape, parts, monkeypatch):
    monkeypatch.setattr(products, "has_small_kernels", lambda: True)
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    out = np.zeros((m + 1, n), np.float32)[:-1]
    found = products.in_parts(a, b, out)
    assert (found is None) == (parts is None)
    assert products.in_parts(a, np.asfortranarray(b), out) is None
    assert products.in_parts(a.astype(float), b.astype(float), out.astype(float)) is None
    if found is not None:
        assert [len(stack) for stack in found] == [parts, parts]
        np.matmul(a, *found)
        np.testing.assert_allclose(out, a @ b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("blas", "baseline", "found", "there"),
    [
        ("scipy-openblas", ["X86_V2"], ["X86_V3", "X86_V4"], True),
        ("openblas64", ["SSE"], ["AVX2", "AVX512F", "AVX512_SKX"], True),
        ("scipy-openblas", ["X86_V4"], [], True),
        ("scipy-openblas", ["X86_V2"], ["X86_V3"], False),
        ("mkl-sdl", ["X86_V2"], ["X86_V3", "X86_V4"], False),
        ("accelerate", ["NEON"], ["ASIMDHP"], False),
    ],
)
def test_where_there_are_kernels_for_small_products(blas, baseline, found, there, monkeypatch):
    built = {
        "Build Dependencies": {"blas": {"name": blas}},
        "SIMD Extensions": {"baseline": baseline, "found": found},
    }
    assert products.has_small_kernels() in (True, False)
    monkeypatch.setattr(np, "show_config", lambda mode: built)
    assert products.has_small_kernels.__wrapped__() is there


def test_gradients_of_large_layers_follow_their_deltas():
    net = dp.Net(4, 100, 8, "tanh", seed=0)
    sgd = dp.SGD(net, X, Y, batch_size=128)
    kinds = [
        "gradient" if "d_block" in line else "delta"
        for line in one_step(sgd).fast_source.partition("divide")[2].splitlines()
        if "dot" in line
    ]
    assert kinds == ["gradient", "delta"] * 8 + ["gradient"]


def test_parameters_of_several_dtypes_are_refused():
    a, b = Node(np.ones((2, 2)), "a"), Node(np.ones((2, 2), np.float32), "b")
    program = dp.capture(lambda: (a @ b).sum())
    with refused(dp.CaptureError, "several dtypes"):
        program()


def test_a_model_with_weights_used_twice_and_a_penalty():
    class Shared(dp.Model):
        def __init__(self):
            super().__init__(seed=0)
            self.hidden = self.Linear_Layer(4, 4, "hidden")
            self.out = self.Linear_Layer(4, 1, "out")

        def loss(self, x, y):
            h = self.hidden(self.hidden(x).tanh()).tanh()
            return (self.out(h) - y).square().sum() + 0.1 * self.out.weight.square().sum()

    results = []
    for compiled in (False, True):
        net = Shared()
        dp.SGD(net, X, Y, {"alpha": 0.0003}, seed=0, compile=compiled).train(20, print_each=None)
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_anomalies_are_found_in_eager_steps():
    net = dp.Net(4, 3, 2, "tanh", seed=0)
    net.get_param()["h2_weight"][0, 0] = np.nan
    sgd = dp.SGD(net, X, Y, seed=0, compile=True)
    with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match="h2_weight"):
        sgd.train(1, print_each=None)
    with dp.no_grad(), pytest.raises(ValueError, match="inside no_grad"):
        sgd.train(1, print_each=None)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_the_same():
    found, right = (
        trained(compiled, steps=6, act_func="relu", rate=1e200) for compiled in (True, False)
    )
    np.testing.assert_array_equal(np.isnan(found[1]), np.isnan(right[1]))
    for name in right[0]:
        np.testing.assert_array_equal(np.isfinite(found[0][name]), np.isfinite(right[0][name]))


def test_many_steps_drawn_at_once_are_many_drawn_one_by_one():
    for seed in (0, [1, 2]):
        a, b = (dp.SGD(dp.Net(4, 3, 1, seed=seed), X, Y, seed=seed) for _ in range(2))
        at_once = a.draw_rows(7)
        for rows in at_once:
            np.testing.assert_array_equal(rows, b.draw_rows(1)[0])


def test_a_capture_is_cheap():
    """Less work than a hundred eager steps, counted in Nodes."""
    net, x, y = net_and_batch()
    made = []
    original = Node.record

    def counting(*arguments):
        made.append(1)
        return original(*arguments)

    Node.record = staticmethod(counting)
    try:
        dp.capture(net.loss, x, y)
        captured = len(made)
        made.clear()
        net.get_grad(x, y)
    finally:
        Node.record = staticmethod(original)
    assert captured < 10 * len(made)
    assert math.isfinite(captured)


# --- what was once wrong --------------------------------------------------------------------------


class Layers(dp.Model):
    """Layers a … f of one width, and a loss of one's own."""

    def __init__(self, loss, seed=0, dtype=np.float64, widths=(4, 4)):
        super().__init__(seed=seed, dtype=dtype)
        for name in "abcdef":
            setattr(self, name, self.Linear_Layer(*widths, name))
        self.out = self.Linear_Layer(widths[1], 1, "out")
        self._loss = loss

    def loss(self, x, y):
        return self._loss(self, x, y)


def rooted(h):
    return (h.square() + 1.0).sqrt()


def kept(h):
    return p.where(h > 0.1, h, 0.0)


def gates(m, x, y):
    g = m.c(x)
    return (m.out(m.a(x) * g.sigmoid() + m.b(x) * (1.0 - g.sigmoid())) - y).square().sum()


def scaled_inputs(m, x, y):
    parts = [m.out(layer(x * k).tanh()) - y for layer, k in ((m.a, 2.0), (m.b, 3.0), (m.c, 4.0))]
    return sum(part.square().sum() for part in parts) + 0.1 * m.b.weight.square().sum()


def masks(m, x, y):
    v = kept(m.c(x))
    return (m.out(m.a(v) * kept(m.b(v))) - y).square().mean() + kept(v).sum() * 0.1


def roots(m, x, y):
    h = m.a(x)
    return (m.out(rooted(m.b(h))) - y).square().sum() + rooted(h).sum() * 0.1


def branches(m, x, y):
    h = m.a(x).tanh()
    return (m.out(h + m.b(h).tanh() + m.c(h).tanh()) - y).square().sum()


def without_a_stack(m, x, y):
    targets = [y * 2.0 + 1.0, y * 3.0 + 1.0]
    q = [layer(x).tanh() - t.tanh() for layer, t in zip((m.a, m.b), targets, strict=True)]
    return (q[0] * q[1]).concatenate(q[0].square()).sum()


LOSSES = {
    "two layers of one input": lambda m, x, y: (m.out(m.a(x) + m.b(x)) - y).square().sum(),
    "two layers of one input, added up": lambda m, x, y: (m.a(x) + m.b(x) - y).square().sum(),
    "blocks apart": scaled_inputs,
    "gates": gates,
    "a swish gate": lambda m, x, y: m.out(m.a(x).sigmoid() * m.b(x).silu()).square().sum(),
    "an input that all share": masks,
    "ones that must stay": roots,
    "branches": branches,
    "inputs without a stack": without_a_stack,
    "the same layer in a row": lambda m, x, y: m.out(m.a(m.a(m.a(x).tanh()).tanh())).sum(),
    "a loss of a parameter alone": lambda m, x, y: m.a.weight.square().sum() * 0.5,
}


@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize("seed", [0, [0], [0, 1]], ids=["one", "stack of one", "two"])
@pytest.mark.parametrize("name", LOSSES)
def test_graphs_of_many_forms(name, seed, rows):
    model, rng = Layers(LOSSES[name], seed), np.random.default_rng(rows)
    stack = () if seed == 0 or name == "inputs without a stack" else (len(seed),)
    batches = [
        (rng.normal(size=(*stack, rows, 4)), rng.normal(size=(*stack, rows, 1))) for _ in range(3)
    ]
    program = dp.capture(model.loss, *batches[0])
    for x, y in [batches[0], (batches[1][0] * np.nan, batches[1][1]), *batches]:
        with np.errstate(all="ignore"):
            right, loss = model.get_grad(Node(x), Node(y))
            found, value = program(x, y)
            page = run_page(program.source, "loss_gradients", x, y, model.get_param())
        if np.isfinite(loss.value).all():
            largest = max(np.abs(g).max() for g in right.values())
            for given, output in ((found, value), page):
                close(output, loss.value, least=1.0)
                for parameter in right:
                    close(given[parameter], right[parameter], least=largest)
        for value in model.get_param().values():
            value += 0.01 * rng.normal(size=value.shape)


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


@st.composite
def models(draw):
    """Rows, members, dtype, and operations between layers that may be used again and again."""
    operations = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["layer", "unary", "binary"]),
                st.integers(0, 99),
                st.integers(0, 99),
                st.integers(0, 99),
            ),
            min_size=2,
            max_size=16,
        )
    )
    few = draw(st.lists(st.sampled_from(sorted(set(UNARY) - {"layer 1", "layer 2", "layer 3"})),
                        min_size=1, max_size=3))  # fmt: skip
    return (
        operations,
        few,
        draw(st.sampled_from([1, 2, 5])),
        draw(st.sampled_from([0, [0], [0, 1]])),
    )


@settings(max_examples=150, deadline=None)
@given(described=models(), number=st.integers(0, 3))
def test_random_models(described, number):
    operations, few, rows, seed = described

    def loss(m, x, y):
        values = [x, m.a(x), m.b(x)]
        for kind, which, first, second in operations:
            one, other = values[-1 - first % len(values)], values[-1 - second % len(values)]
            if kind == "layer":
                values.append(getattr(m, "abcdef"[which % 6])(one))
            elif kind == "unary" and not (few[which % len(few)] == "rows" and rows < 3):
                values.append(UNARY[few[which % len(few)]](one))
            elif one.shape == other.shape:
                values.append(list(BINARY.values())[which % len(BINARY)](one, other))
        return (m.out(values[-1]).mean() + values[len(values) // 2].mean()).tanh()

    model, rng = Layers(loss, seed), np.random.default_rng(number)
    stack = () if seed == 0 else (len(seed),)
    x, y = rng.normal(size=(*stack, rows, 4)), np.zeros((*stack, rows, 1))
    with np.errstate(all="ignore"):
        right, value = model.get_grad(Node(x), Node(y))
        largest = max(float(np.abs(g).max()) for g in right.values())
        if not largest < 100.0:
            return
        program = dp.capture(model.loss, x, y)
        step = TrainingStep(dp.SGD(model, X, Y, {"alpha": 1e-300}), x, y, 0)
        for given in (program, program, step, step):
            found, output = given(x, y)
            close(output, value.value, least=1.0)
            for name in right:
                np.testing.assert_allclose(found[name], right[name], rtol=1e-9, atol=1e-9)


# --- as without compile ---------------------------------------------------------------------------


def alike(make, run, optimiser=dp.SGD, **options):
    """Train eagerly and compiled, and compare what is left."""
    results = []
    for compiled in (False, True):
        np.random.seed(0)
        model = make()
        opt = optimiser(model, X, Y, {"alpha": 0.01}, 8, compile=compiled, **options)
        run(opt)
        following = np.random.rand() if opt._streams is None else opt._streams[0].random()
        results.append((model.get_param(), opt.grad_stores, following))
    (right, stores, number), (found, other, again) = results
    for name in right:
        close(found[name], right[name], least=1.0)
    assert [list(store) for store in stores] == [list(store) for store in other]
    assert number == again


class Clipping(dp.Callback):
    def before_update(self, step):
        for name in step.grad:
            step.grad[name] = np.clip(step.grad[name], -0.01, 0.01)


@pytest.mark.parametrize("optimiser", [dp.SGD, dp.Adam, Weights_Only])
def test_gradients_that_a_callback_clips(optimiser):
    alike(
        lambda: dp.Net(4, 3, 2, "tanh", seed=0),
        lambda opt: opt.train(9, print_each=None),
        optimiser,
        seed=0,
        callbacks=[Clipping()],
    )


class Best(dp.Callback):
    """Puts other parameters back, and stops."""

    def __init__(self, when):
        self.when = when

    def stop(self, step):
        if step.number == 3:
            for value in step.param.values():
                value[...] = 0.125
            raise StopIteration

    def before_update(self, step):
        if self.when == "before":
            self.stop(step)

    def after_update(self, step):
        if self.when == "after":
            self.stop(step)


@pytest.mark.parametrize("when", ["before", "after"])
def test_parameters_that_a_callback_puts_back_before_it_raises(when):
    def run(opt):
        with pytest.raises(StopIteration):
            opt.train(9, print_each=None)

    make = lambda: dp.Net(4, 3, 2, "tanh", seed=0)  # noqa: E731
    alike(make, run, seed=0, callbacks=[Best(when)])


@pytest.mark.parametrize("seed", [None, 0])
def test_streams_go_on_where_eager_training_leaves_them(seed):
    class Stop(dp.ProgramCallback):
        def before_update(self, step):
            if step.number == 5:
                raise KeyboardInterrupt

        def before_program_update(self, number, step):
            if number == 5:
                raise KeyboardInterrupt

    def run(opt):
        with pytest.raises(KeyboardInterrupt):
            opt.train(50, print_each=None)
        opt.callbacks.clear()
        opt.batch_size = 5
        opt.train(3, print_each=None)

    alike(lambda: dp.Net(4, 3, 2, "tanh", seed=0), run, seed=seed, callbacks=[Stop()])


def test_callbacks_that_draw_numbers_or_change_the_batch():
    def draw(step):
        np.random.rand()
        opt_of[0].batch_size = 3 + step.number % 2

    opt_of = []

    def run(opt):
        opt_of[:] = [opt]
        opt.train(6, print_each=None)

    alike(lambda: dp.Net(4, 3, 2, "tanh", seed=0), run, callbacks=[draw])


def test_stores_of_parameters_that_are_not_trained():
    class Partly(Layers):
        def __init__(self):
            super().__init__(lambda m, x, y: (m.out(m.a(x)) - y).square().sum())

    alike(Partly, lambda opt: opt.train(3, print_each=None), dp.Adam, seed=0)


class Annealed(Layers):
    def __init__(self):
        super().__init__(lambda m, x, y: ((m.out(m.a(x)) - y).square() * m.beta).sum())
        self.beta = 1.0


def test_what_changes_while_training_is_found():
    def run(opt):
        opt.callbacks.append(lambda step: setattr(opt.model, "beta", opt.model.beta * 0.5))
        opt.train(9, print_each=None)

    alike(Annealed, run, dp.Adam, seed=0)


@pytest.mark.parametrize(
    "loss",
    [
        lambda m, x, y: m.out(x).sum() + (m.a.weight * m.a.weight.value.copy()).sum(),
        lambda m, x, y: m.out(x).sum() * float(1.0 / (1.0 + np.abs(m.out.weight.value).sum())),
    ],
)
def test_numbers_taken_from_parameters_are_found(loss):
    with refused(dp.CaptureError, "was computed from node.value"):
        dp.capture(Layers(loss).loss, X, Y)


def test_arguments_of_another_dtype_stay_arguments():
    net = dp.Net(4, 3, 2, "tanh", seed=0, dtype=np.float32)
    for rows in (1, 12):
        program = dp.capture(net.loss, X[:rows], Y[:rows])
        for sign in (1.0, -1.0):
            right, loss = net.get_grad(sign * X[:rows], Y[:rows])
            found, value = program(sign * X[:rows], Y[:rows])
            close(value, loss.value, np.float32)
            for name in right:
                close(found[name], right[name], np.float32)


def test_one_row_at_a_time():
    alike(
        lambda: dp.Net(4, 3, 2, "tanh", seed=0),
        lambda opt: (setattr(opt, "batch_size", 1), opt.train(9, print_each=None)),
        seed=0,
    )


def test_overridden_methods_that_a_program_would_pass_over():
    class Projected(dp.Net):
        def set_param(self, param):
            super().set_param({name: np.clip(v, -1, 1) for name, v in param.items()})

    with refused(dp.CaptureError, "Projected has its own set_param"):
        dp.SGD(Projected(4, 3, 1, seed=0), X, Y, compile=True).train(1, print_each=None)

    class Noisy(dp.SGD):
        def _batch(self, data, rows):
            return Node(super()._batch(data, rows).value * 0.5 if data is X else data[rows])

    alike(lambda: dp.Net(4, 3, 2, seed=0), lambda opt: opt.train(5, None), Noisy, seed=0)


def test_a_constant_loss():
    for compiled in (False, True):
        with refused(ValueError, "depends on none of its parameters"):
            sgd = dp.SGD(Layers(lambda m, x, y: Node(1.0) * 2.0), X, Y, seed=0, compile=compiled)
            sgd.train(1, print_each=None)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["value", "run", "tanh", "add", "t1", "c1", "np", "param", "copyto"]
)
def test_arguments_of_any_name(name):
    space = {"np": np, "p": p, "MASK": np.arange(4.0)}
    exec(f"def function({name}):\n    h = {name}.tanh() + MASK.reshape(1, 4)\n"
         f"    return (h * h.sigmoid() * {name}).sum()", space)  # fmt: skip
    program = dp.capture(space["function"], X, gradient=False)
    right = space["function"](Node(X)).value
    close(program(X), right)
    close(run_page(program.source, "function", X), right)


@pytest.mark.parametrize("name", ['a"b', "a\nb", "h²", "1", "class", "t1", "c1", "a b", "w"])
def test_layers_of_any_name(name):
    class Odd(dp.Model):
        def __init__(self):
            super().__init__(seed=0)
            self.odd = self.Linear_Layer(4, 1, name)

        def loss(self, x, y):
            return ((self.odd(x) - y) * np.arange(12.0).reshape(-1, 1)).square().sum()

    model = Odd()
    right, _ = model.get_grad(X, Y)
    program = dp.capture(model.loss, X, Y)
    found, _ = program(X, Y)
    page, _ = run_page(program.source, "loss_gradients", X, Y, model.get_param())
    for key in right:
        close(found[key], right[key])
        close(page[key], right[key])


def test_constants_that_are_not_finite():
    mask = np.where(np.eye(4) > 0, 0.0, -np.inf)

    def attention(x):
        return (x @ x.T + mask).softmax().sum()

    program = dp.capture(attention, X[:4], gradient=False)
    right = attention(Node(X[:4])).value
    close(program(X[:4]), right)
    close(run_page(program.source, "attention", X[:4]), right)


def test_a_sigmoid_is_quiet():
    net = dp.Net(4, 3, 1, "sigmoid", seed=0)
    net.get_param()["h1_weight"][...] = -5000.0
    dp.capture(net.loss, X, Y)(X, Y)
    with np.errstate(over="raise"):
        dp.SGD(net, X, Y, seed=0, compile=True).train(2, print_each=None)
