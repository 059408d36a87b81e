"""What arrives during a backward pass: the hooks of layers' outputs, and of parameters.

They hold no tensor, and the listener only as a weak proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import torch

from gradlab.recording.clock import Clock
from gradlab.recording.torch.backward import BACKWARD
from gradlab.recording.torch.calls import Call, Listener
from gradlab.recording.torch.layers import Layer


class Arrival:
    """The hook of a layer's output: its delta arrives."""

    __slots__ = ("_call", "_clock", "_listener")

    def __init__(self, call: Call, listener: Listener, clock: Clock) -> None:
        self._call, self._listener, self._clock = call, listener, clock

    def __call__(self, delta: torch.Tensor) -> None:
        """Tell of it."""
        began = perf_counter()
        # one that was asked for by torch.autograd.grad is no part of the training
        passing = BACKWARD.passing(delta)
        if passing is not None:
            self._call.deltas += 1
            with torch._C.DisableTorchFunction():
                self._listener.delta(self._call, delta, passing)
            self._clock.since(began)


class Accumulated:
    """The hook of a parameter: its gradient has been accumulated, and is still at hand."""

    __slots__ = ("_clock", "_layers", "_listener")

    def __init__(self, layers: Sequence[Layer], listener: Listener, clock: Clock) -> None:
        self._layers, self._listener, self._clock = layers, listener, clock

    def __call__(self, parameter: torch.Tensor) -> None:
        """Tell of it."""
        began = perf_counter()
        with torch._C.DisableTorchFunction():
            gradient = parameter.grad
            if gradient is not None:
                self._listener.gradient(self._layers, gradient, BACKWARD.passing(gradient))
        self._clock.since(began)
