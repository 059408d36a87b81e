"""Data sets: Iris as the lesson uses it, and a few more; and how their features are scaled."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.activations import unknown

Array = NDArray[Any]


class DataError(ValueError):
    """Data, or a request for data, that cannot be used; says what would be accepted."""


@dataclass(frozen=True)
class Data:
    """Samples and their classes.

    Attributes
    ----------
    x : array (samples, features), float64
    labels : array (samples,), int
        Class of each sample, from 0.
    name : str
    feature_names, class_names : tuple of str
    """

    x: Array
    labels: Array
    name: str
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        labels: Any,
        name: str = "user",
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Data:
        """Check and wrap arrays of one's own.

        Parameters
        ----------
        x : array_like (samples, features)
        labels : array_like (samples,)
            Integer classes 0, 1, …; every class must occur.

        Raises
        ------
        DataError
            Naming the first value that is not finite, or the label that is no class.
        """
        x = np.array(x, dtype=np.float64)
        y = np.asarray(labels)
        if x.ndim != 2 or not x.size:
            raise DataError(f"{name}: x must be samples × features, got shape {x.shape}")
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            row, column = (int(i) for i in bad[0])
            raise DataError(
                f"{name}: x holds {x[row, column]} at row {row}, column {column} "
                f"({len(bad)} value(s) in all); all values must be finite"
            )
        y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
        if y.shape != (len(x),):
            raise DataError(
                f"{name}: labels have shape {y.shape}; one class per row of x is needed, "
                f"({len(x)},)"
            )
        if y.dtype.kind not in "biuf" or not np.isfinite(y.astype(float)).all():
            raise DataError(f"{name}: labels must be integers 0, 1, …, got dtype {y.dtype}")
        wrong = (y != np.floor(y)) | (y < 0)
        if wrong.any():
            raise DataError(f"{name}: label {y[wrong][0]} is no class; labels are 0, 1, 2, …")
        y = y.astype(np.int64)
        present = np.unique(y)
        if len(present) < 2 or present[-1] != len(present) - 1:
            raise DataError(
                f"{name}: the labels are {present.tolist()[:10]}; they must be 0, 1, … without "
                "gaps, at least two classes"
            )
        return cls(
            x,
            y,
            name,
            tuple(feature_names or (f"feature {i + 1}" for i in range(x.shape[1]))),
            tuple(class_names or (f"class {k}" for k in range(len(present)))),
        )

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.x.shape[1])

    @property
    def n_outputs(self) -> int:
        """1 for two classes (a sigmoid), otherwise the number of classes (a softmax)."""
        return 1 if len(self.class_names) == 2 else len(self.class_names)

    @property
    def y(self) -> Array:
        """What the net learns: a column of 0 and 1, or one-hot rows; (samples, n_outputs)."""
        if self.n_outputs == 1:
            return self.labels[:, None].astype(np.float64)
        return np.eye(self.n_outputs)[self.labels]

    def scaled(self, scaling: str | float) -> Data:
        """The same samples, scaled.

        Parameters
        ----------
        scaling : "standardise", "raw", or a number above 0
            To mean 0 and variance 1 per feature (a constant feature to 0), as they are, or times
            a factor.
        """
        if scaling == "raw":
            return self
        if scaling == "standardise":
            centred = self.x - self.x.mean(axis=0)
            std = self.x.std(axis=0)
            # the std of a constant column is not always exactly 0
            varies = std > 1e-12 * np.maximum(1.0, np.abs(self.x).max(axis=0))
            return replace(self, x=np.where(varies, centred / np.where(varies, std, 1.0), 0.0))
        number = isinstance(scaling, (int, float)) and not isinstance(scaling, bool)
        if number and 0 < scaling < float("inf"):  # type: ignore[operator]
            return replace(self, x=self.x * scaling)
        raise DataError(
            f"scaling must be 'standardise', 'raw' or a number above 0, got {scaling!r}"
        )


def load(name: str, scaling: str | float = "standardise", seed: int = 0) -> Data:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        A name in `DATASETS`.
    scaling : "standardise", "raw" or float
        See `Data.scaled`.
    seed : int
        Of the data sets that are drawn (moons, circles).

    Raises
    ------
    DataError
        If there is no such data set or scaling, naming what there is.
    """
    if name not in DATASETS:
        raise DataError(unknown("data set", name, DATASETS))
    return DATASETS[name](seed).scaled(scaling)


def _iris(classes: int) -> Data:
    # Read from a file of our own: loading scikit-learn for 150 short rows takes a second.
    text = resources.files("gradlab").joinpath("iris.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    species = list(dict.fromkeys(row[-1] for row in rows))[:classes]
    kept = [row for row in rows if row[-1] in species]
    return Data.from_arrays(
        np.array([row[:-1] for row in kept], dtype=np.float64),
        np.array([species.index(row[-1]) for row in kept]),
        "iris" if classes == 3 else "iris2",
        header[:-1],
        species,
    )


def _digits() -> Data:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Data.from_arrays(
        bunch.data, bunch.target, "digits", bunch.feature_names, [str(k) for k in range(10)]
    )


def _moons(seed: int) -> Data:
    from sklearn.datasets import make_moons

    x, y = make_moons(200, noise=0.1, random_state=seed)
    return Data.from_arrays(x, y, "moons", class_names=("upper moon", "lower moon"))


def _circles(seed: int) -> Data:
    from sklearn.datasets import make_circles

    x, y = make_circles(200, noise=0.08, factor=0.5, random_state=seed)
    return Data.from_arrays(x, y, "circles", class_names=("outer circle", "inner circle"))


DATASETS: dict[str, Callable[[int], Data]] = {
    "iris2": lambda _: _iris(2),  # the first 100 samples
    "iris": lambda _: _iris(3),
    "digits": lambda _: _digits(),
    "moons": _moons,
    "circles": _circles,
}
