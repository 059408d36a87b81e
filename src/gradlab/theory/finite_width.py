"""What a finite width does to the gradient: its distribution over the nets that could be drawn.

At infinite width a layer's kernels are fixed numbers; with n units they are means over n draws, and
what a layer gains or loses by chance multiplies from layer to layer. For one input and relu the
gain is known exactly: Π (2/n) χ²_k with k ~ Bin(n, ½), about log-normal with variance 5/n per layer
(Hanin & Nica 2020). Here that law is carried over to any activation function and to whole batches:
with units i of a layer k drawn from its infinite-width law,

    mean square of dW^l  =  own layers' matrix  ·  Π_k  (1/n) Σ_i t_i / E t,

where t_i is what unit i adds to it, to first order in the layer's kernel: on the way back, t_i =
δ_iᵀ M δ_i with M = C^{l-1} ∘ D^l ∘ … ∘ D^{k-1} for the layers k above l; on the way forward, x_iᵀ M
x_i with M the derivative of Σ_ab e_a·e_b G^l_ab C^{l-1}_ab with respect to C^k, by way of the
activations below layer l and of the slopes above it. Layers count as independent of each other, and
weights on the way back as independent of those forward. The weights' own law (uniform, orthogonal)
is kept in how units mix those of the layer beside them. Nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dp.activations import Activation
from gradlab.theory import moments
from gradlab.theory.batches import Batches, errors, probabilities
from gradlab.theory.kernels import (
    Kernels,
    delta_mean_square,
    forms,
    gradient_mean_square,
    quadratic,
)
from gradlab.theory.moments import Array
from gradlab.theory.variances import Law

MOST_UNITS = 32  # drawn per layer; fluctuations of wider ones are these, scaled as 1/√n
_MODES = (
    4  # of a kernel, in which units mix by weights of the true law; in the others by normal ones
)
_NUMBERS = 2_000_000  # drawn at a time, so that they stay in the cache
_LEVELS = 4000  # errors drawn, of which the nets get every k-th
_LEVELS_WORK = 4e8  # products made for that: a third of a second
_LEAST = 1e-3  # a change of scale takes away no more than all but so much


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


@dataclass(frozen=True)
class Draws:
    """Of virtual nets, at their first step; log10, -inf where it is zero.

    Attributes
    ----------
    gradient, delta : arrays (nets, layers)
        log10 of mean |dL/dW|, and of the rms of the delta.
    gradient_wide, delta_wide : arrays (layers,)
        log10 of the median at infinite width, where nets differ in their errors alone.
    gradient_rms_wide : array (layers,)
        The same of the rms of dL/dW.
    output_mean_square : float
        Of the net's probabilities.
    """

    gradient: Array
    delta: Array
    gradient_wide: Array
    delta_wide: Array
    gradient_rms_wide: Array
    output_mean_square: float


@dataclass(frozen=True)
class Loss:
    """What of an experiment makes errors of logits."""

    name: Literal["cross_entropy", "squared_error"]
    reduction: Literal["sum", "mean"]


def draw(
    kernels: Kernels, activation: Activation, batches: Batches, loss: Loss, nets: int, seed: int = 0
) -> Draws:
    """Draw virtual nets.

    Their errors are stratified: of many more, sorted by the gradient they would cause at infinite
    width, every k-th.

    Parameters
    ----------
    kernels : Kernels
        Of the rows of the batches.
    activation : Activation
    batches : Batches
    loss : Loss
    nets : int
        How many.
    seed : int
        The same seed gives the same draws.
    """
    rng = np.random.default_rng(seed)
    law = _ProductLaw(kernels, activation, batches)
    rows, outputs = batches.y.shape
    work = rows**2 * outputs * len(kernels.layers)
    many = nets * int(np.clip(_LEVELS_WORK / work / nets, 1, _LEVELS // nets + 1))
    logits = law.logits(rng, many)
    error = errors(logits, batches.y, loss.name, loss.reduction, batches.size)
    counts = batches.counts(rng, many)
    square = gradient_mean_square(kernels, error * counts[..., None])
    delta_square = delta_mean_square(kernels, error, counts)
    every = many // nets
    order = np.log(np.maximum(square, np.finfo(float).tiny)).sum(axis=1).argsort()
    chosen = rng.permutation(order[every // 2 :: every])
    error, counts = error[chosen], counts[chosen]
    at_once = max(1, int(_NUMBERS / (law.units * rows * len(kernels.layers))))
    parts = [
        law.draw(
            rng, error[i : i + at_once], counts[i : i + at_once], square[chosen][i : i + at_once]
        )
        for i in range(0, nets, at_once)
    ]
    own, own_delta, gain, gain_delta = (np.concatenate([p[i] for p in parts]) for i in range(4))
    level, level_delta = np.sqrt(square[chosen]), np.sqrt(delta_square[chosen])
    kappa = _ratio(own, level).mean(axis=0)
    own = law.as_wide_as_it_is(own, kappa * level)
    own_delta = law.as_wide_as_it_is(own_delta, level_delta)
    with np.errstate(divide="ignore"):
        wide = 0.5 * np.log10(np.median(square, axis=0))
        return Draws(
            np.log10(own) + gain / math.log(10),
            np.log10(own_delta) + gain_delta / math.log(10),
            wide + np.log10(kappa),
            0.5 * np.log10(np.median(delta_square, axis=0)),
            wide,
            float((probabilities(logits) ** 2).mean()),
        )


class _ProductLaw:
    """The kernels' factors, made once; and draws from them."""

    def __init__(self, kernels: Kernels, activation: Activation, batches: Batches) -> None:
        self.kernels, self.activation, self.batches = kernels, activation, batches
        self.hidden = len(kernels.slopes)
        self.width = kernels.layers[0].fan_out
        self.units = min(self.width, MOST_UNITS)
        self.shrink = math.sqrt(self.units / self.width)
        self.modes_in = [_modes(c) for c in kernels.inputs]
        self.modes_back = [_modes(p) for p in kernels.back]

    def logits(self, rng: np.random.Generator, nets: int) -> Array:
        """Of virtual nets, (nets, rows, outputs)."""
        kernels, layer = self.kernels, self.kernels.layers[-1]
        below = _modes(kernels.pre[-2]).normal(rng, nets, self.units)
        units = np.asarray(self.activation(below))
        weights = _weights(rng, nets, layer.fan_out, self.units, layer.law)
        mixed = _mix(rng, units, self.modes_in[-1], weights)
        bias = rng.uniform(-1, 1, (nets, layer.fan_out, 1)) * math.sqrt(3 * layer.bias)
        return (math.sqrt(layer.weight) * mixed + bias).transpose(0, 2, 1)

    def draw(
        self, rng: np.random.Generator, error: Array, counts: Array, square: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Of nets with these errors, (nets, layers) each.

        Mean |dW| and the rms of δ, from units of the layers at hand alone; then ln of what the
        other layers make of each.
        """
        into = self.batches.x.T[None]
        pre, units = self._forward(rng, len(error))
        deltas = self._backward(rng, pre, error)
        own, own_delta, gain, gain_delta = np.zeros((4, len(error), self.hidden + 1))
        for i in range(self.hidden + 1):
            products = (deltas[i] * counts[:, None]) @ into.transpose(0, 2, 1)
            own[:, i] = np.abs(products).mean((1, 2))
            squares = (deltas[i] ** 2 @ counts[..., None]).mean((1, 2)) / self.batches.size
            own_delta[:, i] = np.sqrt(squares)
            self._add_above(i, deltas, counts, error, gain, gain_delta)
            self._add_below(i, units, error * counts[..., None], square, gain)
            if i < self.hidden:
                into = units[i]
        return own, own_delta, gain, gain_delta

    def as_wide_as_it_is(self, own: Array, mean: Array) -> Array:
        """Let what was drawn with fewer units than there are vary around its mean by less."""
        return mean * (1 + (_ratio(own, mean) - 1) * self.shrink)

    def _add_above(
        self,
        i: int,
        deltas: list[Array],
        counts: Array,
        error: Array,
        gain: Array,
        gain_delta: Array,
    ) -> None:
        """The factors of the layers that the message passed before it came to layer i."""
        weighted = error * counts[..., None]
        m, chain = self.kernels.inputs[i], np.ones(counts.shape[1])
        size = counts * (error**2).sum(axis=-1)
        for k in range(i + 1, self.hidden):
            m = m * self.kernels.slopes[k - 1]
            rows = deltas[k] * counts[:, None]
            ours = forms(m, rows).mean(1)
            theirs = quadratic(m * self.kernels.per_unit_error(k), weighted)
            gain[:, i] += 0.5 * self._log(_ratio(ours - theirs, theirs))
            chain = chain * np.diag(self.kernels.slopes[k - 1])
            ours = (deltas[k] ** 2 @ (counts * chain)[..., None]).mean((1, 2))
            theirs = size @ (chain * np.diag(self.kernels.per_unit_error(k)))
            gain_delta[:, i] += 0.5 * self._log(_ratio(ours - theirs, theirs))

    def _add_below(
        self, i: int, units: list[Array], weighted: Array, square: Array, gain: Array
    ) -> None:
        """The factors of the layers whose signal bears on layer i.

        The derivative of Σ_ab e_a·e_b G^i_ab C^{i-1}_ab with respect to each C^k, from the top
        down: e_a·e_b M_ab for products of two rows, `by_variance` for the square of one. K^k passes
        it on to C^k and, where the message to layer i passes it, to D^k.
        """
        kernels = self.kernels
        whole = kernels.per_unit_error(i) * kernels.inputs[i]
        m, by_variance = np.zeros_like(whole), np.zeros(weighted.shape[:2])
        for k in range(self.hidden - 1, 0, -1):
            if k == i - 1:
                m = m + kernels.per_unit_error(i)
            d, answer, variance = kernels.slopes[k], kernels.responses[k], kernels.layers[k].weight
            by_variance = by_variance * np.diag(d + answer.curvatures)
            own, m = m * answer.curvatures, m * d
            if k >= i:
                part = _ratio(whole, d)
                own, m = own + part * answer.turns, m + part * answer.bends
            m = variance * m
            by_variance += (weighted * np.matmul(own, weighted)).sum(axis=-1)
            by_variance *= variance
            x, c = units[k - 1], kernels.inputs[k]
            ours = (x**2 @ by_variance[..., None]).mean((1, 2))
            for e in np.moveaxis(weighted, -1, 0):
                rows = x * e[:, None]
                ours += forms(m, rows).mean(1)
            theirs = quadratic(m * c, weighted) + by_variance @ np.diag(c)
            gain[:, i] += 0.5 * self._log_to_first_order(_ratio(ours - theirs, square[:, i]))

    def _log(self, change: Array) -> Array:
        """ln(1 + a relative change), for the layer's true number of units."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.maximum(1 + change * self.shrink, 0.0)))

    def _log_to_first_order(self, change: Array) -> Array:
        """The same where of the change no more is known than its first order, which may pass -1.

        ln(1 + c) down to c = -1/2, and from there -ln(-4c), which goes on with the same slope. Of a
        scale-free function, as relu is, the first order of a change of scale is all of it.
        """
        c = change * self.shrink
        if moments.is_scale_free(self.activation):
            return np.asarray(np.log(np.maximum(1 + c, _LEAST)))
        return np.where(c > -0.5, np.log1p(np.maximum(c, -0.5)), -np.log(np.maximum(-4 * c, 1.0)))

    def _forward(self, rng: np.random.Generator, nets: int) -> tuple[list[Array], list[Array]]:
        """Pre-activations and activations of the hidden layers, (nets, units, rows) each."""
        pre: list[Array] = []
        units: list[Array] = []
        for i, layer in enumerate(self.kernels.layers[:-1]):
            below = self.units if i else layer.fan_in
            weights = _weights(rng, nets, self.units, below, layer.law)
            if i:
                mixed = _mix(rng, units[-1], self.modes_in[i], weights)
            else:
                # the first layer's units are known as they are, not in the mean
                mixed = weights @ (self.batches.x.T / math.sqrt(layer.fan_in))
            bias = rng.uniform(-1, 1, (nets, self.units, 1)) * math.sqrt(3 * layer.bias)
            pre.append(math.sqrt(layer.weight) * mixed + bias)
            units.append(np.asarray(self.activation(pre[-1])))
        return pre, units

    def _backward(self, rng: np.random.Generator, pre: list[Array], error: Array) -> list[Array]:
        """Deltas of a single occurrence of each row, of all layers: (nets, units, rows) each."""
        top = self.kernels.layers[-1]
        nets, rows, outputs = error.shape
        deltas = [error.transpose(0, 2, 1)]
        last = _weights(rng, nets, self.units, outputs, top.law)
        last *= math.sqrt(top.weight / top.fan_in)
        # one message per output, for an error of 1
        messages = [
            np.broadcast_to(last[:, :, c, None], (nets, self.units, rows)) for c in range(outputs)
        ]
        for i in range(self.hidden - 1, -1, -1):
            slope = self.activation.derivative(pre[i])
            messages = [message * slope for message in messages]
            deltas.append(
                sum(
                    (message * error[:, None, :, c] for c, message in enumerate(messages)),
                    start=np.zeros_like(slope),
                )
            )
            if i:
                back = _weights(rng, nets, self.units, self.units, self.kernels.layers[i].law)
                modes = self.modes_back[i - 1]
                messages = [_mix(rng, message, modes, back) for message in messages]
        return deltas[::-1]


@dataclass(frozen=True)
class _Modes:
    """A kernel's factor R, K = R Rᵀ, with orthogonal columns, the longest first."""

    root: Array

    def normal(self, rng: np.random.Generator, *shape: int) -> Array:
        """Draws from N(0, K), (…, rows)."""
        return np.asarray(rng.standard_normal((*shape, self.root.shape[1])) @ self.root.T)

    def leading(self, count: int) -> Array:
        """What projects onto the first modes, (rows, count), to coordinates of variance 1."""
        part = self.root[:, :count]
        return np.asarray(part / (part * part).sum(axis=0))


def _modes(kernel: Array) -> _Modes:
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    kept = values > max(values[-1], 0.0) * 1e-9
    if not values[-1] > 0:
        return _Modes(np.zeros((len(kernel), 0)))
    return _Modes((vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1])


def _mix(rng: np.random.Generator, units: Array, modes: _Modes, weights: Array) -> Array:
    """Σ_j W_ij u_j / √n over the units beside, as if their kernel were exactly the mean one.

    Parameters
    ----------
    units : array (nets, n, rows)
        Of the layer beside, the mean of whose products is the kernel.
    modes : _Modes
        Of that kernel.
    weights : array (nets, out, n)
        W, of variance 1.

    Returns
    -------
    array (nets, out, rows)
        With that kernel. Along the leading modes the units are rotated to be exactly of that
        kernel, then mixed by the weights; what remains is normal.
    """
    nets, out, n = weights.shape
    root = modes.root
    z = rng.standard_normal((nets, out, root.shape[1]))
    count = min(_MODES, root.shape[1], max(n // 2, 1))
    if count:
        along = units @ modes.leading(count)
        size, turn = np.linalg.eigh(along.transpose(0, 2, 1) @ along)
        there = size[:, :1] > 1e-10 * size[:, -1:]  # else all units are off in some mode
        size = np.where(there, size, 1.0)
        along = along @ ((turn / np.sqrt(size)[:, None]) @ turn.transpose(0, 2, 1))
        z[..., :count] = np.where(there[..., None], weights @ along, z[..., :count])
    # one large product; there may be no mode at all
    flat = z.reshape(nets * out, root.shape[1]) @ root.T
    return np.asarray(flat.reshape(nets, out, len(root)))


def _weights(rng: np.random.Generator, nets: int, out: int, n: int, law: Law) -> Array:
    """Weights of variance 1, (nets, out, n)."""
    shape = (nets, out, n)
    if law == "uniform":
        return rng.uniform(-math.sqrt(3), math.sqrt(3), shape)
    drawn = rng.standard_normal(shape)
    if law == "normal":
        return drawn
    tall = drawn if out >= n else drawn.transpose(0, 2, 1)
    frame = math.sqrt(max(out, n)) * _frame(rng, tall)
    return frame if out >= n else frame.transpose(0, 2, 1)


def _frame(rng: np.random.Generator, drawn: Array) -> Array:
    """Orthonormal columns of a uniform direction, from normal ones (Mezzadri 2007)."""
    frame = np.linalg.qr(drawn)[0]
    return np.asarray(frame * rng.choice([-1.0, 1.0], (len(frame), 1, frame.shape[2])))


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole; 0 where there is nothing."""
    ratio: Array = np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0)
    return ratio
