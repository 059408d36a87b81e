"""Recurrent nets: written by hand, and PyTorch's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import ACTIVATIONS, Last, Mean, Skeleton
from bench.corpus.torch_nets.tasks import Task

_MODULES: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def by_hand(plan: Plan, task: Task) -> Skeleton:
    """h = φ(W x + U h), in a loop."""
    return _ended(nn.Identity(), _Loop(task.n_features, plan), plan, task)


def by_module(plan: Plan, task: Task) -> Skeleton:
    """RNN, LSTM or GRU of PyTorch, of `depth` layers."""
    return _ended(nn.Identity(), _Module(task.n_features, plan), plan, task)


def after_embedding(plan: Plan, task: Task) -> Skeleton:
    """The same of tokens, which are embedded first."""
    embedding = nn.Embedding(task.tokens, plan.width)
    return _ended(embedding, _Module(plan.width, plan), plan, task)


def _ended(stem: nn.Module, loop: nn.Module, plan: Plan, task: Task) -> Skeleton:
    pool = Mean(1) if plan.pool == "mean" else Last()
    return Skeleton(stem, [loop], pool, nn.Linear(plan.width, task.n_outputs), plan)


class _Loop(nn.Module):
    def __init__(self, n: int, plan: Plan) -> None:
        super().__init__()
        self.inputs = nn.Linear(n, plan.width)
        self.recurrent = nn.Linear(plan.width, plan.width, bias=False)
        self.activation = ACTIVATIONS[plan.activation]()
        self.cut = plan.cut

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.recurrent.in_features)
        states = []
        for inputs in x.unbind(1):
            if self.cut == "each step":
                h = h.detach()
            h = self.activation(self.inputs(inputs) + self.recurrent(h))
            states.append(h)
        return torch.stack(states, 1)


class _Module(nn.Module):
    def __init__(self, n: int, plan: Plan) -> None:
        super().__init__()
        module = _MODULES[plan.net.split()[0]]
        self.cells = module(n, plan.width, plan.depth, batch_first=True)
        self.dropout = nn.Dropout(plan.dropout)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.dropout(self.cells(x)[0])
        return states
