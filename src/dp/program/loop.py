"""The training loop of `Optimizer`, with every step replayed by a program."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dp import primitives as p
from dp.batches import STREAMS, streams_of
from dp.callbacks import Callback, ProgramCallback, Step
from dp.errors import CaptureError
from dp.node import Node
from dp.program.guards import Guard
from dp.program.models import check_labels, check_model, pure
from dp.program.step import TrainingStep
from dp.typing import Array
from dp.updates import Updates

AHEAD = 64  # steps whose batches are drawn at once
ASK = 512  # steps after which a change is asked for that only another thread could have made
MOST_PROGRAMS = 15  # kept besides the one in use, where batches have several shapes


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
        check_model(optimizer.model)
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
            now.compiled.run(with_loss)
            # 1, 2, 4, 8, … and the last: what changes unseen is found in time, at little cost
            if self.doubts and (last or not number & (number - 1)):
                self._verify(number, with_loss)
            if shown:
                self.optimizer._print(number, now.loss)
            for reader in readers:
                reader.before_program_update(number, now.arrays)
            now.update(number, self.tell(number) if others else None)
            for reader in readers:
                reader.after_program_update(number, now.arrays)
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
            {name: view.copy() for name, view in now.compiled.views.items()},
            [{name: a.copy() for name, a in store.items()} for store in now.named_stores],
        )

    def _put_back(self, before: _Verified) -> None:
        now = self._in_use()
        # of another batch's shape, a program may lay them out differently
        for name, value in before.param.items():
            np.copyto(now.compiled.views[name], value)
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
            check_labels(self.optimizer, now.captured)
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
