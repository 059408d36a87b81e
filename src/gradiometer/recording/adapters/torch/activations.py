"""Which activation function is applied to each layer's output, in the forward pass.

An output h is *pending* until an activation function is applied to it, by a module or a function,
or until something else takes it: then it is its own activation. Tensors made of it are followed
by links: the same entries in another shape are still h; what was pooled or scaled is not, and a
function that is applied to that is none of h. Only functions through which a derivative comes back
count: what is computed without one is a mere look.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction

from gradiometer.recording.adapters.torch.arrays import Array, as_array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.deferred import Deferred
from gradiometer.recording.adapters.torch.followed import (
    Followed,
    Link,
    Move,
    Pending,
    Running,
    tensors_of,
    version_of,
)
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.adapters.torch.uses import (
    CASTS,
    Kind,
    Use,
    belongs_to_a_norm,
    is_look,
    name_of,
    takes_only_the_shape,
    use_by,
    use_of,
)
from gradiometer.recording.adapters.torch.way import Way
from gradiometer.recording.functions import IDENTITY, Function

SEVERAL = "its output goes into several functions, so that none of them is its activation function"
UNSEEN = "what takes its output cannot be seen"
CHANGED = "its output was changed in place before it could be measured"
OUTSIDE = "it was called outside the model's forward: what follows is unseen"
DOUBTED = (
    "on the reference batch, which has no derivatives, it cannot be told whether {} is its "
    "activation function"
)


class Activations:
    """Finds the activation function of each output of a layer.

    Parameters
    ----------
    measuring : Measuring
        Is told of every φ(h), at once.
    way : Way
        Is told of it too, and of functions that are applied after a normalisation.
    """

    def __init__(self, measuring: Measuring, way: Way) -> None:
        self._measuring, self._way = measuring, way
        # φ as it was last seen in training, against which a look without derivatives is checked
        self._known: dict[Layer, str] = {}
        self.on_reference = False  # at a reference batch, without derivatives
        # whether functions have taken outputs, that were no module's
        self.found_one = False

    # --- outputs ----------------------------------------------------------------------------------

    def pend(
        self,
        followed: Followed,
        call: Call,
        h: torch.Tensor,
        whole: bool,
        deferred: Deferred | None,
    ) -> None:
        """A layer gave h; in a pass that is probably not trained, φ(h) is kept for later."""
        geometry = h.shape, h.stride()
        entry = Pending(call, h, version_of(h), whole, h.requires_grad, geometry, deferred)
        followed.pending[id(h)] = entry
        followed.add(Link(weakref.ref(h), entry))

    def settle(self, entry: Pending) -> None:
        """No activation function was applied to an output: it is its own activation."""
        if entry.applied or entry.refused or entry.h is None:
            return
        why = ""
        if entry.hidden:
            why = f"{UNSEEN}: {entry.hidden}"
        elif entry.changed:
            why = CHANGED
        elif not (entry.whole or self.on_reference):
            why = OUTSIDE
        if why:
            self.refuse(entry, why)
            return
        h, entry.h = entry.h, None
        self._found(entry, h, _saturated(entry, IDENTITY, h), IDENTITY, h)

    def refuse(self, entry: Pending, why: str) -> None:
        """An output has no activation function that can be measured."""
        entry.refused, entry.h = True, None
        call = entry.call
        if entry.applied:
            call.why_no_way = why
        call.activation, call.function, call.why_not = None, None, why
        if not self.on_reference:
            self._known.pop(call.layer, None)

    def _found(
        self,
        entry: Pending,
        x: torch.Tensor,
        saturated: Array | None,
        function: Function,
        h: torch.Tensor | None,
    ) -> None:
        layer = entry.call.layer
        if not self.on_reference:
            self._known[layer] = function.name
        elif entry.doubted and self._known.get(layer, function.name) != function.name:
            self.refuse(entry, DOUBTED.format(entry.doubted))
            return
        if entry.deferred is not None:
            entry.deferred.keep(entry.call, x, function, h, entry.version)
            entry.deferred = None
        else:
            self._measuring.activation(entry.call, x, saturated, function)
        entry.call.units = None

    # --- functions --------------------------------------------------------------------------------

    def apply(
        self, followed: Followed, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Any], None] | None:
        """A function is about to be called; what this gives is to be told its result."""
        if takes_only_the_shape(func):
            return None
        links = [
            (place, link)
            for place, argument in _arguments(args, kwargs)
            if (link := followed.link(argument)) is not None and not link.entry.inside
        ]
        if not links or _is_hidden(links, func):
            return None
        uses: dict[int, Running] = {}
        for place, link in links:
            if id(link.entry) not in uses and not link.shadow and self._flows(link, func):
                others = [
                    t for p, t in _arguments(args, kwargs) if p != place and t is not link.tensor()
                ]
                itself = any(other.entry is link.entry for p, other in links if p != place)
                use = use_of(func, (args, kwargs), place, others, itself)
                uses[id(link.entry)] = self._before(link, use)
        if uses:
            self.found_one = True

        def ended(x: Any) -> None:
            for running in uses.values():
                move = _replay(func, args, kwargs, running.link.tensor())
                self._after(followed, running, x, move)
            for _, link in links:
                if id(link.entry) not in uses:
                    followed.follow(link, x, shadow=True)

        return ended

    @staticmethod
    def _flows(link: Link, func: Any) -> bool:
        """Whether the derivative of what a function gives may come back to the output."""
        if is_look(func):
            return False
        if torch.is_grad_enabled():
            tensor = link.tensor()
            return tensor is not None and (tensor.requires_grad or not link.entry.tracked)
        # what is checkpointed is computed again with derivatives, which nobody sees
        return link.entry.call.without_gradients or autograd_function() is CheckpointFunction

    def _before(self, link: Link, use: Use) -> Running:
        """An output is about to be used, and perhaps to be written into."""
        entry, tensor, saturated = link.entry, link.tensor(), None
        if use.kind is Kind.APPLIED:
            if use.in_place and _is_normalised(link) and not self.on_reference:
                self._way.overwrites(entry.call, tensor)
            first = not (entry.refused or entry.applied or entry.used or link.altered)
            if first and not entry.changed and tensor is not None and use.function is not None:
                saturated = _saturated(entry, use.function, tensor)
        elif use.in_place and use.kind is not Kind.UNKNOWN:
            self.settle(entry)
        return Running(link, use, saturated, 0 if tensor is None else version_of(tensor))

    def _after(self, followed: Followed, running: Running, x: Any, move: Move | None) -> None:
        """What was made of an output is known."""
        link, use, entry = running.link, running.use, running.link.entry
        results = list(tensors_of(x))
        if torch.is_grad_enabled() and entry.tracked:
            results = [tensor for tensor in results if tensor.requires_grad]
        if not results and not (use.in_place or use.elsewhere):
            followed.follow(link, x, shadow=True)
            return
        entry.seen = True
        if use.kind is Kind.APPLIED:
            self._applied(followed, running, x)
        elif not _is_handed_through(running, results):
            self._used(followed, link, use, x, move)

    def _used(self, followed: Followed, link: Link, use: Use, x: Any, move: Move | None) -> None:
        """Something that is no activation function took an output."""
        entry = link.entry
        if use.kind is Kind.MOVED:
            followed.follow(link, x, moves=link.moves if move is None else (*link.moves, move))
            return
        if entry.applied or use.kind is Kind.UNKNOWN:
            self.refuse(entry, SEVERAL if entry.applied else _why_unknown(use))
            return
        entry.used = True
        if use.kind is Kind.ALTERED:
            followed.follow(link, x, altered=link.altered or use.name)
        elif use.in_place:  # it is something else now
            followed.drop(link.tensor())

    def _applied(self, followed: Followed, running: Running, x: Any) -> None:
        """A function of each entry was applied."""
        link, use, entry = running.link, running.use, running.link.entry
        assert use.function is not None
        name, tensor = use.function.name, link.tensor()
        if entry.refused:
            entry.call.why_no_way = SEVERAL
            return
        if self.on_reference and self._known.get(entry.call.layer, name) != name:
            entry.doubted = name
            return
        if link.altered and belongs_to_a_norm(use.name):
            entry.used = True
            return
        if entry.applied or link.altered or entry.used:
            other = entry.applied or not link.altered
            if not other and _is_normalised(link) and not self.on_reference:
                self._way.applied(entry.call, tensor, x, direct=False, moved=bool(link.moves))
            after = f"{name} is applied to it only after {link.altered}"
            self.refuse(entry, SEVERAL if other else after)
            return
        if entry.changed and not use.in_place:
            self.settle(entry)
            return
        if link.moves:
            entry.call.units = _units_of(entry, link)
        if x is tensor:  # what uses it now uses φ(h)
            followed.drop(tensor)
        entry.applied, entry.h = True, None
        if not self.on_reference:
            self._way.applied(entry.call, tensor, x, direct=True, moved=bool(link.moves))
        self._found(entry, x, running.saturated, use.function, tensor)

    # --- modules ----------------------------------------------------------------------------------

    def handed(self, followed: Followed, module: nn.Module, given: Any, is_layer: bool) -> None:
        """A module is given a tensor."""
        link = followed.link(given)
        if link is None or link.shadow or link.entry.inside:
            return
        if torch.is_grad_enabled() and link.entry.tracked and not given.requires_grad:
            return
        use = use_by(module)
        if use is None:  # what it does is seen by the functions it calls
            return
        if is_layer and use.kind is not Kind.APPLIED:
            use = Use(Kind.TAKEN, use.name)
        running = self._before(link, use)
        if use.kind is Kind.TAKEN:
            self._after(followed, running, given, None)
            self.settle(link.entry)  # measured before the layer's output takes its place in memory
        else:
            link.entry.inside = True
            followed.running[id(module)] = running

    def left(self, followed: Followed, module: nn.Module, output: Any) -> None:
        """A module that was given an output has ended; without an output if it failed."""
        running = followed.running.pop(id(module), None)
        if running is not None:
            running.link.entry.inside = False
            if output is not None:
                self._after(followed, running, output, type(module).forward.__get__(module))


def _saturated(entry: Pending, function: Function, h: torch.Tensor) -> Array | None:
    """Where φ is saturated; None if its zeros tell that, or if it is found later."""
    later = entry.deferred is not None or function.flat_where_zero
    return None if later else function.saturated(as_array(h))


def _is_normalised(link: Link) -> bool:
    """Whether a tensor is a layer's output after a normalisation."""
    return "norm" in link.altered.lower()


