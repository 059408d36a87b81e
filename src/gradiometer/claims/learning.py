"""Claims about what learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiometer.claims import figures
from gradiometer.claims.claim import Claim, Evidence
from gradiometer.claims.laboratory import LEARNING_RATE, STEPS, Laboratory, Measured
from gradiometer.claims.planned import SHARE
from gradiometer.claims.statistics import most
from gradiometer.thresholds import LEARNT

CHANCE = math.log(2.0)  # the loss of a net that says ½ to everything
RATES = (1.0, 10.0)


def learnt(net: Measured) -> NDArray[np.bool_]:
    """Which nets answer 90 % of the samples right."""
    return net.learnt(LEARNT)


def count(true: NDArray[np.bool_]) -> tuple[int, int]:
    """How many, of how many."""
    return int(true.sum()), len(true)


def of(true: NDArray[np.bool_]) -> str:
    """In words: "50 of 50"."""
    return "{} of {}".format(*count(true))


def loss(net: Measured) -> float:
    """Median over nets at the last step."""
    return float(np.median(net.last["loss"]))


def _share(groups: dict[str, NDArray[np.bool_]]) -> Any:
    return figures.shares(
        {name: count(true) for name, true in groups.items()},
        f"share of nets that learn\n({100 * LEARNT:g} % right after {STEPS} steps)",
        (0.5, "half of the nets"),
    )


def gather_sigmoid(laboratory: Laboratory) -> Evidence:
    """Evidence for `sigmoid-does-not-learn`."""
    nets = {n: laboratory.trained(activation="sigmoid", layers=n) for n in (1, 3, 5, 10)}
    found = {n: learnt(net) for n, net in nets.items()}
    losses = ", ".join(f"{loss(net):.4g} at depth {n}" for n, net in nets.items())
    return Evidence(
        (
            most("nets of ten sigmoid layers do not learn", ~found[10]),
            most("nets of one do", found[1]),
            most("nets of three do", found[3]),
        ),
        f"The median loss is {losses}; a net that answers ½ to everything has ln 2 = {CHANCE:.4f}.",
        lambda: figures.strips(
            {f"depth {n}": net.last["loss"] for n, net in nets.items()},
            f"loss after {STEPS} steps",
            log=True,
            lines=[(CHANCE, "ln 2: ½ to everything")],
        ),
    )


def gather_rate(laboratory: Laboratory) -> Evidence:
    """Evidence for `higher-rate`."""
    nets = {
        rate: laboratory.trained(activation="sigmoid", learning_rate=rate)
        for rate in (LEARNING_RATE, *RATES)
    }
    found = {rate: learnt(net) for rate, net in nets.items()}
    either = np.logical_or.reduce([found[rate] for rate in RATES])
    losses = ", ".join(f"{loss(net):.4g} at rate {rate:g}" for rate, net in nets.items())
    return Evidence(
        (most("nets learn at one of the higher rates at least", either),),
        f"At rates {' and '.join(f'{r:g}' for r in RATES)}, {of(either)} nets learn; the median "
        f"loss is {losses}.",
        lambda: figures.strips(
            {f"rate {rate:g}": net.last["loss"] for rate, net in nets.items()},
            f"loss after {STEPS} steps",
            lines=[(CHANCE, "ln 2: ½ to everything")],
        ),
    )


def gather_others(laboratory: Laboratory) -> Evidence:
    """Evidence for `tanh-relu-learn`."""
    nets = {name: laboratory.trained(activation=name) for name in ("tanh", "relu")}
    found = {name: learnt(net) for name, net in nets.items()}
    beside = learnt(laboratory.trained(activation="sigmoid"))  # for comparison, in the figure
    right = {name: float(np.median(net.last["accuracy"])) for name, net in nets.items()}
    return Evidence(
        tuple(most(f"nets of ten {name} layers learn", true) for name, true in found.items()),
        f"Of tanh nets {of(found['tanh'])} learn (median accuracy {right['tanh']:.3g}), of ReLU "
        f"nets {of(found['relu'])} ({right['relu']:.3g}).",
        lambda: _share({**found, "sigmoid": beside}),
    )


def gather_relu(laboratory: Laboratory) -> Evidence:
    """Evidence for `relu-cures`."""
    nets = {init: laboratory.trained(activation="relu", init=init) for init in ("pytorch", "dp")}
    found = {init: learnt(net) for init, net in nets.items()}
    return Evidence(
        (
            most("ReLU nets learn with PyTorch's weights", found["pytorch"]),
            most("ReLU nets learn with the lesson's", found["dp"]),
        ),
        f"With PyTorch's default weights {of(found['pytorch'])} nets learn (median loss "
        f"{loss(nets['pytorch']):.4g}), with the lesson's {of(found['dp'])} "
        f"({loss(nets['dp']):.4g}).",
        lambda: _share({f"{init} init": true for init, true in found.items()}),
        (
            most("ReLU nets learn with the lesson's weights, σ_w² = 2", found["dp"]),
            most("they do not with PyTorch's, σ_w² = 1/3", ~found["pytorch"]),
        ),
    )


_TRAINED = f"gradient descent on Iris, {STEPS} steps of 128 samples at rate {LEARNING_RATE:g}"

CLAIMS = [
    Claim(
        "sigmoid-does-not-learn",
        "A net of ten sigmoid layers does not learn, though a shallow one does.",
        f"Sigmoid nets of 1, 3, 5 and 10 layers of ten units: {_TRAINED}.",
        gather_sigmoid,
        why="The first layers hardly move, so the last ones are given next to the same whatever "
        "the flower, and answer with the share of the classes.",
        said_tests=(SHARE,) * 3,
    ),
    Claim(
        "higher-rate",
        "A larger learning rate makes up for the vanishing gradient.",
        f"Ten sigmoid layers of ten units: {_TRAINED}, and at {' and '.join(map(str, RATES))}.",
        gather_rate,
        why="The larger steps reach the first layers.",
        why_not="The gradients of layer 1 and layer 10 differ by four decades: a rate that would "
        "move the one is far too large for the other.",
        said_tests=(SHARE,),
    ),
    Claim(
        "tanh-relu-learn",
        "Nets of ten tanh or ReLU layers learn.",
        f"Ten layers of ten units, the lesson's weights: {_TRAINED}.",
        gather_others,
        why="The gradient reaches their first layers.",
        said_tests=(SHARE,) * 2,
    ),
    Claim(
        "relu-cures",
        "With ReLU, deep nets learn.",
        f"Ten ReLU layers of ten units, PyTorch's default weights and the lesson's: {_TRAINED}.",
        gather_relu,
        "With ReLU, deep nets learn if their initial weights keep the size of signal and gradient, "
        "σ_w² = 2; with PyTorch's default, σ_w² = 1/3, they do not.",
        why="A ReLU layer passes on σ_w²/2 of the mean square: with 1/3 that is a sixth, in either "
        "direction (He et al. 2015).",
        said_tests=(SHARE,) * 2,
        reworded_tests=(SHARE,) * 2,
    ),
]
