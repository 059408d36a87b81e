"""What is recorded of one step of a model: from two passes, and the weights before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from gradiometer.arrays import Array
from gradiometer.recording import reference
from gradiometer.recording.adapters.keras.backends import BACKENDS, Pass, State, host, scope
from gradiometer.recording.adapters.keras.layers import Weight, weights_of
from gradiometer.recording.assembly import add_arrays
from gradiometer.recording.functions import UNKNOWN, why_not_saturated
from gradiometer.recording.measure import FROM_GRADIENT, OF_ACTIVATION, LayerArrays, live_units
from gradiometer.recording.requires import needing
from gradiometer.recording.session import Session
from gradiometer.states import MODEL

INSIDE = needing("delta", "pre_activation", "activation", "reference_activation", "input")
OF_PRODUCT = (*needing("input"), "backward_rms")
NOT_CALLED = "it is not called in this step"
NO_MATRIX = "its input is not multiplied by a matrix"


@dataclass
class Before:
    """What belongs to the weights before an update; NaN for an accuracy that cannot be had."""

    layers: list[LayerArrays]
    loss: float
    accuracy: float
    grad_norm: float | None


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
        self._weights = weights_of(model)
        self._backend = BACKENDS[keras.backend.backend()](model, list(self._weights))
        if session.layers:  # in their order
            order = {info.name: i for i, info in enumerate(session.layers)}
            self._weights.sort(key=lambda weight: order[weight.name])

    # --- before and after an update ---------------------------------------------------------------

    def before(self, number: int, state: State, data: Any) -> Before:
        """What belongs to the weights before the update."""
        model, session = self._model, self._session
        seen = self._backend.derivatives(state, keras.utils.unpack_x_y_sample_weight(data))
        if not session.layers:
            self._announce(seen)
        with scope(model, state):
            rate = float(host(keras.ops.convert_to_tensor(model.optimizer.learning_rate)))
        session.tell_optimizer(number, type(model.optimizer).__name__, rate)
        layers = [self._of_calls(weight, seen) for weight in self._weights]
        values = self._values(state)
        for weight, layer in zip(self._weights, layers, strict=True):
            layer.weight = as_matrix(np.array(host(values[id(weight.variable)])))
        self._fill_gradients(layers, seen)
        right = math.nan
        if self._batch is not None and session.needs("dead_fraction", "accuracy"):
            right = self._on_reference(layers, state, *self._batch)
        return Before(layers, float(host(seen.loss)), right, self._grad_norm(seen))

    def after(self, number: int, found: Before, state: State) -> None:
        """Record the step."""
        values, groups = self._values(state), []
        for i, (weight, layer) in enumerate(zip(self._weights, found.layers, strict=True)):
            layer.weight_after = as_matrix(host(values[id(weight.variable)]))
            parts = [layer]
            if not weight.multiplies:  # what goes back is no product of these two
                parts = [replace(layer, delta=None), LayerArrays(delta=layer.delta)]
            groups += [([i], part.mapped(lambda x: x[None, None])) for part in parts]
        add_arrays(
            self._session, [number], groups, np.array([found.loss]), np.array([found.accuracy]),
            grad_norm=None if found.grad_norm is None else np.array([found.grad_norm]),
        )  # fmt: skip

    def _values(self, state: State) -> Mapping[int, Array]:
        """The value of each variable of the model, by its id."""
        model = self._model
        variables = (*model.trainable_variables, *model.non_trainable_variables)
        return dict(zip(map(id, variables), (*state[0], *state[1]), strict=True))

    # --- layers -----------------------------------------------------------------------------------

    def _announce(self, seen: Pass) -> None:
        """Say which layers there are, in the order of the forward pass, and what they lack."""
        session, order = self._session, {layer: i for i, layer in enumerate(seen.called)}
        self._weights.sort(key=lambda weight: order.get(id(weight.caller), len(order)))
        trained = {id(variable) for variable in self._model.trainable_variables}
        infos = []
        for weight in self._weights:
            calls = [call for call in seen.calls if call.weight is weight]
            names = {function.name for call in calls for function in call.functions}
            role = "trained" if id(weight.variable) in trained else "frozen"
            role = role if id(weight.caller) in order else "outside"
            infos.append(weight.info(names.pop() if len(names) == 1 else UNKNOWN, role))
        session.begin(infos)
        for weight, info in zip(self._weights, infos, strict=True):
            if info.role == "frozen":
                session.miss(info.name, FROM_GRADIENT, "it is frozen")
            if not weight.multiplies:
                session.miss(info.name, OF_PRODUCT, weight.why_hidden or NO_MATRIX)

    def _of_calls(self, weight: Weight, seen: Pass) -> LayerArrays:
        """The arrays of all calls of a layer, as those of one batch."""
        session, name = self._session, weight.name
        mine = [i for i, call in enumerate(seen.calls) if call.weight is weight]
        if not mine:
            called = id(weight.caller) in seen.called
            session.miss(name, INSIDE, weight.why_hidden if called else NOT_CALLED)
            return LayerArrays()
        found = _activations(weight, seen, mine)
        deltas = [seen.deltas[i] for i in mine]
        if any(delta is None for delta in deltas):
            session.miss(name, needing("delta"), "the loss does not depend on it")
        else:
            found.delta = joined(weight, deltas)
        if weight.multiplies:
            inputs = [rows(host(seen.arrays[i]["input"])) for i in mine]
            found.input = np.concatenate(inputs)
            found.live = np.concatenate(
                [np.broadcast_to(np.asarray(live_units(x)), x.shape) for x in inputs]
            )
        why = next((seen.calls[i].why for i in mine if seen.calls[i].why), None)
        functions = [function for i in mine for function in seen.calls[i].functions]
        if why is not None:
            session.miss(name, OF_ACTIVATION, why)
        elif any(function != functions[0] for function in functions):
            session.miss(name, ("saturated_fraction",), "its calls have several functions")
        elif functions[0].saturates:
            assert found.pre_activation is not None
            found.saturated = functions[0].saturated(found.pre_activation)
        else:
            session.miss(name, ("saturated_fraction",), why_not_saturated(functions[0].name))
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
            layer.gradient = as_matrix(host(seen.gradients[at]))
            layer.used = as_matrix(host(used[at])) if changes else None

    def _grad_norm(self, seen: Pass) -> float | None:
        if not self._session.needs("grad_norm"):
            return None
        flat = [host(gradient).ravel() for gradient in seen.gradients if gradient is not None]
        return float(np.linalg.norm(np.concatenate(flat).astype(np.float64)))

    def _on_reference(self, layers: Sequence[LayerArrays], state: State, x: Any, y: Any) -> float:
        """Fill in the activations on the reference batch; the accuracy, or NaN."""
        seen = self._backend.evaluated(state, x)
        for weight, layer in zip(self._weights, layers, strict=True):
            mine = [i for i, call in enumerate(seen.calls) if call.weight is weight]
            activation = _activations(weight, seen, mine).activation if mine else None
            layer.reference_activation = activation
            if activation is None:
                why = "its activation is not seen on the reference batch"
                self._session.miss(weight.name, ("dead_fraction",), why)
        if y is None or not self._session.needs("accuracy"):
            return math.nan
        last = [function.name for call in seen.calls[-1:] for function in call.functions]
        probabilities = last[0] in ("sigmoid", "softmax") if last else None
        output, labels = host(seen.output), host(y)
        try:
            return reference.accuracy(output, labels, len(output), probabilities)
        except reference.NoAccuracy as error:
            self._session.miss(MODEL, ("accuracy",), str(error))
            return math.nan


def _activations(weight: Weight, seen: Pass, mine: Sequence[int]) -> LayerArrays:
    """Pre-activations and, if they can be had, activations of some calls of a layer."""
    before = joined(weight, [seen.arrays[i]["pre_activation"] for i in mine])
    found = LayerArrays(pre_activation=before)
    if not any(seen.calls[i].why for i in mine):
        found.activation = joined(weight, [seen.arrays[i]["activation"] for i in mine])
        found.reference_activation = found.activation
    return found


# --- arrays ---------------------------------------------------------------------------------------


def rows(x: NDArray[Any]) -> NDArray[Any]:
    """All axes but the last as one."""
    return x.reshape(-1, x.shape[-1])


def as_matrix(x: NDArray[Any]) -> NDArray[Any]:
    """A weight of any number of axes as (fan_in, fan_out)."""
    return rows(x if x.ndim > 1 else x[None])


def joined(weight: Weight, arrays: Sequence[Any]) -> NDArray[Any]:
    """(samples, units) of several calls."""
    return np.concatenate([rows(np.moveaxis(host(x), weight.unit_axis, -1)) for x in arrays])
