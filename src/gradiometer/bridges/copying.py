"""copy_weights: from one net into another, both of which exist."""

from __future__ import annotations

from typing import Any

import dp
from gradiometer.bridges.torch_to_dp import linears
from gradiometer.bridges.weights import (
    check_parameters,
    pytorch,
    registered_of,
    weight_and_bias,
    write,
)


def copy_weights(source: Any, target: Any) -> None:
    """Copy weights and biases from one net into another, layer by layer, in order.

    Parameters
    ----------
    source, target : dp.Model or torch.nn.Sequential
        In either direction. The layers of a `dp.Model` are taken in the order in which they were
        made, the Linears of a Sequential in the order in which they are called. Activation
        functions are not compared: a Model's forward is its own affair.

    Raises
    ------
    TypeError
        If either is not such a net, or their dtypes differ: numbers would be rounded.
    ValueError
        If the layers differ in number or sizes, or hold what is not carried, naming the layer.
        Nothing is changed if anything is wrong.
    ImportError
        If neither is a `dp.Model` and PyTorch is not installed.
    """
    ours, theirs = _affine_maps(source), _affine_maps(target)
    if len(ours) != len(theirs):
        raise ValueError(
            f"the source has {len(ours)} layers ({', '.join(ours)}), the target {len(theirs)} "
            f"({', '.join(theirs)}); they must be as many"
        )
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    for (name, layer), (other, like) in pairs:
        weight, old = weight_and_bias(layer)[0], weight_and_bias(like)[0]
        if weight.shape != old.shape:
            raise ValueError(
                f"layer {name!r} of the source is {weight.shape[0]} -> {weight.shape[1]}, layer "
                f"{other!r} of the target {old.shape[0]} -> {old.shape[1]}; they must be alike"
            )
        if weight.dtype != old.dtype:
            raise TypeError(
                f"layer {name!r} of the source is {weight.dtype}, layer {other!r} of the target "
                f"{old.dtype}; make them alike with dp.Net(…, dtype=…) or sequential.double()"
            )
    for (_, layer), (_, like) in pairs:
        write(like, *weight_and_bias(layer))


def _affine_maps(net: Any) -> dict[str, Any]:
    """Layers of dp or Linears of PyTorch, by name or position."""
    if not isinstance(net, dp.Model):
        torch = pytorch()
        if not isinstance(net, torch.nn.Sequential):
            raise TypeError(
                f"expected a dp.Model or a torch.nn.Sequential, got {type(net).__name__}"
            )
        return {layer.where: layer.linear for layer in linears(torch, net, others=False)}
    kept = registered_of(net)
    if kept.members is not None:
        raise ValueError(f"the {type(net).__name__} has {kept.members} members; one is carried")
    if not kept.layers:
        raise ValueError(f"the {type(net).__name__} has no layers made by Linear_Layer")
    check_parameters(net)
    return dict(kept.layers)
