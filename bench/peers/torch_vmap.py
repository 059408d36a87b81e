"""The sweep with `torch.func`: the gradient of one net, mapped over the seeds by `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import grad, vmap

from bench.peers.torch_eager import PHI, loss_of
from bench.training import Sweep, Training

Array = NDArray[Any]


def sweep(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Every activation function and depth, all seeds at once."""
    return lambda: {cell: _train(training) for cell, training in work.trainings.items()}


def _train(work: Training) -> Array:
    phi = PHI[work.activation]

    def loss(
        parameters: tuple[list[torch.Tensor], list[torch.Tensor]], x: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        weights, biases = parameters
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            x = phi(x @ w + b)
        return loss_of(x @ weights[-1] + biases[-1], y)

    gradient = vmap(grad(loss))
    weights = [torch.tensor(w) for w in work.weights]
    biases = [torch.tensor(b) for b in work.biases]
    x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)
    rows = torch.from_numpy(work.rows())
    recorded = []
    with torch.no_grad():
        for step in range(work.steps):
            now = rows[:, step]
            dw, db = gradient((weights, biases), x[now], y[now])
            recorded.append(torch.stack([g.abs().mean((-1, -2)) for g in dw], -1))
            torch._foreach_add_([*weights, *biases], [*dw, *db], alpha=-work.alpha)
    return np.asarray(torch.stack(recorded, 1))
