"""Residual nets: with BatchNorm on images, and without normalisation."""

from __future__ import annotations

from torch import Tensor, nn

from bench.corpus.torch_nets.convolutional import image_pool
from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import ACTIVATIONS, Skeleton
from bench.corpus.torch_nets.tasks import Task


def residual(plan: Plan, task: Task) -> Skeleton:
    """Blocks of two convolutions with BatchNorm, the activation after the sum."""
    stem = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, plan.width, 3, padding=1))
    pool, n = image_pool(plan)
    blocks: list[nn.Module] = [_Block(plan) for _ in range(plan.depth)]
    return Skeleton(stem, blocks, pool, nn.Linear(n, task.n_outputs), plan)


def preactivation(plan: Plan, task: Task) -> Skeleton:
    """Blocks of two linear layers, each after the activation function; no normalisation."""
    stem = nn.Linear(task.n_features, plan.width)
    blocks: list[nn.Module] = [_PreactivationBlock(plan) for _ in range(plan.depth)]
    end = ACTIVATIONS[plan.activation]()
    return Skeleton(stem, blocks, end, nn.Linear(plan.width, task.n_outputs), plan)


class _Block(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        n = plan.width
        self.first = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n)
        self.second = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n)
        self.activation = ACTIVATIONS[plan.activation]()
        self.dropout = nn.Dropout(plan.dropout)
        if plan.head == "zero branches":
            nn.init.zeros_(self.norm2.weight)

    def forward(self, h: Tensor) -> Tensor:
        branch = self.activation(self.norm1(self.first(h)))
        out: Tensor = self.activation(h + self.norm2(self.second(self.dropout(branch))))
        return out


class _PreactivationBlock(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.first = nn.Linear(plan.width, plan.width)
        self.second = nn.Linear(plan.width, plan.width)
        self.activation = ACTIVATIONS[plan.activation]()
        self.dropout = nn.Dropout(plan.dropout)

    def forward(self, h: Tensor) -> Tensor:
        branch = self.first(self.activation(h))
        out: Tensor = h + self.second(self.dropout(self.activation(branch)))
        return out
