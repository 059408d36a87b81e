"""The hooks that a backward pass calls: of layers' outputs, and of parameters.

They hold the listener only as a weak proxy, and no tensor, but for passes that are probably not
trained (see `expected`).
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import MutableMapping, Sequence
from time import perf_counter
from typing import Any

import torch

from gradiometer.recording.adapters.torch.backward import BACKWARD
from gradiometer.recording.adapters.torch.calls import Call, Listener
from gradiometer.recording.adapters.torch.dispatch import Dispatches
from gradiometer.recording.adapters.torch.expected import Fate
from gradiometer.recording.adapters.torch.layers import Layer


class OutputHook:
    """The hook of a layer's output, which is called with its delta."""

    __slots__ = ("__weakref__", "_call", "_clock", "_fate", "_listener")

    def __init__(self, call: Call, fate: Fate, listener: Listener, clock: Dispatches) -> None:
        self._call, self._fate, self._listener, self._clock = call, fate, listener, clock

    def __call__(self, delta: torch.Tensor) -> None:
        """Tell of it."""
        began = perf_counter()
        # one that was asked for by torch.autograd.grad is no part of the training
        passing = BACKWARD.passing(delta)
        if passing is not None:
            fate = self._fate
            with torch._C.DisableTorchFunction():
                if not fate.reached:
                    fate.reached = True
                    if fate.late is not None:
                        fate.late.deliver(self._listener)
                self._listener.delta(self._call, delta, passing)
            self._clock.arrived(began)


class Computed:
    """The hook of a parameter that has others: its gradient before these may change it."""

    __slots__ = ("_clock", "_layer", "_listener", "_parameter")

    def __init__(
        self, layer: Layer, parameter: torch.Tensor, listener: Listener, clock: Dispatches
    ) -> None:
        self._layer, self._listener, self._clock = layer, listener, clock
        self._parameter = weakref.ref(parameter)

    def __call__(self, gradient: torch.Tensor) -> None:
        """Tell of it."""
        began = perf_counter()
        parameter = self._parameter()
        others = parameter is not None and len(parameter._backward_hooks or ()) > 1
        if others and BACKWARD.passing(gradient) is not None:
            with torch._C.DisableTorchFunction():
                self._listener.computed(self._layer, gradient)
            self._clock.arrived(began)


def put_first(hooks: MutableMapping[int, Any], own: int) -> None:
    """Have a hook called before all others, which keep their order.

    PyTorch goes through them in the order of the plain dict, which `move_to_end` leaves as it is.
    So the others are put in anew; at once, so that an interrupt finds either order.
    """
    others = [key for key in hooks if key != own]
    if others and next(iter(hooks)) != own:
        anew = map(hooks.__setitem__, others, map(hooks.pop, others))
        collections.deque(anew, maxlen=0)


class Accumulated:
    """The hook of a parameter: its gradient has been accumulated, and is still at hand."""

    __slots__ = ("_clock", "_layers", "_listener")

    def __init__(self, layers: Sequence[Layer], listener: Listener, clock: Dispatches) -> None:
        self._layers, self._listener, self._clock = layers, listener, clock

    def __call__(self, parameter: torch.Tensor) -> None:
        """Tell of it."""
        began = perf_counter()
        with torch._C.DisableTorchFunction():
            gradient = parameter.grad
            if gradient is not None:
                self._listener.gradient(self._layers, gradient, BACKWARD.passing(gradient))
        self._clock.arrived(began)