def _why_unknown(use: Use) -> str:
    if use.in_place:
        return f"its output was changed in place by {use.name}"
    return f"it goes into {use.name}, which is not known to be a function of each entry alone"


def _is_handed_through(running: Running, results: list[torch.Tensor]) -> bool:
    """Whether a function gave what it was given, as a dropout does that is off."""
    tensor, use = running.link.tensor(), running.use
    if tensor is None or use.kind in (Kind.TAKEN, Kind.UNKNOWN) or len(results) != 1:
        return False
    return results[0] is tensor and version_of(tensor) == running.began


def _arguments(args: Iterable[Any], kwargs: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
    """The tensors among a function's arguments, also in lists, with their places."""
    for place, argument in enumerate((*args, *kwargs.values())):
        if isinstance(argument, torch.Tensor):
            yield (0 if not args and place == 0 else place), argument
        elif isinstance(argument, list | tuple):
            for part in argument:
                if isinstance(part, torch.Tensor):
                    yield place, part


def _is_hidden(links: list[tuple[int, Link]], func: Any) -> bool:
    """Whether a function is called inside an autograd Function, whose derivative is its own."""
    inside = None if torch.is_grad_enabled() else autograd_function()
    if inside is None or inside is CheckpointFunction:
        return False
    # PyTorch's own hand outputs on, for hooks
    if not is_look(func) and not inside.__module__.startswith("torch."):
        for _, link in links:
            link.entry.hidden = f"{inside.__name__}, an autograd Function"
    return True


def autograd_function() -> type | None:
    """The autograd Function whose `forward` this thread is in, which runs without gradients."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _APPLY:
            found: type = frame.f_locals["cls"]
            return found
        frame = frame.f_back
    return None


_APPLY = torch.autograd.Function.apply.__func__.__code__


def _replay(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensor: torch.Tensor | None
) -> Move | None:
    """The same on another tensor of that shape; None for what changes no shape."""
    if name_of(func) in CASTS:
        return None
    before = [argument is tensor for argument in args]
    rest = [None if mine else argument for mine, argument in zip(before, args, strict=True)]
    named = {name: value for name, value in kwargs.items() if value is not tensor}
    missing = [name for name, value in kwargs.items() if value is tensor]

    def move(other: torch.Tensor) -> torch.Tensor:
        given = [other if mine else part for mine, part in zip(before, rest, strict=True)]
        moved: torch.Tensor = func(*given, **named, **dict.fromkeys(missing, other))
        return moved

    return move


def _units_of(entry: Pending, link: Link) -> Callable[[], torch.Tensor]:
    """The number of the unit of each entry of a tensor that was moved."""
    layer, (shape, _), moves = entry.call.layer, entry.geometry, link.moves

    def units() -> torch.Tensor:
        assert layer.unit is not None
        tensor = link.tensor()
        axis = layer.unit(layer.output, torch.empty((0,) * len(shape)))
        along = [1] * len(shape)
        along[axis] = -1
        device = None if tensor is None else tensor.device
        with torch.no_grad():
            numbers = torch.arange(shape[axis], device=device).view(along).expand(shape)
            numbers = numbers.contiguous()
            for move in moves:
                numbers = move(numbers)
        return numbers

    return units
