"""Convolutional nets, of images of 8 × 8 and of sequences."""

from __future__ import annotations

from torch import Tensor, nn

from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import Mean, Skeleton, activated
from bench.corpus.torch_nets.tasks import Task


def conv(plan: Plan, task: Task) -> Skeleton:
    """Layers of 3 × 3 on images; between them none is pooled."""
    stem = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), _layer(1, plan))
    blocks: list[nn.Module] = [_layer(plan.width, plan) for _ in range(plan.depth)]
    pool, n = image_pool(plan)
    return Skeleton(stem, blocks, pool, nn.Linear(n, task.n_outputs), plan)


def image_pool(plan: Plan) -> tuple[nn.Module, int]:
    """Give what turns an image into a row, and how many numbers the row has."""
    if plan.pool == "mean":
        return Mean(2, 3), plan.width
    if plan.pool == "max":
        return nn.Sequential(nn.MaxPool2d(4), nn.Flatten()), 4 * plan.width
    return nn.Flatten(), 64 * plan.width


def conv_in_time(plan: Plan, task: Task) -> Skeleton:
    """Layers of width 3 along a sequence."""
    stem = nn.Sequential(_Channels(), _layer_in_time(task.n_features, plan))
    blocks: list[nn.Module] = [_layer_in_time(plan.width, plan) for _ in range(plan.depth)]
    pool = Mean(2) if plan.pool == "mean" else nn.Sequential(nn.AdaptiveMaxPool1d(1), nn.Flatten())
    return Skeleton(stem, blocks, pool, nn.Linear(plan.width, task.n_outputs), plan)


class _Channels(nn.Module):
    """(batch, length, features) to (batch, features, length)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def _layer(n: int, plan: Plan) -> nn.Module:
    norm = nn.BatchNorm2d(plan.width) if plan.norm else None
    return activated(nn.Conv2d(n, plan.width, 3, padding=1), norm, plan)


def _layer_in_time(n: int, plan: Plan) -> nn.Module:
    norm = nn.BatchNorm1d(plan.width) if plan.norm else None
    return activated(nn.Conv1d(n, plan.width, 3, padding=1), norm, plan)
