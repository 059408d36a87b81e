"""TrainingStep: one step of an optimiser on batches of one shape, as a program."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import Any

import numpy as np

from dp.callbacks import Step
from dp.errors import CaptureError
from dp.node import Node
from dp.parameters import members_of
from dp.program.arrays import arrays_of
from dp.program.calls import fitting, quietly, refuse_if_changed
from dp.program.capture import captured_rule
from dp.program.models import captured_loss, check_model
from dp.program.pipeline import compile_graph
from dp.program.reads import apart
from dp.program.source import readable_step
from dp.program.tables import Table
from dp.program.update import FlatUpdate, Stores
from dp.typing import Array
from dp.updates import Updates, update_all


class TrainingStep:
    """One step of an optimiser on batches of one shape, as a program with its buffers.

    While it is in use the parameters live in its flat vector; `load` fetches them from the model,
    and `store` brings them back.

    Attributes
    ----------
    captured : Captured
        The model's loss and gradients.
    arrays : StepArrays
        Where its numbers lie, to be read.
    newer : bool
        Whether its vector is ahead of the model's arrays. One of the two always holds the
        parameters after a whole number of steps, also if an interrupt comes while they are copied.
    """

    def __init__(self, optimizer: Updates, x: Array, y: Array, num_grad_stores: int) -> None:
        check_model(optimizer.model)
        self.optimizer, self.num_grad_stores = optimizer, num_grad_stores
        self.captured = captured_loss(optimizer.model, x, y)
        readers = optimizer.program_callbacks()
        wanted = [value for reader in readers for value in reader.keep(self.captured)]
        self.elementwise = optimizer.elementwise()
        # callbacks, and an update of the user's own, read parameters and gradients in every step
        read = bool(readers) or bool(optimizer.other_callbacks()) or not self.elementwise
        self.compiled = compile_graph(
            self.captured, wanted, by_rows=read, batches=True, stores=num_grad_stores
        )
        self.x, self.y = self.captured.inputs
        edited = bool(optimizer.other_callbacks())
        self.arrays = arrays_of(self.captured, self.compiled, edited, self.elementwise)
        self.loss = self.arrays.loss
        self._trained = list(self.captured.gradients)
        self.rows: list[tuple[Table, Array]] = []
        self.newer = False
        self.named_stores = self._stores()
        self._flat_update = FlatUpdate(optimizer, self.compiled, self.named_stores)
        self.load()

    @cached_property
    def source(self) -> str:
        """The whole step as plain NumPy, to be read; runs on its own."""
        rule = captured_rule(self.optimizer, self.num_grad_stores)
        return readable_step(self.captured, rule, type(self.optimizer).__name__)

    @property
    def fast_source(self) -> str:
        """What computes loss and gradients: the same, into buffers made once."""
        return self.compiled.source

    def __repr__(self) -> str:
        return f"<one step of {type(self.optimizer).__name__}, {self.captured.function}>"

    def __call__(self, x: Any, y: Any, number: int = 1) -> tuple[dict[str, Array], Array]:
        """Make one step on a batch, changing the model's parameters.

        Parameters
        ----------
        x, y : arrays
            Of the captured shapes and dtypes.
        number : int
            Of the step, from 1; some optimisers need it.

        Returns
        -------
        (dict, array)
            Name -> gradient, and the loss, both before the update.

        Raises
        ------
        ShapeError, TypeError
            If the batch has another shape or dtype.
        CaptureError
            If something that the loss depends on has changed since it was captured.
        """
        x, y = fitting(self.x, x), fitting(self.y, y)
        refuse_if_changed(self.captured)
        self.load()
        self.give(x, y)
        with self.quietly():
            self.compiled.run()
        found = self.gradients, self.loss.copy()
        try:
            self.update(number)
            self.store()
        except BaseException:
            self.store()  # again: an interrupt may have come in the middle of it
            raise
        return found

    def quietly(self) -> contextlib.AbstractContextManager[Any]:
        """No warning where a sigmoid's exp overflows on its way to a right result."""
        return quietly(self.captured)

    # --- parameters -------------------------------------------------------------------------------

    def load(self) -> None:
        """Fetch the model's parameters."""
        self.newer = False
        for name, view in self.compiled.views.items():
            np.copyto(view, self.captured.nodes[name].value)

    def store(self) -> None:
        """Bring the parameters back into the model's live arrays, if they are newer here."""
        if self.newer:
            for name, view in self.compiled.views.items():
                np.copyto(self.captured.nodes[name].value, view)
            self.newer = False

    @property
    def gradients(self) -> dict[str, Array]:
        """Name -> gradient, a copy."""
        views = self.compiled.gradient_views
        return {name: np.array(views[name], order="C") for name in self._trained}

    # --- batches ----------------------------------------------------------------------------------

    def prepare_rows(self, x_train: Array, y_train: Array) -> None:
        """Keep the data as the batch's tables are laid out, so that each takes one copy of rows."""
        given = {
            value: data.reshape(len(data), -1).astype(value.dtype, copy=False)
            for value, data in ((self.x, x_train), (self.y, y_train))
        }
        self.rows = [(table, table.of_data(given)) for table in self.compiled.tables]

    def take(self, rows: Array) -> None:
        """Fill the batch with rows of the data; (batch,) or (members, batch)."""
        for table, data in self.rows:
            table.take(data, rows)

    def give(self, x: Any, y: Any) -> None:
        """Fill the batch with a given one."""
        given = {self.x: x, self.y: y}
        for table in self.compiled.tables:
            table.fill(given)

    @property
    def batch(self) -> tuple[Node, Node]:
        """The batch, a copy."""
        arrays = self.compiled.arrays
        return Node(arrays[self.x].copy()), Node(arrays[self.y].copy())

    def fits(self, x: Any, y: Any) -> bool:
        """Whether a batch has the captured shapes and dtypes."""
        return all(
            given.shape == value.shape and given.dtype == value.dtype
            for value, given in ((self.x, x), (self.y, y))
        )

    # --- the update -------------------------------------------------------------------------------

    def _stores(self) -> Stores:
        """What the optimiser keeps, by the parameters' names: views of `state`, where it can be."""
        param = self.optimizer.model.get_param()
        views = [self.compiled.layout.views(store) for store in self.compiled.state[1:]]
        return [
            {
                name: named[name] if self.elementwise and name in named else np.zeros_like(value)
                for name, value in param.items()
            }
            for named in views
        ]

    def update(self, number: int, told: Step | None = None) -> None:
        """Change the parameters by the gradients, by the optimiser's `_update`.

        All of them are changed, or none, also if an interrupt comes. `told` is the step that
        callbacks were told, whose gradients they may have changed, replaced or deleted.
        """
        if not self.elementwise or (told is not None and not self._is_whole(told)):
            self._update_by_name(number, told)
            return
        if told is not None:
            for name in self._trained:
                np.copyto(self.compiled.gradient_views[name], told.grad[name])
        self.newer = True
        self._flat_update(number)

    def end_update(self) -> None:
        """Put right what an interrupt in the middle of an update may have left."""
        self._flat_update.end()

    def _is_whole(self, told: Step) -> bool:
        """Whether callbacks left a gradient, and nothing but that, for every parameter trained."""
        nodes, views = self.captured.nodes, self.compiled.gradient_views
        if told.grad.keys() != self.captured.gradients.keys():
            return False
        return all(
            told.param.get(name) is nodes[name].value
            and type(gradient) is np.ndarray
            and gradient.shape == views[name].shape
            and gradient.dtype == views[name].dtype
            for name, gradient in told.grad.items()
        )

    def _update_by_name(self, number: int, told: Step | None) -> None:
        """Update parameter by parameter in the model, as eager training does."""
        self.store()
        optimizer = self.optimizer
        grad = self.gradients if told is None else told.grad
        param = optimizer.model.get_param() if told is None else told.param
        update_all(optimizer, param, grad, number)
        self.load()

    def verify(self, number: int, loss: bool) -> None:
        """Compare with the model itself, which may do something else than was captured.

        `loss` says whether the loss was computed too.

        Raises
        ------
        CaptureError
            If it gives another loss or other gradients.
        """
        changed = self.captured.guard.changed_large()
        if changed:
            raise CaptureError(
                f"in step {number}, {changed} is not what it was when the loss was captured; it is "
                "too large to be compared in every step: train without compile=True"
            )
        self.store()
        x, y = self.batch

        def eagerly() -> tuple[dict[str, Array], Node]:
            np.seterr(all="ignore")
            found: tuple[dict[str, Array], Node] = self.optimizer.model.get_grad(x, y)
            return found

        right, value = apart(eagerly)
        found = {name: self.compiled.gradient_views[name] for name in self._trained}
        largest = max(float(np.abs(gradient).max(initial=0.0)) for gradient in right.values())
        wrong = right.keys() != found.keys() and "the gradients of other parameters"
        for name in found if not wrong else ():
            if not _close(found[name], right[name], largest):
                wrong = f"another gradient of {name!r}"
        if loss and not _close(self.loss, value.value, float(np.abs(value.value).max())):
            wrong = wrong or "another loss"
        if wrong:
            raise CaptureError(
                f"in step {number} the model gives {wrong} than its program: it depends on "
                "something that changed, such as an attribute, or is random; train without "
                "compile=True"
            )


def _close(found: Array, right: Array, scale: float) -> bool:
    """Whether two results agree, but for rounding; `scale` is the largest number there is."""
    if np.isfinite(scale):
        tolerance = 1e-6 if found.dtype == np.float64 else 1e-2
        return bool(np.allclose(found, right, rtol=tolerance, atol=tolerance * scale))
    if np.isfinite(right).all():
        return True
    # near the largest number, one order of operations overflows and another does not
    far_from_it = np.abs(found).max(initial=0.0) < np.finfo(found.dtype).max ** 0.25
    return not far_from_it


def one_step(optimizer: Updates) -> TrainingStep:
    """Capture one step of an optimiser, on a batch of its data."""
    if optimizer.x_train is None or optimizer.y_train is None:
        raise ValueError("x_train and y_train are needed to capture a step, got None")
    rows = np.arange(optimizer.batch_size) % len(optimizer.x_train)
    members = members_of(optimizer.model)
    if members is not None:
        rows = np.stack([rows] * members)
    x, y = (optimizer._batch(data, rows).value for data in (optimizer.x_train, optimizer.y_train))
    return TrainingStep(optimizer, x, y, optimizer.num_grad_stores)
