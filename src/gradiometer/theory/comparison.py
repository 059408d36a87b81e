"""How a measured first step compares with what was predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dp.typing import Array
from gradiometer.states import State
from gradiometer.theory.prediction import BAND, Prediction, TheoryError

if TYPE_CHECKING:
    from gradiometer.trace import Trace

WELL, ROUGHLY = 0.15, 0.5  # decades by which the median may differ, over the layers on average
HELD = 0.8  # share of the nets in the 90 % band above which a prediction counts as good
FEWEST = 20  # nets whose median says more than that of one


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measured mean |dL/dW| at the first step against its prediction.

    Attributes
    ----------
    error : array
        Of each layer, log10 of the measured median over nets minus log10 of the predicted one, in
        decades. 0 where both are zero, -inf where only what was measured is, inf where only what
        was predicted is; NaN where the median is not finite.
    inside : array
        Of each layer, the share of the nets that lie in the predicted 90 % band.
    nets : int
    layers : tuple of str
    doubts : tuple of str
        Why the prediction may be off; see `Prediction`.
    """

    error: Array
    inside: Array
    nets: int
    layers: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def mean_error(self) -> float:
        """Mean of |error| over the layers, in decades."""
        return float(np.abs(self.error).mean())

    @property
    def coverage(self) -> float:
        """Share of all nets and layers inside the band."""
        return float(self.inside.mean())

    def sentence(self) -> str:
        """Say how good the prediction was, and why it may be unreliable."""
        return " ".join((self._how_well(), *self.doubts))

    def _how_well(self) -> str:
        if self.nets == 1:
            count = int(self.inside.sum())
            told = (
                f"mean |dL/dW| of {count} of {len(self.layers)} layers lies in its {BAND:.0%} band"
            )
        else:
            told = (
                f"{self.coverage:.0%} of the layers' mean |dL/dW| in {self.nets} nets lie in the "
                f"{BAND:.0%} band"
            )
        if self.nets < FEWEST:
            return f"Prediction from the initial weight distribution: {told}."
        if not np.isfinite(self.error).all():
            return f"Predicted badly: {self._without_number()}; {told}."
        return (
            f"Predicted {self._how()} from the initial weight distribution: the medians differ by "
            f"{self.mean_error:.2f} decades on average, and {told}."
        )

    def _how(self) -> str:
        if self.mean_error <= WELL and self.coverage >= HELD:
            return "well"
        return "roughly" if self.mean_error <= ROUGHLY else "badly"

    def _without_number(self) -> str:
        """Where median and prediction have no distance, and why."""
        cases = (
            ("is zero, but was predicted not to be", np.isneginf(self.error)),
            ("is not zero, but was predicted to be", np.isposinf(self.error)),
            ("is not finite", np.isnan(self.error)),
        )
        return "; ".join(
            f"the median in {', '.join(np.array(self.layers)[where])} {what}"
            for what, where in cases
            if where.any()
        )


def compare(prediction: Prediction, trace: Trace) -> Comparison:
    """Compare a prediction with the first step of a run of the same experiment.

    Parameters
    ----------
    prediction : Prediction
    trace : Trace
        With `grad_mean_abs`; its first recorded step must be step 1.

    Raises
    ------
    TheoryError
        If the trace is of other layers, does not begin with step 1, or has no such quantity, in
        all layers.
    """
    prediction.check_layers(trace.layers)
    first = int(trace.dataset["step"].values[0])
    if first != 1 or "grad_mean_abs" not in trace.dataset:
        raise TheoryError(
            "the prediction is of mean |dL/dW| at step 1, the trace "
            + (f"begins with step {first}" if first != 1 else "has no grad_mean_abs")
        )
    missing = trace.status("grad_mean_abs").values[0] == State.MISSING
    for layer, some in zip(trace.layers, missing.reshape(len(missing), -1), strict=True):
        if some.any():
            why = trace.why("grad_mean_abs", layer)
            raise TheoryError(f"the trace has no mean |dL/dW| of layer {layer!r} at step 1: {why}")
    values = np.atleast_2d(trace["grad_mean_abs"].values[0].T).T  # (layers, nets)
    low, high = prediction.gradient_low[:, None], prediction.gradient_high[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        median = np.median(values, axis=1)
        error = np.log10(median) - np.log10(prediction.gradient)
    error = np.where(np.isfinite(median), error, np.nan)
    error[(median == 0) & (prediction.gradient == 0)] = 0.0
    inside = ((low <= values) & (values <= high)).mean(axis=1)
    return Comparison(error, inside, values.shape[1], prediction.layers, prediction.doubts)
