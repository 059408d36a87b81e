"""Where claims have their nets trained: each experiment once, however many claims ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
from dp.layers import watch_layers
from dp.typing import Array
from gradiometer.experiment import Experiment
from gradiometer.studies.compute import StoppedError, run

LEAST_SEEDS = 5  # with fewer no signed-rank test can reach 5 %: its least p is 2^-n
MOST_SEEDS = 10_000
LAST_SEED = 2**62 - 1  # of an experiment's first net
FLOW_FACTOR, LEAST_FLOW = 4, 200
STEPS = 1000
LEARNING_RATE = 0.1
# of a layer, and of a net, over all members, so that memory stays below some 100 MB
_UNITS_AT_ONCE, _NEURONS_AT_ONCE = 2500, 50_000

_FLOW = ("grad_mean_abs", "delta_rms", "saturated_fraction", "dead_fraction")


@dataclass(frozen=True, eq=False)
class Measured:
    """What an ensemble's trace says at its first and at its last step.

    Attributes
    ----------
    experiment : Experiment
    first, last : dict of str to array (layers[, members])
        Quantities by name; `loss` and `accuracy` are (members,).
    """

    experiment: Experiment
    first: dict[str, Array]
    last: dict[str, Array]

    def hidden(self, quantity: str) -> Array:
        """A quantity of the hidden layers at the first step: (hidden layers, members)."""
        return self.first[quantity][: self.experiment.layers]

    def learnt(self, threshold: float) -> NDArray[np.bool_]:
        """Which nets answer so many samples right at the end; (members,)."""
        return np.asarray(self.last["accuracy"] >= threshold)


@dataclass(frozen=True, eq=False)
class Units:
    """Which units of a ReLU net are dead, before and after training: booleans (layers, members, n).

    Dead: zero on every sample of the data set.
    """

    before: NDArray[np.bool_]
    after: NDArray[np.bool_]


class Laboratory:
    """Runs experiments as ensembles of seeds, one after the other, and keeps what they gave.

    Nets of one seed have the same first random numbers and the same batches, whatever else differs:
    experiments are paired by seed.

    Parameters
    ----------
    seeds : int
        Nets of each experiment that is trained.
    first_seed : int
        The first of them; others show how far a verdict hangs on the seeds.

    Attributes
    ----------
    flow_seeds : int
        Nets of each experiment of a single step: four for each seed, 200 at least, as it costs next
        to nothing.
    used : list of Experiment
        Those asked for since it was last emptied.

    Raises
    ------
    ValueError
        If `seeds` is no number of nets that tests can be made with, or `first_seed` no seed.
    """

    def __init__(self, seeds: int, first_seed: int = 0) -> None:
        why = " (with fewer, no rank test can reach 5 %)"
        _check_whole("seeds", seeds, LEAST_SEEDS, MOST_SEEDS, why)
        _check_whole("first_seed", first_seed, 0, LAST_SEED)
        self.seeds = seeds
        self.first_seed = first_seed
        self.flow_seeds = max(FLOW_FACTOR * seeds, LEAST_FLOW)
        self.used: list[Experiment] = []
        self._measured: dict[str, Measured] = {}
        self._units: dict[str, Units] = {}

    def experiment(self, **settings: Any) -> Experiment:
        """One of these settings and of the laboratory's seeds."""
        return Experiment.of(**{"seed": self.first_seed, "members": self.seeds, **settings})

    def _note(self, experiment: Experiment) -> Experiment:
        if experiment.hash not in {known.hash for known in self.used}:
            self.used.append(experiment)
        return experiment

    def flow(self, **settings: Any) -> Measured:
        """The gradient's flow at the first step: many nets, one update of the mean loss."""
        described = {"steps": 1, "reduction": "mean", "quantities": _FLOW}
        return self._run({**described, "members": self.flow_seeds, **settings})

    def trained(self, **settings: Any) -> Measured:
        """Nets after 1000 steps of gradient descent on the mean loss, learning rate 0.1.

        Batches are of 128 rows, drawn with replacement, as everywhere in gradiometer.
        """
        described = {
            "steps": STEPS,
            "every": STEPS - 1,  # the first and the last step
            "reduction": "mean",
            "learning_rate": LEARNING_RATE,
            "quantities": ("grad_mean_abs", "dead_fraction"),
        }
        return self._run({**described, **settings})

    def _run(self, settings: dict[str, Any]) -> Measured:
        experiment = self._note(self.experiment(**settings, decision=False))
        if experiment.hash not in self._measured:
            at_once = max(1, _UNITS_AT_ONCE // experiment.width)
            try:
                trace = run(experiment, at_once)
            except StoppedError:
                raise KeyboardInterrupt from None
            names = [name for name in trace.quantities if "step" in trace[name].dims]
            values = {name: trace[name].values for name in names}
            self._measured[experiment.hash] = Measured(
                experiment,
                {name: value[0] for name, value in values.items()},
                {name: value[-1] for name, value in values.items()},
            )
        return self._measured[experiment.hash]

    def nets(self, experiment: Experiment) -> Iterator[dp.Net]:
        """The nets of an experiment at their initial weights, in groups that fit into memory."""
        self._note(experiment)
        data = experiment.load_data()
        for group in _groups(
            experiment, _NEURONS_AT_ONCE // (experiment.width * experiment.layers)
        ):
            yield group.net(data)

    def units(self, **settings: Any) -> Units:
        """Which units of ReLU nets are dead before and after 1000 steps at rate 0.1."""
        described = {
            "activation": "relu",
            "steps": STEPS,
            "reduction": "mean",
            "learning_rate": LEARNING_RATE,
            "decision": False,
        }
        experiment = self._note(self.experiment(**{**described, **settings}))
        if experiment.hash not in self._units:
            parts = [
                _trained_units(group)
                for group in _groups(experiment, _UNITS_AT_ONCE // experiment.width)
            ]
            self._units[experiment.hash] = Units(
                *(np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
            )
        return self._units[experiment.hash]


def _check_whole(name: str, number: Any, least: int, most: int, why: str = "") -> None:
    """Raise ValueError for what is no whole number in between; `why` there is a least one."""
    known = isinstance(number, int) and not isinstance(number, bool)
    if not known or not least <= number <= most:
        raise ValueError(
            f"{name} must be a whole number from {least}{why} to {most}, got {number!r}"
        )


def _groups(experiment: Experiment, at_once: int) -> Iterator[Experiment]:
    """The same nets as several experiments; of two nets at least, or they had no axis of members.

    Evenly split, five nets and more give no group of one if groups may have four.
    """
    count = -(-experiment.members // max(4, at_once))
    for seeds in np.array_split(experiment.seeds, count):
        yield Experiment.of(**{**experiment.given(), "seed": int(seeds[0]), "members": len(seeds)})


def _trained_units(experiment: Experiment) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Dead units before and after training, as `Experiment.run` trains; its trace tells shares."""
    data = experiment.load_data()
    net = experiment.net(data)
    before = _dead(net, data.x)
    optimizer = dp.optimizers.OPTIMIZERS[experiment.optimizer](
        net,
        data.x,
        data.y,
        {"alpha": experiment.learning_rate},
        experiment.batch_size,
        seed=experiment.seeds,
        compile=True,
    )
    with np.errstate(all="ignore"):
        optimizer.train(experiment.steps, print_each=None)
        return before, _dead(net, data.x)


def pre_activations(net: dp.Net, x: Array) -> Iterator[Array]:
    """Pre-activations of the layers one after the other: (members, samples, units) each."""
    with watch_layers() as watch, np.errstate(all="ignore"):
        net.forward(x)
    for call in watch.calls:
        yield call.pre_activation.value


def _dead(net: dp.Net, x: Array) -> NDArray[np.bool_]:
    hidden = [*pre_activations(net, x)][:-1]
    return np.stack([(h <= 0).all(axis=-2) for h in hidden])
