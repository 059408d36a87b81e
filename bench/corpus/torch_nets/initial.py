"""Initial weights, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import middle_of

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d)


def _suited(weight: Tensor, activation: str) -> None:
    if activation in ("relu", "leaky", "gelu", "silu", "elu"):
        nn.init.kaiming_normal_(weight)
    else:
        nn.init.xavier_normal_(weight)


def _constant(weight: Tensor, _: str) -> None:
    nn.init.constant_(weight, 1 / weight[0].numel())


INITIAL: dict[str, Callable[[Tensor, str], None]] = {
    "suited": _suited,
    "framework": lambda weight, activation: None,  # noqa: ARG005  (left as PyTorch drew them)
    "small": lambda weight, activation: nn.init.normal_(weight, std=0.01),  # noqa: ARG005
    "normal": lambda weight, activation: nn.init.normal_(weight),  # noqa: ARG005
    "constant": _constant,
    "zero": lambda weight, activation: nn.init.zeros_(weight),  # noqa: ARG005
}


@torch.no_grad()
def initialise(model: nn.Module, plan: Plan) -> None:
    """Draw weights as the plan has it, then change those of the layers that it names."""
    for name, module in model.named_modules():
        if isinstance(module, _MATRICES):
            _draw(name, module, plan)
        elif isinstance(module, nn.RNNBase):
            _draw_cells(module, plan)
    _change(model, plan)


def _draw(name: str, module: nn.Module, plan: Plan) -> None:
    if "recurrent" in name and plan.initial == "suited":
        nn.init.orthogonal_(module.weight)
    elif name == "out" and plan.initial == "suited":
        nn.init.xavier_normal_(module.weight)
    else:
        INITIAL[plan.initial](module.weight, plan.activation)
    if plan.initial != "framework" and module.bias is not None:
        nn.init.zeros_(module.bias)


def _draw_cells(module: nn.RNNBase, plan: Plan) -> None:
    for name, value in module.named_parameters():
        if plan.initial == "suited" and "weight_hh" in name:
            for gate in value.split(module.hidden_size):
                nn.init.orthogonal_(gate)
        elif plan.initial not in ("suited", "framework") and "weight" in name:
            INITIAL[plan.initial](value, plan.activation)


def _change(model: nn.Module, plan: Plan) -> None:
    middle = middle_of(model)
    for name, value in model.named_parameters():
        owner, kind = name.rpartition(".")[::2]
        recurrent = "recurrent" in name or "weight_hh" in name
        of = {"hidden": owner != "out", "middle": owner == middle, "out": owner == "out"}
        of["recurrent"] = recurrent
        if of.get(plan.changed):
            if value.dim() > 1:
                value.mul_(plan.gain)
            elif kind == "bias" and plan.bias:
                value.fill_(plan.bias)
        if plan.changed == "half" and owner != "out" and kind == "bias":
            value[::2] = plan.bias
    if plan.head == "zero":
        nn.init.zeros_(model.out.weight)
        nn.init.zeros_(model.out.bias)
