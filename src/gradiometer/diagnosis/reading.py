"""What signs are read off: one net of a run, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradiometer.states import Reasons, State, mask_of, reasons_of, states
from gradiometer.summary.chains import chains, roles

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where a value came up: position of the layer, if known, and array; "" for the loss."""

    layer: int | None
    array: str


@dataclass(frozen=True)
class Reading:
    """One net of a run.

    Attributes
    ----------
    run : LabelledRun
    member : int or None
        Its position among the members of an ensemble.
    """

    run: LabelledRun
    member: int | None = None

    def __contains__(self, quantity: str) -> bool:
        """Whether a quantity was recorded, and is known somewhere."""
        return quantity in self.run.dataset and bool(np.isfinite(self.all(quantity)).any())

    def all(self, quantity: str) -> Floats:
        """Of every step: (steps, layers), or (steps,); NaN where it is missing or not finite.

        All NaN if it was not recorded.
        """
        if quantity not in self._arrays:
            self._arrays[quantity] = self._read(quantity)
        return self._arrays[quantity]

    def finite(self, quantity: str) -> Floats:
        """The same of the steps before anything in this net was not finite; at least of one."""
        return self.all(quantity)[: max(1, self.steps_finite)]

    @cached_property
    def _arrays(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def _states(self) -> dict[str, NDArray[np.int8]]:
        return {}

    def _read(self, quantity: str) -> Floats:
        if quantity not in self.run.dataset:
            shape = (len(self.steps), len(self.layers))
            return np.full(shape[:1] if quantity in ("loss", "accuracy") else shape, np.nan)
        known = self.states(quantity) < State.NOT_FINITE
        return np.where(known, self._values(quantity), np.nan)

    def _values(self, quantity: str) -> Floats:
        return self._of_member(np.asarray(self.run.dataset[quantity].values, np.float64))

    def states(self, quantity: str) -> NDArray[np.int8]:
        """The state of each of its numbers; (steps, layers), or (steps,)."""
        if quantity not in self._states:
            mask = mask_of(quantity, self.run.dataset)
            missing = None if mask is None else self._of_member(mask)
            self._states[quantity] = states(self._values(quantity), missing)
        return self._states[quantity]

    def _of_member(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.member is None else values[..., self.member]

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Numbers of the recorded steps."""
        return np.asarray(self.run.dataset["step"].values)

    @cached_property
    def steps_finite(self) -> int:
        """How many recorded steps come before the first with a value that is not finite."""
        bad = np.zeros(len(self.steps), bool)
        for name in ("loss", "nonfinite_count", "delta_rms", "grad_rms", "grad_mean_abs"):
            if name not in self.run.dataset:
                continue
            spoilt = self.states(name) == State.NOT_FINITE
            if name == "nonfinite_count":
                spoilt |= self.all(name) > 0
            bad |= spoilt.reshape(len(bad), -1).any(axis=1)
        return int(bad.argmax()) if bad.any() else len(bad)

    @property
    def diverged(self) -> bool:
        """Whether anything was not finite."""
        return self.steps_finite < len(self.steps)

    @cached_property
    def first_nonfinite(self) -> Place | None:
        """Where the first value that is not finite came up; None if all are finite."""
        if not self.diverged:
            return None
        attrs, names = self.run.attrs, self.layers
        if self.member is None and attrs.get("nonfinite_layer") in names:
            return Place(names.index(attrs["nonfinite_layer"]), str(attrs["nonfinite_in"]))
        if self.member is None or "nonfinite_count" not in self.run.dataset:
            return Place(None, "")
        there = np.flatnonzero(self.all("nonfinite_count")[self.steps_finite] > 0)
        return Place(int(there[0]), "activation") if there.size else Place(None, "")

    @cached_property
    def layers(self) -> list[str]:
        """Their names."""
        return self.run.layers

    @cached_property
    def roles(self) -> list[str]:
        """What part each layer has in the training."""
        return roles(self.run)

    @cached_property
    def chains(self) -> list[list[int]]:
        """Positions of the layers that one gradient goes through; see `summary.chains`."""
        found = chains(self.run)
        return found or [[i for i, role in enumerate(self.roles) if role == "trained"]]

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """Which layers are not the last of a chain."""
        found = np.ones(len(self.layers), bool)
        found[[chain[-1] for chain in self.chains if chain]] = False
        return found

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Neighbours in a chain: a layer, and the one that its delta comes from."""
        pairs = dict.fromkeys(pair for chain in self.chains for pair in pairwise(chain))
        return list(pairs)

    @cached_property
    def activations(self) -> list[str]:
        """Names of the layers' activation functions; "?" where they are not known."""
        if "activation" not in self.run.dataset.coords:
            return ["?"] * len(self.layers)
        return [str(name) for name in self.run.dataset["activation"].values]

    def fans(self, which: str) -> Floats:
        """`fan_in` or `fan_out` of each layer; NaN where it is not known."""
        if which not in self.run.dataset.coords:
            return np.full(len(self.layers), np.nan)
        found = np.asarray(self.run.dataset[which].values, np.float64)
        return np.where(found > 0, found, np.nan)

    @cached_property
    def reasons(self) -> Reasons:
        """Why quantities are missing: layer -> quantity -> reason."""
        return reasons_of(self.run.attrs)


def readings(run: LabelledRun) -> list[Reading]:
    """One per net of a run."""
    if not run.ensemble:
        return [Reading(run)]
    return [Reading(run, member) for member in range(run.dataset.sizes["member"])]
