"""Where the first value came up that is not finite: what the record of its step says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol

import numpy as np

from dp.typing import Array
from gradiometer.recording.nonfinite import AFTER_UPDATE
from gradiometer.recording.origin import Look, Place, Spot, both, finite, origin


class Layer(Protocol):
    """What is asked of a layer; see `session.LayerInfo`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def activation(self) -> str:
        """Of its activation function."""

    @property
    def role(self) -> str:
        """Its part in the training."""


@dataclass(frozen=True)
class StepRecord:
    """One of some steps that are recorded together.

    Attributes
    ----------
    layers : sequence of LayerInfo
    chains : list of lists of int, optional
    at : int
        Its place among the steps.
    values, missing : mapping
        As in `session.Rows`.
    counts : mapping
        As in `Session.add_measured`.
    loss_told : bool
        Whether the loss is known.
    whole : bool
        Whether all layers are recorded.
    """

    layers: Sequence[Layer]
    chains: Sequence[Sequence[int]] | None
    at: int
    values: Mapping[str, Array]
    missing: Mapping[str, Array]
    counts: Mapping[str, Array]
    loss_told: bool
    whole: bool = True

    def knows(self, quantity: str, layer: int) -> bool:
        """Whether a quantity of a layer is known of all nets, finite or not."""
        if quantity not in self.values:
            return False
        mask = self.missing.get(quantity)
        return mask is None or not mask[self.at, layer].any()

    def finite(self, quantity: str, layer: int, nets: Array) -> bool | None:
        """Whether a quantity of a layer is finite in these nets; None if that is not known."""
        if not self.knows(quantity, layer):
            return None
        return finite(self.values[quantity][self.at, layer], nets)

    def loss(self) -> Array | None:
        """Of each net, if it is known."""
        return self.values["loss"][self.at] if self.loss_told else None

    @property
    def paths(self) -> list[list[int]]:
        """The chains; those that are to be trained, if it is not known which lead to which."""
        if self.chains is not None:
            return [list(chain) for chain in self.chains if chain]
        trained = [i for i, layer in enumerate(self.layers) if layer.role == "trained"]
        return [trained] if trained else []


def how_it_began(record: StepRecord, found: Mapping[str, Any], look: Look | None) -> dict[str, Any]:
    """What is known of how it began, as attributes of a trace; see `origin`.

    Parameters
    ----------
    record : StepRecord
    found : mapping
        What `first_nonfinite` gives.
    look : callable, optional
        What an adapter can still see.
    """
    kind, name = found["nonfinite_in"], found.get("nonfinite_layer")
    names = [layer.name for layer in record.layers]
    layer = None if name is None else names.index(name)
    loss = record.loss()
    if layer is None:
        nets = ~np.isfinite(loss) if loss is not None else np.zeros(())
    else:
        nets = np.asarray(record.counts[kind][record.at, layer] > 0)
    spot = Spot() if look is None else look(record.at, layer, kind, nets)
    if layer is not None:
        spot = _completed(spot, record, layer, kind, nets)
    paths = record.paths if record.whole else []
    mine = [path for path in paths if layer in path]
    place = Place(
        kind,
        nets.size,
        "unknown" if layer is None else record.layers[layer].activation,
        first=bool(mine) and all(path[0] == layer for path in mine),
        last=bool(mine) and all(path[-1] == layer for path in mine),
        loss=finite(loss, nets),
        outputs=bool(paths) and all(record.knows("activation_mean", path[-1]) for path in paths),
        activations=bool(paths)
        and all(record.knows("activation_mean", i) for path in paths for i in path),
        weights=reduce(both, known) if (known := _weights(record, paths, nets)) else None,
        deltas=layer is not None and record.knows("delta_rms", layer),
    )
    return origin(place, spot)


def _weights(record: StepRecord, paths: Sequence[Sequence[int]], nets: Array) -> list[bool | None]:
    """Whether the weights of each layer were finite before the forward pass."""
    return [record.finite("weight_rms", i, nets) for path in paths for i in path]


def _completed(spot: Spot, record: StepRecord, layer: int, kind: str, nets: Array) -> Spot:
    """With what the quantities say, where the adapter cannot see it.

    Finite weights say nothing of biases, which only an update leaves out of account.
    """
    weights = record.finite("weight_rms", layer, nets)
    if weights and kind != AFTER_UPDATE:
        weights = None
    inputs, h = spot.inputs, spot.pre_activation
    return replace(
        spot,
        weights=weights if spot.weights is None else spot.weights,
        inputs=record.finite("input_rms", layer, nets) if inputs is None else inputs,
        pre_activation=record.finite("preactivation_mean", layer, nets) if h is None else h,
    )
