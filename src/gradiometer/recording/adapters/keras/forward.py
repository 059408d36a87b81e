"""What one forward pass shows of the layers: their inputs, pre-activations, activations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from gradiometer.arrays import Array
from gradiometer.recording.adapters.keras.layers import UNSEEN, Weight, function_of
from gradiometer.recording.functions import IDENTITY, Function
from gradiometer.recording.restore import replace

NOT_FOLLOWED = "it is not seen what becomes of its output"


@dataclass
class Call:
    """One call of a layer.

    Attributes
    ----------
    weight : Weight
    arrays : dict
        "input", "pre_activation", "activation" and "delta", as far as they can be had.
    functions : list of Function
        What is applied to its pre-activation.
    used : bool
        Whether it is used as it is.
    why : str
        Why the activation cannot be had.
    """

    weight: Weight
    arrays: dict[str, Any]
    functions: list[Function] = field(default_factory=list)
    used: bool = False
    why: str = ""

    @property
    def function(self) -> Function | None:
        """The one that is applied, when all is known of what becomes of it; or else None."""
        return None if self.why else self.functions[0] if self.functions else IDENTITY

    def close(self) -> None:
        """Say what its activation is: all is known of what becomes of it."""
        if len(self.functions) + self.used > 1:
            self.why = self.why or "several functions are applied to its output"
        elif not self.functions and not self.used:
            self.why = self.why or NOT_FOLLOWED
        if self.why:
            self.arrays.pop("activation", None)
        elif self.used:
            self.arrays["activation"] = self.arrays["pre_activation"]


class Forward:
    """Watches one forward pass of a model.

    Parameters
    ----------
    weights : sequence of Weight
    at : function
        What the pass goes on with, given a pre-activation: the same numbers.
    """

    def __init__(self, weights: Sequence[Weight], at: Callable[[Array], Array]) -> None:
        self.calls: list[Call] = []
        self.called: dict[int, None] = {}  # layers, by their id, in order
        self._at = at
        self._weights = {id(w.layer): w for w in weights if not w.why_hidden}
        self._owners = {id(weight.layer) for weight in weights}
        # pre-activations that go on, by their id, and what came of them: (array, its call, through)
        self._open: dict[int, tuple[Array, Call, str]] = {}

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Watch what is called inside the block."""
        layers = model._flatten_layers()
        graphs = [part for part in layers if isinstance(part, keras.Model)]
        graphed = [one for part in graphs for one in getattr(part, "operations", ())]
        parts = {id(one): one for one in [*layers, *graphed]}
        with contextlib.ExitStack() as undo:
            for part in parts.values():
                replace(part, "call", self._call_of(part), undo)
                if id(part) in self._weights and not self._weights[id(part)].returned:
                    activation = self._activation_of(part)
                    replace(part, "activation", activation, undo)
            yield

    def finish(self, output: Any) -> None:
        """Say that the pass is over, and gave this output."""
        for array in tree.flatten(output):
            if id(array) in self._open:
                self._open[id(array)][1].used = True
        self._open.clear()
        for call in self.calls:
            call.close()

    # --- one layer --------------------------------------------------------------------------------

    def _call_of(self, part: Any) -> Callable[..., Any]:
        original, weight = part.call, self._weights.get(id(part))

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called[id(part)] = None
            given = [x for x in tree.flatten((args, kwargs)) if keras.ops.is_tensor(x)]
            before = len(self.calls)
            arrived = self._arrive(part, given)
            found = original(*args, **kwargs)
            if weight is not None and weight.returned:
                found = self._pre_activation(weight, found)
            for one in self.calls[before:]:
                if one.weight is weight and weight.multiplies:
                    one.arrays["input"] = given[0]
            self._leave(part, arrived, given, found)
            return found

        return call

    def _activation_of(self, layer: Any) -> Callable[[Array], Array]:
        original, weight = layer.activation, self._weights[id(layer)]

        def activation(h: Array) -> Array:
            h = self._pre_activation(weight, h)
            if original is None or original is keras.activations.linear:
                return h
            call = self._open.pop(id(h))[1]
            call.functions.append(function_of(original) or UNSEEN)
            call.arrays["activation"] = found = original(h)
            return found

        return activation

    def _pre_activation(self, weight: Weight, h: Array) -> Array:
        h = self._at(h)
        call = Call(weight, {"pre_activation": h})
        self.calls.append(call)
        self._open[id(h)] = h, call, ""
        return h

    # --- what becomes of a pre-activation ---------------------------------------------------------

    def _arrive(self, part: Any, given: Sequence[Array]) -> tuple[Call, str] | None:
        """Note that it was called with these arrays; the call that goes on through it, if any."""
        coming = [self._open[id(x)][1:] for x in given if id(x) in self._open]
        if not coming or _only_holds_others(part):
            return None
        known, kind = function_of(part), type(part).__name__
        if known is not None and known.name == IDENTITY.name:  # it gives back what it is given
            return None
        through = ""
        for call, through in coming:
            if known is not None and through:
                call.why = f"{known.name} is applied to it after a {through}"
            elif known is not None:
                call.functions.append(known)
            elif id(part) not in self._owners and _may_be_a_function(part, given):
                call.why = f"its output goes to {kind}, which may be a function of it"
            elif len(given) > 1 or id(part) in self._owners:
                call.used = True
        if len(given) > 1 or id(part) in self._owners:
            return None
        return coming[0][0], through or kind

    def _leave(
        self, part: Any, arrived: tuple[Call, str] | None, given: Sequence[Array], found: Any
    ) -> None:
        if arrived is None or not keras.ops.is_tensor(found) or any(found is x for x in given):
            return
        call, through = arrived
        if function_of(part) is None:
            call.used = True
            self._open[id(found)] = found, call, through
        elif call.functions:
            call.arrays["activation"] = found


def _only_holds_others(part: Any) -> bool:
    """Whether what it is called with goes to layers of its own, which are watched themselves."""
    if not getattr(part, "_layers", ()):
        return False
    return isinstance(part, keras.Model) or not type(part).__module__.startswith("keras.")


def _may_be_a_function(part: Any, given: Sequence[Array]) -> bool:
    """Whether it may be a function of each entry of what it is given."""
    if not type(part).__module__.startswith("keras.") or isinstance(part, keras.layers.Lambda):
        return True
    return not isinstance(part, keras.layers.Layer) and len(given) == 1
