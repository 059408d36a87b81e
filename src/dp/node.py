"""Node: a matrix, or a stack of matrices, and its place in the graph."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.validation import number, real_array

Array = NDArray[Any]
NO_SETTINGS: dict[str, Any] = {}
FLOAT64 = np.dtype(np.float64)
_new = object.__new__


class ShapeError(ValueError):
    """Two operands whose shapes do not fit the operation."""


class AnomalyError(FloatingPointError):
    """A NaN or an infinity appeared while `detect_anomaly` was watching."""


class CaptureError(ValueError):
    """A function that cannot be captured as a program without a wrong number; see `dp.capture`."""


class Mode(NamedTuple):
    """How operations behave in this context: whether they are remembered, watched, captured."""

    recording: bool = True
    detecting: bool = False
    capturing: bool = False


_MODE: ContextVar[Mode] = ContextVar("dp_mode", default=Mode())  # noqa: B039 (immutable)


def mode() -> Mode:
    """Return the mode in force in this thread or task."""
    return _MODE.get()


@contextlib.contextmanager
def _changed(**changes: bool) -> Iterator[None]:
    token = _MODE.set(_MODE.get()._replace(**changes))
    try:
        yield
    finally:
        _MODE.reset(token)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Compute without remembering: Nodes made inside have no past, and so no gradient."""
    return _changed(recording=False)


def detect_anomaly() -> contextlib.AbstractContextManager[None]:
    """Raise `AnomalyError` at the first operation, forward or backward, that gives NaN or Inf."""
    return _changed(detecting=True)


def capturing() -> contextlib.AbstractContextManager[None]:
    """Refuse decisions by a Node's value: a captured program could not take them again."""
    return _changed(recording=True, capturing=True)


def _not_while_capturing(node: Node, what: str) -> None:
    if _MODE.get().capturing:
        raise CaptureError(
            f"{what} of {node!r} was asked for while its function was captured, and a program "
            "could not decide it anew for other values; use Node.clip or dp.primitives.where"
        )


