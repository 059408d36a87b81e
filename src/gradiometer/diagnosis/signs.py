"""The signs: numbers read off one net of a run, by which the rules tell what is wrong.

They are free of scale: ratios, shares, and decades (log10 of a ratio). A sign that cannot be read,
since its quantities were not recorded or are missing, is NaN. A sign is one function here; its
docstring says what it is, and the decorator its words, the quantities that it needs, and where it
usually lies in nets that learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dp.activations import ACTIVATIONS
from gradiometer.diagnosis.reading import Floats, Reading
from gradiometer.reasons import CLEARED, NOT_CLEARED, NOT_UPDATED
from gradiometer.states import State

LEAST_STEPS = 2  # with which a course of something can be told
_ALL: dict[str, Sign] = {}
SIGNS: Mapping[str, Sign] = _ALL


@dataclass(frozen=True)
class Sign:
    """A number read off a run.

    Attributes
    ----------
    name, label : str
        How rules and how sentences call it.
    of : callable
        From a `Reading` to the number; of each layer an array (layers,). NaN where it is not known.
    per : str
        "net" or "layer".
    needs : tuple of str
        The quantities without any of which it cannot be read.
    low, high : float
        Between which it usually is in nets that learn.
    """

    name: str
    label: str
    of: Callable[[Reading], float | Floats]
    per: Literal["net", "layer"] = "net"
    needs: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf


def _sign(
    label: str,
    *needs: str,
    per: Literal["net", "layer"] = "net",
    low: float = -math.inf,
    high: float = math.inf,
) -> Callable[[Callable[[Reading], float | Floats]], Callable[[Reading], float | Floats]]:
    def keep(of: Callable[[Reading], float | Floats]) -> Callable[[Reading], float | Floats]:
        name = of.__name__
        _ALL[name] = Sign(name, label, of, per, needs, low, high)
        return of

    return keep


def read_signs(reading: Reading) -> dict[str, float | Floats]:
    """All signs of one net; NaN for those that cannot be read."""
    with np.errstate(all="ignore"):
        return {name: sign.of(reading) for name, sign in SIGNS.items()}


# --- how it learns --------------------------------------------------------------------------------


@_sign("share of the first loss that is gone at the end", "loss", low=0.3)
def loss_fall(net: Reading) -> float:
    """(L₁ - L) / |L₁|: first recorded loss, and median over the last tenth of the finite steps.

    Not known if the first loss is zero.
    """
    loss = net.finite("loss")
    if len(loss) < LEAST_STEPS or loss[0] == 0:
        return math.nan
    most = np.finfo(np.float64).max
    return float(np.clip((loss[0] - _end(loss)) / abs(loss[0]), -most, most))


@_sign("accuracy at the end", "accuracy", low=0.8)
def accuracy(net: Reading) -> float:
    """Median accuracy over the last tenth of the finite steps."""
    return _end(net.finite("accuracy"))


@_sign("steps recorded", low=10)
def steps(net: Reading) -> float:
    """How many steps were recorded."""
    return float(len(net.steps))


# --- the delta along the chain --------------------------------------------------------------------


@_sign(
    "decades by which the delta falls on its way to the first layer, at the end",
    "delta_rms",
    high=2.0,
)
def delta_fall(net: Reading) -> float:
    """log10 of the delta's rms in the last layer over the first, in the last tenth of the steps."""
    return _fall_of(net, _end_rows(_log(net.finite("delta_rms"))))


@_sign("decades by which the delta falls at the first step", "delta_rms", high=2.0)
def delta_fall_first(net: Reading) -> float:
    """The same at the first recorded step: what the initial weights do."""
    return _fall_of(net, _log(net.finite("delta_rms"))[0])


@_sign("decades that the delta gains in this layer", "delta_rms", per="layer", low=-0.4, high=0.3)
def delta_gain(net: Reading) -> Floats:
    """log10 of a layer's delta over that of the layer above it, as a median over the steps."""
    delta = _log(net.finite("delta_rms"))
    return _of_pairs(net, lambda layer, above: _median(delta[:, layer] - delta[:, above]))


@_sign(
    "decades that the weights above give the delta", "weight_rms", per="layer", low=-0.3, high=0.4
)
def weight_gain(net: Reading) -> Floats:
    """log10 of weight_rms √fan_out of the layer above: what W does to a delta of random signs."""
    weight, fan_out = _log(net.finite("weight_rms")), net.fans("fan_out")
    return _of_pairs(
        net, lambda _, above: _median(weight[:, above]) + 0.5 * np.log10(fan_out[above])
    )


