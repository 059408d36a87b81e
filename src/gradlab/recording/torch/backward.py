"""Backward passes: when one begins, and what arrives during it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch


class Observer(Protocol):
    """Who wants to know of backward passes."""

    def backward_begins(self, roots: Sequence[torch.Tensor]) -> None:
        """One begins, at these tensors."""

    def settle(self) -> None:
        """What has been computed until now is computed."""


class Backward:
    """`torch.autograd.backward`, with those who want to know when it begins."""

    def __init__(self) -> None:
        self.running = False
        self._observers: list[Observer] = []
        self._original: Callable[..., None] = torch.autograd.backward

    def join(self, observer: Observer) -> None:
        """Tell an observer of every backward pass; the first puts this in PyTorch's place."""
        if not self._observers:
            self._original = torch.autograd.backward
            torch.autograd.backward = self._run
        self._observers.append(observer)

    def leave(self, observer: Observer) -> None:
        """Stop telling it; after the last one, PyTorch's own function is back."""
        self._observers.remove(observer)
        if not self._observers and torch.autograd.backward == self._run:
            torch.autograd.backward = self._original

    def _run(self, tensors: Any, *args: Any, **kwargs: Any) -> None:
        observers = list(self._observers)
        if self.running:  # checkpointing calls it again, for what was computed again
            for observer in observers:
                observer.settle()
            return self._original(tensors, *args, **kwargs)
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        for observer in observers:
            observer.backward_begins(roots)
        self.running = True
        try:
            return self._original(tensors, *args, **kwargs)
        finally:
            self.running = False
            for observer in observers:
                observer.settle()


# PyTorch has one such function, so there is one of these
BACKWARD = Backward()


class Arrival:
    """The hook of a layer's output: its delta arrives. Holds no tensor."""

    __slots__ = ("call", "tell")

    def __init__(self, tell: Callable[[Any, torch.Tensor], None], call: Any) -> None:
        self.tell, self.call = tell, call

    def __call__(self, delta: torch.Tensor) -> None:
        """Tell of it."""
        # one that was asked for by torch.autograd.grad is no part of the training
        if BACKWARD.running:
            self.call.deltas += 1
            with torch._C.DisableTorchFunction():
                self.tell(self.call, delta)


class Accumulated:
    """The hook of a weight: its gradient has been accumulated, and is still at hand."""

    __slots__ = ("layer", "tell")

    def __init__(self, tell: Callable[[Any, torch.Tensor], None], layer: Any) -> None:
        self.tell, self.layer = tell, layer

    def __call__(self, weight: torch.Tensor) -> None:
        """Tell of it."""
        with torch._C.DisableTorchFunction():
            if weight.grad is not None:
                self.tell(self.layer, weight.grad)
