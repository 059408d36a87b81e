"""Every primitive and every function composed of them, checked in every way we know."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dp.cases import CASES, off_kinks, phi

import dp
from dp import Node
from dp import primitives as p

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def primitives_in(output):
    seen, stack = set(), [output]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.parents)
    return {node.primitive.name for node in seen if node.primitive is not None}


def test_the_table_is_covered():
    assert {case.primitive for case in CASES} - {None} == set(p.TABLE)


@every_case
def test_it_is_recorded_and_its_value_is_right(case):
    for shapes in case.shapes:
        arrays = case.arrays(shapes)
        output = case.function(*map(Node, arrays))
        if case.primitive is not None:
            assert case.primitive in primitives_in(output)
        if case.reference is not None:
            np.testing.assert_allclose(
                output.value, case.reference(*arrays), rtol=1e-14, atol=1e-15
            )


@every_case
def test_gradient_against_central_differences(case):
    for number, shapes in enumerate(case.shapes):
        dp.check_gradient(case.function, *case.arrays(shapes, seed=number), seed=100 + number)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_shape_of_gradients(case, dtype):
    for shapes in case.shapes:
        nodes = [Node(array) for array in case.arrays(shapes, dtype=dtype)]
        output = case.function(*nodes)
        assert output.dtype == dtype
        cotangent = np.random.default_rng(1).normal(size=output.shape).astype(np.float32)
        exact = [Node(array) for array in case.arrays(shapes)]
        expected = dp.gradients(case.function(*exact), exact, cotangent)
        found = dp.gradients(output, nodes, cotangent)
        recorded = dp.gradients(output, nodes, cotangent, create_graph=True)
        for node, g, again, right in zip(nodes, found, recorded, expected, strict=True):
            assert g.dtype == again.dtype == dtype
            assert g.shape == again.shape == node.shape
            scale = max(1.0, float(np.abs(right).max()))
            np.testing.assert_allclose(g, right, rtol=2e-5, atol=2e-6 * scale)
            np.testing.assert_array_equal(g, again.value)


@pytest.mark.parametrize("case", [c for c in CASES if c.smooth], ids=lambda case: case.name)
def test_second_derivative_against_central_differences(case):
    rng = np.random.default_rng(2)
    for number, shapes in enumerate(case.shapes):
        arrays = case.arrays(shapes, seed=number)
        shape = case.function(*map(Node, arrays)).shape
        weights = [rng.normal(size=s) for s in shapes]

        def weighted_gradient(cotangent, *nodes, weights=weights):
            output = case.function(*nodes)
            found = dp.gradients(output, nodes, cotangent, create_graph=True)
            total = Node(0.0)
            for g, weight in zip(found, weights, strict=True):
                total = total + (g * weight).sum()
            return total

        dp.check_gradient(weighted_gradient, rng.normal(size=shape), *arrays, tolerance=2e-6)


@pytest.mark.parametrize(
    "compare", [p.greater, p.greater_equal, p.less, p.less_equal, p.equal], ids=repr
)
def test_no_gradient_flows_through_a_comparison(compare):
    a, b = Node(np.array([[1.0, 2.0]], np.float32)), Node(np.ones((2, 3, 2)))
    answer = compare(a, b)
    assert answer.dtype == bool
    assert answer.shape == (2, 3, 2)
    for node, g in zip((a, b), dp.gradients(answer, [a, b]), strict=True):
        np.testing.assert_array_equal(g, np.zeros_like(node.value))
        assert g.dtype == node.dtype


# --- special values -------------------------------------------------------------------------------

BOUNDED = [0.0, -0.0, 1000.0, -1000.0]
STABLE = {
    **{case.name: (case.function, BOUNDED) for case in CASES if case.primitive in {
        "sigmoid", "tanh", "lecun_tanh", "relu", "clipped_relu", "leaky_relu", "elu", "gelu",
        "silu", "softplus", "normal_cdf", "normal_pdf", "square", "abs", "sign",
        "clip", "negative", "sum", "max", "softmax", "log_softmax", "norm", "logsumexp", "sin",
        "cos", "round",
    }},
    "log1p": (lambda x: x.log1p(), [0.0, -0.0, 1000.0]),
    "expm1": (lambda x: x.expm1(), [0.0, -0.0, -1000.0]),
    "maximum": (lambda x: x.maximum(0.0), BOUNDED),
    "minimum": (lambda x: x.minimum(x.T.T), BOUNDED),
    "std of a sample": (lambda x: x.std(axis=1, ddof=1), BOUNDED),
    "std of equal entries": (lambda x: x.std(axis=0), BOUNDED),
    "norm of zeros": (lambda x: x.norm(axis=0), [0.0, -0.0]),
    "add": (lambda x: x + x, BOUNDED),
    "subtract": (lambda x: 1.0 - x, BOUNDED),
    "multiply": (lambda x: x * x, BOUNDED),
    "divide by x": (lambda x: 1.0 / x, [1000.0, -1000.0]),
    "divide": (lambda x: x / 3.0, BOUNDED),
    "dot": (lambda x: x @ x.T, BOUNDED),
    "exp": (lambda x: x.exp(), [0.0, -0.0, -1000.0]),
    "log": (lambda x: x.log(), [1.0, 1000.0]),
    "sqrt": (lambda x: x.sqrt(), [1.0, 1000.0]),
    "pow 2": (lambda x: x**2, BOUNDED),
    "pow 1": (lambda x: x**1, BOUNDED),
    "pow 0": (lambda x: x**0, BOUNDED),
    "0 ** x": (lambda x: 0.0 ** (x * x), BOUNDED),
    "binary 0": (lambda x: dp.binary_cross_entropy(x.T, np.zeros((x.shape[1], 1))), BOUNDED),
    "binary 1": (lambda x: dp.binary_cross_entropy(x.T, np.ones((x.shape[1], 1))), BOUNDED),
    "categorical": (lambda x: dp.categorical_cross_entropy(x, np.eye(x.shape[1])[:1]), BOUNDED),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", STABLE)
def test_special_values_are_finite_twice_over(name, dtype):
    function, values = STABLE[name]
    tiny = float(np.finfo(dtype).tiny)
    if values is BOUNDED:
        values = [*values, tiny, -tiny, tiny / 8]
    x = Node(np.array([values], dtype=dtype))
    output = function(x)
    assert np.isfinite(output.value).all()
    (first,) = dp.gradients(output, [x], 0.7, create_graph=True)
    assert np.isfinite(first.value).all()
    assert first.dtype == dtype
    (second,) = dp.gradients(first, [x], 0.3)
    assert np.isfinite(second).all()
    assert second.dtype == dtype


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("sigmoid", [0.0, 0.5, 1.0], [0.0, 0.25, 0.0]),
        ("tanh", [-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
        ("lecun_tanh", [-1.7159, 0.0, 1.7159], [0.0, 1.7159 * 2 / 3, 0.0]),
        ("relu", [0.0, 0.0, 1000.0], [0.0, 0.0, 1.0]),
        ("clipped_relu", [0.0, 0.0, 6.0], [0.0, 0.0, 0.0]),
        ("leaky_relu", [-10.0, 0.0, 1000.0], [0.01, 0.01, 1.0]),
        ("elu", [-1.0, 0.0, 1000.0], [0.0, 1.0, 1.0]),
        ("gelu", [0.0, 0.0, 1000.0], [0.0, 0.5, 1.0]),
        ("silu", [0.0, 0.0, 1000.0], [0.0, 0.5, 1.0]),
        ("softplus", [0.0, math.log(2.0), 1000.0], [0.0, 0.5, 1.0]),
        ("identity", [-1000.0, 0.0, 1000.0], [1.0, 1.0, 1.0]),
    ],
)
def test_values_and_slopes_at_the_ends(name, value, slope):
    x = Node(np.array([[-1000.0, 0.0, 1000.0]]))
    activation = dp.activations.get(name)
    np.testing.assert_allclose(activation(x).value, [value], rtol=1e-15, atol=1e-300)
    np.testing.assert_allclose(activation.derivative(x.value), [slope], rtol=1e-13, atol=1e-300)
    (g,) = dp.gradients(activation(x), [x])
    np.testing.assert_array_equal(g, activation.derivative(x.value))


def test_kinks_and_ties():
    x = Node(np.array([[0.0, 2.0, 2.0, -1.0]]))
    np.testing.assert_array_equal(dp.gradients(x.max(), [x], 3.0)[0], [[0, 1.5, 1.5, 0]])
    np.testing.assert_array_equal(dp.gradients(x.abs(), [x])[0], [[0, 1, 1, -1]])
    np.testing.assert_array_equal(dp.gradients(x.clip(0, 2), [x])[0], [[1, 1, 1, 0]])
    np.testing.assert_array_equal(dp.gradients(x**0, [x])[0], [[0, 0, 0, 0]])


def test_far_tails_keep_their_digits():
    x = Node(np.array([[-700.0, -40.0, 30.0]]))
    np.testing.assert_allclose(
        x.sigmoid().value, [[math.exp(-700), math.exp(-40), 1.0]], rtol=1e-12
    )
    np.testing.assert_allclose(x.softplus().value[0, :2], np.exp([-700.0, -40.0]), rtol=1e-13)
    for logit in (-700.0, -40.0, 40.0, 700.0):
        for label, sign in ((0.0, 1.0), (1.0, -1.0)):
            z = Node(np.array([[sign * logit]]))
            loss = dp.binary_cross_entropy(z, np.array([[label]]))
            np.testing.assert_allclose(loss.value, np.logaddexp(0.0, logit), rtol=1e-14)
            right = sign / (1.0 + math.exp(-logit))
            np.testing.assert_allclose(dp.gradients(loss, [z])[0], [[right]], rtol=1e-14)
    points = np.linspace(-12.0, 12.0, 4001)
    np.testing.assert_allclose(p.normal_cdf(points), phi(points), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("elu", lambda x: math.exp(x) if x < 0 else 1.0),
        ("selu", lambda x: p.SELU_SCALE * (p.SELU_ALPHA * math.exp(x) if x < 0 else 1.0)),
        ("silu", lambda x: 1.0 if x > 0 else math.exp(x) * (1 + x)),
        ("softplus", lambda x: math.exp(x) if x < 0 else 1.0),
        ("sigmoid", lambda x: math.exp(-abs(x))),
    ],
)
def test_slopes_keep_their_digits_in_the_tails(name, slope, dtype):
    values = [-80.0, -40.0, -20.0, 2e7, 1e17] if name != "sigmoid" else [-80.0, -40.0]
    x = Node(np.array([values], dtype))
    (found,) = dp.gradients(dp.activations.get(name)(x), [x])
    np.testing.assert_allclose(found[0], [slope(v) for v in values], rtol=4e-6)


def test_gelu_is_quiet_where_the_square_overflows():
    x = Node(np.array([[-1e200, 1e200]]))
    np.testing.assert_array_equal(dp.gradients(x.gelu(), [x])[0], [[0.0, 1.0]])


def test_an_impossible_class_costs_nothing_unless_it_is_the_label():
    logits = Node(np.array([[-np.inf, 0.0]]))
    assert dp.categorical_cross_entropy(logits, [[0.0, 1.0]]).value == 0.0
    assert dp.categorical_cross_entropy(logits, [[1.0, 0.0]]).value == np.inf


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda x: x.leaky_relu(0.3), "leaky_relu"),
        (lambda x: x.leaky_relu(2.0), "leaky_relu"),
        (lambda x: x.elu(0.5), "elu"),
        (lambda x: x.elu(3.0), "elu"),
    ],
)
def test_what_is_known_of_other_slopes_is_true(made, name):
    h = np.linspace(-30.0, 30.0, 60_001)
    node = made(Node(h))
    activation = dp.activations.matching(node.primitive, node.settings)
    assert activation.name == name
    slopes = np.abs(activation.derivative(h))
    assert slopes.max() == pytest.approx(activation.max_slope, rel=1e-9)
    low, high = activation.range
    assert low <= node.value.min()
    assert node.value.max() <= high
    flat = activation.saturated(h)
    if activation.saturates == "nowhere":
        assert not flat.any()
    else:
        end = float(activation.saturates.removeprefix("h < ").removeprefix("h <= "))
        np.testing.assert_array_equal(flat[np.abs(h - end) > 0.01], (h < end)[abs(h - end) > 0.01])


# --- activation functions: what their table says --------------------------------------------------


@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
def test_range_and_slope_are_those_stated(name):
    activation = dp.activations.ACTIVATIONS[name]
    h = np.linspace(-40.0, 40.0, 200_001)
    y, slope = activation(h), activation.derivative(h)
    low, high = activation.range
    assert y.min() >= low - 1e-15
    assert y.max() <= high + 1e-15
    for end, reached in ((low, y.min()), (high, y.max())):
        if math.isfinite(end):
            assert reached == pytest.approx(end, abs=1e-6)
    assert np.abs(slope).max() <= activation.max_slope * (1 + 1e-12)
    assert np.abs(slope).max() == pytest.approx(activation.max_slope, rel=1e-6)
    saturated = np.abs(slope) < 0.05 * activation.max_slope
    np.testing.assert_array_equal(activation.saturated(h), saturated)
    assert saturated.any() == (activation.saturates != "nowhere")


@pytest.mark.parametrize(
    "name",
    list(dp.activations.ACTIVATIONS),
)
def test_nan_is_not_saturated(name):
    assert not dp.activations.get(name).saturated(np.array([np.nan])).any()


@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
def test_saturation_in_words_is_where_it_saturates(name):
    activation = dp.activations.get(name)
    h = np.linspace(-8, 8, 160_001)
    edges = h[np.flatnonzero(np.diff(activation.saturated(h).astype(int)))]
    said = [float(number) for number in re.findall(r"-?\d+\.?\d*", activation.saturates)]
    if activation.saturates.startswith("|h|"):
        said = [-said[0], said[0]]
    np.testing.assert_allclose(edges, said, atol=0.006)


def test_every_activation_is_found_again_in_a_graph():
    x = Node(np.array([[0.5]]))
    known = [dp.activations.clipped_relu(2.5), *dp.activations.ACTIVATIONS.values()]
    for activation in known:
        if activation.primitive is not None:
            made = activation(x)
            assert dp.activations.matching(made.primitive, made.settings) == activation
    steep = dp.activations.matching(p.leaky_relu, {"slope": 0.3})
    assert steep.derivative(np.array([-1.0])) == 0.3
    assert "0.3" in steep.formula
    assert dp.activations.matching(p.exp, {}) is None
    assert dp.activations.matching(None, {}) is None


# --- broadcasting, by hypothesis ------------------------------------------------------------------

SIDE = st.integers(1, 4)
PARTIALS = {
    "add": (np.add, lambda a, b: (np.ones_like(a), np.ones_like(b))),
    "subtract": (np.subtract, lambda a, b: (np.ones_like(a), -np.ones_like(b))),
    "multiply": (np.multiply, lambda a, b: (b, a)),
    "divide": (np.divide, lambda a, b: (1 / b, -a / b**2)),
}


def summed_to(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


@st.composite
def two_shapes(draw):
    full = [draw(SIDE) for _ in range(draw(st.integers(2, 4)))]
    shapes = []
    for _ in range(2):
        shape = [n if draw(st.booleans()) else 1 for n in full]
        shapes.append(tuple(shape[draw(st.integers(0, len(full) - 2)) :]))
    return shapes


def crossed(a, b):
    """Whether one is a column and the other a row, along sides where they differ."""
    rows, columns = (a[-2], b[-2]), (a[-1], b[-1])
    if rows[0] == rows[1] or columns[0] == columns[1]:
        return False
    return (rows[0] == 1) != (columns[0] == 1)


@given(two_shapes(), st.sampled_from(sorted(PARTIALS)), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=300, database=None)
def test_broadcasting_like_numpy_save_columns_with_rows(shapes, name, seed):
    rng = np.random.default_rng(seed)
    a, b = (off_kinks(rng, shape) for shape in shapes)
    x, y = Node(a), Node(b)
    operation, partials = PARTIALS[name]
    if crossed(*shapes):
        with pytest.raises(dp.ShapeError, match="a column meets a row"):
            operation(x, y)
        return
    output = operation(x, y)
    np.testing.assert_array_equal(output.value, operation(a, b))
    cotangent = rng.normal(size=output.shape)
    for g, partial, shape in zip(
        dp.gradients(output, [x, y], cotangent), partials(a, b), shapes, strict=True
    ):
        assert g.shape == shape
        expected = summed_to(np.broadcast_to(cotangent * partial, output.shape), shape)
        np.testing.assert_allclose(g, expected, rtol=1e-12, atol=1e-12)


# --- the checker itself ---------------------------------------------------------------------------


def test_check_gradient_finds_a_wrong_derivative():
    wrong = p.Primitive("wrong", np.sin, (lambda g, y, x: g * y,), True)
    with pytest.raises(dp.GradientError, match=r"argument 0, entry \(0, 0\): the sweep gives"):
        dp.check_gradient(lambda x: wrong(x), [[0.3]])


@pytest.mark.parametrize("array", [[[0.3]], [[0.1, 0.3]]])
def test_check_gradient_does_not_mistake_nan_for_agreement(array):
    spoil = np.where(np.array(array) == 0.3, np.nan, np.cos(array))
    nan = p.Primitive("nan", np.sin, (lambda g, y, x: g * spoil,), True)
    with pytest.raises(dp.GradientError, match="the sweep gives nan"):
        dp.check_gradient(lambda x: nan(x), array)


@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
def test_the_derivative_does_not_hide_nan(name):
    x = dp.Node([[np.nan, 0.5]])
    with np.errstate(invalid="ignore"):
        (gradient,) = dp.gradients(dp.activations.get(name)(x).sum() * np.nan, [x])
    assert np.isnan(gradient).all()


def test_a_primitive_is_declared_once():
    with pytest.raises(ValueError, match="'tanh' is already in the table"):
        p.declare("tanh", np.tanh)
