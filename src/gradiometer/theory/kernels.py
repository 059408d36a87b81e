"""Kernels of a batch in an infinitely wide net: forwards, backwards, and of the weight gradient.

With rows of the batch a, b, and per unit: K^l of the pre-activations, C^l of the activations, D^l
of the slopes, and G^l of the deltas (Poole et al. 2016; Schoenholz et al. 2017; for whole batches,
as in Lee et al. 2018 and Jacot et al. 2018). Lists count layers from 0: `pre[0]` is K¹.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dp.activations import Activation
from dp.typing import Array
from gradiometer.theory import moments
from gradiometer.theory.variances import LayerVariances


@dataclass(frozen=True)
class Kernels:
    """All kernels of a net with L hidden layers, (rows, rows) each.

    Attributes
    ----------
    pre : list of L + 1
        K^l = σ_w² C^{l-1} + σ_b², of the pre-activations of each layer.
    inputs : list of L + 1
        C^{l-1}, of what each layer is given: first x·x/n_0, then E φ(u_a) φ(u_b) of the layer
        below.
    slopes : list of L
        D^l = E φ'(u_a) φ'(u_b) of the hidden layers.
    back : list of L + 1
        P^l, of dL/dx^l for errors of 1: G^l_ab = e_a·e_b P^l_ab D^l_ab, where e is dL/dlogit. It
        does not depend on the errors. All ones for the output layer, whose delta is e itself.
    layers : list of L + 1
        What the kernels were computed from.
    """

    pre: list[Array]
    inputs: list[Array]
    slopes: list[Array]
    back: list[Array]
    layers: list[LayerVariances]

    def per_unit_error(self, layer: int) -> Array:
        """G^l of errors of 1: P^l ∘ D^l; of the output layer, one over its number of units."""
        if layer == len(self.slopes):
            return self.back[layer] / self.layers[layer].fan_out
        return self.back[layer] * self.slopes[layer]


def of_batch(x: Array, layers: Sequence[LayerVariances], activation: Activation) -> Kernels:
    """Kernels of the rows x (rows, features) through a net of these layers, the last for output.

    The way back: P^L = σ_w²/n_L at the top, then P^l = σ_w² (n_{l+1}/n_l) P^{l+1} ∘ D^{l+1}, with
    the weights on the way back taken as independent of those forward (Schoenholz et al. 2017).
    """
    inputs = [x @ x.T / x.shape[1]]
    pre: list[Array] = []
    slopes: list[Array] = []
    for layer in layers:
        pre.append(layer.weight * inputs[-1] + layer.bias)
        if len(pre) < len(layers):
            c, d = moments.kernels(activation, pre[-1])
            inputs.append(c)
            slopes.append(d)
    ones = np.ones_like(pre[0])
    back = [ones, ones * (layers[-1].weight / layers[-1].fan_in)]
    for above, d in zip(layers[-2:0:-1], slopes[:0:-1], strict=True):
        back.append(above.weight * (above.fan_out / above.fan_in) * back[-1] * d)
    return Kernels(pre, inputs, slopes, back[::-1], list(layers))


def gradient_mean_square(kernels: Kernels, errors: Array) -> Array:
    """E (dL/dW_ij)² of every layer, for given errors: Σ_ab e_a·e_b G^l_ab C^{l-1}_ab.

    Exact in the batch, at infinite width.

    Parameters
    ----------
    kernels : Kernels
    errors : array (…, rows, outputs)
        dL/dlogit; of a row that occurs several times in the batch, so many times.

    Returns
    -------
    array (…, layers)
    """
    return np.stack(
        [
            quadratic(kernels.per_unit_error(i) * kernels.inputs[i], errors)
            for i in range(len(kernels.layers))
        ],
        axis=-1,
    )


def delta_mean_square(kernels: Kernels, errors: Array, counts: Array) -> Array:
    """Mean of E δ² over the rows of the batch and the units, of every layer: (…, layers).

    Parameters
    ----------
    kernels : Kernels
    errors : array (…, rows, outputs)
        dL/dlogit of a single occurrence of each row.
    counts : array (…, rows)
        How often each row occurs.
    """
    size = counts * (errors**2).sum(axis=-1)
    diagonals = np.stack(
        [np.diag(kernels.per_unit_error(i)) for i in range(len(kernels.layers))], axis=-1
    )
    return np.asarray((size @ diagonals) / counts.sum(axis=-1, keepdims=True))


def quadratic(kernel: Array, vectors: Array) -> Array:
    """Σ_c v_cᵀ M v_c for vectors (…, rows, c): (…,)."""
    return np.asarray(forms(kernel, vectors.swapaxes(-1, -2)).sum(axis=-1))


def forms(kernel: Array, vectors: Array) -> Array:
    """vᵀ M v of each of the vectors (…, rows): (…,)."""
    # one large product: of a stack of small ones each would be a call, on one thread
    flat = vectors.reshape(-1, vectors.shape[-1])
    return np.asarray(np.vecdot(flat @ kernel, flat).reshape(vectors.shape[:-1]))
