"""What both training loops, eager and compiled, need of an optimiser: its update and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

from dp.batches import Batches
from dp.callbacks import Callback, ProgramCallback, Step
from dp.typing import Array

Update = TypeVar("Update", bound=Callable[..., None])
_ENTRY_BY_ENTRY: list[Callable[..., None]] = []


def entry_by_entry(update: Update) -> Update:
    """Mark an `_update` of the library that treats every entry by itself, all in the same way."""
    _ENTRY_BY_ENTRY.append(update)
    return update


class Updates(Batches):
    """How a gradient changes a parameter, and the callbacks of every step.

    Attributes
    ----------
    defaults : dict
        Name of a hyperparameter -> its value where none is given.
    num_grad_stores : int
        How many arrays `_update` stores for each parameter, such as a running average.
    grad_stores : list of dicts
        Those arrays, by the names of the parameters.
    """

    defaults: ClassVar[Mapping[str, float]] = {}
    num_grad_stores: ClassVar[int] = 0
    grad_stores: list[dict[str, Array]]

    def _update(self, param: dict[str, Array], grad: dict[str, Array], g: str, i: int) -> None:
        """Change parameter `g` by its gradient in step `i` (from 1); defined by the subclass.

        The rules of the library are written with operations that Nodes have too, so that a program
        can show them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define _update")

    def elementwise(self) -> bool:
        """Whether `_update` is one of the library, which treats every entry by itself."""
        if "_update" in vars(self) or type(self)._update not in _ENTRY_BY_ENTRY:
            return False
        # a rate that is a property of a subclass's own may depend on anything
        return not any(
            hasattr(getattr(type(self), name, None), "__get__") for name in self.defaults
        )

    def program_callbacks(self) -> list[ProgramCallback]:
        """Callbacks that read a compiled step's arrays."""
        return [c for c in self._callbacks() if isinstance(c, ProgramCallback)]

    def other_callbacks(self) -> list[Callable[[Step], Any] | Callback]:
        """Callbacks that are given parameters and gradients by name."""
        return [c for c in self._callbacks() if not isinstance(c, ProgramCallback)]

    def _callbacks(self) -> Iterable[Callable[[Step], Any] | Callback]:
        return getattr(self, "callbacks", ())  # a subclass may have an __init__ of its own

    @staticmethod
    def _print(number: int, loss: Array) -> None:
        print(number, "\t", loss[0, 0] if loss.ndim == 2 else loss.mean())


def update_all(optimizer: Updates, param: dict[str, Array], grad: dict[str, Array], i: int) -> None:
    """Change the model's parameters by their gradients in step `i`: all of them, or none.

    If an interrupt or an error comes in between, parameters and `grad_stores` are put back.
    """
    before = {
        # `np.array` alone would work, but more slowly
        name: value.copy() if type(value) is np.ndarray else np.array(value)
        for name, value in param.items()
    }
    stores = [
        (store, name, value, value.copy())
        for store in optimizer.grad_stores
        for name, value in store.items()
    ]
    try:
        for g in param:
            if g in grad:
                optimizer._update(param, grad, g, i)
        optimizer.model.set_param(param)  # for an `_update` that replaces arrays
    except BaseException:
        optimizer.model.set_param(before)
        for store, name, value, kept in stores:
            value[...] = kept
            store[name] = value
        raise
