"""One step, put together: layers, and the numbers of each, from what taps and `tap_step` sent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dp.typing import Array
from gradiometer.quantities import HISTOGRAM, OF_STEPS
from gradiometer.recording.adapters.jax.taps import OF_TAPS, ZERO_UNITS
from gradiometer.recording.adapters.jax.transport import StepMessage, TapMessage
from gradiometer.recording.assembly import Assembly, Measured, join
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.functions import UNKNOWN
from gradiometer.recording.measure import FROM_GRADIENT, OF_BACKWARD, OF_INPUT, OF_WEIGHTS
from gradiometer.recording.nonfinite import KINDS
from gradiometer.recording.requires import needing
from gradiometer.recording.session import LayerInfo, Session
from gradiometer.states import MODEL

# what is measured by `tap_step`
OF_STEP = tuple(name for name in (*FROM_GRADIENT, *OF_WEIGHTS) if name not in OF_TAPS)


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
        else:
            reasons |= _not_given({what for (_, what), _ in tap.columns})
        if tap is None:
            pass
        elif tap.function is None:
            reasons["saturated_fraction"] = "the tap was given no activation"
        elif (name, "saturated_fraction") not in dict(tap.columns):
            why = "it is not known where this activation function saturates"
            reasons["saturated_fraction"] = why
        if name not in weights:
            why = f"no weight has this name; weights: {listed(weights)}"
            reasons |= dict.fromkeys(OF_STEP, why)
    return infos, missing


NO_ARRIVING = "a tap is at the pre-activation, so what arrives at φ(h) is not seen"
NOT_DIFFERENTIATED = "no derivative went through a tap of it in a step"
UNTOLD = {  # of what was not sent, by what tap_step was not given
    "clip_factor": "tap_step was given no clipped gradient of it (clipped=)",
    "update_ratio": "tap_step was given no updated weight of it",
    "loss": "tap_step was given no loss",
    "accuracy": "tap_step was given no accuracy",
    "grad_norm": "tap_step was given no gradients",
}


def missing_in(
    step: Mapping[str, Sequence[Call]], sent: Collection[tuple[str, str]], names: Sequence[str]
) -> Iterator[tuple[str, Collection[str], str]]:
    """What one step lacks: (layer, quantities, why)."""
    for name in names:
        if name not in step:
            yield name, OF_TAPS, NOT_DIFFERENTIATED
        for what in OF_STEP:
            if (name, what) not in sent:
                yield name, (what,), UNTOLD.get(what, "tap_step was given no gradient of it")
    for what in OF_STEPS:
        if ("", what) not in sent:
            yield MODEL, (what,), UNTOLD[what]


def _not_given(sent: Collection[str]) -> dict[str, str]:
    """Why a tap did not send what it was not given the arrays for."""
    no_inputs = "the tap was given no inputs (inputs=)"
    why = dict.fromkeys(OF_INPUT, no_inputs)
    of_weight = (*OF_BACKWARD, *needing("affine_delta"))
    why |= dict.fromkeys(of_weight, "the tap was given no weight (weight=)")
    why |= dict.fromkeys(needing("arriving"), NO_ARRIVING)
    if "backward_rms" in sent:
        why["backward_live_rms"] = no_inputs
    return {name: reason for name, reason in why.items() if name not in sent}


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
    session: Session,
    taps: Mapping[str, Sequence[Call]],
    sent: Mapping[tuple[str, str], Array],
    members: tuple[int, ...],
) -> Assembly:
    """One step, from what was sent of it.

    Parameters
    ----------
    session : Session
        Its layers have been announced.
    taps : mapping of layer to calls
    sent : mapping of (layer, what) to array (…, how many)
        What `tap_step` sent; its leading axes are those of the members.
    members : tuple of int
        The lengths of these axes; they become one.
    """
    flat = flat_axes(members)
    step = Assembly(session, flat)
    places = {info.name: i for i, info in enumerate(session.layers)}
    for (layer, what), numbers in sent.items():
        if layer:
            one = numbers.reshape((*flat, -1) if what == HISTOGRAM else flat)
            step.put(places[layer], _measured({what: one}))
    for layer, calls in taps.items():
        _check_alike(calls)
        step.put(places[layer], join([part for call in calls for part in _parts(call, members)]))
    return step


def _measured(found: Mapping[str, Array], size: int = 0) -> Measured:
    """Numbers, told apart by their names."""
    units = found.get(ZERO_UNITS)
    return Measured(
        {what: x for what, x in found.items() if what not in (*KINDS, ZERO_UNITS)},
        {what: x for what, x in found.items() if what in KINDS},
        None if units is None else units.astype(bool),
        size,
    )


def _check_alike(calls: Sequence[Call]) -> None:
    """Raise RecordingError if the taps of one name are of different layers."""
    first = calls[0].message
    for call in calls:
        message = call.message
        if (message.units, message.function) != (first.units, first.function):
            raise RecordingError(
                f"tap {first.name!r} was called with {first.units} units ({first.function}) and "
                f"with {message.units} ({message.function}) in one step; give them two names"
            )


def _parts(call: Call, members: tuple[int, ...]) -> list[Measured]:
    """What a call sent, of each member; axes that only the tap is mapped over are parts."""
    message, values = call.message, call.values
    if values.ndim == 1:  # the same for every member
        values = np.broadcast_to(values, (*members, values.size))
    if values.shape[: len(members)] != members:
        raise RecordingError(
            f"tap {message.name!r} was mapped over axes of {values.shape[:-1]}, tap_step over "
            f"{members}; expected the tap to be mapped over all of these first"
        )
    parts = int(np.prod(values.shape[len(members) : -1]))
    values = values.reshape(*flat_axes(members), parts, values.shape[-1])
    columns = {what: numbers for (_, what), numbers in message.unpacked(values).items()}
    return [
        _measured(
            {
                what: numbers[..., i, :] if what == ZERO_UNITS else numbers[..., i, 0]
                for what, numbers in columns.items()
            },
            message.entries,
        )
        for i in range(parts)
    ]


def flat_axes(members: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the members as one; none if there are none."""
    return (int(np.prod(members)),) if members else ()
