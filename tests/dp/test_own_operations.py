"""Operations of your own: declared, or added as in the course's first dp, and never wrong."""

import pickle

import numpy as np
import pytest
from tests.dp.cases import refused

import dp
from dp import Node
from dp import primitives as p

X = np.random.default_rng(0).normal(size=(6, 3))
Y = np.sin(X.sum(axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    for name in set(p.TABLE) - p.LIBRARY:
        del p.TABLE[name]


def sine(name="sine"):
    return dp.declare(name, np.sin, lambda g, y, x: g * np.cos(x))


# --- declare --------------------------------------------------------------------------------------


def test_an_operation_in_three_lines():
    w = Node(2.0, "w")
    output = 3 * sine()(w) + w
    assert output.item() == pytest.approx(3 * np.sin(2.0) + 2.0)
    assert output.grad()["w"].item() == pytest.approx(3 * np.cos(2.0) + 1.0)
    assert "sine" in repr(sine()(w))
    np.testing.assert_array_equal(sine()(X), np.sin(X))


@pytest.mark.parametrize(
    ("made", "shapes"),
    [
        (sine, [(6, 3)]),
        (
            lambda: dp.declare(
                "scaled_product",
                lambda a, b, k: k * a * b,
                lambda g, y, a, b, k: k * g * b,
                lambda g, y, a, b, k: k * g * a,
            ),
            [(6, 3), (1, 3)],
        ),
        (
            lambda: dp.declare(
                "row_sum",
                lambda x: x.sum(axis=-1, keepdims=True),
                lambda g, y, x: p.broadcast_to(g, shape=x.shape),
            ),
            [(6, 3)],
        ),
        (
            lambda: dp.declare(
                "logistic", lambda x: 1 / (1 + np.exp(-x)), lambda g, y, x: g * y * (1 - y)
            ),
            [(2, 6, 3)],
        ),
    ],
    ids=["sine", "two operands and a setting", "over the rows", "written with y"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_first_and_second_order(made, shapes, dtype):
    operation = made()
    settings = {"k": 3.0} if operation.name == "scaled_product" else {}
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape) for shape in shapes]

    def slopes(*nodes):
        found = dp.gradients(operation(*nodes, **settings).tanh(), nodes, 0.7, create_graph=True)
        return sum((g.sin().sum() for g in found), start=Node(0.0))

    dp.check_gradient(lambda *nodes: operation(*nodes, **settings), *arrays)
    dp.check_gradient(slopes, *arrays)
    nodes = [Node(array.astype(dtype), f"p{i}") for i, array in enumerate(arrays)]
    output = operation(*nodes, **settings)
    assert output.dtype == dtype
    assert all(g.dtype == dtype for g in output.grad().values())
    assert not any(g.any() for g in (operation(*nodes, **settings) * 0.0).grad().values())


def test_declaring_again_replaces():
    first = sine("mine")
    old = first(Node(0.5, "w"))
    second = dp.declare("mine", np.cos, lambda g, y, x: -g * np.sin(x))
    assert p.TABLE["mine"] is second
    assert second(Node(0.5, "w")).grad()["w"].item() == pytest.approx(-np.sin(0.5))
    assert old.grad()["w"].item() == pytest.approx(np.cos(0.5))
    # two of one name in one graph are two still, in a program as well
    x = Node([[0.3, 0.4]], "x")
    both = dp.capture(lambda: (first(x) * 2.0 + second(x)).sum())
    found, value = both()
    np.testing.assert_allclose(value, (2 * np.sin(x.value) + np.cos(x.value)).sum(keepdims=True))
    np.testing.assert_allclose(found["x"], 2 * np.cos(x.value) - np.sin(x.value))
    with refused(dp.CaptureError, "'mine' has been declared anew"):
        _ = both.source


@pytest.mark.parametrize("name", ["tanh", "dot", "sin", "where"])
def test_the_librarys_own_are_not_replaced(name):
    before = p.TABLE[name]
    with refused(ValueError, f"'{name}' is already in the table", "another name"):
        dp.declare(name, np.tanh, lambda g, y, x: g)
    assert p.TABLE[name] is before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", np.sin, None), "needs a name"),
        ((np.sin, "sine", None), "needs a name"),
        (("sine", "sin", None), "kernel of 'sine'.*'sin'"),
        (("sine", np.sin), "needs one rule for each operand"),
        (("sine", np.sin, np.ones(1)), "a rule of 'sine' must be a function or None"),
    ],
)
def test_declarations_without_an_operation_are_refused(arguments, words):
    with refused(TypeError, words):
        dp.declare(*arguments)
    assert "sine" not in p.TABLE


