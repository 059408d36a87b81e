"""The layers that a pass of dp went through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dp
from dp.activations import Activation
from dp.backward import topological_order
from dp.model import activation_after, consumers_of
from gradlab.recording.errors import RecordingError
from gradlab.recording.measure import OF_ACTIVATION, OF_ALL_UNITS, why_not_saturated
from gradlab.recording.recorder import UNKNOWN, LayerInfo, Recorder


def check_once(names: Sequence[str]) -> None:
    """Raise RecordingError unless there are layers, and each is used once."""
    if not names:
        raise RecordingError(
            "the model's loss used no layer made by Linear_Layer or ReLu_Layer, so there is "
            "nothing to record"
        )
    for name in names:
        if names.count(name) > 1:
            raise RecordingError(
                f"layer {name!r} is used {names.count(name)} times in one pass; its deltas cannot "
                "be told apart, so it cannot be recorded"
            )


def functions_of(calls: Iterable[dp.LayerCall], output: dp.Node) -> dict[str, Activation | None]:
    """The activation function of every layer of a forward pass, by the layer's name."""
    consumers = consumers_of(topological_order(output))
    return {
        call.name: activation_after(call.pre_activation, consumers, output)[0] for call in calls
    }


def miss_functions(recorder: Recorder, functions: Iterable[tuple[str, Activation | None]]) -> None:
    """Say what is missing of layers by their activation functions."""
    for name, function in functions:
        if function is None:
            recorder.miss(name, OF_ACTIVATION, NO_FUNCTION)
        elif function.name in OF_ALL_UNITS:
            recorder.miss(name, ("saturated_fraction",), why_not_saturated(function.name))


NO_FUNCTION = (
    "what is applied to its output is not known to be an activation function, or not the only one"
)
NO_DELTA = "the loss does not depend on its output"
NO_GRADIENT = "the optimizer was given no gradient of its weight"


def layer_info(name: str, fan_in: int, fan_out: int, function: Activation | None) -> LayerInfo:
    """Describe a layer of dp for the recorder."""
    return LayerInfo(name, fan_in, fan_out, UNKNOWN if function is None else function.name)
