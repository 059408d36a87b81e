"""Gradient checking: compare the reverse sweep with central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dp.differentiate import gradients
from dp.errors import GradientError
from dp.node import Node
from dp.typing import Array
from dp.validation import real_array


def numerical_gradients(
    function: Callable[..., Node], *arrays: Any, cotangent: Any = None, step: float | None = None
) -> list[Array]:
    """Central differences of Σ cotangent · function(…), in float64, one entry at a time.

    Parameters
    ----------
    function : callable
        Takes as many Nodes as there are arrays, returns a Node.
    arrays : arrays
        Where to differentiate.
    cotangent : array, optional
        Weights of the output's entries; ones by default.
    step : float, optional
        Half the distance of the two points, relative to max(1, |x|); ∛ε by default, which balances
        rounding against truncation.

    Returns
    -------
    list of arrays
        One per argument, in its (matrix) shape.
    """
    values = [Node(real_array(array).astype(np.float64)).value for array in arrays]
    width = np.finfo(np.float64).eps ** (1 / 3) if step is None else step

    def weighted() -> float:
        out = function(*(Node(value) for value in values)).value
        return float((out if cotangent is None else out * cotangent).sum())

    found = []
    for value in values:
        gradient = np.empty_like(value)
        for index in np.ndindex(value.shape):
            at = float(value[index])
            h = width * max(1.0, abs(at))
            value[index] = at + h
            above = weighted()
            value[index] = at - h
            below = weighted()
            value[index] = at
            gradient[index] = (above - below) / (2 * h)
        found.append(gradient)
    return found


def check_gradient(
    function: Callable[..., Node],
    *arrays: Any,
    tolerance: float = 1e-6,
    step: float | None = None,
    seed: int = 0,
) -> float:
    """Check a function's gradients against central differences, along a random cotangent.

    Parameters
    ----------
    function : callable
        Takes as many Nodes as there are arrays, returns a Node of any shape.
    arrays : arrays
        Where to check; choose points away from kinks.
    tolerance : float
        Largest accepted |difference| / max(1, |gradient|).
    step : float, optional
        See `numerical_gradients`.
    seed : int
        Of the random cotangent. (With a cotangent of ones, errors that cancel stay hidden.)

    Returns
    -------
    float
        The largest relative difference found.

    Raises
    ------
    GradientError
        Naming the argument and the entry that differ most.

    Examples
    --------
    >>> from dp import check_gradient
    >>> check_gradient(lambda x, w: x.dot(w).tanh(), [[0.5, -1.0]], [[1.0], [2.0]]) < 1e-8
    True
    """
    nodes = [Node(real_array(array).astype(np.float64)) for array in arrays]
    output = function(*nodes)
    cotangent = np.random.default_rng(seed).normal(size=output.shape)
    exact = gradients(output, nodes, cotangent)
    approximate = numerical_gradients(function, *arrays, cotangent=cotangent, step=step)
    worst = 0.0
    for position, (a, b) in enumerate(zip(exact, approximate, strict=True)):
        error = np.abs(a - b) / np.maximum(1.0, np.abs(b))
        error[np.isnan(error)] = np.inf  # NaN agrees with no number
        largest = float(error.max()) if error.size else 0.0
        if not largest <= tolerance:
            index = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
            raise GradientError(
                f"argument {position}, entry {index}: the sweep gives {a[index]:.9g}, central "
                f"differences {b[index]:.9g} (relative difference {error[index]:.2g}, accepted "
                f"{tolerance:.2g})"
            )
        worst = max(worst, largest)
    return worst
