"""The loss and its derivatives, with each backend of Keras.

A backend is a class with two methods: `derivatives` and `evaluated`. It leaves the model's
variables and the random streams as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from gradiometer.arrays import Array
from gradiometer.recording.adapters.keras.forward import Call, Forward
from gradiometer.recording.adapters.keras.layers import Weight
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.restore import same_streams

# values of the variables: trainable, not trainable, of the optimizer, of metrics
State = Sequence[Sequence[Array]]


@dataclass
class Pass:
    """A forward pass and, if it was differentiated, what came back.

    Attributes
    ----------
    calls : list of Call
        With their deltas, then.
    called : collection of int
        Ids of the layers, in the order of their first calls.
    loss : number or None
    gradients : list of array or None
        By the trainable variables.
    output : array
    """

    calls: list[Call]
    called: Collection[int]
    loss: Any = None
    gradients: Sequence[Array | None] = ()
    output: Any = None

    def of(self, weight: Weight) -> list[Call]:
        """The calls of a layer."""
        return [call for call in self.calls if call.weight is weight]


def came_back(
    watch: Forward, arrays: Sequence[dict[str, Any]], loss: Any, gradients: Any, deltas: Any
) -> Pass:
    """A pass that was differentiated; the arrays of its calls, without deltas, and the deltas."""
    calls = [
        replace(call, arrays={**of_call, "delta": delta})
        for call, of_call, delta in zip(watch.calls, arrays, deltas, strict=True)
    ]
    return Pass(calls, watch.called, loss, gradients)


def variables_of(model: Any) -> tuple[Sequence[Any], ...]:
    """The variables whose values a `State` has."""
    optimizer = model.optimizer.variables
    return (
        model.trainable_variables, model.non_trainable_variables, optimizer, model.metrics_variables
    )  # fmt: skip


def scope(model: Any, state: State) -> Any:
    """Inside it the model's variables have these values, and what is assigned to them is lost."""
    pairs = [
        pair
        for variables, values in zip(variables_of(model), state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    return keras.StatelessScope(state_mapping=pairs, collect_losses=True)


def check_loss(model: Any, loss: Any) -> None:
    """Refuse a training without a loss."""
    if model._compile_loss is None and not keras.ops.any(loss):
        raise RecordingError(
            f"this {type(model).__name__} is trained without a loss; expected "
            'compile(optimizer, loss="mse") or another one'
        )


def evaluated(model: Any, weights: Sequence[Weight], state: State, x: Any) -> Pass:
    """A forward pass in evaluation mode."""
    watch = Forward(weights, lambda h: h)
    kwargs = {"training": False} if model._call_has_training_arg else {}
    with same_streams(), scope(model, state), watch.watching(model):
        output = model(x, **kwargs)
        watch.finish(output)
    return Pass(watch.calls, watch.called, output=output)


# --- PyTorch --------------------------------------------------------------------------------------


class OnTorch:
    """Keras with PyTorch: each operation is computed as it is called."""

    def __init__(self, model: Any, weights: Sequence[Weight]) -> None:
        import torch

        self._model, self._weights, self._torch = model, weights, torch

    def evaluated(self, state: State, x: Any) -> Pass:
        """A forward pass in evaluation mode."""
        with self._torch.no_grad(), self._torch.random.fork_rng():
            return evaluated(self._model, self._weights, state, x)

    def derivatives(self, state: State, data: tuple[Any, Any, Any]) -> Pass:
        """The loss of a step, and what it is made of."""
        torch, model = self._torch, self._model
        weights: Sequence[Any] = state[0]  # tensors
        given = [value.detach().requires_grad_() for value in weights]
        zeros: list[Array] = []

        def at(h: Array) -> Array:
            zeros.append(torch.zeros_like(h, requires_grad=True))
            return h + zeros[-1]

        watch = Forward(self._weights, at)
        x, y, sample_weight = data
        kwargs = {"training": True} if model._call_has_training_arg else {}
        with (
            torch.enable_grad(), torch.random.fork_rng(), same_streams(),
            scope(model, [given, *state[1:]]), watch.watching(model),
        ):  # fmt: skip
            output = model(x, **kwargs)
            watch.finish(output)
            loss = model._compute_loss(
                x=x, y=y, y_pred=output, sample_weight=sample_weight, training=True
            )
        check_loss(model, loss)
        found = torch.autograd.grad(loss, [*given, *zeros], allow_unused=True)
        arrays = [call.arrays for call in watch.calls]
        return came_back(watch, arrays, loss, found[: len(given)], found[len(given) :])


# --- JAX ------------------------------------------------------------------------------------------


class OnJax:
    """Keras with JAX: compiled once for each shape of a batch, as Keras compiles its own step."""

    def __init__(self, model: Any, weights: Sequence[Weight]) -> None:
        self._model, self._weights = model, weights
        self._compiled: dict[Any, tuple[Any, Forward, list[Any]]] = {}

    def evaluated(self, state: State, x: Any) -> Pass:
        """A forward pass in evaluation mode."""
        return evaluated(self._model, self._weights, state, x)

    def derivatives(self, state: State, data: tuple[Any, Any, Any]) -> Pass:
        """The loss of a step, and what it is made of."""
        import jax

        leaves, kind = jax.tree.flatten(data)
        key = kind, *((np.shape(x), str(getattr(x, "dtype", type(x)))) for x in leaves)
        with same_streams(), readable_errors(jax):
            if key not in self._compiled:
                self._compiled[key] = self._traced(state, data)
            run, watch, shapes = self._compiled[key]
            zeros = [jax.numpy.zeros(h.shape, h.dtype) for h in shapes]
            (loss, arrays), (gradients, deltas) = run(list(state[0]), zeros, state, data)
        check_loss(self._model, loss)
        return came_back(watch, arrays, loss, gradients, deltas)

    def _traced(self, state: State, data: tuple[Any, Any, Any]) -> tuple[Any, Forward, list[Any]]:
        import jax

        def loss_of(given: Any, zeros: Any, state: Any, data: Any) -> Any:
            added = iter(zeros)
            watch = Forward(self._weights, lambda h: h + next(added))
            loss = self._loss(watch, given, state, data)
            return loss, [call.arrays for call in watch.calls]

        # once without zeros: how many calls there are, and of which shapes
        shapes: list[Any] = []

        def shaped(h: Array) -> Array:
            shapes.append(jax.ShapeDtypeStruct(h.shape, h.dtype))
            return h

        first = Forward(self._weights, shaped)
        jax.eval_shape(lambda *given: self._loss(first, *given), list(state[0]), state, data)
        for call in first.calls:
            call.arrays.clear()
        run = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True))
        return run, first, shapes

    def _loss(self, watch: Forward, given: Any, state: Any, data: Any) -> Any:
        """The loss as Keras's own step computes it, watched."""
        _, others, of_optimizer, of_metrics = state
        with watch.watching(self._model):
            _, (loss, output, _, _) = self._model.compute_loss_and_updates(
                given, others, of_metrics, *data, training=True, optimizer_variables=of_optimizer
            )
            watch.finish(output)
        return loss


@contextlib.contextmanager
def readable_errors(jax: Any) -> Iterator[None]:
    """Say which layer's inside cannot be recorded."""
    try:
        yield
    except jax.errors.UnexpectedTracerError as error:
        raise RecordingError(
            "a layer of the model is called inside a transformation of JAX (a scan, vmap, cond or "
            "checkpoint in a layer of your own), where its values cannot be recorded"
        ) from error


BACKENDS: dict[str, Any] = {"torch": OnTorch, "jax": OnJax}


def host(array: Any) -> NDArray[Any]:
    """An array of a backend as one of NumPy, in single precision if it is in half."""
    if str(getattr(array, "dtype", "")).split(".")[-1] in ("float16", "bfloat16"):
        array = keras.ops.cast(array, "float32")
    # by PyTorch itself: Keras's way warns
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
