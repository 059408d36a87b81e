"""A net of PyTorch of the corpus as `try_remedies` takes it: how it is made, and trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.corpus.cases import Case
from bench.corpus.torch_nets.losses import loss_of
from bench.corpus.torch_nets.nets import build, task_of
from bench.corpus.torch_nets.plan import Plan
from bench.corpus.torch_nets.skeleton import Skeleton
from bench.corpus.torch_nets.spoiling import INPUTS, TARGETS
from bench.corpus.torch_nets.tasks import outcome
from bench.corpus.torch_nets.training import SCHEDULES, batches_of, evaluated, optimizer_of, step_of

Loss = Callable[[Tensor, Tensor], Tensor]


class Training:
    """Makes and trains the net of a case, with any seed.

    Parameters
    ----------
    case : Case
    """

    def __init__(self, case: Case) -> None:
        self._plan = Plan(**case.make.keywords)

    def make_model(self, seed: int) -> tuple[Skeleton, torch.optim.Optimizer]:
        """Give the net with its initial weights, and its optimizer."""
        self._plan = self._plan.but(seed=seed)
        torch.set_num_threads(1)
        model = build(self._plan)
        return model, optimizer_of(model, self._plan)

    def train(
        self, model: Skeleton, optimizer: torch.optim.Optimizer, loss: Loss | None = None
    ) -> dict[str, Any]:
        """Train it, and give its accuracy or R² on fixed rows."""
        plan = self._plan
        task = task_of(plan)
        x, y = INPUTS[plan.inputs](task.x), TARGETS[plan.targets](task.y)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, SCHEDULES[plan.schedule])
        step = step_of(model, optimizer, loss or loss_of(plan.loss, task), plan)
        batches = batches_of(len(x), plan)
        for _ in range(plan.before):
            rows = next(batches)
            step(x[rows], y[rows])
        for _ in range(plan.steps):
            rows = next(batches)
            step(x[rows], y[rows])
            schedule.step()
        goal = y if plan.targets in ("small", "large") else task.y
        ending = getattr(model, "ending", None)
        probability = not isinstance(ending, torch.nn.Identity | type(None))
        output = evaluated(model, x[task.fixed])
        reached = outcome(task, output, goal[task.fixed], probability)
        return {"r2" if task.goal == "numbers" else "accuracy": reached}
