"""Forward passes that are probably not trained: what is measured of them waits until they are."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.functions import Function

CHANGED = (
    "its activation was changed in place before it could be measured, in a pass that was taken for "
    "an evaluation"
)


@dataclass(slots=True)
class _Kept:
    call: Call
    function: Function
    units: Callable[[], torch.Tensor] | None
    tensors: list[tuple[torch.Tensor, int]]  # x, and h where it tells of saturation; versions

    @property
    def changed(self) -> bool:
        return any(tensor._version != version for tensor, version in self.tensors)


class Deferred:
    """Activations that are measured when a delta comes back through their pass.

    The tensors share memory with the pass's own, but are no part of its graph. The hooks of the
    pass hold this, and the graph holds them: it goes when the graph goes.

    Parameters
    ----------
    lost : callable
        Is called when an activation was changed before it could be measured.
    """

    __slots__ = ("_kept", "_lost")

    def __init__(self, lost: Callable[[], None]) -> None:
        self._kept: list[_Kept] = []
        self._lost = lost

    def keep(
        self,
        call: Call,
        x: torch.Tensor,
        function: Function,
        h: torch.Tensor | None,
        h_version: int,
    ) -> None:
        """Note x = φ(h) of a call."""
        tensors = [(x.detach(), x._version)]
        if h is not None and function.saturates and not function.flat_where_zero:
            tensors.append((h.detach(), h_version))
        self._kept.append(_Kept(call, function, call.units, tensors))

    def deliver(self, measuring: Measuring) -> None:
        """The pass is trained: measure what is still as it was."""
        kept, self._kept = self._kept, []
        for one in kept:
            call = one.call
            if call.why_not:
                continue
            if one.changed:
                call.why_not = CHANGED
                self._lost()
                continue
            (x, _), *below = one.tensors
            saturated = one.function.saturated(as_array(below[0][0])) if below else None
            call.units = one.units
            measuring.activation(call, x, saturated, one.function)
            call.units = None


class ForwardPass:
    """A forward pass, and whether it is trained.

    Attributes
    ----------
    reached : bool
        Whether a delta has come back through it.
    deferred : Deferred, optional
        If it is probably not trained: keeps what is to be measured if it is after all.
    latest : weak reference, optional
        To the hook that was put last onto its graph.
    unwatched : bool
        Whether its calls are not watched; it is only seen whether it is trained.
    """

    __slots__ = ("deferred", "latest", "reached", "unwatched")

    def __init__(self, deferred: Deferred | None = None, unwatched: bool = False) -> None:
        self.reached = False
        self.deferred = deferred
        self.unwatched = unwatched
        self.latest: weakref.ref[Any] | None = None


class PassHistory:
    """Learns from what became of earlier passes, in training mode and in evaluation mode.

    Passes without a backward pass happen where validation data is looked at without
    `torch.no_grad`. After the first one in training mode, passes in this mode are measured only
    when a backward pass comes through them. After the first one in evaluation mode, passes in this
    mode are not watched at all, until one of them is trained: what was missed then is told.
    """

    def __init__(self) -> None:
        self._deferring: set[bool] = set()  # modes
        self._spoiled: set[bool] = set()  # modes in which waiting has cost a number
        # passes in evaluation mode, and under no_grad, have been trained
        self._evaluation_trains = self._no_grad_trains = False
        self._open: deque[tuple[bool, ForwardPass]] = deque(maxlen=8)

    def begin(self, mode: bool) -> ForwardPass:
        """A pass begins in this mode."""
        if self._open:
            self._look_back()
        if mode not in self._deferring:
            return ForwardPass()
        if not mode and not self._evaluation_trains:
            return ForwardPass(unwatched=True)

        def lost() -> None:
            self._spoiled.add(mode)
            self._deferring.discard(mode)

        return ForwardPass(Deferred(lost))

    def begin_without_gradients(self) -> ForwardPass:
        """A pass begins under `torch.no_grad`: a look at validation data."""
        return ForwardPass(unwatched=not self._no_grad_trains)

    def was_trained(self, without_gradients: bool) -> None:
        """A pass of which nothing was watched is trained."""
        if without_gradients:
            self._no_grad_trains = True
        else:
            self._evaluation_trains = True

    def end(self, mode: bool, this: ForwardPass) -> None:
        """It has ended; what becomes of it is seen when others begin."""
        settled = this.unwatched or this.deferred is not None or mode in self._spoiled
        if not settled and this.latest is not None:
            self._open.append((mode, this))

    def _look_back(self) -> None:
        """A pass whose graph has gone without a delta was not trained."""
        still: list[tuple[bool, ForwardPass]] = []
        for mode, one in self._open:
            if one.reached:
                self._evaluation_trains |= not mode
            elif one.latest is not None and one.latest() is not None:
                still.append((mode, one))
            else:
                self._deferring.add(mode)
        self._open = deque(still, maxlen=8)
