"""What it takes PyTorch to call hooks, beside what these do themselves.

No clock within a hook can see that: a module with hooks is called in another way than one without,
and each function that is announced to a mode takes a way through Python. So these calls are
counted, and what one takes is measured once, on something small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gradlab.recording.clock import Clock


class Dispatches(Clock):
    """Counts the time that recording takes, that which PyTorch needs to call hooks included.

    Attributes
    ----------
    modules, functions, hooks : int
        Calls of modules, of functions, and of hooks for gradients that were announced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modules = self.functions = self.hooks = 0

    @property
    def total(self) -> float:
        """What it has counted, in seconds."""
        if not (self.modules or self.functions or self.hooks):
            return self.seconds
        each = costs()
        calls = self.modules * each.module + self.functions * each.function
        return self.seconds + calls + self.hooks * each.hook

    def entered(self, began: float) -> None:
        """Count a module's call, and the time from `began` until now."""
        self.modules += 1
        self.since(began)

    def arrived(self, began: float) -> None:
        """Count a hook for a gradient, and the time from `began` until now."""
        self.hooks += 1
        self.since(began)


class Costs(NamedTuple):
    """Seconds that PyTorch takes to announce the call of a module, a function, a gradient."""

    module: float
    function: float
    hook: float


@functools.cache
def costs() -> Costs:
    """Measured when it is first asked for; takes some milliseconds."""
    with torch.random.fork_rng([]), torch.enable_grad(), torch._C.DisableTorchFunction():
        return Costs(_of_a_module(), _of_a_function(), _of_a_hook())


_CALLS, _ROUNDS = 64, 9


def _least(run: Callable[[], Any]) -> float:
    """Seconds per call: of several rounds the least, which others disturbed least."""
    rounds = []
    for _ in range(_ROUNDS):
        began = perf_counter()
        for _ in range(_CALLS):
            run()
        rounds.append((perf_counter() - began) / _CALLS)
    return min(rounds)


def _difference(watched: Callable[[], Any], plain: Callable[[], Any]) -> float:
    plain()
    watched()
    return max(0.0, _least(watched) - _least(plain))


def _of_a_module() -> float:
    one, other = nn.Identity(), nn.Identity()
    watched, plain = functools.partial(one, None), functools.partial(other, None)
    one.register_forward_pre_hook(lambda *_: None)
    one.register_forward_hook(lambda *_: None, always_call=True)
    return _difference(watched, plain)


class _Quiet(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _of_a_function() -> float:
    tensor = torch.zeros(1)

    def plain() -> None:
        torch.relu(tensor)

    def watched() -> None:
        with mode:
            for _ in range(_CALLS):
                torch.relu(tensor)

    mode = _Quiet()
    return max(0.0, _least(watched) / _CALLS - _least(plain))


def _of_a_hook() -> float:
    run = torch.autograd.Variable._execution_engine.run_backward

    def chain(hooked: bool) -> torch.Tensor:
        tensor = torch.zeros(1, requires_grad=True)
        h = tensor
        for _ in range(_CALLS):
            h = h + 1
            if hooked:
                h.register_hook(lambda _: None)
        return h

    def through(end: torch.Tensor) -> None:
        run((end,), (torch.ones(1),), True, False, (), True, accumulate_grad=False)

    return 0.0
