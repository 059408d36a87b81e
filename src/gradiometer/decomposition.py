"""Where a delta shrinks, and what a gradient is made of: both taken apart, exactly.

From layer l + 1 to layer l the delta passes a chain of places, at each of which its rms is known:

    delta of l + 1 → x W + b of l + 1 → input of l + 1
    → output of l → its live units → φ's input of l → delta of l

The logarithm of the quotient of two neighbours is a *term*, so the terms add up to the logarithm of
the whole gain, whatever the net. Where a place was not measured, its two terms become one, and the
other is missing, with the reason.

All numbers are decades: logarithms to base 10.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.states import NO_REASON, Reasons, mask_of, reason_for, reasons_of

if TYPE_CHECKING:
    import xarray as xr

    from gradiometer.labelled import LabelledRun

GAIN = "gain"
# of the gain of the delta, in the order in which it passes them
TERMS: Mapping[str, str] = {
    "weight": "gain of the weights",
    "skip": "skip connections, and whatever else is between two layers",
    "dead": "loss by dead units",
    "slope": "slope of live units",
    "normalisation": "gain of normalisations",
}
GRADIENT = "gradient"
GRADIENT_TERMS: Mapping[str, str] = {
    "input": "scale of the input",
    "delta": "scale of the delta",
    "rows": "number of rows",
    "alignment": "alignment of input and delta",
}
ESTIMATES: Mapping[str, str] = {
    "estimated_weight": "gain of the weights, estimated",
    "estimated_rest": "the rest of the gain, estimated",
}
# what an exact decomposition is made of: `record(…, quantities=[*NEEDED, "loss"])`
NEEDED = (
    "delta_rms", "affine_delta_rms", "backward_rms", "backward_live_rms", "arriving_rms",
    "arriving_live_rms", "phi_delta_rms", "grad_rms", "input_rms", "rows",
)  # fmt: skip

LAST = "the delta of the last layer of a chain comes from the loss"
NO_CHAIN = "it is in no chain of layers that one gradient goes through"
NOT_RECORDED = "{} was not recorded"
NOT_ALIGNED = (
    "the gradient is larger than input and delta allow, so it is not the product of these two alone"
)
ROUNDING = 1e-4  # decades by which single precision may exceed a bound


def decompose(run: LabelledRun, steps: Sequence[int] | None = None) -> xr.Dataset:
    """Take the gain of the delta from layer to layer apart, and the gradient of each layer.

    Parameters
    ----------
    run : Trace
        With as many of `NEEDED` as can be had.
    steps : sequence of int, optional
        Recorded steps; all by default.

    Returns
    -------
    xarray.Dataset
        Dims `step`, `layer` and, for an ensemble, `member`. All variables are in decades, and NaN
        where they are missing. The coordinate `above` names the layer that the delta comes from,
        the next one in the chain; it is "" for the last.

        - `gain`: of the rms of the delta, from the layer above to this one. It is the sum of
          `weight`, `skip`, `dead`, `slope` and `normalisation`, as far as they are not missing: a
          missing one is part of another, which the reason names, or else none is known.
        - `gradient`: the rms of dL/dW. It is the sum of `input`, `delta`, `rows` and `alignment`.
        - `estimated_weight`, `estimated_rest`: an approximate division of `gain`.

        `attrs["missing"]`, JSON, has the reasons, layer -> variable -> reason, as in a trace; of a
        variable that is missing at several steps, the reason of the first of them.

    Raises
    ------
    ValueError
        If a step was not recorded, or none is given.

    Notes
    -----
    The gain, with ‖·‖ for the rms over rows and units, and δ for the delta:

    - `weight`: ‖W^T δ'‖ / ‖δ'‖ of the layer above, where δ' is its delta at x W + b;
    - `skip`: the rms of the delta that arrives at φ(h), by all ways, over ‖W^T δ'‖ of the layer
      above alone. In a plain net it is 0;
    - `dead`: the same with zeros at dead units, over the rms with all units; at most 0. A unit is
      dead in a call of its layer if its output is zero on every sample, and passes no delta;
    - `slope`: the rms of the delta at φ's input, over that: at most the logarithm of the largest
      slope of φ. For the sigmoid this is ¼, -0.60 decades;
    - `normalisation`: ‖δ'‖ / ‖δ‖ of the layer above where a normalisation is between x W + b and
      the delta (`dp`), and the delta over that at φ's input where it is between the delta and φ
      (PyTorch, without weights). A normalisation with weights is a layer of its own in PyTorch;
      then this is what would be `weight` of another one, which is missing.

    They are missing where one of these is zero or not finite, for then no logarithm has a meaning.

    The gradient is dL/dW = xᵀ δ', with x (rows, fan_in) and δ' (rows, fan_out), summed over the
    rows of the batch; a mean over the batch is in the δ' already. By Cauchy and Schwarz
    ‖xᵀ δ'‖_F ≤ ‖x‖_F ‖δ'‖_F (Golub & Van Loan, Matrix Computations, 2013, section 2.3), which in
    terms of rms is rms(dL/dW) ≤ rows · rms(x) · rms(δ'). So

        log rms(dL/dW) = log rms(x) + log rms(δ') + log rows + alignment,  alignment ≤ 0.

    The alignment is 0 if all rows of x are multiples of one vector and those of δ' of another, with
    the same factors. It is about -½ log rows if rows have nothing to do with each other.

    The estimate takes the entries of W for independent of the delta, and of mean 0. Then
    ‖W^T δ'‖² is on average fan_out · rms(W)² · ‖δ'‖². All the rest of the gain is one number. It
    needs nothing but what is recorded by default; it is right for initial weights, and drifts as
    the weights and the delta adapt to each other.

    Examples
    --------
    >>> import gradiometer
    >>> from gradiometer.decomposition import NEEDED, decompose
    >>> trace = gradiometer.run(activation="sigmoid", layers=3, steps=1, quantities=NEEDED)
    >>> parts = decompose(trace).isel(step=0)
    >>> bool((parts["slope"][:-1] < -0.6).all())
    True
    """
    import xarray as xr

    reading = _Reading.of(run, steps)
    missing: Reasons = {}
    way = _Way(reading)
    found = {
        **_of_delta(way, missing),
        **_of_gradient(reading, missing),
        **_estimated(way, missing),
    }
    words = {GAIN: "gain of the delta", GRADIENT: "rms of dL/dW"}
    words |= {**TERMS, **GRADIENT_TERMS, **ESTIMATES}
    above = [reading.names[reading.above[i]] if i in reading.above else "" for i in reading.places]
    dataset = reading.dataset
    dims = ("step", "layer", "member") if run.ensemble else ("step", "layer")
    coords = {name: dataset[name] for name in dims if name in dataset.coords}
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": words[name], "units": "decades"})
            for name, values in found.items()
        },
        {**coords, "above": ("layer", above)},
        {"missing": json.dumps(missing)},
    )


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """What is read of a run.

    Attributes
    ----------
    dataset : xarray.Dataset
        Of the steps that are asked for.
    above : dict
        Layer -> the next one in its chain, by position.
    """

    dataset: xr.Dataset
    names: list[str]
    above: dict[int, int]
    reasons: Reasons

    @classmethod
    def of(cls, run: LabelledRun, steps: Sequence[int] | None) -> _Reading:
        dataset = run.dataset
        if steps is not None:
            recorded = set(dataset["step"].values.tolist())
            if not len(steps) or not recorded.issuperset(steps):
                raise ValueError(
                    f"steps must be some of those recorded, {min(recorded)} to {max(recorded)}, "
                    f"got {[*steps]}"
                )
            dataset = dataset.sel(step=[*steps])
        return cls(dataset, run.layers, next_layers(run), reasons_of(run.attrs))

    @property
    def places(self) -> range:
        """The positions of all layers."""
        return range(len(self.names))

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps, layers, and members if there are any."""
        sizes = self.dataset.sizes
        return tuple(sizes[dim] for dim in ("step", "layer", "member") if dim in sizes)

    @property
    def kinds(self) -> list[str]:
        """What each layer is: "affine" or "normalisation"."""
        if "kind" not in self.dataset:
            return ["affine"] * len(self.names)
        return [str(kind) for kind in self.dataset["kind"].values]

    def quantity(self, name: str) -> tuple[Array, Array]:
        """A quantity, and where it is missing: everywhere, if it was not recorded."""
        if name not in self.dataset:
            return np.full(self.shape, np.nan), np.ones(self.shape, bool)
        values = np.asarray(self.dataset[name].values, np.float64)
        mask = mask_of(name, self.dataset)
        return values, np.zeros(values.shape, bool) if mask is None else mask

    def why(self, name: str, layer: int) -> str:
        """Why a quantity of a layer is missing."""
        if name not in self.dataset:
            return NOT_RECORDED.format(name)
        return reason_for(self.reasons, name, self.names[layer]) or NO_REASON


def next_layers(run: LabelledRun) -> dict[int, int]:
    """The layer above each layer, from which its delta comes: position -> position.

    Where a net has branches, the recorder has told them (`attrs["above"]`); else the layers of a
    chain follow each other (`attrs["chains"]`). Of several layers above one, such as two heads, the
    first is taken.
    """
    if "above" in run.attrs:
        told: list[int] = json.loads(run.attrs["above"])
        return {below: above for below, above in enumerate(told) if above >= 0}
    if "chains" in run.attrs:
        chains: list[list[int]] = json.loads(run.attrs["chains"])
    else:
        chains = [[*range(len(run.layers))]]
        if "role" in run.dataset:
            roles = run.dataset["role"].values
            chains = [[i for i in chains[0] if roles[i] in ("trained", "frozen")]]
    found: dict[int, int] = {}
    for chain in chains:
        for below, above in itertools.pairwise(chain):
            found.setdefault(below, above)
    return found


# --- the delta ------------------------------------------------------------------------------------


class _Way:
    """The places that the delta passes on its way from the layers above to those below.

    Attributes
    ----------
    below, above : list of int
        The layers of each pair.
    is_norm : boolean array (steps, pairs[, members])
        Whether the layer above is a normalisation: a layer of its own, as PyTorch has it.
    """

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.below, self.above = [*reading.above], [*reading.above.values()]
        self.start = self._place("delta_rms", self.above)
        self.affine = self._place("affine_delta_rms", self.above)
        self.back = self._place("backward_rms", self.above)
        self.back_live = self._place("backward_live_rms", self.above)
        self.arriving = self._place("arriving_rms", self.below)
        self.arriving_live = self._place("arriving_live_rms", self.below)
        self.phi = self._place("phi_delta_rms", self.below)
        self.end = self._place("delta_rms", self.below)
        pairs = (1, -1, *[1] * (len(reading.shape) - 2))
        self.is_norm = np.array([reading.kinds[i] == "normalisation" for i in self.above], bool)
        self.is_norm = np.broadcast_to(self.is_norm.reshape(pairs), self.start.log.shape)

    def _place(self, name: str, layers: list[int]) -> _Place:
        return _Place.of(self.reading, name, layers)

    @property
    def places(self) -> list[_Place]:
        """All of them in order; the last is another way to tell what comes to live units."""
        return [
            self.start, self.affine, self.back, self.arriving, self.arriving_live, self.phi,
            self.end, self.back_live,
        ]  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """The rms of the delta at a place, between the layers of each pair.

    Attributes
    ----------
    log : array (steps, pairs[, members])
        Its logarithm; 0 where it is not known, or has none.
    known, zero, broken : boolean arrays of that shape
        Where it was measured; where it is exactly zero; where it is zero or not finite.
    """

    reading: _Reading
    name: str
    layers: list[int]
    log: Array
    known: Array
    zero: Array
    broken: Array

    @classmethod
    def of(cls, reading: _Reading, name: str, layers: list[int]) -> _Place:
        values, missing = (array[:, layers] for array in reading.quantity(name))
        usual = np.isfinite(values) & (values > 0)
        log = np.log10(values, where=usual, out=np.zeros(values.shape))
        zero = ~missing & (values == 0)
        return cls(reading, name, layers, log, ~missing, zero, ~(missing | usual))

    def why_missing(self, pair: int) -> str:
        """Why it was not measured."""
        return self.reading.why(self.name, self.layers[pair])

    def why_broken(self, pair: int, zero: bool) -> str:
        """What is wrong with it."""
        what = _PLACES[self.name].format(repr(self.reading.names[self.layers[pair]]))
        return f"{what} is {'exactly zero' if zero else 'not finite'}"


_PLACES = {
    "delta_rms": "the delta of {}",
    "affine_delta_rms": "the delta at x W + b of {}",
    "backward_rms": "W^T delta of {}",
    "backward_live_rms": "W^T delta of {} at live units",
    "arriving_rms": "the delta that arrives at the output of {}",
    "arriving_live_rms": "the delta that arrives at live units of {}",
    "phi_delta_rms": "the delta at φ's input of {}",
}


def _of_delta(way: _Way, missing: Reasons) -> dict[str, Array]:
    """The gain of the delta and its terms; notes what is missing."""
    reading = way.reading
    ends = way.start.known & way.end.known
    sound = ends & ~np.any([place.broken for place in way.places[:-1]], axis=0)
    # of the ways to dead units, the one that is not needed may be broken
    sound &= way.arriving.known | ~way.back_live.broken
    through = way.back.known | way.arriving.known
    normalised = way.affine.known & way.phi.known
    begin = np.where(normalised, way.affine.log, way.start.log)
    arrived = np.where(way.arriving.known, way.arriving.log, way.back.log)
    of_live = np.where(way.arriving.known, way.arriving_live.log, way.back_live.log)
    live_known = np.where(way.arriving.known, way.arriving_live.known, way.back_live.known)
    live = np.where(live_known, of_live, arrived)
    end = np.where(normalised, way.phi.log, way.end.log)
    both = way.back.known & way.arriving.known
    weight = np.where(way.back.known, way.back.log, arrived) - begin
    between = way.affine.log - way.start.log + way.end.log - way.phi.log
    terms = {
        GAIN: (way.end.log - way.start.log, ends & ~(way.start.broken | way.end.broken)),
        "weight": (weight, sound & through & ~way.is_norm),
        "skip": (way.arriving.log - way.back.log, sound & both),
        "dead": (of_live - arrived, sound & through & live_known),
        "slope": (end - live, sound & through),
        "normalisation": (
            np.where(normalised, between, 0.0) + np.where(way.is_norm, weight, 0.0),
            sound & through & (normalised | way.is_norm),
        ),
    }
    found = {}
    for name, (values, known) in terms.items():
        found[name] = np.full(reading.shape, np.nan)
        found[name][:, way.below] = np.where(known, values, np.nan)
        for pair, layer in enumerate(way.below):
            if not known[:, pair].all():
                why = _why_not(way, name, pair, ~known[:, pair])
                missing.setdefault(reading.names[layer], {})[name] = why
        for layer in reading.places:
            if layer not in reading.above:
                last = layer in reading.above.values()
                why = LAST if last else NO_CHAIN
                missing.setdefault(reading.names[layer], {})[name] = why
    return found


def _why_not(way: _Way, term: str, pair: int, undefined: Array) -> str:
    """Why a term is missing between two layers, at the first step at which it is."""
    first = _first(undefined)
    at = (first[0], pair, *first[1:])
    ends = [way.start, way.end]
    for place in ends:
        if not place.known[at]:
            return place.why_missing(pair)
    all_units, of_live = way.arriving, way.arriving_live
    if not all_units.known[at]:
        all_units, of_live = way.back, way.back_live
    if term != GAIN and of_live.zero[at] and not all_units.zero[at]:
        layer = way.reading.names[way.below[pair]]
        return f"all units of {layer!r} are dead, so no delta gets through"
    for place in way.places if term != GAIN else ends:
        if place.broken[at]:
            return place.why_broken(pair, bool(place.zero[at]))
    if not (way.back.known[at] or way.arriving.known[at]):
        return way.back.why_missing(pair)
    if term == "weight":
        return f"{way.reading.names[way.above[pair]]!r} is a normalisation"
    if term == "skip":
        other = way.back if not way.back.known[at] else way.arriving
        home = "the gain of the weights" if other is way.back else "the slope"
    elif term == "dead":
        other = of_live
        home = "the slope"
    else:
        other = way.phi if way.affine.known[at] else way.affine
        home = "the gain of the weights and the slope"
    return f"{other.why_missing(pair)}; if there is any, it is part of {home}"


def _first(true: Array) -> tuple[Any, ...]:
    """The first place, by step, at which something is true."""
    return tuple(int(i) for i in np.unravel_index(int(true.argmax()), true.shape))


def _estimated(way: _Way, missing: Reasons) -> dict[str, Array]:
    """The gain of weights that are independent of the delta, and the rest of the gain."""
    reading = way.reading
    weight = _Place.of(reading, "weight_rms", way.above)
    fans = reading.dataset["fan_out"].values if "fan_out" in reading.dataset else np.zeros(0)
    units = np.array([fans[layer] if len(fans) else 0 for layer in way.above], np.float64)
    units = units.reshape(1, -1, *[1] * (len(reading.shape) - 2))
    estimate = weight.log + 0.5 * np.log10(np.maximum(units, 1))
    ends = way.start.known & way.end.known & ~(way.start.broken | way.end.broken)
    known = weight.known & ~weight.broken & (units > 0)
    gain = way.end.log - way.start.log
    found = {}
    for name, values in (("estimated_weight", estimate), ("estimated_rest", gain - estimate)):
        there = known & ends if name == "estimated_rest" else known
        found[name] = np.full(reading.shape, np.nan)
        found[name][:, way.below] = np.where(there, values, np.nan)
    for layer in reading.places:
        name = reading.names[layer]
        for what, values in found.items():
            if np.isnan(values[:, layer]).any():
                of_layer = missing.setdefault(name, {})
                of_layer[what] = of_layer.get(GAIN) or _why_no_estimate(reading, layer)
    return found


def _why_no_estimate(reading: _Reading, layer: int) -> str:
    above = reading.above[layer]
    values, absent = reading.quantity("weight_rms")
    if absent[:, above].any():
        return reading.why("weight_rms", above)
    name = repr(reading.names[above])
    if not (values[:, above] > 0).all():
        return f"the weights of {name} are all zero, or not finite"
    return f"it is not known how many units {name} has"


# --- the gradient ---------------------------------------------------------------------------------


def _of_gradient(reading: _Reading, missing: Reasons) -> dict[str, Array]:
    """The rms of dL/dW and its terms; notes what is missing."""
    every = [*reading.places]
    gradient = _Place.of(reading, "grad_rms", every)
    given = _Place.of(reading, "input_rms", every)
    rows = _Place.of(reading, "rows", every)
    plain, affine = (_Place.of(reading, name, every) for name in ("delta_rms", "affine_delta_rms"))
    delta = _Place(
        reading, "delta_rms", every, np.where(affine.known, affine.log, plain.log),
        affine.known | plain.known, np.where(affine.known, affine.zero, plain.zero),
        np.where(affine.known, affine.broken, plain.broken),
    )  # fmt: skip
    parts = {GRADIENT: gradient, "input": given, "delta": delta, "rows": rows}
    alignment = gradient.log - given.log - delta.log - rows.log
    sound = np.all([place.known & ~place.broken for place in parts.values()], axis=0)
    aligned = sound & (alignment <= ROUNDING)
    found = {
        name: np.where(place.known & ~place.broken, place.log, np.nan)
        for name, place in parts.items()
    }
    found["alignment"] = np.where(aligned, alignment, np.nan)
    for layer in every:
        for name, values in found.items():
            absent = np.isnan(values[:, layer])
            if absent.any():
                at = _first(absent)
                here = (at[0], layer, *at[1:])
                places = [parts[name]] if name in parts else [*parts.values()]
                why = _why_no_place(places, layer, here) or NOT_ALIGNED
                missing.setdefault(reading.names[layer], {})[name] = why
    return found


def _why_no_place(places: Sequence[_Place], layer: int, at: tuple[Any, ...]) -> str:
    """Why one of these numbers has no logarithm; "" if all have."""
    for place in places:
        if not place.known[at]:
            return place.why_missing(layer)
        if place.broken[at]:
            what = f"{place.name} of {place.reading.names[layer]!r}"
            return f"{what} is {'exactly zero' if place.zero[at] else 'not finite'}"
    return ""