def changes(x):
    x *= 2.0
    return x


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (lambda x: x.sum(axis=1), r"\(6,\).*keepdims=True"),
        (lambda x: x.sum(), r"\(\).*keepdims=True"),
        (lambda x: x + 1j, "real numbers.*complex"),
        (lambda x: None, "real numbers.*object"),
        (changes, "changes its operand in place"),
    ],
)
def test_kernels_that_would_give_wrong_numbers_elsewhere(kernel, words):
    operation, x = dp.declare("own", kernel, lambda g, y, x: g), Node(X)
    with refused(TypeError, "kernel of 'own'", words):
        operation(x)
    np.testing.assert_array_equal(x.value, np.random.default_rng(0).normal(size=(6, 3)))


def test_an_operand_without_a_rule_is_refused():
    operation = dp.declare("own", np.multiply, lambda g, y, a, b: g * b)
    with refused(TypeError, "'own' was declared with 1 rule", "2 operand"):
        operation(Node(X, "x"), Node(X, "z"))


def test_a_column_with_a_row_is_refused_where_entries_stand_alone():
    operation = dp.declare(
        "own", np.add, lambda g, y, a, b: g, lambda g, y, a, b: g, elementwise=True
    )
    with refused(dp.ShapeError, "a column meets a row"):
        operation(Node(np.ones((3, 1))), Node(np.ones((1, 3))))


def test_integers_become_floats_and_graphs_are_pickled():
    counts = dp.declare("own", lambda x: (x > 0).sum(axis=(-2, -1), keepdims=True), None)
    assert counts(Node(X.astype(np.float32))).dtype.kind == "f"
    node = sine()(Node(0.5, "w"))
    again = pickle.loads(pickle.dumps(node))
    assert again.grad()["w"] == node.grad()["w"]
    data = pickle.dumps(node)
    del p.TABLE["sine"]
    with refused(LookupError, "'sine'", "declared again"):
        pickle.loads(data)


class With_Own(dp.Model):
    def __init__(self, operation, **options):
        super().__init__(**options)
        self.operation = operation
        self.a = self.Linear_Layer(3, 4, "a")
        self.gain = self.Parameter([[1.0, 2.0, 3.0, 4.0]], "gain")
        self.b = self.Linear_Layer(4, 1, "b")

    def forward(self, x):
        h = self.a(x)
        return self.b(self.operation(h) * self.gain.sin() + h.maximum(0.1).logsumexp(axis=1))

    def loss(self, x, y):
        return dp.where(
            self.forward(x) > y, self.forward(x) - y, 0.5 * (y - self.forward(x))
        ).mean()


@pytest.mark.parametrize("kind", [dp.SGD, dp.Adam])
@pytest.mark.parametrize("seed", [0, [0, 5]])
def test_it_is_trained_compiled_as_eagerly(kind, seed):
    found = []
    for compiled in (False, True):
        model = With_Own(sine(), seed=seed)
        kind(model, X, Y, {"alpha": 0.05}, 4, seed=seed, compile=compiled).train(
            40, print_each=None
        )
        found.append(model.get_param())
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-9, atol=1e-12)


def test_the_page_calls_it():
    model = With_Own(sine(), seed=0)
    program = dp.capture(model.loss, X, Y)
    space: dict = {}
    exec(program.source, space)
    gradients, loss = space["loss_gradients"](X, Y, model.get_param())
    right, value = model.get_grad(X, Y)
    np.testing.assert_allclose(loss, value.value)
    for name, g in right.items():
        np.testing.assert_allclose(gradients[name], g, atol=1e-14)


# --- the ways of the first dp ---------------------------------------------------------------------


