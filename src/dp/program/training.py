"""Training with a program: the loop of `Optimizer`, with every step replayed."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.activations import Activation
from dp.batches import STREAMS, streams_of
from dp.callbacks import Callback, ProgramCallback, Step
from dp.errors import CaptureError, ShapeError
from dp.mode import MODE, mode
from dp.model import Model
from dp.net import Net
from dp.node import Node
from dp.parameters import members_of, registered
from dp.program.captured import Captured, captured, captured_rule
from dp.program.guards import Guard
from dp.program.memory import Table
from dp.program.replay import Replay, fitting, quietly
from dp.program.source import readable_step
from dp.program.watching import apart
from dp.untrained import check_stack, of_other_models
from dp.updates import Updates, update_all

Array = NDArray[Any]

# Numbers of a flat vector that are updated at once: so few that passing results stay in a cache,
# and so many that memory is read ahead.
CHUNK = 1 << 17
AHEAD = 64  # steps whose batches are drawn at once
ASK = 512  # steps after which a change is asked for that only another thread could have made
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
    newer : bool
        Whether its vector is ahead of the model's arrays. One of the two always holds the
        parameters after a whole number of steps, also if an interrupt comes while they are copied.
    """

    def __init__(self, optimizer: Updates, x: Array, y: Array, num_grad_stores: int) -> None:
        _check_model(optimizer.model)
        self.optimizer, self.num_grad_stores = optimizer, num_grad_stores
        self.captured = _captured(optimizer.model, x, y)
        readers = optimizer.program_callbacks()
        wanted = [value for reader in readers for value in reader.keep(self.captured)]
        self.elementwise = optimizer.elementwise()
        # callbacks, and an update of the user's own, read parameters and gradients in every step
        read = bool(readers) or bool(optimizer.other_callbacks()) or not self.elementwise
        self.replay = Replay(
            self.captured, wanted, by_rows=read, batches=True, stores=num_grad_stores
        )
        self.x, self.y = self.captured.inputs
        self.loss = self.replay.arrays[self.captured.output]
        self._trained = list(self.captured.gradients)
        self.rows: list[tuple[Table, Array]] = []
        self.newer = False
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
        CaptureError
            If something that the loss depends on has changed since it was captured.
        """
        x, y = fitting(self.x, x), fitting(self.y, y)
        refuse_if_changed(self.captured)
        self.load()
        self.give(x, y)
        with self.quietly():
            self.replay.run()
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
        for name, view in self.replay.views.items():
            np.copyto(view, self.captured.nodes[name].value)

    def store(self) -> None:
        """Bring the parameters back into the model's live arrays, if they are newer here."""
        if self.newer:
            for name, view in self.replay.views.items():
                np.copyto(self.captured.nodes[name].value, view)
            self.newer = False

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

    @property
    def batch(self) -> tuple[Node, Node]:
        """The batch, a copy."""
        arrays = self.replay.arrays
        return Node(arrays[self.x].copy()), Node(arrays[self.y].copy())

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
        stores = list(replay.state[1:])
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
        # an update of a piece that is one operation happens as a whole or not at all
        self._spare: dict[str, tuple[Array, Array]] = {}
        if stores or len(pieces) > 1:
            spare = np.empty((len(replay.state), min(CHUNK, len(flat))), flat.dtype)
            for name, piece in pieces.items():
                live = replay.state[:, piece]
                self._spare[name] = spare[:, : live.shape[1]], live

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
                np.copyto(self.replay.gradient_views[name], told.grad[name])
        self.newer = True
        optimizer, pieces, gradients = self.optimizer, self._pieces, self._gradient_pieces
        if not self._spare:
            optimizer._update(pieces, gradients, "0", number)
            return
        optimizer.grad_stores = self._store_pieces
        try:
            if len(pieces) > 1:
                self._update_pieces(number)
                return
            spare, live = self._spare["0"]
            spare[...] = live
            try:
                optimizer._update(pieces, gradients, "0", number)
            except BaseException:
                live[...] = spare
                raise
        finally:
            optimizer.grad_stores = self.named_stores

    def _update_pieces(self, number: int) -> None:
        """Update piece by piece; if an interrupt comes, complete the step, or undo it."""
        piece = begun = ""  # the piece in turn; the one that `spare` belongs to
        try:
            for piece in self._pieces:
                begun = ""
                spare, live = self._spare[piece]
                spare[...] = live
                begun = piece
                self.optimizer._update(self._pieces, self._gradient_pieces, piece, number)
        except BaseException:
            self._mend(piece, begun, number)
            raise

    def end_update(self) -> None:
        """Give the optimiser its stores by name, if an interrupt has left it those of pieces."""
        if self.optimizer.grad_stores is self._store_pieces:
            self.optimizer.grad_stores = self.named_stores

    def _mend(self, piece: str, begun: str, number: int) -> None:
        """Undo an update that an interrupt came into, or, of many pieces, complete it.

        `begun` is the piece that may be changed in part; its numbers from before are kept.
        """
        if begun:
            spare, live = self._spare[begun]
            live[...] = spare
        names = list(self._pieces)
        rest = names[names.index(begun or piece) :] if begun or piece else []
        if len(rest) < len(names):
            for name in rest:
                self.optimizer._update(self._pieces, self._gradient_pieces, name, number)

    def _is_whole(self, told: Step) -> bool:
        """Whether callbacks left a gradient, and nothing but that, for every parameter trained."""
        nodes, views = self.captured.nodes, self.replay.gradient_views
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
        found = {name: self.replay.gradient_views[name] for name in self._trained}
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


