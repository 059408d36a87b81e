"""Where the first number came up that is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dp.typing import Array

# the arrays in which a layer's entries that are not finite are counted, in the order of a step
ACTIVATION, DELTA, GRADIENT, AFTER_UPDATE = (
    "activation", "delta", "gradient", "weight after the update",
)  # fmt: skip
KINDS = (ACTIVATION, DELTA, GRADIENT, AFTER_UPDATE)


def first_nonfinite(names: Sequence[str], counts: Mapping[str, Array]) -> dict[str, Any]:
    """Where in a step the first value that is not finite came up: forward, then backward.

    Parameters
    ----------
    names : sequence of str
        The layers, in the order of the forward pass.
    counts : mapping of kind to array (layers,)
        Number of entries that are not finite, in each of `KINDS`.

    Returns
    -------
    dict
        `nonfinite_layer` (a name), `nonfinite_in` (one of `KINDS`) and `nonfinite_values` (their
        number in that array); or only `nonfinite_in`: "loss".
    """
    for kind, i in places_in_order(len(names)):
        count = int(counts[kind][i]) if kind in counts else 0
        if count:
            return {
                "nonfinite_layer": names[i],
                "nonfinite_in": kind,
                "nonfinite_values": count,
            }
    return {"nonfinite_in": "loss"}


def places_in_order(layers: int) -> list[tuple[str, int]]:
    """Kinds of arrays and positions of layers, in the order in which a step computes them."""
    forward = range(layers)
    order = [("activation", i) for i in forward]
    order += [(kind, i) for i in reversed(forward) for kind in ("delta", "gradient")]
    return order + [("weight after the update", i) for i in forward]
