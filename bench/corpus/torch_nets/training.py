"""Trains a net as its plan has it, and records it as a user would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import gradiometer
from bench.corpus.cases import RECORDED, Trained
from bench.corpus.torch_nets.losses import loss_of
from bench.corpus.torch_nets.nets import build, task_of
from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import Skeleton
from bench.corpus.torch_nets.spoiling import INPUTS, TARGETS
from bench.corpus.torch_nets.tasks import REFERENCE, outcome

# step -> factor of the rate
SCHEDULES: dict[str, Callable[[int], float]] = {
    "": lambda step: 1.0,  # noqa: ARG005
    "gone at once": lambda step: 0.3**step,
    "never warm": lambda step: 1e-6 * (step + 1),
    "spike": lambda step: 300.0 if step == 5 else 1.0,
    "warm-up": lambda step: min(1.0, step / 10),
    "to zero": lambda step: max(0.0, 1 - step / 60),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda owned, **settings: torch.optim.SGD(owned, momentum=0.9, **settings),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def train(**settings: Any) -> Trained:
    """Train and record a net.

    Parameters
    ----------
    **settings
        Of its `Plan`.
    """
    plan = Plan(**settings)
    torch.set_num_threads(1)
    task = task_of(plan)
    x, y = INPUTS[plan.inputs](task.x), TARGETS[plan.targets](task.y)
    model = build(plan)
    optimizer = optimizer_of(model, plan)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, SCHEDULES[plan.schedule])
    step = step_of(model, optimizer, loss_of(plan.loss, task), plan)
    batches = batches_of(len(x), plan)
    for _ in range(plan.before):
        rows = next(batches)
        step(x[rows], y[rows])
    reference = (x[:REFERENCE], y[:REFERENCE] if task.goal != "numbers" else None)
    with gradiometer.record(
        model, optimizer, reference=reference if plan.reference else None, quantities=RECORDED
    ) as recorder:
        for _ in range(plan.steps):
            rows = next(batches)
            step(x[rows], y[rows])
            schedule.step()
    goal = y if plan.targets in ("small", "large") else task.y
    output = evaluated(model, x[task.fixed])
    return Trained(recorder.trace, outcome(task, output, goal[task.fixed], bool(plan.ending)))


def step_of(
    model: Skeleton,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    plan: Plan,
) -> Callable[[Tensor, Tensor], None]:
    """Give what makes a step of rows, with the plan's mistakes."""

    def step(x: Tensor, y: Tensor) -> None:
        if plan.clear == "before":
            optimizer.zero_grad()
        (plan.scale * loss(model(x), y)).backward()
        if plan.clear == "between":
            optimizer.zero_grad()
        if plan.clip:
            nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()

    return step


def optimizer_of(model: Skeleton, plan: Plan) -> torch.optim.Optimizer:
    """Give the optimizer of the parameters that the plan lets it own."""
    owned = [value for name, value in model.named_parameters() if _owned(name, plan)]
    return OPTIMIZERS[plan.optimizer](owned, lr=plan.rate, weight_decay=plan.decay)


def _owned(name: str, plan: Plan) -> bool:
    if plan.owned == "last":
        return name.startswith("out.")
    if plan.owned == "all but first":
        return not name.startswith("stem.")
    if plan.owned == "all but last":
        return not name.startswith("out.")
    if plan.owned == "first":
        return name.startswith("stem.")
    return True


def batches_of(rows: int, plan: Plan) -> Iterator[Tensor]:
    """Give the rows of each batch: every row once, in a new order, then again."""
    order = torch.Generator().manual_seed(plan.seed)
    batch = min(plan.batch, rows)
    while True:
        drawn = torch.randperm(rows, generator=order)
        yield from drawn[: rows - rows % batch].split(batch)


@torch.no_grad()
def evaluated(model: Skeleton, x: Tensor) -> Tensor:
    """Give the output of a trained net, in evaluation mode."""
    model.eval()
    out: Tensor = model(x)
    return out
