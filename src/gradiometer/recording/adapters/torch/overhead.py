"""What recording takes beside what its own code does: a part that no clock within it sees.

A module with hooks is called in another way than one without; each function that is announced to a
mode, and each gradient that is announced to a hook, takes a way through Python; and what was
measured has pushed the training's own numbers out of the processor's caches. The calls are counted,
and what one takes is measured once per process, on a small net.
"""

from __future__ import annotations

import contextlib
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
    """A small net that is trained while something of it is announced to hooks.

    Parameters
    ----------
    announced : str
        "nothing", "modules", "functions", "gradients"; or "numbers", which are measured.

    Attributes
    ----------
    times, spent : list of float
        Of each round: seconds it took but for the hooks' own code, and seconds spent in that.
    """

    def __init__(self, announced: str) -> None:
        settings: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
        self._x = torch.ones(32, _WIDTH, **settings)
        self._layers = [nn.Linear(_WIDTH, _WIDTH, **settings) for _ in range(_DEPTH)]
        self._announced = announced
        self._hooks = 0.0  # seconds in this round
        self.times, self.spent = list[float](), list[float]()
        for layer in self._layers:
            if announced == "modules":
                layer.register_forward_pre_hook(self._timed(_nothing))
                layer.register_forward_hook(self._timed(_nothing), always_call=True)
            elif announced == "numbers":
                layer.weight.register_post_accumulate_grad_hook(self._timed(_measure_gradient))

    def _timed(self, do: Callable[..., object]) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            began = perf_counter()
            do(*args)
            self._hooks += perf_counter() - began

        return hook

    def run(self) -> None:
        """Go forward and backward once."""
        self._hooks, began = 0.0, perf_counter()
        with _Passing() if self._announced == "functions" else contextlib.nullcontext():
            h = self._forward()
        # by the engine itself: nobody is told of it as of a backward pass
        torch.autograd.Variable._execution_engine.run_backward(
            (h,), (torch.ones_like(h),), False, False, (),
            allow_unreachable=True, accumulate_grad=True,
        )  # fmt: skip
        self.times.append(perf_counter() - began - self._hooks)
        self.spent.append(self._hooks)
        for layer in self._layers:
            layer.weight.grad = layer.bias.grad = None

    def _forward(self) -> torch.Tensor:
        h = self._x
        for layer in self._layers:
            h = layer(h)
            if self._announced == "gradients":
                self._timed(h.register_hook)(self._timed(_nothing))
            h = torch.relu(h)
            if self._announced == "numbers":
                self._timed(_measure_activation)(h)
        return h


def _nothing(*_: Any) -> None:
    """Do nothing, which takes time too."""


def _measure_activation(h: torch.Tensor) -> None:
    array = as_array(h)
    of_activation(array, array == 0, _ALL, {}, None)


def _measure_gradient(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    of_gradient(as_array(parameter.grad), _ALL, {}, None)


class _Passing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _measured() -> Costs:
    kinds = ("nothing", "modules", "functions", "gradients", "numbers")
    trials = {announced: _Trial(announced) for announced in kinds}
    for _ in range(_ROUNDS):  # in turns, so that whatever else the machine does meets all alike
        for trial in trials.values():
            trial.run()

    def more(announced: str) -> float:
        return max(0.0, _typical(trials[announced].times) - _typical(trials["nothing"].times))

    return Costs(
        more("modules") / _DEPTH,
        more("functions") / (2 * _DEPTH),
        more("gradients") / _DEPTH,
        min(1.0, more("numbers") / _typical(trials["numbers"].spent)),
    )


def _typical(times: list[float]) -> float:
    """Below the median: what disturbs a measurement makes it longer."""
    return statistics.quantiles(times, n=10)[2]
