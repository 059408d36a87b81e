"""What several tests share: every operation, with shapes and numbers to try it on; and refusals."""

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

import dp
from dp import primitives as p

ONE = [((1, 1),), ((3, 1),), ((1, 4),), ((3, 4),), ((2, 3, 4),), ((2, 1, 1),)]
TWO = [
    ((3, 4), (3, 4)),
    ((3, 4), (1, 4)),
    ((3, 1), (3, 4)),
    ((3, 4), (1, 1)),
    ((1, 1), (3, 4)),
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (3, 4)),
    ((1, 4), (2, 3, 4)),
    ((2, 3, 4), (3, 1)),
    ((2, 1, 1), (2, 3, 4)),
    ((2, 1, 4), (3, 4)),
]
BLOCK = [((3, 4),), ((2, 3, 4),)]  # where an index or a new shape needs a fixed size
COLUMN = [((1, 1),), ((3, 1),), ((2, 3, 1),)]


def anything(rng, shape):
    return rng.normal(size=shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2.0, size=shape)


def off_kinks(rng, shape):
    """Of both signs, away from 0, and from 1 and 6 in size."""
    size = rng.choice([0.3, 0.7, 1.5, 3.0, 7.0], size=shape) + rng.uniform(-0.1, 0.1, size=shape)
    return size * rng.choice([-1.0, 1.0], size=shape)


def distinct(rng, shape):
    return rng.permutation(math.prod(shape)).reshape(shape) / 3.0 - 1.0


def off_halves(rng, shape):
    """Of both signs, away from where rounding jumps."""
    return rng.integers(-5, 6, size=shape) + rng.uniform(-0.3, 0.3, size=shape)


@dataclass
class Case:
    """A function of Nodes; `primitive` is the entry of the table that it is there to cover."""

    name: str
    function: Callable
    primitive: str | None
    shapes: list = field(default_factory=lambda: ONE)
    draw: Callable | tuple = anything
    smooth: bool = True
    reference: Callable | None = None

    def arrays(self, shapes, seed=0, dtype=np.float64):
        rng = np.random.default_rng(seed)
        draws = self.draw if isinstance(self.draw, tuple) else (self.draw,) * len(shapes)
        # rounded to float32, so that both precisions differentiate at the same point
        drawn = [draw(rng, shape) for draw, shape in zip(draws, shapes, strict=True)]
        return [array.astype(np.float32).astype(dtype) for array in drawn]


def phi(x):
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2.0)))(x)


def row_softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def one_hot(logits):
    labels = np.zeros(logits.shape[-2:])
    labels[:, 1] = 1.0
    return labels


def zero_or_one(logits):
    return np.arange(logits.shape[-2]).reshape(-1, 1) % 2


def pairwise_distances(a, b):
    return -2 * (a @ b.T) + a.square().sum(1) + b.square().sum(1).T


