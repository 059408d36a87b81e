"""Show where the gradient goes in a deep network: train, record, draw, and say what happened."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradiometer.bridges import copy_weights, from_torch, to_torch
    from gradiometer.experiment import Experiment
    from gradiometer.recording.adapters.sklearn import from_sklearn, record_sklearn
    from gradiometer.recording.errors import GradientWarning, TrainingStopped
    from gradiometer.recording.record import record
    from gradiometer.remedies import try_remedies
    from gradiometer.states import State
    from gradiometer.studies import Study
    from gradiometer.trace import Trace
    from gradiometer.verbs.activations import activations
    from gradiometer.verbs.diagnose import diagnose
    from gradiometer.verbs.export import export
    from gradiometer.verbs.plot import plot
    from gradiometer.verbs.predict import predict
    from gradiometer.verbs.prove import prove
    from gradiometer.verbs.report import report
    from gradiometer.verbs.run import run
    from gradiometer.verbs.study import study

__version__ = "0.1.0"

# Loaded when first used, so that `gradiometer --help` answers at once.
_HOMES = {
    "Experiment": "gradiometer.experiment",
    "GradientWarning": "gradiometer.recording",
    "State": "gradiometer.states",
    "Study": "gradiometer.studies",
    "Trace": "gradiometer.trace",
    "TrainingStopped": "gradiometer.recording",
    "activations": "gradiometer.verbs.activations",
    "copy_weights": "gradiometer.bridges",
    "diagnose": "gradiometer.verbs.diagnose",
    "export": "gradiometer.verbs.export",
    "from_sklearn": "gradiometer.recording.adapters.sklearn",
    "from_torch": "gradiometer.bridges",
    "plot": "gradiometer.verbs.plot",
    "predict": "gradiometer.verbs.predict",
    "prove": "gradiometer.verbs.prove",
    "record": "gradiometer.recording",
    "record_sklearn": "gradiometer.recording.adapters.sklearn",
    "report": "gradiometer.verbs.report",
    "run": "gradiometer.verbs.run",
    "study": "gradiometer.verbs.study",
    "to_torch": "gradiometer.bridges",
    "try_remedies": "gradiometer.remedies",
}

__all__ = [
    "Experiment",
    "GradientWarning",
    "State",
    "Study",
    "Trace",
    "TrainingStopped",
    "__version__",
    "activations",
    "copy_weights",
    "diagnose",
    "export",
    "from_sklearn",
    "from_torch",
    "plot",
    "predict",
    "prove",
    "record",
    "record_sklearn",
    "report",
    "run",
    "study",
    "to_torch",
    "try_remedies",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradiometer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
