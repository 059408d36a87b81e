"""The captured graph: values in their simplest form."""

import numpy as np
import pytest

from dp import primitives as p
from dp.program.graph import Builder, in_order

MATRIX = np.arange(6.0).reshape(2, 3)


class Making:
    """A builder, and two leaves of one shape."""

    def __init__(self):
        self.builder = Builder()
        self.a, self.b = (self.builder.leaf(name, MATRIX) for name in "ab")

    def __call__(self, primitive, *operands, **settings):
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        return self.builder.apply(primitive, operands, settings, shape, MATRIX.dtype)

    def full(self, number):
        return self.builder.constant(np.full((1, 1), number))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda m: m(p.multiply, m.a, m.full(1.0)), lambda m: m.a),
        (lambda m: m(p.multiply, m.full(-1.0), m.a), lambda m: m(p.negative, m.a)),
        (lambda m: m(p.divide, m.a, m.full(1.0)), lambda m: m.a),
        (lambda m: m(p.add, m.full(0.0), m.a), lambda m: m.a),
        (lambda m: m(p.subtract, m.a, m.full(0.0)), lambda m: m.a),
        (lambda m: m(p.add, m.a, m(p.negative, m.b)), lambda m: m(p.subtract, m.a, m.b)),
        (lambda m: m(p.add, m(p.negative, m.a), m.b), lambda m: m(p.subtract, m.b, m.a)),
        (lambda m: m(p.subtract, m.a, m(p.negative, m.b)), lambda m: m(p.add, m.a, m.b)),
        (lambda m: m(p.negative, m(p.negative, m.a)), lambda m: m.a),
        (lambda m: m(p.negative, m(p.subtract, m.a, m.b)), lambda m: m(p.subtract, m.b, m.a)),
        (lambda m: m(p.silu, m.a), lambda m: m(p.multiply, m.a, m(p.sigmoid, m.a))),
        (lambda m: m(p.gelu, m.a), lambda m: m(p.multiply, m.a, m(p.normal_cdf, m.a))),
        (lambda m: m(p.astype, m.a, dtype=MATRIX.dtype), lambda m: m.a),
        (lambda m: m(p.exp, m.full(0.0)), lambda m: m.full(1.0)),
    ],
)
def test_simplest_forms(make, expected):
    making = Making()
    assert make(making) is expected(making)


def test_an_operation_on_the_same_operands_is_made_once():
    making = Making()
    assert making(p.add, making.a, making.b) is making(p.add, making.a, making.b)
    assert making(p.add, making.a, making.b) is not making(p.add, making.b, making.a)


def test_what_numpy_broadcasts_by_itself_is_not_written():
    making = Making()
    row = making.builder.leaf("row", MATRIX[:1])
    whole = making.builder.apply(p.broadcast_to, (row,), {"shape": (2, 3)}, (2, 3), row.dtype)
    assert making(p.add, making.a, whole).operands == (making.a, row)


def test_operands_come_before_what_is_made_of_them():
    making = Making()
    total = making(p.add, making.a, making.b)
    ends = [making(p.exp, total), making(p.multiply, total, making(p.sin, making.a))]
    order = in_order(ends)
    assert order.index(total) < min(order.index(end) for end in ends)
    assert len(order) == len(set(order)) == 4
