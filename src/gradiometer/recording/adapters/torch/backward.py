"""Backward passes: when one begins, what it begins at, and which one a gradient arrives in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch

from gradiometer.recording.adapters.torch.arrays import can_be_measured, in_memory
from gradiometer.recording.adapters.torch.shared import Shared


class Pass:
    """A backward pass that `torch.autograd.backward` makes.

    Attributes
    ----------
    loss : number, tensor or None
        Its value as the pass began; None if the pass did not begin at one number.
    running : bool
    unclear : bool
        Whether losses went into it that were scaled by different numbers.
    """

    __slots__ = ("_scale", "_taken", "loss", "running", "unclear")

    def __init__(self, roots: Sequence[torch.Tensor]) -> None:
        self.running = True
        self.unclear = False
        self._scale: float | None = None
        self._taken = False
        self.loss: Any = None
        if len(roots) == 1 and roots[0].numel() == 1 and can_be_measured(roots[0]):
            loss = roots[0].detach()
            # a copy: whoever adds losses up may write into the tensor
            self.loss = loss.item() if in_memory(loss) else loss.clone()

    def take_scale(self) -> float:
        """By how much a GradScaler has scaled the loss; another number would be told too late."""
        self._taken = True
        return 1.0 if self._scale is None else self._scale

    def is_scaled(self, scale: float) -> None:
        """Note that the pass began, among others, at a loss that was scaled by this number."""
        if scale != self._scale and (self._taken or self._scale is not None):
            self.unclear = True
        self._scale = scale


class Observer:
    """Who is told of backward passes, of any model."""

    def backward_begins(self, began: float) -> None:
        """One begins; `began` is when that was seen."""

    def backward_ends(self) -> None:
        """It has ended, or failed."""

    def settle(self) -> None:
        """What has been computed until now is computed."""


class _Here(threading.local):
    passing: Pass | None = None


class Backward:
    """`torch.autograd.backward`, with observers who are told when it begins and ends."""

    def __init__(self) -> None:
        self._here = _Here()
        self._running: list[Pass] = []  # in all threads
        self._original: Callable[..., None] = torch.autograd.backward
        self._installed = False
        self._observers = Shared(self._install)

    def join(self, observer: Observer, undo: contextlib.ExitStack) -> None:
        """Tell an observer of every backward pass, until `undo` is closed."""
        self._observers.join(observer, undo)

    def _install(self, undo: contextlib.ExitStack) -> None:
        # it may still be there, below a function that someone has put on top of it
        if not self._installed or torch.autograd.backward is self._original:
            self._original = torch.autograd.backward
            torch.autograd.backward = self._run
            self._installed = True
        undo.callback(self._remove)

    def _remove(self) -> None:
        if torch.autograd.backward == self._run:
            torch.autograd.backward = self._original
            self._installed = False

    def passing(self, tensor: torch.Tensor) -> Pass | None:
        """The pass in which a gradient arrives; None if it is `torch.autograd.grad` that asks."""
        here = self._here.passing
        # PyTorch has threads of its own for other devices
        if here is None and self._running and not tensor.is_cpu:
            return self._running[-1]
        return here

    def inside(self) -> Pass | None:
        """The pass that this thread is in the middle of."""
        here = self._here.passing
        # hooks of parameters on another device run in a thread of PyTorch's
        if (
            here is None
            and self._running
            and isinstance(threading.current_thread(), threading._DummyThread)
        ):
            return self._running[-1]
        return here

    def _run(self, tensors: Any, *args: Any, **kwargs: Any) -> None:
        began = perf_counter()
        observers: tuple[Observer, ...] = self._observers.members
        here = self._here
        if here.passing is not None:  # checkpointing calls it again, for what was computed again
            for observer in observers:
                observer.settle()
            return self._original(tensors, *args, **kwargs)
        passing = Pass([tensors] if isinstance(tensors, torch.Tensor) else list(tensors))
        for observer in observers:
            observer.backward_begins(began)
        try:
            here.passing = passing
            self._running.append(passing)
            return self._original(tensors, *args, **kwargs)
        finally:
            here.passing = None
            self._running.remove(passing)
            passing.running = False
            for observer in reversed(observers):
                observer.backward_ends()


# PyTorch has one such function, so there is one of these
BACKWARD = Backward()
