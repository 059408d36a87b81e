"""Calls of layers, and what was measured of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gradiometer.recording.adapters.torch.functions import Function
from gradiometer.recording.adapters.torch.layers import Layer


@dataclass(slots=True, eq=False)
class Call:
    """One call of a layer in a forward pass.

    Attributes
    ----------
    layer : Layer
    number : int
        Of the forward pass it belongs to.
    waits : bool
        Whether a delta may still come: only then is the call part of the training.
    deltas : int
        How often one has come that counts.
    delta, activation
        What was measured of it, and of φ(h).
    function : Function, optional
        φ, as soon as it is known.
    why_not : str
        Why φ(h) can't be had.
    without_gradients : bool
        Whether it was made under `torch.no_grad()`.
    units : callable, optional
        Gives the number of the unit that each entry of φ(h) belongs to, where φ was applied to
        another shape of h.
    """

    layer: Layer
    number: int
    waits: bool
    deltas: int = 0
    delta: Any = None
    activation: Any = None
    function: Function | None = None
    why_not: str = ""
    without_gradients: bool = False
    units: Callable[[], torch.Tensor] | None = None