@_sign(
    "decades that the activation function's slope costs the delta",
    "delta_rms",
    "weight_rms",
    per="layer",
    low=-0.4,
)
def slope_gain(net: Reading) -> Floats:
    """`delta_gain` without `weight_gain`: what the slope, dead units and the rest do."""
    return np.asarray(np.asarray(delta_gain(net)) - np.asarray(weight_gain(net)))


@_sign(
    "how much alike the units of the layer above are",
    "delta_rms",
    "weight_rms",
    per="layer",
    high=0.6,
)
def coherence(net: Reading) -> Floats:
    """1 if all units of the layer above are the same, near 0 if they differ; least of all steps.

    The part of `delta_gain` that `weight_gain` leaves, over ½ log10 fan_out of the layer above:
    deltas of units that are the same add up; those of different ones cancel in part, so that their
    sum grows by the root of the number of units only. 1 too if all their weights begin with zero.
    """
    delta, weight = _log(net.finite("delta_rms")), _log(net.finite("weight_rms"))
    fan_out = net.fans("fan_out")
    zero = _first(net, "weight_rms") == 0

    def alike(layer: int, above: int) -> float:
        if zero[layer]:  # not of the last layer, which may begin with zeros
            return 1.0
        half = 0.5 * np.log10(fan_out[above])
        return _least((delta[:, layer] - delta[:, above] - weight[:, above] - half) / half)

    return _of_pairs(net, alike)


@_sign("decades by which dL/dW grew beside delta and input", "grad_rms", "delta_rms", high=0.4)
def gradient_growth(net: Reading) -> float:
    """log10 of grad_rms / (delta_rms · input_rms): at the end less at the first step, median layer.

    Gradients of earlier steps that are added up make it grow.
    """
    gradient = _log(_gradient(net)) - _log(net.finite("delta_rms"))
    if "input_rms" in net:
        gradient = gradient - _log(net.finite("input_rms"))
    return float(_median(_end_rows(gradient) - gradient[0]))


@_sign("layers that the optimizer does not update", per="layer", high=0.0)
def not_owned(net: Reading) -> Floats:
    """1 for a layer that the optimizer was not given, or that is frozen."""
    frozen = [role == "frozen" for role in net.roles]
    return np.maximum(_with_reason(net, NOT_UPDATED, NOT_CLEARED), frozen)


@_sign("layers whose gradient is cleared before the update", per="layer", high=0.0)
def cleared(net: Reading) -> Floats:
    """1 for a layer whose gradient was cleared between the backward pass and the step."""
    return _with_reason(net, CLEARED)


@_sign("share of the steps in which no gradient came to the layer", per="layer", high=0.0)
def gradient_missing(net: Reading) -> Floats:
    """Share of the recorded steps in which a layer that is to be trained has no gradient."""
    name = _gradient_name(net)
    if name is None:
        return np.full(len(net.layers), np.nan)
    found = (net.states(name) == State.MISSING).mean(axis=0)
    trained = np.array([role in ("trained", "unreached") for role in net.roles])
    return np.asarray(np.where(trained, found, np.nan))


# --- units ----------------------------------------------------------------------------------------


@_sign("share of dead units at the end", "dead_fraction", per="layer", high=0.5)
def dead(net: Reading) -> Floats:
    """Share of units that are zero on every sample of the reference batch, in the last tenth.

    Of hidden layers.
    """
    return np.asarray(np.where(net.hidden, _end_rows(net.finite("dead_fraction")), np.nan))


@_sign("share of dead units at the first step", "dead_fraction", per="layer", high=0.3)
def dead_first(net: Reading) -> Floats:
    """The same at the first recorded step."""
    return np.asarray(np.where(net.hidden, _first(net, "dead_fraction"), np.nan))


@_sign("largest update ratio of the step in which most units died", "dead_fraction", "update_ratio")
def update_at_death(net: Reading) -> float:
    """log10 of the largest update ratio in the step before the steepest rise of dead units."""
    at = death(net)
    return math.nan if not at else _largest(_log(net.finite("update_ratio"))[at - 1])


def death(net: Reading) -> int | None:
    """Position of the step at which the share of dead units of a layer rose most.

    0 if they were dead from the first step on; None if there are none.
    """
    share = np.nan_to_num(net.finite("dead_fraction"), nan=0.0)
    if not share.size or share.max() <= 0:
        return None
    rise = np.diff(share, axis=0, prepend=np.zeros((1, share.shape[1])))
    return int(rise.max(axis=1).argmax())


@_sign("share of saturated pairs of sample and unit", "saturated_fraction", per="layer", high=0.5)
def saturated(net: Reading) -> Floats:
    """Of hidden layers, in the last tenth; 0 if the activation function is not bounded."""
    return _of_bounded(net, _end_rows(net.finite("saturated_fraction")))


