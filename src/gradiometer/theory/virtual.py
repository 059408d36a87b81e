"""Virtual nets: drawn at their initial weights, with their first batch, and never trained.

Layer by layer, as the recursion of the kernels goes, but with weights drawn from the initialiser's
law in place of their mean: h^l = x^{l-1} W^l + b^l, x^l = φ(h^l), up to the logits, then back,
δ^l = φ'(h^l) ∘ (δ^{l+1} W^{l+1}ᵀ), with the same weights. What first order in 1/width leaves out is
all there: kernels that vary by their own size, fluctuations that layers share, errors that hang on
chance in the way forward, and weights that are the same both ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from dp import primitives as p
from dp.activations import Activation
from dp.special import normal_pdf
from dp.typing import Array
from gradiometer.theory.batches import Batches, Loss, errors, probabilities
from gradiometer.theory.variances import LayerVariances, weights

_NUMBERS = 300_000  # activations of all layers kept at a time, so that they stay in the cache
_EACH_NUMBER = {"uniform": 4.0, "normal": 11.0, "orthogonal": 11.0}  # nanoseconds to draw one


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class VirtualNets:
    """What was found in virtual nets; log10, -inf where it is zero.

    Attributes
    ----------
    gradient, delta : arrays (nets, layers)
        log10 of mean |dL/dW|, and of the rms of the delta.
    output_mean_square : float
        Of the nets' probabilities.
    """

    gradient: Array
    delta: Array
    output_mean_square: float


def draw(
    batches: Batches,
    layers: Sequence[LayerVariances],
    activation: Activation,
    loss: Loss,
    nets: int,
    *,
    single: bool = False,
    seed: int = 0,
) -> VirtualNets:
    """Draw virtual nets, each with a batch of its own.

    Parameters
    ----------
    batches : Batches
    layers : sequence of LayerVariances
        Of the hidden layers and the output layer.
    activation : Activation
    loss : Loss
    nets : int
        How many.
    single : bool
        Calculate in single precision: enough where pre-activations are neither huge nor saturate.
    seed : int
        The same seed gives the same nets.
    """
    rng = np.random.default_rng(seed)
    dtype = np.float32 if single else np.float64
    numbers = batches.rows * sum(layer.fan_out for layer in layers)
    at_once = max(1, int(_NUMBERS / numbers))
    gradients, deltas, squares = [], [], []
    for start in range(0, nets, at_once):
        count = min(at_once, nets - start)
        x, y, often = batches.draw(rng, count)
        drawn = [weights(rng, count, layer, dtype) for layer in layers]
        biases = [_biases(rng, count, layer, dtype) for layer in layers]
        inputs, slopes = _forward(x.astype(dtype), drawn, biases, activation)
        logits = inputs.pop().astype(np.float64)
        squares.append((probabilities(logits) ** 2).mean(axis=(1, 2)))
        error = errors(logits, y, loss.name, loss.reduction, batches.size)
        gradient, delta = _backward(inputs, slopes, drawn, error, often, dtype)
        gradients.append(gradient)
        deltas.append(delta)
    return VirtualNets(
        np.concatenate(gradients), np.concatenate(deltas), float(np.concatenate(squares).mean())
    )


def both(first: VirtualNets, second: VirtualNets) -> VirtualNets:
    """The nets of two draws together."""
    sizes = len(first.gradient), len(second.gradient)
    squares = first.output_mean_square, second.output_mean_square
    return VirtualNets(
        np.concatenate([first.gradient, second.gradient]),
        np.concatenate([first.delta, second.delta]),
        float(np.average(squares, weights=sizes)),
    )


def work(rows: int, layers: Sequence[LayerVariances], single: bool = False) -> float:
    """About how many nanoseconds of one core a net takes, of batches of so many different rows."""
    shapes = [(layer.fan_in, layer.fan_out) for layer in layers]
    products = sum(rows * fan_in * fan_out for fan_in, fan_out in shapes)
    units = sum(rows * fan_out for _, fan_out in shapes)
    numbers = sum(
        layer.fan_in * layer.fan_out * _EACH_NUMBER[layer.law]
        + (0.3 * max(shape) * layer.fan_in * layer.fan_out if layer.law == "orthogonal" else 0.0)
        for shape, layer in zip(shapes, layers, strict=True)
    )
    return (0.06 if single else 0.13) * products + numbers + (10.0 if single else 15.0) * units


def _biases(rng: np.random.Generator, nets: int, layer: LayerVariances, dtype: Any) -> Array | None:
    if not layer.bias:
        return None
    bound = math.sqrt(3 * layer.bias)
    return np.asarray(rng.uniform(-bound, bound, (nets, 1, layer.fan_out)), dtype)


def _forward(
    x: Array, drawn: list[Array], biases: list[Array | None], activation: Activation
) -> tuple[list[Array], list[Array]]:
    """What each layer is given, the logits last; and φ'(h) of the hidden layers.

    (nets, rows, units) each.
    """
    inputs, slopes = [x], []
    for i, (weight, bias) in enumerate(zip(drawn, biases, strict=True)):
        h = inputs[-1] @ weight
        if bias is not None:
            h += bias
        if i + 1 < len(drawn):
            h, slope = _value_and_slope(activation, h)
            slopes.append(slope)
        inputs.append(h)
    return inputs, slopes


def _value_and_slope(activation: Activation, h: Array) -> tuple[Array, Array]:
    """φ(h) and φ'(h)."""
    if activation.primitive is p.gelu:
        # dp's own Φ, which needs no SciPy, takes ten times as long
        below = special.ndtr(h)
        return h * below, below + h * normal_pdf(h)
    return np.asarray(activation(h)), activation.derivative(h)


def _backward(
    inputs: list[Array],
    slopes: list[Array],
    drawn: list[Array],
    error: Array,
    often: Array,
    dtype: Any,
) -> tuple[Array, Array]:
    """log10 of mean |dL/dW| and of the delta's rms, (nets, layers) each."""
    level = np.zeros(len(error))  # log10 of what the delta was divided by, so that none underflows
    size = often.sum(axis=1)
    delta, gradients, deltas = error, [], []
    for i in range(len(drawn) - 1, -1, -1):
        largest = np.abs(delta).max(axis=(1, 2))
        largest[largest == 0] = 1.0
        delta = (delta / largest[:, None, None]).astype(dtype)
        level += np.log10(largest)
        weighted = delta * often[..., None].astype(dtype)
        products = inputs[i].swapaxes(1, 2) @ weighted
        gradients.append(_log10(np.abs(products).mean(axis=(1, 2))) + level)
        squares = np.einsum("nbu,nbu->n", weighted, delta) / (size * delta.shape[2])
        deltas.append(0.5 * _log10(squares) + level)
        if i:
            delta = (delta @ drawn[i].swapaxes(1, 2)) * slopes[i - 1]
    return np.stack(gradients[::-1], axis=1), np.stack(deltas[::-1], axis=1)


def _log10(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log10(values)