class Node(p.Recorded):
    """A matrix, or a stack of matrices, that remembers how it was computed.

    Parameters
    ----------
    value : number or array_like
        A number becomes 1×1, a 1-D array a column, a 2-D array stays as it is; in 3 or more
        dimensions the last two axes are the matrix and the axes before them a stack. Integers and
        booleans become float64. An array of floats is not copied: changing it changes the Node.
    name : str, optional
        A named Node is a parameter: `grad` reports its gradient under this name.

    Raises
    ------
    TypeError
        If the value is not made of real numbers, or is already a Node.
    """

    __slots__ = ("__weakref__", "name", "parents", "primitive", "settings", "value")

    value: Array
    name: str | None
    primitive: p.Primitive | None
    parents: tuple[Node, ...]
    settings: dict[str, Any]

    def __init__(self, value: Any, name: str | None = None) -> None:
        if isinstance(value, Node):
            raise TypeError(f"value is a Node already ({value!r}); use it, or wrap its .value")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, got {name!r}")
        self.value = as_matrix(value)
        self.name = name
        self.primitive = None
        self.parents = ()
        self.settings = NO_SETTINGS

    @staticmethod
    def record(primitive: p.Primitive, operands: tuple[Any, ...], settings: dict[str, Any]) -> Node:
        """Apply `primitive` to Nodes, arrays and numbers, and remember it.

        Raises
        ------
        ShapeError
            If the shapes do not fit, naming the operation, the shapes and the layer.
        """
        parents = _as_nodes(operands)
        if len(parents) > 1:
            _check_shapes(primitive, parents)
        try:
            if len(parents) == 1:
                value = primitive.kernel(parents[0].value, **settings)
            else:
                value = primitive.kernel(*[parent.value for parent in parents], **settings)
        except ValueError as error:
            raise ShapeError(f"{describe(primitive, parents, settings)}: {error}") from error
        recording, detecting, _ = _MODE.get()
        if detecting and not np.isfinite(value).all():
            raise AnomalyError(_anomaly_message(primitive, parents, settings, value))
        node = _new(Node)
        node.value = value
        node.name = None
        if recording:
            node.primitive = primitive
            node.parents = parents
            node.settings = settings
        else:
            node.primitive = None
            node.parents = ()
            node.settings = NO_SETTINGS
        return node

    # --- what it is -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value: (rows, columns), or (stack…, rows, columns)."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the value."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """Number of axes: 2, and one more for each axis of the stack."""
        return self.value.ndim

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        made = f", from {self.primitive.name}" if self.primitive else ""
        value = np.array2string(self.value, precision=4, threshold=12, separator=", ")
        return f"<Node{name} {'×'.join(map(str, self.shape))} {self.dtype}{made}: {value}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        from dp.backward import topological_order

        for node in reversed(topological_order(self)):  # no recursion: graphs are deep
            if id(node) not in memo:
                twin = Node(node.value.copy(), node.name)
                twin.primitive, twin.settings = node.primitive, node.settings
                twin.parents = tuple(memo[id(q)] for q in node.parents)
                memo[id(node)] = twin
        found: Node = memo[id(self)]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        from dp.backward import topological_order

        order = list(reversed(topological_order(self)))
        if len(order) == 1:
            return Node, (self.value, self.name)
        position = {node: i for i, node in enumerate(order)}
        # leaves are pickled as Nodes, so that a parameter stays one and the same
        rows = [
            (n.value, n.name, n.primitive, n.settings, [position[q] for q in n.parents])
            if n.parents
            else n
            for n in order
        ]
        return _restored, (rows,)

    def __len__(self) -> int:
        return self.shape[-2]

    def __iter__(self) -> Iterator[Node]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        _not_while_capturing(self, "the truth")
        if self.value.size != 1:
            raise ValueError(f"a Node of shape {self.shape} is neither true nor false")
        return bool(self.value.item())

    def __float__(self) -> float:
        _not_while_capturing(self, "the number")
        if self.value.size != 1:
            raise TypeError(f"only a 1×1 Node is a number, this one has shape {self.shape}")
        return float(self.value.item())

    def grad(self, cotangent: Any = None) -> dict[str, Array]:
        """Gradients of this Node with respect to every named leaf it was computed from.

        Parameters
        ----------
        cotangent : number, array or None
            dL/d(this Node), broadcastable to its shape; ones by default.

        Returns
        -------
        dict
            Name of the leaf -> gradient, with the leaf's shape and dtype.
        """
        from dp.backward import named_gradients

        return named_gradients(self, cotangent)

    # --- arithmetic -------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Node:
        return Node.record(p.add, (self, other), NO_SETTINGS)

    def __radd__(self, other: Any) -> Node:
        return Node.record(p.add, (other, self), NO_SETTINGS)

    def __sub__(self, other: Any) -> Node:
        return Node.record(p.subtract, (self, other), NO_SETTINGS)

    def __rsub__(self, other: Any) -> Node:
        return Node.record(p.subtract, (other, self), NO_SETTINGS)

    def __mul__(self, other: Any) -> Node:
        return Node.record(p.multiply, (self, other), NO_SETTINGS)

    def __rmul__(self, other: Any) -> Node:
        return Node.record(p.multiply, (other, self), NO_SETTINGS)

    def __truediv__(self, other: Any) -> Node:
        return Node.record(p.divide, (self, other), NO_SETTINGS)

    def __rtruediv__(self, other: Any) -> Node:
        return Node.record(p.divide, (other, self), NO_SETTINGS)

    def __pow__(self, other: Any) -> Node:
        return Node.record(p.power, (self, other), NO_SETTINGS)

    def __rpow__(self, other: Any) -> Node:
        return Node.record(p.power, (other, self), NO_SETTINGS)

    def __neg__(self) -> Node:
        return Node.record(p.negative, (self,), NO_SETTINGS)

    def __abs__(self) -> Node:
        return self.abs()

    def __matmul__(self, other: Any) -> Node:
        return self.dot(other)

    def __rmatmul__(self, other: Any) -> Node:
        return Node.record(p.dot, (other, self), NO_SETTINGS)

    # Comparisons give Nodes of 0 and 1, through which no gradient flows.
    def __gt__(self, other: Any) -> Node:
        return self._compared(p.greater, other)

    def __ge__(self, other: Any) -> Node:
        return self._compared(p.greater_equal, other)

    def __lt__(self, other: Any) -> Node:
        return self._compared(p.less, other)

    def __le__(self, other: Any) -> Node:
        return self._compared(p.less_equal, other)

    def __eq__(self, other: Any) -> Any:
        if not isinstance(other, (Node, numbers.Real, np.ndarray)):
            return NotImplemented  # `x == None` asks what x is, not what it holds
        return self._compared(p.equal, other)

    def __ne__(self, other: Any) -> Any:
        if not isinstance(other, (Node, numbers.Real, np.ndarray)):
            return NotImplemented
        return 1.0 - self._compared(p.equal, other)

    # Nodes are keys of the reverse sweep: by identity, whatever == says.
    __hash__ = object.__hash__

    def _compared(self, primitive: p.Primitive, other: Any) -> Node:
        answer = Node.record(primitive, (self, other), NO_SETTINGS)
        return Node.record(p.astype, (answer,), {"dtype": self.dtype})

    def dot(self, other: Any) -> Node:
        """Matrix product, (n, k) · (k, m) -> (n, m), matrix by matrix over stacks."""
        return Node.record(p.dot, (self, other), NO_SETTINGS)

    def pow(self, exponent: Any) -> Node:
        """Raise to a power, elementwise."""
        return Node.record(p.power, (self, exponent), NO_SETTINGS)

    # --- shape ------------------------------------------------------------------------------------

    def transpose(self) -> Node:
        """Swap rows and columns of the matrix, (n, m) -> (m, n)."""
        return Node.record(p.transpose, (self,), NO_SETTINGS)

    @property
    def T(self) -> Node:
        """The transpose; `x.T()`, as the course writes it, is the same."""
        return self.transpose()

    def __call__(self) -> Node:
        """Give a transpose back unchanged, so that the course's `x.T()` works beside `x.T`."""
        forgotten = self.primitive is None and not _MODE.get().recording
        if self.primitive is not p.transpose and not forgotten:
            raise TypeError("a Node is not a function; only x.T may be written as x.T()")
        return self

    def reshape(self, *shape: Any) -> Node:
        """Give the matrix another shape, row by row; a stack stays a stack.

        Parameters
        ----------
        *shape : two integers, or one sequence of them
            Rows and columns; -1 stands for what is left. One number alone makes a column.

        Raises
        ------
        ShapeError
            If there are more than two sides, or they do not hold as many entries.
        """
        wanted = tuple(shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)
        if len(wanted) == 1:
            wanted = (*wanted, 1)  # 1-D means a column, as in Node(value)
        if len(wanted) != 2:
            raise ShapeError(
                f"reshape takes the two sides of a matrix, such as (2, 3) or (-1, 1), got {wanted}"
            )
        return Node.record(p.reshape, (self,), {"shape": wanted})

    def concatenate(self, other: Any, axis: int = 0) -> Node:
        """Append the rows (axis=0) or the columns (axis=1) of `other`.

        Raises
        ------
        ValueError
            If the axis is neither, or the other sides differ (a `ShapeError`).
        """
        _check_axis(axis)
        return Node.record(p.concatenate, (self, other), {"axis": axis})

    def __getitem__(self, index: Any) -> Node:
        """Pick rows and columns of the matrix; the result is always a matrix.

        `x[i]` and `x[i:j]` are rows, `x[i, j]` is 1×1, `x[rows]` picks rows by an integer or
        boolean array, `x[rows, columns]` with two arrays, or `x[mask]`, is a column of entries.

        Raises
        ------
        IndexError
            If an index is outside the matrix, or is none of these.
        """
        return Node.record(p.take, (self,), {"index": _matrix_index(index, self.shape)})

    # --- elementwise ------------------------------------------------------------------------------

    def exp(self) -> Node:
        """e to the power of each entry."""
        return Node.record(p.exp, (self,), NO_SETTINGS)

    def log(self) -> Node:
        """Natural logarithm of each entry."""
        return Node.record(p.log, (self,), NO_SETTINGS)

    def square(self) -> Node:
        """Square of each entry."""
        return Node.record(p.square, (self,), NO_SETTINGS)

    def sqrt(self) -> Node:
        """Square root of each entry."""
        return Node.record(p.sqrt, (self,), NO_SETTINGS)

    def abs(self) -> Node:
        """Absolute value of each entry; the derivative at 0 is taken as 0."""
        return Node.record(p.absolute, (self,), NO_SETTINGS)

    def clip(self, low: float | None = None, high: float | None = None) -> Node:
        """Limit each entry to [low, high]; the derivative is 1 inside and on the limits.

        Raises
        ------
        TypeError, ValueError
            If a limit is no number, or low > high.
        """
        low = None if low is None else number("low", low)
        high = None if high is None else number("high", high)
        if low is not None and high is not None and low > high:
            raise ValueError(f"clip needs low <= high, got low={low!r}, high={high!r}")
        return Node.record(p.clip, (self,), {"low": low, "high": high})

    def sigmoid(self) -> Node:
        """1 / (1 + exp(-x)), without overflow."""
        return Node.record(p.sigmoid, (self,), NO_SETTINGS)

    def tanh(self) -> Node:
        """Hyperbolic tangent of each entry."""
        return Node.record(p.tanh, (self,), NO_SETTINGS)

    def relu(self) -> Node:
        """max(0, x); the derivative at 0 is taken as 0."""
        return Node.record(p.relu, (self,), NO_SETTINGS)

    def leaky_relu(self, slope: float = 0.01) -> Node:
        """x where it is positive, slope · x elsewhere."""
        return Node.record(p.leaky_relu, (self,), {"slope": number("slope", slope)})

    def elu(self, alpha: float = 1.0) -> Node:
        """x where it is positive, alpha · (exp(x) - 1) elsewhere."""
        return Node.record(p.elu, (self,), {"alpha": number("alpha", alpha), "scale": 1.0})

    def selu(self) -> Node:
        """Scaled ELU with the self-normalising constants of Klambauer et al. 2017."""
        return Node.record(p.elu, (self,), {"alpha": p.SELU_ALPHA, "scale": p.SELU_SCALE})

    def gelu(self) -> Node:
        """x · Φ(x), with Φ the normal distribution function (not its tanh approximation)."""
        return Node.record(p.gelu, (self,), NO_SETTINGS)

    def silu(self) -> Node:
        """x · sigmoid(x)."""
        return Node.record(p.silu, (self,), NO_SETTINGS)

    def softplus(self) -> Node:
        """log(1 + exp(x)), without overflow."""
        return Node.record(p.softplus, (self,), NO_SETTINGS)

    # --- over the matrix --------------------------------------------------------------------------

    def sum(self, axis: int | None = None) -> Node:
        """Sum of all entries (1×1), over the rows (axis=0, 1×m) or the columns (axis=1, n×1)."""
        p.matrix_axes(axis)
        return Node.record(p.reduce_sum, (self,), {"axis": axis})

    def mean(self, axis: int | None = None) -> Node:
        """Mean of all entries, over the rows (axis=0) or the columns (axis=1)."""
        count = np.prod([self.shape[i] for i in p.matrix_axes(axis)])
        if not count:
            raise ValueError(f"a mean needs at least one entry; the Node has shape {self.shape}")
        return self.sum(axis) / float(count)

    def max(self, axis: int | None = None) -> Node:
        """Maximum, over the rows (axis=0) or the columns (axis=1); ties share the gradient."""
        if not all(self.shape[i] for i in p.matrix_axes(axis)):
            raise ValueError(f"a maximum needs at least one entry; the Node has shape {self.shape}")
        return Node.record(p.reduce_max, (self,), {"axis": axis})

    def softmax(self, axis: int = 1) -> Node:
        """exp(x) / Σ exp(x), the sum over the columns (axis=1) or the rows (axis=0)."""
        _check_axis(axis)
        return Node.record(p.softmax, (self,), {"axis": axis})

    def log_softmax(self, axis: int = 1) -> Node:
        """Logarithm of the softmax, exact where the softmax itself would round to 0."""
        _check_axis(axis)
        return Node.record(p.log_softmax, (self,), {"axis": axis})

    # --- NumPy ------------------------------------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError(
            "a Node does not turn into a NumPy array silently, as its gradient would be lost; "
            "write node.value"
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Node:
        primitive = _UFUNCS.get(ufunc)
        if primitive is None or method != "__call__" or kwargs:
            known = ", ".join(sorted(f"np.{known.__name__}" for known in _UFUNCS))
            call = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            raise TypeError(
                f"{call} has no derivative here and would lose the gradient; write node.value "
                f"for the plain array, or use one of {known} (without out= or where=)"
            )
        found = Node.record(primitive, inputs, NO_SETTINGS)
        if primitive in _COMPARISONS:
            dtype = next(one.dtype for one in inputs if isinstance(one, Node))
            return Node.record(p.astype, (found,), {"dtype": dtype})
        return found

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        method = _FUNCTIONS.get(function)
        if method is None or not args or not isinstance(args[0], Node) or set(kwargs) - {"axis"}:
            module = getattr(function, "__module__", "numpy").replace("numpy", "np")
            name = f"{module}.{getattr(function, '__name__', function)}"
            raise TypeError(
                f"{name} with these arguments does not know Nodes and would lose the gradient; "
                "write node.value for the plain array, or use the Node's own methods"
            )
        if args[0].ndim > 2:
            raise TypeError(
                f"np.{method} and node.{method} mean different axes in a stack of matrices; write "
                f"node.{method}, or node.value for the plain array"
            )
        return getattr(args[0], method)(*args[1:], **kwargs)