@_sign("share of the output that passes no gradient back", high=0.5)
def output_off(net: Reading) -> float:
    """The largest of three shares of the last layer at the end: dead, saturated, zeros in dL/dW."""
    last = net.chains[0][-1] if net.chains[0] else len(net.layers) - 1
    shares = [
        _end_rows(net.finite(name))[last]
        for name in ("dead_fraction", "saturated_fraction", "grad_zero_fraction")
        if name in net.run.dataset
    ]
    known = [float(share) for share in shares if np.isfinite(share)]
    return max(known, default=math.nan)


@_sign("size of the layer's input", "input_rms", per="layer", low=0.1, high=3.0)
def input_scale(net: Reading) -> Floats:
    """Root mean square of what the layer multiplies by its weights, at the first step."""
    return _first(net, "input_rms")


@_sign("decades by which the size of the inputs differs from 1", "input_rms", high=0.6)
def input_misfit(net: Reading) -> float:
    """|log10| of the root mean square of what the first layer is given, at the first step."""
    first = net.chains[0][0] if net.chains[0] else 0
    return float(abs(_log(_first(net, "input_rms"))[first]))


@_sign("decades by which the delta falls at its worst", "delta_rms", high=2.0)
def delta_fall_most(net: Reading) -> float:
    """The larger of `delta_fall` and `delta_fall_first`, by size."""
    known = [fall for fall in (delta_fall(net), delta_fall_first(net)) if not np.isnan(fall)]
    return max(map(float, known), key=abs, default=math.nan)


@_sign("decades of the weights at the first step", "weight_rms", per="layer")
def weight_scale(net: Reading) -> Floats:
    """log10 of weight_rms √fan_in at the first step: 0 keeps the size of the activations."""
    return np.asarray(_log(_first(net, "weight_rms")) + 0.5 * np.log10(net.fans("fan_in")))


# --- updates --------------------------------------------------------------------------------------


@_sign("decades of the largest update over its weights", "update_ratio", low=-4.0, high=-0.5)
def update_most(net: Reading) -> float:
    """log10 of the largest update ratio of the whole run, each step by the median layer."""
    return _largest(_median(_log(net.finite("update_ratio")), axis=1))


@_sign("decades of the largest update of any layer over its weights", "update_ratio", high=-0.3)
def update_peak(net: Reading) -> float:
    """log10 of the largest update ratio of all layers and steps, but for those of zero weights."""
    return _largest(_log(net.finite("update_ratio")))


@_sign("decades of the typical update over its weights", "update_ratio", low=-5.0, high=-1.5)
def update_typical(net: Reading) -> float:
    """log10 of the update ratio, median over the layers and the steps."""
    return float(_median(_log(net.finite("update_ratio"))))


@_sign("decades of the layer's typical update over its weights", "update_ratio", per="layer")
def update(net: Reading) -> Floats:
    """log10 of a layer's update ratio, median over the steps."""
    return np.asarray(_median(_log(net.finite("update_ratio")), axis=0))


@_sign("decades by which the weights grew", "weight_rms", per="layer", low=-0.3, high=0.7)
def weight_growth(net: Reading) -> Floats:
    """log10 of weight_rms at the end over that at the first step."""
    weight = _log(net.finite("weight_rms"))
    return np.asarray(_end_rows(weight) - weight[0])


# --- values that are not finite -------------------------------------------------------------------


@_sign("share of the steps before the first value that is not finite", low=1.0)
def finite_share(net: Reading) -> float:
    """1 if everything was finite."""
    return net.steps_finite / len(net.steps) if len(net.steps) else math.nan


@_sign(
    "share of the layer's values that are not finite, in the step in which they came up",
    per="layer",
    high=0.0,
)
def nonfinite(net: Reading) -> Floats:
    """1 in the layer in which the first such value came up; 0 in the others."""
    found = np.zeros(len(net.layers))
    place = net.first_nonfinite
    if place is not None and place.layer is not None:
        found[place.layer] = 1.0
    return found


@_sign("whether only the loss or its derivative is not finite", high=0.0)
def nonfinite_in_loss(net: Reading) -> float:
    """1 if, in the first such step, no activation is; 0 if one is, or all values are finite.

    Not known if nothing that was recorded tells which array it was.
    """
    place = net.first_nonfinite
    if place is None:
        return 0.0
    if not _tells_where(net):
        return math.nan
    return float(place.array in ("", "delta"))


