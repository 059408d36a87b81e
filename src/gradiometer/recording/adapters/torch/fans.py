"""How many units a weight takes from, and how many it gives to, where that is known.

By the kind of module that owns it; or else by the product in which the forward pass uses it, since
a matrix of one's own may be held as (in, out) or as (out, in).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gradiometer.recording.adapters.torch.uses import name_of

Fans = tuple[int, int]
UNKNOWN_FANS: Fans = (0, 0)

_OF_PYTORCH = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)


def fans_of(owner: nn.Module, weight: torch.Tensor) -> Fans:
    """fan_in and fan_out, as PyTorch's initialisers count them; (0, 0) if that is not known."""
    if weight.ndim < 2:
        return weight.numel(), weight.numel()
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return weight.shape[0], weight.shape[1]
    if not isinstance(owner, _OF_PYTORCH):
        return UNKNOWN_FANS
    if isinstance(owner, nn.Linear) and weight.shape != (owner.out_features, owner.in_features):
        return UNKNOWN_FANS  # packed, or something else of a subclass
    return _rows_first(weight, isinstance(owner, nn.modules.conv._ConvTransposeNd))


def _rows_first(weight: torch.Tensor, transposed: bool = False) -> Fans:
    window = weight[0, 0].numel()
    out, into = weight.shape[0] * window, weight.shape[1] * window
    return (out, into) if transposed else (into, out)


# products: at which place the weight is, if it is not the last of the two factors
_PRODUCTS = {"matmul": (0, 1), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "addmm": (1, 2),
             "baddbmm": (1, 2), "addbmm": (1, 2), "addmv": (1, 2)}  # fmt: skip


def fans_in_use(func: Any, place: int, weight: torch.Tensor) -> Fans | None:
    """By the product in which a function uses a weight; None if it makes no product of it.

    Parameters
    ----------
    func : callable
        As PyTorch announces it to a `TorchFunctionMode`.
    place : int
        At which of its arguments the weight is.
    weight : torch.Tensor
        As it is given, transposed perhaps.
    """
    name = name_of(func)
    if name in ("einsum", "tensordot", "bilinear"):
        return UNKNOWN_FANS
    if name in ("linear", "embedding") or name.startswith("conv"):
        if place != 1 or weight.ndim < 2:
            return None
        if name == "embedding":
            return weight.shape[0], weight.shape[1]
        return _rows_first(weight, "transpose" in name)
    if name not in _PRODUCTS or weight.ndim < 2 or place not in _PRODUCTS[name]:
        return None
    rows, columns = weight.shape[-2:]
    return (columns, rows) if place == _PRODUCTS[name][0] else (rows, columns)


class WeightUses:
    """In which products weights are used whose place in the forward pass is not known otherwise.

    Parameters
    ----------
    weights : sequence of (layer, weight)
    """

    def __init__(self, weights: Sequence[tuple[Any, torch.Tensor]]) -> None:
        self._open = {id(weight): (layer, weight) for layer, weight in weights}
        self.found: dict[Any, Fans] = {}

    def __bool__(self) -> bool:
        """Whether there are any that are yet to be seen."""
        return bool(self._open)

    def look(self, func: Any, args: Sequence[Any]) -> Any:
        """A function is called: the layer whose weight it makes a product with, or None."""
        for place, argument in enumerate(args):
            if not isinstance(argument, torch.Tensor):
                continue
            base = argument._base
            known = self._open.get(id(argument if base is None else base))
            if known is None or known[1].numel() != argument.numel():
                continue
            fans = fans_in_use(func, place, argument)
            if fans is not None:
                layer, weight = known
                del self._open[id(weight)]
                self.found[layer] = fans
                return layer
        return None

    def end(self) -> None:
        """Look no further."""
        self._open = {}
