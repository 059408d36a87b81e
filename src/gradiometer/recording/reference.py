"""The reference batch, on which dead units and accuracy are measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from dp.typing import Array
from gradiometer.quantities import accuracy as accuracy_of

NO_LABELS = "the reference batch has no labels"
NOT_TOLD = "whether the model's output are logits or probabilities cannot be told"
LABELS = "class numbers, 0 and 1, or one-hot rows"


class NoAccuracy(Exception):  # noqa: N818
    """Why the output or the labels name no classes."""


def pair(given: Any, what_is: str = "") -> tuple[Any, Any]:
    """Samples and labels, as `reference=` was given them; the labels may be None.

    Parameters
    ----------
    given : (x, y)
    what_is : str
        What was given instead, and how it would become a pair; the type's name by default.

    Raises
    ------
    TypeError
        If it is no pair.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(
            "reference must be a pair (x, y) of samples and labels, got "
            f"{what_is or type(given).__name__}"
        )
    return given[0], given[1]


def accuracy(
    output: Array, labels: Array, samples: int | None = None, probabilities: bool | None = None
) -> float:
    """Share of samples whose class is right.

    Parameters
    ----------
    output : array (samples,) or (samples, classes)
        What the model gives: probabilities or logits.
    labels : array
        Class numbers, 0 and 1, or one-hot rows.
    samples : int, optional
        Length of the batch's first axis, if it is known.
    probabilities : bool, optional
        Whether a single output is a probability (or else a logit); None if it cannot be told.

    Raises
    ------
    NoAccuracy
        If the output or the labels name no classes.
    ValueError
        If there are not as many labels as samples, or a label is no class of the model.
    """
    if output.ndim not in (1, 2) or not output.size:
        raise NoAccuracy(
            f"the model's output has the shape {output.shape}; accuracy needs (samples,) or "
            "(samples, classes)"
        )
    p = output[:, None] if output.ndim == 1 else output
    whole_numbers = labels.dtype.kind in "iub"
    y = labels.astype(np.float64)  # exact for class numbers
    y = y if y.ndim else y.reshape(1)
    _check_number(len(p), len(y), samples)
    if p.shape[1] == 1 and y.size == len(p):
        return _of_one_output(p, y.reshape(-1), probabilities)
    if y.size == len(p):
        return _of_class_numbers(p, y.reshape(-1), whole_numbers)
    if y.shape != p.shape:
        raise NoAccuracy(
            f"the labels have the shape {y.shape}, the model's output {output.shape}; accuracy "
            f"needs {LABELS}"
        )
    # smoothed or mixed rows have a largest entry too; sums of half precision are not exact
    if not ((y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=0.01)):
        raise NoAccuracy("the rows of the labels do not add up to 1, so that they name no class")
    return float(accuracy_of(p, y))


def _of_one_output(p: Array, y: Array, probabilities: bool | None) -> float:
    strange = y[~np.isin(y, (0, 1))]
    if strange.size:
        raise NoAccuracy(
            f"the model has one output, and the label {strange[0]:g} is neither 0 nor 1"
        )
    if probabilities is None:
        raise NoAccuracy(NOT_TOLD)
    if not probabilities:  # logits: class 1 above 0
        p = np.where(np.isfinite(p), p > 0, p)
    return float(accuracy_of(p, y))


def _of_class_numbers(p: Array, y: Array, whole_numbers: bool) -> float:
    classes = p.shape[1]
    strange = y[~((y == np.floor(y)) & (y >= 0) & (y < classes))]
    if strange.size:
        if not whole_numbers:  # values perhaps, of a regression
            raise NoAccuracy(
                f"the label {strange[0]:g} is no class number; accuracy needs 0 to {classes - 1}, "
                f"since the model has {classes} outputs"
            )
        raise ValueError(
            f"the reference batch has the label {int(strange[0])}, but the model has {classes} "
            f"outputs; labels must be class numbers from 0 to {classes - 1}"
        )
    return float(np.mean((p.argmax(axis=-1) == y) & np.isfinite(p).all(axis=-1)))


def _check_number(rows: int, labels: int, samples: int | None) -> None:
    """Whether there are as many labels as rows of the output.

    These may be others than the length of x, whose first axis may be time.
    """
    if labels == rows:
        return
    if labels == samples:
        raise NoAccuracy(
            f"the model's output has {rows} rows for {samples} samples; accuracy needs one for each"
        )
    if samples in (None, rows):
        what = f"the reference batch has {rows} samples, but"
    else:
        what = f"the model's output on the reference batch has {rows} rows, but there are"
    raise ValueError(f"{what} {labels} labels; they must be as many")
