"""Between a model and its trainer: which steps there are."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from gradiometer.recording.adapters.keras.backends import BACKENDS, State, variables_of
from gradiometer.recording.adapters.keras.measuring import Measuring
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.recorder import Training, TrainingRecorder
from gradiometer.recording.reference import pair
from gradiometer.recording.restore import replace
from gradiometer.recording.session import Session


def recorder_of(
    session: Session, model: keras.Model, reference: tuple[Any, Any] | None
) -> TrainingRecorder:
    """Make a recorder of the steps of `fit` and `train_on_batch`; see `gradiometer.record`.

    Raises
    ------
    RecordingError
        If Keras runs on a backend whose steps cannot be recorded, or the model has a train_step of
        its own.
    """
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise RecordingError(
            f"Keras runs on {backend}, whose steps cannot be recorded; expected the backend "
            f"{' or '.join(BACKENDS)} (set KERAS_BACKEND before keras is imported)"
        )
    home = type(model).train_step.__module__
    if not home.startswith("keras."):
        raise RecordingError(
            f"{type(model).__name__} has a train_step of its own, and it is not known what this "
            "computes; expected a model that is trained by Keras's own"
        )
    session.schedule.always = 2  # the first step compiles, which says little of later ones
    session.why_nothing = "no step of fit or train_on_batch was made inside the block"
    return TrainingRecorder(session, Steps(session, model, reference))


class Steps(Training):
    """The steps of a model's trainer.

    Parameters
    ----------
    session : Session
    model : keras.Model
    reference : (x, y), optional
    """

    def __init__(self, session: Session, model: Any, reference: tuple[Any, Any] | None) -> None:
        self._session, self._model = session, model
        self._reference = None if reference is None else pair(reference)
        self._hooks = contextlib.ExitStack()
        # the trainer's function, and that which records
        self._plain: Callable[..., Any] | None = None
        self._watching: Callable[..., Any] | None = None

    def attach(self) -> None:
        """Record the steps of the trainer's function, and of those that it makes from now on."""
        if self._model.train_function is not None:
            self._wrap()
        replace(self._model, "make_train_function", self._make, self._hooks)

    def detach(self, complete: bool) -> None:  # noqa: ARG002
        """Give the trainer its own function back: what is compiled is not compiled again."""
        self._hooks.close()
        if self._watching is not None and self._model.train_function is self._watching:
            self._model.train_function = self._plain
        self._watching = self._plain = None

    # --- the trainer's function -------------------------------------------------------------------

    def _make(self, force: bool = False) -> None:
        model = self._model
        if model.train_function is None or force:
            type(model).make_train_function(model, force)
            self._wrap()

    def _wrap(self) -> None:
        model = self._model
        _check(model.optimizer)
        wrap = self._on_jax if keras.backend.backend() == "jax" else self._on_torch
        self._plain, self._watching = model.train_function, wrap(model.train_function)
        model.train_function = self._watching

    def _on_jax(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        step = self._watched(lambda state, data: plain(state, iter([data])))

        def function(state: State, batches: Iterator[Any]) -> tuple[Any, State]:
            self._check_stopped()
            found, state = step(state, next(batches))
            for data in itertools.islice(batches, self._model.steps_per_execution - 1):
                found, state = step(state, data)
            return found, state

        return function

    def _on_torch(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        model = self._model

        def values() -> State:
            return [[variable.value for variable in one] for one in variables_of(model)]

        step = self._watched(lambda _, data: (plain([data]), values()))

        def function(batches: Any) -> Any:
            self._check_stopped()
            return step(values(), batches[0])[0]

        return function

    def _check_stopped(self) -> None:
        """End a loop that went on after `stop_training`, as loops of one's own do."""
        if self._session.live is not None:
            self._session.live.check()

    def _watched(self, step: Callable[[State, Any], tuple[Any, State]]) -> Any:
        """The trainer's step, recorded."""
        session, measuring = self._session, Measuring(self._session, self._model, self._reference)

        def watched(state: State, data: Any) -> tuple[Any, State]:
            number, complete = session.done + 1, None
            if session.wants(number):
                with session.timed:
                    complete = measuring.before(number, state, data)
            found, after = step(state, data)
            session.done = number
            if complete is not None:
                with session.timed:
                    complete(after)
                session.look()
                if session.live is not None and session.live.stopped is not None:
                    self._model.stop_training = True  # which `fit` heeds after this step
            return found, after

        return watched


# --- what an optimizer does -----------------------------------------------------------------------


def _check(optimizer: Any) -> None:
    """Refuse an optimizer whose update is no step of its own."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise RecordingError(
            "the loss is scaled for half precision (mixed_float16), and it is not seen which steps "
            "are skipped; record with the dtype policy mixed_bfloat16 or float32"
        )
    steps = getattr(optimizer, "gradient_accumulation_steps", None)
    if steps and steps > 1:
        raise RecordingError(
            f"the optimizer accumulates gradients over {steps} batches, and a step is one update; "
            "record with gradient_accumulation_steps=None and a larger batch"
        )
