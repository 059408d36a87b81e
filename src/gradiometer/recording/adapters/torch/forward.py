"""Forward passes: which layers are called, and what becomes of their outputs.

Functions are seen by a mode of PyTorch in which every call is announced. That costs time, so it is
left out once a pass has shown that all activation functions are modules.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
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

from gradiometer.recording.adapters.torch.activations import UNSEEN, Activations, autograd_function
from gradiometer.recording.adapters.torch.arrays import can_be_measured
from gradiometer.recording.adapters.torch.backward import BACKWARD
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.chains import Chains
from gradiometer.recording.adapters.torch.deferred import ForwardPass, PassHistory
from gradiometer.recording.adapters.torch.fans import WeightUses
from gradiometer.recording.adapters.torch.followed import Followed, tensors_of
from gradiometer.recording.adapters.torch.layers import REPLACED, Layer
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.adapters.torch.modules import Modules
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.shared import Shared
from gradiometer.recording.adapters.torch.way import Hooks, Way


class Scope(Followed):
    """What a thread is in the middle of."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0  # of calls of the model's modules
        self.number = 0  # of the forward pass
        self.training = True  # of the module that began it
        self.whole = False  # whether it began with the model's own forward, so that all is seen
        self.gradients = True  # whether it began with gradients enabled
        self.this = ForwardPass()
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


