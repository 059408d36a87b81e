"""What is recorded of one step of a model: from two passes, and the weights before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from gradiometer.recording import reference
from gradiometer.recording.adapters.keras.backends import BACKENDS, Pass, State, host, scope
from gradiometer.recording.adapters.keras.forward import Call
from gradiometer.recording.adapters.keras.layers import Weight, weights_of
from gradiometer.recording.assembly import add_arrays, one_step
from gradiometer.recording.calls import call_arrays, joined_calls
from gradiometer.recording.functions import UNKNOWN, why_not_saturated
from gradiometer.recording.measure import (
    FROM_GRADIENT,
    OF_ACTIVATION,
    OF_BACKWARD,
    OF_DELTA,
    OF_INPUT,
    LayerArrays,
)
from gradiometer.recording.requires import needing
from gradiometer.recording.session import Session
from gradiometer.reductions import norm
from gradiometer.states import MODEL

INSIDE = (*needing("pre_activation", "activation", "reference_activation", "input"), *OF_DELTA)
OF_PRODUCT = (*OF_INPUT, *OF_BACKWARD, *needing("affine_delta"))
NO_ARRIVING = "the derivative is taken at the pre-activation, so what arrives at φ(h) is not seen"
NOT_CALLED = "it is not called in this step"
NO_MATRIX = "its input is not multiplied by a matrix"


class Measuring:
    """Measures a model's steps.

    Parameters
    ----------
    session : Session
    model : keras.Model
        It is built.
    batch : (x, y), optional
        The reference batch.
    """

    def __init__(self, session: Session, model: Any, batch: tuple[Any, Any] | None) -> None:
        self._session, self._model, self._batch = session, model, batch
        found = weights_of(model)
        session.check_names([weight.name for weight in found])
        self._all = found
        self._weights = [weight for weight in found if session.picks(weight.name)]
        self._backend = BACKENDS[keras.backend.backend()](model, found)
        if session.layers:  # in their order
            order = {info.name: i for i, info in enumerate(session.layers)}
            self._weights.sort(key=lambda weight: order[weight.name])

    # --- before and after an update ---------------------------------------------------------------

    def before(self, number: int, state: State, data: Any) -> Callable[[State], None]:
        """Take what belongs to the weights before the update; gives what records the step after."""
        model, session = self._model, self._session
        seen = self._backend.derivatives(state, keras.utils.unpack_x_y_sample_weight(data))
        if not session.layers:
            self._announce(seen)
        with scope(model, state):
            rate = float(host(keras.ops.convert_to_tensor(model.optimizer.learning_rate)))
        session.tell_optimizer(number, type(model.optimizer).__name__, rate)
        layers = [self._of_calls(weight, seen) for weight in self._weights]
        for layer, value in zip(layers, self._values(state), strict=True):
            layer.weight = np.array(value)
        self._fill_gradients(layers, seen)
        right = math.nan
        if self._batch is not None and session.needs("dead_fraction", "accuracy"):
            right = self._on_reference(layers, state, *self._batch)
        step = number, layers, float(host(seen.loss)), right
        grad_norm = self._grad_norm(seen)

        def after(state: State) -> None:
            for layer, value in zip(layers, self._values(state), strict=True):
                layer.weight_after = value
            add_arrays(session, *one_step(*step), grad_norm=grad_norm)

        return after

    def _values(self, state: State) -> list[NDArray[Any]]:
        """The values of the weights."""
        model = self._model
        variables = (*model.trainable_variables, *model.non_trainable_variables)
        values = dict(zip(map(id, variables), (*state[0], *state[1]), strict=True))
        return [matrix(values[id(weight.variable)]) for weight in self._weights]

    # --- layers -----------------------------------------------------------------------------------

    def _announce(self, seen: Pass) -> None:
        """Say which layers there are, in the order of the forward pass, and what they lack."""
        session, order = self._session, {layer: i for i, layer in enumerate(seen.called)}
        self._weights.sort(key=lambda weight: order.get(id(weight.caller), len(order)))
        trained = {id(variable) for variable in self._model.trainable_variables}
        infos = []
        for weight in self._weights:
            functions = [call.function for call in seen.of(weight)]
            names = {function.name for function in functions if function is not None}
            role = "trained" if id(weight.variable) in trained else "frozen"
            role = role if id(weight.caller) in order else "outside"
            infos.append(weight.info(names.pop() if len(names) == 1 else UNKNOWN, role))
        session.begin(infos)
        if session.only is not None:
            self._tell_gaps(order)
        for weight, info in zip(self._weights, infos, strict=True):
            if info.role == "frozen":
                session.miss(info.name, FROM_GRADIENT, "it is frozen")
            if not weight.multiplies:
                session.miss(info.name, OF_PRODUCT, weight.why_hidden or NO_MATRIX)

    def _tell_gaps(self, order: Mapping[int, int]) -> None:
        """Say which layers have another that is not recorded between them."""
        called = sorted(
            (weight for weight in self._all if id(weight.caller) in order),
            key=lambda weight: order[id(weight.caller)],
        )
        recorded = [weight for weight in called if self._session.picks(weight.name)]
        before = {i: (1 << i) - 1 for i in range(len(called))}
        kept = [called.index(weight) for weight in recorded]
        self._session.leads(before, dict.fromkeys(before, 0), kept)

    def _of_calls(self, weight: Weight, seen: Pass) -> LayerArrays:
        """The arrays of all calls of a layer, as those of one batch; says what they lack."""
        session, name, calls = self._session, weight.name, seen.of(weight)
        if not calls:
            called = id(weight.caller) in seen.called
            session.miss(name, INSIDE, weight.why_hidden if called else NOT_CALLED)
            return LayerArrays()
        found = self._joined(weight, calls)
        if any(call.arrays["delta"] is None for call in calls):
            found.delta = found.affine_delta = found.phi_delta = None
            session.miss(name, OF_DELTA, "the loss does not depend on it")
        session.miss(name, needing("arriving"), NO_ARRIVING)
        functions = [call.function for call in calls if call.function is not None]
        if len(functions) < len(calls):
            found.phi_delta = None
            why = next(call.why for call in calls if call.why)
            session.miss(name, (*OF_ACTIVATION, *needing("phi_delta")), why)
        elif any(function != functions[0] for function in functions):
            found.saturated = None
            session.miss(name, ("saturated_fraction",), "its calls have several functions")
        elif found.saturated is None:
            session.miss(name, ("saturated_fraction",), why_not_saturated(functions[0].name))
        return found

    def _joined(self, weight: Weight, calls: Sequence[Call]) -> LayerArrays:
        """Calls of a layer as one; without the activation, if it is not known of all of them."""
        known = all(call.function is not None for call in calls)
        parts = []
        for call in calls:
            there = {what: x for what, x in call.arrays.items() if x is not None}
            arrays = {what: weight.samples(host(x)) for what, x in there.items()}
            function = call.function if known else None
            parts.append(call_arrays(self._session.arrays, function, **arrays))
        found = joined_calls(parts)
        found.reference_activation = found.activation  # unless there is another batch
        found.arriving = found.arriving_live = None
        if weight.multiplies and "affine_delta" in self._session.arrays:
            found.affine_delta = found.delta
        return found

    def _fill_gradients(self, layers: Sequence[LayerArrays], seen: Pass) -> None:
        optimizer, session = self._model.optimizer, self._session
        changes = any((optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue))
        used = optimizer._clip_gradients(list(seen.gradients)) if changes else []
        trained = {id(v): i for i, v in enumerate(self._model.trainable_variables)}
        for weight, layer in zip(self._weights, layers, strict=True):
            at = trained.get(id(weight.variable))
            if at is None:
                continue
            if seen.gradients[at] is None:
                session.miss(weight.name, FROM_GRADIENT, "the loss does not depend on it")
                continue
            layer.gradient = matrix(seen.gradients[at])
            layer.used = matrix(used[at]) if changes else None

    def _grad_norm(self, seen: Pass) -> NDArray[Any] | None:
        if not self._session.needs("grad_norm"):
            return None
        flat = [host(gradient).ravel() for gradient in seen.gradients if gradient is not None]
        return np.array([float(norm(flat))])

    def _on_reference(self, layers: Sequence[LayerArrays], state: State, x: Any, y: Any) -> float:
        """Fill in the activations on the reference batch; the accuracy, or NaN."""
        seen = self._backend.evaluated(state, x)
        for weight, layer in zip(self._weights, layers, strict=True):
            calls = seen.of(weight)
            layer.reference_activation = self._joined(weight, calls).activation if calls else None
            if layer.reference_activation is None:
                why = "its activation is not seen on the reference batch"
                self._session.miss(weight.name, ("dead_fraction",), why)
        if y is None or not self._session.needs("accuracy"):
            return math.nan
        last = seen.calls[-1].function if seen.calls else None
        probabilities = None if last is None else last.name in ("sigmoid", "softmax")
        output, labels = host(seen.output), host(y)
        try:
            return reference.accuracy(output, labels, len(output), probabilities)
        except reference.NoAccuracy as error:
            self._session.miss(MODEL, ("accuracy",), str(error))
            return math.nan


def matrix(x: Any) -> NDArray[Any]:
    """A weight, or its gradient, with two axes at least."""
    return np.atleast_2d(host(x))