LETTERS = ("b", "a", "c")
AXES = [(None, (-2, -1)), (0, -2), (1, -1)]
CASES = [
    # shape
    Case("broadcast_to", lambda x: p.broadcast_to(x, shape=(2, 3, 4)), "broadcast_to", [
        ((1, 4),), ((3, 1),), ((1, 1),), ((3, 4),), ((2, 1, 1),), ((2, 3, 4),),
    ]),
    Case("sum_to row", lambda x: p.sum_to(x, shape=(1, 4)), "sum_to", BLOCK),
    Case("sum_to column", lambda x: p.sum_to(x, shape=(3, 1)), "sum_to", BLOCK),
    Case("astype", lambda x: p.astype(x, dtype=x.dtype), "astype"),
    Case("transpose", lambda x: x.transpose(), "transpose", reference=lambda x: x.swapaxes(-1, -2)),
    Case("T", lambda x: x.T.tanh().T(), "transpose", reference=np.tanh),
    Case("reshape", lambda x: x.reshape(2, 6), "reshape", BLOCK),
    Case("reshape -1", lambda x: x.reshape(-1, 1), "reshape"),
    Case("concatenate rows", lambda a, b: a.concatenate(b), "concatenate", [
        ((3, 4), (1, 4)), ((2, 3, 4), (2, 2, 4)), ((2, 3, 4), (1, 4)), ((1, 4), (2, 3, 4)),
    ]),
    Case("concatenate columns", lambda a, b: a.concatenate(b, axis=1), "concatenate", [
        ((3, 4), (3, 1)), ((2, 3, 4), (2, 3, 2)), ((2, 3, 4), (3, 1)), ((3, 1), (2, 3, 4)),
    ]),
    Case("a list, rows", lambda a, b: dp.concatenate([a, b, a, b, np.ones((1, 4), int)]),
         "concatenate", [((3, 4), (1, 4)), ((2, 3, 4), (2, 2, 4)), ((2, 3, 4), (1, 4))]),
    Case("a list, columns", lambda a, b: dp.concatenate([b, a, b], axis=-1), "concatenate", [
        ((3, 4), (3, 1)), ((2, 3, 4), (2, 3, 2)), ((3, 1), (2, 3, 4)),
    ]),
    Case("np.hstack", lambda a, b: np.hstack([a, b]), "concatenate", [((3, 4), (3, 1))]),
    Case("flatten", lambda x: x.flatten(), "reshape",
         reference=lambda x: x.reshape(*x.shape[:-2], -1, 1)),
    Case("row", lambda x: x[1], "take", BLOCK, reference=lambda x: x[..., 1:2, :]),
    Case("column", lambda x: x[:, -1], "take", BLOCK, reference=lambda x: x[..., :, -1:]),
    Case("slices", lambda x: x[0:3:2, ::-1], "take", BLOCK),
    Case("rows twice", lambda x: x[[0, 2, 0, 0]], "take", BLOCK),
    Case("entries twice", lambda x: x[[0, 2, 0], [1, 3, 1]], "take", BLOCK),
    Case("entries by 2-D arrays", lambda x: x[[[0, 2], [1, 0]], [[1, 3], [1, 1]]], "take", BLOCK,
         reference=lambda x: x[..., [[0, 2], [1, 0]], [[1, 3], [1, 1]]]),
    Case("rows against columns", lambda x: x[[[0], [2]], [[1, 3, 1]]], "take", BLOCK,
         reference=lambda x: x[..., [[0], [2]], [[1, 3, 1]]]),
    Case("rows by a 2-D array", lambda x: x[np.array([[0, 2, 0], [1, 1, 0]])], "take", BLOCK,
         reference=lambda x: x[..., [[0, 2, 0], [1, 1, 0]], :]),
    Case("a column by a 2-D array", lambda x: x[[[0, 2, 0], [1, 1, 0]], -1], "take", BLOCK,
         reference=lambda x: x[..., [[0, 2, 0], [1, 1, 0]], -1]),
    Case("scatter", lambda x: p.scatter(x, index=([1, 1, 4], slice(None)), shape=(5, 4)),
         "scatter", [((3, 4),)]),
    Case("scatter stacked",
         lambda x: p.scatter(x, index=(slice(1, 4), slice(None)), shape=(2, 5, 4)),
         "scatter", [((2, 3, 4),)]),
    Case("scatter entries",
         lambda x: p.scatter(x, index=([0, 1, 0], [2, 2, 2]), shape=(2, 3)),
         "scatter", [((3, 1),)]),
    # comparison and choice
    Case("greater", lambda a, b: p.where(a > b, a * b, b), "greater", TWO, off_kinks, False),
    Case("greater_equal", lambda a, b: p.where(a >= b, a, a * a), "greater_equal", TWO, off_kinks,
         False),
    Case("less", lambda a, b: p.where(a < b, a, b), "less", TWO, off_kinks, False,
         reference=np.minimum),
    Case("less_equal", lambda a, b: p.where(a <= b, b, a), "less_equal", TWO, off_kinks, False,
         reference=np.maximum),
    Case("equal", lambda a, b: p.where(p.equal(a, b), 3.0 * a, a * b), "equal", TWO, off_kinks,
         False),
    Case("where", lambda a, b: p.where(np.array([[True, False, True, True]]), a, b * b), "where",
         [((3, 4), (3, 4)), ((2, 3, 4), (3, 4)), ((1, 4), (2, 3, 4)), ((1, 1), (1, 4))]),
    Case("dp.where", lambda a, b: dp.where(a > 0, a * b, b), "where", TWO, off_kinks, False,
         reference=lambda a, b: np.where(a > 0, a * b, b)),
    Case("masks", lambda x: dp.where((x > 0) & ~(x > 2) | (x < -2), x * x, x), "equal",
         draw=off_kinks, smooth=False,
         reference=lambda x: np.where((x > 0) & ~(x > 2) | (x < -2), x * x, x)),
    Case("maximum", lambda a, b: a.maximum(b), "maximum", TWO, off_kinks, False,
         reference=np.maximum),
    Case("minimum", lambda a, b: a.minimum(b), "minimum", TWO, off_kinks, False,
         reference=np.minimum),
    Case("np.maximum", lambda x: np.maximum(x, 0), "maximum", draw=off_kinks, smooth=False,
         reference=lambda x: np.maximum(x, 0)),
    # arithmetic
    Case("add", lambda a, b: a + b, "add", TWO, reference=np.add),
    Case("subtract", lambda a, b: a - b, "subtract", TWO, reference=np.subtract),
    Case("multiply", lambda a, b: a * b, "multiply", TWO, reference=np.multiply),
    Case("divide", lambda a, b: a / b, "divide", TWO, off_kinks, reference=np.divide),
    Case("number + x", lambda x: 2 + x, "add"),
    Case("number - x", lambda x: 2 - x, "subtract"),
    Case("x * number", lambda x: x * 2, "multiply"),
    Case("number / x", lambda x: 2 / x, "divide", draw=off_kinks, reference=lambda x: 2 / x),
    Case("array - x", lambda x: np.arange(4).reshape(1, 4) - x, "subtract", BLOCK),
    Case("x + x * x", lambda x: x + x * x, "multiply"),
    Case("negative", lambda x: -x, "negative", reference=np.negative),
    Case("pow", lambda a, b: a**b, "pow", TWO, (positive, anything), reference=np.power),
    Case("x**3, negative x too", lambda x: x**3, "pow", reference=lambda x: x**3),
    Case("pow method", lambda x: x.pow(-2), "pow", draw=off_kinks, reference=lambda x: x**-2.0),
    Case("number ** x", lambda x: 2**x, "pow", reference=lambda x: 2**x),
    Case("dot", lambda a, b: a.dot(b), "dot", [
        ((3, 4), (4, 2)), ((1, 4), (4, 1)), ((3, 1), (1, 2)), ((1, 1), (1, 1)),
        ((2, 3, 4), (2, 4, 2)), ((2, 3, 4), (4, 2)), ((3, 4), (2, 4, 2)), ((2, 1, 4), (4, 2)),
    ], reference=np.matmul),
    Case("x @ xᵀ", lambda x: x @ x.T, "dot"),
    Case("pairwise distances", pairwise_distances, "dot",
         [((3, 4), (5, 4)), ((2, 3, 4), (2, 5, 4))],
         reference=lambda a, b: ((a[..., :, None, :] - b[..., None, :, :]) ** 2).sum(-1)),
    Case("affine", lambda x, w, b: p.affine(x, w, b), "affine", [
        ((3, 4), (4, 2), (1, 2)), ((1, 4), (4, 1), (1, 1)),
        ((2, 3, 4), (2, 4, 2), (2, 1, 2)), ((2, 3, 4), (4, 2), (1, 2)), ((3, 4), (4, 2), (2, 1, 2)),
    ], reference=lambda x, w, b: x @ w + b),
    # elementwise
    Case("exp", lambda x: x.exp(), "exp", reference=np.exp),
    Case("log", lambda x: x.log(), "log", draw=positive, reference=np.log),
    Case("expm1", lambda x: x.expm1(), "expm1", reference=np.expm1),
    Case("log1p", lambda x: x.log1p(), "log1p", draw=positive, reference=np.log1p),
    Case("sin", lambda x: x.sin(), "sin", reference=np.sin),
    Case("cos", lambda x: x.cos(), "cos", reference=np.cos),
    Case("round", lambda x: x.round() * x, "round", draw=off_halves, smooth=False,
         reference=lambda x: np.round(x) * x),
    Case("log of base 2 and 10", lambda x: np.log2(x) + np.log10(x), "log", draw=positive,
         reference=lambda x: np.log2(x) + np.log10(x)),
    Case("square", lambda x: x.square(), "square", reference=np.square),
    Case("sqrt", lambda x: x.sqrt(), "sqrt", draw=positive, reference=np.sqrt),
    Case("sign", lambda x: p.sign(x) * x, "sign", draw=off_kinks, smooth=False, reference=np.abs),
    Case("abs", lambda x: x.abs(), "abs", draw=off_kinks, smooth=False, reference=np.abs),
    Case("abs()", abs, "abs", draw=off_kinks, smooth=False, reference=np.abs),
    Case("clip", lambda x: x.clip(-1, 6), "clip", draw=off_kinks, smooth=False,
         reference=lambda x: np.minimum(np.maximum(x, -1), 6)),
    Case("clip below", lambda x: x.clip(low=-1), "clip", draw=off_kinks, smooth=False),
    Case("clip above", lambda x: x.clip(high=1.0), "clip", draw=off_kinks, smooth=False),
    Case("normal_cdf", lambda x: p.normal_cdf(x), "normal_cdf", reference=phi),
    Case("normal_pdf", lambda x: p.normal_pdf(x), "normal_pdf",
         reference=lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
    # over the matrix
    Case("sum", lambda x: x.sum(), "sum",
         reference=lambda x: x.sum(axis=(-2, -1), keepdims=True)),
    Case("sum 0", lambda x: x.sum(axis=0), "sum",
         reference=lambda x: x.sum(axis=-2, keepdims=True)),
    Case("sum 1", lambda x: x.sum(axis=1), "sum",
         reference=lambda x: x.sum(axis=-1, keepdims=True)),
    Case("mean", lambda x: (x * x).mean(), "sum",
         reference=lambda x: (x * x).mean(axis=(-2, -1), keepdims=True)),
    Case("mean 0", lambda x: x.mean(axis=0), "sum",
         reference=lambda x: x.mean(axis=-2, keepdims=True)),
    Case("mean 1", lambda x: x.mean(axis=1), "sum",
         reference=lambda x: x.mean(axis=-1, keepdims=True)),
    Case("max", lambda x: x.max(), "max", draw=distinct, smooth=False,
         reference=lambda x: x.max(axis=(-2, -1), keepdims=True)),
    Case("max 0", lambda x: x.max(axis=0), "max", draw=distinct, smooth=False,
         reference=lambda x: x.max(axis=-2, keepdims=True)),
    Case("max 1", lambda x: x.max(axis=1), "max", draw=distinct, smooth=False,
         reference=lambda x: x.max(axis=-1, keepdims=True)),
    Case("sum -1, keepdims", lambda x: x.sum(axis=-1, keepdims=True), "sum",
         reference=lambda x: x.sum(axis=-1, keepdims=True)),
    *(Case(f"min {axis}", lambda x, a=axis: x.min(axis=a), "max", draw=distinct, smooth=False,
           reference=lambda x, over=over: x.min(axis=over, keepdims=True))
      for axis, over in AXES),
    *(Case(f"var {axis}", lambda x, a=axis: x.var(axis=a), "sum",
           reference=lambda x, over=over: x.var(axis=over, keepdims=True))
      for axis, over in AXES),
    *(Case(f"std {axis}", lambda x, a=axis: x.std(axis=a), "norm", BLOCK,
           reference=lambda x, over=over: x.std(axis=over, keepdims=True))
      for axis, over in AXES),
    Case("std of a sample", lambda x: np.std(x[:2], axis=1, ddof=1) + x.var(ddof=1), "norm",
         [((3, 4),)]),
    *(Case(f"norm {axis}", lambda x, a=axis: x.norm(axis=a), "norm", draw=off_kinks,
           reference=lambda x, over=over: np.sqrt((x * x).sum(axis=over, keepdims=True)))
      for axis, over in AXES),
    *(Case(f"logsumexp {axis}", lambda x, a=axis: x.logsumexp(axis=a), "logsumexp",
           reference=lambda x, over=over: np.log(np.exp(x).sum(axis=over, keepdims=True)))
      for axis, over in AXES),
    Case("softmax", lambda x: x.softmax(), "softmax", reference=row_softmax),
    Case("softmax 0", lambda x: x.softmax(axis=0), "softmax"),
    Case("log_softmax", lambda x: x.log_softmax(), "log_softmax",
         reference=lambda x: np.log(row_softmax(x))),
    Case("log_softmax 0", lambda x: x.log_softmax(axis=0), "log_softmax"),
    # activation functions
    Case("sigmoid", lambda x: x.sigmoid(), "sigmoid", reference=lambda x: 1 / (1 + np.exp(-x))),
    Case("tanh", lambda x: x.tanh(), "tanh", reference=np.tanh),
    Case("lecun_tanh", lambda x: dp.activations.LECUN_TANH(x), "lecun_tanh",
         reference=lambda x: 1.7159 * np.tanh(2 * x / 3)),
    Case("relu", lambda x: x.relu(), "relu", draw=off_kinks, smooth=False,
         reference=lambda x: np.maximum(x, 0)),
    Case("clipped_relu", lambda x: dp.activations.CLIPPED_RELU(x, ceiling=6.0), "clipped_relu",
         draw=off_kinks, smooth=False, reference=lambda x: np.minimum(np.maximum(x, 0), 6)),
    Case("leaky_relu", lambda x: x.leaky_relu(0.2), "leaky_relu", draw=off_kinks, smooth=False,
         reference=lambda x: np.maximum(x, 0.2 * x)),
    Case("elu", lambda x: x.elu(1.3), "elu", draw=off_kinks,
         reference=lambda x: np.where(x > 0, x, 1.3 * (np.exp(x) - 1))),
    Case("selu", lambda x: x.selu(), "elu", draw=off_kinks,
         reference=lambda x: 1.0507009873554805
         * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1))),
    Case("gelu", lambda x: x.gelu(), "gelu", reference=lambda x: x * phi(x)),
    Case("silu", lambda x: x.silu(), "silu", reference=lambda x: x / (1 + np.exp(-x))),
    Case("softplus", lambda x: x.softplus(), "softplus", reference=lambda x: np.log1p(np.exp(x))),
    # losses
    Case("binary_cross_entropy", lambda x: dp.binary_cross_entropy(x, zero_or_one(x)), None,
         COLUMN),
    Case("binary mean", lambda x: dp.binary_cross_entropy(x, zero_or_one(x), "mean"), None, COLUMN),
    Case("categorical_cross_entropy", lambda x: dp.categorical_cross_entropy(x, one_hot(x)), None,
         BLOCK),
    Case("categorical mean", lambda x: dp.categorical_cross_entropy(x, one_hot(x), "mean"), None,
         BLOCK),
    Case("squared_error", lambda x: dp.squared_error(x, one_hot(x)), None, BLOCK),
    Case("squared mean", lambda x: dp.squared_error(x.tanh(), one_hot(x), "mean"), None, BLOCK),
]  # fmt: skip


@contextlib.contextmanager
def refused(kind, *words):
    with pytest.raises(kind) as caught:
        yield
    for word in words:
        assert re.search(word, str(caught.value)), f"{word!r} not in {caught.value}"
