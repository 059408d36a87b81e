"""The weights of a model, and where their layers have a pre-activation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from numpy.typing import NDArray

from gradiometer.recording.functions import UNKNOWN, Function, function
from gradiometer.recording.session import LayerInfo

_DENSE = (kl.Dense,)
_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
# their pre-activation is what they hand to their `activation`
_BEFORE_ACTIVATION = {
    *_DENSE, *_CONVOLUTIONS, kl.EinsumDense, kl.DepthwiseConv1D, kl.DepthwiseConv2D,
    kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose,
}  # fmt: skip
# theirs is what they return
_RETURNED = {kl.Embedding, kl.BatchNormalization, kl.LayerNormalization, kl.GroupNormalization}
# what calls its layers inside of a loop, where a backend shows no values
_LOOPS = (kl.RNN, kl.TimeDistributed)
_NO_WEIGHTS = ("bias", "beta", "alpha", "moving_mean", "moving_variance", "seed_generator_state")


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight, and the layer that owns it.

    Attributes
    ----------
    name : str
        The layer's, and the weight's own if the layer has several.
    layer, variable
    caller
        The layer whose call shows that it is used: the layer, or the loop that it is in.
    why_hidden : str
        Why the layer's pre-activation cannot be had; "" if it can.
    """

    name: str
    layer: Any
    variable: Any
    caller: Any
    why_hidden: str = ""

    @property
    def returned(self) -> bool:
        """Whether the pre-activation is what the layer returns."""
        return type(self.layer) in _RETURNED

    @property
    def multiplies(self) -> bool:
        """Whether it is the matrix that the layer's input is multiplied by."""
        return type(self.layer) in _DENSE

    def samples(self, x: NDArray[Any]) -> NDArray[Any]:
        """An array of a call as samples × units."""
        channels_first = getattr(self.layer, "data_format", None) == "channels_first"
        x = np.moveaxis(x, 1 if channels_first else -1, -1)
        return x.reshape(-1, x.shape[-1])

    def info(self, activation: str = UNKNOWN, role: str = "trained") -> LayerInfo:
        """What is told of it; fans are 0 where they are not known."""
        shape = tuple(self.variable.shape)
        known = type(self.layer) in {*_DENSE, *_CONVOLUTIONS, kl.Embedding}
        fan_in, fan_out = (math.prod(shape[:-1]), shape[-1]) if known else (0, 0)
        return LayerInfo(self.name, fan_in, fan_out, activation, role)


def weights_of(model: Any) -> list[Weight]:
    """The weights of a built model."""
    layers = model._flatten_layers()
    inside = {
        id(layer): loop
        for loop in layers
        if isinstance(loop, _LOOPS)
        for layer in loop._flatten_layers(include_self=False)
    }
    names = Counter(layer.name for layer in layers)
    found = []
    for layer in layers:
        own = [v for v in layer._trainable_variables + layer._non_trainable_variables if _is_one(v)]
        name = layer.name if names[layer.name] == 1 else layer.path
        kind = type(layer)
        caller, why = inside.get(id(layer), layer), ""
        if caller is not layer:
            why = f"it is called inside the loop of {caller.name!r}"
        elif len(own) > 1 or kind not in _BEFORE_ACTIVATION | _RETURNED:
            why = f"what a {kind.__name__} computes inside is not seen"
        for variable in own:
            full = name if len(own) == 1 else f"{name}/{variable.name}"
            found.append(Weight(full, layer, variable, caller, why))
    return found


def _is_one(variable: Any) -> bool:
    """Whether a variable is a weight: a matrix, a kernel, or the scale of a normalisation."""
    if variable.name in _NO_WEIGHTS or not keras.backend.is_float_dtype(variable.dtype):
        return False
    return len(variable.shape) >= 2 or variable.name == "gamma"


# --- activation functions -------------------------------------------------------------------------

_ACTIVATIONS = ("LeakyReLU", "ELU", "PReLU", "Softmax")  # layers beside Activation and ReLU
# settings that differ from those of `gradiometer.recording.functions`, or have another default
_SETTINGS: dict[str, dict[str, Any]] = {
    "leakyrelu": {"negative_slope": 0.2},
    "elu": {"alpha": 1.0},
    "gelu": {"approximate": False},
}


def function_of(given: Any) -> Function | None:
    """The activation function that is meant: by a function, a layer, or an operation of a graph.

    None if a layer or an operation is no activation function.
    """
    if isinstance(given, kl.Activation):
        return function_of(given.activation)
    kind = type(given)
    if kind is kl.ReLU:
        return _relu(given)
    if isinstance(given, kl.Layer):
        return _named(kind.__name__, given) if kind.__name__ in _ACTIVATIONS else None
    if isinstance(given, keras.Operation):
        known = kind.__module__.endswith("ops.nn") or kind.__name__ in ("Tanh", "Exp")
        found = _named(kind.__name__, given)
        return found if known and found.name != UNKNOWN else None
    name = getattr(given, "__name__", "")
    homes = (keras.activations, keras.ops)
    return _named(name, None) if any(getattr(home, name, 0) is given for home in homes) else UNSEEN


UNSEEN = Function(UNKNOWN)  # one of the user's


def _named(name: str, owner: Any) -> Function:
    """A function of Keras, with the settings that its owner has, or else by default."""
    settings = _SETTINGS.get(name.replace("_", "").lower(), {})
    return function(name, **{key: getattr(owner, key, usual) for key, usual in settings.items()})


def _relu(layer: Any) -> Function:
    plain = layer.threshold == 0
    if plain and layer.negative_slope == 0:
        return function("clamp", low=0, high=layer.max_value)
    if plain and layer.max_value is None:
        return function("leaky_relu", negative_slope=float(layer.negative_slope))
    return UNSEEN
