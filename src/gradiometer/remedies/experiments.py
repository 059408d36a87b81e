"""Trials of an experiment: one setting changed, all seeds trained side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import dp
from dp.typing import Array
from gradiometer.experiment import Experiment, ExperimentError
from gradiometer.memory import TooLargeError, check_memory
from gradiometer.remedies.applying import Deadline, NotApplicable, Outcomes, bounded
from gradiometer.remedies.settings import Changed

if TYPE_CHECKING:
    from dp.program.arrays import StepArrays
    from gradiometer.data import Data
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

    def run(self, candidate: Candidate | None, deadline: Deadline) -> Outcomes:
        """See `Trials`."""
        changed = self.changed(candidate)
        experiments = self._experiments(changed)
        found = [self._train(each, changed, deadline) for each in experiments]
        accuracies, losses = (np.concatenate(part) for part in zip(*found, strict=True))
        return Outcomes(bounded(accuracies), losses)

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
        given = ", ".join(f"{name}={value!r}" for name, value in changed.settings.items())
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

    def _train(
        self, experiment: Experiment, changed: Changed, deadline: Deadline
    ) -> tuple[Array, Array]:
        """Accuracy and original loss of each member after the last step."""
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
            return self._judged(net, data)

    def _judged(self, net: dp.Net, data: Data) -> tuple[Array, Array]:
        p, y = net.forward(data.x).value, data.y
        net.loss_name, net.reduction = self.original.loss, self.original.reduction
        loss = net.loss(data.x, y).value
        right = p.argmax(-1) == y.argmax(-1) if y.shape[-1] > 1 else (p > 0.5)[..., 0] == y[..., 0]
        finite = np.isfinite(p).all(axis=(-2, -1))
        accuracy = np.where(finite, right.mean(axis=-1), np.nan)
        return np.atleast_1d(accuracy), loss.reshape(-1)


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
