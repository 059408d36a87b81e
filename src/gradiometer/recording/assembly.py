"""A step put together: from arrays, or from what was measured of them piece by piece.

An adapter that has all arrays of a step at once hands them to `add_arrays`. One that measures each
as it comes keeps `Measured` parts, `join`s those of several calls of a layer, `put`s each into an
`Assembly`, and `add`s that to its session. Either way what was not put is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any

import numpy as np

from dp.typing import Array
from gradiometer.arrays import Numbers
from gradiometer.quantities import HISTOGRAM, share
from gradiometer.recording.looking import Beside, looking
from gradiometer.recording.measure import LayerArrays, measure, nothing
from gradiometer.recording.nonfinite import KINDS
from gradiometer.recording.origin import Look
from gradiometer.recording.requires import pooling_of
from gradiometer.recording.session import Session

# --- from arrays ----------------------------------------------------------------------------------


def one_step(
    number: int, layers: Sequence[LayerArrays], loss: Numbers, accuracy: Numbers
) -> tuple[list[int], list[tuple[list[int], LayerArrays]], Array, Array]:
    """The arguments of `add_arrays` for a single step, from the arrays of each of its layers.

    Their leading axes are those of the loss. A weight of more axes than a matrix is measured as a
    whole.
    """
    members = np.ndim(np.asarray(loss))
    # one step and one layer, as leading axes
    groups = [
        ([i], of.flattened(members).mapped(lambda x: x[None, None])) for i, of in enumerate(layers)
    ]
    return [number], groups, np.asarray(loss)[None], np.asarray(accuracy)[None]


def add_arrays(
    session: Session,
    steps: Sequence[int],
    groups: Sequence[tuple[Sequence[int] | slice, LayerArrays]],
    loss: Array,
    accuracy: Array,
    loss_seen: bool = True,
    *,
    grad_norm: Array | None = None,
    beside: Beside | None = None,
) -> None:
    """Record some steps, from their arrays.

    Parameters
    ----------
    session : Session
    steps, loss, accuracy, loss_seen, grad_norm
        As for `Session.add_measured`.
    groups : sequence of (positions, LayerArrays)
        Each with layers that are alike, by their positions (a list, or a slice) among those
        announced in `begin`; the arrays' leading axes are steps, those layers, and members if there
        are any.
    beside : callable, optional
        Gives what else was there where the first value came up that is not finite.
    """
    shape = (len(steps), len(session.layers), *loss.shape[1:])
    found: dict[str, Array] = {}
    places: dict[str, list[Sequence[int] | slice]] = {}  # of layers that have a quantity
    counts: dict[str, Array] = {}
    with np.errstate(all="ignore"):
        for positions, arrays in groups:
            here, nonfinite = measure(arrays, session.quantities)
            for name, values in here.items():
                if name not in found:
                    found[name], places[name] = nothing(name, shape), []
                found[name][:, positions] = values
                places[name].append(positions)
            for kind, values in nonfinite.items():
                if np.any(np.asarray(values)):
                    counts.setdefault(kind, np.zeros(shape))[:, positions] = values
    session.add_measured(
        steps, found, counts, loss, accuracy, loss_seen,
        grad_norm=grad_norm, missing=_masks(places, len(groups), shape),
        look=looking(groups, beside),
    )  # fmt: skip


def _masks(
    places: Mapping[str, Sequence[Sequence[int] | slice]], groups: int, shape: tuple[int, ...]
) -> dict[str, Array]:
    """What of each quantity is missing, if anything is."""
    found = {}
    covered = np.zeros(shape[1], bool)
    for name, positions in places.items():
        if len(positions) == groups and covered.all():  # as an earlier one, which had all layers
            continue
        covered = np.zeros(shape[1], bool)
        for place in positions:
            covered[place] = True
        if not covered.all():
            found[name] = np.broadcast_to(~covered.reshape(1, -1, *[1] * (len(shape) - 2)), shape)
    return found


# --- from parts -----------------------------------------------------------------------------------

REFERENCE = "reference activation"  # the kind of array in which a reference batch is not finite


@dataclass(slots=True)
class Measured:
    """What was measured of one array: of a weight's gradient, or in one call of a layer.

    Attributes
    ----------
    found : dict
        Quantities by name: numbers, or arrays of one for each member.
    counts : dict
        Entries that are not finite, by the kind of array (`KINDS`, or `REFERENCE`).
    zero_units : array of bool (…, units), optional
        Which units of an activation are zero on every sample: the dead fraction follows from it.
    size : int
        Number of entries.
    """

    found: dict[str, Numbers] = field(default_factory=dict)
    counts: dict[str, Numbers] = field(default_factory=dict)
    zero_units: Array | None = None
    size: int = 0


def join(parts: Sequence[Measured]) -> Measured:
    """Several batches of a layer as one: the quantities that all of them have."""
    if len(parts) == 1:
        return parts[0]
    kinds = set.intersection(*(set(part.counts) for part in parts))
    counts: dict[str, Any] = {kind: sum(part.counts[kind] for part in parts) for kind in kinds}
    names = set.intersection(*(set(part.found) for part in parts))
    sizes = [part.size for part in parts]
    found = pooled([{name: part.found[name] for name in names} for part in parts], sizes)
    units = [part.zero_units for part in parts]
    zero = None if any(known is None for known in units) else reduce(and_, units)
    return Measured(found, counts, zero, sum(sizes))


def pooled(parts: Sequence[Mapping[str, Numbers]], sizes: Sequence[int]) -> dict[str, Numbers]:
    """The quantities of several batches of a layer together, from those of each.

    Parameters
    ----------
    parts : sequence of mappings
        Quantities of one array, all with the same names: numbers, or arrays of one for each member.
    sizes : sequence of int
        How many entries each of them has.

    Returns
    -------
    dict
        What the quantities of the joined batches are: means (and shares) weighted by size, the root
        of mean squares, by them the standard deviation of the union, and sums.
    """
    if len(parts) == 1:
        return dict(parts[0])
    weights = np.asarray(sizes, dtype=np.float64) / sum(sizes)
    columns = {name: np.array([part[name] for part in parts], np.float64) for name in parts[0]}
    found: dict[str, Numbers] = {}
    for name, values in columns.items():
        pooling = pooling_of(name)
        if pooling == "rms":
            found[name] = _root_of_squares(weights, values)
        elif pooling == "spread":
            means = columns[name.removesuffix("_std") + "_mean"]
            away = means - weights @ means
            found[name] = _root_of_squares(np.tile(weights, 2), np.concatenate([values, away]))
        elif pooling == "sum":
            found[name] = values.sum(axis=0)
        else:
            found[name] = weights @ values
    return found


def _root_of_squares(weights: Array, values: Array) -> Array:
    """Root of a weighted sum of squares along the first axis, also where squares overflow."""
    with np.errstate(all="ignore"):
        largest = np.abs(values).max(axis=0)
        unit = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        return np.sqrt(weights @ (values / unit) ** 2) * unit


class Assembly:
    """One step, put together part by part.

    Parameters
    ----------
    session : Session
        Its layers have been announced.
    members : tuple of int
        Axes of the numbers: () or (members,).
    """

    def __init__(self, session: Session, members: tuple[int, ...] = ()) -> None:
        self._session, self._members = session, members
        # lists, for speed: a net's layers are few
        self._rows: dict[str, list[Any]] = {}
        self._counts: dict[str, list[Any]] = {}  # of kinds in which there are any

    def put(self, layer: int, part: Measured) -> None:
        """Fill in what was measured of a layer, by its position."""
        for name, value in part.found.items():
            self._put(name, layer, value)
        zero = part.zero_units
        if zero is not None and self._session.needs("dead_fraction"):
            nonfinite = part.counts.get(REFERENCE, part.counts.get("activation", math.nan))
            self._put("dead_fraction", layer, share(zero, nonfinite))
        for kind, value in part.counts.items():
            # without members a number, of which `np.any` would take longer than all the rest
            if kind in KINDS and (np.any(np.asarray(value)) if self._members else value):
                counts = self._counts.setdefault(kind, [0.0] * len(self._session.layers))
                counts[layer] = counts[layer] + value

    def _put(self, name: str, layer: int, value: Numbers) -> None:
        self._rows.setdefault(name, [None] * len(self._session.layers))[layer] = value

    def add(
        self,
        number: int,
        loss: Numbers | None = None,
        accuracy: Numbers | None = None,
        grad_norm: Numbers | None = None,
        look: Look | None = None,
    ) -> None:
        """Record the step.

        Parameters
        ----------
        number : int
            From 1.
        loss, accuracy, grad_norm : number or array (members,), optional
            None for what could not be had.
        look : callable, optional
            See `Session.add_measured`.
        """
        found, missing = {}, {}
        for name in self._session.of_layers:
            row = self._rows.get(name)
            if row is None:
                continue
            if any(value is None for value in row):
                missing[name] = self._mask(row)
                row = [self._blank(name) if value is None else value for value in row]
            found[name] = np.array(row, np.float64)[None]
        counts = {
            kind: np.array([np.broadcast_to(value, self._members) for value in row])[None]
            for kind, row in sorted(self._counts.items(), key=lambda item: KINDS.index(item[0]))
        }
        self._session.add_measured(
            [number], found, counts, self._of_step(loss), self._of_step(accuracy),
            loss_seen=loss is not None,
            grad_norm=None if grad_norm is None else self._of_step(grad_norm),
            missing=missing, look=look,
        )  # fmt: skip

    def _blank(self, name: str) -> Any:
        """In the place of what could not be had."""
        if name == HISTOGRAM:
            return nothing(name, self._members)
        return np.full(self._members, math.nan) if self._members else math.nan

    def _mask(self, row: Sequence[Any]) -> Array:
        absent = np.array([value is None for value in row])
        return np.broadcast_to(
            absent.reshape(1, -1, *[1] * len(self._members)), (1, len(row), *self._members)
        )

    def _of_step(self, value: Numbers | None) -> Array:
        number = np.asarray(math.nan if value is None else value, np.float64)
        return np.broadcast_to(number, self._members)[None]
