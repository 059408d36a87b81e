"""The weights of one layer, of dp or of PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import dp
from dp.parameters import Registered, registered
from dp.typing import Array

DTYPES = ("float16", "float32", "float64")


def registered_of(model: dp.Model) -> Registered:
    """What the library keeps of a model, regardless of the model's own attributes."""
    kept = registered(model)
    if kept is None:
        raise RuntimeError(f"{type(model).__name__}.__init__ must call super().__init__()")
    return kept


def check_parameters(model: dp.Model) -> None:
    """Refuse parameters that are neither weight nor bias of a layer, naming the first.

    Asked is the library: a `get_param` of the model's own may leave some out, or add some.
    """
    kept = registered_of(model)
    carried = {id(node) for layer in kept.layers.values() for node in (layer.weight, layer.bias)}
    own = {name: node for name, node in kept.parameters.items() if id(node) not in carried}
    for name in [*own, *(name for name in model.get_param() if name not in kept.parameters)]:
        raise ValueError(
            f"parameter {name!r} of the {type(model).__name__} is neither weight nor bias of a "
            "layer, and is not carried"
        )


def weight_and_bias(layer: Any) -> tuple[Array, Array]:
    """Weight (fan_in, fan_out) and bias (1, fan_out) of a layer of either kind."""
    if isinstance(layer, dp.Layer):
        return layer.weight.value, layer.bias.value
    weight, bias = (x.detach().numpy(force=True) for x in (layer.weight, layer.bias))
    return weight.T, bias[None, :]


def write(layer: Any, weight: Array, bias: Array) -> None:
    """Change them to these, in place."""
    if isinstance(layer, dp.Layer):
        layer.weight.value[...] = weight
        layer.bias.value[...] = bias
        return
    torch = pytorch()
    with torch.no_grad():  # not through NumPy, of which autograd would not know
        layer.weight.copy_(torch.tensor(np.ascontiguousarray(weight.T)))
        layer.bias.copy_(torch.tensor(np.ascontiguousarray(bias[0])))


def pytorch() -> Any:
    """PyTorch, loaded when it is needed."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError("PyTorch is not installed; pip install 'gradiometer[torch]'") from None
