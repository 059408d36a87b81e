"""The norm of the gradient of all parameters of a model together, before anyone clips it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from gradiometer.arrays import entries
from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.adapters.torch.backward import Pass
from gradiometer.recording.assembly import Measured
from gradiometer.reductions import rms

BY_HAND = (
    "a parameter has a gradient that Tensor.backward did not compute in this step, or that of an "
    "earlier step"
)
HOOKED = "a hook of a parameter may change its gradient before it is accumulated"
PARTLY = "gradients of some parameters were cleared, or used by another optimizer"
IN_TURNS = "a backward pass came after an update that is part of the step"
AVERAGED = "gradients are averaged over processes as a backward pass ends"
SCALED = "parts of a gradient were scaled by different factors of a GradScaler"
NO_GRADIENT = "no backward pass by Tensor.backward gave a parameter a gradient"


@dataclass(slots=True)
class GradNorm:
    """What is known of it so far in a step.

    Attributes
    ----------
    each : Measured
        The rms of each parameter's gradient, by the identity of the parameter.
    why_not : str
        Why the norm cannot be had.
    """

    each: Measured = field(default_factory=Measured)
    why_not: str = ""
    _sizes: dict[str, int] = field(default_factory=dict)
    _scales: dict[str, float] = field(default_factory=dict)

    def accumulated(
        self, parameter: torch.Tensor, gradient: torch.Tensor, passing: Pass, hooked: bool
    ) -> None:
        """The gradient of a parameter has been accumulated; others may have `hooked` it."""
        key, scale = str(id(parameter)), passing.take_scale()
        if hooked:
            self.why_not = HOOKED
        if self._scales.setdefault(key, scale) != scale:
            self.why_not = SCALED
        if gradient.numel():
            self.each.found[key] = rms(entries(as_array(gradient), None)) / scale
            self._sizes[key] = gradient.numel()

    def check(self, parameters: Iterable[torch.Tensor]) -> None:
        """An update begins: it uses the gradients that were seen, and no others."""
        for parameter in parameters:
            gradient = parameter.grad
            unseen = gradient is not None and str(id(parameter)) not in self.each.found
            if unseen and gradient is not None and bool(gradient.any()):
                self.why_not = self.why_not or BY_HAND

    def value(self) -> float | None:
        """The norm; None if it cannot be had, and then `why_not` tells why."""
        if not self.each.found:
            self.why_not = self.why_not or NO_GRADIENT
        if self.why_not:
            return None
        parts = [float(rms) * math.sqrt(self._sizes[key]) for key, rms in self.each.found.items()]
        return math.hypot(*parts)
