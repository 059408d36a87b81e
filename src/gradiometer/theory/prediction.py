"""Predict the gradient flow at the first step: from architecture, initialisation and data alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dp import activations
from dp.typing import Array
from gradiometer.theory import batches, doubts, finite_width, kernels, maps, variances
from gradiometer.theory.piecewise import is_scale_free

if TYPE_CHECKING:
    from gradiometer.data import Data
    from gradiometer.experiment import Experiment

BAND = 0.90  # share of nets that the band is to hold


class TheoryError(ValueError):
    """An experiment that the theory does not cover; names the setting, and what is accepted."""


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Prediction:
    """What each layer's activation, delta and gradient will be at the first step.

    Arrays have an entry per layer, from layer 1 to the output layer. They are in the units of what
    a run records: of the loss as the experiment has it.

    Attributes
    ----------
    layers : tuple of str
        Names, as in a trace.
    activation_mean_square : array
        Mean of φ(h)² over batch and units, at infinite width; of the output layer, of the
        probabilities, which are those of nets of the given width.
    gradient, gradient_low, gradient_high : arrays
        Mean |dL/dW| (`grad_mean_abs`): the median over nets, and the band that holds 90 % of them.
        Of nets simulated at initialisation.
    gradient_wide : array
        The median at infinite width, by theory.
    gradient_rms_wide : array
        The same of the rms of dL/dW (`grad_rms`).
    delta, delta_low, delta_high, delta_wide : arrays
        The rms of the delta (`delta_rms`), likewise.
    gradient_draws, delta_draws : arrays
        log10 of the virtual nets' mean |dL/dW| and rms of the delta, from which median and band
        are; a row per net.
    log_gain_variance : float
        β, the variance of the logarithm of what the hidden layers pass on of a squared gradient:
        see `finite_width.log_gain_variance`. The larger, the more of a net is chance.
    phase : Phase
        Fixed points, χ₁ and depth scales of the hidden layers.
    edge : Edge or None
        The edge of chaos of this activation function at the biases' variance.
    edge_scale : float
        The `init_scale` of the same initialiser that lies there; NaN if none does.
    simulated_width : int
        Units per hidden layer of the virtual nets; fewer than there are in nets too wide for it.
    doubts : tuple of str
        Why the prediction may be off by more than it promises; a sentence each, none as a rule.
    """

    experiment: Experiment
    layers: tuple[str, ...]
    activation_mean_square: Array
    gradient: Array
    gradient_low: Array
    gradient_high: Array
    gradient_wide: Array
    gradient_rms_wide: Array
    delta: Array
    delta_low: Array
    delta_high: Array
    delta_wide: Array
    gradient_draws: Array = field(repr=False)
    delta_draws: Array = field(repr=False)
    log_gain_variance: float
    phase: maps.Phase
    edge: maps.Edge | None
    edge_scale: float
    simulated_width: int
    doubts: tuple[str, ...]

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise TheoryError if these are not the layers that it is of."""
        if tuple(names) != self.layers:
            raise TheoryError(
                f"the prediction is of the layers {', '.join(self.layers)}, the trace has "
                f"{', '.join(names)}: predict the experiment that the trace is of"
            )

    @property
    def basis(self) -> str:
        """What median and band were taken from, in a sentence."""
        nets, width = len(self.gradient_draws), self.experiment.width
        text = f"Median and band: {nets} nets simulated at initialisation"
        if self.simulated_width < width:
            return f"{text}, of width {self.simulated_width} and scaled to {width}."
        return f"{text}, none of them trained."

    @property
    def hidden(self) -> int:
        """Number of hidden layers."""
        return len(self.layers) - 1

    @property
    def _activation(self) -> activations.Activation:
        return activations.get(self.experiment.activation, self.experiment.clip)

    @property
    def delta_factor(self) -> float:
        """By what the delta's rms is multiplied per layer on its way to the input; NaN if unknown.

        The geometric mean over the hidden layers; of a single one, from the output layer to it.
        """
        top, bottom = (self.delta[-2], self.delta[0]) if self.hidden > 1 else self.delta[::-1]
        if not (bottom > 0 and top > 0):
            return math.nan
        return float((bottom / top) ** (1 / max(self.hidden - 1, 1)))

    def slope(self, of: str = "gradient") -> tuple[float, float, float]:
        """Decades per layer by which a quantity grows from layer 2 to the last hidden layer.

        Parameters
        ----------
        of : "gradient" or "delta"

        Returns
        -------
        (float, float, float)
            The median over nets of each net's least-squares slope of log10, and the ends of its 90
            % band; NaN if there are fewer than two such layers, or most nets have zeros there.

        Raises
        ------
        ValueError
            For another quantity.
        """
        if of not in ("gradient", "delta"):
            raise ValueError(f"of must be 'gradient' or 'delta', got {of!r}")
        draws = (self.gradient_draws if of == "gradient" else self.delta_draws)[:, 1 : self.hidden]
        draws = draws[np.isfinite(draws).all(axis=1)]
        if draws.shape[1] < 2 or len(draws) < len(self.gradient_draws) / 2:
            return math.nan, math.nan, math.nan
        position = np.arange(draws.shape[1]) - (draws.shape[1] - 1) / 2
        slopes = draws @ position / (position @ position)
        low, middle, high = np.quantile(slopes, [(1 - BAND) / 2, 0.5, (1 + BAND) / 2])
        return float(middle), float(low), float(high)

    def table(self) -> list[dict[str, Any]]:
        """One row per layer: `layer`, `depth` (from 1), and the arrays' entries by their names."""
        names = (
            "activation_mean_square",
            "delta",
            "delta_low",
            "delta_high",
            "delta_wide",
            "gradient",
            "gradient_low",
            "gradient_high",
            "gradient_wide",
            "gradient_rms_wide",
        )
        return [
            {"layer": layer, "depth": i + 1}
            | {name: float(getattr(self, name)[i]) for name in names}
            for i, layer in enumerate(self.layers)
        ]

    def sentence(self) -> str:
        """Say what will happen, where χ₁ lies, how deep such nets train, and where the edge is."""
        parts = (self._flow(), *self.doubts, self._where(), self._cure())
        return " ".join(part for part in parts if part)

    def _flow(self) -> str:
        factor = self.delta_factor
        if math.isnan(factor):
            return "No gradient will reach layer 1: it is exactly zero in most nets."
        if abs(math.log(factor)) < 0.02:
            way = "keeps its size from layer to layer"
        elif factor < 1:
            way = f"shrinks by a factor of {1 / factor:.3g} per layer on its way to the input"
        else:
            way = f"grows by a factor of {factor:.3g} per layer on its way to the input"
        if self.gradient[0] == 0:
            return f"The delta {way}; dL/dW of layer 1 will be exactly zero in most nets."
        return (
            f"The delta {way}; mean |dL/dW| of layer 1 will be about {self.gradient[0]:.2g} "
            f"({BAND:.0%} of nets: {self.gradient_low[0]:.2g} to {self.gradient_high[0]:.2g})."
        )

    def _where(self) -> str:
        phase = self.phase
        chi = f"χ₁ = {phase.chi:.3g}"
        if math.isinf(phase.length) and not is_scale_free(self._activation):
            return (
                f"Pre-activations grow from layer to layer without end; only far along, {chi}, and "
                "nothing is known of how deep such nets train."
            )
        if self.gradient[0] == 0 or math.isnan(self.delta_factor):
            return f"{chi}, of wide nets."
        depth = phase.trainable_depth
        limit = f"such nets train to a depth of about {max(depth, 1):.0f} layers, as a guide"
        if phase.name == "edge of chaos":
            return f"{chi}, at the edge of chaos: with depth, deltas neither vanish nor explode."
        if phase.name == "ordered":
            return f"{chi}, below 1: with depth, inputs become alike and deltas vanish; {limit}."
        return f"{chi}, above 1: with depth, similar inputs grow apart and deltas explode; {limit}."

    def _cure(self) -> str:
        name = self.experiment.activation
        if self.edge is None:
            return f"No variance of the weights puts {name} at the edge of chaos."
        text = f"{name} is at the edge of chaos with σ_w² = {self.edge.weight_variance:.4g}"
        if not math.isnan(self.edge_scale):
            text += f": {self.experiment.init} weights with init_scale {self.edge_scale:.3g}"
        return (
            f"{text}." if self.edge.stable else f"{text}; but pre-activations do not settle there."
        )


