"""Which passes are probably trained: what is measured of the others can wait."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gradiometer.recording.adapters.torch.calls import Call, Listener, Pending
from gradiometer.recording.adapters.torch.functions import Function


@dataclass(slots=True)
class _Kept:
    call: Call
    function: Function
    units: Callable[[], torch.Tensor] | None
    x: torch.Tensor
    x_version: int
    h: torch.Tensor | None
    h_version: int

    @property
    def changed(self) -> bool:
        h = self.h
        return self.x._version != self.x_version or (h is not None and h._version != self.h_version)


class Late:
    """What a pass that is probably not trained leaves to be measured if it is trained after all.

    Its tensors share memory with the pass's own, but are no part of its graph. The hooks of the
    pass hold this, and the graph holds them: it goes when the graph goes.
    """

    __slots__ = ("_kept", "_lost")

    def __init__(self, lost: Callable[[], None]) -> None:
        self._kept: list[_Kept] = []
        self._lost = lost

    def keep(
        self, entry: Pending, x: torch.Tensor, function: Function, h: torch.Tensor | None
    ) -> None:
        """Note x = φ(h) of a call."""
        call, x = entry.call, x.detach()
        # only where h itself tells where the function is saturated
        needs_h = function.known is not None and not function.flat_where_zero
        below = h.detach() if needs_h and h is not None else None
        kept = _Kept(call, function, call.units, x, x._version, below, entry.version)
        self._kept.append(kept)

    def deliver(self, listener: Listener) -> None:
        """It is trained: measure what is still as it was."""
        kept, self._kept = self._kept, []
        for one in kept:
            if one.call.why_not:
                continue
            if one.changed:
                one.call.why_not = CHANGED
                self._lost()
                continue
            saturated = None if one.h is None else one.function.saturated(one.h)
            one.call.units = one.units
            listener.activation(one.call, one.x, saturated, one.function)
            one.call.units = None


CHANGED = (
    "its activation was changed in place before it could be measured, in a pass that was taken for "
    "an evaluation"
)


class Fate:
    """What becomes of a pass.

    Attributes
    ----------
    reached : bool
        Whether a delta has come back through it.
    late : Late, optional
        If it is probably not trained: keeps what is to be measured if it is after all.
    latest : weak reference, optional
        To the hook that was put last onto its graph.
    rests : bool
        Whether nothing is watched but whether it is trained.
    """

    __slots__ = ("late", "latest", "reached", "rests")

    def __init__(self, late: Late | None = None, rests: bool = False) -> None:
        self.reached = False
        self.late = late
        self.rests = rests
        self.latest: weakref.ref[Any] | None = None


class Expected:
    """Learns from what became of earlier passes, in training mode and in evaluation mode.

    Passes without a backward pass happen where validation data is looked at without
    `torch.no_grad`. After the first one in training mode, passes in this mode are measured only
    when a backward pass comes through them. After the first one in evaluation mode, passes in this
    mode are not watched at all, until one of them is trained: what was missed then is told.
    """

    def __init__(self) -> None:
        self._late: set[bool] = set()  # modes
        self._spoiled: set[bool] = set()  # modes in which waiting has cost a number
        # passes in evaluation mode, and under no_grad, have been trained
        self._evaluation_trains = self._blind_trains = False
        self._open: deque[tuple[bool, Fate]] = deque(maxlen=8)

    def begin(self, mode: bool) -> Fate:
        """A pass begins in this mode."""
        if self._open:
            self._look_back()
        if mode not in self._late:
            return Fate()
        if not mode and not self._evaluation_trains:
            return Fate(rests=True)

        def lost() -> None:
            self._spoiled.add(mode)
            self._late.discard(mode)

        return Fate(Late(lost))

    def begin_blind(self) -> Fate:
        """A pass begins under `torch.no_grad`: a look at validation data."""
        return Fate(rests=not self._blind_trains)

    def surprise(self, blind: bool) -> None:
        """A pass of which nothing was watched is trained."""
        if blind:
            self._blind_trains = True
        else:
            self._evaluation_trains = True

    def end(self, mode: bool, fate: Fate) -> None:
        """It has ended; what becomes of it is seen when others begin."""
        settled = fate.rests or fate.late is not None or mode in self._spoiled
        if not settled and fate.latest is not None:
            self._open.append((mode, fate))

    def _look_back(self) -> None:
        """A pass whose graph has gone without a delta was not trained."""
        still: list[tuple[bool, Fate]] = []
        for mode, fate in self._open:
            if fate.reached:
                self._evaluation_trains |= not mode
            elif fate.latest is not None and fate.latest() is not None:
                still.append((mode, fate))
            else:
                self._late.add(mode)
        self._open = deque(still, maxlen=8)
