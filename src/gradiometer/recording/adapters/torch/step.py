"""What is known of one step: measured piece by piece, put together at its end."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gradiometer.arrays import Numbers
from gradiometer.recording import measure
from gradiometer.recording.adapters.torch.arrays import (
    Array,
    Version,
    as_array,
    brought_back,
)
from gradiometer.recording.adapters.torch.backward import Pass
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.grad_norm import PARTLY, GradNorm
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.assembly import Measured
from gradiometer.recording.origin import Spot


@dataclass(slots=True)
class Gradient(Measured):
    """What was measured of dL/dW.

    Attributes
    ----------
    of : Version, optional
        The tensor that was measured.
    scale : float, or None
        By how much a GradScaler had scaled it; None if its parts were scaled by several numbers.
    why_not, no_factor : str
        Why nothing is told of it after all; why no `clip_factor` is.
    """

    of: Version | None = None
    scale: float | None = 1.0
    why_not: str = ""
    no_factor: str = ""

    @classmethod
    def measured(cls, gradient: torch.Tensor, wanted: frozenset[str]) -> Gradient:
        """Its quantities as it is now."""
        counts: dict[str, Numbers] = {}
        found = measure.of_gradient(as_array(gradient), wanted, counts, None)
        return cls(found, counts, of=Version(gradient))

    def is_still(self, gradient: torch.Tensor | None) -> bool:
        """Whether this is what was measured, and nobody has changed it since."""
        return self.of is not None and self.of.is_of(gradient)


@dataclass(slots=True)
class Used:
    """A gradient as an optimizer was given it.

    Attributes
    ----------
    rms : number or tensor, optional
        None if there was no gradient any more.
    same : bool
        Whether it is the very tensor that was measured, and of the same version.
    foreign : bool
        Whether that optimizer's steps are not recorded.
    """

    rms: Numbers | None
    same: bool
    foreign: bool


@dataclass(slots=True)
class Step:
    """What is known so far of the step that is being recorded."""

    number: int
    old: dict[Layer, Version]  # gradients that were there when it began
    # those through which a delta has come, and those through which none can
    calls: list[Call] = field(default_factory=list)
    called: set[Layer] = field(default_factory=set)  # trained or not
    unwatched: bool = False  # a pass that was taken for an evaluation was trained
    gradients: dict[Layer, Gradient] = field(default_factory=dict)
    updates: dict[Layer, Measured] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)  # backward, through the model
    stale: set[Layer] = field(default_factory=set)  # to whose old gradients these passes add
    awaited: list[Layer] = field(default_factory=list)  # gradients that are yet to be averaged
    loss: Measured = field(default_factory=Measured)
    before: dict[Layer, tuple[Array, Numbers]] | None = None  # the weight, and its rms
    reference: dict[Layer, Measured] = field(default_factory=dict)  # on the reference batch
    accuracy: float = math.nan
    norm: GradNorm = field(default_factory=GradNorm)  # of the gradient of all parameters
    # that have made updates, with the learning rates they had
    optimizers: dict[Any, frozenset[float]] = field(default_factory=dict)
    used: dict[Layer, Used] = field(default_factory=dict)
    # dL/dW as backward computed it, of weights that have hooks by which others may change it
    raw: dict[Layer, torch.Tensor] = field(default_factory=dict)
    counted: int = 0  # of the passes, how many have led to an update
    sealed: bool = False  # what an optimizer evaluates from now on is no part of it
    scaled: bool = False  # a gradient of a scaled loss was asked for by torch.autograd.grad
    # arrays in which values came up that are not finite, by layer and kind
    spots: dict[tuple[Layer, str], Spot] = field(default_factory=dict)
    _owned: set[int] | None = None  # by these, when the step is over

    @property
    def is_running(self) -> bool:
        """Whether one of its backward passes is running."""
        return any(passing.running for passing in self.passes)

    def owns(self, weight: torch.Tensor) -> bool:
        """Whether an optimizer updates it; so it is taken to be if there is none."""
        if self._owned is None:
            self._owned = set().union(*map(parameters_of, self.optimizers))
        return not self.optimizers or id(weight) in self._owned

    def losses(self) -> Measured:
        """What was passed to `backward`, unscaled; nothing if that was not one number each time."""
        found: dict[str, Numbers] = {}
        for i, passing in enumerate(self.passes):
            if passing.loss is None or passing.unclear:
                return Measured()
            found[str(i)] = passing.loss / passing.take_scale()
        return Measured(found)

    def look(
        self,
        layer: Layer,
        kind: str,
        tensor: torch.Tensor,
        counts: Mapping[str, Numbers],
        **known: Any,
    ) -> None:
        """Look once at an array of the machine's memory that has values that are not finite.

        `known` are other fields of the spot; `scaled` is whether the loss was.
        """
        count = counts.get(kind)
        if isinstance(count, torch.Tensor) or not count or (layer, kind) in self.spots:
            return
        array = as_array(tensor)
        if isinstance(array, np.ndarray):
            self.spots[layer, kind] = Spot.of(array, **known)

    # --- what does not count after all ------------------------------------------------------------

    def drop_unused(self) -> None:
        """Forget what came since the latest update: it was thrown away."""
        used = self.used
        came = {*self.gradients, *self.raw, *(call.layer for call in self.calls)}
        self.drop(came - used.keys())
        del self.passes[self.counted :]
        self.awaited = []
        self.norm = GradNorm(why_not=PARTLY if used else "")
        self.spots = {}
        self.unwatched = self.unwatched and bool(used)

    def unused(self) -> set[Layer]:
        """Layers of which backward passes brought something that no optimizer has used yet."""
        came = {call.layer for call in self.calls if call.deltas} | self.gradients.keys()
        return came - self.used.keys()

    def drop(self, layers: Collection[Layer]) -> None:
        """Forget what backward passes brought of some layers: it was thrown away."""
        kept = []
        for call in self.calls:
            if call.deltas and call.layer in layers:
                call.deltas, call.delta = 0, None  # another pass may come through it
                call.way, call.of_units = {}, None
            else:
                kept.append(call)
        self.calls = kept
        if layers:
            self.norm.why_not = PARTLY
        for layer in layers:
            self.gradients.pop(layer, None)
            self.raw.pop(layer, None)
        self.spots = {key: spot for key, spot in self.spots.items() if key[0] not in layers}

    def restart(self) -> None:
        """Forget all that came: it led to updates that are not recorded, or were not made."""
        self.used, self.counted, self.sealed = {}, 0, False
        self.optimizers, self.before, self._owned = {}, None, None
        self.reference, self.accuracy = {}, math.nan
        self.drop_unused()

    def renew(self, layer: Layer) -> None:
        """Forget what is known of a layer, of which an optimizer that is not recorded made use."""
        del self.used[layer]
        self.norm.why_not = PARTLY
        self.gradients.pop(layer, None)
        self.raw.pop(layer, None)
        self.calls = [call for call in self.calls if call.layer is not layer]

    def takes(self, layer: Layer) -> bool:
        """Whether what a backward pass brings of a layer is part of the step."""
        used = self.used.get(layer)
        if self.sealed or (used is not None and not used.foreign):
            return False
        if used is not None:
            self.renew(layer)
        return True

    def trained_calls(self) -> dict[Layer, list[Call]]:
        """The calls of each layer that belong to the step's training passes.

        A delta has come back through them; or none could, and one came back through others of
        their pass. Of a pass that was not watched nothing is known, so that there are none.
        """
        if self.unwatched:
            return {}
        trained = {call.number for call in self.calls if call.deltas}
        found: dict[Layer, list[Call]] = {}
        for call in self.calls:
            if call.deltas or (not call.waits and call.number in trained):
                found.setdefault(call.layer, []).append(call)
        for layer, calls in found.items():
            if len(calls) > 1:  # looks beside those that are trained
                seen = [call for call in calls if not call.without_gradients]
                found[layer] = seen or calls
        return found

    def bring_back(self) -> None:
        """Replace numbers that lie on a device, all in one transfer."""
        parts: list[Measured] = [*self.gradients.values(), *self.updates.values()]
        parts += [*self.reference.values(), self.loss, self.norm.each]
        for call in self.calls:
            of_call = (
                call.delta,
                call.activation,
                call.input,
                call.pre_activation,
                *call.way.values(),
            )
            parts += [part for part in of_call if part is not None]
        bring_back(parts)


def parameters_of(optimizer: torch.optim.Optimizer) -> set[int]:
    """Identities of the parameters that an optimizer updates."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def bring_back(parts: Sequence[Measured]) -> None:
    """Replace numbers that lie on a device, all in one transfer."""
    places = [(part.found, name) for part in parts for name in part.found]
    places += [(part.counts, kind) for part in parts for kind in part.counts]
    units = [part for part in parts if part.zero_units is not None]
    back = brought_back([t[name] for t, name in places] + [part.zero_units for part in units])
    for (table, name), value in zip(places, back, strict=False):
        table[name] = value
    for part, value in zip(units, back[len(places) :], strict=True):
        part.zero_units = value.astype(bool)
