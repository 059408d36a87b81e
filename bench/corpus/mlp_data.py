"""Data sets of the multilayer perceptrons, and what can be wrong with data."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from dp.typing import Array
from gradiometer.data import DATASETS, Data, load

ROWS = 200  # of the data sets that are drawn
MOST = 400  # rows of any data set


class Samples(NamedTuple):
    """What a net is given.

    Attributes
    ----------
    x : array (rows, features)
    y : array (rows, outputs)
        0 and 1, one-hot rows, or numbers of mean 0 and variance 1.
    classes : bool
        Whether `y` names classes.
    """

    x: Array
    y: Array
    classes: bool


def samples(name: str, scaling: str | float = "standardise") -> Samples:
    """A data set by name, its features scaled as `gradiometer.data` scales them."""
    if name in DATASETS:
        data = load(name, scaling)
        return Samples(data.x[:MOST], data.y[:MOST], True)
    if name in _BUNDLED:
        data = _bundled(name).scaled(scaling)
        return Samples(data.x[:MOST], data.y[:MOST], True)
    x, y = _DRAWN[name](np.random.default_rng(0))
    # any labels: only the features are scaled
    data = Data.from_arrays(x, np.arange(len(x)) % 2, name).scaled(scaling)
    # as measured with an instrument: some are exactly 0
    return Samples(data.x, np.round((y - y.mean()) / y.std(), 1), False)


@cache
def _bundled(name: str) -> Data:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return Data.from_arrays(bunch.data, bunch.target, name)


def _waves(stream: np.random.Generator) -> tuple[Array, Array]:
    """A wave along one of two features, and a bend along the other."""
    x = stream.uniform(-1.0, 1.0, (ROWS, 2))
    return x, np.sin(3 * x[:, :1]) + x[:, 1:] ** 2


def _hills(stream: np.random.Generator) -> tuple[Array, Array]:
    """Two hills over a plane of three features, of which one is without effect."""
    x = stream.uniform(-1.0, 1.0, (ROWS, 3))
    near = [
        np.exp(-2 * np.square(x[:, :2] - top).sum(axis=1, keepdims=True)) for top in (0.5, -0.5)
    ]
    return x, near[0] - near[1] + 0.3 * x[:, :1]


_BUNDLED = ("wine", "breast_cancer")
_DRAWN = {"waves": _waves, "hills": _hills}


# --- what can be wrong ----------------------------------------------------------------------------


def spoilt(given: Samples, inputs: Any, targets: str | None, seed: int) -> Samples:
    """Samples with a fault.

    Parameters
    ----------
    given : Samples
    inputs : None, "zero", "equal", "nan", "inf", or a number
        All features 0; every row the first one; one entry of the first column not finite; or a
        number that is added to every feature.
    targets : None, "shuffled" or "nan"
        Rows of `y` in another order; or the first one NaN.
    seed : int
        Of the shuffling.
    """
    x, y = given.x.copy(), given.y.copy()
    if inputs == "zero":
        x[...] = 0
    elif inputs == "equal":
        x[...] = x[0]
    elif inputs in ("nan", "inf"):
        x[0, 0] = float(inputs)
    elif inputs is not None:
        x += inputs
    if targets == "shuffled":
        y = np.random.default_rng((seed, 2)).permutation(y)
    elif targets == "nan":
        y[0] = np.nan
    return given._replace(x=x, y=y)
