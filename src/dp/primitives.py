"""The table of primitives: each operation once, its NumPy kernel beside its derivative.

A derivative is a *rule* `rule(g, y, *operands, **settings)` for one operand: `g` is dL/dy, `y` the
value the kernel gave, and what it returns is dL/d(operand), before un-broadcasting, which the
reverse sweep does. Rules are written in the operations of this very table, so one rule has two
readings: given arrays it computes a gradient at NumPy's speed; given Nodes it records a graph that
can be differentiated again. A rule of `None` says that no gradient flows to that operand.

Everything acts on the last two axes, the matrix; axes before them are a stack.

Operations that are activation functions alone are entered in `activations.py`, beside their ranges.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dp.special import normal_cdf as _normal_cdf
from dp.special import normal_pdf as _normal_pdf
from dp.typing import Array

Rule = Callable[..., Any]


class Recorded:
    """A value that remembers how it was computed: what order and sweep need to know of a Node.

    Attributes
    ----------
    value : array
    name : str or None
        Under which its gradient is reported.
    primitive : Primitive or None
        What it was computed by; None for a leaf.
    parents : tuple of Recorded
        The operands.
    settings : dict
        What else the primitive was given.
    """

    __slots__ = ()

    value: Array
    name: str | None
    primitive: Primitive | None
    parents: tuple[Any, ...]
    settings: dict[str, Any]

    @staticmethod
    def record(
        primitive: Primitive, operands: tuple[Any, ...], settings: dict[str, Any]
    ) -> Recorded:
        """Apply `primitive` and remember it."""
        raise NotImplementedError


class Primitive:
    """One operation: `name`, NumPy `kernel`, and a derivative rule per operand."""

    __slots__ = ("elementwise", "kernel", "name", "rules")

    def __init__(
        self,
        name: str,
        kernel: Callable[..., Array],
        rules: tuple[Rule | None, ...],
        elementwise: bool,
    ) -> None:
        self.name, self.kernel, self.rules, self.elementwise = name, kernel, rules, elementwise

    def __call__(self, *operands: Any, **settings: Any) -> Any:
        """Record on Nodes, compute on arrays."""
        for operand in operands:
            if isinstance(operand, Recorded):
                return operand.record(self, operands, settings)
        return self.kernel(*operands, **settings)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _lookup, (self.name,)


TABLE: dict[str, Primitive] = {}
LIBRARY: set[str] = set()  # the names of the library's own


def _lookup(name: str) -> Primitive:
    if name not in TABLE:
        raise LookupError(
            f"there is no primitive {name!r}; an operation of your own must be declared again "
            "(dp.declare) before Nodes that were made by it are loaded"
        )
    return TABLE[name]


def entry(
    name: str, kernel: Callable[..., Array], *rules: Rule | None, elementwise: bool = True
) -> Primitive:
    """Enter a primitive of the library's own into the table, with one rule per operand."""
    TABLE[name] = Primitive(name, kernel, rules, elementwise)
    LIBRARY.add(name)
    return TABLE[name]


