"""Calls of layers, and what was measured of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gradiometer.recording.adapters.torch.arrays import Array, Version
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.assembly import Measured
from gradiometer.recording.functions import Function


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
    delta, activation, input, pre_activation : Measured, optional
        What was measured of dL/dh, of φ(h), of what the layer was given, and of h.
    live : boolean array (1, fan_in), optional
        Which units of the input are not zero on every sample.
    function : Function, optional
        φ, as soon as it is known.
    why_not : str
        Why φ(h) can't be had.
    without_gradients : bool
        Whether it was made under `torch.no_grad()`.
    direct : bool
        Whether φ is applied to h itself, and not to h after a normalisation.
    zero : boolean array (units,), optional
        Which units of φ(h) are zero on every sample.
    of_units : array (units,), optional
        The rms of the delta that arrives at each unit of φ(h).
    way : dict of Measured
        What was measured of other deltas of the call, by the array; see `way.Way`.
    why_no_way : str
        Why what is in it can't be had after all.
    given, h : Version, optional
        What the layer was given, and what it gave, as they were; no tensor is kept.
    units : callable, optional
        Gives the number of the unit that each entry of φ(h) belongs to, where φ was applied to
        another shape of h.
    """

    layer: Layer
    number: int
    waits: bool
    deltas: int = 0
    delta: Measured | None = None
    activation: Measured | None = None
    input: Measured | None = None
    pre_activation: Measured | None = None
    live: Array | None = None
    function: Function | None = None
    why_not: str = ""
    without_gradients: bool = False
    direct: bool = False
    zero: Array | None = None
    of_units: Array | None = None
    way: dict[str, Measured] = field(default_factory=dict)
    why_no_way: str = ""
    given: Version | None = None
    h: Version | None = None
    units: Callable[[], torch.Tensor] | None = None
