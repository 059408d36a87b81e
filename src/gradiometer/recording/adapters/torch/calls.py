"""Calls of layers: what is known of each, and what its thread is in the middle of."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from gradiometer.recording.adapters.torch.backward import Pass
from gradiometer.recording.adapters.torch.functions import Function
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.uses import Use
from gradiometer.recording.quantities import Array

Move = Callable[[torch.Tensor], torch.Tensor]


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
    deltas : int
        How often one has come that counts.
    delta, activation
        What was measured of it, and of φ(h).
    function : Function, optional
        φ, as soon as it is known.
    why_not : str
        Why φ(h) can't be had.
    without_gradients : bool
        Whether it was made under `torch.no_grad()`.
    units : callable, optional
        Gives the number of the unit that each entry of φ(h) belongs to, where φ was applied to
        another shape of h.
    """

    layer: Layer
    scope: int
    waits: bool
    deltas: int = 0
    delta: Any = None
    activation: Any = None
    function: Function | None = None
    why_not: str = ""
    without_gradients: bool = False
    units: Callable[[], torch.Tensor] | None = None


class Listener(Protocol):
    """Who is told what happens; tensors are to be measured at once, and not kept."""

    def called(self, call: Call) -> None:
        """A layer was called, in what may be a pass of the training."""

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

    def unwatched(self) -> None:
        """A pass is trained of which nothing was watched."""

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
    """An output of a layer, and what is known of its activation function.

    Attributes
    ----------
    call : Call
    h : torch.Tensor, optional
        The output; None when it is known what becomes of it.
    version : int
        Of h, as it was given.
    whole : bool
        Whether all that may become of it is seen.
    tracked : bool
        Whether a derivative can come back to it.
    geometry : tuple
        Its shape and strides.
    seen : bool
        Whether something has taken it through which its derivative comes back.
    used : bool
        Whether one of these was no activation function.
    applied : bool
        Whether an activation function was applied to it.
    refused : bool
        Whether it has none that can be measured.
    doubted : str
        A function that was applied without derivatives, so that it may be a mere look.
    hidden : str
        What computes with it where derivatives can't be followed.
    inside : bool
        Whether a module that takes it is running.
    """

    call: Call
    h: torch.Tensor | None
    version: int
    whole: bool
    tracked: bool
    geometry: tuple[Any, Any]
    late: Any = None  # of a pass that is probably not trained: keeps φ(h) until it is
    seen: bool = False
    used: bool = False
    applied: bool = False
    refused: bool = False
    doubted: str = ""
    hidden: str = ""
    inside: bool = False

    @classmethod
    def of(cls, call: Call, h: torch.Tensor, whole: bool) -> Pending:
        """One that was given just now."""
        return cls(call, h, version_of(h), whole, h.requires_grad, (h.shape, h.stride()))

    @property
    def changed(self) -> bool:
        """Whether it was written into since."""
        return self.h is not None and version_of(self.h) != self.version


def version_of(tensor: torch.Tensor) -> int:
    """How often it was written into; 0 where PyTorch does not count."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True, eq=False)
class Link:
    """A tensor that is a layer's output, or was made of it.

    Attributes
    ----------
    tensor : weak reference
    entry : Pending
    moves : tuple of functions
        That made its shape of the output's.
    altered : str
        What changed its numbers; "" if they are the output's.
    shadow : bool
        Whether no derivative goes back from it, as from a comparison.
    """

    tensor: weakref.ref[torch.Tensor]
    entry: Pending
    moves: tuple[Move, ...] = ()
    altered: str = ""
    shadow: bool = False

    def to(self, tensor: torch.Tensor, **changes: Any) -> Link:
        """What was made of this tensor."""
        return replace(self, tensor=weakref.ref(tensor), **changes)


@dataclass(slots=True, eq=False)
class Running:
    """A module that was given an output is running."""

    link: Link
    use: Use
    saturated: Array | None
    began: int  # version of the tensor it was given


class Scope:
    """What a thread is in the middle of."""

    def __init__(self) -> None:
        self.depth = 0  # of calls of the model's modules
        self.number = 0
        self.training = True  # of the module that began it
        self.fate: Any = None  # of the pass
        self.rests = False  # nothing of the pass is watched
        self.whole = False  # whether it began with the model's own forward, so that all is seen
        self.gradients = True  # whether it began with gradients enabled
        self.pending: dict[int, Pending] = {}  # outputs of which it is yet to be seen
        self.links: dict[int, Link] = {}  # by the identity of their tensor
        self.running: dict[int, Running] = {}  # by the module that is
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

    def link(self, tensor: Any) -> Link | None:
        """The link of a tensor, itself or wrapped by a hook of its module (in a view of it)."""
        found = self.links.get(id(tensor))
        if found is not None:
            if found.tensor() is tensor:
                return found
            del self.links[id(tensor)]  # of one that is gone
        if not isinstance(tensor, torch.Tensor):
            return None
        base = tensor._base
        found = None if base is None else self.links.get(id(base))
        if found is None or found.tensor() is not base or found.moves or found.altered:
            return None
        same = (tensor.shape, tensor.stride()) == found.entry.geometry
        return found.to(tensor) if same else None

    def add(self, link: Link) -> None:
        """Follow a tensor from now on."""
        self.links[id(link.tensor())] = link
