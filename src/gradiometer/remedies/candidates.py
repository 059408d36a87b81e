"""The table of remedies: what each changes, which causes it is for, and how it is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from dp.validation import one_of
from gradiometer.remedies import settings as of

if TYPE_CHECKING:
    from gradiometer.remedies.torch.trial import Trial

ModelChange = Callable[["Trial"], None]


@dataclass(frozen=True)
class Candidate:
    """A change that may mend a net: exactly one thing.

    Attributes
    ----------
    name : str
    words : str
        The same as the subject of a sentence.
    causes : tuple of str
        Of `gradiometer.diagnosis.CAUSES`: those for which it is tried first.
    settings : callable, or str
        How it changes an experiment; or why it cannot.
    model : callable, or str
        How it changes a model of PyTorch, its optimizer, or how it is trained; or why it cannot.
    code : str
        How to make the change in PyTorch.
    """

    name: str
    words: str
    causes: tuple[str, ...]
    settings: of.Change | str
    model: ModelChange | str
    code: str


def _model(function: str, *arguments: object) -> ModelChange:
    """A function of `torch/changes.py`, which is loaded when it is called."""

    def change(trial: Trial) -> None:
        getattr(import_module("gradiometer.remedies.torch.changes"), function)(trial, *arguments)

    return change


OWNED = "the optimiser of an experiment owns all parameters, and uses each gradient once"
SUITED = "the output of an experiment suits its loss"
NOT_THERE = "an experiment has none"

_ALL = (
    # --- the way of the gradient through the layers ---
    Candidate(
        "tanh", "tanh", ("activation slope", "weights too large", "inputs unscaled"),
        of.activation("tanh"), _model("replace_activations", "Tanh"),
        "torch.nn.Tanh() in the hidden layers",
    ),
    Candidate(
        "relu", "ReLU", ("activation slope", "weights too large"),
        of.activation("relu"), _model("replace_activations", "ReLU"),
        "torch.nn.ReLU() in the hidden layers",
    ),
    Candidate(
        "leaky relu", "leaky ReLU",
        ("dead units: learning rate", "dead units: bias", "dead units: inputs", "activation slope"),
        of.activation("leaky_relu"), _model("replace_activations", "LeakyReLU"),
        "torch.nn.LeakyReLU(0.01) in the hidden layers",
    ),
    Candidate(
        "relu ceiling", "ReLU with a ceiling of 6", ("weights too large",),
        of.ceiling, _model("replace_relus", "ReLU6"),
        "torch.nn.ReLU6() in place of torch.nn.ReLU()",
    ),
    Candidate(
        "he", "He's initialisation",
        ("weights too small", "weights too large", "identical units", "dead units: bias"),
        of.initialiser("he_normal"), _model("initialise", "kaiming_normal_"),
        "torch.nn.init.kaiming_normal_(layer.weight, nonlinearity='relu') for each layer",
    ),
    Candidate(
        "xavier", "Xavier's initialisation",
        ("weights too large", "weights too small", "identical units", "inputs unscaled"),
        of.initialiser("glorot_uniform"), _model("initialise", "xavier_uniform_"),
        "torch.nn.init.xavier_uniform_(layer.weight) for each layer",
    ),
    Candidate(
        "orthogonal", "orthogonal initialisation",
        ("recurrence", "weights too large", "weights too small", "identical units"),
        of.initialiser("orthogonal"), _model("initialise", "orthogonal_"),
        "torch.nn.init.orthogonal_(layer.weight) for each layer, recurrent weights too",
    ),
    Candidate(
        "layer normalisation", "layer normalisation",
        ("activation slope", "weights too small", "weights too large", "inputs unscaled",
         "dead units: bias", "dead units: inputs"),
        of.normalisation("layer"), _model("normalise", "layer"),
        "torch.nn.LayerNorm(features) between each hidden layer and its activation function",
    ),
    Candidate(
        "batch normalisation", "batch normalisation",
        ("activation slope", "weights too small", "weights too large", "inputs unscaled",
         "dead units: bias", "dead units: inputs", "dead units: learning rate"),
        of.normalisation("batch"), _model("normalise", "batch"),
        "torch.nn.BatchNorm1d(features) between each hidden layer and its activation function",
    ),
    Candidate(
        "residual", "adding residual connections", ("activation slope", "weights too small"),
        of.residual, _model("add_residuals"),
        "x = x + act(layer(x)) in forward, where the shapes agree",
    ),
    Candidate(
        "zero biases", "beginning with biases of zero", ("dead units: bias",),
        of.zero_biases, _model("zero_biases"),
        "torch.nn.init.zeros_(layer.bias) for each layer",
    ),
    # --- inputs, rate, steps of the optimizer ---
    Candidate(
        "standardised inputs", "standardising the inputs",
        ("inputs unscaled", "dead units: inputs", "unknown", "weights too large"),
        of.standardise, _model("standardise_inputs"),
        "x = (x - x_train.mean(0)) / x_train.std(0)",
    ),
    Candidate(
        "rate / 10", "a tenth of the learning rate",
        ("learning rate too high", "dead units: learning rate", "gradients accumulated"),
        of.rate(0.1), _model("scale_rate", 0.1),
        "for group in optimizer.param_groups: group['lr'] /= 10",
    ),
    Candidate(
        "rate / 100", "a hundredth of the learning rate",
        ("learning rate too high", "dead units: learning rate"),
        of.rate(0.01), _model("scale_rate", 0.01),
        "for group in optimizer.param_groups: group['lr'] /= 100",
    ),
    Candidate(
        "fitting rate", "a learning rate at which updates are a hundredth of the weights",
        ("learning rate too low", "learning rate too high", "unknown", "dead units: learning rate",
         "too few steps"),
        of.fitting_rate, _model("fit_rate"),
        "for group in optimizer.param_groups: group['lr'] *= 0.01 / trace['update_ratio'].max()",
    ),
    Candidate(
        "rate × 10", "ten times the learning rate", ("learning rate too low", "too few steps"),
        of.rate(10.0), _model("scale_rate", 10.0),
        "for group in optimizer.param_groups: group['lr'] *= 10",
    ),
    Candidate(
        "rate × 100", "a hundred times the learning rate",
        ("learning rate too low", "too few steps"),
        of.rate(100.0), _model("scale_rate", 100.0),
        "for group in optimizer.param_groups: group['lr'] *= 100",
    ),
    Candidate(
        "clipping", "clipping the gradient's norm at 1",
        ("recurrence", "learning rate too high", "dead units: learning rate", "weights too large"),
        of.clipping, _model("clip_gradient"),
        "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before optimizer.step()",
    ),
    Candidate(
        "adam", "Adam with a rate of 0.001", ("learning rate too low", "too few steps", "unknown"),
        of.adam, _model("use_adam"),
        "optimizer = torch.optim.Adam(model.parameters(), lr=0.001)",
    ),
    Candidate(
        "own all", "giving the optimizer all parameters", ("optimizer does not own the layer",),
        OWNED, _model("own_all"),
        "optimizer = torch.optim.SGD(model.parameters(), …)",
    ),
    Candidate(
        "clear gradients", "clearing the gradients after each step", ("gradients accumulated",),
        OWNED, _model("clear_gradients"),
        "optimizer.zero_grad() in each step",
    ),
    # --- output, loss, regularisation ---
    Candidate(
        "linear output", "an output without activation function", ("output activation or loss",),
        SUITED, _model("linear_output"),
        "remove the activation function after the last layer",
    ),
    Candidate(
        "cross entropy", "cross entropy as the loss",
        ("output activation or loss", "loss numerics"),
        of.cross_entropy, _model("use_loss", "cross_entropy"),
        "loss = torch.nn.functional.cross_entropy(logits, targets)",
    ),
    Candidate(
        "binary cross entropy", "binary cross entropy of logits as the loss",
        ("output activation or loss", "loss numerics"),
        SUITED, _model("use_loss", "binary_cross_entropy_with_logits"),
        "loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)",
    ),
    Candidate(
        "squared error", "the squared error as the loss",
        ("output activation or loss", "loss numerics"),
        SUITED, _model("use_loss", "mse_loss"),
        "loss = torch.nn.functional.mse_loss(output, targets)",
    ),
    Candidate(
        "no weight decay", "no weight decay", ("regularisation",),
        NOT_THERE, _model("no_weight_decay"),
        "torch.optim.SGD(model.parameters(), …, weight_decay=0)",
    ),
    Candidate(
        "no dropout", "no dropout", ("regularisation",),
        NOT_THERE, _model("no_dropout"),
        "torch.nn.Dropout(0.0)",
    ),
)  # fmt: skip
CANDIDATES: Mapping[str, Candidate] = {candidate.name: candidate for candidate in _ALL}


def chosen(names: Iterable[str] | None, causes: Sequence[str]) -> list[Candidate]:
    """The candidates, the most promising first.

    Parameters
    ----------
    names : iterable of str, optional
        All by default.
    causes : sequence of str
        Of a diagnosis, the most important first. Candidates for the first cause come first, those
        that name it earlier among their own before the others; those for no cause come last.

    Raises
    ------
    TypeError
        If they are no collection of names.
    ValueError
        If there is no candidate of a name, naming those there are.
    """
    if not isinstance(names, Iterable | None):
        raise TypeError(f"candidates must be names of remedies, got {names!r}")
    wanted = list(CANDIDATES) if names is None else [names] if isinstance(names, str) else [*names]
    for name in wanted:
        one_of("remedy", name, tuple(CANDIDATES))
    order = {name: place for place, name in enumerate(CANDIDATES)}

    def rank(name: str) -> tuple[int, int, int]:
        own = CANDIDATES[name].causes
        for place, cause in enumerate(causes):
            if cause in own:
                return place, own.index(cause), order[name]
        return len(causes), 0, order[name]

    return [CANDIDATES[name] for name in sorted(dict.fromkeys(wanted), key=rank)]


def in_turn(candidates: Sequence[Candidate], causes: Sequence[str]) -> list[Candidate]:
    """The order in which to try them: promising ones and others by turns.

    If the time is over early, there is something to compare the promising ones with: a remedy drawn
    at random. Others come in a random order, which is always the same.

    Parameters
    ----------
    candidates : sequence of Candidate
        The most promising first.
    causes : sequence of str
        Of the diagnosis.
    """
    promising = [each for each in candidates if set(each.causes) & set(causes)]
    others = [each for each in candidates if each not in promising]
    drawn = [others[i] for i in np.random.default_rng(0).permutation(len(others))]
    pairs = zip_longest(promising, drawn)
    return [each for pair in pairs for each in pair if each is not None]