def declare(
    name: str, kernel: Callable[..., Any], *rules: Rule | None, elementwise: bool = False
) -> Primitive:
    """Declare an operation of your own; declaring the same name again replaces it.

    Parameters
    ----------
    name : str
        Which no operation of the library has.
    kernel : callable
        From one array per operand, (…, rows, columns), and the settings by their names, to the
        array of the result. It must not change its operands.
    *rules : callables or None
        One per operand: `rule(g, y, *operands, **settings)` gives dL/d(operand) from g = dL/dy and
        the value y. Written in operations that Nodes have too, such as `*` or `np.cos`, it can be
        differentiated again. None says that no gradient flows to this operand.
    elementwise : bool
        Whether each entry of the result depends only on the entries at the same place. Then a
        column with a row is refused, as in `+`.

    Returns
    -------
    Primitive
        Call it with Nodes, or with arrays alone; settings are given by their names.

    Raises
    ------
    TypeError, ValueError
        If the name is one of the library's, or an argument is not a function.

    Examples
    --------
    >>> import numpy as np
    >>> import dp
    >>> sine = dp.declare("sine", np.sin, lambda g, y, x: g * np.cos(x))
    >>> dp.check_gradient(sine, [[0.3, 2.0]]) < 1e-8
    True
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"an operation needs a name, such as 'sine'; got {name!r}")
    if name in LIBRARY:
        raise ValueError(
            f"{name!r} is already in the table, as an operation of the library; choose another name"
        )
    if not callable(kernel):
        raise TypeError(f"the kernel of {name!r} must be a function of arrays, got {kernel!r}")
    if not rules:
        raise TypeError(
            f"{name!r} needs one rule for each operand, such as lambda g, y, x: g * np.cos(x); "
            "None where no gradient flows"
        )
    for rule in rules:
        if rule is not None and not callable(rule):
            raise TypeError(f"a rule of {name!r} must be a function or None, got {rule!r}")
    primitive = Primitive(name, _checked(name, kernel, len(rules)), rules, elementwise)
    TABLE[name] = primitive
    return primitive


def _checked(name: str, kernel: Callable[..., Any], operands: int) -> Callable[..., Array]:
    """A kernel of the user's own, whose mistakes would make wrong numbers elsewhere."""

    @functools.wraps(kernel, updated=())
    def checked(*arrays: Any, **settings: Any) -> Array:
        if len(arrays) != operands:
            raise TypeError(
                f"{name!r} was declared with {operands} rule(s), got {len(arrays)} operands"
            )
        views = [np.asarray(array).view() for array in arrays]
        for view in views:
            view.flags.writeable = False  # others use these numbers too
        try:
            y = np.asarray(kernel(*views, **settings))
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise TypeError(
                f"the kernel of {name!r} changes its operand in place; it must make a new array"
            ) from error
        if y.dtype.kind not in "biuf":
            raise TypeError(f"the kernel of {name!r} must give real numbers, got dtype {y.dtype}")
        if y.ndim < 2 and any(view.ndim > 1 for view in views):
            raise TypeError(
                f"the kernel of {name!r} gave the shape {y.shape}; its result must be a matrix, "
                "such as x.sum(axis=-1, keepdims=True)"
            )
        if y.dtype.kind in "iu":
            y = y.astype(np.result_type(*views, np.float16))
        return y

    return checked


def matrix_axes(axis: int | None) -> tuple[int, ...]:
    """The array axes over which `axis` of the matrix goes: None both, 0 rows, 1 columns."""
    if axis is None:
        return (-2, -1)
    if axis in (0, 1):
        return (axis - 2,)
    raise ValueError(f"axis must be None, 0 or 1 (the axes of the matrix), got {axis!r}")


# --- shape ----------------------------------------------------------------------------------------


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    if shape == (*x.shape[:-2], 1, x.shape[-1]):  # a bias, mostly
        if shape[-1] > 1:  # the same additions as `sum` does, faster
            row: Array = np.einsum("...ij->...j", x[..., None, :, :])
            return row
        return np.add.reduce(x, axis=-2, keepdims=True)
    lead = x.ndim - len(shape)
    grown = [lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1]
    summed: Array = x.sum(axis=(*range(lead), *grown), keepdims=True)
    return summed.reshape(shape)


def _concatenate(a: Array, b: Array, axis: int) -> Array:
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    both = [np.broadcast_to(x, stack + x.shape[-2:]) for x in (a, b)]
    return np.concatenate(both, axis=axis - 2)


def _part(axis: int, start: int, stop: int) -> tuple[slice, slice]:
    return (slice(start, stop), slice(None)) if axis == 0 else (slice(None), slice(start, stop))


def makes_column(index: tuple[Any, Any]) -> bool:
    """Whether an index picks single entries by two lists, which become a column."""
    return not any(isinstance(part, slice) or np.ndim(part) > 1 for part in index)


def _take(x: Array, index: tuple[Any, Any]) -> Array:
    taken: Array = x[(..., *index)]
    return taken[..., None] if makes_column(index) else taken


