"""The first step at infinite width, where nets differ in their batches and errors alone.

Logits are normal with the kernel of the output layer; from them and the labels comes the error, and
from the error every layer's E (dL/dW_ij)² (`kernels.gradient_mean_square`). From that rms to the
mean of |dL/dW| leads a draw of units from their kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dp.activations import Activation
from dp.typing import Array
from gradiometer.theory.batches import Batches, Loss, errors
from gradiometer.theory.kernels import Kernels, delta_mean_square, gradient_mean_square

NETS = 1000  # drawn
_RATIOS = 200  # of them, whose units are drawn
_UNITS = 6  # of each layer


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class WideNets:
    """log10 of what is predicted of infinitely wide nets, (nets, layers); -inf where it is zero.

    Attributes
    ----------
    gradient, gradient_rms, delta : arrays (nets, layers)
        Of mean |dL/dW|, of the rms of dL/dW, and of the rms of the delta.
    """

    gradient: Array
    gradient_rms: Array
    delta: Array


def draw(
    kernels: Kernels,
    activation: Activation,
    batches: Batches,
    loss: Loss,
    nets: int = NETS,
    seed: int = 0,
) -> WideNets:
    """Draw infinitely wide nets: their batches and their errors.

    Parameters
    ----------
    kernels : Kernels
        Of the rows of the batches.
    activation : Activation
    batches : Batches
    loss : Loss
    nets : int
        How many.
    seed : int
        The same seed gives the same draws.
    """
    rng = np.random.default_rng(seed)
    outputs, top = batches.y.shape[1], kernels.layers[-1]
    logits = math.sqrt(top.weight) * _normal(rng, _root(kernels.inputs[-1]), nets, outputs)
    logits += rng.uniform(-1, 1, (nets, outputs, 1)) * math.sqrt(3 * top.bias)
    logits = logits.transpose(0, 2, 1)
    error = errors(logits, batches.y, loss.name, loss.reduction, batches.size)
    counts = batches.counts(rng, nets)
    square = gradient_mean_square(kernels, error * counts[..., None])
    few = slice(min(nets, _RATIOS))
    ratio = _mean_by_rms(rng, kernels, activation, batches.x, (error * counts[..., None])[few])
    with np.errstate(divide="ignore"):
        rms = 0.5 * np.log10(square)
        delta = 0.5 * np.log10(delta_mean_square(kernels, error, counts))
        return WideNets(rms + np.log10(ratio), rms, delta)


def _mean_by_rms(
    rng: np.random.Generator, kernels: Kernels, activation: Activation, x: Array, weighted: Array
) -> Array:
    """Mean |dL/dW| over the rms of dL/dW, of each layer: the mean over nets with these errors."""
    nets = len(weighted)
    roots = [_root(kernel) for kernel in kernels.pre[:-1]]
    square = gradient_mean_square(kernels, weighted)
    ratios = []
    into = np.broadcast_to(x.T, (nets, *x.T.shape))
    for i in range(len(kernels.layers)):
        delta = weighted.transpose(0, 2, 1)
        if i < len(roots):
            h = _normal(rng, roots[i], nets, _UNITS)
            back = _root(kernels.back[i])
            messages = [_normal(rng, back, nets, _UNITS) * e[:, None] for e in delta.swapaxes(0, 1)]
            delta = activation.derivative(h) * sum(messages)
        mean = np.abs(delta @ into.transpose(0, 2, 1)).mean(axis=(1, 2))
        rms = np.sqrt(square[:, i])
        ratios.append(np.divide(mean, rms, out=np.zeros(nets), where=rms > 0).mean())
        if i < len(roots):
            # units of their own for the layer above, which are independent of its deltas
            into = np.asarray(activation(_normal(rng, roots[i], nets, _UNITS)))
    return np.array(ratios)


def _root(kernel: Array) -> Array:
    """R with K = R Rᵀ."""
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    kept = values > max(values[-1], 0.0) * 1e-9
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _normal(rng: np.random.Generator, root: Array, nets: int, units: int) -> Array:
    """Draws from N(0, R Rᵀ): (nets, units, rows)."""
    flat = rng.standard_normal((nets * units, root.shape[1])) @ root.T
    return np.asarray(flat.reshape(nets, units, len(root)))
