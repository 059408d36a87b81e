"""Training with a program: the loop of `Optimizer`, with every step replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp.activations import Activation
from dp.model import Model, Net
from dp.node import CaptureError, Node, ShapeError, no_grad
from dp.program.blocks import zeros
from dp.program.captured import Captured, captured, captured_rule
from dp.program.memory import Table
from dp.program.replay import Replay, fitting, quietly
from dp.program.source import readable_step

if TYPE_CHECKING:
    from dp.optimizers import Optimizer

Array = NDArray[Any]

# Numbers of a flat vector that are updated at once: so few that passing results stay in a cache,
# and so many that memory is read ahead.
CHUNK = 1 << 17
AHEAD = 64  # steps whose batches are drawn at once
MOST_PROGRAMS = 15  # kept besides the one in use, where batches have several shapes


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
        readers = optimizer.program_callbacks()
        wanted = [value for reader in readers for value in reader.keep(self.captured)]
        self.elementwise = optimizer.elementwise()
        # callbacks, and an update of the user's own, read parameters and gradients in every step
        read = bool(readers) or bool(optimizer.other_callbacks()) or not self.elementwise
        self.replay = Replay(self.captured, wanted, by_rows=read, batches=True)
        self.x, self.y = self.captured.inputs
        self.loss = self.replay.arrays[self.captured.output]
        self._trained = list(self.captured.gradients)
        self.rows: list[tuple[Table, Array]] = []
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
        ShapeError, TypeError
            If the batch has another shape or dtype.
        """
        x, y = fitting(self.x, x), fitting(self.y, y)
        self.load()
        self.give(x, y)
        with self.quietly():
            self.replay.run()
        found = self.gradients, self.loss.copy()
        self.update(number)
        self.store()
        return found

    def quietly(self) -> contextlib.AbstractContextManager[Any]:
        """No warning where a sigmoid's exp overflows on its way to a right result."""
        return quietly(self.captured)

    # --- parameters -------------------------------------------------------------------------------

    def load(self) -> None:
        """Fetch the model's parameters."""
        for name, view in self.replay.views.items():
            np.copyto(view, self.captured.nodes[name].value)

    def store(self) -> None:
        """Bring the parameters back into the model's live arrays."""
        for name, view in self.replay.views.items():
            np.copyto(self.captured.nodes[name].value, view)

    @property
    def gradients(self) -> dict[str, Array]:
        """Name -> gradient, a copy."""
        views = self.replay.gradient_views
        return {name: np.array(views[name], order="C") for name in self._trained}

    # --- batches ----------------------------------------------------------------------------------

    def prepare_rows(self, x_train: Array, y_train: Array) -> None:
        """Keep the data as the batch's tables are laid out, so that each takes one copy of rows."""
        given = {
            value: data.reshape(len(data), -1).astype(value.dtype, copy=False)
            for value, data in ((self.x, x_train), (self.y, y_train))
        }
        self.rows = [(table, table.of_data(given)) for table in self.replay.tables]

    def take(self, rows: Array) -> None:
        """Fill the batch with rows of the data; (batch,) or (members, batch)."""
        for table, data in self.rows:
            table.take(data, rows)

    def give(self, x: Any, y: Any) -> None:
        """Fill the batch with a given one."""
        given = {self.x: x, self.y: y}
        for table in self.replay.tables:
            table.fill(given)

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
        replay, param = self.replay, self.optimizer.model.get_param()
        flat, gradient = replay.parameters, replay.gradients
        stores = [zeros(flat.shape, flat.dtype) for _ in range(self.num_grad_stores)]
        views = [replay.planner.parameter_views(store) for store in stores]
        self.named_stores = [
            {
                name: named[name] if self.elementwise and name in named else np.zeros_like(value)
                for name, value in param.items()
            }
            for named in views
        ]
        pieces = {str(at): slice(at, at + CHUNK) for at in range(0, len(flat), CHUNK)}
        self._pieces = {name: flat[piece] for name, piece in pieces.items()}
        self._gradient_pieces = {name: gradient[piece] for name, piece in pieces.items()}
        self._store_pieces = [
            {name: store[piece] for name, piece in pieces.items()} for store in stores
        ]

    def update(self, number: int, grad: dict[str, Array] | None = None) -> None:
        """Change the parameters by the gradients, by the optimiser's `_update`.

        `grad` are gradients that callbacks may have changed.
        """
        optimizer = self.optimizer
        if self.elementwise:
            for name in grad or ():
                if name in self._trained:
                    np.copyto(self.replay.gradient_views[name], grad[name])  # type: ignore[index]
            if not self._store_pieces:
                for piece in self._pieces:
                    optimizer._update(self._pieces, self._gradient_pieces, piece, number)
                return
            optimizer.grad_stores = self._store_pieces
            try:
                for piece in self._pieces:
                    optimizer._update(self._pieces, self._gradient_pieces, piece, number)
            finally:
                optimizer.grad_stores = self.named_stores
            return
        self.store()
        try:
            given = self.gradients if grad is None else grad
            param = optimizer.model.get_param()
            for name in param:
                if name in given:
                    optimizer._update(param, given, name, number)
            optimizer.model.set_param(param)
        finally:
            self.load()

    def verify(self, number: int) -> None:
        """Compare with the model itself, which may by now do something else than was captured.

        Raises
        ------
        CaptureError
            If it gives other gradients.
        """
        self.store()
        arrays = self.replay.arrays
        with np.errstate(all="ignore"):
            right, _ = self.optimizer.model.get_grad(
                Node(arrays[self.x].copy()), Node(arrays[self.y].copy())
            )
        largest = max(float(np.abs(value).max(initial=0.0)) for value in right.values())
        for name, view in self.replay.gradient_views.items():
            if name in right and np.isfinite(largest):
                tolerance = 1e-6 if view.dtype == np.float64 else 1e-2
                if not np.allclose(view, right[name], rtol=tolerance, atol=tolerance * largest):
                    raise CaptureError(
                        f"in step {number} the model gives another gradient of {name!r} than the "
                        "program captured from it: something that its loss uses has changed since, "
                        "such as an attribute, or is random; train without compile=True"
                    )


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
    for method in ("get_grad", "set_param"):
        own = getattr(type(model), method) is not getattr(Model, method)
        if own or method in vars(model):
            raise CaptureError(
                f"{type(model).__name__} has its own {method}, which a program would not call; "
                "train it without compile=True"
            )


