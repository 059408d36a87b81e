"""What began it, where the first value came up that is not finite.

Only looked at once, in the step in which it happens. What is not certain is left out: a wrong
origin sends the reader to the wrong place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp.activations import ACTIVATIONS
from dp.typing import Array
from gradiometer.recording.functions import UNKNOWN
from gradiometer.recording.nonfinite import ACTIVATION, AFTER_UPDATE, DELTA, GRADIENT

# what may have begun it
INPUTS, TARGETS, WEIGHTS, FORWARD = "inputs", "targets", "weights", "activation"
LOSS, LOSS_DERIVATIVE, BACKWARD, UPDATE = "loss", "loss derivative", "backward pass", "update"
PRODUCT = "product with the weights"


@dataclass(frozen=True)
class Spot:
    """What is still to be seen of the place; None for what is not known.

    Attributes
    ----------
    shape : tuple of int, optional
        Of the array, for one net.
    nan, inf : int
        How many of its entries are NaN or infinite.
    inputs, targets : bool, optional
        Whether all entries of what the layer was given, and of the targets, are finite.
    weights : bool, optional
        Whether all parameters of the layer were finite before the forward pass.
    pre_activation : bool, optional
        Whether all of the pre-activation is finite.
    scaled : bool
        Whether the loss was scaled for the backward pass, which may be what was too much.
    """

    shape: tuple[int, ...] | None = None
    nan: int = 0
    inf: int = 0
    inputs: bool | None = None
    targets: bool | None = None
    weights: bool | None = None
    pre_activation: bool | None = None
    scaled: bool = False

    @classmethod
    def of(cls, array: Array, shape: Sequence[int] | None = None, **known: Any) -> Spot:
        """Of the array in which such entries came up."""
        nan = int(np.count_nonzero(np.isnan(array)))
        inf = int(np.count_nonzero(np.isinf(array)))
        return cls(tuple(array.shape if shape is None else shape), nan, inf, **known)


# the spot at a step (by its place among those that are added together), a layer by its position
# (None where only the loss is not finite), a kind of array, and in these nets of an ensemble
Look = Callable[[int, int | None, str, Array], Spot]


@dataclass(frozen=True)
class Place:
    """Where the first value came up that is not finite, and what the record says of its step.

    Attributes
    ----------
    kind : str
        One of `KINDS`, or "loss".
    nets : int
        How many nets there are.
    function : str
        The activation function of the layer.
    first, last : bool
        Whether no other layer comes before it, or after it.
    loss : bool, optional
        Whether the loss is finite.
    outputs, activations, deltas : bool
        Whether it is known of the last layers' activations, of those of all layers, and of the
        layer's delta, how many of their entries are not finite.
    weights : bool, optional
        Whether the weights of all layers were finite before the forward pass.
    """

    kind: str
    nets: int = 1
    function: str = UNKNOWN
    first: bool = False
    last: bool = False
    loss: bool | None = None
    outputs: bool = False
    activations: bool = False
    deltas: bool = False
    weights: bool | None = None


def origin(place: Place, spot: Spot) -> dict[str, Any]:
    """What is known of how it began, as attributes of a trace.

    Returns
    -------
    dict
        Of these, what is known: `nonfinite_shape` (JSON), `nonfinite_share` of the array's entries,
        `nonfinite_nan` and `nonfinite_inf` (their numbers), `nonfinite_operation` and
        `nonfinite_began_in`.
    """
    found: dict[str, Any] = {}
    if spot.shape is not None:
        found["nonfinite_shape"] = json.dumps(spot.shape)
        found["nonfinite_share"] = share_of(spot.nan + spot.inf, spot.shape, place.nets)
        found["nonfinite_nan"], found["nonfinite_inf"] = spot.nan, spot.inf
    began, operation = _began(place, spot)
    if operation:
        found["nonfinite_operation"] = operation
    if began:
        found["nonfinite_began_in"] = began
    return found


def share_of(values: int, shape: Sequence[int], nets: int) -> float:
    """Share of the entries of an array that every net has one of."""
    return values / max(1, math.prod(shape) * nets)


def _began(place: Place, spot: Spot) -> tuple[str, str]:
    """What began it, and the operation; "" for what is not known."""
    if place.kind == ACTIVATION:
        return _forward(place, spot)
    if place.loss is False:
        if not place.outputs:
            return "", ""
        return (TARGETS, "") if spot.targets is False else (LOSS, "loss")
    if place.loss is None or spot.scaled:
        return "", ""
    if place.kind == DELTA and place.last and _has_bounded_slope(place.function):
        return LOSS_DERIVATIVE, "derivative of the loss"
    if place.kind == DELTA and not place.last and place.activations and place.weights is not None:
        return (BACKWARD, "backward pass") if place.weights else (WEIGHTS, "")
    if place.kind == GRADIENT and place.deltas and place.activations:
        return BACKWARD, "backward pass"
    if place.kind == AFTER_UPDATE and spot.weights:
        return UPDATE, "update"
    return "", ""


def _forward(place: Place, spot: Spot) -> tuple[str, str]:
    if spot.weights is False:
        return (WEIGHTS, "") if spot.inputs or not place.first else ("", "")
    if spot.inputs is False:
        return (INPUTS, "") if place.first and spot.weights else ("", "")
    if not (spot.inputs and spot.weights):
        return "", ""
    if spot.pre_activation is None:
        return FORWARD, ""
    operation = place.function if spot.pre_activation else PRODUCT
    return FORWARD, "" if operation == UNKNOWN else operation


def _has_bounded_slope(function: str) -> bool:
    """Whether a finite delta stays finite on its way through an activation function."""
    if function in ("identity", "softmax"):
        return True
    known = ACTIVATIONS.get(function)
    return known is not None and math.isfinite(known.max_slope)


def finite(array: Any, nets: Array | None = None) -> bool | None:
    """Whether all entries are finite; None if it is not known, or not the same in all these nets.

    Parameters
    ----------
    array : array, optional
        With one axis of nets before the others where `nets` are given.
    nets : array of bool, optional
        The nets that are asked for.
    """
    if array is None:
        return None
    if nets is None or not nets.ndim:
        return bool(np.isfinite(array).all())
    each = np.isfinite(array).reshape(len(array), -1).all(axis=1)[nets]
    return bool(each[0]) if each.size and (each == each[0]).all() else None


def both(one: bool | None, other: bool | None) -> bool | None:
    """Whether both hold; None where it is not known."""
    if one is False or other is False:
        return False
    return None if one is None or other is None else True
