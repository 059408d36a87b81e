"""Tasks: small data sets as tensors, and what counts as learning them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from torch import Tensor

from bench.corpus.outcomes import r_squared

ROWS = 600  # trained on
FIXED = 200  # of them, at most half, on which the outcome is measured
REFERENCE = 64  # of these, what the recorder gets

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Task:
    """Rows to learn from, right and as they should be.

    Attributes
    ----------
    x : tensor (rows, features), (rows, length, features), or (rows, length) of tokens
    y : tensor (rows,) of class numbers, or (rows, 1) of numbers
        Classes 0 and 1 of a binary task are numbers.
    goal : str
        "classes", "binary" or "numbers".
    n_outputs : int
    accept : float
        Accuracy, or R² of numbers, from which on a net counts as learning.
    tokens : int
        Size of the vocabulary; 0 if x holds numbers.
    """

    x: Tensor
    y: Tensor
    goal: str
    n_outputs: int
    accept: float
    tokens: int = 0

    @property
    def fixed(self) -> slice:
        """The rows on which the outcome is measured."""
        return fixed_rows(len(self.x))

    @property
    def n_features(self) -> int:
        """Of a row, or of one element of its sequence."""
        return int(self.x.shape[-1])


def _digits() -> Arrays:
    data = datasets.load_digits()
    return data.data, data.target


def _cancer() -> Arrays:
    data = datasets.load_breast_cancer()
    return data.data, data.target


def _wine() -> Arrays:
    data = datasets.load_wine()
    return data.data, data.target


def _diabetes() -> Arrays:
    data = datasets.load_diabetes(scaled=False)
    return data.data, data.target


def _moons() -> Arrays:
    found: Arrays = datasets.make_moons(ROWS, noise=0.1, random_state=0)
    return found


def _blobs() -> Arrays:
    found = datasets.make_blobs(ROWS, 5, centers=4, cluster_std=1.0, random_state=1)
    return found[0], found[1]


def _friedman() -> Arrays:
    found: Arrays = datasets.make_friedman1(ROWS, 6, noise=0.3, random_state=0)
    return found


def _wave() -> Arrays:
    x = np.random.default_rng(0).uniform(-2, 2, (ROWS, 1))
    return x, np.sin(2 * x[:, 0])


def _recall(length: int) -> Arrays:
    """Which of four patterns a sequence begins with; noise follows it."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, ROWS)
    x = 0.3 * random.standard_normal((ROWS, length, 4))
    x[:, 0] = 2 * np.eye(4)[labels]
    return x, labels


def _sums(length: int) -> Arrays:
    """The mean of a sequence's numbers where a second channel marks them."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, length, 2))
    x[..., 1] = random.random((ROWS, length)) < 0.5
    return x, (x[..., 0] * x[..., 1]).sum(axis=1) / np.sqrt(length)


def _topics(length: int) -> Arrays:
    """Which of three topics half of the tokens are about: ten tokens each, and ten for none."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, ROWS)
    x = random.integers(0, 40, (ROWS, length))
    about = random.random((ROWS, length)) < 0.5
    x[about] = (labels[:, None] * 10 + random.integers(0, 10, (ROWS, length)))[about]
    return x, labels


def _marked(length: int) -> Arrays:
    """Which of four tokens follows the marker, token 0."""
    random = np.random.default_rng(0)
    x = random.integers(5, 12, (ROWS, length))
    labels, place = random.integers(0, 4, ROWS), random.integers(0, length - 1, ROWS)
    x[np.arange(ROWS), place] = 0
    x[np.arange(ROWS), place + 1] = 1 + labels
    return x, labels


# name -> rows, goal, accept, size of the vocabulary
_PLAIN: dict[str, tuple[Callable[[], Arrays], str, float]] = {
    "digits": (_digits, "classes", 0.7),
    "wine": (_wine, "classes", 0.85),
    "cancer": (_cancer, "binary", 0.85),
    "moons": (_moons, "binary", 0.97),
    "blobs": (_blobs, "classes", 0.85),
    "friedman": (_friedman, "numbers", 0.7),
    "diabetes": (_diabetes, "numbers", 0.35),
    "wave": (_wave, "numbers", 0.7),
}
_SEQUENCES: dict[str, tuple[Callable[[int], Arrays], str, float, int]] = {
    "recall": (_recall, "classes", 0.8, 0),
    "sums": (_sums, "numbers", 0.7, 0),
    "topics": (_topics, "classes", 0.8, 40),
    "marked": (_marked, "classes", 0.8, 12),
}
TASKS = (*_PLAIN, *_SEQUENCES, "rows")


@functools.cache
def load(name: str, length: int, raw: bool = False) -> Task:
    """Give a task; its numbers standardised, unless they are to be raw.

    Parameters
    ----------
    name : str
        One of `TASKS`; "rows" are the digits, row by row.
    length : int
        Of the sequences, if the task draws them.
    raw : bool
    """
    tokens = 0
    if name in _SEQUENCES:
        draw, goal, accept, tokens = _SEQUENCES[name]
        x, y = draw(length)
    else:
        rows, goal, accept = _PLAIN["digits" if name == "rows" else name]
        x, y = rows()
        order = np.random.default_rng(0).permutation(len(x))[:ROWS]
        x, y = x[order], y[order]
    if not tokens and not raw:
        axes = tuple(range(x.ndim)) if name in ("digits", "rows") else 0
        x = (x - x.mean(axes)) / x.std(axes)
    if name == "rows":
        x = x.reshape(-1, 8, 8)
    if goal == "numbers":
        y = (y - y.mean()) / y.std()
    return _task(x, y, goal, accept, tokens)


def _task(
    x: NDArray[np.float64], y: NDArray[np.float64], goal: str, accept: float, tokens: int
) -> Task:
    inputs = torch.tensor(x, dtype=torch.int64 if tokens else torch.float32)
    if goal == "classes":
        return Task(inputs, torch.tensor(y), goal, int(y.max()) + 1, accept, tokens)
    targets = torch.tensor(y, dtype=torch.float32)[:, None]
    return Task(inputs, targets, goal, 1, accept, tokens)


def fixed_rows(rows: int) -> slice:
    """Give the rows on which the outcome is measured; the others may be spoilt."""
    return slice(min(FIXED, rows // 2))


def outcome(task: Task, output: Tensor, goal: Tensor, probability: bool) -> float:
    """Accuracy or R² of rows; NaN if an output is not finite.

    Parameters
    ----------
    task : Task
    output : tensor (rows, n_outputs)
    goal : tensor (rows,) or (rows, 1)
        What is right.
    probability : bool
        Whether the output of a binary task is a probability, and no logit.
    """
    if not torch.isfinite(output).all():
        return float("nan")
    if task.goal == "numbers":
        return r_squared(output.numpy(), goal.numpy())
    if task.goal == "binary":
        output = (output > (0.5 if probability else 0.0)).to(goal)
        return float((output == goal).float().mean())
    return float((output.argmax(1) == goal).float().mean())
