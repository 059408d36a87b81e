"""Watching changes nothing: scikit-learn's nets end in the same bits, recorded or not."""

import itertools

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

from gradiometer import from_sklearn, record_sklearn

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X = np.random.default_rng(0).normal(size=(60, 4))
SUM = X @ np.random.default_rng(1).normal(size=(4, 3))
LABELS = SUM.argmax(axis=1)

SETTINGS = [
    {"learning_rate": "adaptive", "momentum": 0.0},
    {"learning_rate": "invscaling", "nesterovs_momentum": False},
    {"early_stopping": True, "n_iter_no_change": 2},
    {"shuffle": False, "batch_size": 7},
    {"warm_start": True, "alpha": 0.1},
]


def bits(estimator):
    found = [*estimator.coefs_, *estimator.intercepts_, np.array(estimator.loss_curve_)]
    state = estimator._random_state.get_state()
    return [array.tobytes() for array in found], [repr(part) for part in state]


def global_stream():
    return [repr(part) for part in np.random.get_state()]


@pytest.mark.parametrize(
    ("kind", "solver", "activation"),
    list(itertools.product(["classes", "values"], ["sgd", "adam"], ["relu", "tanh", "logistic"])),
)
def test_recorded_and_unrecorded_fits_end_in_the_same_bits(kind, solver, activation):
    make = MLPClassifier if kind == "classes" else MLPRegressor
    y = LABELS if kind == "classes" else SUM[:, 0]
    reference = (X[:20], y[:20]) if kind == "classes" else None
    for settings in SETTINGS:
        common = {"solver": solver, "activation": activation, "random_state": 3, "max_iter": 6}
        estimators = [make(hidden_layer_sizes=(6, 5), **common, **settings) for _ in range(3)]
        before = global_stream()
        estimators[0].fit(X, y)
        from_sklearn(estimators[1], X, y, reference=reference)
        with record_sklearn(estimators[2], every=2, histograms=True):
            estimators[2].fit(X, y)
        assert bits(estimators[0]) == bits(estimators[1]) == bits(estimators[2])
        assert global_stream() == before
        if settings.get("warm_start"):
            estimators[0].fit(X, y)
            from_sklearn(estimators[1], X, y)
            assert bits(estimators[0]) == bits(estimators[1])
