"""The batch on which dead units and accuracy are measured."""

from __future__ import annotations

from typing import Any

import numpy as np

import dp
from dp.typing import Array
from gradiometer.recording.reference import pair


class Reference:
    """A batch of samples and labels, as they were given; they are checked.

    Parameters
    ----------
    given : (X, y)
        The labels may be None.
    """

    def __init__(self, given: Any) -> None:
        from sklearn.utils import check_array

        X, self._labels = pair(given)
        self._columns = getattr(X, "columns", None)
        self._samples = check_array(X, accept_sparse=("csr", "csc"), dtype=(np.float64, np.float32))
        samples = self._samples.shape[0]
        labels = samples if self._labels is None else np.shape(self._labels)[0]
        if labels != samples:
            raise ValueError(
                f"the reference batch has {samples} samples, but {labels} labels; they must be as "
                "many"
            )

    def seen_by(self, estimator: Any, labelled: bool) -> tuple[dp.Node, Array | None]:
        """Samples in the dtype of a fitted estimator, and labels as it encodes them.

        There are none if it is no classifier, or if they are not asked for.
        """
        weight = estimator.coefs_[0]
        if self._samples.shape[1] != weight.shape[0]:
            raise ValueError(
                f"the reference batch has {self._samples.shape[1]} features, the estimator is "
                f"fitted to {weight.shape[0]}"
            )
        fitted = getattr(estimator, "feature_names_in_", None)
        columns = self._columns
        if columns is not None and fitted is not None and list(columns) != list(fitted):
            raise ValueError(
                f"the reference batch has the columns {', '.join(map(str, columns))}, the "
                f"estimator is fitted to {', '.join(map(str, fitted))}"
            )
        labels = None
        if labelled and hasattr(estimator, "classes_"):
            labels = _encoded(estimator, self._labels)
        return dp.Node(dense(self._samples).astype(weight.dtype, copy=False)), labels


def _encoded(estimator: Any, y: Any) -> Array:
    """Labels as the estimator encodes them, (samples, outputs)."""
    if y is None:
        raise ValueError(
            "the reference batch of a classifier needs labels, got None; give (X, y), or leave "
            "the quantity 'accuracy' out"
        )
    y = np.asarray(dense(y))
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    known = estimator.classes_
    strange = np.setdiff1d(np.unique(y), known if y.ndim == 1 else [0, 1])
    if len(strange):
        raise ValueError(
            f"the reference batch has the label {strange.tolist()[0]!r}, which the estimator does "
            f"not know; its classes are {', '.join(map(str, known))}"
        )
    encoded: Array = estimator._label_binarizer.transform(y).astype(float)
    return encoded


def dense(matrix: Any) -> Array:
    """The same matrix, not sparse."""
    found: Array = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return found
