"""What is known of one step: measured piece by piece, put together at its end."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any

import torch

from gradlab.recording import measure
from gradlab.recording import quantities as q
from gradlab.recording.quantities import Array
from gradlab.recording.torch.arrays import as_array, brought_back
from gradlab.recording.torch.backward import Pass
from gradlab.recording.torch.calls import Call
from gradlab.recording.torch.layers import Layer

FAR = "reference activation"  # the kind of array in which a reference batch is not finite


class Version:
    """A tensor as it is now, without keeping it: another one, or a change to it, can be told."""

    __slots__ = ("_tensor", "_version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self._version: int = tensor._version

    def is_of(self, tensor: torch.Tensor | None) -> bool:
        """Whether this is that tensor, as it was."""
        same = self._tensor() is tensor
        return tensor is not None and same and bool(tensor._version == self._version)


@dataclass(slots=True)
class Measured:
    """What was measured of one array: of a weight's gradient, or in one call of a layer.

    Attributes
    ----------
    found : dict
        Quantities by name; numbers, or tensors without axes that lie on a device.
    counts : dict
        Entries that are not finite, by the kind of array.
    zero_units : array of bool, optional
        Which units of an activation are zero on every sample.
    size : int
        Number of entries.
    of : Version, optional
        The tensor that was measured.
    """

    found: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, Array] = field(default_factory=dict)
    zero_units: Array | None = None
    size: int = 0
    of: Version | None = None


@dataclass(slots=True)
class Step:
    """What is known so far of the step that is being recorded."""

    number: int
    old: dict[Layer, Version]  # gradients that were there when it began
    calls: list[Call] = field(default_factory=list)
    gradients: dict[Layer, Measured] = field(default_factory=dict)
    updates: dict[Layer, Measured] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)  # backward, through the model
    stale: set[Layer] = field(default_factory=set)  # to whose old gradients these passes add
    awaited: list[Layer] = field(default_factory=list)  # gradients that are yet to be averaged
    loss: Measured = field(default_factory=Measured)
    before: dict[Layer, tuple[Array, Array]] | None = None  # the weight, and its rms
    far: dict[Layer, Measured] = field(default_factory=dict)  # on the reference batch
    accuracy: Array = math.nan
    scale: float = 1.0  # of the loss, by a GradScaler
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    _owned: set[int] | None = None  # by these, when the step is over

    def owns(self, weight: torch.Tensor) -> bool:
        """Whether an optimizer updates it; so it is taken to be if there is none."""
        if self._owned is None:
            groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
            self._owned = {id(parameter) for group in groups for parameter in group["params"]}
        return not self.optimizers or id(weight) in self._owned

    def losses(self) -> Measured:
        """What was passed to `backward`, unscaled; nothing if that was not one number each time."""
        given = [passing.loss for passing in self.passes]
        if any(loss is None for loss in given):
            return Measured()
        return Measured({str(i): loss / self.scale for i, loss in enumerate(given)})

    def trained_calls(self) -> dict[Layer, list[Call]]:
        """The calls of each layer that belong to the step's training passes.

        A delta has come back through them; or none could, and one came back through others of
        their pass.
        """
        trained = {call.scope for call in self.calls if call.deltas}
        found: dict[Layer, list[Call]] = {}
        for call in self.calls:
            if call.deltas or (not call.waits and call.scope in trained):
                found.setdefault(call.layer, []).append(call)
        for layer, calls in found.items():
            if len(calls) > 1:  # looks beside those that are trained
                seen = [call for call in calls if not call.without_gradients]
                found[layer] = seen or calls
        return found


def measure_gradient(gradient: torch.Tensor, wanted: frozenset[str]) -> Measured:
    """Quantities of dL/dW as it is now."""
    counts: dict[str, Array] = {}
    found = measure.of_gradient(as_array(gradient), wanted, counts, None)
    return Measured(found, counts, of=Version(gradient))


def join(parts: Sequence[Measured]) -> Measured:
    """Several batches of a layer as one."""
    if len(parts) == 1:
        return parts[0]
    counts: dict[str, Any] = {kind: sum(p.counts[kind] for p in parts) for kind in parts[0].counts}
    names = set.intersection(*(set(part.found) for part in parts))
    numbers = [{name: float(part.found[name]) for name in names} for part in parts]
    found = q.pooled(numbers, [part.size for part in parts]) if names else {}
    units = [part.zero_units for part in parts]
    zero = None if any(known is None for known in units) else reduce(and_, units)
    return Measured(dict(found), counts, zero, sum(part.size for part in parts))


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
