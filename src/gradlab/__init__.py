"""See where the gradient goes in a deep network: train, record, draw, and say what happened."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.bridges import copy_weights, from_torch, to_torch
    from gradlab.experiment import Experiment
    from gradlab.recording import record
    from gradlab.recording.sklearn import from_sklearn, record_sklearn
    from gradlab.study import Study
    from gradlab.trace import Trace
    from gradlab.verbs import activations, export, plot, predict, prove, run

# Loaded when first used, so that `gradlab --help` answers at once.
_HOMES = {
    "Experiment": "gradlab.experiment",
    "Study": "gradlab.study",
    "Trace": "gradlab.trace",
    "activations": "gradlab.verbs",
    "copy_weights": "gradlab.bridges",
    "export": "gradlab.verbs",
    "from_sklearn": "gradlab.recording.sklearn",
    "from_torch": "gradlab.bridges",
    "plot": "gradlab.verbs",
    "predict": "gradlab.verbs",
    "prove": "gradlab.verbs",
    "record": "gradlab.recording",
    "record_sklearn": "gradlab.recording.sklearn",
    "run": "gradlab.verbs",
    "to_torch": "gradlab.bridges",
}

__all__ = [
    "Experiment",
    "Study",
    "Trace",
    "activations",
    "copy_weights",
    "export",
    "from_sklearn",
    "from_torch",
    "plot",
    "predict",
    "prove",
    "record",
    "record_sklearn",
    "run",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
