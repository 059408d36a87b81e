"""The causes of a verdict: what each means, which kinds it belongs to, and what to change.

A verdict names one of these. `docs/diagnosis.md` has the table, which is made from this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is wrong with a net, or that nothing is."""

    HEALTHY = "healthy"
    VANISHING = "vanishing"
    EXPLODING = "exploding"
    DEAD = "dead"
    SATURATED = "saturated"
    NON_FINITE = "non-finite"
    STALLED = "stalled"  # it does not learn, and the gradient's way through the layers is not why
    UNKNOWN = "unknown"  # what was recorded does not tell


@dataclass(frozen=True)
class Cause:
    """Which factor makes a net fail.

    Attributes
    ----------
    name : str
    kinds : tuple of Kind
        The kinds of verdict that it may stand behind.
    meaning : str
        What is wrong, as the end of a sentence that begins with "Cause: ".
    advice : str
        What to change first, as a sentence. It is a suggestion until it was tried.
    """

    name: str
    kinds: tuple[Kind, ...]
    meaning: str
    advice: str


_ALL = (
    Cause(
        "activation slope",
        (Kind.VANISHING,),
        "the slope of the activation function shrinks the delta in every layer",
        "Use an activation function whose slope is near 1, such as tanh or ReLU, or normalise.",
    ),
    Cause(
        "weights too small",
        (Kind.VANISHING,),
        "the weights are so small that they shrink the delta in every layer",
        "Initialise with a variance of 2 / fan_in (He, for ReLU) or 1 / fan_in (Xavier, for tanh).",
    ),
    Cause(
        "weights too large",
        (Kind.EXPLODING, Kind.SATURATED, Kind.NON_FINITE),
        "the weights are too large",
        "Initialise with a variance of 2 / fan_in (He, for ReLU) or 1 / fan_in (Xavier, for tanh).",
    ),
    Cause(
        "recurrence",
        (Kind.VANISHING, Kind.EXPLODING, Kind.NON_FINITE),
        "the same weights multiply the delta once for each step of the sequence",
        "Use a gated unit (LSTM, GRU), initialise the recurrent weights orthogonally, or clip the "
        "norm of the gradient.",
    ),
    Cause(
        "dead units: learning rate",
        (Kind.DEAD,),
        "an update that is large beside the weights switched the units off",
        "Lower the learning rate, or raise it slowly over the first steps (warm-up).",
    ),
    Cause(
        "dead units: bias",
        (Kind.DEAD,),
        "negative biases keep the units off from the first step on",
        "Initialise the biases with zero.",
    ),
    Cause(
        "dead units: inputs",
        (Kind.DEAD,),
        "the scale or the sign of the inputs switches the units off",
        "Standardise the inputs.",
    ),
    Cause(
        "inputs unscaled",
        (Kind.SATURATED, Kind.EXPLODING, Kind.NON_FINITE, Kind.STALLED),
        "the inputs are far from a mean of 0 and a standard deviation of 1",
        "Standardise the inputs: subtract the mean, divide by the standard deviation.",
    ),
    Cause(
        "learning rate too high",
        (Kind.STALLED, Kind.EXPLODING, Kind.NON_FINITE, Kind.SATURATED),
        "the updates are too large for the weights",
        "Divide the learning rate by ten, and again if that is not enough.",
    ),
    Cause(
        "learning rate too low",
        (Kind.STALLED,),
        "the updates are tiny beside the weights",
        "Raise the learning rate until an update is about a thousandth of the weights.",
    ),
    Cause(
        "loss numerics",
        (Kind.NON_FINITE,),
        "the loss itself, or its derivative, is not finite where the net's output still is",
        "Use a loss that takes logits, such as cross_entropy or BCEWithLogitsLoss; keep log, "
        "sqrt and division away from 0.",
    ),
    Cause(
        "non-finite data",
        (Kind.NON_FINITE,),
        "the inputs or targets contain NaN or infinity",
        "Look for rows with missing values, and remove or fill them.",
    ),
    Cause(
        "output activation or loss",
        (Kind.STALLED,),
        "the output's activation function or the loss does not suit the targets",
        "Use a linear output and squared error for numbers, logits and cross entropy for classes.",
    ),
    Cause(
        "optimizer does not own the layer",
        (Kind.STALLED,),
        "the optimizer was not given the layer's parameters",
        "Give the optimizer all parameters: torch.optim.SGD(model.parameters(), …).",
    ),
    Cause(
        "gradients cleared",
        (Kind.STALLED,),
        "the gradients are cleared between the backward pass and the update",
        "Call optimizer.zero_grad() before loss.backward(), not after it.",
    ),
    Cause(
        "gradients accumulated",
        (Kind.STALLED,),
        "the gradients of all steps so far are added up",
        "Call optimizer.zero_grad() in each step.",
    ),
    Cause(
        "graph cut",
        (Kind.STALLED,),
        "the graph is cut, so that no gradient comes to the layers before",
        "Look for detach(), .item(), .data, NumPy or no_grad() in the forward pass.",
    ),
    Cause(
        "constant inputs",
        (Kind.STALLED,),
        "the inputs are zero, or the same in every sample",
        "Look at what the model is given: print a batch and its standard deviation.",
    ),
    Cause(
        "targets",
        (Kind.STALLED,),
        "nothing in the layers explains it, so that the data or the loss are left: do the targets "
        "depend on the inputs, as the model sees both?",
        "Look at the pairs of input and target: shuffled apart, constant, or of another shape?",
    ),
    Cause(
        "regularisation",
        (Kind.STALLED,),
        "regularisation is stronger than the loss",
        "Lower weight decay and dropout.",
    ),
    Cause(
        "identical units",
        (Kind.STALLED,),
        "the units of a layer are all the same, and stay so",
        "Initialise the weights at random.",
    ),
    Cause(
        "too few steps",
        (Kind.STALLED,),
        "the loss was still falling when the training ended",
        "Train for more steps.",
    ),
    Cause(
        "unknown",
        (Kind.STALLED,),
        "nothing that was recorded tells why",
        "Look at the data, the loss and the learning rate; try to fit ten samples first.",
    ),
)
CAUSES: Mapping[str, Cause] = {cause.name: cause for cause in _ALL}