def _scatter(g: Array, index: tuple[Any, Any], shape: tuple[int, ...]) -> Array:
    into = np.zeros(shape, dtype=g.dtype)
    # add.at, not assignment: an index may name the same entry twice
    where_to: Any = (..., *index)
    np.add.at(into, where_to, g[..., 0] if makes_column(index) else g)
    return into


broadcast_to: Primitive = entry(
    "broadcast_to",
    lambda x, shape: np.broadcast_to(x, shape),
    lambda g, y, x, shape: g,
    elementwise=False,
)
sum_to: Primitive = entry(
    "sum_to", _sum_to, lambda g, y, x, shape: broadcast_to(g, shape=x.shape), elementwise=False
)
astype: Primitive = entry(
    "astype", lambda x, dtype: x.astype(dtype), lambda g, y, x, dtype: g, elementwise=False
)
transpose: Primitive = entry(
    "transpose",
    lambda x: x.mT,
    lambda g, y, x: transpose(g),
    elementwise=False,
)
reshape: Primitive = entry(
    "reshape",
    lambda x, shape: x.reshape(x.shape[:-2] + tuple(shape)),
    lambda g, y, x, shape: reshape(g, shape=x.shape[-2:]),
    elementwise=False,
)
concatenate: Primitive = entry(
    "concatenate",
    _concatenate,
    lambda g, y, a, b, axis: take(g, index=_part(axis, 0, a.shape[axis - 2])),
    lambda g, y, a, b, axis: take(g, index=_part(axis, a.shape[axis - 2], g.shape[axis - 2])),
    elementwise=False,
)
take: Primitive = entry(
    "take",
    _take,
    lambda g, y, x, index: scatter(g, index=index, shape=x.shape),
    elementwise=False,
)
scatter: Primitive = entry(
    "scatter", _scatter, lambda g, y, x, index, shape: take(g, index=index), elementwise=False
)

# --- comparison and choice ------------------------------------------------------------------------

greater: Primitive = entry("greater", np.greater, None, None)
greater_equal: Primitive = entry("greater_equal", np.greater_equal, None, None)
less: Primitive = entry("less", np.less, None, None)
less_equal: Primitive = entry("less_equal", np.less_equal, None, None)
equal: Primitive = entry("equal", np.equal, None, None)
where: Primitive = entry(
    "where",
    np.where,
    None,
    lambda g, y, mask, a, b: where(mask, g, 0.0),
    lambda g, y, mask, a, b: where(mask, 0.0, g),
)

# --- arithmetic -----------------------------------------------------------------------------------

add: Primitive = entry("add", np.add, lambda g, y, a, b: g, lambda g, y, a, b: g)
subtract: Primitive = entry("subtract", np.subtract, lambda g, y, a, b: g, lambda g, y, a, b: -g)
multiply: Primitive = entry(
    "multiply", np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a
)
divide: Primitive = entry(
    "divide", np.divide, lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b
)
negative: Primitive = entry("negative", np.negative, lambda g, y, x: -g)
power: Primitive = entry(
    "pow",
    np.power,
    # b == 0 and a == 0 are set aside where the textbook's formula would give 0 · inf
    lambda g, y, a, b: g * b * power(a, where(equal(b, 0.0), 1.0, b - 1.0)),
    lambda g, y, a, b: g * y * log(where(equal(a, 0.0), 1.0, a)),
)


def _dot(a: Array, b: Array) -> Array:
    # for two matrices the same, at half the cost of a call
    product: Array = a.dot(b) if a.ndim == b.ndim == 2 else np.matmul(a, b)
    return product


dot: Primitive = entry(
    "dot",
    _dot,
    lambda g, y, a, b: dot(g, transpose(b)),
    lambda g, y, a, b: dot(transpose(a), g),
    elementwise=False,
)


def _affine(x: Array, w: Array, b: Array) -> Array:
    y = _dot(x, w)
    return np.add(y, b, y if y.dtype == b.dtype and y.ndim >= b.ndim else None)


