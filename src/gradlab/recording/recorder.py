"""Recorder: collects the quantities of every layer, step by step, for any framework.

An adapter hands over arrays (`LayerArrays`); what is computed from them is decided here, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.validation import one_of, positive_integer
from gradlab.recording import quantities as q

if TYPE_CHECKING:
    from gradlab.trace import Trace

Array = NDArray[Any]

PER_LAYER = (
    "grad_mean_abs",
    "grad_rms",
    "grad_zero_fraction",
    "delta_rms",
    "activation_mean",
    "activation_std",
    "saturated_fraction",
    "dead_fraction",
    "weight_rms",
    "update_ratio",
    "nonfinite_count",
)
PER_STEP = ("loss", "accuracy")
HISTOGRAM = "grad_log10_histogram"


@dataclass(frozen=True)
class LayerInfo:
    """A layer's name, sizes, and the name of its activation function."""

    name: str
    fan_in: int
    fan_out: int
    activation: str


@dataclass
class LayerArrays:
    """The arrays of one layer, or of several alike; None for what cannot be had.

    Every array may have leading axes (steps, layers, members of an ensemble), the same ones in all;
    what is missing is recorded as NaN.

    Attributes
    ----------
    gradient, weight, weight_after : array (…, fan_in, fan_out)
        dL/dW, and W before and after the update.
    delta, activation : array (…, batch, units)
        dL/d(pre-activation) and φ(pre-activation) of the training batch.
    saturated : boolean array (…, batch, units)
    reference_activation : array (…, samples, units)
        φ on the reference batch, for dead units.
    """

    gradient: Array | None = None
    weight: Array | None = None
    weight_after: Array | None = None
    delta: Array | None = None
    activation: Array | None = None
    saturated: NDArray[np.bool_] | None = None
    reference_activation: Array | None = None

    def part(self, step: int, layer: int) -> LayerArrays:
        """One step and layer of arrays with these two leading axes."""
        found = replace(self)
        for field in fields(self):
            array = getattr(self, field.name)
            setattr(found, field.name, None if array is None else array[step, layer])
        return found


