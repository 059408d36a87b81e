"""Losses as PyTorch has them, and as people write them by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.corpus.torch_nets.tasks import Task


def _picked(p: Tensor, y: Tensor) -> Tensor:
    return p.gather(1, y[:, None])


def _softmax_by_hand(z: Tensor, y: Tensor) -> Tensor:
    e = z.exp()  # overflows above 88
    return -_picked(e / e.sum(1, keepdim=True), y).log().mean()


def _entropy_by_hand(z: Tensor, y: Tensor) -> Tensor:
    """Cross entropy that rewards a high entropy a little."""
    p = nn.functional.softmax(z, 1)
    return nn.functional.cross_entropy(z, y) + 1e-3 * (p * p.log()).sum(1).mean()


def _binary_by_hand(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def _norm_by_hand(z: Tensor, y: Tensor) -> Tensor:
    """Cross entropy, and a penalty on the norm of a row of outputs."""
    return nn.functional.cross_entropy(z, y) + 1e-3 * z.square().sum(1).sqrt().mean()


def _normalised_by_hand(z: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of outputs that are divided by their norm."""
    return nn.functional.cross_entropy(8 * z / z.square().sum(1, keepdim=True).sqrt(), y)


def _relative(z: Tensor, y: Tensor) -> Tensor:
    """Relative error, of targets rounded to tenths: some are 0."""
    y = (10 * y).round() / 10
    return ((z - y) / y).abs().clamp(max=1e3).mean()


def _log_error(z: Tensor, y: Tensor) -> Tensor:
    """Squared error of logarithms."""
    return nn.functional.mse_loss((z - 1).log(), (y - y.min() + 1).log())


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross entropy": nn.functional.cross_entropy,
    "binary cross entropy": nn.functional.binary_cross_entropy_with_logits,
    "binary cross entropy of probabilities": nn.functional.binary_cross_entropy,
    "squared error": nn.functional.mse_loss,
    "squared error by hand": lambda p, y: (p - y).square().mean(),
    "softmax by hand": _softmax_by_hand,
    "log of softmax": lambda z, y: -_picked(nn.functional.softmax(z, 1).log(), y).mean(),
    "entropy by hand": _entropy_by_hand,
    "binary by hand": _binary_by_hand,
    "norm by hand": _norm_by_hand,
    "normalised by hand": _normalised_by_hand,
    "relative error": _relative,
    "log error": _log_error,
}
_SUITED = {
    "classes": "cross entropy",
    "binary": "binary cross entropy",
    "numbers": "squared error",
}


def loss_of(name: str, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """Give the loss of this name, or the one that suits the task."""
    return LOSSES[name or _SUITED[task.goal]]
