"""The tensors that are followed in a forward pass: layers' outputs, and what is made of them."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradiometer.recording.adapters.torch.arrays import Array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.deferred import Deferred
from gradiometer.recording.adapters.torch.uses import Use

Move = Callable[[torch.Tensor], torch.Tensor]


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
    deferred : Deferred, optional
        Of a pass that is probably not trained: keeps φ(h) until it is.
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
    deferred: Deferred | None = None
    seen: bool = False
    used: bool = False
    applied: bool = False
    refused: bool = False
    doubted: str = ""
    hidden: str = ""
    inside: bool = False

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
    """A function or a module that was given an output is running."""

    link: Link
    use: Use
    saturated: Array | None
    began: int  # version of the tensor it was given


class Followed:
    """The tensors that a thread follows in a forward pass.

    Attributes
    ----------
    pending : dict
        Outputs of which it is yet to be seen what becomes, by their identities.
    links : dict
        What was made of outputs, by the identity of the tensor.
    running : dict
        Modules that were given an output, by their identities.
    """

    def __init__(self) -> None:
        self.pending: dict[int, Pending] = {}
        self.links: dict[int, Link] = {}
        self.running: dict[int, Running] = {}

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

    def follow(self, link: Link, x: Any, **changes: Any) -> None:
        """Follow what was made of a tensor."""
        for tensor in tensors_of(x, real=False):
            if tensor is not link.tensor() or "altered" in changes:
                self.add(link.to(tensor, **changes))

    def drop(self, written: torch.Tensor | None) -> None:
        """Follow a tensor no longer, nor those that share its memory."""

        def memory(tensor: torch.Tensor | None) -> torch.Tensor | None:
            base = None if tensor is None else tensor._base
            return tensor if base is None else base

        self.links = {
            key: link
            for key, link in self.links.items()
            if memory(link.tensor()) is not memory(written)
        }


def tensors_of(output: Any, real: bool = True) -> Iterator[torch.Tensor]:
    """The tensors that a module or a function gave, in their order; of real numbers only."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point() or not real:
            yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from tensors_of(part, real)
    elif isinstance(output, dict):
        for part in output.values():
            yield from tensors_of(part, real)
    elif dataclasses.is_dataclass(output):
        for part in vars(output).values():
            yield from tensors_of(part, real)
