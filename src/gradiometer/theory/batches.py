"""The first batch: which rows it holds, how often, and the error dL/dlogit of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:
    from dp.typing import Array
from gradiometer.data import Data

MOST_ROWS = 200  # of more, so many stand for all: kernels cost the square of their number


@dataclass(frozen=True)
class Batches:
    """Batches drawn with replacement from the rows of a data set.

    Attributes
    ----------
    x : array (rows, features)
    y : array (rows, outputs)
        Labels: a column of 0 and 1, or one-hot rows.
    size : int
        Rows per batch.
    whole : bool
        Whether x is the whole data set, and not a selection of it.
    """

    x: Array
    y: Array
    size: int
    whole: bool

    @property
    def rows(self) -> int:
        """How many rows `draw` gives for each batch."""
        return min(len(self.x), self.size) if self.whole else len(self.x)

    def draw(self, rng: np.random.Generator, draws: int) -> tuple[Array, Array, Array]:
        """Rows, labels and how often each row occurs, of so many batches.

        Where a batch is smaller than the data set, its rows: (draws, size, …). Else all rows, of
        which some occur zero times, as a stack of one.
        """
        if self.whole and len(self.x) > self.size:
            chosen = rng.integers(len(self.x), size=(draws, self.size))
            return self.x[chosen], self.y[chosen], np.ones((draws, self.size))
        return self.x[None], self.y[None], self.counts(rng, draws)

    def counts(self, rng: np.random.Generator, draws: int) -> Array:
        """How often each row occurs in each of `draws` batches: (draws, rows).

        A selection stands for so many rows that hardly one is drawn twice. There, class by class,
        rows are taken without replacement as far as they go.
        """
        rows = len(self.x)
        if self.whole:
            return rng.multinomial(self.size, np.full(rows, 1 / rows), size=draws).astype(float)
        labels = self.y[:, 0] if self.y.shape[1] == 1 else self.y.argmax(axis=1)
        classes, members = np.unique(labels, return_counts=True)
        wanted = rng.multinomial(self.size, members / rows, size=draws)
        counts = np.zeros((draws, rows))
        for label, there, many in zip(classes, members, wanted.T, strict=True):
            rank = rng.random((draws, there)).argsort(axis=1).argsort(axis=1)
            laps, rest = np.divmod(many, there)
            counts[:, labels == label] = laps[:, None] + (rank < rest[:, None])
        return counts


@dataclass(frozen=True)
class Loss:
    """What of an experiment makes errors of logits."""

    name: Literal["cross_entropy", "squared_error"]
    reduction: Literal["sum", "mean"]


def of_data(data: Data, size: int, selection: bool = True) -> Batches:
    """Batches of so many rows of a data set.

    Parameters
    ----------
    data : Data
    size : int
        Rows per batch.
    selection : bool
        Whether of a large data set every k-th row stands for all, of each class and of all sizes.
    """
    rows = len(data.x)
    if rows <= MOST_ROWS or not selection:
        return Batches(data.x, data.y, size, True)
    # by class, and by size within it, so that no row that is far out stands for many
    order = np.lexsort(((data.x**2).sum(axis=1), data.labels))
    kept = np.sort(order[np.linspace(0, rows - 1, MOST_ROWS).round().astype(int)])
    return Batches(data.x[kept], data.y[kept], size, False)


def errors(
    logits: Array,
    y: Array,
    loss: Literal["cross_entropy", "squared_error"],
    reduction: Literal["sum", "mean"],
    size: int,
) -> Array:
    """dL/dlogit of a single occurrence of each row.

    Of the cross-entropy p - y, with p the sigmoid, or the softmax, of the logits; of the squared
    error ½ Σ (p - y)², that times the derivative of p. Divided by the batch's size for a mean loss.

    Parameters
    ----------
    logits, y : arrays (…, rows, outputs)

    Returns
    -------
    array (…, rows, outputs)
    """
    p = probabilities(logits)
    if loss == "cross_entropy" and logits.shape[-1] == 1:
        # p - y without the digits that 1 - p loses
        e = (1 - y) * p - y * special.expit(-logits)
    else:
        e = p - y
    if loss == "squared_error":
        e = e * p * (1 - p) if logits.shape[-1] == 1 else p * (e - (p * e).sum(-1, keepdims=True))
    return np.asarray(e / size if reduction == "mean" else e)


def probabilities(logits: Array) -> NDArray[np.float64]:
    """Sigmoid of a single output, softmax of several."""
    if logits.shape[-1] == 1:
        return np.asarray(special.expit(logits))  # also where it is close to zero
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
