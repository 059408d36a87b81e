"""What is known of one step: measured piece by piece, joined at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_

import torch

from gradlab.recording import quantities as q
from gradlab.recording.quantities import Array
from gradlab.recording.torch.arrays import as_array, brought_back
from gradlab.recording.torch.layers import Layer
from gradlab.recording.torch.watch import Call


@dataclass
class Measured:
    """What was measured of one array, or of the arrays of one call."""

    found: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, Array] = field(default_factory=dict)
    zero_units: Array | None = None
    size: int = 0


@dataclass
class Gradient(Measured):
    """What was measured of a weight's gradient after the backward pass, and when that was."""

    identity: int = 0
    version: int = 0

    def is_of(self, gradient: torch.Tensor) -> bool:
        """Whether the gradient is still what was measured."""
        return (id(gradient), gradient._version) == (self.identity, self.version)


@dataclass
class Step:
    """What is known so far of the step that is being recorded."""

    number: int
    calls: list[Call] = field(default_factory=list)
    gradients: dict[Layer, Gradient] = field(default_factory=dict)
    losses: list[torch.Tensor | None] = field(default_factory=list)
    before: dict[Layer, tuple[Array, Array]] | None = None  # the weight, and its rms
    far: dict[Layer, Measured] = field(default_factory=dict)
    accuracy: Array = math.nan
    scale: float = 1.0

    def total_loss(self) -> Measured:
        """What was passed to `backward`, unscaled; nothing if that was not one number each time."""
        if not self.losses or any(loss is None for loss in self.losses):
            return Measured()
        given = [as_array(loss).reshape(()) for loss in self.losses if loss is not None]
        return Measured({str(i): loss / self.scale for i, loss in enumerate(given)})

    def trained_calls(self) -> list[Call]:
        """The calls that belong to the step's training passes.

        A delta has come back through them; or none could, and one came back through others of
        their pass.
        """
        trained = {call.scope for call in self.calls if call.deltas}
        return [
            call for call in self.calls if call.deltas or (not call.waits and call.scope in trained)
        ]


def all_axes(array: Array) -> tuple[int, ...]:
    """The axes of a weight or an activation that is one matrix, however many it has."""
    return tuple(range(-array.ndim, 0))


def zero_units(layer: Layer, x: torch.Tensor) -> Measured:
    """Which of a layer's units are zero on every sample."""
    array = as_array(x)
    assert layer.unit is not None
    unit = layer.unit(layer.output, x)
    measured = Measured(zero_units=q.zero_units(array, 0, unit))
    measured.counts["far"] = q.nonfinite_count(array, all_axes(array))
    return measured


def join(parts: Sequence[Measured]) -> Measured:
    """Several batches of a layer as one."""
    if len(parts) == 1:
        return replace(parts[0], found=dict(parts[0].found))
    counts = {kind: sum(part.counts[kind] for part in parts) for kind in parts[0].counts}
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
    values = [table[name] for table, name in places] + [part.zero_units for part in units]
    if not any(isinstance(value, torch.Tensor) for value in values):
        return
    back = brought_back(values)
    for (table, name), value in zip(places, back, strict=False):
        table[name] = value
    for part, value in zip(units, back[len(places) :], strict=True):
        part.zero_units = value.astype(bool)
