"""What recording takes beside what its own code does: a part that no clock within it sees.

A module with hooks is called in another way than one without; each function that is announced to a
mode, and each gradient that is announced to a hook, takes a way through Python; and what was
measured has pushed the training's own numbers out of the processor's caches. The calls are counted,
and what one takes is measured once per process, on a small net.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gradiometer.quantities import PER_LAYER
from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.clock import Clock
from gradiometer.recording.measure import of_activation, of_gradient


class Overhead(Clock):
    """Counts the time that recording takes, with what PyTorch needs to announce things to it.

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
        """Seconds that recording took."""
        if not self.seconds:
            return 0.0
        each = costs()
        calls = self.modules * each.module + self.functions * each.function
        return self.seconds * (1 + each.after) + calls + self.hooks * each.hook

    def entered(self, began: float) -> None:
        """Count a module's call, and the time from `began` until now."""
        self.modules += 1
        self.since(began)

    def applied(self, began: float) -> None:
        """Count a function's call, and the time from `began` until now."""
        self.functions += 1
        self.since(began)

    def arrived(self, began: float) -> None:
        """Count a hook for a gradient, and the time from `began` until now."""
        self.hooks += 1
        self.since(began)


class Costs(NamedTuple):
    """What comes on top of the time that hooks spend in their own code.

    Attributes
    ----------
    module, function, hook : float
        Seconds it takes to announce the call of a module, of a function, a gradient.
    after : float
        By how much longer the training takes after a second was spent on measuring, in seconds.
    """

    module: float
    function: float
    hook: float
    after: float


@functools.cache
def costs() -> Costs:
    """Measured when it is first asked for, which takes less than a tenth of a second."""
    with (
        torch.random.fork_rng([]),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
    ):
        return _measured()


_DEPTH, _WIDTH, _ROUNDS = 4, 64, 30
_ALL = frozenset(PER_LAYER)


class _Trial:
    """A small net that is trained, and what its hooks spend in their own code."""

    def __init__(self, mode: TorchFunctionMode | None = None) -> None:
        self.layers = [
            nn.Linear(_WIDTH, _WIDTH, device="cpu", dtype=torch.float32) for _ in range(_DEPTH)
        ]
        self._x = torch.ones(32, _WIDTH, device="cpu", dtype=torch.float32)
        self._mode = mode
        self.looks = False
        self.hook: Callable[[torch.Tensor], None] | None = None
        self.spent, self.times = 0.0, list[float]()

    def run(self) -> None:
        """Go forward and backward once."""
        self.spent, began = 0.0, perf_counter()
        if self._mode is None:
            h = self._forward()
        else:
            with self._mode:
                h = self._forward()
        # by the engine itself: nobody is told of it as of a backward pass
        torch.autograd.Variable._execution_engine.run_backward(
            (h,), (torch.ones_like(h),), False, False, (),
            allow_unreachable=True, accumulate_grad=True,
        )  # fmt: skip
        self.times.append(perf_counter() - began - self.spent)
        for layer in self.layers:
            layer.weight.grad = layer.bias.grad = None

    def _forward(self) -> torch.Tensor:
        h = self._x
        for layer in self.layers:
            h = layer(h)
            if self.hook is not None:
                began = perf_counter()
                h.register_hook(self.hook)
                self.spent += perf_counter() - began
            h = torch.relu(h)
            if self.looks:
                self._look(h)
        return h

    def _look(self, h: torch.Tensor) -> None:
        """Measure an activation as a recorder does."""
        began = perf_counter()
        array = as_array(h)
        of_activation(array, array == 0, _ALL, {}, None)
        self.spent += perf_counter() - began

    def nothing(self, *_: Any) -> None:
        """Do nothing, which takes time too."""
        began = perf_counter()
        self.spent += perf_counter() - began

    def measure(self, parameter: torch.Tensor) -> None:
        """Measure a gradient as a recorder does."""
        began = perf_counter()
        of_gradient(as_array(parameter.grad), _ALL, {}, None)
        self.spent += perf_counter() - began


class _Quiet(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _measured() -> Costs:
    plain, modules, hooks, numbers = _Trial(), _Trial(), _Trial(), _Trial()
    functions = _Trial(_Quiet())
    for layer in modules.layers:
        layer.register_forward_pre_hook(modules.nothing)
        layer.register_forward_hook(modules.nothing, always_call=True)
    hooks.hook, numbers.looks = hooks.nothing, True
    for layer in numbers.layers:
        layer.weight.register_post_accumulate_grad_hook(numbers.measure)
    spent = []
    for _ in range(_ROUNDS):  # in turns, so that whatever else the machine does meets all alike
        for trial in (plain, modules, functions, hooks, numbers):
            trial.run()
        spent.append(numbers.spent)

    def more(trial: _Trial) -> float:
        return max(0.0, _typical(trial.times) - _typical(plain.times))

    return Costs(
        more(modules) / _DEPTH,
        more(functions) / (2 * _DEPTH),
        more(hooks) / _DEPTH,
        min(1.0, more(numbers) / _typical(spent)),
    )


def _typical(times: list[float]) -> float:
    """Below the median: what disturbs a measurement makes it longer."""
    return statistics.quantiles(times, n=10)[2]
