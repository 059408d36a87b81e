"""Watching a PyTorch model: its layers' outputs, activations, deltas, gradients, backward passes.

Nothing is written onto the modules: PyTorch's global hooks are used, so that a model can be copied
and pickled while it is watched. Everything is undone by `stop`.

What becomes of a layer's output h is found in the forward pass. It stays *pending* until an
activation function is applied to it, by a module or by a function; or it is handed on as it is.
Functions are seen by a mode of PyTorch in which every call is announced. That costs time, so it is
left out once a pass has shown that all activation functions are modules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from gradlab.recording.clock import Clock
from gradlab.recording.quantities import Array
from gradlab.recording.torch.arrays import can_be_measured
from gradlab.recording.torch.arrivals import Accumulated, Arrival
from gradlab.recording.torch.backward import BACKWARD
from gradlab.recording.torch.calls import Applied, Call, Listener, Pending, Scope, found
from gradlab.recording.torch.chains import Chains
from gradlab.recording.torch.functions import (
    FUNCTIONS,
    IDENTITY,
    MODULES,
    Function,
    changes_its_input,
)
from gradlab.recording.torch.layers import Layer
from gradlab.recording.torch.shared import Shared


class Watch:
    """Tells a listener what happens to the layers of a model between `start` and `stop`.

    Parameters
    ----------
    model : nn.Module
        As the user calls it.
    layers : sequence of Layer
    listener : Listener
    clock : Clock
        Counts what it takes to watch.
    activations, deltas : bool
        Whether these are wanted. Activations of training passes are told by deltas, so these are
        then waited for.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        listener: Listener,
        clock: Clock,
        activations: bool,
        deltas: bool,
    ) -> None:
        # what holds every layer is the whole model: the model, what it wraps, or its one network
        outputs = {id(layer.output) for layer in layers}
        self._model, self._every_layer = model, list(layers)
        self._wholes = {
            id(module)
            for module in model.modules()
            if outputs <= {id(inside) for inside in module.modules()}
        }
        self._layers: dict[int, list[Layer]] = {id(module): [] for module in model.modules()}
        for layer in layers:
            self._layers[id(layer.output)].append(layer)
        # a module that is replaced lives on, so that no other one gets its identity
        self._tree = [
            (parent._modules, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
        ]
        self._wrapped = any(hasattr(module, "_orig_mod") for module in model.modules())
        self._listener: Listener = weakref.proxy(listener)
        self.clock = clock
        self._forgotten = weakref.finalize(listener, self.stop)
        self._forgotten.atexit = False
        self._activations, self._deltas = activations, deltas or activations
        # by layer, or for a parameter that tells of its pass alone, by its identity
        self._weights: dict[Layer | int, tuple[torch.Tensor, RemovableHandle]] = {}
        self._scopes: dict[int, Scope] = {}  # by thread
        self._home = 0  # the thread that began to watch
        self._passes = 0
        self._undo: contextlib.ExitStack | None = None
        self._modules = contextlib.ExitStack()  # whose calls are watched
        self._arrivals: list[RemovableHandle] = []
        self._reference: Callable[[Layer, torch.Tensor, Function], None] | None = None
        self.chains = Chains()
        self.order: dict[Layer, None] = {}  # as they were first called
        # whether functions must be looked for; whether one was found that is no module's
        self._looks, self._found_one = True, False
        self._several: set[Layer] = set()  # whose output goes into several functions

    # --- beginning and end ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch."""
        if self._undo is not None:
            self._run_eagerly(self._undo)
            return
        self._undo = undo = contextlib.ExitStack()
        self._eager = False
        self._home = threading.get_ident()
        undo.callback(self._modules.close)
        if self._deltas or not self.order:
            MODULE_CALLS.join(self, self._modules)
        BACKWARD.join(self)
        undo.callback(BACKWARD.leave, self)
        self._watch_weights()
        self._watch_other_parameters()
        undo.callback(self._leave_weights)
        self._run_eagerly(undo)
        if self._wrapped:  # about hooks that are called for the wrapper too, which is no layer
            undo.enter_context(_without_warning("Using `torch.compile"))

    def _run_eagerly(self, undo: contextlib.ExitStack) -> None:
        # Compiled code would not call the hooks: what is watched runs eagerly. (What was compiled
        # is kept for the steps that are not.)
        if not self._eager and "torch._dynamo" in sys.modules:
            EAGER.join(self, undo)
            self._eager = True

    def _watch_weights(self) -> None:
        """Hook the weights that can have gradients, as they are now."""
        for layer in self._every_layer:
            weight = layer.weight
            if weight is None or not weight.requires_grad:
                continue
            watched = self._weights.get(layer)
            if watched is None or watched[0] is not weight:
                if watched is not None:
                    watched[1].remove()
                told = Accumulated((layer,), self._listener, self.clock)
                self._weights[layer] = weight, weight.register_post_accumulate_grad_hook(told)

    def _watch_other_parameters(self) -> None:
        """Hook modules that tell nothing else, so that no backward pass is taken for another's."""
        hooked = {id(weight) for weight, _ in self._weights.values()}
        for module in self._model.modules():
            mine = [parameter for parameter in module._parameters.values() if parameter is not None]
            told = self._deltas and any(layer.unit for layer in self._layers[id(module)])
            if not told and not any(id(parameter) in hooked for parameter in mine):
                for parameter in mine:
                    if parameter.requires_grad and id(parameter) not in self._weights:
                        hook = Accumulated((), self._listener, self.clock)
                        handle = parameter.register_post_accumulate_grad_hook(hook)
                        self._weights[id(parameter)] = parameter, handle

    def _leave_weights(self) -> None:
        for _, handle in self._weights.values():
            handle.remove()
        self._weights = {}

    @property
    def scope(self) -> Scope:
        """What this thread is in the middle of."""
        thread = threading.get_ident()
        scope = self._scopes.get(thread)
        if scope is None:
            scope = self._scopes[thread] = Scope()
        return scope

    def intact(self) -> bool:
        """Whether all modules are where they were found."""
        return all(place.get(name) is module for place, name, module in self._tree)

    def end_step(self) -> None:
        """Forget what is left of a step; no tensor is kept."""
        for handle in self._arrivals:
            handle.remove()
        self._arrivals = []
        self.chains.forget()
        self.scope.leave_mode()
        self._scopes = {}
        if self.order:
            if not self._found_one:  # all activation functions are modules
                self._looks = False
            if not self._deltas:  # the order is all that was needed of the modules
                self._modules.close()

    def stop(self) -> None:
        """Undo everything; no hook stays behind."""
        self.end_step()
        if self._undo is not None:
            self._undo.close()
            self._undo = None

    @contextlib.contextmanager
    def reference(self, tell: Callable[[Layer, torch.Tensor, Function], None]) -> Iterator[None]:
        """Tell of outputs φ(h) by `tell(layer, x, function)`, and count nothing as training."""
        self._reference = tell
        scopes, self._scopes = self._scopes, {}
        try:
            with contextlib.ExitStack() as undo:
                if self not in MODULE_CALLS.members:  # nothing of the training's passes is needed
                    MODULE_CALLS.join(self, undo)
                yield
        finally:
            self._reference = None
            self.scope.leave_mode()
            self._scopes = scopes

    # --- modules ----------------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        layers = self._layers.get(id(module))
        if layers is None:
            return
        began = perf_counter()
        scope = self.scope
        scope.depth += 1
        if scope.depth == 1:
            self._open(scope, id(module) in self._wholes)
        if scope.pending and args:
            entry = found(scope.pending, args[0])
            if entry is not None:
                with torch._C.DisableTorchFunction():
                    self._handed(scope, entry, module, bool(layers))
        self.clock.since(began)

    def _handed(self, scope: Scope, entry: Pending, module: nn.Module, is_layer: bool) -> None:
        """A module is given a layer's output."""
        kind = MODULES.get(type(module))
        entry.seen = True
        if type(module) is nn.Identity:
            return
        if kind is not None and not entry.changed:
            del scope.pending[id(entry.h)]
            function = kind(module)
            # before the function, which may write into h
            scope.applied[id(module)] = Applied(entry, function, function.saturated(entry.h))
        elif is_layer or (type(module).__module__.startswith("torch.nn.") and not module._modules):
            del scope.pending[id(entry.h)]
            self._settle(entry)

    def leave(self, module: nn.Module, output: Any) -> None:
        """Its call has ended; without an output if it failed."""
        layers = self._layers.get(id(module))
        if layers is None:
            return
        began = perf_counter()
        scope = self.scope
        if scope.applied or layers:
            with torch._C.DisableTorchFunction():
                applied = scope.applied.pop(id(module), None)
                if applied is not None and output is not None:
                    self._activated(scope, applied.entry, output, applied)
                if layers and output is not None:
                    self._called(scope, layers, output)
        if scope.depth > 1:
            scope.depth -= 1
        else:
            scope.depth = 0
            self._close(scope, output)
        self.clock.since(began)

    def _open(self, scope: Scope, whole: bool) -> None:
        """Begin a pass: the outermost call of one of the model's modules."""
        self._passes += 1
        scope.number, scope.whole = self._passes, whole
        if getattr(DistributedDataParallel, "_active_ddp_module", None) is not None:
            self._listener.averaged()
        if (self._activations or self._reference is not None) and self._looks:
            scope.mode = _Functions(self)
            scope.mode.__enter__()

    def _close(self, scope: Scope, output: Any) -> None:
        looked = scope.mode is not None
        scope.leave_mode()
        scope.done = {}
        # what was called from outside the model may yet be handed to one of its activation modules
        if scope.whole and scope.pending:
            self._doubt(scope, output, looked)
            self.settle()

    def _doubt(self, scope: Scope, output: Any, looked: bool) -> None:
        """Layers' outputs that nothing seen took, and that are not the model's either."""
        outputs = {id(found(scope.pending, tensor)) for tensor in _tensors(output)}
        for key, entry in list(scope.pending.items()):
            if id(entry) in outputs:
                continue
            self._found_one = True  # without a look at functions, it could not be told what took it
            if looked and (entry.seen or entry.changed):
                continue
            del scope.pending[key]
            if looked:
                entry.call.why_not = "what takes its output cannot be seen"
            else:
                entry.call.why_not = "it went into a function, where it had not before"
                self._looks = True

    def _called(self, scope: Scope, layers: Collection[Layer], output: Any) -> None:
        h = output if isinstance(output, torch.Tensor) else next(_tensors(output), None)
        if h is None or not h.is_floating_point():
            return
        for layer in layers:
            self.order.setdefault(layer)
        if self._reference is None and not torch.is_grad_enabled():
            return  # a look at validation data
        if not h.numel():
            return
        if not can_be_measured(h):
            for layer in layers:
                self._listener.unseen(layer, "it was called by torch.func, or by a tracer")
            return
        for layer in layers:
            call = Call(layer, scope.number, h.requires_grad)
            if self._reference is None:
                self._listener.called(call)
                self.chains.note(layer, h)
                if call.waits and self._deltas and layer.unit is not None:
                    arrival = Arrival(call, self._listener, self.clock)
                    self._arrivals.append(h.register_hook(arrival))
            wanted = self._activations or self._reference is not None
            if wanted and layer.unit is not None:
                if scope.pending:
                    self.settle(layer, but=scope.number)
                scope.pending[id(h)] = Pending(call, h, h._version, scope.whole)

    # --- what becomes of an output ----------------------------------------------------------------

    def settle(self, layer: Layer | None = None, but: int | None = None) -> None:
        """Nothing more will become of these outputs: of all layers, or of one in other passes."""
        scope = self._scopes.get(threading.get_ident())
        pending = {} if scope is None else scope.pending
        for key, entry in list(pending.items()):
            call = entry.call
            if layer is None or (call.layer is layer and call.scope != but):
                del pending[key]
                self._settle(entry)

    def _settle(self, entry: Pending) -> None:
        """No activation function was applied to an output: it is its own activation."""
        if entry.changed:
            entry.call.why_not = "its output was changed in place before it could be measured"
        elif entry.whole or self._reference is not None:
            self._tell(entry, entry.h, IDENTITY.saturated(entry.h), IDENTITY)
        else:
            entry.call.why_not = "it was called outside the model's forward: what follows is unseen"

    def apply(
        self, func: Any, function: Function | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function of PyTorch; note what it does with the output of a layer."""
        scope = self.scope
        h = args[0] if args else kwargs.get("input")
        entry = found(scope.pending, h)
        if entry is None or (function is None and not changes_its_input(func)):
            x = func(*args, **kwargs)
            with self.clock:
                self._used(scope, (*args, *kwargs.values()), x)
            return x
        del scope.pending[id(entry.h)]
        self._found_one = True
        if function is None or entry.changed:
            with self.clock:
                self._settle(entry)
            return func(*args, **kwargs)
        with self.clock:
            applied = Applied(entry, function, function.saturated(entry.h))
        x = func(*args, **kwargs)
        with self.clock:
            self._activated(scope, entry, x, applied)
        return x

    def _activated(self, scope: Scope, entry: Pending, x: Any, applied: Applied) -> None:
        call = entry.call
        if entry.used:
            self._several.add(call.layer)
        if call.layer in self._several:
            call.why_not = SEVERAL
            return
        if x is not entry.h:  # written into, h is not there any more
            scope.done[id(entry.h)] = entry
        self._tell(entry, x, applied.saturated, applied.function)

    def _used(self, scope: Scope, arguments: Iterable[Any], x: Any) -> None:
        """A function took them: a layer's output that goes elsewhere too gives not φ(h) alone."""
        given = list(_tensors(x))
        tracked = any(tensor.requires_grad for tensor in given)
        for argument in arguments:
            for tensor in argument if isinstance(argument, list | tuple) else (argument,):
                if (entry := scope.pending.get(id(tensor))) is not None:
                    entry.seen = True
                    # unless it was only wrapped
                    if tracked and not any(found(scope.pending, t) is entry for t in given):
                        entry.used = True
                elif tracked and (entry := scope.done.get(id(tensor))) is not None:
                    self._several.add(entry.call.layer)
                    entry.call.activation, entry.call.function = None, None
                    entry.call.why_not = SEVERAL

    def _tell(
        self, entry: Pending, x: torch.Tensor, saturated: Array | None, function: Function
    ) -> None:
        if self._reference is not None:
            self._reference(entry.call.layer, x, function)
        else:
            self._listener.activation(entry.call, x, saturated, function)

    def backward_begins(self) -> None:
        """A backward pass begins."""
        with self.clock:
            if self._is_concerned():
                self.settle()
                self._watch_weights()  # some may have been replaced, or be trained only now
                self._listener.backward_begins()

    def backward_ends(self) -> None:
        """It has ended."""
        with self.clock:
            if self._is_concerned():
                self.settle()
                self._listener.backward_ends()

    def _is_concerned(self) -> bool:
        """Whether this thread trains the model.

        If not, its parameters must be left alone: a backward pass in the thread that does may just
        write their gradients.
        """
        thread = threading.get_ident()
        return thread == self._home or thread in self._scopes


SEVERAL = "its output goes into several functions, so that none of them is its activation function"


def _hook_modules(undo: contextlib.ExitStack) -> None:
    def enter(module: nn.Module, args: Any) -> None:
        for watch in MODULE_CALLS.members:
            watch.enter(module, args)

    def leave(module: nn.Module, _args: Any, output: Any) -> None:
        for watch in MODULE_CALLS.members:
            watch.leave(module, output)

    undo.callback(register_module_forward_pre_hook(enter).remove)
    undo.callback(register_module_forward_hook(leave, always_call=True).remove)


# whose modules' calls are watched, and for whom nothing runs compiled
MODULE_CALLS = Shared(_hook_modules)
EAGER = Shared(lambda undo: undo.enter_context(torch.compiler.set_stance("force_eager")))


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
        scope = self.watch.scope
        if not scope.pending and not scope.done:
            return func(*args, **kwargs)
        found = FUNCTIONS.get(func)
        function = None if found is None else found((args, kwargs))
        return self.watch.apply(func, function, args, kwargs)


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


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """The tensors of real numbers that a module gave, in their order."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)
    elif isinstance(output, dict):
        for part in output.values():
            yield from _tensors(part)
    elif dataclasses.is_dataclass(output):
        for part in vars(output).values():
            yield from _tensors(part)
