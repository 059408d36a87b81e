"""Watching a PyTorch model for one step: its layers' outputs, activations, deltas, backward passes.

Nothing is written onto the model: PyTorch's global hooks are used, so that a model can be copied
and pickled while it is watched. Everything is undone by `stop`.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from gradlab.recording.quantities import Array
from gradlab.recording.torch.functions import FUNCTIONS, IDENTITY, Function, changes_its_input
from gradlab.recording.torch.layers import Layer


class Call:
    """One call of a layer in a pass; what the listener measures of it is kept here.

    Attributes
    ----------
    layer : Layer
    scope : int
        Number of the pass it belongs to.
    waits : bool
        Whether a delta may still come: only then is the call part of the training.
    in_backward : bool
        Whether it was made during a backward pass, to compute activations again.
    """

    def __init__(self, layer: Layer, scope: int, waits: bool, in_backward: bool) -> None:
        self.layer, self.scope, self.waits, self.in_backward = layer, scope, waits, in_backward
        self.deltas = 0
        self.measured: dict[str, Any] = {}
        self.why_not = ""  # why φ(h) can't be had


class Listener(Protocol):
    """Who is told what happens; tensors are to be measured at once, and not kept."""

    def activation(
        self, call: Call, x: torch.Tensor, saturated: Array | None, function: Function
    ) -> None:
        """φ(h) of a call is known."""

    def called(self, call: Call) -> None:
        """A layer was called, in what may be a pass of the training."""

    def delta(self, call: Call, delta: torch.Tensor) -> None:
        """dL/dh of a call is known."""

    def gradient(self, layer: Layer, gradient: torch.Tensor) -> None:
        """dL/dW of a layer has been accumulated; nobody has clipped it yet."""

    def backward_begins(self, roots: Sequence[torch.Tensor]) -> None:
        """A backward pass begins at these tensors."""


class _Pending:
    """An output of a layer, until it is seen what becomes of it."""

    def __init__(self, call: Call, h: torch.Tensor, whole: bool) -> None:
        self.call, self.h, self.version, self.whole = call, h, h._version, whole

    @property
    def changed(self) -> bool:
        return self.h._version != self.version


class _Scope(threading.local):
    """What this thread is in the middle of."""

    def __init__(self) -> None:
        self.depth = 0  # of calls of the model's modules
        self.number = 0
        self.whole = False  # whether it began with the model's own forward, so that all is seen
        self.pending: dict[int, _Pending] = {}
        self.mode: TorchFunctionMode | None = None


class Watch:
    """Tells a listener what happens to the layers of a model between `start` and `stop`.

    Parameters
    ----------
    model : nn.Module
        As the user calls it.
    layers : sequence of Layer
    listener : Listener
    activations, gradients : bool
        Whether these are wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        listener: Listener,
        activations: bool,
        gradients: bool,
    ) -> None:
        # what holds every layer is the whole model: the model, what it wraps, or its one network
        outputs = {id(layer.output) for layer in layers}
        self._wholes = {
            id(module)
            for module in model.modules()
            if outputs <= {id(inside) for inside in module.modules()}
        }
        self._layers: dict[int, list[Layer]] = {id(module): [] for module in model.modules()}
        for layer in layers:
            self._layers[id(layer.output)].append(layer)
        self._listener = weakref.proxy(listener)
        self._activations, self._gradients = activations, gradients
        self._scope = _Scope()
        self._scopes = 0
        self._undo: contextlib.ExitStack | None = None
        self._handles: list[RemovableHandle] = []
        self.order: list[Layer] = []  # as they were first called
        self._reference: Callable[[Layer, torch.Tensor, Function], None] | None = None

    # --- beginning and end ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch."""
        self._undo = undo = contextlib.ExitStack()
        self._scope = _Scope()
        before = register_module_forward_pre_hook(self._enter)
        undo.callback(before.remove)
        after = register_module_forward_hook(self._leave, always_call=True)
        undo.callback(after.remove)
        undo.callback(_backward.leave, self)
        _backward.join(self)
        for layers in self._layers.values() if self._gradients else ():
            for layer in layers:
                weight = layer.weight
                if weight is not None and weight.requires_grad and weight.is_leaf:
                    told = _Gradient(self._listener, layer)
                    self._handles.append(weight.register_post_accumulate_grad_hook(told))
        # Compiled code would not call the hooks: what is watched runs eagerly. (What was compiled
        # is kept for the steps that are not.)
        if "torch._dynamo" in sys.modules:
            undo.enter_context(torch.compiler.set_stance("force_eager"))
            # about hooks that would be called twice for the wrapper, which is no layer
            undo.enter_context(_without_warning("Using `torch.compile"))

    def stop(self) -> None:
        """Undo everything; no hook stays behind and no tensor is kept."""
        if self._undo is None:
            return
        self._undo.close()
        self._undo = None
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._scope = _Scope()

    @contextlib.contextmanager
    def reference(self, tell: Callable[[Layer, torch.Tensor, Function], None]) -> Iterator[None]:
        """Tell of outputs φ(h) by `tell(layer, x, function)`, and count nothing as training."""
        self._reference = tell
        scope, self._scope = self._scope, _Scope()
        try:
            yield
        finally:
            self._reference = None
            self._scope = scope

    # --- the forward pass -------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any) -> None:
        layers = self._layers.get(id(module))
        if layers is None:
            return
        scope = self._scope
        scope.depth += 1
        if scope.depth == 1:
            self._open(id(module) in self._wholes)
        if layers and scope.pending and args:
            # handed from one layer straight to the next
            for argument in args:
                if id(argument) in scope.pending:
                    self._settle(scope.pending.pop(id(argument)))

    def _leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        layers = self._layers.get(id(module))
        if layers is None:
            return
        scope = self._scope
        if layers and output is not None:
            with torch._C.DisableTorchFunction():
                self._called(layers, output)
        scope.depth = max(scope.depth - 1, 0)
        if scope.depth == 0:
            self._close()

    def _open(self, whole: bool) -> None:
        """Begin a pass: the outermost call of one of the model's modules."""
        self._scopes += 1
        scope = self._scope
        scope.number, scope.whole = self._scopes, whole
        if self._activations:
            scope.mode = _Functions(self)
            scope.mode.__enter__()

    def _close(self) -> None:
        scope = self._scope
        if scope.mode is not None:
            mode, scope.mode = scope.mode, None
            mode.__exit__(None, None, None)
        # what was called from outside the model may yet be handed to one of its activation modules
        if scope.whole:
            self.settle()

    def _called(self, layers: Collection[Layer], output: Any) -> None:
        h = _first_tensor(output)
        if h is None:
            return
        for layer in layers:
            if layer not in self.order:
                self.order.append(layer)
        if self._reference is None and not torch.is_grad_enabled():
            return  # a look at validation data
        scope = self._scope
        for layer in layers:
            call = Call(layer, scope.number, h.requires_grad, _backward.running)
            if self._reference is None:
                self._listener.called(call)
                if h.requires_grad and layer.unit is not None:
                    self._handles.append(h.register_hook(_Arrival(self._listener, call)))
            if self._activations and layer.unit is not None:
                self.settle(layer, before=scope.number)
                scope.pending[id(h)] = _Pending(call, h, scope.whole)

    def settle(self, layer: Layer | None = None, before: int | None = None) -> None:
        """Nothing more will become of these outputs: of all layers, or of one in earlier passes."""
        for key, entry in list(self._scope.pending.items()):
            call = entry.call
            if layer is None or (call.layer is layer and call.scope != before):
                self._settle(self._scope.pending.pop(key))

    def _settle(self, entry: _Pending) -> None:
        """No activation function was applied to an output: it is its own activation."""
        if entry.changed:
            entry.call.why_not = "its output was changed in place before it could be measured"
        elif entry.whole or self._reference is not None:
            self._activated(entry, entry.h, IDENTITY.saturated(entry.h), IDENTITY)
        else:
            entry.call.why_not = "it was called outside the model's forward: what follows is unseen"

    def apply(
        self, func: Any, function: Function | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function that PyTorch was asked for; note if it activates a layer's output."""
        h = args[0] if args else kwargs.get("input")
        entry = self._scope.pending.pop(id(h), None)
        if entry is None:
            return func(*args, **kwargs)
        if function is None or entry.changed:
            self._settle(entry)
            return func(*args, **kwargs)
        saturated = function.saturated(h)  # before the function, which may write into h
        x = func(*args, **kwargs)
        self._activated(entry, x, saturated, function)
        return x

    def _activated(
        self,
        entry: _Pending,
        x: torch.Tensor,
        saturated: Array | None,
        function: Function,
    ) -> None:
        if self._reference is not None:
            self._reference(entry.call.layer, x, function)
        else:
            self._listener.activation(entry.call, x, saturated, function)

    # --- the backward pass ------------------------------------------------------------------------

    def backward_begins(self, roots: Sequence[torch.Tensor]) -> None:
        """A backward pass begins."""
        self.settle()
        self._listener.backward_begins(roots)


class _Arrival:
    """The hook of an output: its delta arrives. Holds no tensor."""

    def __init__(self, listener: Listener, call: Call) -> None:
        self.listener, self.call = listener, call

    def __call__(self, delta: torch.Tensor) -> None:
        # one that was asked for by torch.autograd.grad is no part of the training
        if _backward.running:
            self.call.deltas += 1
            with torch._C.DisableTorchFunction():
                self.listener.delta(self.call, delta)


class _Gradient:
    """The hook of a weight: its gradient has been accumulated, and is still at hand."""

    def __init__(self, listener: Listener, layer: Layer) -> None:
        self.listener, self.layer = listener, layer

    def __call__(self, weight: torch.Tensor) -> None:
        with torch._C.DisableTorchFunction():
            if weight.grad is not None:
                self.listener.gradient(self.layer, weight.grad)


class _Functions(TorchFunctionMode):
    """Sees every function of PyTorch that is called while the model runs."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self.watch._scope.pending:
            return func(*args, **kwargs)
        found = FUNCTIONS.get(func)
        function = None if found is None else found((args, kwargs))
        if function is None and not changes_its_input(getattr(func, "__name__", "")):
            return func(*args, **kwargs)
        return self.watch.apply(func, function, args, kwargs)


class _Backward:
    """torch.autograd.backward, with those who want to know when it begins."""

    def __init__(self) -> None:
        self.running = False
        self._watches: list[Watch] = []
        self._original: Callable[..., None] = torch.autograd.backward

    def join(self, watch: Watch) -> None:
        """Tell a watch of every backward pass; the first one puts this in PyTorch's place."""
        if not self._watches:
            self._original = torch.autograd.backward
            torch.autograd.backward = self._run
        self._watches.append(watch)

    def leave(self, watch: Watch) -> None:
        """Stop telling it; after the last one, PyTorch's own function is back."""
        self._watches.remove(watch)
        if not self._watches and torch.autograd.backward == self._run:
            torch.autograd.backward = self._original

    def _run(self, tensors: Any, *args: Any, **kwargs: Any) -> None:
        watches = list(self._watches)
        if self.running:  # checkpointing calls it again, for what was computed again
            for watch in watches:
                watch.settle()
            return self._original(tensors, *args, **kwargs)
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        for watch in watches:
            watch.backward_begins(roots)
        self.running = True
        try:
            return self._original(tensors, *args, **kwargs)
        finally:
            self.running = False
            for watch in watches:
                watch.settle()


_backward = _Backward()


@contextlib.contextmanager
def _without_warning(beginning: str) -> Iterator[None]:
    """Silence one warning; other filters may be added and removed meanwhile."""
    warnings.filterwarnings("ignore", re.escape(beginning))
    entry = warnings.filters[0]
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            warnings.filters.remove(entry)  # type: ignore[attr-defined]  # a list, whatever it says


def _first_tensor(output: Any) -> torch.Tensor | None:
    """The tensor of real numbers that a module gave, or the first of several."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, tuple | list):
        return next((t for t in map(_first_tensor, output) if t is not None), None)
    return None
