"""Which functions and modules of PyTorch are activation functions, and with which settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from gradiometer.recording.functions import Function, function

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_NAMES = (
    "sigmoid", "expit", "tanh", "relu", "relu6", "selu", "silu", "softmax", "log_softmax",
    "softmin", "celu", "hardsigmoid", "hardswish", "mish", "softsign", "tanhshrink", "logsigmoid",
    "prelu", "rrelu", "hardshrink", "softshrink", "leaky_relu", "elu", "gelu", "softplus",
    "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "threshold",
)  # fmt: skip
_SPELLED = {"clamp_min": "clamp", "clamp_max": "clamp"}
# settings by which a function differs: PyTorch's name -> that of `gradiometer.recording.functions`;
# as arguments they stand in this order after the tensor
_SETTINGS = {
    "leaky_relu": {"negative_slope": "negative_slope"},
    "elu": {"alpha": "alpha"},
    "gelu": {"approximate": "approximate"},
    "softplus": {"beta": "beta"},
    "hardtanh": {"min_val": "low", "max_val": "high"},
    "clamp": {"min": "low", "max": "high"},
    "clip": {"min": "low", "max": "high"},
    "clamp_min": {"min": "low"},
    "threshold": {"threshold": "threshold", "value": "value"},
}


def _by_arguments(name: str) -> Callable[[Arguments], Function]:
    """What a function is, given its arguments."""
    spelled, settings = _SPELLED.get(name, name), _SETTINGS.get(name, {})
    plain = function(spelled)

    def found(arguments: Arguments) -> Function:
        args, kwargs = arguments
        given = {ours: kwargs[theirs] for theirs, ours in settings.items() if theirs in kwargs}
        given |= dict(zip(settings.values(), args[1:], strict=False))
        return function(spelled, **given) if given else plain

    return found


def _by_attributes(name: str) -> Callable[[Any], Function]:
    """What a module applies, given the module."""
    settings = _SETTINGS.get(name, {})
    return lambda module: function(
        name, **{ours: getattr(module, theirs) for theirs, ours in settings.items()}
    )


# the function itself, as it is seen when called -> what it is, given its arguments
FUNCTIONS: dict[Any, Callable[[Arguments], Function]] = {
    getattr(home, name + ending): _by_arguments(name)
    for home in (torch, functional, torch.Tensor, torch.special)
    for name in _NAMES
    for ending in ("", "_")
    if hasattr(home, name + ending)
}

_OF_MODULES = {name.replace("_", ""): name for name in _NAMES}
# modules that do nothing but apply one of them (subclasses may do more)
MODULES: dict[type[torch.nn.Module], Callable[[Any], Function]] = {
    kind: _by_attributes(_OF_MODULES[spelled])
    for kind in vars(torch.nn.modules.activation).values()
    if isinstance(kind, type) and (spelled := kind.__name__.lower()) in _OF_MODULES
}
