"""Looking at the arrays of the step in which the first value came up that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from dp.typing import Array
from gradiometer.recording.measure import LayerArrays
from gradiometer.recording.nonfinite import ACTIVATION, AFTER_UPDATE, DELTA, GRADIENT
from gradiometer.recording.origin import Look, Spot, both, finite


@dataclass(frozen=True)
class Around:
    """Arrays of a layer in one step, with an axis of members first where there are any.

    Attributes
    ----------
    input, pre_activation : array, or bool, optional
        Or whether all their entries are finite.
    parameters : sequence of arrays
        All of the layer, before the forward pass; none if they are not known.
    targets : array, or bool, optional
    """

    input: Array | bool | None = None
    pre_activation: Array | bool | None = None
    parameters: Sequence[Array] = ()
    targets: Array | bool | None = None

    def add_to(self, spot: Spot, nets: Array) -> Spot:
        """A spot with what these say of it."""

        def known(given: Any, before: bool | None) -> bool | None:
            told = given if given is None or isinstance(given, bool) else finite(given, nets)
            return before if told is None else told

        weights = [finite(parameter, nets) for parameter in self.parameters]
        return replace(
            spot,
            inputs=known(self.input, spot.inputs),
            pre_activation=known(self.pre_activation, spot.pre_activation),
            targets=known(self.targets, spot.targets),
            weights=reduce(both, weights) if weights else spot.weights,
        )


# the arrays around a layer, by its position (None: of the loss), at a step by its place
Beside = Callable[[int, int | None], Around]

_OF_KIND = {
    ACTIVATION: "activation", DELTA: "delta", GRADIENT: "gradient", AFTER_UPDATE: "weight_after",
}  # fmt: skip


def looking(
    groups: Sequence[tuple[Sequence[int] | slice, LayerArrays]], beside: Beside | None = None
) -> Look:
    """How to look at the arrays of some steps; see `origin.Look`."""

    def look(at: int, layer: int | None, kind: str, nets: Array) -> Spot:
        around = Around() if beside is None else beside(at, layer)
        if layer is None:
            return around.add_to(Spot(), nets)
        arrays, place = _found(groups, layer)

        def of(name: str) -> Array | None:
            array = getattr(arrays, name)
            return None if array is None else np.asarray(array[at, place])

        bad, weight = of(_OF_KIND[kind]), of("weight")
        # a weight that is finite says nothing of its bias
        known = None if weight is None or finite(weight, nets) else finite(weight, nets)
        spot = Spot(weights=known, inputs=finite(of("input"), nets))
        if bad is not None:
            spot = replace(
                Spot.of(bad, bad.shape[nets.ndim :]), weights=spot.weights, inputs=spot.inputs
            )
        pre_activation = finite(of("pre_activation"), nets)
        return around.add_to(replace(spot, pre_activation=pre_activation), nets)

    return look


def _found(
    groups: Sequence[tuple[Sequence[int] | slice, LayerArrays]], layer: int
) -> tuple[LayerArrays, int]:
    """The arrays of a layer's group, and its place among the group's layers."""
    for positions, arrays in groups:
        if isinstance(positions, slice):
            positions = range(positions.start, positions.stop)
        if layer in positions:
            return arrays, list(positions).index(layer)
    return LayerArrays(), 0
