"""Hooks of parameters, which a backward pass calls with their gradients."""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from time import perf_counter

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gradiometer.recording.adapters.torch.backward import BACKWARD
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.adapters.torch.plan import Plan

_Hooked = tuple[torch.Tensor, RemovableHandle]


class ParameterHooks:
    """Tells of the gradients of a model's weights, as computed and as accumulated.

    Parameters
    ----------
    plan : Plan
    measuring : Measuring
        Is told of them.
    """

    def __init__(self, plan: Plan, measuring: Measuring) -> None:
        self._plan, self._measuring, self._clock = plan, measuring, plan.clock
        # by layer, or for a parameter that tells of its pass alone, by its identity
        self._accumulated: dict[Layer | int, _Hooked] = {}
        self._computed: dict[Layer, _Hooked] = {}

    def watch_weights(self) -> None:
        """Hook the weights that can have gradients, as they are now."""
        for layer in self._plan.layers:
            weight = layer.weight
            if weight is None or not weight.requires_grad:
                continue
            hooked = self._accumulated.get(layer)
            if hooked is None or hooked[0] is not weight:
                self._leave(layer)
                handle = weight.register_post_accumulate_grad_hook(partial(self._tell, (layer,)))
                self._accumulated[layer] = hooked = weight, handle
            # who clips in such a hook, or makes a step, is to come later
            put_first(weight._post_accumulate_grad_hooks, hooked[1].id)
            if weight._backward_hooks:
                self._watch_before_hooks(layer, weight)

    def _watch_before_hooks(self, layer: Layer, weight: torch.Tensor) -> None:
        """Hook a weight whose gradient may be changed by hooks before it is accumulated."""
        if layer not in self._computed:
            hook = partial(self._tell_computed, layer, weakref.ref(weight))
            self._computed[layer] = weight, weight.register_hook(hook)
        put_first(weight._backward_hooks, self._computed[layer][1].id)

    def watch_others(self, tells: Callable[[nn.Module], bool]) -> None:
        """Hook the parameters of modules that tell nothing else of a backward pass.

        So that no pass is taken for another model's; all parameters, if their norm is wanted.
        """
        hooked = {id(weight) for weight, _ in self._accumulated.values()}
        for module in self._plan.model.modules():
            mine = [parameter for parameter in module._parameters.values() if parameter is not None]
            told = tells(module) or any(id(parameter) in hooked for parameter in mine)
            if told and not self._plan.wants("grad_norm"):
                continue
            for parameter in mine:
                known = id(parameter) in self._accumulated or id(parameter) in hooked
                if parameter.requires_grad and not known:
                    handle = parameter.register_post_accumulate_grad_hook(partial(self._tell, ()))
                    self._accumulated[id(parameter)] = parameter, handle

    def leave(self) -> None:
        """Remove all hooks."""
        for key in list(self._accumulated):
            self._leave(key)

    def _leave(self, key: Layer | int) -> None:
        hooked = [self._accumulated.pop(key, None)]
        if isinstance(key, Layer):
            hooked.append(self._computed.pop(key, None))
        for entry in hooked:
            if entry is not None:
                entry[1].remove()

    # --- hooks ------------------------------------------------------------------------------------

    def _tell(self, layers: Sequence[Layer], parameter: torch.Tensor) -> None:
        """A gradient has been accumulated, and is still at hand."""
        began = perf_counter()
        with torch._C.DisableTorchFunction():
            gradient = parameter.grad
            if gradient is not None:
                hooks = parameter._backward_hooks
                hooked = bool(hooks) and len(hooks) > any(one in self._computed for one in layers)
                passing = BACKWARD.passing(gradient)
                self._measuring.gradient(layers, parameter, gradient, passing, hooked)
        self._clock.arrived(began)

    def _tell_computed(
        self,
        layer: Layer,
        parameter: weakref.ref[torch.Tensor],
        gradient: torch.Tensor,
    ) -> None:
        """A gradient was computed, before other hooks of its parameter may change it."""
        began = perf_counter()
        weight = parameter()
        others = weight is not None and len(weight._backward_hooks or ()) > 1
        if others and BACKWARD.passing(gradient) is not None:
            with torch._C.DisableTorchFunction():
                self._measuring.computed(layer, gradient)
            self._clock.arrived(began)


def put_first(hooks: MutableMapping[int, object], own: int) -> None:
    """Have a hook called before all others, which keep their order.

    PyTorch goes through them in the order of the plain dict, which `move_to_end` leaves as it is.
    So the others are put in anew; at once, so that an interrupt finds either order.
    """
    others = [key for key in hooks if key != own]
    if others and next(iter(hooks)) != own:
        anew = map(hooks.__setitem__, others, map(hooks.pop, others))
        collections.deque(anew, maxlen=0)