class Forward:
    """Watches the forward passes of a model, in any thread.

    Parameters
    ----------
    plan : Plan
    modules : Modules
    measuring : Measuring
        Is told of calls and activations, and of the deltas that come back through them.
    chains : Chains

    Attributes
    ----------
    order : dict of Layer
        As they were first called.
    uses : WeightUses
        By which products weights are used of which no module's call tells, in the first step.
    """

    def __init__(self, plan: Plan, modules: Modules, measuring: Measuring, chains: Chains) -> None:
        self._modules, self._measuring, self._clock = modules, measuring, plan.clock
        self._wants_activations, self._wants_calls = plan.wants_activations, plan.wants_calls
        self._chains = chains
        self._history = PassHistory()
        self._hooks = Hooks()
        self._way = Way(plan, measuring, self._hooks)
        self._activations = Activations(measuring, self._way)
        self._scopes: dict[int, Scope] = {}  # by thread
        self._passes = 0
        self._reference_calls: list[Call] | None = None  # at a reference batch
        self._looks = True  # whether functions must be looked for
        self._others: list[RemovableHandle] = []  # of passes that are not watched
        self.order: dict[Layer, None] = {}
        self.uses = WeightUses(
            [
                (layer, weight)
                for layer in plan.layers
                if layer.unit is None and (weight := layer.weight) is not None
            ]
        )

    @property
    def scope(self) -> Scope:
        """What this thread is in the middle of."""
        thread = threading.get_ident()
        scope = self._scopes.get(thread)
        if scope is None:
            scope = self._scopes[thread] = Scope()
        return scope

    @property
    def is_here(self) -> bool:
        """Whether this thread has run the model."""
        return threading.get_ident() in self._scopes

    def end_step(self) -> None:
        """Forget what is left of a step; no tensor is kept."""
        self._hooks.end_step()
        self._others = [handle for handle in self._others if handle.hooks_dict_ref() is not None]
        self.scope.leave_mode()
        self._scopes = {}
        if self.order:
            self.uses.end()
            if not self._activations.found_one:  # all activation functions are modules
                self._looks = False

    def stop(self) -> None:
        """Remove the hooks of outputs."""
        self.end_step()
        self._hooks.stop()
        for handle in self._others:
            handle.remove()
        self._others = []

    @contextlib.contextmanager
    def reference(self) -> Iterator[list[Call]]:
        """Give the calls that are made meanwhile, and count nothing as training."""
        calls: list[Call] = []
        self._reference_calls, self._activations.on_reference = calls, True
        scopes, self._scopes = self._scopes, {}
        try:
            with contextlib.ExitStack() as undo:
                if self not in MODULE_CALLS.members:  # nothing of the training's passes is needed
                    MODULE_CALLS.join(self, undo)
                yield calls
                self.settle()
        finally:
            self._reference_calls, self._activations.on_reference = None, False
            self.scope.leave_mode()
            self._scopes = scopes

    # --- modules ----------------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        layers = self._modules.layers.get(id(module))
        if layers is None:
            return
        began = perf_counter()
        scope = self.scope
        scope.depth += 1
        if scope.depth == 1:
            self._open(scope, module)
        if scope.links and args and not scope.this.unwatched:
            with torch._C.DisableTorchFunction():
                is_layer = bool(layers) or id(module) in self._modules.left_out
                self._activations.handed(scope, module, args[0], is_layer)
        self._clock.entered(began)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Its call has ended; without an output if it failed."""
        layers = self._modules.layers.get(id(module))
        if layers is None:
            return
        scope = self.scope
        unwatched = scope.this.unwatched
        if unwatched and scope.depth > 1:
            scope.depth -= 1
            return
        began = perf_counter()
        if module_left_out := self._modules.left_out.get(id(module)):
            self._note(module_left_out, output)
        if unwatched:
            self._end_unwatched(scope, output)
        elif scope.running or layers:
            with torch._C.DisableTorchFunction():
                self._activations.left(scope, module, output)
                if layers and output is not None:
                    self._called(scope, layers, args, output)
        elif isinstance(output, torch.Tensor):
            self._modules.computed(module, output)
        scope.depth -= 1
        if scope.depth <= 0:
            scope.depth = 0
            self._close(scope, output)
        self._clock.since(began)

    def _open(self, scope: Scope, module: nn.Module) -> None:
        """Begin a pass: the outermost call of one of the model's modules."""
        self._passes += 1
        scope.number, scope.whole = self._passes, id(module) in self._modules.wholes
        scope.training, scope.gradients = module.training, torch.is_grad_enabled()
        if self._reference_calls is not None or BACKWARD.inside() is not None:
            scope.this = ForwardPass()  # what a checkpoint computes again is not one more pass
        elif scope.gradients:
            scope.this = self._history.begin(module.training)
        else:
            scope.this = self._history.begin_without_gradients()
        if scope.this.unwatched:
            return
        if getattr(DistributedDataParallel, "_active_ddp_module", None) is not None:
            self._measuring.averaged()
        wanted = self._wants_activations or self._reference_calls is not None
        if (wanted and self._looks) or self.uses:
            scope.mode = _Functions(self)
            scope.mode.__enter__()

    def _close(self, scope: Scope, output: Any) -> None:
        looked = scope.mode is not None
        scope.leave_mode()
        scope.running = {}
        # what was called from outside the model may yet be handed to one of its activation modules
        if scope.whole and scope.pending:
            self._check_taken(scope, output, looked)
            self.settle()
        if scope.whole:
            scope.links = {}
        if scope.gradients and self._reference_calls is None and BACKWARD.inside() is None:
            self._history.end(scope.training, scope.this)
        scope.this = ForwardPass()

    def _end_unwatched(self, scope: Scope, output: Any) -> None:
        """A pass of which nothing was watched is over: see whether it is trained after all."""
        scope.this = ForwardPass()
        with torch._C.DisableTorchFunction():
            for tensor in tensors_of(output):
                if tensor.requires_grad:
                    hook = partial(self._unwatched, not scope.gradients)
                    self._others.append(tensor.register_hook(hook))

    def _unwatched(self, without_gradients: bool, gradient: torch.Tensor) -> None:
        """The gradient of what a pass gave of which nothing was watched."""
        if BACKWARD.passing(gradient) is not None:
            self._history.was_trained(without_gradients)
            self._measuring.unwatched()

    def _check_taken(self, scope: Scope, output: Any, looked: bool) -> None:
        """Layers' outputs that nothing seen took, and that are not the model's either."""
        links = [scope.link(tensor) for tensor in tensors_of(output)]
        given = {id(link.entry) for link in links if link is not None}
        for entry in scope.pending.values():
            if id(entry) in given or entry.h is None:
                continue
            self._activations.found_one = True  # without a look, it can't be told what took it
            if not looked:
                why = "it went into a function, where it had not before"
                self._activations.refuse(entry, why)
                self._looks = True
            elif not (entry.seen or entry.changed):
                hidden = f": {entry.hidden}" if entry.hidden else ""
                self._activations.refuse(entry, UNSEEN + hidden)

    # --- layers -----------------------------------------------------------------------------------

    def _called(self, scope: Scope, layers: Sequence[Layer], args: Any, output: Any) -> None:
        h = output if isinstance(output, torch.Tensor) else next(tensors_of(output), None)
        for layer in layers:
            self.order.setdefault(layer)
        if h is None or not h.is_floating_point() or not h.numel():
            return
        without_gradients = not torch.is_grad_enabled()
        again = without_gradients and scope.gradients and autograd_function() is None
        if without_gradients and self._reference_calls is None and not again:
            return  # a look at validation data, or inside of what is computed again
        if not can_be_measured(h):
            self._measuring.miss(layers, "it was called by torch.func, or by a tracer")
            return
        for layer in layers:
            call = Call(layer, scope.number, h.requires_grad, without_gradients=without_gradients)
            self._watch(scope, call, args[0] if args else None, h)

    def _note(self, layers: Sequence[Layer], output: Any) -> None:
        """Note the place of layers that are not recorded."""
        if self._reference_calls is None and isinstance(output, torch.Tensor):
            for layer in layers:
                self.order.setdefault(layer)
                self._chains.note(layer, output)

    def _watch(self, scope: Scope, call: Call, given: Any, h: torch.Tensor) -> None:
        """Watch what becomes of a layer's output, forward and backward."""
        layer, looking = call.layer, self._reference_calls is not None
        # the place of one inside of which others are is not that of its module's output
        if not looking and not layer.holds_others and layer not in self.uses.found:
            self._chains.note(layer, h)
        if layer.unit is not None and "forward" in vars(layer.output):
            self._measuring.miss([layer], REPLACED)
            return
        if self._reference_calls is not None:
            self._reference_calls.append(call)
        else:
            self._measuring.called(call, given, h)
            if call.waits and self._wants_calls and layer.unit is not None:
                hook = partial(self._delta, call, scope.this)
                scope.this.latest = weakref.ref(hook)
                self._hooks.add(h.register_hook(hook), call)
                self._way.called(call, given, h)
        if (looking or self._wants_activations) and layer.unit is not None:
            if scope.pending:
                self.settle(layer, but=scope.number)
            self._activations.pend(scope, call, h, scope.whole, scope.this.deferred)

    def _delta(self, call: Call, this: ForwardPass, delta: torch.Tensor) -> None:
        """The delta of a layer's output has come."""
        began = perf_counter()
        # one that was asked for by torch.autograd.grad is no part of the training
        passing = BACKWARD.passing(delta)
        if passing is None:
            return
        with torch._C.DisableTorchFunction():
            if not this.reached:
                this.reached = True
                if this.deferred is not None:
                    this.deferred.deliver(self._measuring)
            self._measuring.delta(call, delta, passing)
            self._way.delta(call, delta, passing)
        self._clock.arrived(began)

    def settle(self, layer: Layer | None = None, but: int | None = None) -> None:
        """Nothing more will become of these outputs: of all layers, or of one in other passes."""
        scope = self._scopes.get(threading.get_ident())
        pending = {} if scope is None else scope.pending
        for key, entry in list(pending.items()):
            call = entry.call
            if layer is None or (call.layer is layer and call.number != but):
                del pending[key]
                self._activations.settle(entry)

    # --- functions --------------------------------------------------------------------------------

    def apply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], began: float) -> Any:
        """Call a function of PyTorch; note what it does with the outputs of layers."""
        scope = self.scope
        if self.uses and (layer := self.uses.look(func, args)) is not None:
            return self._product(layer, func, args, kwargs, began)
        if not scope.links:
            self._clock.applied(began)
            return func(*args, **kwargs)
        ended = self._activations.apply(scope, func, args, kwargs)
        self._clock.applied(began)
        x = func(*args, **kwargs)
        if ended is not None:
            with self._clock:
                ended(x)
        return x

    def _product(
        self, layer: Layer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], began: float
    ) -> Any:
        """Call a function that makes a product with a weight: there is the layer's place."""
        self.order.setdefault(layer)
        x = self.apply(func, args, kwargs, began)
        if isinstance(x, torch.Tensor) and self._reference_calls is None:
            self._chains.note(layer, x)
        return x


def _hook_modules(undo: contextlib.ExitStack) -> None:
    def enter(module: nn.Module, args: Any) -> None:
        for forward in MODULE_CALLS.members:
            forward.enter(module, args)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        for forward in MODULE_CALLS.members:
            forward.leave(module, args, output)

    undo.callback(register_module_forward_pre_hook(enter).remove)
    undo.callback(register_module_forward_hook(leave, always_call=True).remove)


# who watches the calls of modules
MODULE_CALLS = Shared(_hook_modules)


class _Functions(TorchFunctionMode):
    """Sees every function of PyTorch that is called while the model runs."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._forward = forward

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        began = perf_counter()
        return self._forward.apply(func, args, kwargs or {}, began)
