"""How each primitive is written in NumPy: as an expression to read, and as calls into buffers.

In expressions and calls, {0}, {1}, {2} are the operands, {y} is the result, and names in braces are
settings. Tests compare every notation with the kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dp import primitives as p
from dp.activations import CLIPPED_RELU, LECUN_SCALE, LECUN_STRETCH, LECUN_TANH
from dp.program.graph import Value

# How tightly an expression holds together; an operand that holds less is put in parentheses.
LOOSE, COMPARE, SUM, PRODUCT, SIGN, POWER, TIGHT = range(7)


class Notation(NamedTuple):
    """One primitive in NumPy.

    Attributes
    ----------
    lines : tuple of str
        Expressions to read. The first computes from the operands; each further one goes on from
        {y}, the result so far.
    level : int
        How tightly the last line holds together.
    needs : tuple of int
        How tightly each operand must. TIGHT where it is written twice and so must be a name.
    calls : tuple of str
        The same as statements that write into the buffer {y}; () if the kernel must be called.
    over : tuple of int
        Operands whose own buffer may be {y}.
    """

    lines: tuple[str, ...]
    level: int = TIGHT
    needs: tuple[int, ...] = (LOOSE, LOOSE, LOOSE)
    calls: tuple[str, ...] = ()
    over: tuple[int, ...] = ()


def _infix(sign: str, ufunc: str, level: int, right: int) -> Notation:
    call = f"np.{ufunc}({{0}}, {{1}}, {{y}})"
    over = () if ufunc == "matmul" else (0, 1)
    return Notation((f"{{0}} {sign} {{1}}",), level, (level, right), (call,), over)


def _function(ufunc: str) -> Notation:
    return Notation((f"np.{ufunc}({{0}})",), calls=(f"np.{ufunc}({{0}}, {{y}})",), over=(0,))


def _choice(ufunc: str) -> Notation:
    call = f"np.{ufunc}({{0}}, {{1}}, out={{y}})"
    return Notation((f"np.{ufunc}({{0}}, {{1}})",), calls=(call,), over=(0, 1))


NOTATIONS: dict[p.Primitive, Notation] = {
    # arithmetic
    p.add: _infix("+", "add", SUM, PRODUCT),
    p.subtract: _infix("-", "subtract", SUM, PRODUCT),
    p.multiply: _infix("*", "multiply", PRODUCT, SIGN),
    p.divide: _infix("/", "divide", PRODUCT, SIGN),
    p.dot: _infix("@", "matmul", PRODUCT, SIGN),
    p.power: Notation(("{0} ** {1}",), POWER, (TIGHT, SIGN), ("np.power({0}, {1}, {y})",), (0, 1)),
    p.negative: Notation(("-{0}",), SIGN, (SIGN,), ("np.negative({0}, {y})",), (0,)),
    p.square: Notation(("{0} ** 2",), POWER, (TIGHT,), ("np.square({0}, {y})",), (0,)),
    # comparison and choice
    p.greater: _infix(">", "greater", COMPARE, SUM)._replace(needs=(SUM, SUM)),
    p.greater_equal: _infix(">=", "greater_equal", COMPARE, SUM)._replace(needs=(SUM, SUM)),
    p.less: _infix("<", "less", COMPARE, SUM)._replace(needs=(SUM, SUM)),
    p.less_equal: _infix("<=", "less_equal", COMPARE, SUM)._replace(needs=(SUM, SUM)),
    p.equal: _infix("==", "equal", COMPARE, SUM)._replace(needs=(SUM, SUM)),
    p.where: Notation(
        ("np.where({0}, {1}, {2})",),
        calls=("np.copyto({y}, {2})", "np.copyto({y}, {1}, where={0})"),
        over=(2,),
    ),
    # functions
    p.exp: _function("exp"),
    p.log: _function("log"),
    p.sqrt: _function("sqrt"),
    p.sign: _function("sign"),
    p.absolute: _function("abs"),
    p.tanh: _function("tanh"),
    p.sin: _function("sin"),
    p.cos: _function("cos"),
    p.expm1: _function("expm1"),
    p.log1p: _function("log1p"),
    p.rounded: Notation(("np.round({0}, {decimals})",)),
    p.maximum: _choice("maximum"),
    p.minimum: _choice("minimum"),
    p.normal_cdf: Notation(("normal_cdf({0})",)),
    p.normal_pdf: Notation(("normal_pdf({0})",)),
    p.clip: Notation(
        ("np.clip({0}, {low}, {high})",), calls=("np.clip({0}, {low}, {high}, {y})",), over=(0,)
    ),
    # over the matrix
    p.softmax: Notation(
        (
            "np.exp({0} - {0}.max(axis={along}, keepdims=True))",
            "{y} / {y}.sum(axis={along}, keepdims=True)",
        ),
        PRODUCT,
        (TIGHT,),
    ),
    p.log_softmax: Notation(
        (
            "{0} - {0}.max(axis={along}, keepdims=True)",
            "{y} - np.log(np.exp({y}).sum(axis={along}, keepdims=True))",
        ),
        SUM,
        (TIGHT,),
    ),
    p.reduce_max: Notation(
        ("{0}.max({over}keepdims=True)",),
        needs=(TIGHT,),
        calls=("np.maximum.reduce({0}, {along}, None, {y}, True)",),
    ),
    p.reduce_sum: Notation(
        ("{0}.sum({over}keepdims=True)",),
        needs=(TIGHT,),
        calls=("np.add.reduce({0}, {along}, None, {y}, True)",),
    ),
    p.norm: Notation(("np.sqrt(np.square({0}).sum({over}keepdims=True))",)),
    p.logsumexp: Notation(("np.logaddexp.reduce({0}, axis={along}, keepdims=True)",)),
    p.sum_to: Notation(("{0}.sum(axis={grown}, keepdims=True)",), needs=(TIGHT,)),
    # shape
    p.transpose: Notation(("{0}.{T}",), needs=(TIGHT,)),
    p.reshape: Notation(("{0}.reshape({whole})",), needs=(TIGHT,)),
    p.broadcast_to: Notation(("np.broadcast_to({0}, {shape})",)),
    p.astype: Notation(("{0}.astype(np.{dtype})",), needs=(TIGHT,)),
    p.concatenate: Notation(("np.concatenate([{0}, {1}], axis={along})",)),
    # activation functions
    p.sigmoid: Notation(
        ("1 / (1 + np.exp(-{0}))",),
        PRODUCT,
        (SIGN,),
        (
            "np.negative({0}, {y})",
            "np.exp({y}, {y})",
            "np.add({y}, {one}, {y})",
            "np.divide({one}, {y}, {y})",
        ),
        (0,),
    ),
    LECUN_TANH: Notation(
        (f"{LECUN_SCALE} * np.tanh({LECUN_STRETCH} * {{0}})",),
        PRODUCT,
        (SIGN,),
    ),
    p.relu: Notation(
        ("np.maximum({0}, 0)",), calls=("np.maximum({0}, {zero}, out={y})",), over=(0,)
    ),
    CLIPPED_RELU: Notation(
        ("np.clip({0}, 0, {ceiling})",), calls=("np.clip({0}, 0.0, {ceiling}, {y})",), over=(0,)
    ),
    p.leaky_relu: Notation(("np.where({0} > 0, {0}, {slope} * {0})",), needs=(TIGHT,)),
    p.elu: Notation(
        ("{scale} * np.where({0} > 0, {0}, {alpha} * np.expm1(np.minimum({0}, 0)))",),
        PRODUCT,
        (TIGHT,),
    ),
    p.softplus: Notation(
        ("np.logaddexp({0}, 0)",), calls=("np.logaddexp({0}, {zero}, {y})",), over=(0,)
    ),
}


def details(value: Value) -> dict[str, Any]:
    """What the braces of a notation stand for, besides operands and result."""
    found: dict[str, Any] = dict(value.settings)
    flat = len(value.shape) == 2
    found["T"] = "T" if flat else "mT"
    if "axis" in found:
        axis = found["axis"]
        found["along"] = p.matrix_axes(axis) if axis is None else axis if flat else axis - 2
        found["over"] = "" if axis is None and flat else f"axis={found['along']}, "
    if value.primitive is p.sum_to:
        given, lead = value.operands[0].shape, len(value.operands[0].shape) - len(value.shape)
        grown = [i for i, n in enumerate(given) if i < lead or (value.shape[i - lead] == 1 != n)]
        found["grown"] = grown[0] if len(grown) == 1 else tuple(grown)
    if value.primitive is p.reshape:
        found["whole"] = value.shape
    return found
