"""Recorder: collects the quantities of every layer, step by step, for any framework."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.validation import number, one_of, positive_integer
from gradiometer.recording import quantities as q
from gradiometer.recording.clock import Clock
from gradiometer.recording.measure import (
    HISTOGRAM,
    PER_LAYER,
    PER_STEP,
    LayerArrays,
    measure,
    nothing,
)
from gradiometer.recording.quantities import Array
from gradiometer.states import MODEL, Reasons, inferred_of_layers, not_there, reason_for

if TYPE_CHECKING:
    from gradiometer.trace import Trace

UNKNOWN = "unknown"  # an activation function
NO_LABELS = "there are no labels of classes, on a reference batch, to compare the output with"
Masks = dict[str, NDArray[np.bool_]]  # by quantity: where it is missing


@dataclass(frozen=True)
class LayerInfo:
    """A layer's name, sizes, and the name of its activation function.

    `fan_in` and `fan_out` are 0 where they are not known: the weight may be held either way round.
    `role` is "trained"; or "frozen" (it is not to be trained), "unreached" (in the first step no
    backward pass came to it, though it is to be trained) or "outside" (it has no place in the
    forward pass: it was not called in the first step, or is a parameter without a module's call).
    """

    name: str
    fan_in: int
    fan_out: int
    activation: str
    role: str = "trained"


class Recorder:
    """Buffers of every quantity, valid after any number of steps.

    Parameters
    ----------
    every : int
        Record every k-th step, starting with the first.
    histograms : bool
        Record log10 histograms of the gradients too.
    quantities : collection of str, optional
        Which of `PER_LAYER` and `PER_STEP` to record; all by default.
    max_overhead : float, optional
        Leave out steps, so that recording takes at most this share of the time: 0.05 for 5 %.
    """

    # so many steps are recorded whatever they take
    always = 1

    def __init__(
        self,
        every: int = 1,
        histograms: bool = False,
        quantities: Collection[str] | None = None,
        max_overhead: float | None = None,
    ) -> None:
        positive_integer("every", every)
        if max_overhead is not None and not 0 < number("max_overhead", max_overhead) <= 1:
            raise ValueError(
                f"max_overhead must be a share of the time, above 0 and at most 1 (0.05 for 5 %), "
                f"got {max_overhead!r}"
            )
        if isinstance(quantities, str):
            quantities = (quantities,)
        for name in quantities or ():
            one_of("quantity", name, (*PER_LAYER, *PER_STEP))
        self.every, self.max_overhead = every, max_overhead
        wanted = [
            name for name in (*PER_LAYER, *PER_STEP) if quantities is None or name in quantities
        ]
        self.quantities = (*wanted, *([HISTOGRAM] if histograms else []))
        self._of_layers = [name for name in self.quantities if name not in PER_STEP]
        self.layers: tuple[LayerInfo, ...] = ()
        # layers by position, from one that has none before it to one that has none after it; None
        # if it is not known, so that they are taken for one chain
        self.chains: list[list[int]] | None = None
        self.missing: dict[str, dict[str, str]] = {}  # layer -> what cannot be had -> why
        self.why_nothing = "no training step was completed"
        self.accuracy = float("nan")  # of the latest step, mean over members
        # what each call of `add` gave, as a whole: an interrupt leaves all of it or nothing
        self._added: list[tuple[list[int], dict[str, Array], Masks]] = []
        self._latest: Sequence[int] = ()
        self._members: tuple[int, ...] = ()
        self._nonfinite: dict[str, Any] = {}
        self._before = 0.0  # seconds it was on until it was last turned off
        self._since: float | None = None
        self._decided = (0, False)  # a step, and whether it is recorded
        self._chosen = 0  # how many were decided to be
        self._then = (0.0, 0.0)  # spent, and on, when the last such step began
        self._waiting: Callable[[], None] = lambda: None
        self.timed: Clock = Clock()  # `with recorder.timed:` around what recording takes

    # --- filling ----------------------------------------------------------------------------------

    def wants(self, step: int) -> bool:
        """Whether step number `step` (from 1) is to be recorded; the answer stays the same."""
        if (step - 1) % self.every:
            return False
        if self.max_overhead is None:
            return True
        if step != self._decided[0]:
            # since the step that was recorded last, so that a slow beginning earns no credit
            spent, on = self.timed.total - self._then[0], self._on - self._then[1]
            wanted = self._chosen < self.always or spent <= self.max_overhead * on
            self._decided = (step, wanted)
            if wanted:
                self._chosen += 1
                self._then = self.timed.total, self._on
        return self._decided[1]

    def needs(self, *quantities: str) -> bool:
        """Whether any of these is to be recorded."""
        return any(name in self.quantities for name in quantities)

    def begin(self, layers: Sequence[LayerInfo], waiting: Callable[[], None] | None = None) -> None:
        """Say which layers there are, in the order of the forward pass.

        `waiting` is called before the record is read: it adds what an adapter still holds back.
        """
        self.layers = tuple(layers)
        if waiting is not None:
            self._waiting = waiting

    def turn(self, on: bool) -> None:
        """Say that training goes on while it is recorded, or that it does not any more."""
        now = time.perf_counter()
        if self._since is not None:
            self._before += now - self._since
        self._since = now if on else None

    def describe(self, layer: int, **facts: Any) -> None:
        """Say what is known only now of a layer, by its position: its `activation`, or `role`."""
        changed = replace(self.layers[layer], **facts)
        self.layers = (*self.layers[:layer], changed, *self.layers[layer + 1 :])

    def miss(self, layer: str, names: Collection[str], why: str) -> None:
        """Note why quantities of a layer are missing; the first reason stays."""
        for name in names:
            if self.needs(name):
                self.missing.setdefault(layer, {}).setdefault(name, why)

    def add(
        self,
        steps: Sequence[int],
        groups: Sequence[tuple[Sequence[int] | slice, LayerArrays]],
        loss: Array,
        accuracy: Array,
        loss_seen: bool = True,
    ) -> None:
        """Record some steps; the same `steps` object a second time is ignored.

        Parameters
        ----------
        steps : sequence of int
            Their numbers, from 1.
        groups : sequence of (positions, LayerArrays)
            Each with layers that are alike, by their positions (a list, or a slice) among those
            announced in `begin`; the arrays' leading axes are steps, those layers, and members if
            there are any.
        loss, accuracy : array (steps,) or (steps, members)
            Their shape tells whether there are members; their numbers are recorded if wanted.
        loss_seen : bool
            As in `add_measured`.
        """
        if steps is self._latest:  # an interrupt kept the caller from noting that it was added
            return
        shape = (len(steps), len(self.layers), *loss.shape[1:])
        found: dict[str, Array] = {name: nothing(name, shape) for name in self._of_layers}
        missing: Masks = {name: np.ones(shape, bool) for name in self._of_layers}
        missing.pop(
            "clip_factor", None
        )  # NaN too where the gradient that the update used is not known
        counts: dict[str, Array] = {}
        with np.errstate(all="ignore"):
            for positions, arrays in groups:
                here, nonfinite = measure(arrays, self.quantities)
                for name, values in here.items():
                    found[name][:, positions] = values
                    if name in missing:
                        missing[name][:, positions] = False
                for kind, values in nonfinite.items():
                    if np.any(values):
                        counts.setdefault(kind, np.zeros(shape))[:, positions] = values
        self.add_measured(steps, found, counts, loss, accuracy, loss_seen, missing)

    def add_measured(
        self,
        steps: Sequence[int],
        found: Mapping[str, Array],
        counts: Mapping[str, Array],
        loss: Array,
        accuracy: Array,
        loss_seen: bool = True,
        missing: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        """Record some steps whose quantities were measured already; `steps` as for `add`.

        Parameters
        ----------
        steps : sequence of int
            Their numbers, from 1.
        found : mapping of name to array
            Each of shape (steps, layers) or (steps, layers, members), and the recorder's from now
            on. Quantities of `PER_LAYER`; one that is missing is recorded as NaN.
        counts : mapping of kind to array of the same shape
            Number of entries that are not finite, in each of `KINDS` that has any.
        loss, accuracy : array (steps,) or (steps, members)
        loss_seen : bool
            Whether there was a loss; or else its NaN means that nobody told it.
        missing : mapping of name to boolean array (steps, layers) or (steps, layers, members)
            Where a quantity could not be had. Of one that is in `found` but not here, it is
            inferred from its NaNs, the counts and the reasons (see `miss`).
        """
        if steps is self._latest:
            return
        shape = (len(steps), len(self.layers), *loss.shape[1:])
        kept: dict[str, Array] = {}
        for name in self._of_layers:
            values = found.get(name)
            kept[name] = nothing(name, shape) if values is None else np.asarray(values, np.float64)
        masks = {name: np.asarray(mask, bool) for name, mask in (missing or {}).items()}
        masks |= {name: np.ones(shape, bool) for name in self._of_layers if name not in found}
        if self.needs("nonfinite_count"):
            kept["nonfinite_count"] = total = np.zeros(shape)
            for count in counts.values():
                total += count
            masks["nonfinite_count"] = np.zeros(shape, bool)
        for name, values in (("loss", loss), ("accuracy", accuracy)):
            if self.needs(name):
                kept[name] = np.array(values, dtype=np.float64)
        masks["loss"] = np.full(loss.shape, not loss_seen)
        self._members = loss.shape[1:]
        self._added.append((list(steps), kept, masks))
        self._latest = steps
        if not self._nonfinite:
            self._look_for_nonfinite(steps, counts, kept, loss_seen)

    def forget_after(self, step: int) -> None:
        """Leave out the steps after number `step`: they were undone, and are to leave no row."""
        kept = []
        for steps, found, missing in self._added:
            count = sum(number <= step for number in steps)
            if count:
                kept.append((
                    steps[:count],
                    {name: rows[:count] for name, rows in found.items()},
                    {name: rows[:count] for name, rows in missing.items()},
                ))  # fmt: skip
        self._added = kept
        if self._nonfinite and self._nonfinite["nonfinite_step"] > step:
            self._nonfinite = {}

    def _per_layer(self) -> list[str]:
        return [name for name in self.quantities if name in PER_LAYER]

    def _look_for_nonfinite(
        self,
        steps: Sequence[int],
        counts: Mapping[str, Array],
        kept: Mapping[str, Array],
        loss_seen: bool,
    ) -> None:
        told = "loss" in kept and loss_seen
        if (not told or np.isfinite(kept["loss"]).all()) and not counts:
            return
        bad = np.zeros(len(steps), bool)
        if told:
            bad |= ~np.isfinite(kept["loss"]).reshape(len(steps), -1).all(axis=1)
        if "nonfinite_count" in kept:
            bad |= kept["nonfinite_count"].reshape(len(steps), -1).any(axis=1)
        if bad.any():
            at = int(bad.argmax())
            there = {
                kind: count[at].reshape(len(self.layers), -1).sum(axis=1)
                for kind, count in counts.items()
            }
            self._nonfinite = {
                "nonfinite_step": steps[at],
                **first_nonfinite([info.name for info in self.layers], there),
            }

    # --- reading ----------------------------------------------------------------------------------

    @property
    def n_steps(self) -> int:
        """Number of steps recorded so far."""
        self._waiting()
        return len(self._steps())

    def __getitem__(self, name: str) -> Array:
        """A quantity recorded so far, as a plain array: (steps, layers[, members]).

        Raises
        ------
        KeyError
            If it was not recorded.
        """
        self._waiting()
        if not self.needs(name):
            raise KeyError(f"{name!r} was not recorded; there are {', '.join(self.quantities)}")
        rows = [found[name] for _, found, _ in self._added]
        return np.concatenate(rows) if rows else np.empty(0)

    def _steps(self) -> list[int]:
        return [number for steps, _, _ in self._added for number in steps]

    @property
    def overhead(self) -> float:
        """Share of the time that recording took, of all the time during which it was on."""
        return self.timed.total / max(self._on, 1e-12)

    @property
    def _on(self) -> float:
        """Seconds during which it was on."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def trace(self) -> Trace:
        """Everything recorded so far; see `to_trace`."""
        return self.to_trace()

    def to_trace(
        self, attributes: Mapping[str, Any] | None = None, members: Sequence[int] | None = None
    ) -> Trace:
        """Everything recorded so far, as a Trace.

        Parameters
        ----------
        attributes : mapping, optional
            Facts about the run to keep with it.
        members : sequence of ints, optional
            Seeds of an ensemble's members; numbered from 0 if not given.

        Raises
        ------
        ValueError
            If no step has been recorded.
        """
        from gradiometer.trace import Trace

        self._waiting()
        if not self._added:
            raise ValueError(f"nothing has been recorded yet: {self.why_nothing}")
        columns = {name: self[name] for name in self.quantities}
        ensemble = bool(self._members)
        dims = ("step", "layer", *(("member",) if ensemble else ()))
        variables: dict[str, Any] = {name: (dims, columns[name]) for name in self._per_layer()}
        variables |= {
            name: (("step", *dims[2:]), columns[name]) for name in PER_STEP if name in columns
        }
        coords: dict[str, Any] = {
            "step": np.array(self._steps()),
            "layer": [info.name for info in self.layers],
            "depth": ("layer", np.arange(1, len(self.layers) + 1)),
            "fan_in": ("layer", [info.fan_in for info in self.layers]),
            "fan_out": ("layer", [info.fan_out for info in self.layers]),
            "activation": ("layer", [info.activation for info in self.layers]),
        }
        if any(info.role != "trained" for info in self.layers):
            coords["role"] = ("layer", [info.role for info in self.layers])
        if ensemble:
            coords["member"] = list(range(*self._members) if members is None else members)
        trained = [i for i, info in enumerate(self.layers) if info.role == "trained"]
        if self.chains is not None and self.chains != [trained]:
            attributes = {**(attributes or {}), "chains": json.dumps(self.chains)}
        missing = self._missing(columns)
        reasons = self._reasons(missing)
        if reasons:
            attributes = {**(attributes or {}), "missing": json.dumps(reasons)}
        if HISTOGRAM in columns:
            variables[HISTOGRAM] = ((*dims, "bin"), columns[HISTOGRAM])
            coords["bin"] = q.HISTOGRAM_EDGES
        facts = {
            **(attributes or {}), "recording_overhead": self.overhead, **self._nonfinite,
        }  # fmt: skip
        return Trace.from_arrays(variables, coords, facts, missing)

    def _missing(self, columns: Mapping[str, Array]) -> Masks:
        """Where each quantity could not be had."""
        found = {}
        for name, values in columns.items():
            guess = self._inferred(name, values, columns.get("nonfinite_count"))
            parts, start = [], 0
            for steps, _, masks in self._added:
                end = start + len(steps)
                parts.append(masks.get(name, guess[start:end]))
                start = end
            found[name] = np.concatenate(parts) & not_there(values, histogram=name == HISTOGRAM)
        return found

    def _reasons(self, missing: Masks) -> Reasons:
        """Those that were given, and what goes without saying: an accuracy takes labels."""
        given = {layer: dict(reasons) for layer, reasons in self.missing.items()}
        if missing.get("accuracy", np.zeros(())).any():
            given.setdefault(MODEL, {}).setdefault("accuracy", NO_LABELS)
        return given

    def _inferred(self, name: str, values: Array, count: Array | None) -> NDArray[np.bool_]:
        """Where a quantity seems to be missing, where no adapter said it."""
        empty = not_there(values, histogram=name == HISTOGRAM)
        if name in PER_STEP:  # the outputs that an accuracy is of may not be finite: itself it is
            return empty
        names = [info.name for info in self.layers]
        explained = [reason_for(self.missing, name, layer) is not None for layer in names]
        return inferred_of_layers(empty, explained, None if name == HISTOGRAM else count)


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
