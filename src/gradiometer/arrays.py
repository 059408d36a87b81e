"""Arrays of any library: their types, their namespace, and a matrix as a list of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

MATRIX = (-2, -1)


class Numbers(Protocol):
    """A number, or an array of them: a quantity of each step, layer or member."""

    def __float__(self) -> float: ...
    def __add__(self, other: Any, /) -> Numbers: ...
    def __radd__(self, other: Any, /) -> Numbers: ...
    def __sub__(self, other: Any, /) -> Numbers: ...
    def __mul__(self, other: Any, /) -> Numbers: ...
    def __rmul__(self, other: Any, /) -> Numbers: ...
    def __truediv__(self, other: Any, /) -> Numbers: ...

    # one boolean, or an array of them
    def __eq__(self, other: object, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...


class Array(Numbers, Protocol):
    """An array of NumPy, PyTorch, JAX or another library that follows the array API standard.

    It has those members of the standard that the quantities use; functions of arrays are those of
    its library.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> Any:  # each library has its own
        """Kind of number."""

    def __getitem__(self, key: Any, /) -> Array: ...
    def __invert__(self) -> Array: ...
    def __and__(self, other: Any, /) -> Array: ...
    def __add__(self, other: Any, /) -> Array: ...
    def __sub__(self, other: Any, /) -> Array: ...
    def __mul__(self, other: Any, /) -> Array: ...
    def __rmul__(self, other: Any, /) -> Array: ...
    def __truediv__(self, other: Any, /) -> Array: ...
    def __matmul__(self, other: Any, /) -> Array: ...


SameArray = TypeVar("SameArray", bound=Array)
"""An array of whatever library it is: what is made of it is of that library too."""


def namespace(x: Numbers) -> Any:
    """The library of an array, with the names of the array API standard."""
    if isinstance(x, np.ndarray | np.generic | float | int):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(x)


def entries(array: Array, axes: Sequence[int] | None = MATRIX) -> Array:
    """The entries of each matrix as one axis, (…, n).

    Parameters
    ----------
    array : array
        A matrix in its last two axes, or in those given (the kernel of a convolution has more).
    axes : sequence of int, optional
        The last ones; None for all.

    Raises
    ------
    ValueError
        If they are others.
    """
    lead = 0 if axes is None else array.ndim - len(axes)
    if axes is not None and axes is not MATRIX and any(a % array.ndim < lead for a in axes):
        raise ValueError(f"axes must be the last ones of {array.ndim}, got {tuple(axes)}")
    if not isinstance(array, np.ndarray):
        xp = namespace(array)
        if array.dtype in (getattr(xp, "float16", None), getattr(xp, "bfloat16", None)):
            array = xp.astype(array, xp.float32)
        return xp.reshape(array, (*array.shape[:lead], -1))
    if array.dtype.char == "e":
        array = array.astype(np.float32)
    # in the order of memory, so that no copy is made
    if not lead:
        return array.ravel("K")
    if array.flags.c_contiguous:
        return array.reshape(*array.shape[:lead], -1)
    steps = array.strides
    order = sorted(range(lead, array.ndim), key=lambda axis: -steps[axis])
    return array.transpose(*range(lead), *order).reshape(*array.shape[:lead], -1)


def transposed(matrix: Array) -> Array:
    """Matrices in the last two axes, the other way round."""
    return namespace(matrix).matrix_transpose(matrix)


def where_true(true: Array, x: Array) -> Array:
    """The entries where something is true; 0 elsewhere, also of what is not finite."""
    xp = namespace(x)
    return xp.where(true, x, xp.zeros_like(x))
