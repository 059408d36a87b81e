"""The way of the delta between two layers: what is measured of it on request, and where.

What arrives at φ(h), and the delta at φ's input, are seen by hooks of these tensors; what a layer
that is no product with a matrix passes to its input, by a hook of its node in the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, cast

import torch
from torch.utils.hooks import RemovableHandle

from gradiometer.arrays import Numbers, entries, where_true
from gradiometer.quantities import zero_units
from gradiometer.recording.adapters.torch.arrays import Array, as_array
from gradiometer.recording.adapters.torch.backward import BACKWARD, Pass
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.assembly import Measured
from gradiometer.recording.functions import IDENTITY
from gradiometer.recording.measure import of_entries
from gradiometer.reductions import rms

# operations, by the names of their nodes, whose first operand is what their layer is given
_NODES = ("Convolution", "BatchNorm", "LayerNorm", "GroupNorm", "RmsNorm", "RMSNorm")


class Hooks:
    """Hooks of what calls of layers gave; they are removed when nothing can come any more."""

    def __init__(self) -> None:
        self._all: list[tuple[RemovableHandle, Call]] = []

    def add(self, handle: RemovableHandle, call: Call) -> None:
        """Keep a hook, and the call it is of."""
        self._all.append((handle, call))

    def end_step(self) -> None:
        """Remove those that a delta has reached, and forget those whose graph has gone."""
        # what is not trained yet may be in a later step, if its graph is still there
        waiting = []
        for handle, call in self._all:
            if call.deltas:
                handle.remove()
            elif (hooks := handle.hooks_dict_ref()) is not None and handle.id in hooks:
                waiting.append((handle, call))
        self._all = waiting

    def stop(self) -> None:
        """Remove all."""
        for handle, _ in self._all:
            handle.remove()
        self._all = []


class Way:
    """Measures the delta between two layers.

    Parameters
    ----------
    plan : Plan
    measuring : Measuring
        Knows which calls belong to the step that is being recorded.
    hooks : Hooks
    """

    def __init__(self, plan: Plan, measuring: Measuring, hooks: Hooks) -> None:
        self._measuring, self._hooks, self._clock = measuring, hooks, plan.clock
        self._wanted = plan.wanted
        self._affine, self._phi = plan.fetches("affine_delta"), plan.fetches("phi_delta")
        self._arriving, self._of_live = plan.fetches("arriving"), plan.wants("arriving_live_rms")
        self._back = plan.wants("backward_rms")
        self._any = self._affine or self._phi or self._arriving

    # --- forward ----------------------------------------------------------------------------------

    def called(self, call: Call, given: Any, h: torch.Tensor) -> None:
        """A layer gave h; see what it passes to its input, if W^T delta does not tell."""
        node = h.grad_fn
        if not self._back or call.layer.is_linear or node is None:
            return
        first = node.next_functions[0][0] if node.next_functions else None
        of_kind = any(kind in node.name() for kind in _NODES)
        # the input itself, and not something that the layer has made of it, such as padded
        itself = isinstance(given, torch.Tensor) and first is given.grad_fn
        if of_kind and first is not None and itself:
            self._hooks.add(node.register_hook(partial(self._came_to_input, call)), call)

    def applied(
        self, call: Call, given: torch.Tensor | None, x: Any, *, direct: bool, moved: bool
    ) -> None:
        """A function was applied to h of a call, or to h after a normalisation, and gave x."""
        if not (self._arriving or self._phi) or not isinstance(x, torch.Tensor):
            return
        call.direct = direct
        if not x.requires_grad:
            return
        if self._of_live and not moved and x.numel():
            call.zero = zero_units(as_array(x) == 0, 0, _axis(call, x))
        if not direct and given is not None and given is not x and given.requires_grad:
            self._watch(call, given, self._came_to_phi)
        if self._arriving:
            self._watch(call, x, self._came_to_output)

    def overwrites(self, call: Call, given: torch.Tensor | None) -> None:
        """A function is about to be applied in place to h of a call after a normalisation."""
        if (self._arriving or self._phi) and given is not None and given.requires_grad:
            self._watch(call, given, self._came_to_phi)

    def _watch(
        self, call: Call, tensor: torch.Tensor, came: Callable[[Call, torch.Tensor, Pass], None]
    ) -> None:
        def hook(delta: torch.Tensor) -> None:
            began = perf_counter()
            passing = BACKWARD.passing(delta)
            if passing is not None and self._measuring.takes(call) and delta.numel():
                with torch._C.DisableTorchFunction():
                    came(call, delta, passing)
            self._clock.arrived(began)

        self._hooks.add(tensor.register_hook(hook), call)

    # --- backward ---------------------------------------------------------------------------------

    def delta(self, call: Call, delta: torch.Tensor, passing: Pass) -> None:
        """dL/dh of a call has come, and was measured."""
        if not self._any or not call.deltas or not delta.numel():
            return
        if self._affine:
            self._keep(call, "affine_delta", delta, passing)
        if call.direct or call.function == IDENTITY:
            self._came_to_phi(call, delta, passing)
        if call.function == IDENTITY and self._arriving:
            self._keep(call, "arriving", delta, passing)
            found = call.way["arriving"].found  # a unit that is zero and passes no delta adds none
            if self._of_live:
                of_all = rms(entries(as_array(delta), None))
                found |= self._measuring.scaled({"arriving_live_rms": of_all}, passing)

    def _came_to_output(self, call: Call, delta: torch.Tensor, passing: Pass) -> None:
        self._keep(call, "arriving", delta, passing)
        if call.zero is not None:
            by_units = delta.detach().movedim(_axis(call, delta), 0).flatten(1)
            call.of_units = cast(Array, rms(as_array(by_units)))

    def _came_to_phi(self, call: Call, delta: torch.Tensor, passing: Pass) -> None:
        if self._phi:
            self._keep(call, "phi_delta", delta, passing)
        arriving = call.way.get("arriving")
        if arriving is None or call.zero is None or call.of_units is None:
            return
        dead = call.zero & zero_units(as_array(delta) == 0, 0, _axis(call, delta))
        of_live: Numbers = rms(where_true(~dead, call.of_units))
        arriving.found |= self._measuring.scaled({"arriving_live_rms": of_live}, passing)

    def _came_to_input(self, call: Call, given: Any, _: Any) -> None:
        began = perf_counter()
        delta = given[0]
        passing = None if delta is None else BACKWARD.passing(delta)
        if passing is not None and self._measuring.takes(call):
            with torch._C.DisableTorchFunction():
                found: dict[str, Numbers] = {"backward_rms": rms(entries(as_array(delta), None))}
                found = self._measuring.scaled(found, passing)
                call.way["backward"] = Measured(found, size=delta.numel())
        self._clock.arrived(began)

    def _keep(self, call: Call, array: str, delta: torch.Tensor, passing: Pass) -> None:
        found = of_entries(array, as_array(delta), self._wanted, None)
        call.way[array] = Measured(self._measuring.scaled(found, passing), size=delta.numel())


def _axis(call: Call, tensor: torch.Tensor) -> int:
    assert call.layer.unit is not None
    return call.layer.unit(call.layer.output, tensor)
