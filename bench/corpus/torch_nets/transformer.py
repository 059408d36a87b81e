"""Transformers: PyTorch's blocks, and blocks whose projections are linear layers of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import ACTIVATIONS, Mean, Skeleton
from bench.corpus.torch_nets.tasks import Task


def of_modules(plan: Plan, task: Task) -> Skeleton:
    """`nn.TransformerEncoderLayer`, the norm before each branch."""
    blocks: list[nn.Module] = [
        nn.TransformerEncoderLayer(
            plan.width, 2, 2 * plan.width, plan.dropout, nn.functional.relu, batch_first=True,
            norm_first=True,
        )
        for _ in range(plan.depth)
    ]  # fmt: skip
    return _ended(blocks, plan, task)


def by_hand(plan: Plan, task: Task) -> Skeleton:
    """Attention of one head from three linear layers, and a branch of two; norms before them."""
    return _ended([_Block(plan) for _ in range(plan.depth)], plan, task)


def _ended(blocks: list[nn.Module], plan: Plan, task: Task) -> Skeleton:
    out = nn.Linear(plan.width, task.n_outputs)
    return Skeleton(_Positioned(plan, task), blocks, Mean(1), out, plan)


class _Positioned(nn.Module):
    """Tokens or rows, embedded, and where they are in the sequence."""

    def __init__(self, plan: Plan, task: Task) -> None:
        super().__init__()
        self.embedding: nn.Module = (
            nn.Embedding(task.tokens, plan.width)
            if task.tokens
            else nn.Linear(task.n_features, plan.width)
        )
        self.positions = nn.Parameter(0.1 * torch.randn(task.x.shape[1], plan.width))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.embedding(x) + self.positions
        return found


class _Block(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        n = plan.width
        self.norm1, self.norm2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.query, self.key, self.value = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, n)
        self.mixed = nn.Linear(n, n)
        self.up, self.down = nn.Linear(n, 2 * n), nn.Linear(2 * n, n)
        self.activation = ACTIVATIONS[plan.activation]()
        self.dropout = nn.Dropout(plan.dropout)

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm1(h)
        q, k, v = self.query(x), self.key(x), self.value(x)
        attention = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1)
        h = h + self.dropout(self.mixed(attention @ v))
        out: Tensor = h + self.dropout(self.down(self.activation(self.up(self.norm2(h)))))
        return out