def refuse_if_changed(captured: Captured) -> None:
    """Raise CaptureError if something that a function depends on has changed since its capture."""
    changed = captured.guard.changed() or captured.guard.changed_large()
    if changed:
        raise CaptureError(
            f"{changed} has changed since {captured.function!r} was captured, which depends on it; "
            "capture anew"
        )


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


def _check_model(model: Any) -> None:
    if not isinstance(model, Model):
        raise CaptureError(f"only a dp.Model can be compiled, got {type(model).__name__}")
    for method in ("get_grad", "get_param", "set_param"):
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
    kept = registered(model)
    own = {} if kept is None else kept.parameters
    if kept is not None and len(found.output.shape) > 2:
        check_stack(type(model).__name__, kept, found.output.shape)
    others = of_other_models(found.nodes, own)
    if others:
        raise CaptureError(
            f"the loss depends on parameters of another model ({', '.join(others)}), which a "
            "program would freeze; train it without compile=True, or make the layers in this model"
        )
    strangers = sorted(name for name, node in found.nodes.items() if own.get(name) is not node)
    if strangers:
        raise CaptureError(
            f"the loss uses named Nodes that are no parameters of the model: "
            f"{', '.join(strangers)}; a program would freeze them. Make a parameter in __init__: "
            f'self.w = self.Parameter(value, "{strangers[0]}")'
        )
    return found


