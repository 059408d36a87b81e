"""Layers that are not registered: kept in a plain list or dict, where PyTorch does not see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

_DEEP = 3  # lists in lists


@dataclass(frozen=True)
class Unregistered:
    """An attribute that holds layers in a plain list or dict.

    Attributes
    ----------
    name : str
        Its qualified name.
    kind : str
        Of the attribute: "list", "tuple" or "dict".
    trainable : bool
        Whether any of the parameters in it is to be trained.
    """

    name: str
    kind: str
    trainable: bool

    @property
    def why(self) -> str:
        """Why nothing of these layers is recorded, and how that is mended."""
        instead = "nn.ModuleDict" if self.kind == "dict" else "nn.ModuleList"
        return (
            f"{self.name!r} is a plain {self.kind}, in which PyTorch does not see the layers: they "
            f"are no part of the model and not in its parameters(); use {instead}"
        )


def unregistered_layers(model: nn.Module) -> list[Unregistered]:
    """Attributes of a model's modules with layers whose parameters are not the model's.

    No property is read: only what the modules' `__dict__` holds.
    """
    known = {id(parameter) for parameter in model.parameters()}
    found = []
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules") or not _is_plain(value):
                continue
            hidden = [
                parameter
                for inside in _modules_in(value, _DEEP)
                for parameter in inside.parameters()
                if id(parameter) not in known
            ]
            if hidden:
                name = f"{path}.{key}" if path else key
                trainable = any(parameter.requires_grad for parameter in hidden)
                kind = next(k for k in (dict, tuple, list) if isinstance(value, k)).__name__
                found.append(Unregistered(name, kind, trainable))
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, list | tuple | dict)


def _modules_in(value: Any, deep: int) -> Iterator[nn.Module]:
    for part in list(value.values()) if isinstance(value, dict) else list(value):
        if isinstance(part, nn.Module):
            yield part
        elif deep and _is_plain(part):
            yield from _modules_in(part, deep - 1)
