"""The table of quantities: which arrays each needs, so that only these are fetched.

A new quantity of one array is one row here, with a function of `quantities`; `measure` finds it. A
quantity of several arrays also needs lines in `measure`.

The arrays of a layer, by name:

- `input` (batch, fan_in): what the layer multiplies by its weights
- `pre_activation` (batch, units): h
- `activation` (batch, units): φ(h)
- `saturated` (batch, units): where φ is saturated
- `delta` (batch, units): dL/dh
- `gradient` (fan_in, units): dL/dW
- `used` (fan_in, units): the gradient that the optimiser was given
- `weight`, `weight_after` (fan_in, units): W before and after the update
- `reference_activation` (samples, units): φ(h) on the reference batch
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gradiometer.recording import quantities as q
from gradiometer.recording.quantities import Array

Pooling = Literal["mean", "rms", "spread"]


@dataclass(frozen=True)
class Quantity:
    """What a quantity needs.

    Attributes
    ----------
    needs : tuple of str
        Arrays without any of which it cannot be had.
    looks_at : tuple of str
        Arrays of which it is measured where they can be had.
    of : function, optional
        Gives it from the entries of the one array that it needs. Without it, `measure` has lines of
        its own for the quantity.
    pooling : str
        How it is joined over several calls of a layer in one step: the mean, weighted by size; the
        root of the mean square; or the standard deviation of the union ("spread").
    default : bool
        Whether it is recorded unless `quantities` says otherwise.
    """

    needs: tuple[str, ...] = ()
    looks_at: tuple[str, ...] = ()
    of: Callable[[Array], Array] | None = None
    pooling: Pooling = "mean"
    default: bool = True


LAYER_QUANTITIES = {
    "grad_mean_abs": Quantity(("gradient",)),
    "grad_rms": Quantity(("gradient",)),
    "grad_zero_fraction": Quantity(("gradient",)),
    "clip_factor": Quantity(("gradient", "used")),
    "delta_rms": Quantity(("delta",), pooling="rms"),
    "activation_mean": Quantity(("activation",)),
    "activation_std": Quantity(("activation",), pooling="spread"),
    "saturated_fraction": Quantity(("activation", "saturated")),
    "dead_fraction": Quantity(("reference_activation",)),
    "weight_rms": Quantity(("weight",)),
    "update_ratio": Quantity(("weight", "weight_after")),
    "nonfinite_count": Quantity(looks_at=("activation", "delta", "gradient", "weight_after")),
    # of the layer's input; how large the data are, in the first layer
    "input_rms": Quantity(("input",), of=q.rms, pooling="rms", default=False),
    "preactivation_mean": Quantity(("pre_activation",), of=q.mean, default=False),
    # of W^T delta, the delta as it comes to the layer's input; and its part at live units
    "backward_rms": Quantity(("delta", "weight"), pooling="rms", default=False),
    "backward_live_rms": Quantity(("delta", "weight", "input"), pooling="rms", default=False),
}
STEP_QUANTITIES = {
    "loss": Quantity(),
    "accuracy": Quantity(),
    # of the gradient of all parameters together, biases too, before it is clipped
    "grad_norm": Quantity(default=False),
}
HISTOGRAM = "grad_log10_histogram"

QUANTITIES = LAYER_QUANTITIES | STEP_QUANTITIES

# recorded by default
PER_LAYER = tuple(name for name, row in LAYER_QUANTITIES.items() if row.default)
PER_STEP = tuple(name for name, row in STEP_QUANTITIES.items() if row.default)
ON_REQUEST = tuple(name for name, row in QUANTITIES.items() if not row.default)


def needing(*arrays: str) -> tuple[str, ...]:
    """The quantities of a layer that cannot be had without any of these arrays.

    Examples
    --------
    >>> needing("saturated", "weight_after")
    ('saturated_fraction', 'update_ratio')
    """
    found = [name for name, row in LAYER_QUANTITIES.items() if not {*arrays}.isdisjoint(row.needs)]
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
        row = LAYER_QUANTITIES.get(name, Quantity(("gradient",) if name == HISTOGRAM else ()))
        found.update(row.needs, row.looks_at)
    return frozenset(found)


@functools.cache
def measured_alone(array: str) -> tuple[tuple[str, Callable[[Array], Array]], ...]:
    """The quantities of one array that are a function of its entries, and these functions."""
    return tuple(
        (name, row.of)
        for name, row in LAYER_QUANTITIES.items()
        if row.needs == (array,) and row.of is not None
    )


def pooling_of(name: str) -> Pooling:
    """How a quantity is joined over several calls of a layer."""
    row = LAYER_QUANTITIES.get(name)
    return "mean" if row is None else row.pooling
