"""Weights that a module computes from other parameters before each use.

`torch.nn.utils.parametrize` (weight norm, spectral norm, orthogonal matrices, one's own) computes
them whenever the attribute is read, and may draw random numbers or move its own state as it does.
So nothing here reads that attribute.
"""

from __future__ import annotations

import torch
from torch import nn


def computed_weights(module: nn.Module) -> list[str]:
    """Names of the tensors that a module computes from other parameters."""
    found = [name for name, _ in _parametrizations(module)]
    # pruning, the older weight_norm and spectral_norm: a plain tensor "weight", which is computed
    # from "weight_orig", or "weight_g" and "weight_v", before each forward pass
    plain = [name for name, value in vars(module).items() if isinstance(value, torch.Tensor)]
    own = module._parameters
    found += [
        name
        for name in plain
        if any(key.startswith(f"{name}_") and own[key] is not None for key in own)
    ]
    return found


def parametrization(module: nn.Module, name: str) -> nn.Module | None:
    """The module that computes a weight each time it is used; its output is the weight."""
    return dict(_parametrizations(module)).get(name)


def shape_of(module: nn.Module, name: str) -> torch.Size:
    """Shape of a module's weight; of a parametrized one, that of the largest tensor behind it."""
    there = module._parameters.get(name)
    if there is None:
        there = vars(module).get(name)
    if isinstance(there, torch.Tensor):
        return there.shape
    behind = parametrization(module, name)
    originals = [] if behind is None else list(behind.parameters(recurse=False))
    return max((p.shape for p in originals), key=torch.Size.numel, default=torch.Size([0]))


def _parametrizations(module: nn.Module) -> list[tuple[str, nn.Module]]:
    if not nn.utils.parametrize.is_parametrized(module):
        return []
    inside = module._modules["parametrizations"]
    return [] if inside is None else list(inside.named_children())
