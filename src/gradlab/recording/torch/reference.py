"""A look at the reference batch, which the training does not notice."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from gradlab.recording import quantities as q
from gradlab.recording.quantities import Array
from gradlab.recording.torch.arrays import as_array
from gradlab.recording.torch.functions import Function


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training mode, buffers and random stream as before."""
    training = [module for module in model.modules() if module.training]
    state = torch.get_rng_state()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_rng_state(state)
        for module in training:
            module.training = True


def accuracy(output: Any, labels: Any, last: Function | None) -> Array:
    """Share of samples whose class is right; NaN where the output or labels name no classes."""
    if not isinstance(output, torch.Tensor) or output.ndim > 2:
        return math.nan
    given = torch.as_tensor(labels)
    y = np.asarray(as_array(given.cpu()))
    p = np.asarray(as_array(output.cpu()))
    p = p[:, None] if p.ndim == 1 else p
    if p.shape[-1] == 1:
        if not np.isin(y, (0, 1)).all():
            return math.nan
        if last is None or last.name != "sigmoid":
            p = p + 0.5  # logits: class 1 above 0
        return q.accuracy(p, y.reshape(-1))
    if y.ndim == 1 and not given.is_floating_point():
        return np.mean((p.argmax(axis=-1) == y) & np.isfinite(p).all(axis=-1))
    return q.accuracy(p, y) if y.shape == p.shape else math.nan
