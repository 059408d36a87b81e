"""How a remedy changes an experiment: one setting, or the net that it starts with.

Each function here makes what changes an experiment, a `Change`; that one raises `NotApplicable`
where there is nothing to change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import dp
from gradiometer.remedies.applying import NotApplicable

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment

CLIP_AT = 1.0  # the norm of the gradient


@dataclass(frozen=True)
class Changed:
    """What is different about an experiment.

    Attributes
    ----------
    settings : dict
        New values of settings.
    net : callable, optional
        What is done to the net before training.
    callback : callable, optional
        Makes a callback of the training.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    net: Callable[[dp.Net], None] | None = None
    callback: Callable[[], dp.Callback] | None = None


# `factor` is that on the learning rate which fits the run's updates; None if it is not known
Change = Callable[["Experiment", float | None], Changed]


def activation(name: str) -> Change:
    """Another activation function in the hidden layers."""

    def change(experiment: Experiment, _factor: float | None) -> Changed:
        _refuse_same(experiment.activation == name, f"{name} is its activation function")
        return Changed({"activation": name, "clip": None})

    return change


def ceiling(experiment: Experiment, _factor: float | None) -> Changed:
    """ReLU with a ceiling of 6 (Krizhevsky 2010)."""
    if experiment.activation != "relu" or experiment.clip is not None:
        raise NotApplicable("only a ReLU without a ceiling is given one")
    return Changed({"activation": "clipped_relu", "clip": 6.0})


def initialiser(name: str) -> Change:
    """Another initialiser, without a factor on the weights."""

    def change(experiment: Experiment, _factor: float | None) -> Changed:
        same = experiment.init == name and experiment.init_scale == 1
        _refuse_same(same, f"{name} is its initialiser")
        return Changed({"init": name, "init_scale": 1.0})

    return change


def normalisation(kind: str) -> Change:
    """Normalised pre-activations."""

    def change(experiment: Experiment, _factor: float | None) -> Changed:
        _refuse_same(experiment.normalisation == kind, f"it has {kind} normalisation")
        return Changed({"normalisation": kind})

    return change


def residual(experiment: Experiment, _factor: float | None) -> Changed:
    """Each hidden layer's input added to its output."""
    _refuse_same(experiment.residual, "it has residual connections")
    if experiment.layers < 2:
        raise NotApplicable("no two hidden layers follow one another")
    return Changed({"residual": True})


def standardise(experiment: Experiment, _factor: float | None) -> Changed:
    """Features of mean 0 and variance 1."""
    _refuse_same(experiment.scaling == "standardise", "its features are standardised")
    return Changed({"scaling": "standardise"})


def rate(by: float) -> Change:
    """The learning rate times a factor."""

    def change(experiment: Experiment, _factor: float | None) -> Changed:
        return Changed({"learning_rate": experiment.learning_rate * by})

    return change


def fitting_rate(experiment: Experiment, factor: float | None) -> Changed:
    """The learning rate at which the largest update is a hundredth of the weights."""
    if factor is None:
        raise NotApplicable("the run does not tell how large its updates are beside the weights")
    return Changed({"learning_rate": experiment.learning_rate * factor})


def zero_biases(experiment: Experiment, _factor: float | None) -> Changed:
    """Biases that begin at zero."""
    if experiment.init not in ("dp", "pytorch"):
        raise NotApplicable("its biases begin at zero")

    def clear(net: dp.Net) -> None:
        for layer in net.layers.values():
            layer.bias.value[...] = 0.0

    return Changed(net=clear)


def clipping(_experiment: Experiment, _factor: float | None) -> Changed:
    """The norm of the gradient is limited (Pascanu et al. 2013)."""
    return Changed(callback=Clip)


def cross_entropy(experiment: Experiment, _factor: float | None) -> Changed:
    """Cross entropy in place of the squared error."""
    _refuse_same(experiment.loss == "cross_entropy", "cross entropy is its loss")
    return Changed({"loss": "cross_entropy"})


def adam(experiment: Experiment, _factor: float | None) -> Changed:
    """Adam with its usual rate."""
    _refuse_same(experiment.optimizer == "adam", "Adam is its optimiser")
    return Changed({"optimizer": "adam", "learning_rate": 0.001, "hyperparameters": {}})


class Clip(dp.Callback):
    """Limits the norm of the whole gradient to `CLIP_AT`, of each member by itself."""

    def before_update(self, step: dp.Step) -> None:
        """Shrink the gradients where their norm is larger."""
        with np.errstate(all="ignore"):
            square = sum(np.square(g).sum(axis=(-2, -1), keepdims=True) for g in step.grad.values())
            factor = np.minimum(1.0, CLIP_AT / (np.sqrt(square) + 1e-6))
            for gradient in step.grad.values():
                gradient *= factor


def _refuse_same(same: bool, why: str) -> None:
    if same:
        raise NotApplicable(why)
