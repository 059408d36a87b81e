"""What becomes of layers' outputs in the forward pass: which function is applied to each.

An output h is *pending* until an activation function is applied to it, by a module or a function,
or until something else takes it: then it is its own activation. Tensors made of it are followed
by links: the same entries in another shape are still h; what was pooled or scaled is not, and a
function that is applied to that is none of h. Only functions through which a derivative comes back
count: what is computed without one is a mere look.
"""

from __future__ import annotations

import dataclasses
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction

from gradiometer.recording.adapters.torch.calls import (
    Call,
    Link,
    Listener,
    Move,
    Pending,
    Running,
    Scope,
    version_of,
)
from gradiometer.recording.adapters.torch.functions import IDENTITY, Function
from gradiometer.recording.adapters.torch.layers import Layer
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
from gradiometer.recording.quantities import Array

SEVERAL = "its output goes into several functions, so that none of them is its activation function"
UNSEEN = "what takes its output cannot be seen"


class Outputs:
    """Finds the activation function of each output of a layer.

    Parameters
    ----------
    listener : Listener
        Is told of every φ(h), at once; a weak proxy.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # φ as it was last seen in training, against which a look without derivatives is checked
        self._known: dict[Layer, str] = {}
        self.looking_back = False  # at a reference batch, without derivatives
        # whether functions have taken outputs, that were no module's
        self.found_one = False

    # --- outputs ----------------------------------------------------------------------------------

    def pend(self, scope: Scope, call: Call, h: torch.Tensor, late: Any = None) -> None:
        """A layer gave h; in a pass that is probably not trained, φ(h) is kept for later."""
        entry = Pending.of(call, h, scope.whole)
        entry.late = late
        scope.pending[id(h)] = entry
        scope.add(_link(h, entry))

    def settle(self, entry: Pending) -> None:
        """No activation function was applied to an output: it is its own activation."""
        if entry.applied or entry.refused or entry.h is None:
            return
        if entry.hidden:
            self.refuse(entry, f"{UNSEEN}: {entry.hidden}")
        elif entry.changed:
            self.refuse(entry, "its output was changed in place before it could be measured")
        elif not (entry.whole or self.looking_back):
            self.refuse(entry, "it was called outside the model's forward: what follows is unseen")
        else:
            h, entry.h = entry.h, None
            self._found(entry, h, _saturated(entry, IDENTITY, h), IDENTITY, h)

    def refuse(self, entry: Pending, why: str) -> None:
        """An output has no activation function that can be measured."""
        entry.refused, entry.h = True, None
        call = entry.call
        call.activation, call.function, call.why_not = None, None, why
        if not self.looking_back:
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
        if not self.looking_back:
            self._known[layer] = function.name
        elif entry.doubted and self._known.get(layer, function.name) != function.name:
            self.refuse(
                entry,
                f"on the reference batch, which has no derivatives, it cannot be told whether "
                f"{entry.doubted} is its activation function",
            )
            return
        if entry.late is not None:
            entry.late.keep(entry, x, function, h)
            entry.late = None
        else:
            self._listener.activation(entry.call, x, saturated, function)
        entry.call.units = None

    # --- functions --------------------------------------------------------------------------------

    def apply(
        self, scope: Scope, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Any], None] | None:
        """A function is about to be called; what this gives is to be told its result."""
        if takes_only_the_shape(func):
            return None
        links = [
            (place, link)
            for place, argument in _arguments(args, kwargs)
            if (link := scope.link(argument)) is not None and not link.entry.inside
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
                self._after(scope, running, x, move)
            for _, link in links:
                if id(link.entry) not in uses:
                    _follow(scope, link, x, shadow=True)

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
            first = not (entry.refused or entry.applied or entry.used or link.altered)
            if first and not entry.changed and tensor is not None and use.function is not None:
                saturated = _saturated(entry, use.function, tensor)
        elif use.in_place and use.kind is not Kind.UNKNOWN:
            self.settle(entry)
        return Running(link, use, saturated, 0 if tensor is None else version_of(tensor))

    def _after(self, scope: Scope, running: Running, x: Any, move: Move | None) -> None:
        """What was made of an output is known."""
        link, use, entry = running.link, running.use, running.link.entry
        results = list(tensors_of(x))
        if torch.is_grad_enabled() and entry.tracked:
            results = [tensor for tensor in results if tensor.requires_grad]
        if not results and not (use.in_place or use.elsewhere):
            _follow(scope, link, x, shadow=True)
            return
        entry.seen = True
        if use.kind is Kind.APPLIED:
            self._applied(scope, running, x)
        elif _is_handed_through(running, results):
            pass
        elif use.kind is Kind.MOVED:
            _follow(scope, link, x, moves=link.moves if move is None else (*link.moves, move))
        elif entry.applied:
            self.refuse(entry, SEVERAL)
        elif use.kind is Kind.UNKNOWN:
            self.refuse(entry, _why_unknown(use))
        else:
            entry.used = True
            if use.kind is Kind.ALTERED:
                _follow(scope, link, x, altered=link.altered or use.name)
            elif use.in_place:  # it is something else now
                _drop(scope, link.tensor())

    def _applied(self, scope: Scope, running: Running, x: Any) -> None:
        """A function of each entry was applied."""
        link, use, entry = running.link, running.use, running.link.entry
        assert use.function is not None
        name, tensor = use.function.name, link.tensor()
        if entry.refused:
            return
        if self.looking_back and self._known.get(entry.call.layer, name) != name:
            entry.doubted = name
        elif link.altered and belongs_to_a_norm(use.name):
            entry.used = True
        elif entry.applied or (entry.used and not link.altered):
            self.refuse(entry, SEVERAL)
        elif link.altered:
            self.refuse(entry, f"{name} is applied to it only after {link.altered}")
        elif entry.changed and not use.in_place:
            self.settle(entry)
        else:
            if link.moves:
                entry.call.units = _units_of(entry, link)
            if x is tensor:  # what uses it now uses φ(h)
                _drop(scope, tensor)
            entry.applied, entry.h = True, None
            self._found(entry, x, running.saturated, use.function, tensor)

    # --- modules ----------------------------------------------------------------------------------

    def handed(self, scope: Scope, module: nn.Module, given: Any, is_layer: bool) -> None:
        """A module is given a tensor."""
        link = scope.link(given)
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
            self._after(scope, running, given, None)
            self.settle(link.entry)  # measured before the layer's output takes its place in memory
        else:
            link.entry.inside = True
            scope.running[id(module)] = running

    def left(self, scope: Scope, module: nn.Module, output: Any) -> None:
        """A module that was given an output has ended; without an output if it failed."""
        running = scope.running.pop(id(module), None)
        if running is not None:
            running.link.entry.inside = False
            if output is not None:
                self._after(scope, running, output, type(module).forward.__get__(module))


def _saturated(entry: Pending, function: Function, h: torch.Tensor) -> Array | None:
    """Where φ is saturated; in a pass that is probably not trained, that is found later."""
    return None if entry.late is not None else function.saturated(h)


def _link(tensor: torch.Tensor, entry: Pending) -> Link:
    return Link(weakref.ref(tensor), entry)


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


def _follow(scope: Scope, link: Link, x: Any, **changes: Any) -> None:
    """Follow what was made of a tensor."""
    for tensor in tensors_of(x, real=False):
        if tensor is not link.tensor() or "altered" in changes:
            scope.add(link.to(tensor, **changes))


def _drop(scope: Scope, written: torch.Tensor | None) -> None:
    """Follow a tensor no longer, nor those that share its memory."""

    def memory(tensor: torch.Tensor | None) -> torch.Tensor | None:
        base = None if tensor is None else tensor._base
        return tensor if base is None else base

    scope.links = {
        key: link
        for key, link in scope.links.items()
        if memory(link.tensor()) is not memory(written)
    }


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
