"""PyTorch's activation functions: which of them dp's table knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from dp import activations as table
from dp.activations import Activation
from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.quantities import Array


@dataclass(frozen=True)
class Function:
    """An activation function of PyTorch.

    Attributes
    ----------
    name : str
        Its name, dp's where dp knows it.
    known : Activation or None
        What dp's table says about it; None if it is not there, so that nothing is known of where it
        saturates.
    """

    name: str
    known: Activation | None = None

    @property
    def flat_where_zero(self) -> bool:
        """Whether it is saturated exactly where it is zero."""
        return self.known is _RELU

    def saturated(self, h: torch.Tensor) -> Array | None:
        """Where it is saturated; None if nothing is known of that, or its zeros say so."""
        # a softmax' units do not saturate on their own
        if self.known is None or self.known is table.SOFTMAX or self.known is _RELU:
            return None
        return self.known.saturated(as_array(h))

    @classmethod
    def of(cls, activation: Activation) -> Function:
        """One that dp's table knows."""
        return cls(activation.name, activation)


_RELU = table.ACTIVATIONS["relu"]
IDENTITY = Function.of(table.ACTIVATIONS["identity"])

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _setting(arguments: Arguments, position: int, name: str, default: Any) -> Any:
    args, kwargs = arguments
    return args[position] if len(args) > position else kwargs.get(name, default)


def _plain(name: str) -> Callable[[Arguments], Function]:
    known = table.SOFTMAX if name == "softmax" else table.ACTIVATIONS.get(name)
    function = Function(name, known)
    return lambda _: function


def _is_number(value: Any) -> bool:
    """Whether it is one that dp's table takes; PyTorch takes tensors and infinities too."""
    return isinstance(value, int | float) and math.isfinite(value)


def _leaky_relu(arguments: Arguments) -> Function:
    slope = _setting(arguments, 1, "negative_slope", 0.01)
    return Function.of(table.leaky_relu(slope)) if _is_number(slope) else Function("leaky_relu")


def _elu(arguments: Arguments) -> Function:
    alpha = _setting(arguments, 1, "alpha", 1.0)
    known = _is_number(alpha) and alpha > 0
    return Function.of(table.elu(alpha)) if known else Function("elu")


def _gelu(arguments: Arguments) -> Function:
    exact = _setting(arguments, 1, "approximate", "none") == "none"
    return Function.of(table.ACTIVATIONS["gelu"]) if exact else Function("gelu_tanh")


def _softplus(arguments: Arguments) -> Function:
    beta = _setting(arguments, 1, "beta", 1)
    plain = _is_number(beta) and beta == 1
    return Function.of(table.ACTIVATIONS["softplus"]) if plain else Function("softplus")


def _between(low: Any, high: Any, otherwise: str) -> Function:
    """Clipped at one or both ends, by numbers or by tensors."""
    if _is_number(low) and low == 0:
        if high is None:
            return Function.of(table.ACTIVATIONS["relu"])
        if _is_number(high) and high > 0:
            return Function.of(table.clipped_relu(float(high)))
    return Function(otherwise)


def _threshold(arguments: Arguments) -> Function:
    at, value = _setting(arguments, 1, "threshold", None), _setting(arguments, 2, "value", None)
    plain = _is_number(at) and _is_number(value) and at == value == 0
    return Function.of(table.ACTIVATIONS["relu"]) if plain else Function("threshold")


def _hardtanh(arguments: Arguments) -> Function:
    low, high = _setting(arguments, 1, "min_val", -1.0), _setting(arguments, 2, "max_val", 1.0)
    return _between(low, high, "hardtanh")


def _clamp(arguments: Arguments) -> Function:
    low, high = _setting(arguments, 1, "min", None), _setting(arguments, 2, "max", None)
    return _between(low, high, "clamp")


_NAMES: dict[str, Callable[[Arguments], Function]] = {
    **{
        name: _plain(name)
        for name in (
            "sigmoid", "tanh", "relu", "selu", "silu", "softmax", "log_softmax", "celu",
            "hardsigmoid", "hardswish", "mish", "softsign", "tanhshrink", "logsigmoid", "prelu",
            "rrelu", "hardshrink", "softshrink", "softmin",
        )
    },
    "expit": _plain("sigmoid"),
    "relu6": lambda _: Function.of(table.clipped_relu(6.0)),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "softplus": _softplus,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda arguments: _between(_setting(arguments, 1, "min", None), None, "clamp"),
    "clamp_max": _plain("clamp"),
    "threshold": _threshold,
}  # fmt: skip

# the function itself, as it is seen when called -> what it is, given its arguments
FUNCTIONS: dict[Any, Callable[[Arguments], Function]] = {
    getattr(home, name + ending): found
    for home in (torch, functional, torch.Tensor, torch.special)
    for name, found in _NAMES.items()
    for ending in ("", "_")
    if hasattr(home, name + ending)
}


def _by(found: Callable[[Arguments], Function], *settings: str) -> Callable[[Any], Function]:
    """The same for a module, whose attributes are the function's arguments."""
    return lambda module: found(((None,), {name: getattr(module, name) for name in settings}))


# modules that do nothing but apply one of them (subclasses may do more)
MODULES: dict[type[torch.nn.Module], Callable[[Any], Function]] = {
    torch.nn.ReLU6: _by(_NAMES["relu6"]),
    torch.nn.Hardtanh: _by(_hardtanh, "min_val", "max_val"),
    torch.nn.LeakyReLU: _by(_leaky_relu, "negative_slope"),
    torch.nn.ELU: _by(_elu, "alpha"),
    torch.nn.GELU: _by(_gelu, "approximate"),
    torch.nn.Softplus: _by(_softplus, "beta"),
    torch.nn.Threshold: _by(_threshold, "threshold", "value"),
    **{
        getattr(torch.nn, kind): _by(_plain(name))
        for kind, name in {
            "Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu", "SELU": "selu", "SiLU": "silu",
            "Softmax": "softmax", "LogSoftmax": "log_softmax", "CELU": "celu", "Mish": "mish",
            "Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish", "Softsign": "softsign",
            "Tanhshrink": "tanhshrink", "LogSigmoid": "logsigmoid", "Softmin": "softmin",
            "PReLU": "prelu", "RReLU": "rrelu",
            "Hardshrink": "hardshrink", "Softshrink": "softshrink",
        }.items()
    },
}  # fmt: skip
