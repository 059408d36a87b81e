"""`torch.compile` of the whole loss; gradients, update and recording as in the tuned loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from bench.peers import torch_eager
from bench.training import Steps, Training

Array = NDArray[Any]


class _Compiled(torch_eager._Tuned):
    def __init__(self, work: Training) -> None:
        phi = torch_eager.PHI[work.activation]

        @torch.compile(dynamic=False)
        def loss(
            weights: list[torch.Tensor],
            biases: list[torch.Tensor],
            x: torch.Tensor,
            y: torch.Tensor,
        ) -> torch.Tensor:
            a = x
            for w, b in zip(weights[:-1], biases[:-1], strict=True):
                a = phi(torch.addmm(b, a, w))
            return torch_eager.loss_of(torch.addmm(biases[-1], a, weights[-1]), y)

        self._loss = loss
        super().__init__(work)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self._loss(self.weights, self.biases, x, y)


def lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net."""
    return torch_eager._tuned_run(_Compiled(work))


def steps(work: Training) -> Steps:
    """Training that goes on and on."""
    return torch_eager._tuned_steps(_Compiled(work))