def pure(model: Model) -> bool:
    """Whether a model is a net of the library's own, which depends on its parameters alone."""
    own = {"loss", "forward", "logits"} & vars(model).keys()
    return type(model) is Net and isinstance(model.activation, Activation) and not own


def _captured(model: Any, x: Array, y: Array) -> Captured:
    found = captured(model.loss, (x, y), trusted=pure(model))
    if found.output.shape[-2:] != (1, 1):
        raise ShapeError(
            f"{type(model).__name__}.loss must give one number, got shape {found.output.shape}"
        )
    if not found.gradients:
        raise ValueError(f"the loss of {type(model).__name__} depends on none of its parameters")
    strangers = set(found.nodes) - set(model.get_param())
    if strangers:
        raise CaptureError(
            f"the loss uses named Nodes that are no parameters of the model: "
            f"{', '.join(sorted(strangers))}; a program would freeze them"
        )
    return found


def _check_labels(optimizer: Optimizer) -> None:
    """Let a net's loss look at every label there is, as eager steps would in time."""
    net = optimizer.model
    if not isinstance(net, Net) or net.loss_name != "cross_entropy":
        return
    x, y = optimizer.x_train, optimizer.y_train
    _, first = np.unique(y.reshape(len(y), -1), axis=0, return_index=True)
    with no_grad(), np.errstate(all="ignore"):
        net.loss(optimizer._batch(x, first), optimizer._batch(y, first))


def train(optimizer: Optimizer, steps: int, num_grad_stores: int, print_each: int | None) -> Array:
    """Train as `Optimizer._train` does, with the same batches and, but for rounding, results.

    The model's parameters are up to date whenever a callback is called, and at the end, also if
    that comes by an exception.
    """
    loop = _Loop(optimizer, num_grad_stores)
    readers, doubts, others = loop.readers, loop.doubts, loop.others
    reads_loss = loop.reads_loss
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)
        for number in range(1, steps + 1):
            shown = print_each and (number == 1 or number % print_each == 0)
            loop.fill(number, steps)
            now = loop.now
            if number == 1:
                stack.enter_context(now.quietly())
            now.replay.run(reads_loss or bool(shown) or number == steps)
            # 2, 4, 8, …: what changes is found in time, at little cost
            if doubts and number > 1 and not number & (number - 1):
                now.verify(number)
            if shown:
                optimizer._print(number, now.loss)
            for reader in readers:
                reader.before_program_update(number, now)
            now.update(number, loop.tell(number) if others else None)
            for reader in readers:
                reader.after_program_update(number, now)
            if others:
                loop.tell_after()
    last: Array = loop.now.loss.copy()
    return last