@_sign("whether the inputs are not finite", "input_rms", high=0.0)
def nonfinite_input(net: Reading) -> float:
    """1 if the input of the first layer is not finite in the first such step, or before.

    Or if the recorder saw that inputs or targets began it.
    """
    began = net.run.attrs.get("nonfinite_began_in")
    if net.diverged and net.member is None and began in ("inputs", "targets"):
        return 1.0
    if not net.diverged or "input_rms" not in net.run.dataset:
        return 0.0 if not net.diverged else math.nan
    first = net.chains[0][0] if net.chains[0] else 0
    return float(net.states("input_rms")[net.steps_finite, first] == State.NOT_FINITE)


# --- parts ----------------------------------------------------------------------------------------


def _tells_where(net: Reading) -> bool:
    """Whether a run that diverged was recorded so that it is known where."""
    if "nonfinite_in" in net.run.attrs or "nonfinite_count" in net.run.dataset:
        return True
    if "loss" not in net.run.dataset:
        return False
    return bool(net.states("loss")[net.steps_finite] == State.NOT_FINITE)


def _gradient_name(net: Reading) -> str | None:
    return next((name for name in ("grad_rms", "grad_mean_abs") if name in net.run.dataset), None)


def _gradient(net: Reading) -> Floats:
    return net.finite(_gradient_name(net) or "grad_rms")


def _with_reason(net: Reading, *reasons: str) -> Floats:
    """1 for layers of which a quantity is missing for one of these reasons; 0 for others."""
    told = [net.reasons.get(name, {}).values() for name in net.layers]
    return np.array([float(not set(reasons).isdisjoint(of)) for of in told])


def _first(net: Reading, quantity: str) -> Floats:
    """At the first recorded step; (layers,)."""
    return np.asarray(net.all(quantity)[0])


def _median(values: Floats, axis: int | None = None) -> Any:
    """Of the known values; NaN where there are none."""
    if axis is None:
        values, axis = values.ravel(), 0
    ordered = np.sort(values, axis=axis)  # NaN comes last
    count = np.asarray(np.isfinite(ordered).sum(axis=axis, keepdims=True))
    if not ordered.shape[axis]:
        return np.full(np.delete(values.shape, axis), np.nan)
    ends = [
        np.take_along_axis(ordered, np.maximum(at, 0), axis)
        for at in ((count - 1) // 2, count // 2)
    ]
    middle = np.where(count > 0, (ends[0] + ends[1]) / 2, np.nan)
    return np.squeeze(middle, axis=axis)


def _log(values: Floats) -> Floats:
    """log10; NaN of zero, which has signs of its own."""
    return np.log10(np.where(values > 0, values, np.nan))


def _end_rows(values: Floats) -> Floats:
    """Median over the last tenth of the steps."""
    count = max(1, len(values) // 10)
    return np.asarray(_median(values[-count:], axis=0))


def _end(values: Floats) -> float:
    return float(_end_rows(values)) if len(values) else math.nan


def _largest(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else math.nan


def _least(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.min()) if known.size else math.nan


def _fall_of(net: Reading, of_layers: Floats) -> float:
    """By how much it falls from the last layer of a chain to the first; the worst chain's."""
    ends = _worst_ends(net, of_layers)
    return math.nan if ends is None else float(of_layers[ends[1]] - of_layers[ends[0]])


def worst_ends(net: Reading, at_first: bool = False) -> tuple[int, int] | None:
    """First and last layer, by position, of the chain in which the delta changes most.

    At the end of the run, or at its first step.
    """
    delta = _log(net.finite("delta_rms"))
    return _worst_ends(net, delta[0] if at_first else _end_rows(delta))


def _worst_ends(net: Reading, of_layers: Floats) -> tuple[int, int] | None:
    """Of the layers of each chain whose number is known."""
    known = [[i for i in chain if np.isfinite(of_layers[i])] for chain in net.chains]
    ends = [(chain[0], chain[-1]) for chain in known if len(chain) > 1]
    return max(ends, key=lambda pair: abs(of_layers[pair[1]] - of_layers[pair[0]]), default=None)


def _of_pairs(net: Reading, of: Callable[[int, int], float]) -> Floats:
    found = np.full(len(net.layers), np.nan)
    for layer, above in net.pairs:
        found[layer] = of(layer, above)
    return found


def _of_bounded(net: Reading, values: Floats) -> Floats:
    """The values of hidden layers whose activation function is bounded at both ends.

    0 if it is known and not bounded; NaN if it is not known.
    """
    rows = [ACTIVATIONS.get(name) for name in net.activations]
    bounded = np.array([row is not None and bool(np.isfinite(row.range).all()) for row in rows])
    known = np.array([row is not None for row in rows])
    found = np.where(bounded, values, np.where(known, 0.0, np.nan))
    return np.asarray(np.where(net.hidden, found, np.nan))
