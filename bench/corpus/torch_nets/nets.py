"""All kinds of nets, by name, and how one is built, initialised and frozen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bench.corpus.torch_nets import convolutional, plain, recurrent, residual, transformer
from bench.corpus.torch_nets.initial import initialise
from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import Skeleton, middle_of
from bench.corpus.torch_nets.tasks import Task, load

NETS: dict[str, Callable[[Plan, Task], Skeleton]] = {
    "mlp": plain.mlp,
    "funnel": plain.funnel,
    "bag": plain.bag,
    "conv": convolutional.conv,
    "conv in time": convolutional.conv_in_time,
    "residual": residual.residual,
    "preactivation": residual.preactivation,
    "loop": recurrent.by_hand,
    "rnn": recurrent.by_module,
    "lstm": recurrent.by_module,
    "gru": recurrent.by_module,
    "gru of tokens": recurrent.after_embedding,
    "transformer": transformer.of_modules,
    "attention": transformer.by_hand,
}


def task_of(plan: Plan) -> Task:
    """The task as the net's inputs are prepared for it."""
    return load(plan.task, plan.length, plan.inputs == "raw")


def build(plan: Plan) -> Skeleton:
    """Give a net with its initial weights, which the plan's seed draws."""
    torch.manual_seed(plan.seed)
    model = NETS[plan.net](plan, task_of(plan))
    initialise(model, plan)
    if plan.frozen == "first":
        model.stem.requires_grad_(False)
    elif plan.frozen == "trunk":
        model.requires_grad_(False)
        model.out.requires_grad_(True)
    return model


def layers_of(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Names of a net's layers as a trace has them, by what a fault may concern."""
    model = build(plan)
    names = tuple(_layer_names(model))
    hidden = tuple(name for name in names if name != "out")
    return {
        "": (),
        "all": names,
        "first": names[:1],
        "hidden": hidden,
        "out": ("out",),
        "middle": tuple(name for name in names if name == middle_of(model)),
        "recurrent": tuple(name for name in names if "recurrent" in name or "weight_hh" in name),
    }


def _layer_names(model: nn.Module) -> list[str]:
    """Modules that own one weight; of those that own several, the module and the parameter."""
    found = []
    for name, module in model.named_modules():
        own = [key for key, value in module.named_parameters(recurse=False) if value.dim() > 1]
        found += [name] if len(own) == 1 else [f"{name}.{key}" for key in own]
    return found