class _Loop:
    """The batches, the program for their shape, and whom to call."""

    def __init__(self, optimizer: Optimizer, num_grad_stores: int) -> None:
        _check_model(optimizer.model)
        self.optimizer, self.num_grad_stores = optimizer, num_grad_stores
        self.readers = optimizer.program_callbacks()
        self.others = optimizer.other_callbacks()
        self.reads_loss = bool(self.others) or any(reader.reads_loss for reader in self.readers)
        self.doubts = not pure(optimizer.model)
        self.programs: list[TrainingStep] = []
        self.now: TrainingStep  # the program in use, the last of them
        # callbacks may change the data, the batch size, or draw numbers themselves
        self.draws = not self.others and optimizer.draws_rows()
        self.ahead: list[Array] = []
        self._drawn = 0
        self._states: list[Any] = []
        if self.draws:
            _check_labels(optimizer)

    def fill(self, number: int, steps: int) -> None:
        """Fill the batch of step `number`."""
        if self.draws:
            if not self.ahead:
                self._draw(steps + 1 - number)
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

    def _draw(self, most: int) -> None:
        """Draw the rows of the next steps; of NumPy's global stream, which others use, of one."""
        streams = self.optimizer._streams
        count = 1 if streams is None else min(AHEAD, most)
        self._states = [stream.bit_generator.state for stream in streams or ()]
        self._drawn = count
        self.ahead = self.optimizer.draw_rows(count)[::-1]

    def _use(self, x: Array, y: Array) -> None:
        """Make the program for a batch's shape the one in use; capture it if it is new."""
        if self.programs and self.now.fits(x, y):
            return
        before = self.now if self.programs else None
        if before is not None:
            before.store()
        known = [program for program in self.programs if program.fits(x, y)]
        if known:
            self.programs.remove(known[0])
        self.now = known[0] if known else TrainingStep(self.optimizer, x, y, self.num_grad_stores)
        self.programs = [*self.programs[-MOST_PROGRAMS:], self.now]
        self.now.load()
        if before is not None:
            for old, new in zip(before.named_stores, self.now.named_stores, strict=True):
                for name in new:
                    np.copyto(new[name], old[name])
        self.optimizer.grad_stores = self.now.named_stores

    def tell(self, number: int) -> dict[str, Array]:
        """Tell callbacks that take steps, before the update; gives the gradients they leave."""
        from dp.optimizers import Callback, Step

        now = self.now
        arrays = now.replay.arrays
        x, y = Node(arrays[now.x].copy()), Node(arrays[now.y].copy())
        loss = Node(now.loss.copy())
        with self._parameters_in_the_model():
            self.told = Step(number, x, y, loss, now.gradients, self.optimizer.model.get_param())
            for callback in self.others:
                if isinstance(callback, Callback):
                    callback.before_update(self.told)
        return self.told.grad

    def tell_after(self) -> None:
        """Tell callbacks that take steps, after the update."""
        from dp.optimizers import Callback

        with self._parameters_in_the_model():
            for callback in self.others:
                if isinstance(callback, Callback):
                    callback.after_update(self.told)
                else:
                    callback(self.told)

    @contextlib.contextmanager
    def _parameters_in_the_model(self) -> Iterator[None]:
        """Callbacks find them there and may change them, even if they then raise."""
        self.now.store()
        try:
            yield
        finally:
            self.now.load()

    def close(self) -> None:
        """Leave model and optimiser as eager training would."""
        if self.ahead:  # go back, and forward again as far as was used
            for stream, state in zip(self.optimizer._streams or (), self._states, strict=True):
                stream.bit_generator.state = state
            if len(self.ahead) < self._drawn:
                self.optimizer.draw_rows(self._drawn - len(self.ahead))
        if self.programs:
            self.now.store()
