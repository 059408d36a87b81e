"""Nodes that a loss depends on and no optimiser would train: an error, or a warning."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from dp.errors import ShapeError
from dp.node import Node
from dp.order import topological_order
from dp.parameters import OWNED, Registered


def check_named(
    owner: str,
    named: Mapping[str, Node],
    parameters: Mapping[str, Node],
    listed: Mapping[str, Any],
    kept: Mapping[str, Any],
    given: tuple[Any, Any],
) -> list[str]:
    """Refuse a named Node that a loss depends on and that no optimiser would train.

    Returns the names of those that are parameters of other models.

    Parameters
    ----------
    owner : str
        Class of the model.
    named : dict
        Name -> the Node of this name that the loss depends on.
    parameters : dict
        Name -> Node, the model's own.
    listed : dict
        What the model's `get_param` gives, which a subclass may have extended.
    kept : dict
        The model's attributes.
    given : (x, y)
        The batch; its Nodes may be named.

    Raises
    ------
    ValueError
        Naming the Node, and how a parameter is made.
    """
    inputs: list[Node] | None = None
    others = []
    for name, node in named.items():
        own = parameters.get(name)
        if own is node:
            continue
        if own is not None:
            raise ValueError(
                f"the loss of {owner} depends on a Node named {name!r} that is not the model's "
                f"parameter of this name ({node.shape}, the parameter {own.shape}), so it would "
                "not be trained; use the model's own Node, and change its numbers with set_param"
            )
        if node.primitive is not None or name in listed:
            continue
        if inputs is None:
            inputs = [one for part in given for one in _nodes_of(part)]
        if node in OWNED:
            others.append(name)
        elif not _is_input(node, inputs, any(node is value for value in kept.values())):
            raise ValueError(
                f"the loss of {owner} depends on the Node {name!r}, which is not a parameter of "
                "the model and would never be trained. Make it one in __init__: "
                f'self.{_attribute(name)} = self.Parameter(value, "{name}"). If it is data, leave '
                f"its name out. (Its shape is {node.shape}; it is not part of the batch.)"
            )

    return others


def of_other_models(nodes: Mapping[str, Node], own: Mapping[str, Node]) -> list[str]:
    """The names of those Nodes that are parameters, and none of these."""
    return sorted(n for n, node in nodes.items() if node in OWNED and own.get(n) is not node)


def warn_of_others(owner: str, kept: Registered, names: list[str]) -> None:
    """Warn, once, that training a model does not change parameters of other models."""
    new = [name for name in names if name not in kept.warned]
    if new:
        kept.warned.update(new)
        warnings.warn(
            f"the loss of {owner} depends on parameters of another model ({', '.join(new)}), which "
            f"training this {owner} leaves as they are. If they are to be trained with it, list "
            "them in get_param: return {**super().get_param(), **self.other.get_param()}",
            stacklevel=5,
        )


def check_layers(owner: str, kept: Registered) -> None:
    """Refuse a layer whose weight or bias was replaced by another Node.

    One with a name is found in the loss by `check_named`; one without is a constant there.
    """
    for layer in kept.layers.values():
        for part, node in (("weight", layer.weight), ("bias", layer.bias)):
            own = kept.parameters.get(f"{layer.name}_{part}")
            if own is not None and own is not node:
                raise ValueError(
                    f"the {part} of layer {layer.name!r} of {owner} was replaced by a Node that is "
                    f"no parameter, so it would not be trained; change the numbers of the layer's "
                    f"own Node instead: layer.{part}.value[...] = array, or set_param"
                )


def check_stack(owner: str, kept: Registered, shape: tuple[int, ...]) -> None:
    """Refuse several losses, one per matrix of a stack, that share a parameter.

    In an ensemble each member has its own loss and its own parameters. Where losses share
    parameters, the sweep would give the gradient of their sum, whatever the model means by them.

    Raises
    ------
    ShapeError
        Naming the parameter.
    """
    for name, node in kept.parameters.items():
        if node.shape[:-2] != shape[:-2]:
            raise ShapeError(
                f"{owner}.loss must give one number, got a stack of them, of shape {shape}: the "
                f"axes before the last two stand for the members of an ensemble, but the parameter "
                f"{name!r} has shape {node.shape}. Data and indices of more than two dimensions "
                "make such a stack; give 2-D data, and pick rows by a 1-D index: "
                "table[words.ravel()].reshape(len(words), -1)"
            )


def warn_of_constants(owner: str, kept: Registered, loss: Node) -> None:
    """Warn, once, if a parameter's array is used, through which no gradient flows, not its Node."""
    if _LOOKED in kept.warned:
        return
    kept.warned.add(_LOOKED)
    for leaf in topological_order(loss):
        if leaf.primitive is not None or leaf.name is not None:
            continue
        for name, node in kept.parameters.items():
            if np.may_share_memory(leaf.value, node.value) and np.shares_memory(
                leaf.value, node.value
            ):
                warnings.warn(
                    f"the loss of {owner} takes the array of the parameter {name!r} for a "
                    "constant, through which no gradient flows; compute with its Node "
                    "(layer.weight, or what self.Parameter gives). If a constant is meant, take a "
                    "copy of the array",
                    stacklevel=3,
                )


_LOOKED = ""  # no parameter has this name


def check_listed(owner: str, listed: Mapping[str, Any], order: Sequence[Node]) -> None:
    """Refuse a parameter that `get_param` lists, and whose Node has no name to report it by."""
    for name, value in listed.items():
        for node in order:
            if node.primitive is None and node.name is None and node.value is value:
                raise ValueError(
                    f"{owner}.get_param lists {name!r}, but its Node has no name, so its gradient "
                    f'is not reported and it would not be trained; write Node(value, "{name}"), or '
                    f'self.Parameter(value, "{name}")'
                )


def _nodes_of(given: Any) -> Iterator[Node]:
    """Every Node of a batch, with those it was computed from; arrays as Nodes."""
    if isinstance(given, Node):
        yield from topological_order(given)
    elif isinstance(given, Mapping):
        yield from _nodes_of(tuple(given.values()))
    elif isinstance(given, (tuple, list)) and not all(isinstance(g, Real) for g in given):
        for part in given:
            yield from _nodes_of(part)
        with contextlib.suppress(TypeError):
            yield Node(given)  # rows as lists
    else:
        with contextlib.suppress(TypeError):  # whatever else a loss may take
            yield Node(given)


def _is_input(node: Node, inputs: list[Node], kept: bool) -> bool:
    """Whether a Node is one of a batch, or was made of its numbers."""
    for one in inputs:
        if one is node or np.may_share_memory(one.value, node.value):
            return True
        if not kept and one.shape == node.shape and np.array_equal(one.value, node.value):
            return True
    return False


def _attribute(name: str) -> str:
    return name if name.isidentifier() else "w"
