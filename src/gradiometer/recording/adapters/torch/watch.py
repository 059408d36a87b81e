"""Watching a PyTorch model: forward and backward passes, and the gradients of its parameters.

Nothing is written onto the modules: PyTorch's global hooks are used, so that a model can be copied
and pickled while it is watched. Everything is undone by `stop`.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gradiometer.recording.adapters.torch.backward import BACKWARD, Observer
from gradiometer.recording.adapters.torch.chains import Chains
from gradiometer.recording.adapters.torch.followed import tensors_of
from gradiometer.recording.adapters.torch.forward import MODULE_CALLS, Forward
from gradiometer.recording.adapters.torch.measuring import Measuring
from gradiometer.recording.adapters.torch.modules import Modules
from gradiometer.recording.adapters.torch.parameter_hooks import ParameterHooks
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.shared import Shared


class Watch(Observer):
    """Has a model measured between `start` and `stop`.

    Parameters
    ----------
    plan : Plan
    measuring : Measuring
        Is told of what is seen.
    chains : Chains
    """

    def __init__(self, plan: Plan, measuring: Measuring, chains: Chains) -> None:
        self._plan, self._measuring, self._clock = plan, measuring, plan.clock
        self._chains = chains
        self.modules = Modules(plan)
        self.forward = Forward(plan, self.modules, measuring, chains)
        self._parameters = ParameterHooks(plan, measuring)
        self._scaled: list[RemovableHandle] = []  # hooks of losses
        self._home = 0  # the thread that began to watch
        self._undo: contextlib.ExitStack | None = None
        self._module_calls = contextlib.ExitStack()
        self._is_eager = False

    def start(self) -> None:
        """Begin to watch."""
        if self._undo is not None:
            self._run_eagerly(self._undo)
            return
        self._undo = undo = contextlib.ExitStack()
        self._is_eager = False
        self._home = threading.get_ident()
        undo.callback(self._module_calls.close)
        if self._plan.wants_calls or not self.forward.order:
            MODULE_CALLS.join(self.forward, self._module_calls)
        BACKWARD.join(self, undo)
        self._parameters.watch_weights()
        self._parameters.watch_others(self._tells_of_deltas)
        undo.callback(self._parameters.leave)
        self._run_eagerly(undo)
        # about hooks that are called for the wrapper too, which is no layer
        if self.modules.is_wrapped or "torch._dynamo" in sys.modules:
            undo.enter_context(_without_warning("Using `torch.compile"))

    def _tells_of_deltas(self, module: nn.Module) -> bool:
        layers = self.modules.layers[id(module)]
        return self._plan.wants_calls and any(layer.unit for layer in layers)

    def _run_eagerly(self, undo: contextlib.ExitStack) -> None:
        # Compiled code would not call the hooks: what is watched runs eagerly. (What was compiled
        # is kept for the steps that are not.)
        if not self._is_eager and "torch._dynamo" in sys.modules:
            EAGER.join(self, undo)
            self._is_eager = True

    def end_step(self) -> None:
        """Forget what is left of a step; no tensor is kept."""
        self._chains.forget()
        self._scaled = [handle for handle in self._scaled if handle.hooks_dict_ref() is not None]
        self.forward.end_step()
        # the order of the layers may be all that was needed of the modules
        if self.forward.order and not self._plan.wants_calls:
            self._module_calls.close()

    def stop(self) -> None:
        """Undo everything; no hook stays behind."""
        self.end_step()
        self.forward.stop()
        for handle in self._scaled:
            handle.remove()
        self._scaled = []
        if self._undo is not None:
            self._undo.close()
            self._undo = None

    # --- backward passes --------------------------------------------------------------------------

    def backward_begins(self, began: float) -> None:
        """A backward pass begins; `began` is when that was seen."""
        self._clock.since(began)
        with self._clock:
            if self._is_concerned:
                self.forward.settle()
                self._parameters.watch_weights()  # some may be replaced, or be trained only now
                self._measuring.backward_begins()

    def backward_ends(self) -> None:
        """It has ended."""
        with self._clock:
            if self._is_concerned:
                self.forward.settle()
                self._measuring.backward_ends()

    def settle(self) -> None:
        """What has been computed until now is computed."""
        self.forward.settle()

    @property
    def _is_concerned(self) -> bool:
        """Whether this thread trains the model.

        If not, its parameters must be left alone: a backward pass in the thread that does may just
        write their gradients.
        """
        return threading.get_ident() == self._home or self.forward.is_here

    def scaled(self, losses: Any, scale: float) -> None:
        """A GradScaler has scaled losses: the passes that go through them are scaled by that."""

        def tell(gradient: torch.Tensor) -> None:
            passing = BACKWARD.passing(gradient)
            if passing is not None:
                passing.is_scaled(scale)
            else:
                measuring.scaled_by_hand()

        measuring = self._measuring
        for loss in tensors_of(losses):
            if loss.requires_grad:
                self._scaled.append(loss.register_hook(tell))


# for whom nothing runs compiled
EAGER = Shared(lambda undo: undo.enter_context(torch.compiler.set_stance("force_eager")))


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
