"""Trials of a user's own model of PyTorch: made and trained again, with one change."""

from __future__ import annotations

import inspect
import math
import random
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from dp.typing import Array
from gradiometer.recording import record
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.recorder import TrainingRecorder
from gradiometer.remedies.applying import Deadline, NotApplicable, bounded
from gradiometer.remedies.candidates import Candidate
from gradiometer.remedies.torch.seen import Seen, first_pass
from gradiometer.remedies.torch.trial import Trial

# what `train` may return, the first that is there counts -> the outcome's name
OUTCOMES = {"accuracy": "accuracy", "r2": "R²", "loss": "loss"}
LAST = 10  # the last tenth of the steps counts, where the loss is recorded


class ModelTrials:
    """Makes and trains a model again, with one change and the same random numbers.

    Parameters
    ----------
    make_model, train : callable
        See `try_remedies`.
    seeds : int
        How many, from 0 on.
    factor : float, optional
        On the learning rate.
    causes : collection of str
        What the diagnosis says.
    """

    def __init__(
        self,
        make_model: Callable[[int], tuple[Any, Any]],
        train: Callable[..., Any],
        seeds: int,
        factor: float | None = None,
        causes: Collection[str] = (),
    ) -> None:
        self._make, self._train = make_model, train
        self.seeds = tuple(range(seeds))
        self.outcome = ""
        self._factor = factor
        self._accumulates = "gradients accumulated" in causes
        self._takes_loss = "loss" in inspect.signature(train).parameters
        self._records = True  # until it is known that train says what was reached
        self._by_recorded = False
        self._seen = Seen()
        self._models: list[weakref.ref[nn.Module]] = []  # all that were trained
        self._start = np.full(seeds, math.nan)  # losses before the first step

    def run(self, candidate: Candidate | None, deadline: Deadline) -> Array:
        """What each model reached; see `Trials`."""
        try:
            found = np.array([self._one(candidate, seed, deadline) for seed in self.seeds])
        except NotApplicable:
            raise
        except Exception as error:
            if candidate is None:
                if isinstance(error, RecordingError) and self._records:
                    self._records = False  # train may say what was reached
                    return self.run(None, deadline)
                raise
            raise NotApplicable(f"its training raised {type(error).__name__}: {error}") from error
        if self.outcome != "loss":
            return bounded(found)
        worse = ~np.isfinite(found) | (found > self._start)
        return np.where(worse & np.isfinite(self._start), self._start, found)

    def code(self, candidate: Candidate) -> str:
        """In PyTorch."""
        return candidate.code

    def _one(self, candidate: Candidate | None, seed: int, deadline: Deadline) -> float:
        deadline.check()
        with _randomness(seed):
            trial = self._made(seed)
            if candidate is not None:
                if isinstance(candidate.model, str):
                    raise NotApplicable(candidate.model)
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    candidate.model(trial)
            return self._trained(trial, candidate is None, seed, deadline)

    def _made(self, seed: int) -> Trial:
        made = self._make(seed)
        if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], nn.Module):
            raise TypeError(
                "make_model must give a torch.nn.Module and its optimizer, (model, optimizer), got "
                f"{type(made).__name__}"
            )
        if any(before() is made[0] for before in self._models):
            raise ValueError(
                "make_model must make a new model each time, got one that was trained before"
            )
        self._models.append(weakref.ref(made[0]))
        return Trial(
            *made, self._seen, self._factor, self._accumulates, self._takes_loss,
            self._by_recorded,
        )  # fmt: skip

    def _trained(self, trial: Trial, unchanged: bool, seed: int, deadline: Deadline) -> float:
        given = {} if trial.loss is None else {"loss": trial.loss}
        watched = unchanged and seed == 0
        records = self._records and (unchanged or self._by_recorded)
        with (
            _ending(trial.optimizer, deadline),
            first_pass(trial.model) if watched else nullcontext(self._seen) as seen,
            _recorder(trial) if records else nullcontext() as recorder,
        ):
            result = self._train(trial.model, trial.optimizer, **given)
        self._seen = seen
        told = read_outcome(result)
        losses = _losses(recorder)
        if unchanged:
            self._start[seed] = losses[0] if len(losses) else math.nan
            if watched:
                self.outcome = "loss" if told is None else told[0]
                self._records = self.outcome == "loss"
                self._by_recorded = told is None
        return self._value(told, losses)

    def _value(self, told: tuple[str, float] | None, losses: Array) -> float:
        if told is not None:
            if told[0] != self.outcome or self._by_recorded:
                raise ValueError(f"train must always return the same outcome, got {told[0]}")
            return told[1]
        if not self._by_recorded:
            raise ValueError(f"train must always return its {self.outcome}, once it gave none")
        if not len(losses):
            raise ValueError(
                "train returned nothing, and its loss could not be recorded; return "
                '{"accuracy": …} or {"loss": …} on fixed rows'
            )
        return float(np.mean(losses[-max(1, len(losses) // LAST) :]))


def read_outcome(result: Any) -> tuple[str, float] | None:
    """The outcome's name and value of what `train` returned; None if it tells none.

    Raises
    ------
    TypeError
        If it is a bare number, which does not say what it is.
    ValueError
        If it is a dict without one.
    """
    if isinstance(result, Mapping):
        for key, name in OUTCOMES.items():
            if key in result:
                return name, float(result[key])
        keys, got = ", ".join(OUTCOMES), ", ".join(map(str, result))
        raise ValueError(f"train must return one of {keys}, got a dict of {got}")
    if isinstance(result, Real):
        raise TypeError(
            f'train returned {result!r}; say what it is, such as {{"accuracy": {result!r}}}'
        )
    return None


def _recorder(trial: Trial) -> TrainingRecorder:
    optimizer = trial.optimizer if isinstance(trial.optimizer, torch.optim.Optimizer) else None
    return record(trial.model, optimizer, quantities=("loss",))


def _losses(recorder: TrainingRecorder | None) -> Array:
    if recorder is None or not recorder.n_steps:
        return np.array([])
    trace = recorder.trace
    return np.asarray(trace["loss"].values, np.float64)


@contextmanager
def _ending(optimizer: Any, deadline: Deadline) -> Iterator[None]:
    """End the training after the step in which the time is over."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        yield
        return
    handle = optimizer.register_step_post_hook(lambda *_: deadline.check())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _randomness(seed: int) -> Iterator[None]:
    """Seed PyTorch, NumPy and Python inside the block; afterwards they go on as before."""
    kept = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(kept[0])
            random.setstate(kept[1])
