"""tap_step: what is measured of weights, gradients and updates at the end of a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradiometer.arrays import entries
from gradiometer.quantities import clip_factor
from gradiometer.recording.adapters.jax.layers import (
    Tree,
    arrays_of,
    layer_names,
    matched,
    matrices,
)
from gradiometer.recording.adapters.jax.transport import (
    StepMessage,
    check_whole_batch,
    context,
    packed,
    sender,
    step_number,
    when_recorded,
)
from gradiometer.recording.measure import of_gradient, of_weights
from gradiometer.reductions import norm, rms


def tap_step(
    params: Tree,
    grads: Tree,
    updated: Tree = None,
    *,
    loss: Array | None = None,
    accuracy: Array | None = None,
    clipped: Tree = None,
    layers: Callable[[Tree], Mapping[str, Array]] | None = None,
    step: Array | int | None = None,
) -> None:
    """End a training step; inside of `record`, measure its weights, gradients and update.

    Parameters
    ----------
    params, grads, updated : pytree
        The weights before the update, dL/dW, and the weights after it, each as it is at hand:
        lists, dicts, modules of Flax or Equinox. Every array of real numbers with two axes or more
        is the weight matrix of a layer (of more axes, such as the kernel of a convolution, all
        entries count alike); others are passed over. `grads` and `updated` may be None, or lack a
        weight.
    loss, accuracy : number, optional
        Of this step.
    clipped : pytree, optional
        The gradients that the optimiser was given, if they were clipped.
    layers : function, optional
        Takes each of the trees and gives a dict from name to matrix, if other names or fewer
        layers are wanted than by default.
    step : integer, optional
        As for `tap`.

    Raises
    ------
    ValueError
        If a tree has none of the weights of `params`, or in another shape; if the loss or the
        accuracy is not one number.

    Notes
    -----
    A layer's name is the path of what holds its weight: "layers/0" of `model.layers[0].weight`,
    "Dense_0" of `variables["params"]["Dense_0"]["kernel"]`, "0" of the first of `[(W, b), …]`.
    Where something holds several matrices, or where nothing does, it is the path of the matrix
    itself, such as "cell/hh" or "w1". Weights without a tap, and taps without weights, are layers
    too, with NaN for what cannot be had.

    Under `vmap`, the axes that this call is mapped over are the members of an ensemble (several are
    flattened into one, the outermost first), and axes that only the taps are mapped over are
    samples.

    Examples
    --------
    A net that is a list of (W, b), with taps named "layer 1" and so on:

    >>> def named(net):
    ...     return {f"layer {i}": W for i, (W, b) in enumerate(net, 1)}
    >>> # tap_step(params, grads, updated, loss=loss, layers=named)
    """
    settings = context.value
    if settings is None:
        return
    check_whole_batch("tap_step")
    weights = matrices(params, layers)
    if not weights and jax.tree.leaves(params):  # {} says: none
        raise ValueError(
            f"tap_step: params has no weight matrix, got {jax.tree.structure(params)}; expected "
            "tap_step(params, grads, updated, loss=…)"
        )
    names = layer_names(weights)
    others: dict[str, dict[str, Array]] = {}
    for what, tree in {"grads": grads, "updated": updated, "clipped": clipped}.items():
        found = {} if tree is None else matched(what, matrices(tree, layers), weights)
        others[what] = {names[path]: matrix for path, matrix in found.items()}
    number = step_number(step, "tap_step")
    measured = when_recorded(
        settings,
        number,
        functools.partial(_measure_weights, settings.wanted),
        {names[path]: matrix for path, matrix in weights.items()},
        others,
    )
    told = {"loss": loss, "accuracy": accuracy}
    numbers = {what: _scalar(what, value) for what, value in told.items() if value is not None}
    if "grad_norm" in settings.wanted and grads is not None:
        numbers["grad_norm"] = lax.stop_gradient(norm(x.ravel() for x in arrays_of(grads)))
    vector, columns = packed({**measured, "": numbers})
    # Equinox, as PyTorch, has fan_out first, and calls it weight
    sizes = tuple((names[path], x.shape, path[-1] == "weight") for path, x in weights.items())
    # mapped over whatever the taps can be mapped over
    state = [jnp.ravel(x)[:1] for x in (*weights.values(), *others["grads"].values())]
    sender(StepMessage(settings, columns, sizes))(vector, number, lax.stop_gradient(state))


# compiled, so that steps that are not compiled do not pay for each operation
@functools.partial(jax.jit, static_argnums=0)
def _measure_weights(
    wanted: tuple[str, ...], weights: dict[str, Array], others: dict[str, dict[str, Array]]
) -> dict[str, dict[str, Array]]:
    """Layer -> what -> numbers."""
    layers = {}
    for name, weight in weights.items():
        axes = range(-weight.ndim, 0)
        gradient, updated, clipped = (
            others[what].get(name) for what in ("grads", "updated", "clipped")
        )
        counts: dict[str, Array] = {}
        found = of_weights(weight, updated, wanted, counts, axes)
        if gradient is not None:
            found |= of_gradient(gradient, wanted, counts, axes)
        if gradient is not None and clipped is not None and "clip_factor" in wanted:
            found["clip_factor"] = clip_factor(
                rms(entries(gradient, axes)), rms(entries(clipped, axes))
            )
        layers[name] = {**found, **counts}
    return layers


def _scalar(what: str, value: Any) -> Array:
    number = jnp.asarray(value)
    if number.size != 1:
        raise ValueError(f"tap_step: {what} must be one number, got an array of {number.shape}")
    return lax.stop_gradient(number)
