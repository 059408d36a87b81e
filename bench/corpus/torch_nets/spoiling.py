"""What people do to data by mistake: inputs and targets as a net then gets them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.corpus.torch_nets.tasks import fixed_rows


def _with(value: float) -> Callable[[Tensor], Tensor]:
    """One value in every fifth row, outside of the fixed rows."""

    def spoilt(values: Tensor) -> Tensor:
        values = values.clone()
        values[fixed_rows(len(values)).stop :: 5].flatten(1)[:, 0] = value
        return values

    return spoilt


def _shuffled(y: Tensor) -> Tensor:
    return y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]


def _partly_wrong(y: Tensor) -> Tensor:
    """Every fifth target is another row's."""
    y = y.clone()
    y[::5] = y[::5].roll(1, 0)
    return y


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "standardised": lambda x: x,
    "raw": lambda x: x,  # as the data set has them
    "times 30": lambda x: 30 * x,
    "times 1000": lambda x: 1000 * x,
    "times 1e20": lambda x: 1e20 * x,
    "far": lambda x: x + 100,
    "far below": lambda x: x - 100,
    "zero": torch.zeros_like,
    "constant": torch.ones_like,
    "one row": lambda x: x[:1].expand_as(x).clone(),
    "with NaN": _with(math.nan),
    "with Inf": _with(math.inf),
}
TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "right": lambda y: y,
    "shuffled": _shuffled,
    "of another row": lambda y: y.roll(1, 0),
    "flat": lambda y: y[:, 0],
    "partly wrong": _partly_wrong,
    "small": lambda y: 1e-3 * y,
    "large": lambda y: 50 * y,
    "with NaN": _with(math.nan),
}
