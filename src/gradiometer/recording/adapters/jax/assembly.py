"""One step, put together: layers, and the numbers of each, from what taps and `tap_step` sent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradiometer.quantities import OF_LAYERS, PER_STEP
from gradiometer.recording import quantities as q
from gradiometer.recording.adapters.jax.taps import OF_TAPS, ZERO_UNITS
from gradiometer.recording.adapters.jax.transport import StepMessage, TapMessage
from gradiometer.recording.assembly import pooled
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.measure import FROM_GRADIENT, OF_WEIGHTS, nothing
from gradiometer.recording.nonfinite import KINDS
from gradiometer.recording.quantities import Array
from gradiometer.recording.recorder import UNKNOWN, LayerInfo
from gradiometer.states import MODEL


@dataclass(frozen=True)
class Call:
    """One call of a tap, with the numbers of every mapped axis."""

    message: TapMessage
    values: Array
    step: Array | None


# --- layers ---------------------------------------------------------------------------------------


def described(
    taps: Mapping[str, Sequence[Call]], message: StepMessage
) -> tuple[list[LayerInfo], dict[str, dict[str, str]]]:
    """The layers of a step in the order of the forward pass, and why something of them is missing.

    Returns
    -------
    infos : list of LayerInfo
    missing : dict of layer to dict of quantity to reason
    """
    weights = {name: (shape, transposed) for name, shape, transposed in message.weights}
    infos: list[LayerInfo] = []
    missing: dict[str, dict[str, str]] = {}
    for name in _in_order(list(taps), list(weights)):
        tap = taps[name][0].message if name in taps else None
        fan_in, fan_out = _fans(weights.get(name), tap)
        function = UNKNOWN if tap is None or tap.function is None else tap.function
        role = "outside" if taps and tap is None else "trained"  # its place is not known
        infos.append(LayerInfo(name, fan_in, fan_out, function, role))
        reasons = missing.setdefault(name, {})
        if tap is None:
            reasons |= dict.fromkeys(OF_TAPS, f"no tap has this name; taps: {listed(taps)}")
        elif tap.function is None:
            reasons["saturated_fraction"] = "the tap was given no activation"
        elif (name, "saturated_fraction") not in dict(tap.columns):
            why = "it is not known where this activation function saturates"
            reasons["saturated_fraction"] = why
        if name not in weights:
            why = f"no weight has this name; weights: {listed(weights)}"
            reasons |= dict.fromkeys((*FROM_GRADIENT, *OF_WEIGHTS), why)
    return infos, missing


NOT_DIFFERENTIATED = "no derivative went through a tap of it in a step"
UNTOLD = {  # of what was not sent, by what tap_step was not given
    "clip_factor": "tap_step was given no clipped gradient of it (clipped=)",
    "update_ratio": "tap_step was given no updated weight of it",
    "loss": "tap_step was given no loss",
    "accuracy": "tap_step was given no accuracy",
}


def missing_in(
    step: Mapping[str, Sequence[Call]], sent: Collection[tuple[str, str]], names: Sequence[str]
) -> Iterator[tuple[str, Collection[str], str]]:
    """What one step lacks: (layer, quantities, why)."""
    for name in names:
        if name not in step:
            yield name, OF_TAPS, NOT_DIFFERENTIATED
        for what in (*FROM_GRADIENT, *OF_WEIGHTS):
            if (name, what) not in sent:
                yield name, (what,), UNTOLD.get(what, "tap_step was given no gradient of it")
    for what in PER_STEP:
        if ("", what) not in sent:
            yield MODEL, (what,), UNTOLD[what]


def _in_order(taps: list[str], weights: list[str]) -> list[str]:
    """All layers; taps are in the order of the forward pass, and a weight follows the one before.

    >>> _in_order(["h1", "h2"], ["embedding", "h1", "h2", "out"])
    ['embedding', 'h1', 'h2', 'out']
    """
    names, place = list(taps), 0
    for name in weights:
        if name not in names:
            names.insert(place, name)
        place = names.index(name) + 1
    return names


def _fans(weight: tuple[tuple[int, ...], bool] | None, tap: TapMessage | None) -> tuple[int, int]:
    """(fan_in, fan_out); 0 where it cannot be had."""
    if weight is None:
        return 0, 0 if tap is None else tap.units
    shape, transposed = weight
    if tap is not None and (shape[0] == tap.units) != (shape[-1] == tap.units):
        transposed = shape[0] == tap.units
    fan_out = shape[0] if transposed else shape[-1]
    return int(np.prod(shape)) // max(fan_out, 1), fan_out


def listed(names: Collection[str]) -> str:
    """Names for an error to show."""
    return ", ".join(names) or "none"


# --- numbers --------------------------------------------------------------------------------------


def assembled(
    names: Sequence[str],
    taps: Mapping[str, Sequence[Call]],
    sent: Mapping[tuple[str, str], Array],
    members: tuple[int, ...],
) -> tuple[dict[str, Array], dict[str, Array], Array, Array]:
    """What `Recorder.add_measured` takes, for one step: found, counts, loss and accuracy.

    Parameters
    ----------
    names : sequence of str
        The layers.
    taps : mapping of layer to calls
    sent : mapping of (layer, what) to array (…, how many)
        What `tap_step` sent; its leading axes are those of the members.
    members : tuple of int
        The lengths of these axes; they become one.
    """
    flat = _flat(members)
    shape = (1, len(names), *flat)
    found: dict[str, Array] = {}
    counts: dict[str, Array] = {}

    def put(layer: str, what: str, numbers: Array) -> None:
        group = counts if what in KINDS else found
        if what not in group:
            group[what] = np.zeros(shape) if what in KINDS else nothing(what, shape)
        group[what][0, names.index(layer)] = numbers

    for (layer, what), numbers in sent.items():
        if layer:
            one = what in KINDS or what in OF_LAYERS  # or else a histogram
            put(layer, what, numbers.reshape(flat if one else (*flat, -1)))
    for layer, calls in taps.items():
        for what, numbers in _pooled(calls, members).items():
            put(layer, what, numbers)
    untold = np.full(flat, np.nan)
    loss, accuracy = (
        sent.get(("", what), untold).reshape(1, *flat) for what in ("loss", "accuracy")
    )
    return found, counts, loss, accuracy


def _pooled(calls: Sequence[Call], members: tuple[int, ...]) -> dict[str, Array]:
    """What -> number of each member, of all calls of a layer's tap in one step."""
    first = calls[0].message
    columns: dict[str, list[Array]] = {}
    sizes: list[int] = []
    for call in calls:
        message, values = call.message, call.values
        if (message.units, message.function) != (first.units, first.function):
            raise RecordingError(
                f"tap {first.name!r} was called with {first.units} units ({first.function}) and "
                f"with {message.units} ({message.function}) in one step; give them two names"
            )
        if values.ndim == 1:  # the same for every member
            values = np.broadcast_to(values, (*members, values.size))
        if values.shape[: len(members)] != members:
            raise RecordingError(
                f"tap {first.name!r} was mapped over axes of {values.shape[:-1]}, tap_step over "
                f"{members}; expected the tap to be mapped over all of these first"
            )
        # axes that only the tap is mapped over are samples
        parts = int(np.prod(values.shape[len(members) : -1]))
        values = values.reshape(*_flat(members), parts, values.shape[-1])
        sizes += [message.entries] * parts
        for (_, what), numbers in message.unpacked(values).items():
            columns.setdefault(what, []).append(numbers)
    # (members, parts, how many)
    arrays = {what: np.concatenate(numbers, axis=-2) for what, numbers in columns.items()}
    found = {kind: arrays[kind][..., 0].sum(axis=-1) for kind in KINDS if kind in arrays}
    if ZERO_UNITS in arrays:
        dead = arrays[ZERO_UNITS].all(axis=-2)
        found["dead_fraction"] = q.share(dead, found["activation"])
    means = {what: x[..., 0] for what, x in arrays.items() if what in OF_LAYERS}
    each = [{what: x[..., i] for what, x in means.items()} for i in range(len(sizes))]
    return {**found, **pooled(each, sizes)}


def _flat(members: tuple[int, ...]) -> tuple[int, ...]:
    return (int(np.prod(members)),) if members else ()
