"""Node: a matrix, or a stack of matrices, and its place in the graph."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from math import prod, sqrt
from typing import Any

import numpy as np

from dp import primitives as p
from dp.errors import AnomalyError, ShapeError
from dp.hints import Guarded, check_subclass, hint_at_missing
from dp.indexing import checked_axis, matrix_index, one_axis, wanted_shape
from dp.mode import MODE
from dp.numpy_functions import COMPARISONS, PRIMITIVES, apply_function, apply_ufunc
from dp.order import topological_order
from dp.plain_values import PlainValues, not_while_capturing
from dp.shapes import NO_SETTINGS, anomaly_message, check_shapes, describe
from dp.sweep import named_gradients
from dp.typing import Array
from dp.validation import as_matrix, integer, number

FLOAT64 = np.dtype(np.float64)
_new = object.__new__


class Node(PlainValues):
    """A matrix, or a stack of matrices, that remembers how it was computed.

    Parameters
    ----------
    value : number or array_like
        A number becomes 1×1, a 1-D array a column, a 2-D array stays as it is; in 3 or more
        dimensions the last two axes are the matrix and the axes before them a stack. Integers and
        booleans become float64. An array of floats is not copied: changing it changes the Node.
    name : str, optional
        `grad` reports the gradient of a named Node under this name. In a model, parameters are
        made by `Model.Parameter`.

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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.split(".")[0] != "dp":
            check_subclass(Node, cls)
            hint_at_missing(Node, everything=True)

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
            check_shapes(primitive, parents)
        try:
            if len(parents) == 1:
                value = primitive.kernel(parents[0].value, **settings)
            else:
                value = primitive.kernel(*[parent.value for parent in parents], **settings)
        except ValueError as error:
            raise ShapeError(f"{describe(primitive, parents, settings)}: {error}") from error
        recording, detecting, _ = MODE.get()
        if detecting and not np.isfinite(value).all():
            raise AnomalyError(anomaly_message(primitive, parents, settings, value))
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
        for node in reversed(topological_order(self)):  # no recursion: graphs are deep
            if id(node) not in memo:
                twin = Node(node.value.copy(), node.name)
                twin.primitive, twin.settings = node.primitive, node.settings
                twin.parents = tuple(memo[id(q)] for q in node.parents)
                memo[id(node)] = twin
        found: Node = memo[id(self)]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
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

    def __contains__(self, number: Any) -> bool:
        if isinstance(number, Node):
            raise TypeError("a Node holds numbers, no Nodes; dp.equal(a, b) compares entries")
        return bool((self == number).any())

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "entries of a Node cannot be set, as its gradient would be lost: choose with "
            "dp.where(mask, a, b), or change a leaf's numbers by node.value[...] = ..."
        )

    def astype(self, dtype: Any) -> Any:
        """The entries in another dtype: a Node of floats, or a plain array of integers or booleans.

        Gradients flow through a Node of floats, in the dtype of what they belong to.
        """
        if np.dtype(dtype).kind not in "biuf":
            raise TypeError(f"a Node holds real numbers, which do not become {np.dtype(dtype)}")
        if np.dtype(dtype).kind == "f":
            return Node.record(p.astype, (self,), {"dtype": np.dtype(dtype)})
        not_while_capturing(self, f"the entries as {np.dtype(dtype)}")
        return self.value.astype(dtype)

    @staticmethod
    def forgot(result: Node, operand: Node, reach: int = 1000) -> bool:
        """Whether `result` was not computed from `operand`, as far as `reach` Nodes tell."""
        if result.name is not None or not MODE.get().recording:
            return False
        seen, stack = {result}, [result]
        while stack and len(seen) <= reach:
            node = stack.pop()
            if node is operand:
                return False
            new = [q for q in node.parents if q not in seen]
            seen.update(new)
            stack.extend(new)
        return not stack

    def _grad(self, cotangent: Any = None) -> dict[str, Array]:
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
        return named_gradients(self, cotangent)

    grad = Guarded(_grad)

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

    def __pos__(self) -> Node:
        return self

    # `w -= step` would make `w` the name of another Node, and leave the parameter as it was
    def __iadd__(self, other: Any) -> Node:
        return self._not_in_place().__add__(other)

    def __isub__(self, other: Any) -> Node:
        return self._not_in_place().__sub__(other)

    def __imul__(self, other: Any) -> Node:
        return self._not_in_place().__mul__(other)

    def __itruediv__(self, other: Any) -> Node:
        return self._not_in_place().__truediv__(other)

    def __ipow__(self, other: Any) -> Node:
        return self._not_in_place().pow(other)

    def __imatmul__(self, other: Any) -> Node:
        return self._not_in_place().dot(other)

    def _not_in_place(self) -> Node:
        if self.name is not None and self.primitive is None:
            raise TypeError(
                f"the parameter {self.name!r} cannot be changed by += or -= and the like, which "
                f"make another Node: write {self.name}.value -= ... to change its numbers, or "
                f"h = {self.name} - ... to compute with it"
            )
        return self

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
        if isinstance(other, Node):
            return self is other  # so that `in`, `index` and `remove` find a Node in a list
        if not isinstance(other, (numbers.Real, np.ndarray)):
            return NotImplemented  # `x == None` asks what x is, not what it holds
        return self._compared(p.equal, other)

    def __ne__(self, other: Any) -> Any:
        if isinstance(other, Node):
            return self is not other
        if not isinstance(other, (numbers.Real, np.ndarray)):
            return NotImplemented
        return 1.0 - self._compared(p.equal, other)

    __hash__ = object.__hash__  # by identity, as ==

    # Masks: an entry counts as true unless it is 0.
    def __invert__(self) -> Node:
        return self._compared(p.equal, 0.0)

    def __and__(self, other: Any) -> Node:
        return ~(~self + ~_mask(other))

    def __or__(self, other: Any) -> Node:
        return ~(~self * ~_mask(other))

    def __xor__(self, other: Any) -> Node:
        return ~(~self)._compared(p.equal, ~_mask(other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

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
        forgotten = self.primitive is None and not MODE.get().recording
        if self.primitive is not p.transpose and not forgotten:
            raise TypeError("a Node is not a function; only x.T may be written as x.T()")
        return self

    def reshape(self, *sides: Any, shape: Any = None) -> Node:
        """Give the matrix another shape, row by row; a stack stays a stack.

        Parameters
        ----------
        *sides : two integers, or one sequence of them
            Rows and columns; -1 is computed from the others. A single number makes a column.
        shape : sequence, optional
            The same by its name.

        Raises
        ------
        ShapeError
            If there are more than two sides, or they do not hold as many entries.
        """
        if shape is not None and sides:
            raise TypeError(f"reshape takes the shape once, got {sides} and shape={shape!r}")
        wanted = wanted_shape(sides if shape is None else (shape,))
        if len(wanted) != 2:
            raise ShapeError(
                f"reshape takes the two sides of a matrix, such as (2, 3) or (-1, 1), got {wanted}"
            )
        return Node.record(p.reshape, (self,), {"shape": wanted})

    def flatten(self) -> Node:
        """All entries in a column, row by row."""
        return self.reshape(-1, 1)

    ravel = flatten

    def concatenate(self, other: Any, axis: int = 0) -> Node:
        """Append the rows (axis=0) or the columns (axis=1) of `other`; `joined` takes a list.

        Raises
        ------
        ValueError
            If the axis is neither, or the other sides differ (a `ShapeError`).
        """
        return Node.record(p.concatenate, (self, other), {"axis": one_axis(axis)})

    @staticmethod
    def joined(parts: Sequence[Any], axis: int = 0) -> Node:
        """Join Nodes and arrays by rows (axis=0) or columns (axis=1); see `dp.concatenate`."""
        axis = one_axis(axis)
        level = list(_as_nodes(tuple(parts)))
        if not level:
            raise ValueError("there is nothing to join: the list is empty")
        while len(level) > 1:  # by twos, so that no row is copied more than log2 times
            pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
            level = [pair[0].concatenate(pair[1], axis) if pair[1:] else pair[0] for pair in pairs]
        return level[0]

    def __getitem__(self, index: Any) -> Node:
        """Pick rows and columns of the matrix; the result is a matrix again.

        `x[i]` and `x[i:j]` are rows, `x[i, j]` is 1×1, `x[rows]` picks rows by an integer or
        boolean array, `x[rows, columns]` with two arrays, or `x[mask]`, is a column of entries.
        With 2-D arrays `x[rows, columns]` is a matrix of their shape, and `x[rows]` a stack of
        matrices, one for each row of the array. A mask may be a Node, such as `x > 0`.

        Raises
        ------
        IndexError
            If an index is outside the matrix, or is none of these.
        """
        if isinstance(index, Node):
            index = _as_mask(index, self.shape)
        return Node.record(p.take, (self,), {"index": matrix_index(index, self.shape)})

    # --- elementwise ------------------------------------------------------------------------------

    def exp(self) -> Node:
        """e to the power of each entry."""
        return Node.record(p.exp, (self,), NO_SETTINGS)

    def expm1(self) -> Node:
        """exp(x) - 1 of each entry, exact where x is small."""
        return Node.record(p.expm1, (self,), NO_SETTINGS)

    def log(self) -> Node:
        """Natural logarithm of each entry."""
        return Node.record(p.log, (self,), NO_SETTINGS)

    def log1p(self) -> Node:
        """log(1 + x) of each entry, exact where x is small."""
        return Node.record(p.log1p, (self,), NO_SETTINGS)

    def sin(self) -> Node:
        """Sine of each entry."""
        return Node.record(p.sin, (self,), NO_SETTINGS)

    def cos(self) -> Node:
        """Cosine of each entry."""
        return Node.record(p.cos, (self,), NO_SETTINGS)

    def square(self) -> Node:
        """Square of each entry."""
        return Node.record(p.square, (self,), NO_SETTINGS)

    def sqrt(self) -> Node:
        """Square root of each entry."""
        return Node.record(p.sqrt, (self,), NO_SETTINGS)

    def abs(self) -> Node:
        """Absolute value of each entry; the derivative at 0 is taken as 0."""
        return Node.record(p.absolute, (self,), NO_SETTINGS)

    def round(self, decimals: int = 0) -> Node:
        """Each entry rounded to so many decimals; no gradient flows, as the slope is 0."""
        return Node.record(p.rounded, (self,), {"decimals": integer("decimals", decimals)})

    def maximum(self, other: Any) -> Node:
        """The larger of two entries; where both are equal, they share the gradient."""
        return Node.record(p.maximum, (self, other), NO_SETTINGS)

    def minimum(self, other: Any) -> Node:
        """The smaller of two entries; where both are equal, they share the gradient."""
        return Node.record(p.minimum, (self, other), NO_SETTINGS)

    def clip(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        min: float | None = None,  # noqa: A002 (as NumPy calls it)
        max: float | None = None,  # noqa: A002
    ) -> Node:
        """Limit each entry to [low, high]; the derivative is 1 inside and on the limits.

        `min` and `max` are other names of the limits.

        Raises
        ------
        TypeError, ValueError
            If a limit is not a number, or is given twice, or low > high.
        """
        if (low is not None and min is not None) or (high is not None and max is not None):
            raise TypeError("clip takes each limit once: low or min, high or max")
        low, high = (min if low is None else low), (max if high is None else high)
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

    # `keepdims` is taken as other libraries have it; a Node always keeps its two dimensions.

    def sum(self, axis: Any = None, keepdims: bool = True) -> Node:
        """Sum of all entries (1×1), over the rows (axis=0, 1×m) or the columns (axis=1, n×1)."""
        return Node.record(p.reduce_sum, (self,), {"axis": checked_axis(axis, keepdims)})

    def mean(self, axis: Any = None, keepdims: bool = True) -> Node:
        """Mean of all entries, over the rows (axis=0) or the columns (axis=1)."""
        axis = checked_axis(axis, keepdims)
        total = Node.record(p.reduce_sum, (self,), {"axis": axis})
        return total / float(self._count(axis, "a mean"))

    def var(self, axis: Any = None, *, ddof: int = 0, keepdims: bool = True) -> Node:
        """Variance: the mean square distance from the mean, of n - `ddof` entries."""
        axis = checked_axis(axis, keepdims)
        left = self._count(axis, "a variance", ddof)
        return (self - self.mean(axis)).square().sum(axis) / float(left)

    def std(self, axis: Any = None, *, ddof: int = 0, keepdims: bool = True) -> Node:
        """Standard deviation, the root of `var`; where it is 0, its gradient is taken as 0."""
        axis = checked_axis(axis, keepdims)
        left = self._count(axis, "a standard deviation", ddof)
        return (self - self.mean(axis)).norm(axis) / sqrt(left)

    def norm(self, axis: Any = None, keepdims: bool = True) -> Node:
        """Root of the sum of squares, of all entries, over the rows or the columns.

        Where it is 0, its gradient is taken as 0.
        """
        return Node.record(p.norm, (self,), {"axis": checked_axis(axis, keepdims)})

    def max(self, axis: Any = None, keepdims: bool = True) -> Node:
        """Maximum, over the rows (axis=0) or the columns (axis=1); ties share the gradient."""
        axis = checked_axis(axis, keepdims)
        self._count(axis, "a maximum")
        return Node.record(p.reduce_max, (self,), {"axis": axis})

    def min(self, axis: Any = None, keepdims: bool = True) -> Node:
        """Minimum, over the rows (axis=0) or the columns (axis=1); ties share the gradient."""
        axis = checked_axis(axis, keepdims)
        self._count(axis, "a minimum")
        return -Node.record(p.reduce_max, (-self,), {"axis": axis})

    def logsumexp(self, axis: Any = None, keepdims: bool = True) -> Node:
        """log Σ exp(x), without overflow, of all entries, over the rows or the columns."""
        axis = checked_axis(axis, keepdims)
        self._count(axis, "a logsumexp")
        return Node.record(p.logsumexp, (self,), {"axis": axis})

    def _count(self, axis: int | None, what: str, less: int = 0) -> int:
        """Number of entries that a reduction takes, which must be positive."""
        shape = self.value.shape
        count = prod(shape[-2:]) if axis is None else shape[axis - 2]
        if count - less < 1:
            needed = "one entry" if not less else f"{less + 1} entries (ddof={less})"
            raise ValueError(f"{what} needs at least {needed}; the Node has shape {shape}")
        return count - less

    def softmax(self, axis: int = 1) -> Node:
        """exp(x) / Σ exp(x), the sum over the columns (axis=1) or the rows (axis=0)."""
        return Node.record(p.softmax, (self,), {"axis": one_axis(axis)})

    def log_softmax(self, axis: int = 1) -> Node:
        """Logarithm of the softmax, exact where the softmax itself would round to 0."""
        return Node.record(p.log_softmax, (self,), {"axis": one_axis(axis)})

    # --- NumPy ------------------------------------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError(
            "a Node does not turn into a NumPy array silently, as its gradient would be lost; "
            "write node.value, or join Nodes by dp.concatenate([a, b])"
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        primitive = PRIMITIVES.get(ufunc)
        if primitive is None or method != "__call__" or kwargs:
            return apply_ufunc(ufunc, method, inputs, kwargs)
        found = Node.record(primitive, inputs, NO_SETTINGS)
        if primitive in COMPARISONS:
            dtype = next(one.dtype for one in inputs if isinstance(one, Node))
            return Node.record(p.astype, (found,), {"dtype": dtype})
        return found

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return apply_function(function, args, kwargs)


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
    if MODE.get().capturing:  # else an argument would become a constant
        return Node.record(p.astype, (node,), {"dtype": dtype})
    return Node(node.value.astype(dtype))


_CONSTANTS: dict[tuple[float, np.dtype[Any]], Node] = {}  # the same few numbers are used often
MOST_CONSTANTS = 1000


def _constant(value: Any, dtype: np.dtype[Any]) -> Node:
    if type(value) is float or type(value) is int:  # nearly always, and quickly
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


def _mask(other: Any) -> Node:
    """The other side of & | ^: a Node, a boolean, or an array of booleans."""
    if isinstance(other, Node):
        return other
    if isinstance(other, (bool, np.bool_)) or (
        isinstance(other, np.ndarray) and other.dtype == bool
    ):
        return Node(other)
    raise TypeError(f"& | ^ join masks: Nodes or booleans, got {other!r}")


def _as_mask(index: Node, shape: tuple[int, ...]) -> Array:
    """A Node of 0 and 1, such as `x > 0`, as the mask of a matrix."""
    not_while_capturing(index, "the entries, as a mask,")
    mask = index.value
    if mask.shape != shape[-2:] or not ((mask == 0) | (mask == 1)).all():
        raise IndexError(
            f"a Node picks entries if it is a mask of 0 and 1 of the matrix's shape {shape[-2:]}, "
            f"got {index!r}; other indices are arrays, such as node.value.astype(int)"
        )
    return mask.astype(bool)


hint_at_missing(Node)
