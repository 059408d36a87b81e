"""Losses of logits, exact where the probability itself would round to 0 or 1."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from dp.errors import ShapeError
from dp.node import Node, as_leaf
from dp.primitives import equal, where

Reduction = Literal["sum", "mean"]


def binary_cross_entropy(logits: Node, labels: Any, reduction: Reduction = "sum") -> Node:
    """-[y log p + (1 - y) log(1 - p)] with p = sigmoid(logits), over the batch.

    Parameters
    ----------
    logits : Node (…, batch, 1)
        Pre-activations of the output.
    labels : Node or array (…, batch, 1)
        0 or 1.
    reduction : "sum" or "mean"
        Over the batch.

    Returns
    -------
    Node (…, 1, 1)

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1, or the reduction is unknown.
    ShapeError
        If there is not one label per logit.
    """
    y = _labels(logits, labels)
    wrong = ~((y.value == 0) | (y.value == 1))
    if wrong.any():
        raise ValueError(
            f"labels of the binary cross-entropy must be 0 or 1, got {y.value[wrong][0]:g} "
            f"(and {int(wrong.sum()) - 1} more)"
        )
    # log(1 + exp(∓logit)): either label's tail keeps its digits, in the loss and in the gradient
    return _reduce((logits * (1.0 - 2.0 * y)).softplus(), reduction)


def categorical_cross_entropy(logits: Node, labels: Any, reduction: Reduction = "sum") -> Node:
    """-Σ_k y_k log p_k with p = softmax(logits) along the rows, over the batch.

    Parameters
    ----------
    logits : Node (…, batch, classes)
    labels : Node or array (…, batch, classes)
        One-hot rows (any probabilities that add up to 1).
    reduction : "sum" or "mean"
        Over the batch.

    Returns
    -------
    Node (…, 1, 1)

    Raises
    ------
    ValueError
        If a row of labels is not a distribution over the classes, or the reduction is unknown.
    ShapeError
        If the labels' shape is not the logits'.
    """
    y = _labels(logits, labels)
    totals = y.value.sum(axis=-1)
    if (y.value < 0).any() or not np.allclose(totals, 1.0, atol=1e-6):
        worst = totals.flat[np.abs(totals - 1.0).argmax()]
        raise ValueError(
            "each row of labels must be one-hot (not negative, adding up to 1); got a row that "
            f"adds up to {worst:g} and a smallest entry of {y.value.min():g}"
        )
    # a class of probability 0 that is not the label costs nothing, also where its log is -inf
    log_p = where(equal(y, 0.0), 0.0, logits.log_softmax(axis=1))
    return _reduce(-(y * log_p).sum(axis=1), reduction)


def squared_error(predictions: Node, targets: Any, reduction: Reduction = "sum") -> Node:
    """½ Σ (prediction - target)² over the columns, over the batch.

    Parameters
    ----------
    predictions : Node (…, batch, outputs)
    targets : Node or array (…, batch, outputs)
    reduction : "sum" or "mean"
        Over the batch.

    Returns
    -------
    Node (…, 1, 1)

    Raises
    ------
    ValueError
        If the reduction is unknown.
    ShapeError
        If the targets' shape is not the predictions'.
    """
    y = _labels(predictions, targets)
    return _reduce(((predictions - y).square() * 0.5).sum(axis=1), reduction)


def _labels(logits: Node, labels: Any) -> Node:
    if not isinstance(logits, Node):
        raise TypeError(f"the net's output must be a Node, got {type(logits).__name__}")
    y = as_leaf(labels, logits.dtype)
    if y.shape[-2:] != logits.shape[-2:]:
        raise ShapeError(
            f"the labels have shape {y.shape}, the net's output {logits.shape}; there must be one "
            "label per row and output (a column for one output: y.reshape(-1, 1))"
        )
    return y


def _reduce(per_sample: Node, reduction: str) -> Node:
    if reduction == "sum":
        return per_sample.sum()
    if reduction == "mean":
        return per_sample.mean()
    raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