class Recorder:
    """Buffers of every quantity, valid after any number of steps.

    Parameters
    ----------
    every : int
        Record every k-th step, starting with the first.
    histograms : bool
        Record log10 histograms of the gradients too.
    quantities : collection of str, optional
        Which of `PER_LAYER` and `PER_STEP` to record; all by default.
    """

    def __init__(
        self, every: int = 1, histograms: bool = False, quantities: Collection[str] | None = None
    ) -> None:
        positive_integer("every", every)
        if isinstance(quantities, str):
            quantities = (quantities,)
        for name in quantities or ():
            one_of("quantity", name, (*PER_LAYER, *PER_STEP))
        self.every = every
        wanted = [
            name for name in (*PER_LAYER, *PER_STEP) if quantities is None or name in quantities
        ]
        self.quantities = (*wanted, *([HISTOGRAM] if histograms else []))
        self.layers: tuple[LayerInfo, ...] = ()
        self.accuracy = float("nan")  # of the latest step, mean over members
        # what each call of `add` gave, as a whole: an interrupt leaves all of it or nothing
        self._added: list[tuple[list[int], dict[str, Array]]] = []
        self._latest: Sequence[int] = ()
        self._members: tuple[int, ...] = ()
        self._nonfinite: dict[str, Any] = {}
        self._started = time.perf_counter()
        self._spent = 0.0
        self._waiting: Callable[[], None] = lambda: None

    # --- filling ----------------------------------------------------------------------------------

    def wants(self, step: int) -> bool:
        """Whether step number `step` (from 1) is to be recorded."""
        return (step - 1) % self.every == 0

    def needs(self, *quantities: str) -> bool:
        """Whether any of these is to be recorded."""
        return any(name in self.quantities for name in quantities)

    def begin(self, layers: Sequence[LayerInfo], waiting: Callable[[], None] | None = None) -> None:
        """Say which layers there are, in the order of the forward pass.

        `waiting` is called before the record is read: it adds what an adapter still holds back.
        """
        self.layers = tuple(layers)
        if waiting is not None:
            self._waiting = waiting

    def spent(self, seconds: float) -> None:
        """Count time that recording took."""
        self._spent += seconds

    def add(
        self,
        steps: Sequence[int],
        groups: Sequence[tuple[Sequence[int], LayerArrays]],
        loss: Array,
        accuracy: Array,
    ) -> None:
        """Record some steps; the same `steps` object a second time is ignored.

        Parameters
        ----------
        steps : sequence of int
            Their numbers, from 1.
        groups : sequence of (positions, LayerArrays)
            Each with layers that are alike, by their positions among those announced in `begin`;
            the arrays' leading axes are steps, those layers, and members if there are any.
        loss, accuracy : array (steps,) or (steps, members)
            Their shape tells whether there are members; their numbers are recorded if wanted.
        """
        if steps is self._latest:  # an interrupt kept the caller from noting that it was added
            return
        shape = (len(steps), len(self.layers), *loss.shape[1:])
        found = {name: np.empty(shape) for name in self._per_layer()}
        if HISTOGRAM in self.quantities:
            found[HISTOGRAM] = np.empty((*shape, len(q.HISTOGRAM_EDGES)))
        for positions, arrays in groups:
            for name, values in measure(arrays, self.quantities).items():
                found[name][:, positions] = np.nan if values is None else values
        for name, values in (("loss", loss), ("accuracy", accuracy)):
            if self.needs(name):
                found[name] = np.array(values, dtype=np.float64)
        self._members = loss.shape[1:]
        self._added.append((list(steps), found))
        self._latest = steps
        if not self._nonfinite:
            known = loss if self.needs("loss") else np.zeros_like(loss)
            self._look_for_nonfinite(steps, groups, known, found.get("nonfinite_count"))

    def _per_layer(self) -> list[str]:
        return [name for name in self.quantities if name in PER_LAYER]

    def _look_for_nonfinite(
        self,
        steps: Sequence[int],
        groups: Sequence[tuple[Sequence[int], LayerArrays]],
        loss: Array,
        counts: Array | None,
    ) -> None:
        bad = ~np.isfinite(loss).reshape(len(steps), -1).all(axis=1)
        if counts is not None:
            bad |= counts.reshape(len(steps), -1).any(axis=1)
        if bad.any():
            at = int(bad.argmax())
            layers = {
                position: arrays.part(at, i)
                for positions, arrays in groups
                for i, position in enumerate(positions)
            }
            self._nonfinite = {
                "nonfinite_step": steps[at],
                **first_nonfinite(self.layers, [layers[i] for i in sorted(layers)]),
            }

    # --- reading ----------------------------------------------------------------------------------

    @property
    def n_steps(self) -> int:
        """Number of steps recorded so far."""
        self._waiting()
        return len(self._steps())

    def __getitem__(self, name: str) -> Array:
        """A quantity recorded so far, as a plain array: (steps, layers[, members]).

        Raises
        ------
        KeyError
            If it was not recorded.
        """
        self._waiting()
        if not self.needs(name):
            raise KeyError(f"{name!r} was not recorded; there are {', '.join(self.quantities)}")
        rows = [found[name] for _, found in self._added]
        return np.concatenate(rows) if rows else np.empty(0)

    def _steps(self) -> list[int]:
        return [number for steps, _ in self._added for number in steps]

    @property
    def overhead(self) -> float:
        """Share of the time since the recorder was made that recording took."""
        return self._spent / max(time.perf_counter() - self._started, 1e-12)

    def trace(
        self, attributes: Mapping[str, Any] | None = None, members: Sequence[int] | None = None
    ) -> Trace:
        """Everything recorded so far, as a Trace.

        Parameters
        ----------
        attributes : mapping, optional
            Facts about the run to keep with it.
        members : sequence of ints, optional
            Seeds of an ensemble's members; numbered from 0 if not given.

        Raises
        ------
        ValueError
            If no step has been recorded.
        """
        import xarray as xr

        from gradlab.trace import Trace

        self._waiting()
        if not self._added:
            raise ValueError("nothing has been recorded yet: no training step was completed")
        columns = {name: self[name] for name in self.quantities}
        ensemble = bool(self._members)
        dims = ("step", "layer", *(("member",) if ensemble else ()))
        variables: dict[str, Any] = {name: (dims, columns[name]) for name in self._per_layer()}
        variables |= {
            name: (("step", *dims[2:]), columns[name]) for name in PER_STEP if name in columns
        }
        coords: dict[str, Any] = {
            "step": np.array(self._steps()),
            "layer": [info.name for info in self.layers],
            "depth": ("layer", np.arange(1, len(self.layers) + 1)),
            "fan_in": ("layer", [info.fan_in for info in self.layers]),
            "fan_out": ("layer", [info.fan_out for info in self.layers]),
            "activation": ("layer", [info.activation for info in self.layers]),
        }
        if ensemble:
            coords["member"] = list(range(*self._members) if members is None else members)
        if HISTOGRAM in columns:
            variables[HISTOGRAM] = ((*dims, "bin"), columns[HISTOGRAM])
            coords["bin"] = q.HISTOGRAM_EDGES
        return Trace(
            xr.Dataset(
                variables,
                coords,
                {
                    **(attributes or {}),
                    "recording_overhead": self.overhead,
                    **self._nonfinite,
                },
            )
        )


