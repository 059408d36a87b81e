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
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Collection, Iterator, Sequence
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

from gradiometer.recording.adapters.torch.arrays import can_be_measured
from gradiometer.recording.adapters.torch.backward import BACKWARD
from gradiometer.recording.adapters.torch.backward_hooks import (
    Accumulated,
    Computed,
    OutputHook,
    put_first,
)
from gradiometer.recording.adapters.torch.calls import Call, Listener, Scope
from gradiometer.recording.adapters.torch.chains import Chains
from gradiometer.recording.adapters.torch.computed import parametrization
from gradiometer.recording.adapters.torch.dispatch import Dispatches
from gradiometer.recording.adapters.torch.expected import Expected, Fate
from gradiometer.recording.adapters.torch.fans import WeightUses
from gradiometer.recording.adapters.torch.layers import REPLACED, Layer
from gradiometer.recording.adapters.torch.outputs import (
    UNSEEN,
    Outputs,
    autograd_function,
    tensors_of,
)
from gradiometer.recording.adapters.torch.shared import Shared


class Watch:
    """Tells a listener what happens to the layers of a model between `start` and `stop`.

    Parameters
    ----------
    model : nn.Module
        As the user calls it.
    layers : sequence of Layer
    listener : Listener
    clock : Dispatches
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
        clock: Dispatches,
        activations: bool,
        deltas: bool,
    ) -> None:
        self._note_modules(model, layers)
        self._listener: Listener = weakref.proxy(listener)
        self.clock = clock
        self._forgotten = weakref.finalize(listener, self.stop)
        self._forgotten.atexit = False
        self._activations, self._deltas = activations, deltas or activations
        # by layer, or for a parameter that tells of its pass alone, by its identity
        self._weights: dict[Layer | int, tuple[torch.Tensor, RemovableHandle]] = {}
        self._raw: dict[Layer, tuple[torch.Tensor, RemovableHandle]] = {}
        self._scopes: dict[int, Scope] = {}  # by thread
        self._home = 0  # the thread that began to watch
        self._passes = 0
        self._undo: contextlib.ExitStack | None = None
        self._modules = contextlib.ExitStack()  # whose calls are watched
        self.chains = Chains()
        self._backward_hooks: list[tuple[RemovableHandle, Call]] = []
        self._others: list[RemovableHandle] = []  # hooks of losses, and of passes not watched
        self._expected = Expected()
        self._outputs = Outputs(self._listener)
        self._looked_at: list[Call] | None = None  # at a reference batch
        self.order: dict[Layer, None] = {}  # as they were first called
        self._looks = True  # whether functions must be looked for
        # of what no module's call tells: by which products weights are used, in the first step
        self.uses = WeightUses(
            [
                (layer, weight)
                for layer in layers
                if layer.unit is None and (weight := layer.weight) is not None
            ]
        )

    def _note_modules(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        """Note which modules hold the layers, while no module is called yet."""
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
        behind = [(parametrization(layer.owner, layer.parameter), layer) for layer in layers]
        self._computing = {id(made): layer for made, layer in behind if made is not None}
        # a module that is replaced lives on, so that no other one gets its identity
        self._tree = [
            (parent._modules, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
        ]
        self._wrapped = any(hasattr(module, "_orig_mod") for module in model.modules())

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
        # about hooks that are called for the wrapper too, which is no layer
        if self._wrapped or "torch._dynamo" in sys.modules:
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
                self._leave_weight(layer)
                told = Accumulated((layer,), self._listener, self.clock)
                handle = weight.register_post_accumulate_grad_hook(told)
                self._weights[layer] = watched = weight, handle
            # who clips in such a hook, or makes a step, is to come later
            put_first(weight._post_accumulate_grad_hooks, watched[1].id)
            if weight._backward_hooks:
                self._watch_before_hooks(layer, weight)

    def _watch_before_hooks(self, layer: Layer, weight: torch.Tensor) -> None:
        """Hook a weight whose gradient may be changed by hooks before it is accumulated."""
        if layer not in self._raw:
            told = Computed(layer, weight, self._listener, self.clock)
            self._raw[layer] = weight, weight.register_hook(told)
        put_first(weight._backward_hooks, self._raw[layer][1].id)

    def _leave_weight(self, layer: Layer | int) -> None:
        watched = [self._weights.pop(layer, None)]
        if isinstance(layer, Layer):
            watched.append(self._raw.pop(layer, None))
        for entry in watched:
            if entry is not None:
                entry[1].remove()

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
        for key in list(self._weights):
            self._leave_weight(key)

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
        self.chains.forget()
        # what is not trained yet may be in a later step, if its graph is still there
        waiting = []
        for handle, call in self._backward_hooks:
            if call.deltas:
                handle.remove()
            elif (hooks := handle.hooks_dict_ref()) is not None and handle.id in hooks:
                waiting.append((handle, call))
        self._backward_hooks = waiting
        self._others = [handle for handle in self._others if handle.hooks_dict_ref() is not None]
        self.scope.leave_mode()
        self._scopes = {}
        if self.order:
            self.uses.end()
            if not self._outputs.found_one:  # all activation functions are modules
                self._looks = False
            if not self._deltas:  # the order is all that was needed of the modules
                self._modules.close()

    def stop(self) -> None:
        """Undo everything; no hook stays behind."""
        self.end_step()
        for handle in (*self._others, *(handle for handle, _ in self._backward_hooks)):
            handle.remove()
        self._backward_hooks, self._others = [], []
        if self._undo is not None:
            self._undo.close()
            self._undo = None

    @contextlib.contextmanager
    def reference(self) -> Iterator[list[Call]]:
        """Give the calls that are made meanwhile, and count nothing as training."""
        calls: list[Call] = []
        self._looked_at, self._outputs.looking_back = calls, True
        scopes, self._scopes = self._scopes, {}
        try:
            with contextlib.ExitStack() as undo:
                if self not in MODULE_CALLS.members:  # nothing of the training's passes is needed
                    MODULE_CALLS.join(self, undo)
                yield calls
                self.settle()
        finally:
            self._looked_at, self._outputs.looking_back = None, False
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
            self._open(scope, module)
        if scope.rests:
            self.clock.entered(began)
            return
        if scope.links and args:
            with torch._C.DisableTorchFunction():
                self._outputs.handed(scope, module, args[0], bool(layers))
        self.clock.entered(began)

    def leave(self, module: nn.Module, output: Any) -> None:
        """Its call has ended; without an output if it failed."""
        layers = self._layers.get(id(module))
        if layers is None:
            return
        scope = self.scope
        if scope.rests and scope.depth > 1:
            scope.depth -= 1
            return
        began = perf_counter()
        if scope.rests:
            self._end_rest(scope, output)
        elif scope.running or layers:
            with torch._C.DisableTorchFunction():
                self._outputs.left(scope, module, output)
                if layers and output is not None:
                    self._called(scope, layers, output)
        elif id(module) in self._computing and isinstance(output, torch.Tensor):
            self._computing[id(module)].seen[:] = [output.shape]
        if scope.depth > 1:
            scope.depth -= 1
        else:
            scope.depth = 0
            self._close(scope, output)
        self.clock.since(began)

    def _open(self, scope: Scope, module: nn.Module) -> None:
        """Begin a pass: the outermost call of one of the model's modules."""
        self._passes += 1
        scope.number, scope.whole = self._passes, id(module) in self._wholes
        scope.training, scope.gradients = module.training, torch.is_grad_enabled()
        if self._looked_at is not None or BACKWARD.inside() is not None:
            scope.fate = Fate()  # what a checkpoint computes again is not one more pass
        elif scope.gradients:
            scope.fate = self._expected.begin(module.training)
        else:
            scope.fate = self._expected.begin_blind()
        scope.rests = scope.fate.rests
        if scope.rests:
            return
        if getattr(DistributedDataParallel, "_active_ddp_module", None) is not None:
            self._listener.averaged()
        wanted = (self._activations or self._looked_at is not None) and self._looks
        if wanted or self.uses:
            scope.mode = _Functions(self)
            scope.mode.__enter__()

    def _close(self, scope: Scope, output: Any) -> None:
        looked = scope.mode is not None
        scope.leave_mode()
        scope.running = {}
        # what was called from outside the model may yet be handed to one of its activation modules
        if scope.whole and scope.pending:
            self._doubt(scope, output, looked)
            self.settle()
        if scope.whole:
            scope.links = {}
        if scope.gradients and self._looked_at is None and BACKWARD.inside() is None:
            self._expected.end(scope.training, scope.fate)
        scope.fate = None

    def _end_rest(self, scope: Scope, output: Any) -> None:
        """A pass of which nothing was watched is over: see whether it is trained after all."""
        scope.rests = False

        def tell(gradient: torch.Tensor) -> None:
            if BACKWARD.passing(gradient) is not None:
                expected.surprise(blind)
                listener.unwatched()

        expected, listener, blind = self._expected, self._listener, not scope.gradients
        with torch._C.DisableTorchFunction():
            for tensor in tensors_of(output):
                if tensor.requires_grad:
                    self._others.append(tensor.register_hook(tell))

    def _doubt(self, scope: Scope, output: Any, looked: bool) -> None:
        """Layers' outputs that nothing seen took, and that are not the model's either."""
        links = [scope.link(tensor) for tensor in tensors_of(output)]
        given = {id(link.entry) for link in links if link is not None}
        for entry in scope.pending.values():
            if id(entry) in given or entry.h is None:
                continue
            self._outputs.found_one = True  # without a look, it could not be told what took it
            if looked and (entry.seen or entry.changed):
                continue
            if looked:
                hidden = f": {entry.hidden}" if entry.hidden else ""
                self._outputs.refuse(entry, UNSEEN + hidden)
            else:
                why = "it went into a function, where it had not before"
                self._outputs.refuse(entry, why)
                self._looks = True

    def _called(self, scope: Scope, layers: Collection[Layer], output: Any) -> None:
        h = output if isinstance(output, torch.Tensor) else next(tensors_of(output), None)
        for layer in layers:
            self.order.setdefault(layer)
        if h is None or not h.is_floating_point() or not h.numel():
            return
        blind = not torch.is_grad_enabled()
        if blind and self._looked_at is None and not (scope.gradients and _is_no_function()):
            return  # a look at validation data, or inside of what is computed again
        if not can_be_measured(h):
            for layer in layers:
                self._listener.unseen(layer, "it was called by torch.func, or by a tracer")
            return
        for layer in layers:
            call = Call(layer, scope.number, h.requires_grad, without_gradients=blind)
            # the place of one beside other layers is not that of its module's output
            placed = not layer.beside and layer not in self.uses.found
            if placed and self._looked_at is None:
                self.chains.note(layer, h)
            if "forward" in vars(layer.output) and layer.unit is not None:
                self._listener.unseen(layer, REPLACED)
                continue
            if self._looked_at is not None:
                self._looked_at.append(call)
            else:
                self._listener.called(call)
                if call.waits and self._deltas and layer.unit is not None:
                    hook = OutputHook(call, scope.fate, self._listener, self.clock)
                    scope.fate.latest = weakref.ref(hook)
                    self._backward_hooks.append((h.register_hook(hook), call))
            wanted = self._activations or self._looked_at is not None
            if wanted and layer.unit is not None:
                if scope.pending:
                    self.settle(layer, but=scope.number)
                self._outputs.pend(scope, call, h, scope.fate.late)

    def apply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], began: float) -> Any:
        """Call a function of PyTorch; note what it does with the outputs of layers."""
        scope = self.scope
        if self.uses and (layer := self.uses.look(func, args)) is not None:
            return self._product(layer, func, args, kwargs, began)
        if not scope.links:
            self.clock.applied(began)
            return func(*args, **kwargs)
        ended = self._outputs.apply(scope, func, args, kwargs)
        self.clock.applied(began)
        x = func(*args, **kwargs)
        if ended is not None:
            with self.clock:
                ended(x)
        return x

    def _product(
        self, layer: Layer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], began: float
    ) -> Any:
        """Call a function that makes a product with a weight: there is the layer's place."""
        self.order.setdefault(layer)
        x = self.apply(func, args, kwargs, began)
        if isinstance(x, torch.Tensor) and self._looked_at is None:
            self.chains.note(layer, x)
        return x

    def settle(self, layer: Layer | None = None, but: int | None = None) -> None:
        """Nothing more will become of these outputs: of all layers, or of one in other passes."""
        scope = self._scopes.get(threading.get_ident())
        pending = {} if scope is None else scope.pending
        for key, entry in list(pending.items()):
            call = entry.call
            if layer is None or (call.layer is layer and call.scope != but):
                del pending[key]
                self._outputs.settle(entry)

    def scaled(self, losses: Any, scale: float) -> None:
        """A GradScaler has scaled losses: the passes that go through them are scaled by that."""

        def tell(gradient: torch.Tensor) -> None:
            passing = BACKWARD.passing(gradient)
            if passing is not None:
                passing.is_scaled(scale)
            else:
                listener.scaled_by_hand()

        listener = self._listener
        for loss in tensors_of(losses):
            if loss.requires_grad:
                self._others.append(loss.register_hook(tell))

    def backward_begins(self, began: float) -> None:
        """A backward pass begins; `began` is when that was seen."""
        self.clock.since(began)
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
        began = perf_counter()
        return self.watch.apply(func, args, kwargs or {}, began)


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


def _is_no_function() -> bool:
    """Whether no autograd Function is running, which may compute everything once more."""
    return autograd_function() is None
