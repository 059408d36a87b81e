"""What can be wrong with a multilayer perceptron: which settings a fault changes, and its cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.corpus.cases import Kind

Settings = Mapping[str, Any]
Changes = Callable[[Settings], dict[str, Any]]


@dataclass(frozen=True)
class Fault:
    """A change that keeps a sound net from learning.

    Attributes
    ----------
    causes : dict of kind to cause
        By the kinds in which it may show.
    changes : callable
        From the sound net's settings to those that differ.
    layers : str
        The right layers: "first", "middle", "hidden", "out", or "" if no one layer is meant.
    before : callable
        Changes that the sound net is given too, so that it differs by the fault alone.
    """

    causes: Mapping[Kind, str]
    changes: Changes
    layers: Literal["", "first", "middle", "hidden", "out"] = ""
    before: Changes = field(default=lambda _: {})


def middle(settings: Settings) -> str:
    """Name of the hidden layer in the middle."""
    return f"h{(settings['layers'] + 1) // 2}"


def constant(**changes: Any) -> Changes:
    """The same changes, whatever the net."""
    return lambda _: changes


def rate(factor: float) -> Changes:
    """Another learning rate."""
    return lambda settings: {"learning_rate": settings["learning_rate"] * factor}


def in_the_middle(**changes: Any) -> Changes:
    """Other initial parameters of the middle layer."""
    return lambda settings: {"at": middle(settings), **changes}


_HIGH: dict[Kind, str] = {
    "dead": "dead units: learning rate",
    "saturated": "learning rate too high",
    "non-finite": "learning rate too high",
    "stalled": "learning rate too high",
}
_UNSCALED: dict[Kind, str] = {
    "dead": "dead units: inputs",
    "saturated": "inputs unscaled",
    "non-finite": "inputs unscaled",
    "stalled": "inputs unscaled",
}
_LARGE: dict[Kind, str] = {
    "saturated": "weights too large",
    "exploding": "weights too large",
    "non-finite": "weights too large",
}
_SMALL: dict[Kind, str] = {"vanishing": "weights too small"}
_SLOPE: dict[Kind, str] = {"vanishing": "activation slope"}
_NUMERICS: dict[Kind, str] = {"non-finite": "loss numerics"}


def _stalled(cause: str, changes: Changes, layers: Any = "") -> Fault:
    return Fault({"stalled": cause}, changes, layers)


FAULTS: Mapping[str, Fault] = {
    # the rate
    **{f"rate-x{f:g}": Fault(_HIGH, rate(f)) for f in (10, 30, 100, 1000)},
    **{f"rate-{f}": _stalled("learning rate too low", rate(float(f))) for f in ("1e-3", "1e-5")},
    # the initial weights
    **{f"weights-x{f:g}": Fault(_SMALL, constant(factor=f)) for f in (0.03, 0.1, 0.3, 0.5)},
    "pytorch": Fault(_SMALL, constant(init="pytorch")),
    "layer-weights-x1e-4": Fault(_SMALL, in_the_middle(factor=1e-4), "middle"),
    **{f"weights-x{f:g}": Fault(_LARGE, constant(factor=f)) for f in (3.0, 10.0, 30.0)},
    "normal": Fault(_LARGE, constant(init="normal")),
    "layer-weights-x300": Fault(_LARGE, in_the_middle(factor=300.0), "middle"),
    **{f"alike-{w:g}": _stalled("identical units", constant(weights=w)) for w in (0.0, 0.1)},
    # the activation function
    "sigmoid": Fault(_SLOPE, constant(activation="sigmoid")),
    "no-norm": Fault(_SLOPE, constant(normalisation="none")),
    "no-residual": Fault(_SLOPE, constant(residual=False)),
    # the biases
    **{
        f"bias-{-b:g}": Fault({"dead": "dead units: bias"}, constant(bias=b), "hidden")
        for b in (-2.0, -5.0)
    },
    "layer-bias-10": Fault({"dead": "dead units: bias"}, in_the_middle(bias=-10.0), "middle"),
    # the inputs
    **{f"inputs-x{f:g}": Fault(_UNSCALED, constant(scaling=f), "first") for f in (1e1, 1e2, 1e3)},
    "inputs-x1e-4": _stalled("inputs unscaled", constant(scaling=1e-4), "first"),
    **{f"offset-{abs(f):g}": Fault(_UNSCALED, constant(inputs=f), "first") for f in (10.0, -100.0)},
    **{
        f"inputs-{what}": _stalled("constant inputs", constant(inputs=what))
        for what in ("zero", "equal")
    },
    **{
        f"inputs-{what}": Fault({"non-finite": "non-finite data"}, constant(inputs=what), "first")
        for what in ("nan", "inf")
    },
    # the targets
    "targets-shuffled": _stalled("targets", constant(targets="shuffled")),
    "targets-nan": Fault({"non-finite": "non-finite data"}, constant(targets="nan"), "out"),
    # the output and the loss
    **{
        f"head-{head}": _stalled("output activation or loss", constant(head=head), "out")
        for head in ("softmax", "sigmoid", "tanh", "relu")
    },
    **{f"decay-{f:g}": _stalled("regularisation", constant(decay=f)) for f in (0.1, 0.3)},
    "loss-relative": Fault(_NUMERICS, constant(head="linear, relative"), "out"),
    # √ of the errors of rows that are predicted exactly
    "loss-root": Fault(
        _NUMERICS, constant(head="linear, root"), "out", constant(at="out", weights=0.0)
    ),
    **{
        f"loss-{head.replace(' ', '-')}-out{f:g}": Fault(
            _NUMERICS, constant(head=head), "out", constant(at="out", factor=f, dtype="float32")
        )
        for head in ("log of sigmoid", "log of softmax", "log of exp")
        for f in (30.0, 100.0)
    },
    # the budget
    **{f"steps-{n}": _stalled("too few steps", constant(steps=n)) for n in (4, 12)},
}

# Changes with which a net learns all the same, though naive rules take them for faults. Those of
# `FAULTS` belong to them too.
SOUND: Mapping[str, Changes] = {
    "loss-x1e-5": lambda settings: {"loss_factor": 1e-5, **_rate_of(settings, 1e5)},
    "loss-x1e4": lambda settings: {"loss_factor": 1e4, **_rate_of(settings, 1e-4)},
    "head-zero": constant(at="out", weights=0.0),
    "steps-600": lambda settings: {
        "steps": 600,
        **({} if "head" in settings else rate(3)(settings)),
    },
    "batch-4": constant(batch_size=4),
    "sum": lambda settings: {"reduction": "sum", **rate(1 / 64)(settings)},
    **{f"bias-{-b:g}": constant(bias=b) for b in (-0.3, -1.0)},
    "layer-weights-x1e-2": in_the_middle(factor=1e-2),
    "first-layer-weights-x1e-3": constant(at="h1", factor=1e-3),
    "first-layer-weights-x30": constant(at="h1", factor=30.0),
    "out-weights-x100": constant(at="out", factor=100.0),
    "inputs-x3": constant(scaling=3.0),
    "rate-x3": rate(3),
}

# what naive rules see, if anything
TRAPS = {
    "sparse": "most units of a layer are dead",
    "saturated": "most values of a layer are saturated",
    "tiny": "gradients are below 1e-7",
    "small": "the delta falls a thousandfold",
    "large": "the delta grows thirtyfold",
    "jump": "the loss is large or jumps",
    "plain": "",
}


def _rate_of(settings: Settings, factor: float) -> dict[str, Any]:
    """A rate that makes up for a factor on the loss; Adam and RMSProp need none."""
    return {} if settings["optimizer"] in ("adam", "rmsprop") else rate(factor)(settings)


def right_layers(fault: Fault, settings: Settings) -> tuple[str, ...]:
    """Names of the layers that count as right."""
    hidden = tuple(f"h{number}" for number in range(1, settings["layers"] + 1))
    return {
        "": (),
        "first": ("h1",),
        "middle": (middle(settings),),
        "hidden": hidden,
        "out": ("out",),
    }[fault.layers]