class Extended(Node):
    """As the course's first dp was extended: a closure as `grad`."""

    def sin(self):
        made = Extended(np.sin(self.value))
        made.grad = lambda g: self.grad(np.cos(self.value) * g)
        return made

    def swish(self):
        made = Node(self.value / (1 + np.exp(-self.value)))
        made.grad = lambda g: self.grad(g)
        return made


@pytest.mark.parametrize("made", [Extended.sin, Extended.swish])
def test_a_closure_as_grad_shows_the_way(made):
    with refused(AttributeError, "grad of a Node cannot be set", r"dp\.declare\(\"sine\", np\.sin"):
        3 * made(Extended(2.0, "w"))


def test_the_way_that_is_shown_works():
    with pytest.raises(AttributeError) as caught:
        Node(1.0).grad = None
    lines = [line.strip() for line in str(caught.value).splitlines()]
    space = {"dp": dp, "np": np, "w": Node(2.0, "w")}
    exec(
        "\n".join(line for line in lines if " = dp.declare" in line or line == "y = sine(w)"), space
    )
    assert space["y"].grad()["w"].item() == pytest.approx(np.cos(2.0))


def test_a_subclass_that_adds_operations_composed_of_others():
    class Composed(Node):
        def swish(self):
            return self * self.sigmoid()

        def sin(self):
            return super().sin() * 1.0

    w = Composed(2.0, "w")
    assert (3 * w.sin() + w).grad()["w"].item() == pytest.approx(3 * np.cos(2.0) + 1)
    assert w.swish().grad()["w"].item() == pytest.approx(Node(2.0, "w").silu().grad()["w"].item())
    with refused(AttributeError, "no 'swish'", "dp.declare"):
        _ = (w * 2).swish()


OVERRIDES = {
    "sin": lambda self: Node(np.sin(self.value)),
    "__mul__": lambda self, other: Node(self.value * getattr(other, "value", other)),
    "__add__": lambda self, other: Node(self.value) + other,
    "sum": lambda self, axis=None: type(self)(self.value.sum()),
    "dot": lambda self, other: Node(self.value @ other),
    "__getitem__": lambda self, index: Node(self.value[index]),
    "T": property(lambda self: Node(self.value.T)),
}
USES = {
    "sin": lambda w: w.sin(),
    "__mul__": lambda w: w * 2.0,
    "__add__": lambda w: w + Node([[1.0, 2.0]], "v"),
    "sum": lambda w: w.sum(),
    "dot": lambda w: w @ np.ones((2, 1)),
    "__getitem__": lambda w: w[:, :1],
    "T": lambda w: w.T,
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_that_forgets_its_operand_is_refused(name):
    kind = type("Forgetful", (Node,), {name: OVERRIDES[name]})
    w = kind([[1.0, 2.0]], "w")
    with refused(TypeError, f"Forgetful.{name}", "does not remember", "dp.declare"):
        USES[name](w)
    with dp.no_grad():
        USES[name](w)


@pytest.mark.parametrize(
    "name",
    "grad record value parents primitive settings name shape __eq__ __hash__".split(),  # noqa: SIM905
)
def test_what_the_sweep_relies_on_is_not_overridden(name):
    for value in (lambda self, *_: 0.0, property(lambda self: 0.0)):
        with refused(TypeError, f"Own cannot override Node.{name}", "dp.declare"):
            type("Own", (Node,), {name: value})


def test_other_overrides_are_harmless():
    class Told(Node):
        notes: tuple = ()

        def __init__(self, value, note=""):
            super().__init__(value, "w")
            self.note = note

        def __repr__(self):
            return f"told {self.note}"

        def tanh(self):
            return super().tanh()

    w = Told([[0.5]], "something")
    assert repr(w) == "told something"
    assert w.tanh().grad()["w"] == Node([[0.5]], "w").tanh().grad()["w"]

    class Forgot_Super(Node):
        def __init__(self, value):
            self.value = np.array([[value]])

    with refused(AttributeError, "must call super"):
        (Forgot_Super(1.0) * 2).grad()


def test_a_sweep_goes_through_a_subclass_as_through_a_node():
    class Plain(Node):
        pass

    def f(kind):
        w = kind([[0.5, -1.0]], "w")
        return (np.ones((3, 1)) @ (w.tanh() * w)).sum()

    np.testing.assert_array_equal(f(Plain).grad()["w"], f(Node).grad()["w"])
