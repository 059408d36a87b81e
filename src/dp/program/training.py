"""Training with a program: the loop of `Optimizer`, with every step replayed."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.model import Model
from dp.node import CaptureError, Node, ShapeError, no_grad
from dp.program.captured import Captured, captured, captured_rule
from dp.program.replay import Replay
from dp.program.source import readable_step

if TYPE_CHECKING:
    from dp.optimizers import Optimizer

Array = NDArray[Any]

# Numbers of a flat vector that are updated at once: what stays in a core's cache meanwhile.
CHUNK = 1 << 15
AHEAD = 64  # steps whose batches are drawn at once


class TrainingStep:
    """One step of an optimiser on batches of one shape, as a program with its buffers.

    While it is in use the parameters live in its flat vector; `load` fetches them from the model,
    and `store` brings them back.

    Attributes
    ----------
    captured : Captured
        The model's loss and gradients.
    replay : Replay
    """

    def __init__(self, optimizer: Optimizer, x: Array, y: Array, num_grad_stores: int) -> None:
        _check_model(optimizer.model)
        self.optimizer, self.num_grad_stores = optimizer, num_grad_stores
        self.captured = _captured(optimizer.model, x, y)
        wanted = [
            value
            for callback in optimizer.program_callbacks()
            for value in callback.keep(self.captured)
        ]
        self.replay = Replay(self.captured, wanted)
        self.x, self.y = self.captured.inputs
        self.loss = self.replay.arrays[self.captured.output]
        self._live = {name: node.value for name, node in self.captured.nodes.items()}
        self._trained = list(self.captured.gradients)
        self.rows: list[tuple[Array, Array]] = []
        self._prepare_update()
        self.load()

    @cached_property
    def source(self) -> str:
        """The whole step as plain NumPy, to be read; runs on its own."""
        rule = captured_rule(self.optimizer, self.num_grad_stores)
        return readable_step(self.captured, rule, type(self.optimizer).__name__)

    @property
    def fast_source(self) -> str:
        """What computes loss and gradients: the same, into buffers made once."""
        return self.replay.source

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
        ShapeError
            If the batch has another shape or dtype.
        """
        if not self.fits(x, y):
            raise ShapeError(
                f"the step was captured for x {self.x.shape} {self.x.dtype} and y {self.y.shape} "
                f"{self.y.dtype}, got {x.shape} {x.dtype} and {y.shape} {y.dtype}"
            )
        self.load()
        self.give(x, y)
        self.replay.run()
        found = self.gradients, self.loss.copy()
        self.optimizer.grad_stores = self.stores
        self.update(number)
        self.store()
        return found

    # --- parameters -------------------------------------------------------------------------------

    def load(self) -> None:
        """Fetch the model's parameters."""
        for name, view in self.replay.views.items():
            np.copyto(view, self._live[name])

    def store(self) -> None:
        """Bring the parameters back into the model's live arrays."""
        for name, view in self.replay.views.items():
            np.copyto(self._live[name], view)

    @property
    def gradients(self) -> dict[str, Array]:
        """Name -> gradient, a copy."""
        views = self.replay.gradient_views
        return {name: np.array(views[name], order="C") for name in self._trained}

    # --- batches ----------------------------------------------------------------------------------

    def prepare_rows(self, x_train: Array, y_train: Array) -> None:
        """Keep the data so that a batch is one operation per array: with the column of ones."""
        self.rows = []
        for value, data in ((self.x, x_train), (self.y, y_train)):
            place = self.replay.full[value]
            table = np.ones((len(data), place.shape[-1]), value.dtype)
            table[:, : value.shape[-1]] = data.reshape(len(data), -1)
            self.rows.append((table, place))

    def take(self, rows: Array) -> None:
        """Fill the batch with rows of the data; (batch,) or (members, batch)."""
        for table, place in self.rows:
            table.take(rows, 0, place, "clip")

    def give(self, x: Any, y: Any) -> None:
        """Fill the batch with a given one."""
        for value, given in ((self.x, x), (self.y, y)):
            np.copyto(self.replay.arrays[value], given)

    def fits(self, x: Any, y: Any) -> bool:
        """Whether a batch has the captured shapes and dtypes."""
        return all(
            given.shape == value.shape and given.dtype == value.dtype
            for value, given in ((self.x, x), (self.y, y))
        )

    # --- the update -------------------------------------------------------------------------------

    def _prepare_update(self) -> None:
        """Parameters, gradients and stores as the pieces in which they are updated.

        An update of the library's own acts on each number alone, so it takes the flat vectors in
        pieces that fit a cache; one of the user's own takes parameter by parameter.
        """
        optimizer, replay = self.optimizer, self.replay
        flat, gradient = replay.parameters, replay.gradients
        self.own = optimizer.elementwise()
        stores = [np.zeros_like(flat) for _ in range(self.num_grad_stores)]
        self.named_stores = [
            {n: v for n, v in replay.planner.parameter_views(store).items() if n in self._trained}
            for store in stores
        ]
        if self.own:
            pieces = {f"{at}": slice(at, at + CHUNK) for at in range(0, len(flat), CHUNK)}
            self.param = {name: flat[piece] for name, piece in pieces.items()}
            self.grad = {name: gradient[piece] for name, piece in pieces.items()}
            self.stores = [
                {name: store[piece] for name, piece in pieces.items()} for store in stores
            ]
        else:
            self.param = {name: replay.views[name] for name in self._trained}
            self.grad = {name: replay.gradient_views[name] for name in self._trained}
            self.stores = self.named_stores

    def update(self, number: int) -> None:
        """Change the parameters by the gradients, by the optimiser's `_update`."""
        param = self.param
        for name in self.param:
            self.optimizer._update(param, self.grad, name, number)
        if not self.own:
            for name, view in self.replay.views.items():
                if name in param and param[name] is not view:  # replaced instead of changed
                    np.copyto(view, param[name])
                    param[name] = view


