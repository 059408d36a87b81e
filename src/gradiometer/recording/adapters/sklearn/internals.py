"""What is known of the insides of scikit-learn, and whether it still holds."""

from __future__ import annotations

import inspect
from typing import Any

from gradiometer.recording.errors import RecordingError


def check_estimator(estimator: Any) -> None:
    """Raise TypeError or RecordingError unless it is an estimator that can be recorded."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if not isinstance(estimator, MLPClassifier | MLPRegressor):
        what = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(
            f"estimator must be an MLPClassifier or MLPRegressor of scikit-learn, got "
            f"{'the class ' if isinstance(estimator, type) else ''}{what}; the last step of a "
            "pipeline can be recorded by record_sklearn(pipeline[-1])"
        )
    check_solver(estimator)
    signature = backward_signature()
    if not callable(getattr(estimator, "_backprop", None)) or not (
        {"X", "y"} <= set(signature.parameters)
    ):
        raise unknown_internals("it has no _backprop(X, y, …)")


def check_solver(estimator: Any) -> None:
    """Raise RecordingError for a solver without updates."""
    if estimator.solver == "lbfgs":
        raise RecordingError(
            "solver 'lbfgs' makes no updates that could be recorded: it tries weights along a line "
            "before it takes a step, and does not tell which it took; accepted are solver='adam' "
            "and solver='sgd'"
        )


def backward_signature() -> inspect.Signature:
    """Of the backward pass; older versions have no sample_weight there."""
    from sklearn.neural_network import MLPClassifier

    return inspect.signature(getattr(MLPClassifier, "_backprop", lambda: None))


def unknown_internals(what: str) -> RecordingError:
    """The error that says so if they are others."""
    import sklearn

    return RecordingError(
        f"scikit-learn {sklearn.__version__} trains in another way than is known here: {what}; "
        "nothing can be recorded with it"
    )
