"""Layers of a tree of parameters: their weight matrices and their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Tree = Any  # a pytree of arrays
Path = tuple[str, ...]


def matrices(tree: Tree, layers: Callable[[Tree], Mapping[str, Array]] | None) -> dict[Path, Array]:
    """The weight matrices in a tree, or what belongs to them."""
    if layers is not None:
        named = layers(tree).items()
        return {(name,): jnp.asarray(matrix) for name, matrix in named if matrix is not None}
    # a bias may have more than one axis: that of a convolution in Equinox has
    return {path: x for path, x in _leaves(tree) if x.ndim >= 2 and path[-1] != "bias"}


def arrays_of(tree: Tree) -> list[Array]:
    """All arrays of real numbers in a tree, biases too."""
    return [x for _, x in _leaves(tree)]


def layer_names(paths: Collection[Path]) -> dict[Path, str]:
    """The layer's name of each matrix: the path of what holds it, if that holds no other.

    >>> layer_names([("h1", "kernel"), ("cell", "hh"), ("cell", "ih"), ("w",)])
    {('h1', 'kernel'): 'h1', ('cell', 'hh'): 'cell/hh', ('cell', 'ih'): 'cell/ih', ('w',): 'w'}
    """
    holders = [path[:-1] for path in paths]
    return {
        path: "/".join(path[:-1] if path[:-1] and holders.count(path[:-1]) == 1 else path)
        for path in paths
    }


def matched(what: str, found: dict[Path, Array], weights: dict[Path, Array]) -> dict[Path, Array]:
    """Those matrices of another tree that belong to a weight; ValueError if none does."""
    if weights and not found.keys() & weights.keys():
        raise ValueError(
            f"tap_step: {what} has none of the weights of params ("
            f"{', '.join(map('/'.join, weights))}); expected a tree of the same structure"
        )
    here = {path: found[path] for path in weights if path in found}
    for path, matrix in here.items():
        if matrix.shape != weights[path].shape:
            raise ValueError(
                f"tap_step: {what} of {'/'.join(path)!r} has the shape {matrix.shape}, its "
                f"weight {weights[path].shape}"
            )
    return here


def _leaves(tree: Tree) -> list[tuple[Path, Array]]:
    """Arrays of real numbers and their paths, "Dense_2" before "Dense_10"."""
    found = []
    ranks: dict[Any, int] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not jnp.issubdtype(getattr(leaf, "dtype", None), jnp.floating):
            continue
        texts = [jax.tree_util.keystr((key,), simple=True) for key in keys]
        # JAX sorts dicts as text; whatever else has a place has an order
        place = [
            _natural(text)
            if isinstance(key, jax.tree_util.DictKey)
            else ranks.setdefault(keys[: i + 1], len(ranks))
            for i, (key, text) in enumerate(zip(keys, texts, strict=True))
        ]
        if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
            texts.pop()  # Flax's Variables hold their arrays as `value`
        if len(texts) > 1 and texts[0] == "params":
            texts.pop(0)  # Flax's variables hold all weights as "params"
        found.append((place, tuple(texts) or ("w",), leaf))
    found.sort(key=lambda leaf: leaf[0])
    return [(path, jnp.asarray(leaf)) for _, path, leaf in found]


def _natural(text: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