def one_step(optimizer: Optimizer) -> TrainingStep:
    """Capture one step of an optimiser, on a batch of its data."""
    if optimizer.x_train is None or optimizer.y_train is None:
        raise ValueError("x_train and y_train are needed to capture a step, got None")
    rows = np.arange(optimizer.batch_size) % len(optimizer.x_train)
    members = getattr(optimizer.model, "members", None)
    if members is not None:
        rows = np.stack([rows] * members)
    x, y = (optimizer._batch(data, rows).value for data in (optimizer.x_train, optimizer.y_train))
    return TrainingStep(optimizer, x, y, optimizer.num_grad_stores)


def _check_model(model: Any) -> None:
    if not isinstance(model, Model):
        raise CaptureError(f"only a dp.Model can be compiled, got {type(model).__name__}")
    if type(model).get_grad is not Model.get_grad:
        raise CaptureError(
            f"{type(model).__name__} has its own get_grad, which a program would not call; train "
            "it without compile=True"
        )


def _captured(model: Any, x: Array, y: Array) -> Captured:
    found = captured(model.loss, (x, y))
    if found.output.shape[-2:] != (1, 1):
        raise ShapeError(
            f"{type(model).__name__}.loss must give one number, got shape {found.output.shape}"
        )
    strangers = set(found.nodes) - set(model.get_param())
    if strangers:
        raise CaptureError(
            f"the loss uses named Nodes that are no parameters of the model: "
            f"{', '.join(sorted(strangers))}; a program would freeze them"
        )
    return found


def check_labels(optimizer: Optimizer) -> None:
    """Let the model's loss look at every label there is, as eager steps would in time."""
    x, y = optimizer.x_train, optimizer.y_train
    _, first = np.unique(y.reshape(len(y), -1), axis=0, return_index=True)
    # a ShapeError comes from a loss that takes batches of one size only
    with no_grad(), np.errstate(all="ignore"), contextlib.suppress(ShapeError):
        optimizer.model.loss(optimizer._batch(x, first), optimizer._batch(y, first))


