"""Recorder: collects the quantities of every layer, step by step, for any framework.

An adapter hands over arrays (`LayerArrays`); what is computed from them is decided here, once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    """One layer's arrays in one step; None for what cannot be had, which is recorded as NaN.

    Attributes
    ----------
    gradient, weight : array (…, fan_in, fan_out)
        dL/dW, and W before the update.
    delta, activation : array (…, batch, units)
        dL/d(pre-activation) and φ(pre-activation) of the training batch.
    saturated : boolean array (…, batch, units)
    reference_activation : array (…, samples, units)
        φ on the reference batch, for dead units.
    """

    gradient: Array | None
    weight: Array
    delta: Array | None = None
    activation: Array | None = None
    saturated: NDArray[np.bool_] | None = None
    reference_activation: Array | None = None


class Recorder:
    """Buffers of every quantity, valid after any number of steps.

    Parameters
    ----------
    every : int
        Record every k-th step, starting with the first.
    histograms : bool
        Record log10 histograms of the gradients too.
    """

    def __init__(self, every: int = 1, histograms: bool = False) -> None:
        if every < 1:
            raise ValueError(f"every must be an integer of at least 1, got {every!r}")
        self.every, self.histograms = every, histograms
        self.layers: tuple[LayerInfo, ...] = ()
        self._rows: dict[str, list[Array]] = {}
        self._steps: list[int] = []
        self._nonfinite: dict[str, Any] = {}
        self._started = time.perf_counter()
        self._spent = 0.0

    # --- filling ----------------------------------------------------------------------------------

    def wants(self, step: int) -> bool:
        """Whether step number `step` (from 1) is to be recorded."""
        return (step - 1) % self.every == 0

    def begin(self, layers: Sequence[LayerInfo]) -> None:
        """Say which layers there are, in the order of the forward pass."""
        self.layers = tuple(layers)
        names = [*PER_LAYER, *PER_STEP, *([HISTOGRAM] if self.histograms else [])]
        self._rows = {name: [] for name in names}

    def spent(self, seconds: float) -> None:
        """Count time that recording took."""
        self._spent += seconds

    def add(
        self,
        step: int,
        layers: Sequence[LayerArrays],
        after: Sequence[Array],
        loss: Any,
        accuracy: Any,
    ) -> None:
        """Record one step.

        Parameters
        ----------
        step : int
            From 1.
        layers : sequence of LayerArrays
            As announced in `begin`.
        after : sequence of arrays
            Each layer's weight after the update.
        loss, accuracy : number or array (members,)
        """
        measured = [
            measure(arrays, weight, self.histograms)
            for arrays, weight in zip(layers, after, strict=True)
        ]
        for name in self._rows:
            if name in measured[0]:
                self._rows[name].append(np.stack([layer[name] for layer in measured]))
        self._rows["loss"].append(np.asarray(loss, dtype=np.float64))
        self._rows["accuracy"].append(np.asarray(accuracy, dtype=np.float64))
        self._steps.append(step)
        if not self._nonfinite and not self._all_finite():
            self._nonfinite = {
                "nonfinite_step": step,
                **first_nonfinite(self.layers, layers, after),
            }

    def _all_finite(self) -> bool:
        latest = (self._rows["nonfinite_count"][-1], self._rows["loss"][-1])
        return not latest[0].any() and bool(np.isfinite(latest[1]).all())

    # --- reading ----------------------------------------------------------------------------------

    @property
    def n_steps(self) -> int:
        """Number of steps recorded so far."""
        return len(self._steps)

    @property
    def latest_accuracy(self) -> float:
        """Accuracy of the latest step recorded, mean over members; NaN before the first."""
        return float(self._rows["accuracy"][-1].mean()) if self._steps else float("nan")

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

        if not self._steps:
            raise ValueError("nothing has been recorded yet: no training step was completed")
        # steps are noted last, so an interrupt in the middle of `add` leaves only a row to cut off
        count = len(self._steps)
        columns = {name: np.stack(rows[:count]) for name, rows in self._rows.items()}
        ensemble = columns["loss"].ndim > 1
        dims = ("step", "layer", *(("member",) if ensemble else ()))
        variables: dict[str, Any] = {name: (dims, columns[name]) for name in PER_LAYER}
        variables |= {name: (("step", *dims[2:]), columns[name]) for name in PER_STEP}
        coords: dict[str, Any] = {
            "step": np.array(self._steps),
            "layer": [info.name for info in self.layers],
            "depth": ("layer", np.arange(1, len(self.layers) + 1)),
            "fan_in": ("layer", [info.fan_in for info in self.layers]),
            "fan_out": ("layer", [info.fan_out for info in self.layers]),
            "activation": ("layer", [info.activation for info in self.layers]),
        }
        if ensemble:
            size = columns["loss"].shape[1]
            coords["member"] = list(range(size) if members is None else members)
        if self.histograms:
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


def first_nonfinite(
    infos: Sequence[LayerInfo], layers: Sequence[LayerArrays], after: Sequence[Array]
) -> dict[str, Any]:
    """Where in a step the first value that is not finite came up: forward, then backward.

    Returns
    -------
    dict
        `nonfinite_layer` (a name), `nonfinite_in` ("activation", "delta", "gradient" or
        "weight after the update") and `nonfinite_values` (their number in that array); or only
        `nonfinite_in`: "loss".
    """
    forward = list(zip(infos, layers, after, strict=True))
    order: list[tuple[str, LayerInfo, Array | None]] = [
        ("activation", info, arrays.activation) for info, arrays, _ in forward
    ]
    for info, arrays, _ in reversed(forward):
        order += [("delta", info, arrays.delta), ("gradient", info, arrays.gradient)]
    order += [("weight after the update", info, weight) for info, _, weight in forward]
    for kind, info, array in order:
        count = 0 if array is None else int(np.sum(q.nonfinite_count(array)))
        if count:
            return {
                "nonfinite_layer": info.name,
                "nonfinite_in": kind,
                "nonfinite_values": count,
            }
    return {"nonfinite_in": "loss"}


def measure(arrays: LayerArrays, after: Array, histogram: bool = False) -> dict[str, Array]:
    """Every quantity of one layer in one step; shapes as in `quantities`."""
    gradient, delta, activation = arrays.gradient, arrays.delta, arrays.activation
    missing = np.full(arrays.weight.shape[:-2], np.nan)
    present = [x for x in (gradient, delta, activation, after) if x is not None]
    found = {
        "grad_mean_abs": missing if gradient is None else q.mean_abs(gradient),
        "grad_rms": missing if gradient is None else q.rms(gradient),
        "grad_zero_fraction": missing if gradient is None else q.zero_fraction(gradient),
        "delta_rms": missing if delta is None else q.rms(delta),
        "activation_mean": missing if activation is None else q.mean(activation),
        "activation_std": missing if activation is None else q.std(activation),
        "saturated_fraction": (
            missing
            if arrays.saturated is None or activation is None
            else q.saturated_fraction(arrays.saturated, activation)
        ),
        "dead_fraction": (
            missing
            if arrays.reference_activation is None
            else q.dead_fraction(arrays.reference_activation)
        ),
        "weight_rms": q.rms(arrays.weight),
        "update_ratio": q.update_ratio(arrays.weight, after),
        "nonfinite_count": np.sum([q.nonfinite_count(x) for x in present], axis=0),
    }
    found = {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}
    if histogram:
        counts = len(q.HISTOGRAM_EDGES)
        found[HISTOGRAM] = (
            np.zeros((*missing.shape, counts)) if gradient is None else q.log10_histogram(gradient)
        )
    return found
