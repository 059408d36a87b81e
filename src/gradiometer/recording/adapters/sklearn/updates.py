"""What happens between an estimator and its optimiser while it trains."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import dp
from dp.mode import mode
from dp.typing import Array
from gradiometer.arrays import Numbers
from gradiometer.recording.adapters.sklearn.internals import (
    backward_signature,
    check_estimator,
    check_solver,
    unknown_internals,
)
from gradiometer.recording.adapters.sklearn.network import Network
from gradiometer.recording.adapters.sklearn.reference import Reference, dense
from gradiometer.recording.assembly import add_arrays, one_step
from gradiometer.recording.calls import call_arrays
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.functions import Function, why_not_saturated
from gradiometer.recording.measure import LayerArrays
from gradiometer.recording.requires import needing
from gradiometer.recording.restore import replace
from gradiometer.recording.session import LayerInfo, Session
from gradiometer.reductions import norm

# the arrays that need a pass of dp
OF_PASS = {
    "input", "pre_activation", "activation", "saturated", "delta", "gradient",
    "reference_activation", "affine_delta", "phi_delta", "arriving",
}  # fmt: skip


NO_ARRIVING = "the loss is computed from its pre-activation"


@dataclass
class _Step:
    """What belongs to the weights before an update."""

    weights: list[Array]  # as they lie in the estimator: the update changes them
    layers: list[LayerArrays]
    loss: float
    accuracy: float
    grad_norm: Numbers | None


class Updates:
    """Stands between an estimator and its optimiser, and records every update."""

    def __init__(self, estimator: Any, session: Session, reference: tuple[Any, Any] | None) -> None:
        check_estimator(estimator)
        self.estimator, self.session = estimator, session
        self.reference = None if reference is None else Reference(reference)
        self._calls = 0  # of the backward pass
        self._optimizer: Any = None
        self._of_optimizer = contextlib.ExitStack()  # undoes what is put there
        self._trusted = False  # whether its gradients were compared with ours
        self._step: _Step | None = None
        self._ready: Any = None  # what an interrupt kept from being added
        self._seen: tuple[dp.Node, Array | None] | None = None  # of the reference batch

    # --- the estimator's own methods --------------------------------------------------------------

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Let them report to this object inside the block."""
        backward, signature = self.estimator._backprop, backward_signature()

        def _backprop(*args: Any, **kwargs: Any) -> Any:
            found = backward(*args, **kwargs)
            given = signature.bind(self.estimator, *args, **kwargs).arguments
            self._calls += 1
            with self.session.timed, np.errstate(all="ignore"):
                self._before_update(given["X"], given["y"], given.get("sample_weight"), found)
            return found

        with contextlib.ExitStack() as undo, self._of_optimizer:
            replace(self.estimator, "_backprop", _backprop, undo)
            self.session.turn(on=True)
            try:
                yield
            finally:
                self.session.turn(on=False)
                self._add()

    def check_hooks(self) -> None:
        """Raise RecordingError if an estimator was fitted past this object."""
        if not self._calls or (self._calls > 1 and not self.session.done):
            raise unknown_internals(
                "its fit did not call _backprop and then the optimiser's update_params"
            )

    def _watch_optimizer(self) -> None:
        optimizer: Any = getattr(self.estimator, "_optimizer", None)
        if optimizer is self._optimizer and optimizer is not None:
            return
        if not hasattr(optimizer, "update_params"):
            raise unknown_internals("it has no _optimizer with update_params")
        self._of_optimizer.close()
        update = optimizer.update_params

        def update_params(*args: Any, **kwargs: Any) -> Any:
            found = update(*args, **kwargs)
            with self.session.timed, np.errstate(all="ignore"):
                self._after_update(args)
            return found

        replace(optimizer, "update_params", update_params, self._of_optimizer)
        self._optimizer, self._trusted, self._seen = optimizer, False, None

    # --- one update -------------------------------------------------------------------------------

    def _before_update(self, X: Any, y: Any, sample_weight: Any, found: Any) -> None:
        check_solver(self.estimator)
        self._watch_optimizer()
        self._add()
        self._step = None
        if not self.session.wants(self.session.done + 1):
            return
        try:
            loss, gradients, of_biases = found
            network = Network(self.estimator)
        except (AttributeError, TypeError, ValueError) as error:
            raise unknown_internals(str(error)) from error
        self._begin(network.layers, network.functions)
        grad_norm = None
        if self.session.needs("grad_norm"):
            grad_norm = norm(np.ravel(part) for part in (*gradients, *of_biases))
        layers = [LayerArrays() for _ in network.weights]
        step = _Step(network.weights, layers, loss, math.nan, grad_norm)
        arrays = self.session.arrays
        if not OF_PASS.isdisjoint(arrays) or self.session.needs("accuracy"):
            self._pass(network, step, X, y, sample_weight, gradients)
        if "weight" in arrays:
            for layer, weight in zip(step.layers, network.weights, strict=True):
                layer.weight = weight.copy()
        self._step = step

    def _after_update(self, args: Sequence[Any]) -> None:
        step, self._step = self._step, None
        number = self.session.done + 1
        if step is not None:
            changed = list(args[0])[: len(step.weights)] if args else []
            if [*map(id, changed)] != [*map(id, step.weights)]:
                raise unknown_internals("its optimiser updates other arrays than coefs_")
            for layer, weight in zip(step.layers, step.weights, strict=True):
                layer.weight_after = weight
            self._ready = one_step(number, step.layers, step.loss, step.accuracy), step.grad_norm
            self._tell_optimizer(number)
        self.session.done = number
        self._add()

    def _add(self) -> None:
        if self._ready is not None:
            arguments, norm = self._ready
            norms = None if norm is None else np.array([norm])
            add_arrays(self.session, *arguments, grad_norm=norms)
            self._ready = None

    def _tell_optimizer(self, number: int) -> None:
        """Say what made the update; that of "adam" changes its learning rate only inwardly."""
        sgd = self.estimator.solver == "sgd"
        rate = getattr(self._optimizer, "learning_rate" if sgd else "learning_rate_init", None)
        self.session.tell_optimizer(number, type(self._optimizer).__name__, rate)

    def _begin(self, layers: tuple[LayerInfo, ...], functions: Sequence[Function]) -> None:
        if not self.session.layers:
            self.session.begin(layers, self._add)
            for layer, function in zip(layers, functions, strict=True):
                if not function.saturates:
                    why = why_not_saturated(layer.activation)
                    self.session.miss(layer.name, ("saturated_fraction",), why)
            if layers[-1].activation != "identity":
                self.session.miss(layers[-1].name, needing("arriving"), NO_ARRIVING)
        elif self.session.layers != layers:
            raise RecordingError(
                f"the estimator was fitted anew with other layers inside one block: "
                f"{_sizes(layers)}, but {_sizes(self.session.layers)} before; record each fit in "
                "a block of its own"
            )

    def _pass(
        self, network: Network, step: _Step, X: Any, y: Any, sample_weight: Any, theirs: Any
    ) -> None:
        """Fill in what dp finds on the batch, and on the reference batch."""
        needs = self.session.needs
        if not mode().recording:
            raise RecordingError(
                "inside dp.no_grad() nothing is remembered, so no gradient can be recorded"
            )
        x, y = dp.Node(dense(X)), dense(y)
        # the labels of a classifier are booleans, a regressor's targets may be integers
        kind = x.dtype if y.dtype.kind == "b" else np.float64 if y.dtype.kind != "f" else y.dtype
        targets = dp.Node(y.astype(kind, copy=False))
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        passed = network.forward(x)
        gradients, deltas, arriving = network.gradients(passed, targets, weights)
        if not self._trusted:
            network.compare(gradients, theirs, passed, targets.value, weights)
            self._trusted = True
        for i, function in enumerate(network.functions):
            step.layers[i] = call_arrays(
                self.session.arrays,
                function,
                pre_activation=passed.pre_activations[i].value,
                activation=passed.activations[i].value,
                input=passed.inputs[i].value,
                delta=deltas[i],
                affine_delta=deltas[i],
                arriving=arriving[i],
            )
            step.layers[i].gradient = gradients[i]
        labels: Array | None = targets.value
        if self.reference is not None and needs("dead_fraction", "accuracy"):
            if self._seen is None:
                self._seen = self.reference.seen_by(self.estimator, needs("accuracy"))
            x, labels = self._seen
            with dp.no_grad():
                passed = network.forward(x)
        for layer, activation in zip(step.layers, passed.activations, strict=True):
            layer.reference_activation = activation.value
        step.accuracy = network.accuracy(passed.activations[-1].value, labels)


def _sizes(layers: Sequence[LayerInfo]) -> str:
    return ", ".join(
        f"{info.name} {info.fan_in} -> {info.fan_out} {info.activation}" for info in layers
    )
