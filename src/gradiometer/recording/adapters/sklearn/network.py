"""The network of an estimator as dp computes it: outputs, loss, gradients and accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import dp
from dp import activations
from dp.typing import Array
from gradiometer.quantities import accuracy
from gradiometer.recording.adapters.sklearn.internals import unknown_internals
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.functions import Function, function
from gradiometer.recording.session import LayerInfo


@dataclass(frozen=True)
class Ending:
    """What an output layer ends in: its activation function, and the loss of every entry."""

    name: str
    output: Callable[[dp.Node], dp.Node]
    loss: Callable[[dp.Node, dp.Node], dp.Node]


# by the names that scikit-learn has for the loss and for the output's activation function
ENDINGS = {
    ("log_loss", "logistic"): Ending(
        "sigmoid",
        lambda h: h.sigmoid(),
        lambda h, y: (h * (1.0 - 2.0 * y)).softplus(),
    ),
    ("log_loss", "softmax"): Ending(
        "softmax", lambda h: h.softmax(), lambda h, y: -(y * h.log_softmax())
    ),
    ("squared_error", "identity"): Ending(
        "identity",
        lambda h: h,
        lambda h, y: (h - y).square() * 0.5,
    ),
    # but for what does not depend on h
    ("poisson", "exp"): Ending("exp", lambda h: h.exp(), lambda h, y: h.exp() - y * h),
}
HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}


@dataclass
class Pass:
    """What went through the layers; the last activations are the output."""

    inputs: list[dp.Node]
    weights: list[dp.Node]
    pre_activations: list[dp.Node]
    activations: list[dp.Node]


class Network:
    """The network of an estimator, with the weights that it has now."""

    def __init__(self, estimator: Any) -> None:
        key = (estimator.loss, estimator.out_activation_)
        if key not in ENDINGS or estimator.activation not in HIDDEN:
            raise RecordingError(
                f"the estimator has loss {key[0]!r} with output activation {key[1]!r}, and hidden "
                f"activation {estimator.activation!r}; those known are "
                f"{', '.join(f'{loss} with {output}' for loss, output in ENDINGS)}, and hidden "
                f"{', '.join(HIDDEN)}"
            )
        self.weights: list[Array] = list(estimator.coefs_)
        self._biases: list[Array] = list(estimator.intercepts_)
        self._alpha = float(estimator.alpha)
        self._hidden = activations.get(HIDDEN[estimator.activation])
        self._ending = ENDINGS[key]

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers, h1 … hL and out."""
        found = []
        for i, weight in enumerate(self.weights, 1):
            fan_in, fan_out = weight.shape
            found.append(LayerInfo(f"h{i}", fan_in, fan_out, self._hidden.name))
        found[-1] = replace(found[-1], name="out", activation=self._ending.name)
        return tuple(found)

    @property
    def functions(self) -> list[Function]:
        """The activation function of every layer."""
        return [function(info.activation) for info in self.layers]

    def forward(self, x: dp.Node) -> Pass:
        """Send a batch through the layers."""
        last = len(self.weights) - 1
        passed = Pass([], [], [], [])
        for i, (weight, bias) in enumerate(zip(self.weights, self._biases, strict=True)):
            passed.inputs.append(x)
            passed.weights.append(dp.Node(weight))
            h = x.dot(passed.weights[-1]) + bias[None, :]
            passed.pre_activations.append(h)
            x = self._ending.output(h) if i == last else self._hidden(h)
            passed.activations.append(x)
        return passed

    def gradients(
        self, passed: Pass, targets: dp.Node, sample_weight: Array
    ) -> tuple[list[Array], list[Array], list[Array | None]]:
        """The derivatives of the estimator's loss: dL/dW, dL/dh and dL/dφ(h) of every layer.

        The last one's φ(h) is no part of the loss, so there is no derivative of it, unless it is h.
        """
        total = float(sample_weight.sum())
        losses = self._ending.loss(passed.pre_activations[-1], targets).sum(axis=1)
        loss = (losses * sample_weight[:, None].astype(losses.dtype, copy=False)).sum() / total
        if self._alpha:
            for weight in passed.weights:
                loss = loss + weight.square().sum() * (0.5 * self._alpha / total)
        count = len(self.weights)
        nodes = [*passed.weights, *passed.pre_activations, *passed.activations[:-1]]
        found = dp.gradients(loss, nodes)
        gradients, deltas, arriving = found[:count], found[count : 2 * count], found[2 * count :]
        last = deltas[-1] if self._ending.name == "identity" else None
        return gradients, deltas, [*arriving, last]

    def compare(
        self,
        ours: list[Array],
        theirs: Any,
        passed: Pass,
        targets: Array,
        sample_weight: Array,
    ) -> None:
        """Raise RecordingError unless the gradients are the same but for rounding.

        Where units saturate, rounding is large beside the gradient, but not beside `size`: the
        largest that a sample's deltas could be if no activation function had made them smaller.
        """
        output = passed.activations[-1].value
        size = (sample_weight / sample_weight.sum())[:, None]
        size = size * (np.abs(output) + np.abs(targets)).max(axis=1, keepdims=True)
        epsilon = np.finfo(output.dtype).eps
        for i in reversed(range(len(ours))):
            name = self.layers[i].name
            if ours[i].shape != np.shape(theirs[i]):
                raise unknown_internals(
                    f"its gradient of layer {name!r} has shape {np.shape(theirs[i])}, the weight "
                    f"{ours[i].shape}"
                )
            weight = np.abs(passed.weights[i].value)
            bound = size.sum() * np.abs(passed.inputs[i].value).max() + self._alpha * weight.max()
            difference = np.abs(ours[i] - theirs[i]).max()
            if np.isfinite(bound) and difference > np.sqrt(epsilon) * bound:
                raise unknown_internals(
                    f"its gradient of layer {name!r} differs from dp's by {difference:.3g}, where "
                    f"{epsilon * bound:.1g} would be rounding"
                )
            if i:
                h = np.abs(passed.pre_activations[i - 1].value)
                if self._hidden.name == "relu" and (h <= 100 * epsilon * h.max()).any():
                    return  # rounding may decide on which side of the kink it lies
                size = size * weight.sum(axis=1).max() * self._hidden.max_slope

    def accuracy(self, output: Array, labels: Array | None) -> float:
        """Share of samples whose labels are right; NaN of a regressor."""
        if labels is None or self._ending.name not in ("sigmoid", "softmax"):
            return math.nan
        if self._ending.name == "sigmoid" and output.shape[1] > 1:
            # every label of a sample must be right, as scikit-learn counts
            right = ((output > 0.5) == (labels > 0.5)).all(axis=1) & np.isfinite(output).all(axis=1)
            return float(right.mean())
        return float(accuracy(output, labels))
