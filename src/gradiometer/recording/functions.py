"""Activation functions by their names in every framework: what dp's table knows of each.

PyTorch, Keras, JAX and scikit-learn call the same functions by a few spellings (`LeakyReLU`,
`leaky_relu`, `logistic`). An adapter says which function it sees and with which settings;
`function` says what is known of it: its name here, and where it saturates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dp import activations as table
from dp.activations import SOFTMAX, Activation
from gradiometer.arrays import Array

UNKNOWN = "unknown"  # the name of a function that is none of these
# whose units do not saturate each by itself
OF_ALL_UNITS = ("softmax", "log_softmax", "softmin")


def why_not_saturated(function: str) -> str:
    """Why the saturated share of an activation function is missing."""
    if function in OF_ALL_UNITS:
        return f"the units of a {function} do not saturate each by itself"
    return f"where {function} saturates is not known"


@dataclass(frozen=True)
class Function:
    """An activation function φ of any framework.

    Attributes
    ----------
    name : str
        Its name, dp's where dp's table has it.
    known : Activation or None
        Its row in dp's table; None if it has none, so that it is not known where it saturates.
    """

    name: str
    known: Activation | None = None

    @classmethod
    def of(cls, activation: Activation) -> Function:
        """One of dp's table."""
        return cls(activation.name, activation)

    @property
    def flat_where_zero(self) -> bool:
        """Whether it is saturated exactly where its output is zero."""
        return self.name == "relu"

    @property
    def saturates(self) -> bool:
        """Whether it is known where each of its units saturates."""
        return self.known is not None and self.name not in OF_ALL_UNITS

    def saturated(self, h: Array) -> Array | None:
        """Where it is saturated, for an array of any library; None if that is not known."""
        return self.known.saturated(h) if self.known is not None and self.saturates else None


IDENTITY = Function.of(table.ACTIVATIONS["identity"])
RELU = Function.of(table.ACTIVATIONS["relu"])


def function(name: str, **settings: Any) -> Function:
    """The function that a framework calls by a name, with these settings.

    Parameters
    ----------
    name : str
        As a function or a class: "leaky_relu", "LeakyReLU", "logistic", "hard_tanh".
    **settings
        Those that differ from the function's defaults: `negative_slope` of a leaky ReLU; `alpha` of
        ELU; `approximate` of GELU ("none", "tanh", or a boolean); `beta` of softplus; `low` and
        `high` (None for no end) of what clips; `threshold` and `value` of a threshold. Settings
        that dp's table does not take, such as a tensor, make a function of which only the name is
        known.

    Returns
    -------
    Function
        Named `UNKNOWN` if the name is none of the table.

    Examples
    --------
    >>> function("LeakyReLU", negative_slope=0.2).name
    'leaky_relu'
    >>> function("hardtanh", low=0, high=6).name
    'clipped_relu'
    >>> function("mish").saturates
    False
    """
    found = _TABLE.get(name.rstrip("_").replace("_", "").lower())
    return Function(UNKNOWN) if found is None else found(**settings)


# --- the table ------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    """Whether it is one that dp's table takes; others take tensors and infinities too."""
    return isinstance(value, int | float) and math.isfinite(value)


def _only(name: str) -> Callable[..., Function]:
    """A function without settings that matter here."""
    known = SOFTMAX if name == SOFTMAX.name else table.ACTIVATIONS.get(name)
    found = Function(name, known)
    return lambda **_: found


def _leaky_relu(negative_slope: Any = 0.01) -> Function:
    known = _is_number(negative_slope)
    return Function.of(table.leaky_relu(negative_slope)) if known else Function("leaky_relu")


def _elu(alpha: Any = 1.0) -> Function:
    known = _is_number(alpha) and alpha > 0
    return Function.of(table.elu(alpha)) if known else Function("elu")


def _gelu(approximate: Any = "none") -> Function:
    exact = approximate in ("none", False)
    return Function.of(table.ACTIVATIONS["gelu"]) if exact else Function("gelu_tanh")


def _softplus(beta: Any = 1) -> Function:
    plain = _is_number(beta) and beta == 1
    return Function.of(table.ACTIVATIONS["softplus"]) if plain else Function("softplus")


def _clipped(otherwise: str, low: Any, high: Any) -> Function:
    """Clipped at one or both ends, by numbers or by arrays."""
    if _is_number(low) and low == 0:
        if high is None:
            return RELU
        if _is_number(high) and high > 0:
            return Function.of(table.clipped_relu(float(high)))
    return Function(otherwise)


def _hardtanh(low: Any = -1.0, high: Any = 1.0) -> Function:
    return _clipped("hardtanh", low, high)


def _clamp(low: Any = None, high: Any = None) -> Function:
    return _clipped("clamp", low, high)


def _threshold(threshold: Any = None, value: Any = None) -> Function:
    plain = _is_number(threshold) and _is_number(value) and threshold == value == 0
    return RELU if plain else Function("threshold")


# those that dp's table may lack
_NAMES = (
    "softmax", "log_softmax", "softmin", "celu", "hardsigmoid", "hardswish", "mish", "softsign",
    "tanhshrink", "logsigmoid", "prelu", "rrelu", "hardshrink", "softshrink", "exp",
)  # fmt: skip
# spelled without underscores and capitals; a name of dp's table precedes the same one of `_NAMES`
_TABLE: dict[str, Callable[..., Function]] = {
    **{name.replace("_", ""): _only(name) for name in (*_NAMES, *table.ACTIVATIONS)},
    "linear": _only("identity"),
    "logistic": _only("sigmoid"),
    "expit": _only("sigmoid"),
    "swish": _only("silu"),
    "exponential": _only("exp"),
    "hardsilu": _only("hardswish"),
    "relu6": lambda **_: _clamp(0, 6.0),
    "clippedrelu": lambda ceiling=6.0: _clamp(0, ceiling),
    "leakyrelu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "softplus": _softplus,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "threshold": _threshold,
}
