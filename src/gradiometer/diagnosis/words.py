"""A verdict in words: what, where, why, one number that convinces, and one thing to do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dp.activations import ACTIVATIONS
from gradiometer.diagnosis.causes import CAUSES, Kind
from gradiometer.diagnosis.rules import Signs, place_of, value_of
from gradiometer.diagnosis.signs import SIGNS

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun

LEADS = {
    Kind.HEALTHY: "Healthy",
    Kind.VANISHING: "Vanishing",
    Kind.EXPLODING: "Exploding",
    Kind.DEAD: "Dead units",
    Kind.SATURATED: "Saturated units",
    Kind.NON_FINITE: "Not finite",
    Kind.STALLED: "No gradient problem",
}
# where the first value came up that is not finite, by what began it
BEGAN = {
    "inputs": ": the inputs are not finite",
    "targets": ": the targets are not finite",
    "weights": ": weights were not finite before the step",
    "loss": ": the loss is not finite, though the net's output is",
    "loss derivative": ": the loss is finite, and its derivative is not",
    "update": ": the update made them so, by a finite gradient",
}
SIGN_OF = {Kind.DEAD: "dead", Kind.SATURATED: "saturated"}  # by which units are told of
FAR = 2.0  # decades from which on it is worth a word that a net learns all the same
STEEP = 0.99  # a function whose slope gets that high need not be exchanged
WHERE_STEEP = (
    "Normalise, or initialise so that the pre-activations stay where the slope is large; residual "
    "connections let the delta bypass it."
)
SLOPES = {"sigmoid": "¼"}  # the largest slope, where a fraction says it shorter


@dataclass(frozen=True)
class Facts:
    """What a sentence is made of.

    Attributes
    ----------
    run : LabelledRun
    signs : sequence of Signs
        Of the nets that the verdict is of.
    kind : Kind
    cause : str or None
    is_usual : bool
        Whether no sign speaks for the cause: it is that of most nets with this kind of verdict.
    place : int or None
        Position of the layer.
    step : int or None
        When it began.
    total : int
        Number of all nets.
    ends, ends_first : (int, int) or None
        First and last layer, by position, of the chain that is told of: at the end of the run, and
        at its first step.
    """

    run: LabelledRun
    signs: Sequence[Signs]
    kind: Kind
    cause: str | None
    is_usual: bool
    place: int | None
    step: int | None
    total: int
    ends: tuple[int, int] | None
    ends_first: tuple[int, int] | None

    def sentence(self) -> str:
        """All of it: what, where, why, and what to do."""
        found = {
            Kind.HEALTHY: self._healthy,
            Kind.VANISHING: self._flow,
            Kind.EXPLODING: self._flow,
            Kind.DEAD: self._dead,
            Kind.SATURATED: self._saturated,
            Kind.NON_FINITE: self._nonfinite,
            Kind.STALLED: self._stalled,
        }[self.kind]()
        parts = [f"{self._lead()}.", found, self._why()]
        return " ".join(part for part in parts if part)

    def _value(self, sign: str, of: str = "") -> float:
        """Median over the nets; NaN if it is not known in any."""
        values = [value_of(signs[sign], of) for signs in self.signs]
        known = [value for value in values if not math.isnan(value)]
        return float(np.median(known)) if known else math.nan

    def _worst(self, sign: str) -> tuple[int | None, float]:
        """The layer that has most of it in most nets, and how much, as a median of these nets."""
        places = [place_of(np.asarray(signs[sign]), "most") for signs in self.signs]
        known = [place for place in places if place is not None]
        if not known:
            return None, math.nan
        most = max(known, key=known.count)
        there = zip(places, self.signs, strict=True)
        values = [np.asarray(signs[sign])[most] for place, signs in there if place == most]
        return most, float(np.median(values))

    def _lead(self) -> str:
        text = LEADS[self.kind]
        if self.kind == Kind.STALLED and math.isnan(self._value("delta_fall_most")):
            text += " was seen"  # the delta was not recorded, or of one layer only
        if self.total > 1:
            text += f", in {len(self.signs)} of {self.total} seeds"
        if self.step is not None and self.kind in (Kind.DEAD, Kind.NON_FINITE):
            text += f", from step {self.step} on"
        if self.kind in SIGN_OF:
            place, _ = self._worst(SIGN_OF[self.kind])
            text += "" if place is None else f", in layer {self._name(place)!r}"
        return text

    def _name(self, place: int) -> str:
        return str(self.run.layers[place])

    # --- what ---------------------------------------------------------------------------------

    def _healthy(self) -> str:
        learns = self._learns()
        arrives = self._arrives()
        if learns and arrives and abs(self._value("delta_fall")) > FAR:
            return f"The net learns: {learns}, though {arrives[0].lower()}{arrives[1:]}."
        if learns and arrives:
            return f"The net learns: {learns}. {arrives}."
        return f"The net learns: {learns}." if learns else (f"{arrives}." if arrives else "")

    def _learns(self) -> str:
        fall, accuracy = self._value("loss_fall"), self._value("accuracy")
        parts = []
        if fall > 0:
            parts.append(f"the loss fell by {share(min(fall, 1.0))}")
        if not math.isnan(accuracy):
            parts.append(f"accuracy is {accuracy:.2f}")
        text = " and ".join(parts)
        return f"{text}, though the loss rose by {share(-fall)}" if text and fall < -0.01 else text

    def _arrives(self, sign: str = "delta_fall") -> str:
        """How much of the delta comes to the first layer of the chain."""
        fall = self._value(sign)
        ends = self.ends_first if sign == "delta_fall_first" else self.ends
        if math.isnan(fall) or ends is None:
            return ""
        first, last = (self._name(place) for place in ends)
        return f"The delta arrives at layer {first!r} at {times(-fall)} its size at {last!r}"

    def _flow(self) -> str:
        direction = -1 if self.kind == Kind.VANISHING else 1
        fall, gain = self._value("delta_fall"), self._value("delta_gain", "median")
        at_first = self._arrives("delta_fall_first")
        if at_first and not -direction * fall > 1:  # it was so at the first step, not at the end
            return f"At the first step t{at_first[1:]}."
        text = self._arrives()
        if not direction * gain >= 0.005:
            return f"{text}." if text else ""
        verb = "shrinks" if gain < 0 else "grows"
        by = f"The delta {verb} {10 ** abs(gain):.2g} × per layer"
        return f"{by} and {text.removeprefix('The delta ')}." if text else f"{by}."

    def _dead(self) -> str:
        return f"{share(self._worst('dead')[1])} of its units are zero on every sample."

    def _saturated(self) -> str:
        return (
            f"At {share(self._worst('saturated')[1])} of its pairs of sample and unit, the slope "
            "is below 5 % of the largest."
        )

    def _nonfinite(self) -> str:
        attrs = self.run.attrs
        if not {"nonfinite_values", "nonfinite_layer"} <= set(attrs):
            return self._nonfinite_without_place()
        count = int(attrs["nonfinite_values"])
        values = "value that is" if count == 1 else f"{count} values that are"
        verb = "comes" if count == 1 else "come"
        return (
            f"The first {values} not finite{self._extent()} {verb} up in layer "
            f"{attrs['nonfinite_layer']!r} ({self._operation()}){self._began()}."
        )

    def _nonfinite_without_place(self) -> str:
        """What is not finite, where it was not recorded which array."""
        place, most = self._worst("nonfinite")
        if place is not None and most > 0:
            name = self._name(place)
            return f"The first values that are not finite come up in layer {name!r}."
        if "loss" not in self.run.dataset:
            return "It was not recorded where it came up."
        targets = self.run.attrs.get("nonfinite_began_in") == "targets"
        began = BEGAN["targets"] if targets else ""
        return f"The loss is the first value that is not finite{began}."

    def _extent(self) -> str:
        """Which share of the array is not finite, and whether it is NaN or infinite."""
        attrs = self.run.attrs
        if not {"nonfinite_share", "nonfinite_shape", "nonfinite_nan", "nonfinite_inf"} <= set(
            attrs
        ):
            return ""
        shape = " × ".join(str(size) for size in json.loads(str(attrs["nonfinite_shape"])))
        what = {"NaN": attrs["nonfinite_nan"], "Inf": attrs["nonfinite_inf"]}
        kinds = " and ".join(kind for kind, number in what.items() if number)
        return f" ({share(float(attrs['nonfinite_share']))} of {shape}, {kinds})"

    def _operation(self) -> str:
        """The array in which they are, and what made them so."""
        attrs = self.run.attrs
        array, operation = str(attrs["nonfinite_in"]), attrs.get("nonfinite_operation")
        if array == "activation" and operation is not None:
            return f"activation of {operation}" if " " not in operation else f"its {operation}"
        return array

    def _began(self) -> str:
        """What began it."""
        return BEGAN.get(str(self.run.attrs.get("nonfinite_began_in", "")), "")

    def _stalled(self) -> str:
        fall, steps = self._value("loss_fall"), self.run.dataset.sizes["step"]
        # a delta that is far from usual is told of by a verdict of its own, or not the reason
        arrives = "" if abs(self._value("delta_fall")) > FAR else self._arrives()
        if math.isnan(fall):
            return f"{arrives}." if arrives else ""
        if fall < -0.01:
            moved = f"the loss rose by {share(-fall)} in {steps} recorded steps"
        elif fall < 0.01:
            moved = f"the loss has not moved in {steps} recorded steps"
        else:
            moved = f"the loss fell by only {share(fall)} in {steps} recorded steps"
        return f"{arrives}, but {moved}." if arrives else f"{moved[0].upper()}{moved[1:]}."

    # --- why ----------------------------------------------------------------------------------

    def _why(self) -> str:
        if self.cause is None:
            return ""
        about = CAUSES[self.cause]
        because = self._number()
        if self.is_usual and not self._is_supported():
            here = f", but here {because}" if because else ""
            return f"The cause is not certain: most often {about.meaning}{here}. {self.advice()}"
        meaning = f"{self._meaning()}{f' ({because})' if because else ''}"
        end = "" if meaning.endswith("?") else "."
        return f"Cause{self._where()}: {meaning}{end} {self.advice()}"

    def advice(self) -> str:
        """What to change first; "" for a healthy net."""
        if self.cause is None:
            return ""
        functions = {name for name in self._hidden() if name in ACTIVATIONS}
        if self.cause == "activation slope" and any(
            ACTIVATIONS[name].max_slope >= STEEP for name in functions
        ):
            return WHERE_STEEP
        return CAUSES[self.cause].advice

    def _meaning(self) -> str:
        """What is wrong, as it was here."""
        if self.cause == "too few steps" and not self._value("loss_fall") >= 0.01:
            return "so few steps do not show whether the net learns"
        return CAUSES[str(self.cause)].meaning

    def _where(self) -> str:
        """The layer that the cause is in, if nothing before has named it."""
        told = {Kind.STALLED: None, **{kind: self._worst(of)[0] for kind, of in SIGN_OF.items()}}
        if self.place is None or self.kind not in told or self.place == told[self.kind]:
            return ""
        return f", in layer {self._name(self.place)!r}"

    def _is_supported(self) -> bool:
        """Whether the number that goes with a usual cause speaks for it."""
        match self.cause:
            case "learning rate too high":
                return self._value("update_peak") > SIGNS["update_peak"].high
            case "dead units: bias":
                return self.step is None or self.step == int(self.run.dataset["step"].values[0])
            case "weights too large":
                return self._value("weight_gain", "median") > 0
            case "activation slope":
                return not self._value("slope_gain", "median") >= 0
        return True

    def _number(self) -> str:
        """The number that convinces, of some causes."""
        match self.cause:
            case "activation slope":
                return self._slope()
            case "weights too small" | "weights too large":
                gain = self._value("weight_gain", "median")
                fits = (gain > 0) == (self.cause == "weights too large")
                return _decades("their gain is", gain) if fits else ""
            case "inputs unscaled" | "dead units: inputs":
                return _plain("their root mean square is", self._value("input_scale", "first"))
            case "dead units: learning rate":
                return _times("the largest moved them by", self._value("update_at_death"))
            case "learning rate too high":
                return _times("the largest moved those of a layer by", self._value("update_peak"))
            case "learning rate too low":
                return _times("typically", self._value("update_typical"))
        return ""

    def _slope(self) -> str:
        slope, weights = (self._value(f"{what}_gain", "median") for what in ("slope", "weight"))
        functions = {name for name in self._hidden() if name in ACTIVATIONS}
        if len(functions) != 1 or math.isnan(slope):
            return ""
        (name,) = functions
        most = SLOPES.get(name, f"{ACTIVATIONS[name].max_slope:.3g}")
        verb = "give back" if weights > 0 else "cost another"
        return (
            f"that of {name}, at most {most}, costs {-slope:.2f} decades per layer, and the "
            f"weights {verb} {abs(weights):.2f}"
        )

    def _hidden(self) -> list[str]:
        """Activation functions of the layers through whose slope the delta comes."""
        if "activation" not in self.run.dataset.coords:
            return []
        gains = np.asarray(self.signs[0]["delta_gain"])
        names = np.asarray(self.run.dataset["activation"].values)
        return [str(name) for name in names[np.isfinite(gains)]]


# --- numbers --------------------------------------------------------------------------------------


def share(value: float) -> str:
    """A share in per cent, with two digits where it is small; a power of ten where it is huge."""
    if math.isnan(value):
        return "an unknown share"
    if value >= 1000:
        return f"{value:.0e} times"
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.2g} %"


def times(decades: float) -> str:
    """How large something is beside something else: "12 % of", "340 ×", "about"."""
    ratio = 10.0**decades
    if 0.9 < ratio < 1.1:
        return "about"
    if ratio < 1:
        return f"{_number_of(100 * ratio)} % of"
    return f"{_number_of(ratio)} ×"


def _number_of(value: float) -> str:
    if 0.01 <= value < 100:
        return f"{value:.2g}"
    return f"{value:.0f}" if 1 <= value < 1e5 else f"{value:.0e}"


def _decades(before: str, value: float) -> str:
    return "" if math.isnan(value) else f"{before} {value:+.2f} decades per layer"


def _plain(before: str, value: float) -> str:
    return "" if math.isnan(value) else f"{before} {value:.3g}"


def _times(before: str, decades: float) -> str:
    return "" if math.isnan(decades) else f"{before} {10.0**decades:.2g} times their size"
