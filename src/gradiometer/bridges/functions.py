"""Activation functions: dp's as modules of PyTorch, and the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np

from dp import activations
from dp.activations import Activation

# From here on log(1 + exp(h)) is h to the last digit of a float64, and PyTorch gives h; with its
# own threshold of 20 it is 2e-9 off.
SOFTPLUS_THRESHOLD = 40.0
# without settings: dp's name, and PyTorch's
PLAIN = {
    "identity": "Identity",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "ReLU",
    "selu": "SELU",
    "silu": "SiLU",
}
ACCEPTED = (
    "Identity, Sigmoid, Tanh, ReLU, ReLU6, Hardtanh(0, ceiling), LeakyReLU, ELU, SELU, "
    "GELU(approximate='none'), SiLU, Softplus(beta=1, threshold=20 or more)"
)


def module_of(torch: Any, where: str, function: Any) -> Any:
    """PyTorch's module for the activation function of layer `where`; ValueError if it has none."""
    nn = torch.nn
    what, name, settings = f"one of your own, {function!r}", "", {}
    if isinstance(function, Activation):
        known = activations.matching(function.primitive, function.settings)
        what, settings = function.name, function.settings
        name = "identity" if function.primitive is None else "" if known is None else known.name
    modules = {
        **{ours: getattr(nn, theirs) for ours, theirs in PLAIN.items()},
        "gelu": nn.GELU,
        "clipped_relu": lambda: _clipped(nn, settings["ceiling"]),
        "leaky_relu": lambda: nn.LeakyReLU(settings["slope"]),
        "elu": lambda: nn.ELU(settings["alpha"]),
        "softplus": lambda: nn.Softplus(threshold=SOFTPLUS_THRESHOLD),
    }
    if name not in modules:
        raise ValueError(
            f"the activation function of layer {where!r} is {what}, which cannot be "
            f"translated to a module of PyTorch; accepted are {', '.join(modules)}"
        )
    return modules[name]()


def _clipped(nn: Any, ceiling: float) -> Any:
    return nn.ReLU6() if ceiling == 6.0 else nn.Hardtanh(0.0, ceiling)


def function_of(torch: Any, module: Any) -> Activation | None:
    """dp's activation function for a module of PyTorch, or None."""
    nn, kind = torch.nn, type(module)
    plain = {getattr(nn, theirs): ours for ours, theirs in PLAIN.items()}
    if kind in plain:
        return activations.get(plain[kind])
    if kind is nn.ReLU6:
        return activations.get("clipped_relu")
    if kind is nn.Hardtanh and module.min_val == 0 < module.max_val < np.inf:
        return activations.clipped_relu(module.max_val)
    if kind is nn.LeakyReLU:
        return activations.leaky_relu(module.negative_slope)
    if kind is nn.ELU and 0 < module.alpha < np.inf:
        return activations.elu(module.alpha)
    if kind is nn.GELU and module.approximate == "none":
        return activations.get("gelu")
    if kind is nn.Softplus and module.beta == 1 and module.threshold >= 20:
        return activations.get("softplus")
    if kind is nn.Softmax and module.dim in (1, -1):
        return activations.SOFTMAX
    return None
