"""Session: one recording, as the adapter of a framework sees it.

A framework's recorder has a session. It asks which steps and arrays are wanted, and tells which
layers there are, what was measured of a step, and what cannot be had and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dp.typing import Array
from dp.validation import one_of
from gradiometer.events import Guarded, Listener, StepRecorded
from gradiometer.quantities import HISTOGRAM, OF_STEPS, QUANTITIES
from gradiometer.recording.chains import among, chains_of, layers_above
from gradiometer.recording.clock import Clock
from gradiometer.recording.functions import UNKNOWN
from gradiometer.recording.live import Live
from gradiometer.recording.measure import nothing
from gradiometer.recording.nonfinite import first_nonfinite
from gradiometer.recording.origin import Look
from gradiometer.recording.place import StepRecord, how_it_began
from gradiometer.recording.requires import arrays_for
from gradiometer.recording.schedule import Schedule
from gradiometer.states import MODEL, not_there


@dataclass(frozen=True)
class LayerInfo:
    """A layer's name, sizes, and the name of its activation function.

    `fan_in` and `fan_out` are 0 where they are not known: the weight may be held either way round.
    `role` is "trained"; or "frozen" (it is not to be trained), "unreached" (in the first step no
    backward pass came to it, though it is to be trained) or "outside" (it has no place in the
    forward pass: it was not called in the first step, or is a parameter without a module's call).
    `kind` is "affine" or "normalisation".
    """

    name: str
    fan_in: int
    fan_out: int
    activation: str = UNKNOWN
    role: str = "trained"
    kind: str = "affine"


@dataclass
class Rows:
    """Some steps, as they were recorded together.

    Attributes
    ----------
    steps : list of int
    values : dict
        Quantity -> array (steps, layers[, members]), or (steps[, members]).
    missing : dict
        Quantity -> boolean array of the same shape, but for a histogram's bins: what could not be
        had. Quantities of which all could be had are left out.
    """

    steps: list[int]
    values: dict[str, Array]
    missing: dict[str, Array]

    def first(self, count: int) -> Rows:
        """The first steps of them."""
        return Rows(
            self.steps[:count],
            {name: rows[:count] for name, rows in self.values.items()},
            {name: rows[:count] for name, rows in self.missing.items()},
        )


class Session:
    """What is recorded, which steps, and what came of it.

    Parameters
    ----------
    every : int
        Record every k-th step, starting with the first.
    histograms : bool
        Record log10 histograms of the gradients too.
    quantities : collection of str, optional
        Which of `gradiometer.quantities` to record; by default, those that are not on request.
    max_overhead : float, optional
        Leave out steps, so that recording takes at most this share of the time: 0.05 for 5 %.
    always : int
        So many steps are recorded whatever they take.
    only : collection of str, optional
        The names of the layers that are recorded; all by default.
    live : Live, optional
        Looks at the run while it is recorded.

    Attributes
    ----------
    live : Live, optional
    diagnose : callable
        Says what the net suffers from, by what was recorded so far; set by the recorder.
    only : tuple of str, optional
    schedule : Schedule
        Which steps are recorded.
    quantities : tuple of str
        What is recorded.
    arrays : frozenset of str
        The arrays of a layer that this needs; see `requires`.
    layers : tuple of LayerInfo
    chains : list of lists of int, optional
        Layers by position, from one that has none before it to one that has none after it; None if
        it is not known, so that they are taken for one chain.
    above : dict of int to int
        Layer -> the one that its delta comes from, by position, as far as it is known.
    missing : dict
        Layer -> quantity -> why it cannot be had.
    why_nothing : str
        Why no step has been recorded.
    done, recorded : int
        Steps so far, recorded or not; and those that were recorded.
    accuracy : float
        Of the latest step, mean over members.
    total : int, optional
        How many steps there will be, if that is known; listeners are told.
    """

    def __init__(
        self,
        every: int = 1,
        histograms: bool = False,
        quantities: Collection[str] | None = None,
        max_overhead: float | None = None,
        always: int = 1,
        only: Collection[str] | None = None,
        live: Live | None = None,
    ) -> None:
        self.live = live
        self.diagnose: Callable[[], Any] = lambda: None
        self.only = _checked_names(only)
        self.schedule = Schedule(every, max_overhead, always)
        if isinstance(quantities, str):
            quantities = (quantities,)
        for name in quantities or ():
            one_of("quantity", name, tuple(QUANTITIES))
        wanted = [
            name
            for name, row in QUANTITIES.items()
            if (not row.on_request if quantities is None else name in quantities)
        ]
        self.quantities = (*wanted, *([HISTOGRAM] if histograms else []))
        self.of_layers = [name for name in self.quantities if name not in OF_STEPS]
        self.arrays = arrays_for(self.quantities)
        self.layers: tuple[LayerInfo, ...] = ()
        self.chains: list[list[int]] | None = None
        self.above: dict[int, int] = {}
        self.missing: dict[str, dict[str, str]] = {}
        self.why_nothing = "no training step was completed"
        self.done = self.recorded = 0
        self.accuracy = float("nan")
        # what each call of `add_measured` gave: an interrupt leaves all of it or nothing
        self._added: list[Rows] = []
        self._latest: Sequence[int] = ()
        self.members: tuple[int, ...] = ()
        self.nonfinite: dict[str, Any] = {}
        self._waiting: Callable[[], None] = lambda: None
        self.optimizer = ""
        self._rates: list[tuple[int, float]] = []  # from which step on, and what it is then
        self.total: int | None = None
        self._listeners: list[Guarded] = []

    # --- which steps ------------------------------------------------------------------------------

    def wants(self, step: int) -> bool:
        """Whether step number `step` (from 1) is to be recorded; the answer stays the same."""
        return self.schedule.wants(step)

    @property
    def every(self) -> int:
        """Every how many steps one is recorded."""
        return self.schedule.every

    def turn(self, on: bool) -> None:
        """Say that training goes on while it is recorded, or that it does not any more."""
        self.schedule.turn(on)

    @property
    def timed(self) -> Clock:
        """A clock: `with session.timed:` around what recording takes."""
        return self.schedule.clock

    @timed.setter
    def timed(self, clock: Clock) -> None:
        self.schedule.clock = clock

    # --- what is told of the layers ---------------------------------------------------------------

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

    def describe(self, layer: int, **facts: Any) -> None:
        """Say what is known only now of a layer, by its position: its `activation`, or `role`."""
        changed = replace(self.layers[layer], **facts)
        self.layers = (*self.layers[:layer], changed, *self.layers[layer + 1 :])

    def applies(self, layer: int, function: str) -> str:
        """Note the name of a layer's activation function, by the layer's position.

        It is the one that was seen first; of another this tells why it does not count.
        """
        known = self.layers[layer].activation
        if known == UNKNOWN:
            self.describe(layer, activation=function)
        if known in (UNKNOWN, function):
            return ""
        return f"{function} was applied to its output, where it had been {known}"

    def picks(self, layer: str) -> bool:
        """Whether a layer of this name is recorded."""
        return self.only is None or layer in self.only

    def check_names(self, known: Sequence[str]) -> None:
        """Raise ValueError for a layer that is to be recorded, and is not among these."""
        for name in self.only or ():
            one_of("layer", name, tuple(known))

    def leads(
        self,
        before: Mapping[int, int],
        groups: Mapping[int, Hashable],
        kept: Sequence[int] | None = None,
    ) -> None:
        """Say which layers lead to which; see `chains_of`.

        `kept` are the positions of the recorded layers among all, if these are not all recorded: a
        layer is above another only if there is none in between, recorded or not.
        """
        above = layers_above(before, groups)
        if kept is not None:
            at = {layer: i for i, layer in enumerate(kept)}
            above = {at[i]: at[j] for i, j in above.items() if i in at and j in at}
            before, groups = among(before, groups, kept)
        self.chains, self.above = chains_of(before, groups), above

    def miss(self, layer: str, names: Collection[str], why: str) -> None:
        """Note why quantities of a layer are missing; the first reason stays."""
        if layer != MODEL and not self.picks(layer):
            return
        for name in names:
            if self.needs(name):
                self.missing.setdefault(layer, {}).setdefault(name, why)

    def tell_optimizer(self, step: int, name: str, rate: Any) -> None:
        """Say what makes the update of a step: the class's name, and its learning rate.

        What is no number is taken for unknown.
        """
        self.optimizer = name
        known = isinstance(rate, int | float) and not isinstance(rate, bool)
        rate = float(rate) if known else math.nan
        if not self._rates or (rate != self._rates[-1][1] and known):
            self._rates.append((step, rate))

    @property
    def learning_rates(self) -> Array:
        """The learning rate of each step recorded; NaN where it is not known."""
        begins = [step for step, _ in self._rates]
        rates = np.array([math.nan, *(rate for _, rate in self._rates)])
        return rates[np.searchsorted(begins, self.steps, side="right")]

    # --- what is told of a step -------------------------------------------------------------------

    def add_measured(
        self,
        steps: Sequence[int],
        found: Mapping[str, Array],
        counts: Mapping[str, Array],
        loss: Array,
        accuracy: Array,
        loss_seen: bool = True,
        *,
        grad_norm: Array | None = None,
        missing: Mapping[str, Array] | None = None,
        look: Look | None = None,
    ) -> None:
        """Record some steps whose quantities were measured already.

        The same `steps` object a second time is ignored: an interrupt kept the caller from noting
        that it was added.

        Parameters
        ----------
        steps : sequence of int
            Their numbers, from 1.
        found : mapping of name to array
            Each of shape (steps, layers) or (steps, layers, members), and the session's from now
            on. Quantities of a layer; one that is left out is missing in every layer.
        counts : mapping of kind to array of the same shape
            Number of entries that are not finite, in each of `KINDS` that has any.
        loss, accuracy : array (steps,) or (steps, members)
            An accuracy that is NaN is missing.
        loss_seen : bool
            Whether there was a loss; or else its NaN means that nobody told it.
        grad_norm : array (steps,) or (steps, members), optional
            Norm of the gradient of all parameters together.
        missing : mapping of name to boolean array, optional
            Of the quantities in `found` with layers that could not be had: which ones. Of the shape
            of the quantity, without a histogram's bins.
        look : callable, optional
            Gives what is to be seen of the place where the first value came up that is not finite.
        """
        if steps is self._latest:
            return
        shape = (len(steps), len(self.layers), *loss.shape[1:])
        rows = Rows(list(steps), {}, dict(missing or {}))
        for name in self.of_layers:
            values = found.get(name)
            if values is None:
                rows.values[name] = nothing(name, shape)
                rows.missing[name] = np.ones(shape, bool)
            else:
                rows.values[name] = np.asarray(values, np.float64)
        if self.needs("nonfinite_count"):
            rows.values["nonfinite_count"] = total = np.zeros(shape)
            for count in counts.values():
                total += count
            rows.missing.pop("nonfinite_count", None)
        self._keep_per_step(rows, loss, accuracy, loss_seen, grad_norm)
        self.members = loss.shape[1:]
        self.accuracy = float(np.mean(accuracy[-1]))
        self._added.append(rows)
        self.recorded += len(rows.steps)
        self._latest = steps
        if not self.nonfinite:
            self._look_for_nonfinite(rows, counts, loss_seen, look)
        if self._listeners:
            self._tell(rows)

    def _keep_per_step(
        self,
        rows: Rows,
        loss: Array,
        accuracy: Array,
        loss_seen: bool,
        grad_norm: Array | None,
    ) -> None:
        """Keep what has no layers."""
        norm = np.full(loss.shape, np.nan) if grad_norm is None else grad_norm
        for name, values in (("loss", loss), ("accuracy", accuracy), ("grad_norm", norm)):
            if self.needs(name):
                rows.values[name] = np.array(values, dtype=np.float64)
        unknown = {"loss": not loss_seen, "grad_norm": grad_norm is None}
        for name, untold in unknown.items():
            if untold and self.needs(name):
                rows.missing[name] = np.ones(loss.shape, bool)
        if self.needs("accuracy"):
            nan = np.isnan(rows.values["accuracy"])
            if nan.any():
                rows.missing["accuracy"] = nan

    def forget_after(self, step: int) -> None:
        """Leave out the steps after number `step`: they were undone, and are to leave no row."""
        counts = [sum(number <= step for number in rows.steps) for rows in self._added]
        self._added = [
            rows.first(count) for rows, count in zip(self._added, counts, strict=True) if count
        ]
        self.recorded = len(self.steps)
        if self.nonfinite and self.nonfinite["nonfinite_step"] > step:
            self.nonfinite = {}

    def _look_for_nonfinite(
        self, rows: Rows, counts: Mapping[str, Array], loss_seen: bool, look: Look | None
    ) -> None:
        kept, steps = rows.values, rows.steps
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
            found = first_nonfinite([info.name for info in self.layers], there)
            record = StepRecord(
                self.layers, self.chains, at, kept, rows.missing, counts, told,
                whole=self.only is None,
            )  # fmt: skip
            began = how_it_began(record, found, look)
            self.nonfinite = {"nonfinite_step": steps[at], **found, **began}

    # --- telling ----------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of every step that is recorded from now on."""
        self._listeners.append(Guarded.of(listener))

    def _tell(self, rows: Rows) -> None:
        # all steps are cut at once: a compiled step of a small net takes only 50 microseconds
        layers = tuple(info.name for info in self.layers)
        values = [
            (name, _each_step(rows.values[name])) for name in self.of_layers if name != HISTOGRAM
        ]
        missing = [
            (name, _each_step(mask), set(np.nonzero(mask)[0].tolist()))
            for name, mask in rows.missing.items()
        ]
        losses, accuracies = (_means(rows, name) for name in ("loss", "accuracy"))
        for i, step in enumerate(rows.steps):
            event = StepRecorded(
                step, self.total, losses[i], accuracies[i], layers,
                quantities={name: of_steps[i] for name, of_steps in values},
                missing={name: masks[i] for name, masks, there in missing if i in there},
            )  # fmt: skip
            for listener in (*self._listeners,):  # it may bring another one, which hears the next
                listener(event)

    def look(self) -> None:
        """Between two steps: diagnose the run so far, if that is wanted and it is time."""
        live = self.live
        if live is None or not live.is_due(self.recorded, bool(self.nonfinite)):
            return
        with self.timed:
            live.look(self.diagnose(), self.recorded, self.steps[-1], bool(self.nonfinite))

    def look_and_stop(self) -> None:
        """The same; raises TrainingStopped if the training is to end."""
        if self.live is not None:
            self.look()
            self.live.check()

    # --- reading ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let the adapter add what it still holds back."""
        self._waiting()

    @property
    def steps(self) -> list[int]:
        """Numbers of the steps recorded so far."""
        return [number for rows in self._added for number in rows.steps]

    def column(self, name: str) -> Array:
        """A quantity of all steps: (steps, layers[, members]), or (steps[, members])."""
        found = [rows.values[name] for rows in self._added]
        return np.concatenate(found) if found else np.empty(0)

    def mask(self, name: str) -> Array:
        """What of a quantity could not be had, in all steps; without a histogram's bins."""
        values = self.column(name)
        empty = not_there(values, histogram=name == HISTOGRAM)
        found, start = np.zeros_like(empty), 0
        for rows in self._added:
            end = start + len(rows.steps)
            if name in rows.missing:
                found[start:end] = rows.missing[name] & empty[start:end]
            start = end
        return found


def _checked_names(given: Collection[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, Iterable):
        raise TypeError(f"layers must be names of layers, got {given!r}")
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"layers must be names of layers, one at least, got {given!r}")
    return names


def _each_step(values: Array) -> list[Array]:
    """What is there of each step, read-only."""
    values = values.view()
    values.flags.writeable = False
    return list(values)


def _means(rows: Rows, name: str) -> list[float]:
    """Mean over members in each step; NaN if it is not recorded."""
    if name not in rows.values:
        return [math.nan] * len(rows.steps)
    values = rows.values[name]
    return values.tolist() if values.ndim == 1 else [float(of.mean()) for of in values]