# what every layer does: one operation instead of two
affine: Primitive = entry(
    "affine",
    _affine,
    lambda g, y, x, w, b: dot(g, transpose(w)),
    lambda g, y, x, w, b: dot(transpose(x), g),
    lambda g, y, x, w, b: g,
    elementwise=False,
)

# --- elementwise ----------------------------------------------------------------------------------

exp: Primitive = entry("exp", np.exp, lambda g, y, x: g * y)
log: Primitive = entry("log", np.log, lambda g, y, x: g / x)
square: Primitive = entry("square", np.square, lambda g, y, x: g * (2.0 * x))
sqrt: Primitive = entry("sqrt", np.sqrt, lambda g, y, x: g / (2.0 * y))
sign: Primitive = entry("sign", np.sign, None)
absolute: Primitive = entry("abs", np.abs, lambda g, y, x: g * sign(x))
clip: Primitive = entry(
    "clip",
    lambda x, low, high: np.clip(x, low, high),
    lambda g, y, x, low, high: where(
        less(x, -math.inf if low is None else low),
        0.0,
        where(greater(x, math.inf if high is None else high), 0.0, g),
    ),
)
sin: Primitive = entry("sin", np.sin, lambda g, y, x: g * cos(x))
cos: Primitive = entry("cos", np.cos, lambda g, y, x: -g * sin(x))
expm1: Primitive = entry("expm1", np.expm1, lambda g, y, x: g * (y + 1.0))
log1p: Primitive = entry("log1p", np.log1p, lambda g, y, x: g / (1.0 + x))
rounded: Primitive = entry("round", lambda x, decimals: np.asarray(np.round(x, decimals)), None)
# where both are equal, they share the gradient
maximum: Primitive = entry(
    "maximum",
    np.maximum,
    lambda g, y, a, b: where(less(a, b), 0.0, where(greater(a, b), g, 0.5 * g)),
    lambda g, y, a, b: where(greater(a, b), 0.0, where(less(a, b), g, 0.5 * g)),
)
minimum: Primitive = entry(
    "minimum",
    np.minimum,
    lambda g, y, a, b: where(greater(a, b), 0.0, where(less(a, b), g, 0.5 * g)),
    lambda g, y, a, b: where(less(a, b), 0.0, where(greater(a, b), g, 0.5 * g)),
)
normal_cdf: Primitive = entry("normal_cdf", _normal_cdf, lambda g, y, x: g * normal_pdf(x))
normal_pdf: Primitive = entry("normal_pdf", _normal_pdf, lambda g, y, x: g * (-x * y))

# --- reductions over the matrix -------------------------------------------------------------------

reduce_sum: Primitive = entry(
    "sum",
    lambda x, axis: x.sum(axis=matrix_axes(axis), keepdims=True),
    lambda g, y, x, axis: broadcast_to(g, shape=x.shape),
    elementwise=False,
)


def _share_of_maximum(x: Any, y: Any, axis: int | None) -> Any:
    """1 at the maximum; where several entries tie for it, they share it equally."""
    ties = astype(equal(x, y), dtype=x.dtype)
    return ties / reduce_sum(ties, axis=axis)


reduce_max: Primitive = entry(
    "max",
    lambda x, axis: x.max(axis=matrix_axes(axis), keepdims=True),
    lambda g, y, x, axis: g * _share_of_maximum(x, y, axis),
    elementwise=False,
)


def _norm(x: Array, axis: int | None) -> Array:
    axes = matrix_axes(axis)
    largest = np.abs(x).max(axis=axes, keepdims=True, initial=0.0)
    # so that no square overflows, or is lost
    scale = np.where(np.isfinite(largest) & (largest > 0.0), largest, 1.0)
    root: Array = np.sqrt(np.square(x / scale).sum(axis=axes, keepdims=True)) * scale
    return root


norm: Primitive = entry(
    "norm",
    _norm,
    # at 0, where there is no slope, the gradient is 0
    lambda g, y, x, axis: g * (x / where(equal(y, 0.0), 1.0, y)),
    elementwise=False,
)


