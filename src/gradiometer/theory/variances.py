"""What theory needs to know of an initialiser: the variances of weights and biases, and their law.

σ_w² is the variance of a weight times the layer's fan-in, σ_b² that of a bias. The draws themselves
stand in `dp.initializers`; tests hold the two against each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dp.typing import Array
from dp.validation import unknown

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment

Law = Literal["uniform", "normal", "orthogonal"]


@dataclass(frozen=True)
class Variances:
    """σ_w² and σ_b² of an initialiser, of fan-in and fan-out; and how weights are distributed.

    Biases, where there are any, are uniform.
    """

    weight: Callable[[int, int], float]
    bias: Callable[[int], float]
    law: Law


def _none(fan_in: int) -> float:  # noqa: ARG001
    return 0.0


def _uniform_bias(fan_in: int) -> float:
    return 1.0 / (3.0 * fan_in)  # bound 1/√fan_in


def _orthogonal(fan_in: int, fan_out: int) -> float:
    # the shorter side is orthonormal: min(fan_in, fan_out) = Σ W², over fan_in · fan_out entries
    return min(1.0, fan_in / fan_out)


VARIANCES: dict[str, Variances] = {
    "dp": Variances(lambda i, o: 2.0, _uniform_bias, "uniform"),  # noqa: ARG005
    "pytorch": Variances(lambda i, o: 1.0 / 3.0, _uniform_bias, "uniform"),  # noqa: ARG005
    "he_uniform": Variances(lambda i, o: 2.0, _none, "uniform"),  # noqa: ARG005
    "he_normal": Variances(lambda i, o: 2.0, _none, "normal"),  # noqa: ARG005
    "glorot_uniform": Variances(lambda i, o: 2.0 * i / (i + o), _none, "uniform"),
    "glorot_normal": Variances(lambda i, o: 2.0 * i / (i + o), _none, "normal"),
    "lecun_uniform": Variances(lambda i, o: 1.0, _none, "uniform"),  # noqa: ARG005
    "lecun_normal": Variances(lambda i, o: 1.0, _none, "normal"),  # noqa: ARG005
    "orthogonal": Variances(_orthogonal, _none, "orthogonal"),
    "normal": Variances(lambda i, o: float(i), _none, "normal"),  # noqa: ARG005
    "uniform": Variances(lambda i, o: i / 3.0, _none, "uniform"),  # noqa: ARG005
    "zeros": Variances(lambda i, o: 0.0, _none, "normal"),  # noqa: ARG005
}


@dataclass(frozen=True)
class LayerVariances:
    """One affine map: its shape, σ_w² and σ_b², and the law of its weights."""

    fan_in: int
    fan_out: int
    weight: float
    bias: float
    law: Law = "normal"


def of_layer(init: str, fan_in: int, fan_out: int, scale: float = 1.0) -> LayerVariances:
    """σ_w² and σ_b² of a layer; `scale` multiplies its weights, not its biases.

    Raises
    ------
    ValueError
        If there is no such initialiser.
    """
    if init not in VARIANCES:
        raise ValueError(unknown("initialiser", init, VARIANCES))
    how = VARIANCES[init]
    weight = how.weight(fan_in, fan_out) * scale**2
    return LayerVariances(fan_in, fan_out, weight, how.bias(fan_in), how.law)


def of_net(experiment: Experiment, n_features: int, n_outputs: int) -> list[LayerVariances]:
    """Those of an experiment's layers, from the first to the output layer."""
    widths = [n_features, *[experiment.width] * experiment.layers, n_outputs]
    return [
        of_layer(experiment.init, fan_in, fan_out, experiment.init_scale)
        for fan_in, fan_out in itertools.pairwise(widths)
    ]


def weights(
    rng: np.random.Generator, nets: int, layer: LayerVariances, dtype: Any = np.float64
) -> Array:
    """First weights of a layer of several nets: (nets, fan_in, fan_out)."""
    drawn = unit_weights(rng, nets, layer.fan_in, layer.fan_out, layer.law, dtype)
    drawn *= math.sqrt(layer.weight / layer.fan_in)
    return drawn


def unit_weights(
    rng: np.random.Generator, nets: int, rows: int, columns: int, law: Law, dtype: Any = np.float64
) -> Array:
    """Weights of variance 1: (nets, rows, columns)."""
    shape = (nets, rows, columns)
    if law == "uniform":
        drawn = rng.random(shape, dtype)
        drawn -= 0.5
        drawn *= math.sqrt(12)
        return drawn
    if law == "normal":
        return rng.standard_normal(shape, dtype)
    tall = (nets, max(rows, columns), min(rows, columns))
    frame = _frame(rng, rng.standard_normal(tall, dtype))
    frame *= math.sqrt(tall[1])
    return frame if rows >= columns else frame.transpose(0, 2, 1)


def _frame(rng: np.random.Generator, drawn: Array) -> Array:
    """Orthonormal columns of a uniform direction, from normal ones (Mezzadri 2007)."""
    frame = np.linalg.qr(drawn)[0]
    signs = rng.choice([-1.0, 1.0], (len(frame), 1, frame.shape[2]))
    return np.asarray(frame * signs.astype(frame.dtype))
