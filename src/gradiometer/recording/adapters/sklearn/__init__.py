"""The adapter for scikit-learn: every update of an MLPClassifier or MLPRegressor, through dp.

While the estimator trains, each update's own batch and weights go through dp's forward and backward
pass once more, with the estimator's loss; the estimator itself computes what it always computes.
What is taken from inside scikit-learn is checked: gradients that differ from its own are an error.
"""

# record.py     from_sklearn and record_sklearn
# updates.py    between an estimator and its optimiser
# network.py    the estimator's network, as dp computes it
# reference.py  the batch on which dead units and accuracy are measured
# internals.py  what is known of scikit-learn's own methods

from gradiometer.recording.adapters.sklearn.record import from_sklearn, record_sklearn

__all__ = ["from_sklearn", "record_sklearn"]
