"""What papers measured, measured again. Simulations are seeded and take a second or so each."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from dp.activations import ACTIVATIONS
from dp.initializers import INITIALIZERS
from dp.typing import Array
from gradiometer.claims.reproductions import LU_NETS
from gradiometer.theory import kernels, moments
from gradiometer.theory.variances import of_layer

TANH, SELU = ACTIVATIONS["tanh"], ACTIVATIONS["selu"]


def drawn(init: str, fan_in: int, fan_out: int, seed: int = 0) -> Array:
    """Weights of an initialiser."""
    return INITIALIZERS[init].weight(np.random.default_rng(seed), fan_in, fan_out)


def measured_singular_value(init: str, width: int = 400) -> float:
    """Mean singular value of a layer's weights (Glorot & Bengio 2010, section 4.2.2)."""
    return float(np.linalg.svd(drawn(init, width, width), compute_uv=False).mean())


@functools.cache
def glorot_factors(layers: int = 9, width: int = 100) -> tuple[float, float]:
    """Factors per layer of Var delta and of Var dL/dW, backwards, of tanh nets at standard weights.

    In the linear part of tanh, as in eq. 13-15 and figure 8 of Glorot & Bengio (2010).
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, width)) * 0.1  # tanh in its linear part
    layer = dataclasses.replace(of_layer("pytorch", width, width), bias=0.0)
    net = kernels.of_batch(x, [layer] * layers, TANH)
    error = rng.choice([-0.5, 0.5], (50, 1))
    gradient = np.log(kernels.gradient_mean_square(net, error)[1:-1])
    delta = np.log(kernels.delta_mean_square(net, error, np.ones(50))[1:-1])
    # the layer that is furthest off counts
    return tuple(  # type: ignore[return-value]
        float(np.exp(-steps[np.abs(steps - np.median(steps)).argmax()]))
        for steps in (np.diff(delta), np.diff(gradient))
    )


@functools.cache
def measured_glorot_factors(
    layers: int = 9, width: int = 100, nets: int = 40, samples: int = 50
) -> tuple[float, float]:
    """The same of drawn nets: geometric mean over the layers."""
    found = []
    for net in range(nets):
        rng = np.random.default_rng(net)
        inputs, weights = [rng.normal(size=(samples, width)) * 0.1], []
        for _ in range(layers):
            weights.append(INITIALIZERS["pytorch"].weight(rng, width, width))
            inputs.append(np.tanh(inputs[-1] @ weights[-1]))
        arriving = rng.choice([-0.5, 0.5], (samples, 1)) * rng.normal(size=width)  # at the top
        variances = []
        for x, weight, y in zip(inputs[-2::-1], weights[::-1], inputs[:0:-1], strict=True):
            delta = arriving * (1 - y**2)
            variances.append([delta.var(), (x.T @ delta).var()])
            arriving = delta @ weight.T
        found.append(np.log(variances[-1]) - np.log(variances[0]))
    delta_factor, gradient_factor = np.exp(np.mean(found, axis=0) / (layers - 1))
    return float(delta_factor), float(gradient_factor)


@functools.cache
def relu_ratio(init: str, layers: int = 30, width: int = 500, nets: int = 16) -> float:
    """Rms activation of the last ReLU layer over that of the input (He et al. 2015)."""
    ratios = []
    for net in range(nets):
        rng = np.random.default_rng(net)
        x = rng.normal(size=(20, width))
        for _ in range(layers):
            x = np.maximum(x @ INITIALIZERS[init].weight(rng, width, width), 0)
        ratios.append((x**2).mean())
    return math.sqrt(np.mean(ratios))


def spectrum(
    activation: str, init: str, layers: int = 10, width: int = 400, nets: int = 6
) -> float:
    """Relative variance of the squared singular values of a Jacobian (Pennington et al. 2017)."""
    phi = ACTIVATIONS[activation]
    found = []
    for net in range(nets):
        rng = np.random.default_rng(net)
        jacobian = np.eye(width)
        for _ in range(layers):
            weight = INITIALIZERS[init].weight(rng, width, width)
            # slopes at pre-activations that are normal
            jacobian = (jacobian @ weight) * phi.derivative(rng.normal(size=width))
        gram = jacobian @ jacobian.T
        found.append(width * (gram**2).sum() / np.trace(gram) ** 2 - 1)
    return float(np.mean(found))


@functools.cache
def selu_constants() -> tuple[float, float]:
    """α and λ with which mean 0 and variance 1 stay so (Klambauer et al. 2017)."""

    def off(parameters: Array) -> list[float]:
        settings = dict(zip(("alpha", "scale"), map(float, parameters), strict=True))
        selu = dataclasses.replace(SELU, settings=settings)
        return [float(moments.mean(selu, 1.0)), float(moments.mean_square(selu, 1.0)) - 1.0]

    alpha, scale = optimize.fsolve(off, [1.5, 1.0], xtol=1e-12)
    return float(alpha), float(scale)


def measured_born_dead(width: int, layers: int = 9, nets: int = LU_NETS) -> float:
    """Share of ReLU nets of one input of which a whole layer is off (Lu et al. 2019)."""
    rng = np.random.default_rng(0)
    x = np.ones((nets, 1))
    for _ in range(layers):
        weight = rng.normal(size=(nets, x.shape[1], width)) * math.sqrt(2 / x.shape[1])
        x = np.maximum(np.matmul(x[:, None], weight)[:, 0], 0)
    return float((x == 0).all(axis=1).mean())


def log_gain_slope(width: int = 40, depths: Sequence[int] = (4, 8, 16), nets: int = 1500) -> float:
    """Slope of Var ln ‖J u‖² of relu nets with He's weights against Σ 1/n over their layers."""
    rng = np.random.default_rng(0)
    direction = np.zeros((nets, 1, width))
    direction[..., 0] = 1.0
    signal = rng.normal(size=(nets, 1, width))
    log, variances = np.zeros(nets), []
    for _ in range(max(depths)):
        weight = rng.normal(size=(nets, width, width)) * math.sqrt(2 / width)
        signal = np.maximum(signal @ weight, 0)
        direction = (direction @ weight) * (signal > 0)
        size = np.sqrt((direction**2).sum(axis=2, keepdims=True))
        log += 2 * np.log(size[:, 0, 0])
        direction, signal = direction / size, signal / size
        variances.append(log.var())
    chosen = np.array([variances[depth - 1] for depth in depths])
    return float(np.polyfit(np.array(depths) / width, chosen, 1)[0])