def train(optimizer: Optimizer, steps: int, num_grad_stores: int, print_each: int | None) -> Array:
    """Train as `Optimizer._train` does, with the same batches and, but for rounding, results.

    The model's parameters are up to date whenever a callback is called, and at the end, also if
    that comes by an exception.
    """
    loop = _Loop(optimizer, num_grad_stores)
    readers = loop.readers
    try:
        for number in range(1, steps + 1):
            shown = print_each and (number == 1 or number % print_each == 0)
            loop.fill(number, steps)
            now = loop.now
            now.replay.run(loop.reads_loss or bool(shown) or number == steps)
            if shown:
                optimizer._print(number, now.loss)
            for reader in readers:
                reader.before_program_update(number, now)
            if loop.others:
                loop.tell(number)
            now.update(number)
            for reader in readers:
                reader.after_program_update(number, now)
            if loop.others:
                loop.tell_after()
    finally:
        loop.close()
    last: Array = loop.now.loss.copy()
    return last


class _Loop:
    """The batches, the program for their shape, and whom to call."""

    def __init__(self, optimizer: Optimizer, num_grad_stores: int) -> None:
        _check_model(optimizer.model)
        self.optimizer, self.num_grad_stores = optimizer, num_grad_stores
        self.readers = optimizer.program_callbacks()
        self.others = [c for c in optimizer.callbacks if c not in self.readers]
        self.reads_loss = bool(self.others) or any(reader.reads_loss for reader in self.readers)
        self.programs: list[TrainingStep] = []
        self.now: TrainingStep  # the program in use, the last of them
        self.draws = optimizer.draws_rows()
        self.ahead: list[Array] = []
        check_labels(optimizer)

    def fill(self, number: int, steps: int) -> None:
        """Fill the batch of step `number`."""
        if self.draws:
            if not self.ahead:
                self.ahead = self.optimizer.draw_rows(min(AHEAD, steps + 1 - number))[::-1]
            rows = self.ahead.pop()
            if not self.programs:
                data = (self.optimizer.x_train, self.optimizer.y_train)
                self._use(*(self.optimizer._batch(part, rows).value for part in data))
                self.now.prepare_rows(*data)
            self.now.take(rows)
        else:
            x, y = (
                part.value if isinstance(part, Node) else Node(part).value
                for part in self.optimizer.random_batch()
            )
            self._use(x, y)
            self.now.give(x, y)

    def _use(self, x: Array, y: Array) -> None:
        """Make the program for a batch's shape the one in use; capture it if it is new."""
        if self.programs and self.now.fits(x, y):
            return
        stores = self.now.named_stores if self.programs else []
        if self.programs:
            self.now.store()
        known = [program for program in self.programs if program.fits(x, y)]
        if known:
            self.programs.remove(known[0])
        self.now = known[0] if known else TrainingStep(self.optimizer, x, y, self.num_grad_stores)
        self.programs.append(self.now)
        self.now.load()
        for old, new in zip(stores, self.now.named_stores, strict=False):
            for name in new:
                np.copyto(new[name], old[name])
        self.optimizer.grad_stores = self.now.stores

    def tell(self, number: int) -> None:
        """Tell callbacks that take steps, before the update."""
        from dp.optimizers import Callback, Step

        now = self.now
        now.store()
        arrays = now.replay.arrays
        x, y = Node(arrays[now.x].copy()), Node(arrays[now.y].copy())
        loss = Node(now.loss.copy())
        self.told = Step(number, x, y, loss, now.gradients, self.optimizer.model.get_param())
        for callback in self.others:
            if isinstance(callback, Callback):
                callback.before_update(self.told)
        now.load()

    def tell_after(self) -> None:
        """Tell callbacks that take steps, after the update."""
        from dp.optimizers import Callback

        self.now.store()
        for callback in self.others:
            if isinstance(callback, Callback):
                callback.after_update(self.told)
            else:
                callback(self.told)
        self.now.load()

    def close(self) -> None:
        """Leave model and optimiser as eager training would."""
        self.optimizer.rows_ahead = self.ahead[::-1]
        if self.programs:
            self.now.store()
            self.optimizer.grad_stores = self.now.named_stores
