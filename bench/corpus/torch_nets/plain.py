"""Plain nets: layer after layer, of numbers, of bags of tokens, or towards their own input."""

from __future__ import annotations

from torch import nn

from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import Skeleton, activated
from bench.corpus.torch_nets.tasks import Task


def mlp(plan: Plan, task: Task) -> Skeleton:
    """Linear layers."""
    stem = _layer(task.n_features, plan)
    return Skeleton(stem, _blocks(plan), nn.Identity(), _out(plan, task), plan)


def funnel(plan: Plan, task: Task) -> Skeleton:
    """Linear layers that get narrower: half as wide each, but four at least."""
    widths = [max(plan.width >> i, 4) for i in range(plan.depth + 1)]
    layers = [
        activated(nn.Linear(n, m), None, plan)
        for n, m in zip([task.n_features, *widths], widths, strict=False)
    ]
    out = nn.Linear(widths[-1], task.n_outputs)
    return Skeleton(layers[0], layers[1:], nn.Identity(), out, plan)


def bag(plan: Plan, task: Task) -> Skeleton:
    """The mean of the tokens' embeddings, then linear layers."""
    stem = nn.EmbeddingBag(task.tokens, plan.width, mode="mean")
    return Skeleton(stem, _blocks(plan), nn.Identity(), _out(plan, task), plan)


def _blocks(plan: Plan) -> list[nn.Module]:
    return [_layer(plan.width, plan) for _ in range(plan.depth)]


def _layer(n: int, plan: Plan) -> nn.Module:
    norms = {"": lambda: None, "batch": lambda: nn.BatchNorm1d(plan.width)}
    norms["layer"] = lambda: nn.LayerNorm(plan.width)
    return activated(nn.Linear(n, plan.width), norms[plan.norm](), plan)


def _out(plan: Plan, task: Task) -> nn.Linear:
    return nn.Linear(plan.width, task.n_outputs)