_UFUNCS = {
    np.add: p.add,
    np.subtract: p.subtract,
    np.multiply: p.multiply,
    np.divide: p.divide,
    np.power: p.power,
    np.negative: p.negative,
    np.matmul: p.dot,
    np.exp: p.exp,
    np.log: p.log,
    np.sqrt: p.sqrt,
    np.square: p.square,
    np.tanh: p.tanh,
    np.absolute: p.absolute,
    np.greater: p.greater,
    np.greater_equal: p.greater_equal,
    np.less: p.less,
    np.less_equal: p.less_equal,
    np.equal: p.equal,
}
_COMPARISONS = {p.greater, p.greater_equal, p.less, p.less_equal, p.equal}
_FUNCTIONS = {
    np.sum: "sum",
    np.mean: "mean",
    np.max: "max",
    np.dot: "dot",
    np.transpose: "transpose",
    np.clip: "clip",
}


def _restored(rows: list[Any]) -> Node:
    nodes: list[Node] = []
    for row in rows:
        if isinstance(row, Node):
            nodes.append(row)
            continue
        value, name, primitive, settings, parents = row
        node = Node(value, name)
        node.primitive, node.settings = primitive, settings
        node.parents = tuple(nodes[i] for i in parents)
        nodes.append(node)
    return nodes[-1]


