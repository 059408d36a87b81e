"""Data sets: Iris as the lesson uses it, and a few more; and how their features are scaled."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from numbers import Integral, Real
from typing import Any

import numpy as np

from dp.typing import Array
from dp.validation import unknown


class DataError(ValueError):
    """Data, or a request for data, that cannot be used; says what would be accepted."""


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
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
        y: Any,
        name: str = "user",
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Data:
        """Check and wrap arrays of your own; they are copied.

        Parameters
        ----------
        x : array_like (samples, features)
        y : array_like (samples,), (samples, 1) or (samples, classes)
            Integer classes 0, 1, …, or one-hot rows; every class must occur.
        name : str
            Every error begins with it.
        feature_names, class_names : sequence of str, optional
            One per feature, one per class; numbered by default.

        Raises
        ------
        DataError
            Naming the first value that is not finite, with its row and column, or the first label
            that is not a class, with its row, or the shape that does not fit.

        Examples
        --------
        >>> data = Data.from_arrays([[0.0], [1.0], [2.0]], [0, 1, 1])
        >>> data.y.tolist()
        [[0.0], [1.0], [1.0]]
        """
        checked = _features(x, name)
        labels = _labels(y, len(checked), name)
        return cls(
            checked,
            labels,
            name,
            _names("feature", feature_names, checked.shape[1], 1, name),
            _names("class", class_names, int(labels.max()) + 1, 0, name),
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

        Raises
        ------
        DataError
            If `scaling` is none of these, or a factor so large that a value overflows.
        """
        factor = check_scaling(scaling)
        if factor == "raw":
            return self
        if isinstance(factor, str):
            return replace(self, x=_standardised(self.x))
        with np.errstate(over="ignore"):
            x = self.x * factor
        if not np.isfinite(x).all():
            raise DataError(
                f"{self.name}: scaling by {scaling!r} overflows: the largest value is "
                f"{np.abs(self.x).max():g}; choose a smaller factor, or 'standardise'"
            )
        return replace(self, x=x)


def check_scaling(scaling: Any) -> str | float:
    """Give a scaling back if it is one; raise DataError otherwise (see `Data.scaled`)."""
    if scaling in ("raw", "standardise") or (_is_number(scaling) and 0 < scaling < np.inf):
        return scaling if isinstance(scaling, str) else float(scaling)
    raise DataError(f"scaling must be 'standardise', 'raw' or a number above 0, got {scaling!r}")


def load(name: str, scaling: str | float = "standardise", seed: int = 0) -> Data:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        A name in `DATASETS`.
    scaling : "standardise", "raw" or float
        See `Data.scaled`.
    seed : int
        Of the data sets that are drawn (moons, circles); from 0 up to 2**32 - 1.

    Raises
    ------
    DataError
        If there is no such data set, scaling or seed, naming what there is.

    Examples
    --------
    >>> iris = load("iris2")
    >>> iris.x.shape, iris.n_outputs, iris.class_names
    ((100, 4), 1, ('setosa', 'versicolor'))
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise DataError(unknown("data set", name, DATASETS))
    if not _is_whole(seed) or not 0 <= seed < 2**32:
        raise DataError(f"seed must be an integer from 0 up to 2**32 - 1, got {seed!r}")
    return DATASETS[name].make(seed).scaled(scaling)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _features(x: Any, name: str) -> Array:
    """Features as finite float64, copied; (samples, features)."""
    try:
        given = np.asarray(x)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers have no order and cannot be features")
        checked = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:  # words, or rows of different lengths
        raise DataError(f"{name}: x must be a table of numbers: {error}") from None
    if checked.ndim != 2 or not checked.size:
        raise DataError(
            f"{name}: x must be samples × features, at least one of each, got shape {checked.shape}"
        )
    bad = np.argwhere(~np.isfinite(checked))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise DataError(
            f"{name}: x holds {checked[row, column]} at row {row}, column {column} "
            f"({len(bad)} value(s) in all; both counted from 0); all values must be finite"
        )
    return checked