@np.errstate(divide="ignore")
def _logsumexp(x: Array, axis: int | None) -> Array:
    axes = matrix_axes(axis)
    largest = x.max(axis=axes, keepdims=True)
    shift = np.where(np.isinf(largest), 0.0, largest)
    total: Array = np.log(np.exp(x - shift).sum(axis=axes, keepdims=True)) + shift
    return total


def _shares(x: Any, axis: int | None) -> Any:
    """exp(x) / Σ exp(x); of nothing but -inf, nothing has a share.

    Not exp(x - logsumexp(x)), which loses digits where x is large.
    """
    largest = reduce_max(x, axis=axis)
    e = exp(x - where(equal(largest, -math.inf), 0.0, largest))
    total = reduce_sum(e, axis=axis)
    return e / where(equal(total, 0.0), 1.0, total)


logsumexp: Primitive = entry(
    "logsumexp",
    _logsumexp,
    lambda g, y, x, axis: g * _shares(x, axis),
    elementwise=False,
)


def _log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis=axis - 2, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=axis - 2, keepdims=True))
    return normalised


def _softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis - 2, keepdims=True))
    normalised: Array = e / e.sum(axis=axis - 2, keepdims=True)
    return normalised


softmax: Primitive = entry(
    "softmax",
    _softmax,
    lambda g, y, x, axis: y * (g - reduce_sum(g * y, axis=axis)),
    elementwise=False,
)
log_softmax: Primitive = entry(
    "log_softmax",
    _log_softmax,
    lambda g, y, x, axis: g - exp(y) * reduce_sum(g, axis=axis),
    elementwise=False,
)

# --- activation functions (their ranges, slopes and saturation: activations.py) -------------------

# Klambauer et al. 2017, eq. 14: the fixed point of mean 0 and variance 1
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


# an array without axes costs less to call with than a float
_ONES = {kind: np.ones((), kind) for kind in "fd"}


@np.errstate(over="ignore")
def _sigmoid(x: Array) -> Array:
    # exact to the last digits in both tails; where exp overflows, its inverse is rightly 0
    y: Array = np.negative(x)
    one = _ONES.get(y.dtype.char)
    if one is None or not y.ndim:
        return 1.0 / (np.exp(y) + 1.0)
    np.exp(y, y)
    np.add(y, one, y)
    return np.divide(one, y, y)


def _elu(x: Array, alpha: float, scale: float) -> Array:
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


sigmoid: Primitive = entry("sigmoid", _sigmoid, lambda g, y, x: g * (y * (1.0 - y)))
tanh: Primitive = entry("tanh", np.tanh, lambda g, y, x: g * (1.0 - y * y))
# The kinked ones ask where the slope is 0, not where it is 1: NaN answers no, and stays visible.
# (Relu asks its result, so that nobody needs its operand any more.)
relu: Primitive = entry(
    "relu", lambda x: np.maximum(x, 0.0), lambda g, y, x: where(less_equal(y, 0.0), 0.0, g)
)
leaky_relu: Primitive = entry(
    "leaky_relu",
    lambda x, slope: np.where(x > 0, x, slope * x),
    lambda g, y, x, slope: where(greater(x, 0.0), g, slope * g),
)
elu: Primitive = entry(
    "elu",
    _elu,
    # not y + alpha · scale, which is 0 long before exp(x) is
    lambda g, y, x, alpha, scale: where(
        greater(x, 0.0), scale * g, g * (alpha * scale * exp(clip(x, low=None, high=0.0)))
    ),
)
gelu: Primitive = entry(
    "gelu",
    lambda x: x * _normal_cdf(x),
    lambda g, y, x: g * (normal_cdf(x) + x * normal_pdf(x)),
)
silu: Primitive = entry(
    "silu",
    lambda x: x * _sigmoid(x),
    # not sigmoid(x) · (1 + x - y), in which a large x loses the 1
    lambda g, y, x: g * (sigmoid(x) + y * (1.0 - sigmoid(x))),
)
softplus: Primitive = entry(
    "softplus", lambda x: np.logaddexp(x, 0.0), lambda g, y, x: g * sigmoid(x)
)