def as_matrix(value: Any, dtype: Any = None) -> Array:
    """Turn a number or array into a float array of at least two dimensions (see `Node`)."""
    if type(value) is np.ndarray and value.dtype.kind == "f" and value.ndim >= 2:  # nearly always
        return value
    array = real_array(value)
    if array.dtype.kind != "f":
        array = array.astype(dtype if dtype is not None else np.float64)
    if array.ndim < 2:
        array = array.reshape(-1, 1)
    return array


def _as_nodes(operands: tuple[Any, ...]) -> tuple[Node, ...]:
    for operand in operands:
        if not isinstance(operand, Node):
            break
    else:
        return operands
    # Numbers, and arrays of integers, take the dtype of the Nodes they meet: float32 stays float32.
    dtype = None
    for operand in operands:
        if isinstance(operand, Node) and (own := operand.value.dtype).kind == "f":
            dtype = own if dtype is None or own is dtype else np.promote_types(dtype, own)
    if dtype is None:
        dtype = FLOAT64
    return tuple([o if isinstance(o, Node) else _constant(o, dtype) for o in operands])


def as_leaf(value: Any, dtype: np.dtype[Any]) -> Node:
    """Give data as a Node of the dtype wanted; a parameter or a computed Node as it is.

    Raises
    ------
    TypeError
        If the value is not made of real numbers.
    """
    node = value if isinstance(value, Node) else Node(as_matrix(value))
    if node.primitive is not None or node.name is not None or node.value.dtype == dtype:
        return node
    if _MODE.get().capturing:  # as an operation, or an argument would become a constant
        return Node.record(p.astype, (node,), {"dtype": dtype})
    return Node(node.value.astype(dtype))


