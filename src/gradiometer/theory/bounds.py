"""An exact bound on the delta: what a layer's weights and slopes let through at most.

From δ^l = φ'(h^l) ∘ (δ^{l+1} W^{l+1}ᵀ), row by row: ‖δ^l‖ ≤ max|φ'| ‖W^{l+1}‖₂ ‖δ^{l+1}‖, with the
spectral norm of W. No average and no limit: it holds for every net, at every step (the argument of
Pascanu et al. 2013 on recurrent nets). For the sigmoid max|φ'| = ¼.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

import dp
from dp.activations import Activation
from dp.layers import watch_layers
from dp.typing import Array


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Bounds:
    """The bound of each hidden layer, and what is there.

    Attributes
    ----------
    factor : array (hidden layers[, members])
        max|φ'| ‖W^{l+1}‖₂: by so much the delta can grow, at most, into layer l.
    ratio : array (hidden layers[, members])
        The largest ‖δ^l‖ / ‖δ^{l+1}‖ over the rows of the batch; 0 where nothing arrives.
    """

    factor: Array
    ratio: Array

    @property
    def violated(self) -> Array:
        """Where the ratio is above the bound, beyond rounding: booleans of the same shape."""
        return np.asarray(self.ratio > self.factor * (1 + 1e-9))


def bounds(net: dp.Net, x: Any, y: Any) -> Bounds:
    """Evaluate the bound on a net, an ensemble if it is one, and a batch.

    Parameters
    ----------
    net : dp.Net
        In float64: in float32 a delta may round to more than its bound.
    x : array_like (batch, features)
    y : array_like (batch, outputs)

    Raises
    ------
    TypeError
        If the activation function is none of dp's table, so that its largest slope is not known.
    ValueError
        If the net is not in float64, or has a normalisation or residual connections, with which the
        bound reads otherwise.
    """
    if not isinstance(net.activation, Activation):
        raise TypeError(
            "the bound needs the largest slope: use an activation function of dp.activations, not "
            f"{net.activation!r}"
        )
    if net.normalisation != "none" or net.residual:
        raise ValueError(
            "the bound holds for nets without normalisation and residual connections; got "
            f"normalisation={net.normalisation!r}, residual={net.residual}"
        )
    if net.dtype != np.float64:
        raise ValueError(f"the bound needs a net in float64, got {net.dtype}")
    with watch_layers() as watch:
        net.get_grad(x, y)
    deltas = [_rows(call.delta, call.pre_activation.value) for call in watch.calls]
    weights = [call.layer.weight.value for call in watch.calls]
    factor = np.stack([np.linalg.norm(w, ord=2, axis=(-2, -1)) for w in weights[1:]])
    ratio = [
        np.divide(below, above, out=np.zeros_like(below), where=above > _SMALLEST).max(axis=-1)
        for below, above in itertools.pairwise(deltas)
    ]
    return Bounds(net.activation.max_slope * factor, np.stack(ratio))


# below it, entries of a delta may have lost digits, or their squares
_SMALLEST = 1e-140


def _rows(delta: Any, pre_activation: Array) -> Array:
    """Norm of each row's delta, (…, batch); zero if the loss does not depend on it."""
    delta = np.zeros_like(pre_activation) if delta is None else delta
    return np.asarray(np.sqrt((delta * delta).sum(axis=-1)))
