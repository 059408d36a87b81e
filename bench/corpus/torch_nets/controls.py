"""Healthy nets that naive rules flag, and what is unusual about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Control:
    """A change of a plan that makes a net unusual, but not wrong.

    Attributes
    ----------
    trap : str
        Why a naive rule would flag it.
    unusual : dict
        Values of the plan.
    """

    trap: str
    unusual: dict[str, Any]


CONTROLS: dict[str, Control] = {
    # --- activations and units
    "sparse-relus": Control(
        "most activations are exactly zero", {"bias": -0.7, "optimizer": "adam", "rate": 0.01}
    ),
    "half-dead": Control(
        "half of the units of every hidden layer are dead, the others suffice",
        {"bias": -30.0, "changed": "half", "width": 40, "optimizer": "adam", "rate": 0.01},
    ),
    "wide-tanh": Control(
        "a third of the units is saturated at first", {"gain": 2.0, "activation": "tanh"}
    ),
    "shallow-sigmoid": Control(
        "the slope of sigmoid shrinks the delta, in two layers only",
        {"activation": "sigmoid", "depth": 1, "optimizer": "adam", "rate": 0.03},
    ),
    "normalised-sigmoid": Control(
        "sigmoid layers one after the other, but normalised",
        {"activation": "sigmoid", "norm": "batch", "optimizer": "adam", "rate": 0.03},
    ),
    # --- weights
    "zero-head": Control("no gradient below the output layer at step 1", {"head": "zero"}),
    "large-weights": Control(
        "weights are three times too large and half of the units saturate, but it learns",
        {"gain": 3.0, "depth": 4, "activation": "tanh", "optimizer": "adam", "rate": 0.02},
    ),
    "large-inputs": Control(
        "inputs are thirty times too large and the first layer saturates, but it learns",
        {"inputs": "times 30", "width": 40, "optimizer": "adam", "rate": 0.02},
    ),
    "small-layer": Control(
        "one layer begins with weights a hundred times too small, and soon has others",
        {"gain": 0.01, "changed": "middle", "optimizer": "adam", "rate": 0.02},
    ),
    "zero-branches": Control(
        "no gradient in the branches at step 1", {"head": "zero branches"}
    ),
    "deep": Control("many layers", {"depth": 9}),
    "framework": Control(
        "PyTorch's default weights, smaller than theory has them",
        {"initial": "framework", "optimizer": "adam", "rate": 0.01},
    ),
    # --- what is between the layers
    "mean-pooled": Control(
        "a mean over positions divides the delta by their number", {"pool": "mean"}
    ),
    "max-pooled": Control("the delta is zero at most positions", {"pool": "max"}),
    "long": Control(
        "a mean over a long sequence divides the delta by its length",
        {"length": 32, "pool": "mean"},
    ),
    "dropout": Control("a third of the units is zero in each step", {"dropout": 0.3}),
    # --- what is trained
    "frozen-first": Control("the first layer does not change", {"frozen": "first"}),
    "converged": Control("gradients and updates are tiny, for it has learned", {"before": 250}),
    "converged-adam": Control(
        "gradients are tiny, for it has learned, and the optimizer scales them",
        {"before": 250, "optimizer": "adam", "rate": 0.01},
    ),
    # --- loss and targets
    "adam-tiny": Control(
        "gradients are 1e-5 of what is usual, and the optimizer scales them",
        {"scale": 1e-5, "optimizer": "adam", "rate": 0.01},
    ),
    "adam-huge": Control(
        "gradients are 1e5 of what is usual, and the optimizer scales them",
        {"scale": 1e5, "optimizer": "adam", "rate": 0.01},
    ),
    "small-targets": Control(
        "loss and gradients are tiny, as the targets are",
        {"targets": "small", "optimizer": "adam", "rate": 0.01, "head": "zero"},
    ),
    "probabilities": Control(
        "the output layer saturates as it becomes sure",
        {
            "ending": "sigmoid", "loss": "binary cross entropy of probabilities",
            "optimizer": "adam", "rate": 0.02,
        },
    ),
    "partly-wrong": Control(
        "the loss stays high, as a fifth of the labels is wrong", {"targets": "partly wrong"}
    ),
    # --- the loop
    "clipped": Control("most of the gradient is clipped away", {"clip": 0.3}),
    "warm-up": Control("the first updates are tiny", {"schedule": "warm-up"}),
    "to-zero": Control("the last updates are tiny", {"schedule": "to zero"}),
    "small-batch": Control(
        "the loss jumps from batch to batch",
        {"batch": 8, "steps": 90, "optimizer": "adam", "rate": 0.005},
    ),
    "decayed": Control("a weight decay that suits", {"decay": 1e-3}),
    "fast": Control("updates are large beside the weights", {"rate": 0.03, "optimizer": "adam"}),
    "scaled-by-norm": Control(
        "inputs are a thousand times too large, but normalised after the first layer",
        {"inputs": "times 1000", "norm": "batch", "optimizer": "adam", "rate": 0.02},
    ),
    "without-reference": Control("no accuracy was recorded", {"reference": False}),
}  # fmt: skip
