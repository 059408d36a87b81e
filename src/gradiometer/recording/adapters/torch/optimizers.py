"""Steps of optimizers: whose they are, and which of them belong together as one step."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from gradiometer.recording.adapters.torch.shared import Shared
from gradiometer.recording.adapters.torch.step import parameters_of


@dataclass(slots=True, eq=False)
class Update:
    """A call of an optimizer's `step` that has begun.

    Attributes
    ----------
    optimizer : Optimizer, or what holds one
    recorded : bool
        Whether its steps are recorded; or else it updates the model all the same.
    closure : bool
        Whether it computes gradients itself, by calling a function that it was given.
    passes : int
        How many backward passes there were when it began.
    wrapper : bool
        Whether PyTorch's own hooks do not tell of it.
    made : bool
        Whether an optimizer that it holds has made an update.
    """

    optimizer: Any
    recorded: bool
    closure: bool
    passes: int = 0
    wrapper: bool = False
    made: bool = False


class Updates:
    """Which optimizers' steps are recorded, and which are running.

    Parameters
    ----------
    given : sequence of Optimizer, or of what holds one
        Whose steps are recorded; any optimizer's that updates the model if there is none.
    model : nn.Module
    """

    def __init__(self, given: Sequence[Any], model: nn.Module) -> None:
        self.given = tuple(given)
        self._model = model
        self.running: list[Update] = []

    def begin(self, optimizer: Any, closure: bool, wrapper: bool = False) -> Update | None:
        """An optimizer's step begins; None if it does not concern the model."""
        recorded = not self.given or self.which(optimizer) is not None
        if not wrapper and (not recorded or not self.given) and not self.updates(optimizer):
            return None
        if self.running:  # one that has failed has not told of its end
            alive = set(map(id, _optimizers_in_the_stack()))
            self.running = [u for u in self.running if u.wrapper or id(u.optimizer) in alive]
        update = Update(optimizer, recorded, closure, wrapper=wrapper)
        self.running.append(update)
        return update

    def end(self, optimizer: Any) -> Update | None:
        """It has ended; None if it was not seen to begin."""
        for i in range(len(self.running) - 1, -1, -1):
            if self.running[i].optimizer is optimizer:
                update = self.running[i]
                del self.running[i:]
                return update
        return None

    def outer(self) -> Update | None:
        """The update of which the one that just ended is a part."""
        return next((update for update in reversed(self.running) if update.recorded), None)

    def which(self, optimizer: Any) -> Any:
        """The optimizer given that this one is, is held by, or holds."""
        for given in self.given:
            if given is optimizer:
                return given
        for given in self.given:
            if any(part is optimizer for part in held_by(given)) or any(
                part is given for part in held_by(optimizer)
            ):
                return given
        return None

    def updates(self, optimizer: Any) -> bool:
        """Whether it updates any parameter of the model."""
        mine = {id(parameter) for parameter in self._model.parameters()}
        return any(not mine.isdisjoint(parameters_of(part)) for part in parts_of(optimizer))

    def parameters_to_clear(self) -> list[nn.Parameter]:
        """Those whose gradients are cleared where a backward pass is thrown away."""
        parameters = list(self._model.parameters())
        if self.given:  # which do not clear the others
            parts = [part for given in self.given for part in parts_of(given)]
            owned = set().union(*map(parameters_of, parts))
            parameters = [parameter for parameter in parameters if id(parameter) in owned]
        return parameters


def held_by(holder: Any, depth: int = 3) -> Iterator[Optimizer]:
    """Optimizers that an object holds: what wraps one steps by it."""
    if not depth:
        return
    for value in list(getattr(holder, "__dict__", {}).values()):
        parts = value if isinstance(value, list | tuple) else (value,)
        for part in parts:
            if isinstance(part, Optimizer):
                yield part
                yield from held_by(part, depth - 1)


def parts_of(optimizer: Any) -> list[Any]:
    """An optimizer, and those that it holds: what has parameters to update."""
    parts = [optimizer, *held_by(optimizer)]
    return [part for part in parts if isinstance(getattr(part, "param_groups", None), list)]


def rates_of(optimizer: Any) -> frozenset[float]:
    """The learning rates of an optimizer's groups of parameters."""
    groups = getattr(optimizer, "param_groups", ())
    return frozenset(float(group["lr"]) for group in groups if "lr" in group)


def _optimizers_in_the_stack() -> Iterator[Any]:
    """Whose steps are running in this thread, by the frames of PyTorch's own wrapper of `step`."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == _FILE and "self" in frame.f_locals:
            yield frame.f_locals["self"]


_FILE: str = Optimizer.step.__code__.co_filename


def checked_optimizers(given: Any) -> tuple[Any, ...]:
    """What was given, one after the other.

    Raises
    ------
    TypeError
        If it is no optimizer, and holds none.
    """
    several = () if given is None else given if isinstance(given, list | tuple) else (given,)
    for optimizer in several:
        holds = callable(getattr(optimizer, "step", None)) and any(held_by(optimizer))
        if not isinstance(optimizer, Optimizer) and not holds:
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}; "
                "of others say where a step begins and ends: recorder.before_step(), "
                "recorder.after_step()"
            )
    return tuple(several)


# --- where they are seen --------------------------------------------------------------------------


class UpdateObserver(Protocol):
    """Who is told of the steps of optimizers, of any model."""

    def before_update(self, optimizer: Any, closure: bool, wrapper: bool = False) -> None:
        """A step begins; `wrapper` if it is of what holds an optimizer."""

    def after_update(self, optimizer: Any, failed: bool = False) -> None:
        """It has ended."""


def _hook_optimizers(undo: contextlib.ExitStack) -> None:
    def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        closure = has_closure(args[1:], kwargs)
        for observer in OPTIMIZERS.members:
            observer.before_update(optimizer, closure)

    def after(optimizer: Optimizer, *_: Any) -> None:
        for observer in OPTIMIZERS.members:
            observer.after_update(optimizer)

    undo.callback(register_optimizer_step_pre_hook(before).remove)
    undo.callback(register_optimizer_step_post_hook(after).remove)


# the UpdateObservers
OPTIMIZERS = Shared(_hook_optimizers)


def has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function is among the arguments of `step`."""
    return any(map(callable, args)) or any(map(callable, kwargs.values()))


def hook_wrapper(wrapper: Any, observer: UpdateObserver, undo: contextlib.ExitStack) -> None:
    """Tell of the steps of what holds an optimizer, or of one of which PyTorch does not tell.

    PyTorch puts its hooks into `Optimizer.__init__`, which these do not call.
    """
    if getattr(type(wrapper).step, "hooked", False):
        return
    own = vars(wrapper).get("step")  # by a scheduler, say
    original = wrapper.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        observer.before_update(wrapper, has_closure(args, kwargs), wrapper=True)
        failed = True
        try:
            result = original(*args, **kwargs)
            failed = False
            return result
        finally:
            observer.after_update(wrapper, failed)

    wrapper.step = step

    def restore() -> None:
        if vars(wrapper).get("step") is step:
            if own is None:
                del wrapper.step
            else:
                wrapper.step = own

    undo.callback(restore)


def was_skipped(optimizer: Any) -> bool:
    """Whether a GradScaler told a fused optimizer of infinite gradients: it has changed nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(torch.as_tensor(found) > 0)
