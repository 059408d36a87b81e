"""See where the gradient goes in a deep network: train, record, draw, and say what happened."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.experiment import Experiment
    from gradlab.recording import record
    from gradlab.trace import Trace
    from gradlab.verbs import activations, export, plot, run

# Loaded when first used, so that `gradlab --help` answers at once.
_HOMES = {
    "Experiment": "gradlab.experiment",
    "Trace": "gradlab.trace",
    "activations": "gradlab.verbs",
    "export": "gradlab.verbs",
    "plot": "gradlab.verbs",
    "record": "gradlab.recording",
    "run": "gradlab.verbs",
}

__all__ = ["Experiment", "Trace", "activations", "export", "plot", "record", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
