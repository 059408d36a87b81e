"""Tensors as arrays that the quantities take, and numbers brought back from where they lie."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = "torch.Tensor | NDArray[Any]"
"""What a tensor holds: of NumPy if it lies in the machine's memory, or else the tensor."""


class Version:
    """A tensor as it is now, without keeping it: another one, or a change to it, can be told."""

    __slots__ = ("_tensor", "_version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self._version: int = tensor._version

    @classmethod
    def of(cls, thing: Any) -> Version | None:
        """Of a tensor, if its changes are counted."""
        counted = isinstance(thing, torch.Tensor) and not thing.is_inference()
        return cls(thing) if counted else None

    def now(self) -> torch.Tensor | None:
        """The tensor, if it is still there, as it was."""
        tensor = self._tensor()
        return tensor if self.is_of(tensor) else None

    def is_of(self, tensor: torch.Tensor | None) -> bool:
        """Whether this is that tensor, as it was."""
        same = self._tensor() is tensor
        return tensor is not None and same and bool(tensor._version == self._version)


def as_array(tensor: torch.Tensor) -> Array:
    """A tensor's values: of NumPy, without a copy, if it lies in the machine's memory.

    On another device the tensor itself, so that what is measured of it is measured there.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    if not in_memory(tensor):
        return tensor.to_dense() if tensor.is_sparse else tensor
    try:
        return tensor.numpy()
    except (RuntimeError, TypeError):  # sparse, negated in a view, or of a kind NumPy does not have
        tensor = (tensor.to_dense() if tensor.is_sparse else tensor).resolve_neg()
        return (tensor if tensor.dtype in _NUMPY_HAS else tensor.float()).numpy()


_NUMPY_HAS = {torch.float64, torch.float32, torch.float16, torch.bool}


def can_be_measured(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values: not one of torch.func, of a tracer, or a part of another."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or tensor.is_meta:
        return False
    kind = type(tensor)
    return kind is torch.Tensor or kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def in_memory(tensor: torch.Tensor) -> bool:
    """Whether NumPy can read the tensor where it lies."""
    return tensor.is_cpu


def copy_of(tensor: torch.Tensor, place: Array | None) -> Array:
    """The values as they are now, in `place` if they fit there."""
    array = as_array(tensor)
    if isinstance(array, torch.Tensor):
        return array.clone()
    if isinstance(place, np.ndarray) and (place.shape, place.dtype) == (array.shape, array.dtype):
        np.copyto(place, array)
        return place
    return np.array(array)


def zero_units_among(units: torch.Tensor, zero: Array) -> Array:
    """Which units are zero everywhere; `units` are the numbers of those that entries belong to."""
    alive = torch.zeros(int(units.max()) + 1, dtype=torch.int32, device=units.device)
    on = ~torch.as_tensor(zero, device=units.device)
    found = alive.scatter_reduce(0, units.reshape(-1), on.reshape(-1).int(), "amax") == 0
    return found if isinstance(zero, torch.Tensor) else found.numpy()


def brought_back(values: Sequence[Any]) -> list[Any]:
    """The same as arrays of NumPy; what lies on one device comes in one transfer."""
    found = list(values)
    elsewhere: dict[torch.device, list[int]] = {}
    for i, value in enumerate(found):
        if isinstance(value, torch.Tensor):
            elsewhere.setdefault(value.device, []).append(i)
    for device, places in elsewhere.items():
        flat = [found[i].detach().reshape(-1).to(_widest(device)) for i in places]
        numbers = torch.cat(flat).cpu().numpy()
        ends = np.cumsum([len(part) for part in flat])
        for i, part in zip(places, np.split(numbers, ends[:-1]), strict=True):
            found[i] = part.reshape(tuple(found[i].shape))
    return found


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
