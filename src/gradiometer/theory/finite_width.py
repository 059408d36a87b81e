"""What a finite width does to the gradient: its distribution over the nets that could be drawn.

At infinite width a layer's kernels are fixed numbers; with n units they are means over n draws, and
what a layer gains or loses by chance multiplies from layer to layer. For one input and relu the
gain is known exactly: Π (2/n) χ²_k with k ~ Bin(n, ½), about log-normal with variance 5/n per layer
(Hanin & Nica 2020). For whole batches and any activation function it is found by simulation, of
nets at initialisation (`virtual`). Where nets of the true width would take too long, narrower
ones stand in, and how they differ from infinite width is scaled down to the true one: medians as
1/n, variances as 1/n, which is the first order of an expansion in 1/n. Nothing is fitted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dp.activations import Activation
from dp.typing import Array
from gradiometer.theory import batches, infinite_width, moments, virtual
from gradiometer.theory.kernels import Kernels
from gradiometer.theory.variances import LayerVariances

if TYPE_CHECKING:
    from gradiometer.data import Data

_WORK = 2.5e9  # nanoseconds that virtual nets may take, about: so many nets are drawn
_MOST_WORK = 6e9  # and if those are fewer than `_FEWEST`, or their medians uncertain
_FEWEST, _MOST = 500, 4000  # virtual nets
_CERTAIN = 0.03  # decades: medians known so well need no more nets
_NARROWEST = 32  # of nets that stand in for wider ones
_WIDE = 48  # units from which on single precision does, where layers are not saturated


# --- a single input -------------------------------------------------------------------------------


def log_gain_variance(activation: Activation, lengths: Sequence[float], width: int) -> float:
    """β = Σ_l (3 κ_4 - 1)/n: variance of ln ‖J u‖² of the Jacobian J of layers of n units each.

    κ_4 = E φ'⁴ / (E φ'²)² at each layer's variance of pre-activations; normal weights, one input.
    For relu κ_4 = 2, and β = 5 L/n (Hanin 2018; Hanin & Nica 2020). The mean of ln ‖J u‖² lies β/2
    below the logarithm of its mean, so the median of a norm is its rms times exp(-β/4), and the
    standard deviation of its log10 is √β / (2 ln 10).
    """
    q = np.asarray(lengths, dtype=np.float64)
    square = moments.mean_square_slope(activation, q) ** 2
    passing = square > 0  # where nothing passes, nothing is left to chance
    fourth = moments.mean_fourth_slope(activation, q)[passing] / square[passing]
    return float(((3 * fourth - 1) / width).sum())


def relu_log_gains(width: int, depth: int, draws: int, rng: np.random.Generator) -> Array:
    """Draws of ln ‖J u‖² of a relu net with He's normal weights: its exact law, (draws,).

    A product over layers of (2/n) χ²_k, k ~ Bin(n, ½) (Hanin & Nica 2020); -inf where a whole layer
    is off.
    """
    active = rng.binomial(width, 0.5, (draws, depth))
    chi_square = np.where(active > 0, rng.chisquare(np.maximum(active, 1)), 0.0)
    with np.errstate(divide="ignore"):
        gains: Array = np.log(2 / width * chi_square).sum(axis=1)
    return gains


def born_dead(widths: Sequence[int]) -> float:
    """Probability that a relu net is constant before it is trained: 1 - Π (1 - 2^-n).

    Over hidden layers of n units each, of weights (and no biases) as likely positive as negative,
    and for one input: there is a layer of which no unit is on. For several inputs, that they all
    are off is less likely, and this an upper bound (Lu et al. 2019).
    """
    alive = 1.0
    for width in widths:
        alive *= 1.0 - 0.5**width
    return 1.0 - alive


# --- a batch --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Draws:
    """Of virtual nets, at their first step; log10, -inf where it is zero.

    Attributes
    ----------
    gradient, delta : arrays (nets, layers)
        log10 of mean |dL/dW|, and of the rms of the delta.
    gradient_wide, gradient_rms_wide, delta_wide : arrays (layers,)
        log10 of the medians at infinite width, of mean |dL/dW|, of its rms, and of the delta's rms.
    output_mean_square : float
        Of the net's probabilities.
    width : int
        Of the hidden layers that were simulated.
    extrapolated : float
        By how many decades medians were moved from that width to the true one: the mean over the
        layers, of mean |dL/dW| or the delta, whichever is more. 0 at the true width.
    rows : int
        Different rows that stood for the batch, if it has more; else 0.
    """

    gradient: Array
    delta: Array
    gradient_wide: Array
    gradient_rms_wide: Array
    delta_wide: Array
    output_mean_square: float
    width: int
    extrapolated: float
    rows: int


def draw(
    kernels: Kernels,
    activation: Activation,
    rows: batches.Batches,
    data: Data,
    loss: batches.Loss,
    seed: int = 0,
) -> Draws:
    """Draw nets of finite width, and the medians at infinite width.

    Parameters
    ----------
    kernels : Kernels
        Of the rows of the batches.
    activation : Activation
    rows : Batches
    data : Data
        Of which the rows are all or a selection.
    loss : Loss
    seed : int
        The same seed gives the same draws.
    """
    wide = infinite_width.draw(kernels, activation, rows, loss, seed=seed)
    single = _single_does(kernels, activation)
    drawn_from = batches.of_data(data, rows.size, selection=False)
    if virtual.work(drawn_from.rows, kernels.layers, single) * _FEWEST > _MOST_WORK:
        drawn_from = rows if rows.rows < drawn_from.rows else drawn_from
    width, nets = plan(drawn_from.rows, kernels.layers, single)
    layers = _of_width(kernels.layers, width)
    found = virtual.draw(drawn_from, layers, activation, loss, nets, single=single, seed=seed)
    most = min(_MOST, int(_MOST_WORK / virtual.work(drawn_from.rows, layers, single)))
    if nets < most and _uncertain(found):
        more = virtual.draw(
            drawn_from, layers, activation, loss, most - nets, single=single, seed=seed + 1
        )
        found = virtual.both(found, more)
    gradient, delta, moved = found.gradient, found.delta, 0.0
    share = width / kernels.layers[0].fan_out
    if share < 1:
        # what hidden layers are sent has variance 1/n
        smaller = 0.5 * math.log10(share) * (np.arange(gradient.shape[1]) < gradient.shape[1] - 1)
        gradient, delta = (
            _widened(narrow + smaller, large, share)
            for narrow, large in ((gradient, wide.gradient), (delta, wide.delta))
        )
        moved = max(
            _distance(gradient, found.gradient + smaller), _distance(delta, found.delta + smaller)
        )
    return Draws(
        gradient,
        delta,
        np.median(wide.gradient, axis=0),
        np.median(wide.gradient_rms, axis=0),
        np.median(wide.delta, axis=0),
        found.output_mean_square,
        width,
        moved,
        0 if drawn_from.whole else drawn_from.rows,
    )


def median_uncertainty(draws: Array, measured: int | None = None) -> Array:
    """How far a median may lie from that of all nets, of each layer: half a 90 % interval.

    From order statistics, so that no law of the draws is taken for granted.

    Parameters
    ----------
    draws : array (nets, layers)
        log10; where the interval has an end at -inf, it is inf.
    measured : int, optional
        The median of so many other nets is compared with that of the draws; neither is exact.
    """
    part = 1 / len(draws) + (1 / measured if measured else 0.0)
    reach = min(0.5 * 1.645 * math.sqrt(part), 0.5)
    low, high = np.quantile(draws, [0.5 - reach, 0.5 + reach], axis=0, method="inverted_cdf")
    both_zero = np.isneginf(low) & np.isneginf(high)
    with np.errstate(invalid="ignore"):
        return np.where(both_zero, 0.0, (high - low) / 2)


def _uncertain(found: virtual.VirtualNets) -> bool:
    return any(
        median_uncertainty(draws).mean() > _CERTAIN for draws in (found.gradient, found.delta)
    )


def plan(rows: int, layers: Sequence[LayerVariances], single: bool = False) -> tuple[int, int]:
    """Width of the nets to be simulated, and how many there is time for."""
    width = layers[0].fan_out
    each = virtual.work(rows, layers, single)
    while each * _FEWEST > _MOST_WORK and width > _NARROWEST:
        width = max(_NARROWEST, int(0.9 * width))
        each = virtual.work(rows, _of_width(layers, width), single)
    return width, int(np.clip(_WORK / each, _FEWEST, _MOST))


def _of_width(layers: Sequence[LayerVariances], width: int) -> list[LayerVariances]:
    """The same, σ_w² and σ_b² included, with hidden layers of so many units."""
    return [
        dataclasses.replace(
            layer,
            fan_in=width if i else layer.fan_in,
            fan_out=width if i < len(layers) - 1 else layer.fan_out,
        )
        for i, layer in enumerate(layers)
    ]


def _single_does(kernels: Kernels, activation: Activation) -> bool:
    """Whether single precision will do.

    Not for pre-activations beyond it, nor in layers so saturated that a few units make the
    gradient: there slopes differ from zero by less than single precision tells.
    """
    width = kernels.layers[0].fan_out
    lengths = [float(np.diag(k).mean()) for k in kernels.pre[:-1]]
    if width < _WIDE or max(lengths) > 1e12:
        return False
    return max(log_gain_variance(activation, [q], width) for q in lengths) < 0.25


def _widened(narrow: Array, wide: Array, share: float) -> Array:
    """Draws of log10 at the true width, from those of a narrower net and of infinite width.

    Between the two a quantile's distance from the median goes as a standard deviation does whose
    square has a part in 1/n. Each net keeps its rank in each layer.

    Parameters
    ----------
    narrow, wide : arrays (nets, layers)
        Numbers of nets may differ.
    share : float
        Narrow width over true width.
    """
    moved = narrow.copy()
    at = (np.arange(len(narrow)) + 0.5) / len(narrow)
    for layer in range(narrow.shape[1]):
        column = narrow[:, layer]
        if not (np.isfinite(column).all() and np.isfinite(wide[:, layer]).all()):
            continue
        there = np.quantile(wide[:, layer], at, method="hazen")
        order = column.argsort()
        here = column[order]
        middle, far = np.median(here), np.median(there)
        squares = (1 - share) * (there - far) ** 2 + share * (here - middle) ** 2
        centre = far + share * (middle - far)
        moved[order, layer] = centre + np.sign(at - 0.5) * np.sqrt(squares)
    return moved


def _distance(first: Array, second: Array) -> float:
    """Mean over the layers of how far the medians of log10 lie apart; of layers with numbers."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.median(first, axis=0) - np.median(second, axis=0))
    return float(apart[np.isfinite(apart)].mean()) if np.isfinite(apart).any() else 0.0
