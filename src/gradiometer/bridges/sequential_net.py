"""A net of dp whose layers differ as those of a torch.nn.Sequential may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

import dp
from dp import initializers
from dp.activations import Activation
from dp.net import set_chain
from dp.typing import Array
from dp.validation import one_of


class Affine(NamedTuple):
    """The numbers of one layer, and its activation function.

    Attributes
    ----------
    weight : array (fan_in, fan_out)
    bias : array (1, fan_out)
    function : Activation
    """

    weight: Array
    bias: Array
    function: Activation


class Sequential_Net(dp.Net):
    """A `dp.Net` whose layers each have a width and an activation function of their own.

    Parameters
    ----------
    hidden : sequence of Affine
        The hidden layers, h1 … hL; there may be none.
    out : Affine
        The output layer; what it is followed by is decided by `outputs`.
    outputs : "probabilities" or "values"
        Whether `forward` ends in a sigmoid or softmax, as a `dp.Net` does, or gives the output
        layer's pre-activations themselves (a net for regression).
    loss, reduction
        See `dp.Net`; values go with "squared_error" alone.
    dtype : dtype
        Of every parameter.

    Raises
    ------
    ValueError
        For an unknown name, naming what would be accepted.
    """

    def __init__(
        self,
        hidden: Sequence[Affine],
        out: Affine,
        *,
        outputs: Literal["probabilities", "values"] = "probabilities",
        loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
        reduction: dp.losses.Reduction = "sum",
        dtype: Any = np.float64,
    ) -> None:
        dp.Model.__init__(self, dtype=dtype)
        one_of("outputs", outputs, ("probabilities", "values"))
        accepted = ("squared_error",) if outputs == "values" else ("cross_entropy", "squared_error")
        one_of("loss", loss, accepted)
        one_of("reduction", reduction, ("sum", "mean"))
        functions = [affine.function for affine in hidden]
        same = all(function == functions[0] for function in functions)
        self.activation = functions[0] if functions and same else None
        self.outputs = outputs
        self.n_outputs = out.weight.shape[1]
        self.normalisation, self.residual = "none", False
        self.loss_name, self.reduction = loss, reduction
        layers = [_layer(self, f"h{number}", affine) for number, affine in enumerate(hidden, 1)]
        for layer, affine in zip(layers, hidden, strict=True):
            layer.activation = affine.function
        set_chain(self, [*layers, _layer(self, "out", out)])

    def forward(self, x: Any, like: Any = None) -> dp.Node:
        """Probabilities or values, (batch, n_outputs); `like` changes nothing."""
        return self.logits(x) if self.outputs == "values" else super().forward(x, like)


def _layer(net: dp.Net, name: str, affine: Affine) -> dp.Layer:
    how = initializers.Initializer(
        "given", "", lambda *_: affine.weight, lambda *_: affine.bias
    )  # draws nothing: no random stream is moved on
    fan_in, fan_out = affine.weight.shape
    return net.Linear_Layer(fan_in, fan_out, name, how)
