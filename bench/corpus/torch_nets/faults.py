"""Faults: what people get wrong, each one or few values of a plan; the right ones repair it.

Tried, and not among them:

- targets that are all the same, labels that are off by one: such a net learns what it is given
- a sigmoid too few before `BCELoss`, BatchNorm of a single row: PyTorch raises an error
- a loss of the wrong sign, BatchNorm that is never updated: no cause in the table is theirs
- squared error after a saturated sigmoid, an optimizer without the first or the last of several
  layers: these nets learned
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A fault and its label.

    Attributes
    ----------
    kind, cause : str
        The verdict that is right.
    shows : tuple of str
        Other kinds that it may show as; which of them it is, is measured: see `symptoms`.
    wrong : dict
        Values of the plan that are wrong. The healthy twin has the plan's own instead.
    where : str
        Layers that are right to name, a key of `nets.layers_of`; "" if no one layer is meant.
    beside : dict
        Values that both the failing net and its twin have.
    """

    kind: str
    cause: str
    wrong: dict[str, Any]
    where: str = ""
    beside: dict[str, Any] = field(default_factory=dict)
    shows: tuple[str, ...] = ()

    def kind_as(self, symptom: str) -> str:
        """Give the kind of a net that shows it so."""
        return symptom if symptom in self.shows else self.kind

    def cause_as(self, kind: str) -> str:
        """Give the cause if it shows as this kind: dead units have causes of their own."""
        return _OF_DEAD_UNITS.get(self.cause, self.cause) if kind == "dead" else self.cause


_LARGE = ("non-finite", "saturated")
_ANY = ("non-finite", "saturated", "dead")
_OF_DEAD_UNITS = {
    "learning rate too high": "dead units: learning rate",
    "inputs unscaled": "dead units: inputs",
}

# logits of some hundreds, which the stable loss learns from as well
_HUGE_LOGITS = {"gain": 60.0, "changed": "out", "optimizer": "adam", "rate": 0.01}

