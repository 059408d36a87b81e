"""The calls of a layer in a step: the arrays of each, and all of them as one batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiometer.arrays import Array
from gradiometer.recording.functions import IDENTITY, Function
from gradiometer.recording.measure import LayerArrays, live_outputs, live_units


def call_arrays(
    wanted: Collection[str],
    function: Function | None,
    *,
    pre_activation: Array,
    activation: Array | None = None,
    input: Array | None = None,  # noqa: A002  (as in `LayerArrays`)
    delta: Array | None = None,
    affine_delta: Array | None = None,
    arriving: Array | None = None,
) -> LayerArrays:
    """The arrays of one call, and what follows from them: where it is saturated, what is live.

    Parameters
    ----------
    wanted : collection of str
        The arrays that are needed; see `Session.arrays`.
    function : Function, optional
        φ; None if it is not known, and then nothing is told of the activation.
    pre_activation, activation, delta, affine_delta, arriving : array (…, batch, units)
        What arrives is the delta where φ is the identity.
    input : array (…, batch, fan_in)
    """
    found = LayerArrays(delta=delta)
    if function is not None:
        found.activation = activation
        if "saturated" in wanted:
            found.saturated = function.saturated(pre_activation)
    if "input" in wanted and input is not None:
        found.input = input
        if delta is not None:
            found.live = np.broadcast_to(np.asarray(live_units(input)), input.shape)
    if "pre_activation" in wanted:
        found.pre_activation = pre_activation
    if "affine_delta" in wanted:
        found.affine_delta = affine_delta
    if "phi_delta" in wanted:
        found.phi_delta = delta
    if "arriving" in wanted and function is not None and delta is not None:
        found.arriving = delta if function == IDENTITY else arriving
        if found.arriving is not None and activation is not None:
            live = np.asarray(live_outputs(activation, delta))
            found.arriving_live = np.broadcast_to(live, delta.shape)
    return found


_OF_CALLS = (
    "delta", "activation", "saturated", "input", "live", "pre_activation", "affine_delta",
    "phi_delta", "arriving", "arriving_live",
)  # fmt: skip


def joined_calls(calls: Sequence[LayerArrays]) -> LayerArrays:
    """Several calls of a layer as one, of one large batch; what none of them has stays None."""
    if len(calls) == 1:
        return calls[0]
    found = LayerArrays()
    for name in _OF_CALLS:
        parts = [getattr(call, name) for call in calls]
        setattr(found, name, joined([part for part in parts if part is not None]))
    return found


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Several batches (…, batch, units) as one; None of none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return np.concatenate(parts, axis=-2)