_CONSTANTS: dict[tuple[float, np.dtype[Any]], Node] = {}  # the numbers that programs are full of
MOST_CONSTANTS = 1000


def _constant(value: Any, dtype: np.dtype[Any]) -> Node:
    if type(value) is float or type(value) is int:  # nearly always; the rest takes its time
        node = _CONSTANTS.get((value, dtype))
        if node is None:
            node = Node(np.array([[value]], dtype))
            node.value.flags.writeable = False  # it is shared
            # not 0, which equals -0, and not NaN, which equals nothing
            if value and value == value and len(_CONSTANTS) < MOST_CONSTANTS:
                _CONSTANTS[value, dtype] = node
        return node
    weak = isinstance(value, numbers.Real) or (isinstance(value, np.ndarray) and not value.ndim)
    return Node(np.array([[value]], dtype=dtype) if weak else as_matrix(value, dtype))


def _check_axis(axis: int) -> None:
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (over the rows) or 1 (over the columns), got {axis!r}")


def _check_shapes(primitive: p.Primitive, parents: tuple[Node, ...]) -> None:
    """Refuse what NumPy would refuse with fewer words, and what it would wrongly accept."""
    a, b = parents[0].value.shape, parents[1].value.shape
    if primitive is p.dot:
        if a[-1] != b[-2]:
            raise ShapeError(
                f"{describe(primitive, parents)}: the left side has {a[-1]} columns, the right "
                f"side {b[-2]} rows; they must be as many"
            )
    elif primitive.elementwise and a != b and (1, 1) not in (a, b):
        (rows_a, columns_a), (rows_b, columns_b) = a[-2:], b[-2:]
        crossed = (columns_a == 1 != columns_b and rows_b == 1 != rows_a) or (
            rows_a == 1 != rows_b and columns_b == 1 != columns_a
        )
        if crossed:
            rows, columns = max(rows_a, rows_b), max(columns_a, columns_b)
            raise ShapeError(
                f"{describe(primitive, parents)}: a column meets a row, which would silently "
                f"become a {rows}×{columns} matrix; transpose one of them (.T), or reshape "
                "labels to a column with y.reshape(-1, 1)"
            )


