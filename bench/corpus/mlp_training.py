"""How a multilayer perceptron of the corpus is made, trained and recorded, faulty or sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import dp
from bench.corpus.cases import RECORDED, Trained
from bench.corpus.mlp_data import Samples, samples, spoilt
from bench.corpus.outcomes import accuracy, r_squared
from dp import Node
from gradiometer import record
from gradiometer.experiment import Experiment

Loss = Callable[[Node, Node], Node]


class Head:
    """What becomes of the output layer's pre-activations, and the loss of it.

    Parameters
    ----------
    output : callable Node -> Node
    loss : callable (output, targets) -> Node
    """

    def __init__(self, output: Callable[[Node], Node], loss: Loss) -> None:
        self.output, self.loss = output, loss


def _squared(p: Node, y: Node) -> Node:
    return (p - y).square().sum(1).mean()


def _log_of_probability(p: Node, y: Node) -> Node:
    """Cross-entropy as the formula says it: log(0) where p rounds to 0 or 1."""
    if p.shape[-1] > 1:
        return -(y * p.log()).sum(1).mean()
    return -(y * p.log() + (1.0 - y) * (1.0 - p).log()).mean()


def _softmax_as_written(h: Node) -> Node:
    """Softmax as the formula says it: exp overflows."""
    e = h.exp()
    return e / e.sum(1)


# the head of a healthy net is None with classes, "linear" with numbers
HEADS: Mapping[str, Head] = {
    "linear": Head(lambda h: h, _squared),
    "linear, relative": Head(lambda h: h, lambda p, y: ((p - y) / y).square().mean()),
    "linear, root": Head(lambda h: h, lambda p, y: (p - y).square().sum(1).sqrt().mean()),
    "sigmoid": Head(lambda h: h.sigmoid(), _squared),
    "tanh": Head(lambda h: h.tanh(), _squared),
    "relu": Head(lambda h: h.relu(), _squared),
    "softmax": Head(lambda h: h.softmax(), _squared),
    "log of sigmoid": Head(lambda h: h.sigmoid(), _log_of_probability),
    "log of softmax": Head(lambda h: h.softmax(), _log_of_probability),
    "log of exp": Head(_softmax_as_written, _log_of_probability),
}


class _Net(dp.Net):
    """A Net with a head of its own, weight decay in the loss, or a factor on it."""

    def __init__(
        self, *args: Any, head: str | None, decay: float, loss_factor: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.head = None if head is None else HEADS[head]
        self.decay, self.loss_factor = decay, loss_factor

    def forward(self, x: Any, like: Any = None) -> Node:
        if self.head is None:
            return super().forward(x, like)
        return self.head.output(self.logits(x, like))

    def loss(self, x: Any, y: Any) -> Node:
        found = super().loss(x, y) if self.head is None else self.head.loss(self.forward(x), y)
        for layer in self.layers.values() if self.decay else ():
            found = found + self.decay * layer.weight.square().sum()
        return found if self.loss_factor == 1 else found * self.loss_factor


def _net(given: Samples, chosen: Experiment, **own: Any) -> dp.Net:
    plain = own == {"head": None, "decay": 0, "loss_factor": 1}
    return (dp.Net if plain else partial(_Net, **own))(
        given.x.shape[1],
        chosen.width,
        chosen.layers,
        dp.activations.get(chosen.activation, chosen.clip),
        n_outputs=given.y.shape[1],
        init=chosen.init,
        init_scale=chosen.init_scale,
        normalisation=chosen.normalisation,
        residual=chosen.residual,
        loss=chosen.loss,
        reduction=chosen.reduction,
        seed=chosen.seed,
        dtype=chosen.dtype,
    )


def _set_parameters(
    net: dp.Net, at: str | None, factor: float, weights: float | None, bias: float | None
) -> None:
    """Change the initial parameters of all hidden layers, or of the one named `at`."""
    *hidden, _ = net.layers.values()
    for layer in hidden if at is None else [net.layers[at]]:
        layer.weight.value *= factor
        if weights is not None:
            layer.weight.value[...] = weights
        if bias is not None:
            layer.bias.value[...] = bias


def train(
    *,
    data: str,
    scaling: str | float = "standardise",
    inputs: str | float | None = None,
    targets: str | None = None,
    **how: Any,
) -> Trained:
    """Train a net and record it; its outcome is measured against the right targets.

    Parameters
    ----------
    data : str
        A name that `mlp_data.samples` knows.
    scaling : str or float
        As in an Experiment.
    inputs, targets
        What is wrong with the data; see `mlp_data.spoilt`.
    **how
        Of the net and its training; see `_train`.
    """
    right = samples(data, scaling)
    given = spoilt(right, inputs, targets, how["seed"])
    try:
        return _train(right, given, compile=True, **how)
    except dp.CaptureError:
        # where numbers are huge, a program of a Net's subclass may round otherwise than the model
        return _train(right, given, compile=False, **how)


def _train(
    right: Samples,
    given: Samples,
    *,
    head: str | None = None,
    at: str | None = None,
    factor: float = 1.0,
    weights: float | None = None,
    bias: float | None = None,
    decay: float = 0.0,
    loss_factor: float = 1.0,
    compile: bool,  # noqa: A002
    **settings: Any,
) -> Trained:
    """Train on `given` samples, and judge on the `right` ones.

    Parameters
    ----------
    right, given : Samples
    head : str, optional
        A name in `HEADS`; cross-entropy of a sigmoid or softmax by default.
    at : str, optional
        The layer whose initial parameters `factor`, `weights` and `bias` change; all hidden ones by
        default.
    factor : float
        On the weights.
    weights, bias : float, optional
        One value for all weights, or biases.
    decay : float
        Factor on Σ W² in the loss.
    loss_factor : float
        On the loss.
    compile : bool
        As in `dp.Optimizer`.
    **settings
        As in an Experiment; `reduction` is "mean" by default.
    """
    chosen = Experiment.of(**{"reduction": "mean", **settings})
    net = _net(given, chosen, head=head, decay=decay, loss_factor=loss_factor)
    _set_parameters(net, at, factor, weights, bias)
    optimizer = dp.optimizers.OPTIMIZERS[chosen.optimizer](
        net,
        right.x,
        right.y,
        {"alpha": chosen.learning_rate, **chosen.hyperparameters},
        chosen.batch_size,
        seed=chosen.seed,
        compile=compile,
    )
    # an optimiser refuses data that is not finite when it is made
    optimizer.x_train, optimizer.y_train = given.x, given.y
    reference = (given.x, given.y if given.classes else None)
    with (
        np.errstate(all="ignore"),
        record(net, optimizer, reference=reference, quantities=RECORDED) as recorder,
    ):
        optimizer.train(chosen.steps, print_each=None)
        trace = recorder.to_trace({"seed": chosen.seed, "dtype": chosen.dtype})
        output = net.forward(given.x.astype(chosen.dtype)).value
    return Trained(trace, (accuracy if right.classes else r_squared)(output, right.y))
