"""PyTorch, define-by-run: tuned, with modules and PyTorch's optimisers, and as usually written.

Tuned: no modules, `torch.autograd.grad`, one update of all parameters and one norm of all gradients
by the `_foreach` functions, which PyTorch's optimisers use themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bench.training import Steps, Sweep, Training

Array = NDArray[Any]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

PHI = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
MODULES = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
MEMBERS = 3  # of the sweep's seeds: all of them would take minutes

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def loss_of(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, summed over the batch."""
    if y.shape[-1] == 1:
        return functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    return functional.cross_entropy(logits, y, reduction="sum")


class _Tuned:
    def __init__(self, work: Training) -> None:
        self.work = work
        self.phi = PHI[work.activation]
        self.x, self.y = torch.from_numpy(work.x), torch.from_numpy(work.y)
        self.restart()

    def restart(self) -> None:
        """From the initial weights."""
        work = self.work
        self.stream = work.stream()
        self.weights = [torch.tensor(w, requires_grad=True) for w in work.weights]
        self.biases = [torch.tensor(b[0], requires_grad=True) for b in work.biases]
        self.parameters = [*self.weights, *self.biases]

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        phi, a = self.phi, x
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            a = phi(torch.addmm(b, a, w))
        return loss_of(torch.addmm(self.biases[-1], a, self.weights[-1]), y)

    def step(self) -> list[torch.Tensor]:
        """Train one step; the gradients of the weights."""
        rows = torch.from_numpy(self.stream.integers(0, len(self.x), size=(self.work.batch,)))
        loss = self.loss(self.x.index_select(0, rows), self.y.index_select(0, rows))
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            torch._foreach_add_(self.parameters, gradients, alpha=-self.work.alpha)
        return list(gradients[: len(self.weights)])


def lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net, tuned."""
    return _tuned_run(_Tuned(work))


def steps(work: Training) -> Steps:
    """Training that goes on and on, tuned."""
    return _tuned_steps(_Tuned(work))


def loop(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Net by net, tuned; of a few of the seeds only."""

    def run() -> dict[tuple[str, int], Array]:
        return {
            cell: np.stack([lesson(training.alone(member))() for member in range(MEMBERS)])
            for cell, training in work.trainings.items()
        }

    return run


def _tuned_run(model: Any) -> Callable[[], Array]:
    sizes = torch.tensor([w.size for w in model.work.weights])

    def run() -> Array:
        model.restart()
        sums = [torch.stack(torch._foreach_norm(model.step(), 1)) for _ in range(model.work.steps)]
        return (torch.stack(sums) / sizes).numpy()

    return run


def _tuned_steps(model: Any) -> Steps:
    def run(count: int) -> None:
        for _ in range(count):
            model.step()

    return Steps(
        run,
        lambda: [
            p.detach().numpy()
            for w, b in zip(model.weights, model.biases, strict=True)
            for p in (w, b[None])
        ],
    )


# --- with modules and optimisers ------------------------------------------------------------------


def model_of(work: Training) -> torch.nn.Sequential:
    """The net as modules, with the workload's initial weights."""
    parts: list[torch.nn.Module] = []
    for w, b in zip(work.weights, work.biases, strict=True):
        layer = torch.nn.Linear(*w.shape, dtype=torch.from_numpy(work.x).dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w.T.copy()))
            layer.bias.copy_(torch.from_numpy(b[0].copy()))
        parts += [layer, MODULES[work.activation]()]
    return torch.nn.Sequential(*parts[:-1])


def _with_optimiser(
    work: Training, at_once: bool, **options: Any
) -> tuple[Callable[[], Array], Callable[[], Steps]]:
    x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)
    loss_function: Loss
    if y.shape[-1] == 1:
        loss_function = torch.nn.BCEWithLogitsLoss(reduction="sum")
    else:
        loss_function = torch.nn.CrossEntropyLoss(reduction="sum")
    sizes = torch.tensor([w.size for w in work.weights])

    def begin() -> tuple[torch.nn.Sequential, list[torch.nn.Parameter], Callable[[], None]]:
        model = model_of(work)
        weights = [layer.weight for layer in model if isinstance(layer, torch.nn.Linear)]
        optimiser = torch.optim.SGD(model.parameters(), lr=work.alpha, **options)
        stream = work.stream()

        def step() -> None:
            rows = torch.from_numpy(stream.integers(0, len(x), size=(work.batch,)))
            optimiser.zero_grad()
            loss_function(model(x[rows]), y[rows]).backward()
            optimiser.step()

        return model, weights, step

    def run() -> Array:
        _, weights, step = begin()
        recorded = []
        for _ in range(work.steps):
            step()
            gradients = [w.grad for w in weights]
            if at_once:
                recorded.append(torch.stack(torch._foreach_norm(gradients, 1)))
            else:
                recorded.append([g.abs().mean().item() for g in gradients])
        return (torch.stack(recorded) / sizes).numpy() if at_once else np.array(recorded)

    def on_and_on() -> Steps:
        model, _, step = begin()

        def more(count: int) -> None:
            for _ in range(count):
                step()

        return Steps(
            more,
            lambda: [
                p.detach().numpy().T if p.ndim == 2 else p.detach().numpy()[None]
                for p in model.parameters()
            ],
        )

    return run, on_and_on


def foreach_lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net with `SGD(foreach=True)`, all gradients measured at once."""
    return _with_optimiser(work, True, foreach=True)[0]


def foreach_steps(work: Training) -> Steps:
    """Training that goes on and on, `SGD(foreach=True)`."""
    return _with_optimiser(work, True, foreach=True)[1]()


def fused_lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net with `SGD(fused=True)`, all gradients measured at once."""
    return _with_optimiser(work, True, fused=True)[0]


def fused_steps(work: Training) -> Steps:
    """Training that goes on and on, `SGD(fused=True)`."""
    return _with_optimiser(work, True, fused=True)[1]()


def usual_lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net as most people write it: `.item()` of every layer."""
    return _with_optimiser(work, False)[0]


def usual_steps(work: Training) -> Steps:
    """Training that goes on and on, as most people write it."""
    return _with_optimiser(work, False)[1]()


# --- graphs ---------------------------------------------------------------------------------------


def chain(size: int, dtype: str) -> Callable[[], Array]:
    """A chain of operations on 4 × 4, forward and backward."""
    first = np.full((4, 4), 0.5, dtype)

    def run() -> Array:
        y = x = torch.tensor(first, requires_grad=True)
        for _ in range(size // 2):
            y = y * 0.999 + 0.001
        y.sum().backward()
        return x.grad.numpy()

    return run
