"""A Node as a plain number, boolean or array, through which no gradient flows."""

from __future__ import annotations

from typing import Any

import numpy as np

from dp import primitives as p
from dp.errors import CaptureError
from dp.indexing import checked_axis, one_axis
from dp.mode import MODE
from dp.typing import Array


def not_while_capturing(node: Any, what: str) -> None:
    """Raise CaptureError while a function is captured: a program could not decide anew."""
    if MODE.get().capturing:
        raise CaptureError(
            f"{what} of {node!r} was asked for while its function was captured, but a "
            "program cannot decide again for other values; use Node.clip or dp.primitives.where"
        )


class PlainValues(p.Recorded):
    """The methods of Node that give plain numbers, booleans and arrays."""

    __slots__ = ()

    value: Array

    def __bool__(self) -> bool:
        not_while_capturing(self, "the truth")
        if self.value.size != 1:
            raise ValueError(
                f"a Node of shape {self.value.shape} is neither true nor false; for masks write "
                "& | ~ instead of and, or, not, and ask .any() or .all()"
            )
        return bool(self.value.item())

    def __float__(self) -> float:
        not_while_capturing(self, "the number")
        if self.value.size != 1:
            raise TypeError(
                f"only a 1×1 Node is a number, this one has shape {self.value.shape}; node.value "
                "is the plain array"
            )
        return float(self.value.item())

    def __int__(self) -> int:
        return int(float(self))

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(float(self), ndigits)

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def item(self) -> float:
        """The number of a 1×1 Node, without gradient."""
        return float(self)

    def tolist(self) -> Any:
        """The entries as nested lists, without gradient."""
        not_while_capturing(self, "the entries")
        return self.value.tolist()

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.value.size

    def argmax(self, axis: int | None = None) -> Any:
        """Position of the maximum in the matrix, a plain array of integers; no gradient flows."""
        return self._asked(np.argmax, axis)

    def argmin(self, axis: int | None = None) -> Any:
        """Position of the minimum in the matrix, a plain array of integers; no gradient flows."""
        return self._asked(np.argmin, axis)

    def argsort(self, axis: int = 1) -> Any:
        """Positions in which the entries are in order, a plain array; no gradient flows."""
        return self._asked(np.argsort, one_axis(axis))

    def any(self, axis: int | None = None) -> Any:
        """Whether any entry is not 0, plain; no gradient flows."""
        return self._asked(np.any, axis)

    def all(self, axis: int | None = None) -> Any:
        """Whether no entry is 0, plain; no gradient flows."""
        return self._asked(np.all, axis)

    def _asked(self, function: Any, axis: int | None) -> Any:
        not_while_capturing(self, function.__name__)
        axis = checked_axis(axis)
        if axis is not None:
            return function(self.value, axis=axis - 2)
        if self.value.ndim == 2:
            return function(self.value)
        return function(self.value.reshape(*self.value.shape[:-2], -1), axis=-1)  # of each member