def _labels(y: Any, samples: int, name: str) -> Array:
    """Class of each sample, from integer classes or one-hot rows; (samples,) int64."""
    try:
        given = np.asarray(y)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"{name}: labels must be an array: {error}") from None
    if given.ndim not in (1, 2) or len(given) != samples or not given.size:
        raise DataError(
            f"{name}: labels have shape {given.shape}; one class per row of x is needed, "
            f"({samples},), or one-hot rows, ({samples}, classes)"
        )
    if given.dtype.kind not in "biuf":
        for (row, *_), value in np.ndenumerate(given.astype(object)):
            if not isinstance(value, Real):
                raise DataError(
                    f"{name}: label {value!r} at row {row} is not a number; number the classes "
                    "0, 1, 2, … and give their names as class_names"
                )
    numbers = given.astype(np.float64)
    if given.ndim == 2 and given.shape[1] > 1:
        proper = np.isin(numbers, (0, 1)).all(axis=1) & ((numbers == 1).sum(axis=1) == 1)
        if not proper.all():
            row = int(np.argmin(proper))
            raise DataError(
                f"{name}: label {given[row].tolist()} at row {row} is not one-hot; "
                "exactly one 1 and otherwise 0 is needed"
            )
        missing = np.flatnonzero(~numbers.any(axis=0))
        if len(missing):
            raise DataError(
                f"{name}: no label is of class {missing[0]}, counted from 0; every one-hot column "
                "needs a sample"
            )
        return np.nonzero(numbers)[1].astype(np.int64)
    numbers = numbers.reshape(samples)
    # written so that NaN, which compares false with everything, is wrong too
    right = (numbers >= 0) & (numbers == np.floor(numbers)) & np.isfinite(numbers)
    if not right.all():
        row = int(np.argmin(right))
        raise DataError(
            f"{name}: label {numbers[row]:g} at row {row} is not a class; labels are 0, 1, 2, …"
        )
    present = np.unique(numbers)
    if len(present) < 2 or present[-1] != len(present) - 1:
        shown = ", ".join(f"{value:g}" for value in present[:10])
        raise DataError(
            f"{name}: the labels are {shown}{', …' if len(present) > 10 else ''}; they must be "
            "0, 1, … without gaps, at least two classes"
        )
    return numbers.astype(np.int64)


def _names(
    kind: str, given: Sequence[str] | None, count: int, first: int, name: str
) -> tuple[str, ...]:
    if given is None:
        return tuple(f"{kind} {i}" for i in range(first, first + count))
    if isinstance(given, str) or len(given) != count:
        raise DataError(
            f"{name}: {kind}_names must be a sequence of {count}, one per {kind}, got {given!r}"
        )
    return tuple(str(word) for word in given)


def _standardised(x: Array) -> Array:
    """Mean 0 and variance 1 (ddof 0) per column; a constant column becomes 0."""
    # a power of two per column, so exact: squares of huge or tiny values neither overflow nor fade
    _, exponent = np.frexp(np.abs(x).max(axis=0))
    x = np.ldexp(x, -exponent)
    # the std of a constant column is not always exactly 0
    varies = np.ptp(x, axis=0) > 8 * np.finfo(x.dtype).eps
    std = np.where(varies, x.std(axis=0), 1.0)
    return np.where(varies, (x - x.mean(axis=0)) / std, 0.0)


def _iris(classes: int) -> Data:
    # Read from a file of our own: loading scikit-learn for 150 short rows takes a second.
    text = resources.files("gradiometer").joinpath("iris.csv").read_text(encoding="utf-8")
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


@dataclass(frozen=True)
class DataSet:
    """A data set that can be loaded by name.

    Attributes
    ----------
    make : callable
        Of a seed; gives the Data, not scaled.
    rows, features, outputs : int
        Their size, which is known without loading them.
    help : str
        What they are.
    """

    make: Callable[[int], Data]
    rows: int
    features: int
    outputs: int
    help: str


DATASETS: dict[str, DataSet] = {
    "iris2": DataSet(lambda _: _iris(2), 100, 4, 1, "The first 100 samples of Iris: two species"),
    "iris": DataSet(lambda _: _iris(3), 150, 4, 3, "Iris: three species"),
    "digits": DataSet(lambda _: _digits(), 1797, 64, 10, "Handwritten digits of 8 × 8 pixels"),
    "moons": DataSet(_moons, 200, 2, 1, "Two half circles, drawn from a seed"),
    "circles": DataSet(_circles, 200, 2, 1, "A circle inside another, drawn from a seed"),
}