def _check_labels(optimizer: Updates, step: TrainingStep) -> None:
    """Let a loss of the library's own look at every label, as eager steps would in time."""
    model, x, y = optimizer.model, optimizer.x_train, optimizer.y_train
    if not step.captured.checks_labels:
        return
    if isinstance(model, Net) and model.loss_name != "cross_entropy":
        return
    _, first = np.unique(y.reshape(len(y), -1), axis=0, return_index=True)
    size = optimizer.batch_size
    rows = np.resize(first, -(-len(first) // size) * size).reshape(-1, size)
    members = members_of(model)

    def look() -> None:
        np.seterr(all="ignore")
        MODE.set(mode()._replace(recording=False))
        for batch in rows:
            picked = batch if members is None else np.stack([batch] * members)
            model.loss(optimizer._batch(x, picked), optimizer._batch(y, picked))

    apart(look)


class Outcome(NamedTuple):
    """How far a program came: steps made, the last loss, and the batch drawn for the next step."""

    done: int
    loss: Array | None = None
    batch: tuple[Node, Node] | None = None


def train(optimizer: Updates, steps: int, num_grad_stores: int, print_each: int | None) -> Outcome:
    """Train as `Optimizer._train` does, with the same batches and, but for rounding, results.

    The model's parameters are up to date whenever a callback is called, and at the end, also if
    that comes by an exception. If something changes that the loss depends on, the steps from there
    on are left to eager training.

    Raises
    ------
    CaptureError
        If the loss cannot be captured, or turns out to be another than was captured; parameters
        are then put back to where both agreed last.
    """
    loop = _Loop(optimizer, num_grad_stores)
    try:
        try:
            return loop.run(steps, print_each)
        finally:
            loop.close()
    except BaseException:
        loop.close()  # again: an interrupt may have come in the middle of it
        raise


class _Verified(NamedTuple):
    """Where program and model agreed last: steps made before, parameters and stores then."""

    done: int
    param: dict[str, Array]
    stores: list[dict[str, Array]]


class _Loop:
    """The batches, the program for their shape, and whom to call."""

    def __init__(self, optimizer: Updates, num_grad_stores: int) -> None:
        _check_model(optimizer.model)
        self.optimizer, self.num_grad_stores = optimizer, num_grad_stores
        self.readers = optimizer.program_callbacks()
        self.others = optimizer.other_callbacks()
        self.reads_loss = bool(self.others) or any(reader.reads_loss for reader in self.readers)
        self.doubts = not pure(optimizer.model)
        self.programs: list[TrainingStep] = []
        self.now: TrainingStep | None = None  # the program in use
        # code that is not the library's runs between the steps, and may change anything
        rows = optimizer.draws_rows()
        self.strange = (
            bool(self.others)
            or not (rows and optimizer.elementwise())
            or not all(reader.only_reads for reader in self.readers)
        )
        # it may change the data or the batch size, or draw numbers: then nothing is drawn ahead
        self.draws = not self.strange
        self.labels = rows  # whether they are all in the data
        # generators' states, how many batches were drawn from there, and those not used yet
        self._chunk: tuple[list[Any], int, list[Array]] = ([], 0, [])
        self._errors = np.geterr()
        self._verified: _Verified | None = None
        self._own = Guard()

    def run(self, steps: int, print_each: int | None) -> Outcome:
        """Make the steps."""
        if not _readers_come_first(self.optimizer):  # they are to see what the others have changed
            return Outcome(0)
        readers, others, strange = self.readers, self.others, self.strange
        for number in range(1, steps + 1):
            shown = bool(print_each) and (number == 1 or number % print_each == 0)  # type: ignore[operator]
            last = number == steps
            rows = self._chunk[2]
            if strange or last or not rows or number % ASK == 1:
                left = self.fill(steps + 1 - number, strange or last or number % ASK == 1)
                if left is not None:
                    return Outcome(number - 1, None, left)
                now = self._in_use()
            else:  # nearly always
                now.take(rows.pop())
            with_loss = self.reads_loss or shown or last
            now.replay.run(with_loss)
            # 1, 2, 4, 8, … and the last: what changes unseen is found in time, at little cost
            if self.doubts and (last or not number & (number - 1)):
                self._verify(number, with_loss)
            if shown:
                self.optimizer._print(number, now.loss)
            for reader in readers:
                reader.before_program_update(number, now)
            now.update(number, self.tell(number) if others else None)
            for reader in readers:
                reader.after_program_update(number, now)
            if others:
                self.tell_after()
        return Outcome(steps, now.loss.copy())

    def _in_use(self) -> TrainingStep:
        assert self.now is not None
        return self.now

    # --- whether the program is still the model ---------------------------------------------------

    def _changed(self) -> bool:
        """Whether something has changed that model or optimiser depend on."""
        return bool(self._in_use().captured.guard.changed() or self._own.changed())

    def _watch_optimizer(self) -> None:
        """Watch what the loop itself has taken over from model and optimiser."""
        optimizer, self._own = self.optimizer, Guard()
        names = ["model", "callbacks", "_update", "random_batch", "draw_rows", "_batch", STREAMS]
        names += ["y_train", *(["batch_size", "x_train"] if self.draws else [])]
        self._own.watch(optimizer, [*names, "grad_stores"], "optimizer")
        self._own.watch(
            optimizer.model, ("loss", "get_grad", "get_param", "set_param", "members"), "model"
        )
        for thing in (optimizer._callbacks(), optimizer.grad_stores, *optimizer.grad_stores):
            if isinstance(thing, (list, dict)):
                self._own.watch_contents(thing, "optimizer")

    def _verify(self, number: int, with_loss: bool) -> None:
        """Compare program and model; if they differ, go back to where they agreed last."""
        now = self._in_use()
        before = self._verified
        try:
            now.verify(number, with_loss)
        except CaptureError as error:
            if before is None:
                raise
            self._put_back(before)
            raise CaptureError(
                f"{error} (the parameters are those after step {before.done} again)"
            ) from None
        self._verified = _Verified(
            number - 1,
            {name: view.copy() for name, view in now.replay.views.items()},
            [{name: a.copy() for name, a in store.items()} for store in now.named_stores],
        )

    def _put_back(self, before: _Verified) -> None:
        now = self._in_use()
        # of another batch's shape, a program may lay them out differently
        for name, value in before.param.items():
            np.copyto(now.replay.views[name], value)
        now.newer = True
        for store, kept in zip(now.named_stores, before.stores, strict=True):
            for name, value in kept.items():
                np.copyto(store[name], value)
        for reader in self.readers:
            reader.undone(before.done)

    # --- batches ----------------------------------------------------------------------------------

    def fill(self, left: int, ask: bool) -> tuple[Node, Node] | None:
        """Fill the batch of a step; gives it back if the program is not the model any more.

        `left` is the number of steps to come, this one included; `ask` says whether to find out.
        """
        if self.draws:
            rows = (self._chunk[2] or self._draw(left)).pop()
            now = self.now
            if now is None:
                data = (self.optimizer.x_train, self.optimizer.y_train)
                now = self._use(*(self.optimizer._batch(part, rows).value for part in data))
                now.prepare_rows(*data)
                self._look_at_labels(now)
            now.take(rows)
            return now.batch if ask and self._changed() else None
        x, y = (
            part if isinstance(part, Node) else Node(part) for part in self.optimizer.random_batch()
        )
        if self.now is not None and self._changed():
            return x, y
        now = self._use(x.value, y.value)
        now.give(x.value, y.value)
        self._look_at_labels(now)
        return None

    def _look_at_labels(self, now: TrainingStep) -> None:
        """Let a loss of the library's own look at every label, as eager steps would in time."""
        if self.labels:
            _check_labels(self.optimizer, now)
            self.labels = False

    def _draw(self, most: int) -> list[Array]:
        """Draw the rows of the next steps; of NumPy's global stream, which others use, of one."""
        streams = streams_of(self.optimizer)
        count = 1 if streams is None else min(AHEAD, most)
        states = [stream.bit_generator.state for stream in streams or ()]
        self._chunk = (states, 0, [])
        rows = self.optimizer.draw_rows(count)[::-1]
        self._chunk = (states, count, rows)
        return rows

    def _use(self, x: Array, y: Array) -> TrainingStep:
        """Make the program for a batch's shape the one in use; capture it if it is new."""
        before = self.now
        if before is not None:
            if before.fits(x, y):
                return before
            before.store()
        known = [program for program in self.programs if program.fits(x, y)]
        now = known[0] if known else TrainingStep(self.optimizer, x, y, self.num_grad_stores)
        now.load()
        if before is None:
            if any(value.primitive is p.sigmoid for value in now.captured.values()):
                np.seterr(over="ignore")  # on its way to a right result
        else:
            for old, new in zip(before.named_stores, now.named_stores, strict=True):
                for name in new:
                    np.copyto(new[name], old[name])
        others = [program for program in self.programs if program is not now]
        self.programs = [*others[-MOST_PROGRAMS:], now]
        self.now = now
        self.optimizer.grad_stores = now.named_stores
        self._watch_optimizer()
        return now

    # --- callbacks --------------------------------------------------------------------------------

    def tell(self, number: int) -> Step:
        """Tell callbacks that take steps, before the update; gives what they were told."""
        now = self._in_use()
        x, y = now.batch
        loss = Node(now.loss.copy())
        now.store()  # callbacks find the parameters there and may change them, even if they raise
        self.told = Step(number, x, y, loss, now.gradients, self.optimizer.model.get_param())
        for callback in self.others:
            if isinstance(callback, Callback):
                callback.before_update(self.told)
        now.load()
        return self.told

    def tell_after(self) -> None:
        """Tell callbacks that take steps, after the update."""
        now = self._in_use()
        now.store()
        for callback in self.others:
            if isinstance(callback, Callback):
                callback.after_update(self.told)
            else:
                callback(self.told)
        now.load()

    def close(self) -> None:
        """Leave model, optimiser and NumPy as eager training would; twice is as good as once."""
        np.seterr(**self._errors)
        states, drawn, left = self._chunk
        if left or (states and not drawn):  # go back, and forward again as far as was used
            for stream, state in zip(streams_of(self.optimizer) or (), states, strict=True):
                stream.bit_generator.state = state
            if len(left) < drawn:
                self.optimizer.draw_rows(drawn - len(left))
        now = self.now
        if now is not None:
            now.store()
            now.end_update()


def _readers_come_first(optimizer: Updates) -> bool:
    """Whether no callback that reads a step's buffers stands behind one that may change it."""
    kinds = [isinstance(callback, ProgramCallback) for callback in optimizer._callbacks()]
    return kinds == sorted(kinds, reverse=True)