def first_nonfinite(infos: Sequence[LayerInfo], layers: Sequence[LayerArrays]) -> dict[str, Any]:
    """Where in a step the first value that is not finite came up: forward, then backward.

    Returns
    -------
    dict
        `nonfinite_layer` (a name), `nonfinite_in` ("activation", "delta", "gradient" or
        "weight after the update") and `nonfinite_values` (their number in that array); or only
        `nonfinite_in`: "loss".
    """
    both = list(zip(infos, layers, strict=True))
    order: list[tuple[str, LayerInfo, Array | None]] = [
        ("activation", info, arrays.activation) for info, arrays in both
    ]
    for info, arrays in reversed(both):
        order += [("delta", info, arrays.delta), ("gradient", info, arrays.gradient)]
    order += [("weight after the update", info, arrays.weight_after) for info, arrays in both]
    for kind, info, array in order:
        count = 0 if array is None else int(np.sum(q.nonfinite_count(array)))
        if count:
            return {
                "nonfinite_layer": info.name,
                "nonfinite_in": kind,
                "nonfinite_values": count,
            }
    return {"nonfinite_in": "loss"}


def measure(arrays: LayerArrays, wanted: Collection[str]) -> dict[str, Array | None]:
    """The quantities wanted, of layers that are alike; the leading axes are kept.

    None for what cannot be had. (A histogram then counts nothing.)
    """
    gradient, delta, activation = arrays.gradient, arrays.delta, arrays.activation
    of_what: dict[str, tuple[Callable[..., Array], tuple[Array | None, ...]]] = {
        "grad_mean_abs": (q.mean_abs, (gradient,)),
        "grad_rms": (q.rms, (gradient,)),
        "grad_zero_fraction": (q.zero_fraction, (gradient,)),
        "delta_rms": (q.rms, (delta,)),
        "activation_mean": (q.mean, (activation,)),
        "activation_std": (q.std, (activation,)),
        "saturated_fraction": (q.saturated_fraction, (arrays.saturated, activation)),
        "dead_fraction": (q.dead_fraction, (arrays.reference_activation,)),
        "weight_rms": (q.rms, (arrays.weight,)),
        "update_ratio": (q.update_ratio, (arrays.weight, arrays.weight_after)),
        HISTOGRAM: (q.log10_histogram, (gradient,)),
    }
    found: dict[str, Array | None] = {
        name: None if any(x is None for x in given) else quantity(*given)
        for name, (quantity, given) in of_what.items()
        if name in wanted
    }
    if HISTOGRAM in found and gradient is None:
        found[HISTOGRAM] = np.zeros(1)
    if "nonfinite_count" in wanted:
        present = [x for x in (gradient, delta, activation, arrays.weight_after) if x is not None]
        found["nonfinite_count"] = np.sum([q.nonfinite_count(x) for x in present], axis=0)
    return found
