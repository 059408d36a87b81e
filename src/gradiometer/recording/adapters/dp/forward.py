"""The model's forward pass, run once more for the recorder alone, so that nobody notices."""

from __future__ import annotations

import contextlib
import copy
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

import dp
from dp.order import topological_order
from dp.typing import Array
from dp.validation import as_matrix
from gradiometer.recording.adapters.dp.layers import after_each
from gradiometer.recording.restore import same_streams

NO_FORWARD = "{} has no forward(x)"
Calls = list[tuple[str, dp.Node]]  # (name of the weight, pre-activation), in order


class Passage:
    """One forward pass: its output, the layers' calls in it, and what follows each."""

    def __init__(self, output: dp.Node, calls: list[dp.LayerCall]) -> None:
        self.output = output
        self.calls: Calls = [(call.layer.weight.name or "", call.pre_activation) for call in calls]
        self.after = after_each(self.calls, topological_order(output), output)


class Forward:
    """Runs `forward` of a model as if nobody had.

    A net of the library's own is run as it is: it depends on its parameters alone. Of any other
    model a copy is run, for its `forward` may count, average or draw; and generators of random
    numbers that it can reach are put back.

    Attributes
    ----------
    why_not : str
        Why it cannot be run; "" as long as it can.
    """

    def __init__(self, model: dp.Model) -> None:
        from dp.program.models import pure

        self._model, self._pure = model, pure(model)
        self.why_not = ""
        if not has_forward(model):
            self.why_not = NO_FORWARD.format(type(model).__name__)

    def fitting(self, passage: Passage, members: int) -> Passage | None:
        """The pass, unless its output has other axes of members than the loss in training."""
        shape = passage.output.shape
        if len(shape) == 2 + members:
            return passage
        self.why_not = f"the forward pass on the batch gives shape {shape}, unlike the training's"
        return None

    def run(self, x: Any) -> Passage | None:
        """The forward pass on a batch; None, and `why_not`, if there is none."""
        if self.why_not:
            return None
        try:
            batch = array_of(x)
            dtype = next((value.dtype for value in self._model.get_param().values()), batch.dtype)
            leaf = dp.Node(batch.astype(dtype, copy=False))
            if self._pure:
                with dp.watch_layers() as watch:
                    return Passage(self._model.forward(leaf), list(watch.calls))
            with generators_put_back(self._model):
                twin = copy.deepcopy(self._model)
                with dp.watch_layers() as watch:
                    return Passage(twin.forward(leaf), list(watch.calls))
        except Exception as error:  # whatever a user's own forward, or a copy of it, may raise
            self.why_not = (
                f"a forward pass for the recorder failed: {type(error).__name__}: {error}"
            )
            return None


def has_forward(model: dp.Model) -> bool:
    """Whether somebody has written a forward pass for it."""
    return "forward" in vars(model) or type(model).forward is not dp.Model.forward


def array_of(matrix: Any) -> Array:
    """A batch that may be a Node or anything that a Node can be made of."""
    return matrix.value if isinstance(matrix, dp.Node) else as_matrix(matrix)


@contextlib.contextmanager
def generators_put_back(model: Any) -> Iterator[None]:
    """Put random number generators that a model's functions use back to where they were."""
    own = [(generator, _state(generator)) for generator in _generators(model)]
    try:
        with same_streams():
            yield
    finally:
        for generator, state in own:
            _put_back(generator, state)


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.bit_generator.state


def _put_back(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


KINDS = (np.random.Generator, np.random.RandomState, random.Random)


def _generators(model: Any) -> list[Any]:
    """Generators in the globals and closures of functions that a model's methods use.

    Those that it holds itself are copied with it.
    """
    found: dict[int, Any] = {}
    methods = [
        value
        for kind in type(model).__mro__
        if kind not in (dp.Model, object)
        for value in vars(kind).values()
    ]
    waiting: list[Any] = [*methods, *vars(model).values()]
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, KINDS):
            found[id(thing)] = thing
            continue
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        waiting += _used_by(thing)
    return list(found.values())


def _used_by(thing: Any) -> list[Any]:
    """What a function refers to, and what simple containers and layers hold."""
    if isinstance(thing, types.MethodType):
        return (
            [thing.__func__, thing.__self__]
            if isinstance(thing.__self__, KINDS)
            else [thing.__func__]
        )
    if isinstance(thing, types.BuiltinMethodType):  # such as a generator's `random`
        return [thing.__self__] if isinstance(thing.__self__, KINDS) else []
    if isinstance(thing, (property, staticmethod, classmethod)):
        return [getattr(thing, "fget", None) or getattr(thing, "__func__", None)]
    if isinstance(thing, types.FunctionType):
        if thing.__module__.split(".")[0] in ("dp", "numpy", "gradiometer"):
            return []
        used = [thing.__globals__.get(name) for name in thing.__code__.co_names]
        cells = [cell for cell in thing.__closure__ or () if _filled(cell)]
        inner = [
            thing.__globals__.get(name)
            for code in thing.__code__.co_consts
            if isinstance(code, types.CodeType)
            for name in code.co_names
        ]
        return [*used, *inner, *(cell.cell_contents for cell in cells), *(thing.__defaults__ or ())]
    if isinstance(thing, dp.Layer):
        return [thing.activation, thing.normalise]
    if isinstance(thing, dict):
        return list(thing.values()) if len(thing) < 1000 else []
    if isinstance(thing, (list, tuple)):
        return list(thing) if len(thing) < 1000 else []
    return []


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
