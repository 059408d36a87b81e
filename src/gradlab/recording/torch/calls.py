"""Calls of layers: what is known of each, and what its thread is in the middle of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from gradlab.recording.quantities import Array
from gradlab.recording.torch.backward import Pass
from gradlab.recording.torch.functions import Function
from gradlab.recording.torch.layers import Layer


@dataclass(slots=True, eq=False)
class Call:
    """One call of a layer in a pass; what the listener measures of it is kept here.

    Attributes
    ----------
    layer : Layer
    scope : int
        Number of the pass it belongs to.
    waits : bool
        Whether a delta may still come: only then is the call part of the training.
    tracked : bool
        Whether autograd was on.
    deltas : int
        How often one has come that counts.
    delta, activation
        What was measured of it, and of φ(h).
    function : Function, optional
        φ, as soon as it is known.
    why_not : str
        Why φ(h) can't be had.
    """

    layer: Layer
    scope: int
    waits: bool
    tracked: bool = True
    deltas: int = 0
    delta: Any = None
    activation: Any = None
    function: Function | None = None
    why_not: str = ""


class Listener(Protocol):
    """Who is told what happens; tensors are to be measured at once, and not kept."""

    def called(self, call: Call) -> None:
        """A layer was called through which no delta can come, in what may be a training pass."""

    def activation(
        self, call: Call, x: torch.Tensor, saturated: Array | None, function: Function
    ) -> None:
        """φ(h) of a call is known."""

    def delta(self, call: Call, delta: torch.Tensor, passing: Pass) -> None:
        """dL/dh of a call is known."""

    def gradient(
        self, layers: Sequence[Layer], gradient: torch.Tensor, passing: Pass | None
    ) -> None:
        """dL/dW of a layer has been accumulated; nobody has clipped it yet.

        Or of another parameter, then without layers.
        """

    def computed(self, layer: Layer, gradient: torch.Tensor) -> None:
        """dL/dW of a layer is computed; hooks of its parameter may change it yet."""

    def scaled_by_hand(self) -> None:
        """torch.autograd.grad was asked for gradients of a loss that a GradScaler has scaled."""

    def averaged(self) -> None:
        """Gradients are averaged over processes before a backward pass ends."""

    def unseen(self, layer: Layer, why: str) -> None:
        """A layer was called in a way that cannot be watched."""

    def backward_begins(self) -> None:
        """A backward pass begins, of any model."""

    def backward_ends(self) -> None:
        """It has ended."""


@dataclass(slots=True, eq=False)
class Pending:
    """An output of a layer, until it is seen what becomes of it."""

    call: Call
    h: torch.Tensor
    version: int
    whole: bool  # whether all that may become of it is seen
    late: Any = None  # of a pass that is probably not trained: what keeps φ(h) until it is
    seen: bool = False  # whether a function has taken it
    used: bool = False  # whether one through which its delta comes back has

    @property
    def changed(self) -> bool:
        """Whether it was written into since."""
        return self.h._version != self.version


@dataclass(slots=True, eq=False)
class Applied:
    """A module that applies a function to an output is running."""

    entry: Pending
    function: Function
    saturated: Array | None


class Scope:
    """What a thread is in the middle of."""

    def __init__(self) -> None:
        self.depth = 0  # of calls of the model's modules
        self.number = 0
        self.training = True  # of the module that began it
        self.looks = False  # whether the pass may be trained: not under no_grad
        self.fate: Any = None  # of the pass
        self.whole = False  # whether it began with the model's own forward, so that all is seen
        self.pending: dict[int, Pending] = {}
        self.applied: dict[int, Applied] = {}  # by the module that is running
        self.done: dict[int, Pending] = {}  # outputs whose function is known
        self.mode: TorchFunctionMode | None = None

    def leave_mode(self) -> None:
        """Take the mode off, wherever it lies: an interrupt may have left it where it was."""
        mode, self.mode = self.mode, None
        stack = torch.overrides._get_current_function_mode_stack()
        if mode is None or not stack:
            return
        if mode not in stack:
            # whoever was interrupted took this one off in place of their own, which is on top
            torch.overrides._pop_mode()
            return
        above = [torch.overrides._pop_mode() for _ in stack[stack.index(mode) :]]
        for other in above[-2::-1]:
            torch.overrides._push_mode(other)


def found(pending: dict[int, Pending], tensor: Any) -> Pending | None:
    """The output of a layer, itself or wrapped by a hook of its module (in a view of it)."""
    entry = pending.get(id(tensor))
    if entry is not None or not isinstance(tensor, torch.Tensor):
        return entry
    base = tensor._base
    entry = None if base is None else pending.get(id(base))
    if entry is None or (tensor.shape, tensor.stride()) != (entry.h.shape, entry.h.stride()):
        return None
    return entry
