"""from_sklearn and record_sklearn: a fit in one call, or whatever trains inside a block."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradiometer.recording.adapters.sklearn.updates import Updates
from gradiometer.recording.recorder import Recorder
from gradiometer.recording.session import Session
from gradiometer.versions import versions

if TYPE_CHECKING:
    from gradiometer.trace import Trace


def from_sklearn(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    reference: tuple[Any, Any] | None = None,
    every: int = 1,
    histograms: bool = False,
    quantities: Collection[str] | None = None,
    max_overhead: float | None = None,
) -> Trace:
    """Fit an estimator of scikit-learn in place, as `estimator.fit(X, y)` does, and record it.

    The fitted estimator is the same to the last bit. A step is one update, on one batch; the
    layers are called h1 … hL and out, as in a `dp.Net`.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With solver "adam" or "sgd".
    X, y
        Whatever its `fit` takes: (samples, features), and (samples,) or (samples, outputs).
    sample_weight : array (samples,), optional
        Handed to `fit`, if given.
    reference : (X, y), optional
        The batch on which dead units and accuracy are measured; by default each step's own batch.
        The y of a regressor is not looked at, and may be None.
    every, histograms, quantities
        What is recorded; see `record`.
    max_overhead : float, optional
        Leave out steps, so that recording takes at most this share of the time: 0.05 for 5 %.

    Returns
    -------
    Trace
        Its `attrs` have `framework` ("scikit-learn"), `framework_version`, `estimator` (its class)
        and `parameters` (JSON). A fit that was interrupted (Ctrl-C) gives what there was until
        then, as it gives an estimator.

    Raises
    ------
    TypeError
        If it is no such estimator.
    RecordingError
        For solver "lbfgs", which makes no updates of this kind; or if scikit-learn computes
        something else than is known here.
    ValueError
        If there is no such quantity, or the reference batch does not fit. What `fit` raises is
        passed on as it is; to keep what was recorded until then, use `record_sklearn`.

    Notes
    -----
    `loss` is the estimator's own, with its L2 penalty: ½ alpha Σ W² over the batch's samples (its
    total sample weight). The gradient is what the estimator updates with, so it has the penalty's
    alpha W / samples too, and does not fall below that where the data's gradient vanishes; the
    delta is dL/dh of the mean over the batch, and has no share in it. With several outputs the
    squared error is reported as a mean over them, but the gradient is that of their sum: so does
    scikit-learn. The accuracy of a multilabel classifier is the share of samples with all their
    labels right; that of a regressor is NaN.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> from gradiometer import from_sklearn
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier((8, 8), activation="tanh", tol=1e-3, random_state=0)
    >>> classifier = classifier.set_params(learning_rate_init=0.02)
    >>> trace = from_sklearn(classifier, X, y)
    >>> trace.layers
    ['h1', 'h2', 'out']
    >>> float(trace["loss"][-1]) < float(trace["loss"][0])
    True
    """
    session = Session(every, histograms, quantities, max_overhead)
    recorder, updates = Recorder(session), Updates(estimator, session, reference)
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    started = time.perf_counter()
    try:
        with updates.hooked():
            estimator.fit(X, y, **weights)
    except Exception as error:
        if recorder.n_steps:
            error.add_note(
                f"{recorder.n_steps} steps had been recorded: `with record_sklearn(estimator) as "
                "recorder: estimator.fit(X, y)` keeps them, as recorder.trace"
            )
        raise
    updates.check_hooks()
    return recorder.to_trace(
        {
            **_facts(estimator),
            "wall_time_s": time.perf_counter() - started,
            "steps_done": session.done,
        }
    )


@contextlib.contextmanager
def record_sklearn(
    estimator: Any,
    *,
    reference: tuple[Any, Any] | None = None,
    every: int = 1,
    histograms: bool = False,
    quantities: Collection[str] | None = None,
    max_overhead: float | None = None,
) -> Iterator[Recorder]:
    """Record every update of an estimator inside the block: by `fit`, `partial_fit`, or a pipeline.

    Steps are counted through the block. Parameters and what is recorded as in `from_sklearn`.

    Yields
    ------
    Recorder
        Its `trace` may be taken at any time, also after an exception ended the training.

    Raises
    ------
    TypeError, RecordingError, ValueError
        As `from_sklearn` does; also if the layers' sizes change inside the block.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neural_network import MLPRegressor
    >>> from gradiometer import record_sklearn
    >>> X = np.random.default_rng(0).normal(size=(40, 3))
    >>> regressor = MLPRegressor(hidden_layer_sizes=5, random_state=0)
    >>> with record_sklearn(regressor) as recorder:
    ...     for _ in range(6):
    ...         _ = regressor.partial_fit(X, X.sum(axis=1))
    >>> recorder.trace.grad_w.shape
    (2, 6)
    """
    session = Session(every, histograms, quantities, max_overhead)
    with Updates(estimator, session, reference).hooked():
        yield Recorder(session)


def _facts(estimator: Any) -> dict[str, str]:
    """What a trace tells of the estimator."""
    import sklearn

    return {
        "framework": "scikit-learn",
        "framework_version": sklearn.__version__,
        "estimator": type(estimator).__name__,
        "parameters": json.dumps(_plain(estimator.get_params()), sort_keys=True),
        "dtype": estimator.coefs_[0].dtype.name,
        "versions": json.dumps(versions("scikit-learn")),
    }


def _plain(value: Any) -> Any:
    """What JSON has a word for; the rest as Python would print it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else repr(value)
