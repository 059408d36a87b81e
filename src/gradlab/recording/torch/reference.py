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
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    try:
        # not model.eval(), by which some models merge weights
        for module in training:
            module.training = False
        with torch.random.fork_rng(sorted(devices)), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class Last:
    """What the layer that was called last gave: whether a model's output are probabilities."""

    def __init__(self) -> None:
        self._x: torch.Tensor | None = None
        self._function: Function | None = None

    def note(self, x: torch.Tensor, function: Function) -> None:
        """A layer gave x = function(h)."""
        self._x, self._function = x, function

    def probabilities(self, output: torch.Tensor) -> bool | None:
        """Whether these are: yes, no (logits), or None if it cannot be told."""
        x = self._x
        if (
            x is not None
            and self._function is not None
            and x.data_ptr() == output.data_ptr()  # the same, perhaps in another shape
            and x.numel() == output.numel()
        ):
            return self._function.name == "sigmoid"
        # what became of it after the layer was not seen
        return None if bool(((output >= 0) & (output <= 1)).all()) else False


NOT_TOLD = "whether the model's output are logits or probabilities cannot be told"


def accuracy(output: Any, labels: Any, probabilities: bool | None) -> Array:
    """Share of samples whose class is right; NaN where the output or labels name no classes.

    `probabilities` says what a single column holds; None if that is not known.
    """
    if not isinstance(output, torch.Tensor) or output.ndim not in (1, 2):
        return math.nan
    given = torch.as_tensor(labels)
    y = np.asarray(as_array(given.cpu()))
    p = np.asarray(as_array(output.cpu()))
    p = p[:, None] if p.ndim == 1 else p
    if not p.size or not y.ndim or len(y) != len(p):
        return math.nan
    if p.shape[-1] == 1:
        if probabilities is None or y.size != len(p) or not np.isin(y, (0, 1)).all():
            return math.nan
        if not probabilities:  # logits: class 1 above 0
            p = np.where(np.isfinite(p), p > 0, p)
        return q.accuracy(p, y.reshape(-1))
    if y.ndim == 1 and not given.is_floating_point():
        return np.mean((p.argmax(axis=-1) == y) & np.isfinite(p).all(axis=-1))
    return q.accuracy(p, y) if y.shape == p.shape else math.nan