def describe(
    primitive: p.Primitive, parents: tuple[Node, ...], settings: dict[str, Any] = NO_SETTINGS
) -> str:
    """Words for an operation in an error: its name, its operands' shapes, and the layer."""
    operands = " and ".join(
        f"{parent.shape}" + (f" {parent.name!r}" if parent.name else "") for parent in parents
    )
    details = "".join(f", {key}={value}" for key, value in settings.items())
    near = nearest_parameter(parents)
    layer = f" (nearest parameter: {near!r})" if near else ""
    return f"{primitive.name} of {operands}{details}{layer}"


def nearest_parameter(nodes: tuple[Node, ...], reach: int = 1000) -> str | None:
    """Name of the closest named ancestor, which tells the layer an operation belongs to."""
    seen, level = set(nodes), list(nodes)
    while level and len(seen) <= reach:
        for node in level:
            if node.name:
                return node.name
        level = [q for node in level for q in node.parents if q not in seen]
        seen.update(level)
    return None


def _anomaly_message(
    primitive: p.Primitive, parents: tuple[Node, ...], settings: dict[str, Any], value: Array
) -> str:
    what = describe(primitive, parents, settings)
    bad = [q for q in parents if not np.isfinite(q.value).all()]
    if bad:
        given = f"{bad[0].shape}" + (f" {bad[0].name!r}" if bad[0].name else "")
        return f"forward {what}: its operand {given} is not finite already"
    count = int((~np.isfinite(value)).sum())
    kind = "NaN" if np.isnan(value).any() else "Inf"
    return f"forward {what} gave {kind} in {count} of {value.size} entries"


def _matrix_index(index: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Bring an index into the form (rows, columns), each a slice or an integer array."""
    if isinstance(index, np.ndarray) and index.dtype == bool and index.ndim == 2:
        if index.shape != shape[-2:]:
            raise IndexError(f"a mask of shape {index.shape} does not fit a matrix {shape[-2:]}")
        rows, columns = np.nonzero(index)
        return rows, columns
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) > 2:
        raise IndexError(f"a matrix has two indices, rows and columns; got {len(parts)}: {index!r}")
    parts = (*parts, slice(None))[:2]
    return _axis_index(parts[0], shape[-2], "row"), _axis_index(parts[1], shape[-1], "column")


def _axis_index(index: Any, length: int, word: str) -> Any:
    if isinstance(index, slice):
        return index
    if isinstance(index, (int, np.integer)) and index is not True and index is not False:
        i = int(index)
        if not -length <= i < length:
            raise IndexError(f"{word} {i} is outside a matrix with {length} {word}s")
        return slice(i % length, i % length + 1)
    array = np.asarray(index)
    if array.dtype == bool and array.shape == (length,):
        return np.nonzero(array)[0]
    if array.dtype.kind in "iu" and array.ndim == 1:
        return array.copy()  # the user may reuse it before the gradient is asked for
    raise IndexError(
        f"{word}s are picked by an integer, a slice, or a 1-D array of integers or of {length} "
        f"booleans; got {index!r}"
    )