FAULTS: dict[str, Fault] = {
    # --- the way of the gradient
    "sigmoid-deep": Fault(
        "vanishing",
        "activation slope",
        {"activation": "sigmoid"},
        beside={"depth": 6, "activation": "tanh"},
    ),
    "hardsigmoid-deep": Fault(
        "vanishing",
        "activation slope",
        {"activation": "hardsigmoid"},
        beside={"depth": 5, "activation": "tanh"},
    ),
    "small-all": Fault("vanishing", "weights too small", {"gain": 0.1}, beside={"depth": 5}),
    "small-std": Fault("vanishing", "weights too small", {"initial": "small"}, beside={"depth": 5}),
    "small-middle": Fault(
        "vanishing", "weights too small", {"gain": 1e-5, "changed": "middle"}, "middle"
    ),
    "large-8": Fault(
        "exploding", "weights too large", {"gain": 8.0}, beside={"depth": 5}, shows=_LARGE
    ),
    "large-3": Fault(
        "exploding", "weights too large", {"gain": 3.0}, beside={"depth": 5}, shows=_LARGE
    ),
    "large-normal": Fault(
        "exploding", "weights too large", {"initial": "normal"}, beside={"depth": 4}, shows=_LARGE
    ),
    "large-clipped": Fault(
        "exploding",
        "weights too large",
        {"gain": 4.0},
        beside={"depth": 5, "clip": 3.0},
        shows=_LARGE,
    ),
    "large-1e6": Fault(
        "exploding", "weights too large", {"gain": 1e6}, beside={"depth": 6}, shows=_LARGE
    ),
    "recurrence-small": Fault(
        "vanishing", "recurrence", {"gain": 0.2, "changed": "recurrent"}, "recurrent"
    ),
    "recurrence-tenth": Fault(
        "vanishing", "recurrence", {"gain": 0.1, "changed": "recurrent"}, "recurrent"
    ),
    "recurrence-third": Fault(
        "vanishing", "recurrence", {"gain": 0.3, "changed": "recurrent"}, "recurrent"
    ),
    "recurrence-eight": Fault(
        "exploding",
        "recurrence",
        {"gain": 8.0, "changed": "recurrent"},
        "recurrent",
        shows=("non-finite",),
    ),
    "recurrence-relu-2": Fault(
        "exploding",
        "recurrence",
        {"gain": 2.0, "changed": "recurrent"},
        "recurrent",
        {"activation": "relu"},
        shows=("non-finite",),
    ),
    "recurrence-large": Fault(
        "exploding",
        "recurrence",
        {"gain": 4.0, "changed": "recurrent"},
        "recurrent",
        shows=("non-finite",),
    ),
    "recurrence-relu": Fault(
        "exploding",
        "recurrence",
        {"gain": 8.0, "changed": "recurrent"},
        "recurrent",
        {"activation": "relu"},
        shows=("non-finite",),
    ),
    "recurrence-relu-3": Fault(
        "exploding",
        "recurrence",
        {"gain": 3.0, "changed": "recurrent"},
        "recurrent",
        {"activation": "relu"},
        shows=("non-finite",),
    ),
    # --- inputs
    "times-1000": Fault(
        "stalled", "inputs unscaled", {"inputs": "times 1000"}, "first", shows=_ANY
    ),
    "times-30": Fault("stalled", "inputs unscaled", {"inputs": "times 30"}, "first", shows=_ANY),
    "raw": Fault("stalled", "inputs unscaled", {"inputs": "raw"}, "first", shows=_ANY),
    "times-1e20": Fault(
        "stalled", "inputs unscaled", {"inputs": "times 1e20"}, "first", shows=_ANY
    ),
    "far": Fault("stalled", "inputs unscaled", {"inputs": "far"}, "first", shows=_ANY),
    "far-below": Fault("stalled", "inputs unscaled", {"inputs": "far below"}, "first", shows=_ANY),
    "zero": Fault("stalled", "constant inputs", {"inputs": "zero"}, "first"),
    "constant": Fault("stalled", "constant inputs", {"inputs": "constant"}, "first"),
    "one-row": Fault("stalled", "constant inputs", {"inputs": "one row"}, "first"),
    # --- dead units
    "bias-all": Fault("dead", "dead units: bias", {"bias": -10.0}, "hidden"),
    "bias-middle": Fault(
        "dead", "dead units: bias", {"bias": -20.0, "changed": "middle"}, "middle"
    ),
    # --- rates
    "rate-1e-9": Fault("stalled", "learning rate too low", {"rate": 1e-9}),
    "rate-1e-6": Fault("stalled", "learning rate too low", {"rate": 1e-6}),
    "gone-at-once": Fault("stalled", "learning rate too low", {"schedule": "gone at once"}),
    "never-warm": Fault("stalled", "learning rate too low", {"schedule": "never warm"}),
    "rate-1": Fault("stalled", "learning rate too high", {"rate": 1.0}, shows=_ANY),
    "rate-10": Fault("stalled", "learning rate too high", {"rate": 10.0}, shows=_ANY),
    "rate-3": Fault("stalled", "learning rate too high", {"rate": 3.0}, shows=_ANY),
    "spike": Fault("stalled", "learning rate too high", {"schedule": "spike"}, shows=_ANY),
    "rate-100": Fault("stalled", "learning rate too high", {"rate": 100.0}, shows=_ANY),
    # --- loss, output, targets
    "data-nan": Fault("non-finite", "non-finite data", {"inputs": "with NaN"}),
    "data-inf": Fault("non-finite", "non-finite data", {"inputs": "with Inf"}),
    "targets-nan": Fault("non-finite", "non-finite data", {"targets": "with NaN"}),
    "softmax-by-hand": Fault(
        "non-finite",
        "loss numerics",
        {"loss": "softmax by hand"},
        beside=_HUGE_LOGITS,
    ),
    "log-of-softmax": Fault(
        "non-finite",
        "loss numerics",
        {"loss": "log of softmax"},
        beside=_HUGE_LOGITS,
    ),
    "entropy": Fault(
        "non-finite",
        "loss numerics",
        {"loss": "entropy by hand"},
        beside=_HUGE_LOGITS,
    ),
    "norm": Fault("non-finite", "loss numerics", {"loss": "norm by hand"}, beside={"head": "zero"}),
    "normalised": Fault(
        "non-finite", "loss numerics", {"loss": "normalised by hand"}, beside={"head": "zero"}
    ),
    "binary-by-hand": Fault(
        "non-finite",
        "loss numerics",
        {"loss": "binary by hand"},
        beside={"gain": 40.0, "changed": "out"},
    ),
    "relative": Fault("non-finite", "loss numerics", {"loss": "relative error"}),
    "log-error": Fault("non-finite", "loss numerics", {"loss": "log error"}),
    "softmax-twice": Fault("stalled", "output activation or loss", {"ending": "softmax"}, "out"),
    "sigmoid-numbers": Fault("stalled", "output activation or loss", {"ending": "sigmoid"}, "out"),
    "relu-out": Fault("stalled", "output activation or loss", {"ending": "relu"}, "out"),
    "tanh-large": Fault(
        "stalled", "output activation or loss", {"ending": "tanh"}, "out", {"targets": "large"}
    ),
    "shuffled": Fault("stalled", "targets", {"targets": "shuffled"}),
    "other-row": Fault("stalled", "targets", {"targets": "of another row"}),
    "flat": Fault(  # (N,) beside (N, 1): every output is compared with every target
        "stalled", "targets", {"targets": "flat"}, beside={"loss": "squared error by hand"}
    ),
    # --- the loop
    "owned-last": Fault("stalled", "optimizer does not own the layer", {"owned": "last"}, "hidden"),
    "owned-first": Fault("stalled", "optimizer does not own the layer", {"owned": "first"}),
    "frozen-trunk": Fault(
        "stalled", "optimizer does not own the layer", {"frozen": "trunk"}, "hidden"
    ),
    "cleared": Fault("stalled", "gradients cleared", {"clear": "between"}),
    "accumulated": Fault("stalled", "gradients accumulated", {"clear": "never"}),
    "detached": Fault("stalled", "graph cut", {"cut": "detach"}, "hidden"),
    "no-grad": Fault("stalled", "graph cut", {"cut": "no_grad"}, "hidden"),
    "each-step": Fault("stalled", "graph cut", {"cut": "each step"}, "recurrent"),
    "decay": Fault("stalled", "regularisation", {"decay": 0.5}),
    "dropout": Fault("stalled", "regularisation", {"dropout": 0.98}),
    "identical": Fault("stalled", "identical units", {"initial": "constant"}),
    "all-zero": Fault("stalled", "identical units", {"initial": "zero"}),
    "few-steps": Fault("stalled", "too few steps", {"steps": 4}),
}
