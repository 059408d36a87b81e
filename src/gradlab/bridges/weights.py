"""The weights of one layer, of dp or of PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp

Array = NDArray[Any]

DTYPES = ("float16", "float32", "float64")


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
        raise ImportError("PyTorch is not installed; pip install 'gradlab[torch]'") from None
