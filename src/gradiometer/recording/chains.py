"""Which layers lead to which: the chains of a net, which need not be one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any


def layers_before(
    marked: Mapping[Any, Sequence[int]],
    order: Iterable[Any],
    parents: Callable[[Any], Iterable[Any]],
) -> dict[int, int]:
    """Which layers lead to each layer, in a graph.

    Parameters
    ----------
    marked : mapping
        Node that is the pre-activation of layers -> their positions.
    order : iterable of nodes
        Operands before those that use them.
    parents : function
        A node's operands.

    Returns
    -------
    dict
        Layer -> those before it, as bits: 1 << position.
    """
    reached: dict[Any, int] = {}
    before: dict[int, int] = {}
    for node in order:
        mask = 0
        for parent in parents(node):
            mask |= reached.get(parent, 0)
        for layer in marked.get(node, ()):
            before[layer] = before.get(layer, 0) | mask
        for layer in marked.get(node, ()):
            mask |= 1 << layer
        reached[node] = mask
    return before


def chains_of(before: Mapping[int, int], groups: Mapping[int, Hashable]) -> list[list[int]]:
    """The chains from each layer that has none before it to each that has none after it.

    Parameters
    ----------
    before : mapping
        Layer -> those that lead to it, as bits.
    groups : mapping
        Layer -> the backward passes that came to it, or anything else by which layers are told
        apart whose gradients are not of one loss. Only layers of one group are in one chain; those
        of no group are left out.

    Returns
    -------
    list of lists of positions
        A layer used several times, which comes after itself, is in a chain once. A chain with
        parallel branches has the layers of all of them.
    """
    found: list[list[int]] = []
    for group in dict.fromkeys(groups.values()):
        mine = sorted(layer for layer in groups if groups[layer] == group)
        inside = sum(1 << layer for layer in mine)
        ahead = {layer: before.get(layer, 0) & inside & ~(1 << layer) for layer in mine}
        leading = 0
        for mask in ahead.values():
            leading |= mask
        first = [layer for layer in mine if not ahead[layer]] or mine[:1]
        last = [layer for layer in mine if not leading >> layer & 1] or mine[-1:]
        for end in last:
            for start in first:
                if start == end or ahead[end] >> start & 1:
                    found.append(_between(start, end, ahead, mine))
    return sorted(found)


def layers_above(before: Mapping[int, int], groups: Mapping[int, Hashable]) -> dict[int, int]:
    """The layer above each layer: the first of those that it leads to with no other in between.

    Parameters
    ----------
    before, groups
        As for `chains_of`.

    Returns
    -------
    dict
        Layer -> layer; those that lead to none are left out.
    """

    def leads(one: int, other: int) -> bool:
        return bool(before.get(other, 0) >> one & 1)

    found: dict[int, int] = {}
    for layer, group in groups.items():
        later = [
            other
            for other in sorted(groups)
            if other > layer and groups[other] == group and leads(layer, other)
        ]
        for other in later:
            # of two that lead to each other, as in a loop, none is in between
            if not any(leads(k, other) and not leads(other, k) for k in later if k != other):
                found[layer] = other
                break
    return found


def among(
    before: Mapping[int, int], groups: Mapping[int, Hashable], kept: Sequence[int]
) -> tuple[dict[int, int], dict[int, Hashable]]:
    """The same of some layers alone, by their positions among these."""
    at = {layer: i for i, layer in enumerate(kept)}
    masks = {
        at[layer]: sum(1 << i for other, i in at.items() if mask >> other & 1)
        for layer, mask in before.items()
        if layer in at
    }
    return masks, {at[layer]: group for layer, group in groups.items() if layer in at}


def _between(start: int, end: int, ahead: Mapping[int, int], mine: Sequence[int]) -> list[int]:
    def leads(one: int, other: int) -> bool:
        return one == other or bool(ahead[other] >> one & 1)

    return [layer for layer in mine if leads(start, layer) and leads(layer, end)]