def predict(experiment: Experiment) -> Prediction:
    """Predict a run's first step from its description.

    Parameters
    ----------
    experiment : Experiment
        Steps, optimiser, seed, members, dtype and what is recorded make no difference.

    Returns
    -------
    Prediction
        Of the distribution over seeds: promises nothing about one net. The same experiment gives
        the same prediction.

    Raises
    ------
    TheoryError
        If the experiment normalises or has residual connections, or if its pre-activations are too
        large for a double.
    """
    check(experiment)
    return of_data(experiment, experiment.load_data())


def check(experiment: Experiment) -> None:
    """Raise TheoryError for an experiment that the theory does not cover."""
    if experiment.normalisation != "none":
        raise TheoryError(
            f"normalisation: the theory covers 'none' alone, got {experiment.normalisation!r}"
        )
    if experiment.residual:
        raise TheoryError("residual: the theory covers nets without residual connections, got True")


def of_data(experiment: Experiment, data: Data) -> Prediction:
    """Predict a run on data of one's own; see `predict`."""
    check(experiment)
    activation = activations.get(experiment.activation, experiment.clip)
    layers = variances.of_net(experiment, data.n_features, data.n_outputs)
    rows = batches.of_data(data, experiment.batch_size)
    with np.errstate(over="ignore"):
        try:
            net = kernels.of_batch(rows.x, layers, activation)
        except ValueError:
            raise TheoryError(
                "the pre-activations' variance is beyond what a double can hold; use fewer layers, "
                "smaller weights (init_scale) or scaled features"
            ) from None
    loss = batches.Loss(experiment.loss, experiment.reduction)
    draws = finite_width.draw(net, activation, rows, data, loss)
    gradient, delta = _band(draws.gradient), _band(draws.delta)
    hidden = variances.of_layer(
        experiment.init, experiment.width, experiment.width, experiment.init_scale
    )
    edge = maps.edge_of_chaos(activation, hidden.bias)
    lengths = [float(np.diag(k).mean()) for k in net.pre]
    beta = finite_width.log_gain_variance(activation, lengths[:-1], experiment.width)
    return Prediction(
        experiment,
        (*(f"h{i}" for i in range(1, experiment.layers + 1)), "out"),
        np.array([*(np.diag(c).mean() for c in net.inputs[1:]), draws.output_mean_square]),
        gradient[1],
        gradient[0],
        gradient[2],
        10.0**draws.gradient_wide,
        10.0**draws.gradient_rms_wide,
        delta[1],
        delta[0],
        delta[2],
        10.0**draws.delta_wide,
        draws.gradient,
        draws.delta,
        beta,
        maps.phase(activation, hidden.weight, hidden.bias),
        edge,
        _edge_scale(edge, hidden.weight / experiment.init_scale**2),
        draws.width,
        doubts.of_draws(draws, beta, experiment, max(lengths)),
    )


def _band(draws: Array) -> Array:
    """Lower end, median and upper end of the band, from draws of log10: (3, layers)."""
    tail = (1 - BAND) / 2
    # no interpolation: between -inf and a number there is none
    ends = np.quantile(draws, [tail, 0.5, 1 - tail], axis=0, method="inverted_cdf")
    return np.asarray(10.0**ends)


def _edge_scale(edge: maps.Edge | None, weight_variance: float) -> float:
    if edge is None or weight_variance == 0:
        return math.nan
    return math.sqrt(edge.weight_variance / weight_variance)
