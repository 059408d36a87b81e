"""Trial: a model before its training, to be changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from gradiometer.remedies.torch.seen import Seen


@dataclass
class Trial:
    """A model before its training, to be changed.

    Attributes
    ----------
    model : Module
    optimizer : Optimizer
    seen : Seen
        What the unchanged model did in its first forward pass.
    factor : float or None
        On the learning rate; see `rate.fitting_factor`.
    accumulates : bool
        Whether the diagnosis says that gradients are accumulated.
    takes_loss : bool
        Whether `train` has a parameter `loss`.
    by_recorded_loss : bool
        Whether the recorded loss is what is compared.
    loss : callable, optional
        What `train` gets as `loss`.
    """

    model: nn.Module
    optimizer: Any
    seen: Seen
    factor: float | None = None
    accumulates: bool = False
    takes_loss: bool = False
    by_recorded_loss: bool = False
    loss: Callable[..., Any] | None = None
