"""Trials of an experiment: one setting changed, all seeds trained side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import dp
from dp.typing import Array
from gradiometer.experiment import Experiment, ExperimentError
from gradiometer.memory import TooLargeError, check_memory
from gradiometer.remedies.applying import Deadline, NotApplicable, bounded
from gradiometer.remedies.settings import Changed

if TYPE_CHECKING:
    from dp.program.arrays import StepArrays
    from gradiometer.remedies.candidates import Candidate


class ExperimentTrials:
    """Trains an experiment again, with one change and the same seeds.

    Nothing is recorded: a trial takes the time of the training alone. All rows of the data set are
    judged, after the last step.

    Parameters
    ----------
    experiment : Experiment
    seeds : int
        How many, from the experiment's own on.
    factor : float, optional
        On the learning rate; see `rate.fitting_factor`.
    """

    outcome = "accuracy"

    def __init__(self, experiment: Experiment, seeds: int, factor: float | None = None) -> None:
        self.original = experiment
        self.seeds = tuple(range(experiment.seed, experiment.seed + seeds))
        self._factor = factor

    def run(self, candidate: Candidate | None, deadline: Deadline) -> Array:
        """Accuracy of each net; see `Trials`."""
        changed = self.changed(candidate)
        experiments = self._experiments(changed)
        found = [_accuracies(each, changed, deadline) for each in experiments]
        return bounded(np.concatenate(found))

    def changed(self, candidate: Candidate | None) -> Changed:
        """What a candidate changes."""
        if candidate is None:
            return Changed()
        if isinstance(candidate.settings, str):
            raise NotApplicable(candidate.settings)
        return candidate.settings(self.original, self._factor)

    def code(self, candidate: Candidate) -> str:
        """How to make the change, in Python."""
        changed = self.changed(candidate)
        if not changed.settings:
            return candidate.code
        new = {k: v for k, v in changed.settings.items() if v != getattr(self.original, k)}
        given = ", ".join(f"{name}={value!r}" for name, value in new.items())
        return f"gradiometer.run(experiment, {given})"

    def _experiments(self, changed: Changed) -> list[Experiment]:
        """All seeds in one stack; one by one if that is more than memory holds."""
        stack = self._experiment(changed, self.seeds)
        try:
            check_memory(stack)
        except TooLargeError:
            return [self._experiment(changed, [seed]) for seed in self.seeds]
        return [stack]

    def _experiment(self, changed: Changed, seeds: Sequence[int]) -> Experiment:
        settings = {
            **self.original.given(),
            **changed.settings,
            "seed": seeds[0],
            "members": len(seeds),
            "every": self.original.steps,
            "histograms": False,
            "decision": False,
        }
        try:
            return Experiment.of(**settings)
        except ExperimentError as error:
            raise NotApplicable(str(error)) from None


def _accuracies(experiment: Experiment, changed: Changed, deadline: Deadline) -> Array:
    """Accuracy of each member after the last step, on all rows; NaN if an output is not finite."""
    data = experiment.load_data()
    net = experiment.net(data)
    if changed.net is not None:
        changed.net(net)
    optimizer = experiment.optimizer_for(net, data)
    if changed.callback is not None:
        optimizer.callbacks.append(changed.callback())
    optimizer.callbacks.append(_Watch(deadline))
    with np.errstate(all="ignore"):
        optimizer.train(experiment.steps, print_each=None)
        p, y = net.forward(data.x).value, data.y
    if y.shape[-1] > 1:
        right = p.argmax(axis=-1) == y.argmax(axis=-1)
    else:
        right = (p > 0.5)[..., 0] == (y > 0.5)[..., 0]
    finite = np.isfinite(p).all(axis=(-2, -1))
    return np.atleast_1d(np.where(finite, right.mean(axis=-1), np.nan))


class _Watch(dp.ProgramCallback):
    """Ends a training when the time is over."""

    reads_loss = False
    only_reads = True

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def after_update(self, step: dp.Step) -> None:  # noqa: ARG002
        self._deadline.check()

    def after_program_update(self, number: int, arrays: StepArrays) -> None:  # noqa: ARG002
        self._deadline.check()
