"""Skeleton: what all nets of the corpus have in common, so that a fault is the same in all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.corpus.torch_nets.plan import Plan

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "softsign": nn.Softsign,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
}
ENDINGS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}


class Skeleton(nn.Module):
    """A stem, blocks, pooling and an output layer.

    Parameters
    ----------
    stem : Module
        First layer, or several.
    blocks : list of Module
        Each keeps the shape.
    pool : Module
        To one row per sample.
    out : Linear
    plan : Plan
    """

    def __init__(
        self, stem: nn.Module, blocks: list[nn.Module], pool: nn.Module, out: nn.Linear, plan: Plan
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.pool = pool
        self.out = out
        if plan.ending:
            self.ending = nn.Softmax(1) if plan.ending == "softmax" else ENDINGS[plan.ending]()
        self.cut = plan.cut

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output; no gradient flows past the cut, if there is one."""
        if self.cut == "no_grad":
            with torch.no_grad():
                h = self.features(x)
        else:
            h = self.features(x)
        if self.cut == "detach":
            h = h.detach()
        out = self.out(h)
        return self.ending(out) if hasattr(self, "ending") else out

    def features(self, x: Tensor) -> Tensor:
        """What the output layer gets."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        pooled: Tensor = self.pool(h)
        return pooled


class Last(nn.Module):
    """The last element of a sequence (batch, length, features)."""

    def forward(self, h: Tensor) -> Tensor:
        """Take it."""
        return h[:, -1]


class Mean(nn.Module):
    """The mean over a sequence, or over an image's positions.

    Parameters
    ----------
    axes : tuple of int
    """

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, h: Tensor) -> Tensor:
        """Take it."""
        return h.mean(self.axes)


def activated(layer: nn.Module, norm: nn.Module | None, plan: Plan) -> nn.Sequential:
    """Give a layer, normalisation if there is any, the activation function, and dropout if any."""
    parts = [layer] if norm is None else [layer, norm]
    parts.append(ACTIVATIONS[plan.activation]())
    if plan.dropout:
        parts.append(nn.Dropout(plan.dropout))
    return nn.Sequential(*parts)


def middle_of(model: nn.Module) -> str:
    """Name of the linear or convolutional layer in the middle of the hidden ones."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d) and name != "out"
    ]
    return names[len(names) // 2] if names else ""
