"""Batches: rows of the training data drawn at random, separately for each member of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dp.node import Node
from dp.parameters import members_of, registered
from dp.typing import Array
from dp.validation import seeds

STREAMS = "_dp_streams"


def streams(seed: int | Sequence[int], model: Any) -> list[np.random.Generator]:
    """The random streams that batches are drawn from: one, or one for each member of an ensemble.

    Raises
    ------
    ValueError
        If there are not as many seeds as members.
    """
    drawn = seeds(seed)
    members = members_of(model) or 1
    if len(drawn) != members:
        raise ValueError(
            f"the model has {members} member(s), but {len(drawn)} seed(s) were given for their "
            "batches"
        )
    # The second word keeps a batch stream apart from that of weights with the same seed.
    return [np.random.default_rng((one, 1)) for one in drawn]


def streams_of(optimizer: Any) -> list[np.random.Generator] | None:
    """What an optimiser draws its batches from, one per member; None is NumPy's global stream."""
    found: list[np.random.Generator] | None = vars(optimizer).get(STREAMS)
    return found


class _Streams:
    """Shows the streams, unless a subclass has set an attribute of this name."""

    def __get__(self, optimizer: Any, owner: type) -> Any:
        return self if optimizer is None else streams_of(optimizer)


def _dtype(model: Any) -> Any:
    kept = registered(model)
    return None if kept is None else kept.dtype


class Batches:
    """The data of a training, and the batches drawn from it; see `Optimizer`."""

    model: Any
    x_train: Any
    y_train: Any
    batch_size: int = 128  # for subclasses with an __init__ of their own
    # a subclass may hide it with an attribute: the library itself calls `streams_of`
    _streams = _Streams()

    def random_batch(self) -> tuple[Node, Node]:
        """Draw `batch_size` rows with replacement; for an ensemble, each member draws its own.

        Returns
        -------
        (Node, Node)
            x (…, batch, features) and y (…, batch, outputs).
        """
        (rows,) = self.draw_rows(1)
        return self._batch(self.x_train, rows), self._batch(self.y_train, rows)

    def draw_rows(self, steps: int) -> list[Array]:
        """Draw the rows of several steps' batches: the same as one step at a time.

        Returns
        -------
        list of arrays
            One per step, (batch,) or (members, batch).
        """
        n, size = self.x_train.shape[0], (steps, self.batch_size)
        members, streams = members_of(self.model), streams_of(self)
        if streams is not None:
            # as NumPy's indices are, which on 32-bit platforms are not what `integers` gives
            drawn = [s.integers(0, n, size=size).astype(np.intp, copy=False) for s in streams]
            return list(drawn[0] if members is None else np.stack(drawn, axis=1))
        one: Any = self.batch_size if members is None else (members, self.batch_size)
        draws = (np.random.randint(0, n, size=one) for _ in range(steps))
        return [rows.astype(np.intp, copy=False) for rows in draws]

    def draws_rows(self) -> bool:
        """Whether batches are drawn by the library's methods, and a subclass has replaced none."""
        return self.x_train.ndim <= 2 and not any(
            method in vars(self) or getattr(type(self), method) is not getattr(Batches, method)
            for method in ("random_batch", "draw_rows", "_batch")
        )

    def _batch(self, data: Array, rows: Array) -> Node:
        picked = data.take(rows, axis=0)
        if data.ndim == 1:
            picked = picked[..., None]  # labels as a column, also in a stack
        dtype = _dtype(self.model)
        return Node(picked if dtype is None else picked.astype(dtype, copy=False))


def check_data(x_train: Any, y_train: Any, model: Any) -> None:
    """Refuse data that no model can be trained on. None means that there is none yet.

    Raises
    ------
    TypeError, ValueError
        If it is not an array of finite numbers (in the model's dtype), or numbers of rows differ.
    """
    dtype = _dtype(model)
    for what, data in (("x_train", x_train), ("y_train", y_train)):
        if data is None:
            continue
        if not isinstance(data, np.ndarray):
            raise TypeError(f"{what} must be a NumPy array, got {type(data).__name__}")
        if data.dtype.kind not in "biuf" or isinstance(data, np.ma.MaskedArray):
            raise TypeError(
                f"{what} must be a plain array of real numbers, got {type(data).__name__} of dtype "
                f"{data.dtype}"
            )
        if not data.ndim or not len(data):
            raise ValueError(f"{what} needs at least one row, got shape {data.shape}")
        with np.errstate(over="ignore"):
            finite = np.isfinite(data if dtype is None else data.astype(dtype, copy=False))
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"{what} has {data[where]} at {where}; all entries must be finite"
                + ("" if dtype is None else f", as {np.dtype(dtype)}")
            )
    if x_train is not None and y_train is not None and len(x_train) != len(y_train):
        raise ValueError(
            f"x_train has {len(x_train)} rows, y_train {len(y_train)}; they must be as many"
        )
