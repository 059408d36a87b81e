"""Which arrays the quantities wanted need, so that only these are fetched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from gradiometer.arrays import Array, Numbers
from gradiometer.quantities import HISTOGRAM, OF_LAYERS, QUANTITIES, Pooling


def needing(*arrays: str) -> tuple[str, ...]:
    """The quantities of a layer that cannot be had without any of these arrays.

    Examples
    --------
    >>> needing("saturated", "weight_after")
    ('saturated_fraction', 'update_ratio')
    """
    found = [name for name in OF_LAYERS if not {*arrays}.isdisjoint(QUANTITIES[name].needs)]
    return (*found, *([HISTOGRAM] if "gradient" in arrays else []))


def arrays_for(wanted: Iterable[str]) -> frozenset[str]:
    """The arrays that these quantities are measured of.

    Examples
    --------
    >>> sorted(arrays_for(["update_ratio", "loss"]))
    ['weight', 'weight_after']
    """
    found: set[str] = set()
    for name in wanted:
        if name == HISTOGRAM:
            found.add("gradient")
        else:
            found.update(QUANTITIES[name].needs, QUANTITIES[name].looks_at)
    return frozenset(found)


@functools.cache
def measured_alone(array: str) -> tuple[tuple[str, Callable[[Array], Numbers]], ...]:
    """The quantities of one array that are a function of its entries, and these functions."""
    return tuple(
        (name, row.of)
        for name, row in QUANTITIES.items()
        if row.needs == (array,) and row.of is not None
    )


def pooling_of(name: str) -> Pooling:
    """How a quantity is joined over several calls of a layer."""
    return QUANTITIES[name].pooling if name in QUANTITIES else "mean"
