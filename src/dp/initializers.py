"""How initial weights are drawn.

An initializer draws the weights (fan_in × fan_out) and the bias (1 × fan_out) of one layer from a
random stream. Where a uniform and a normal form share a variance, the uniform bound is √3 standard
deviations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dp.typing import Array
from dp.validation import unknown


class RandomStream(Protocol):
    """What initializers draw from: a NumPy Generator, or the module np.random itself."""

    def uniform(self, low: float, high: float, size: tuple[int, int]) -> Any:
        """Uniform numbers in [low, high)."""
        ...

    def normal(self, loc: float, scale: float, size: tuple[int, int]) -> Any:
        """Normal numbers."""
        ...


Draw = Callable[[RandomStream, int, int], Array]


@dataclass(frozen=True)
class Initializer:
    """A named way to draw a layer's initial weights and biases, and where it comes from."""

    name: str
    source: str
    weight: Draw
    bias: Draw


def _uniform(bound: Callable[[int, int], float]) -> Draw:
    def draw(stream: RandomStream, fan_in: int, fan_out: int) -> Array:
        b = bound(fan_in, fan_out)
        return np.asarray(stream.uniform(-b, b, (fan_in, fan_out)))

    return draw


def _normal(std: Callable[[int, int], float]) -> Draw:
    def draw(stream: RandomStream, fan_in: int, fan_out: int) -> Array:
        return np.asarray(stream.normal(0.0, std(fan_in, fan_out), (fan_in, fan_out)))

    return draw


def _bias_uniform(stream: RandomStream, fan_in: int, fan_out: int) -> Array:
    bound = 1.0 / math.sqrt(fan_in)
    return np.asarray(stream.uniform(-bound, bound, (1, fan_out)))


def _zeros(stream: RandomStream, fan_in: int, fan_out: int) -> Array:
    return np.zeros((fan_in, fan_out))


def _zero_bias(stream: RandomStream, fan_in: int, fan_out: int) -> Array:
    return np.zeros((1, fan_out))


def _orthogonal(stream: RandomStream, fan_in: int, fan_out: int) -> Array:
    tall = (max(fan_in, fan_out), min(fan_in, fan_out))
    q, r = np.linalg.qr(stream.normal(0.0, 1.0, tall))
    q = q * np.sign(np.diag(r))  # without this the distribution is not uniform (Mezzadri 2007)
    return q if fan_in >= fan_out else q.T


_ALL = [
    Initializer(
        "dp",
        "the course's default: uniform, bound √2·√(3/fan_in)",
        _uniform(lambda i, o: math.sqrt(2.0) * math.sqrt(3.0 / i)),
        _bias_uniform,
    ),
    Initializer(
        "pytorch",
        "torch.nn.Linear's default: uniform, bound 1/√fan_in",
        _uniform(lambda i, o: 1.0 / math.sqrt(i)),
        _bias_uniform,
    ),
    Initializer(
        "he_uniform", "He et al. 2015", _uniform(lambda i, o: math.sqrt(6.0 / i)), _zero_bias
    ),
    Initializer(
        "he_normal", "He et al. 2015", _normal(lambda i, o: math.sqrt(2.0 / i)), _zero_bias
    ),
    Initializer(
        "glorot_uniform",
        "Glorot & Bengio 2010, eq. 16",
        _uniform(lambda i, o: math.sqrt(6.0 / (i + o))),
        _zero_bias,
    ),
    Initializer(
        "glorot_normal",
        "Glorot & Bengio 2010, eq. 12",
        _normal(lambda i, o: math.sqrt(2.0 / (i + o))),
        _zero_bias,
    ),
    Initializer(
        "lecun_uniform",
        "LeCun et al. 1998, 4.6",
        _uniform(lambda i, o: math.sqrt(3.0 / i)),
        _zero_bias,
    ),
    Initializer(
        "lecun_normal",
        "LeCun et al. 1998, 4.6",
        _normal(lambda i, o: math.sqrt(1.0 / i)),
        _zero_bias,
    ),
    Initializer("orthogonal", "Saxe et al. 2014", _orthogonal, _zero_bias),
    Initializer("normal", "standard normal, N(0, 1)", _normal(lambda i, o: 1.0), _zero_bias),
    Initializer("uniform", "uniform in [-1, 1)", _uniform(lambda i, o: 1.0), _zero_bias),
    Initializer("zeros", "all weights 0", _zeros, _zero_bias),
]

INITIALIZERS: dict[str, Initializer] = {initializer.name: initializer for initializer in _ALL}


def get(name: str | Initializer) -> Initializer:
    """Look an initializer up by name.

    Raises
    ------
    ValueError
        If there is none of that name, naming those there are.
    """
    if isinstance(name, Initializer):
        return name
    if not isinstance(name, str) or name not in INITIALIZERS:
        raise ValueError(unknown("initializer", name, INITIALIZERS))
    return INITIALIZERS[name]
