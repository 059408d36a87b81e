"""The adapter for scikit-learn: every update of an MLPClassifier or MLPRegressor, through dp.

While the estimator trains, each update's own batch and weights go through dp's forward and backward
pass once more, with the estimator's loss; the estimator itself computes what it always computes.
What is taken from inside scikit-learn is checked: gradients that differ from its own are an error.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import dp
from dp import activations
from dp.node import mode
from gradlab.recording import quantities as q
from gradlab.recording.errors import RecordingError
from gradlab.recording.recorder import HISTOGRAM, PER_LAYER, LayerArrays, LayerInfo, Recorder

if TYPE_CHECKING:
    from gradlab.trace import Trace

Array = NDArray[Any]


@dataclass(frozen=True)
class _Ending:
    """What an output layer ends in: its activation function, and the loss of every entry."""

    name: str
    output: Callable[[dp.Node], dp.Node]
    loss: Callable[[dp.Node, dp.Node], dp.Node]
    function: activations.Activation | None = None  # where units saturate one by one


# by the names that scikit-learn has for the loss and for the output's activation function
_ENDINGS = {
    ("log_loss", "logistic"): _Ending(
        "sigmoid",
        lambda h: h.sigmoid(),
        lambda h, y: (h * (1.0 - 2.0 * y)).softplus(),
        activations.get("sigmoid"),
    ),
    ("log_loss", "softmax"): _Ending(
        "softmax", lambda h: h.softmax(), lambda h, y: -(y * h.log_softmax())
    ),
    ("squared_error", "identity"): _Ending(
        "identity",
        lambda h: h,
        lambda h, y: (h - y).square() * 0.5,
        activations.get("identity"),
    ),
    # but for what does not depend on h
    ("poisson", "exp"): _Ending("exp", lambda h: h.exp(), lambda h, y: h.exp() - y * h),
}
_HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}

_FROM_WEIGHTS = ("weight_rms", "update_ratio")
_FROM_PASS = tuple(
    name for name in (*PER_LAYER, "accuracy", HISTOGRAM) if name not in _FROM_WEIGHTS
)


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
    >>> from gradlab import from_sklearn
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier((8, 8), activation="tanh", tol=1e-3, random_state=0)
    >>> classifier = classifier.set_params(learning_rate_init=0.02)
    >>> trace = from_sklearn(classifier, X, y)
    >>> [str(name) for name in trace.dataset["layer"].values]
    ['h1', 'h2', 'out']
    >>> float(trace["loss"][-1]) < float(trace["loss"][0])
    True
    """
    recorder = Recorder(every, histograms, quantities, max_overhead)
    recording = _Recording(estimator, recorder, reference)
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    started = time.perf_counter()
    try:
        with recording.hooked():
            estimator.fit(X, y, **weights)
    except Exception as error:
        if recorder.n_steps:
            error.add_note(
                f"{recorder.n_steps} steps had been recorded: `with record_sklearn(estimator) as "
                "recorder: estimator.fit(X, y)` keeps them, as recorder.trace"
            )
        raise
    recording.check_hooks()
    return recorder.to_trace(
        _facts(estimator)
        | {
            "wall_time_s": time.perf_counter() - started,
            "steps_done": recording.done,
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
    >>> from gradlab import record_sklearn
    >>> X = np.random.default_rng(0).normal(size=(40, 3))
    >>> regressor = MLPRegressor(hidden_layer_sizes=5, random_state=0)
    >>> with record_sklearn(regressor) as recorder:
    ...     for _ in range(6):
    ...         _ = regressor.partial_fit(X, X.sum(axis=1))
    >>> recorder.trace.grad_w.shape
    (2, 6)
    """
    recorder = Recorder(every, histograms, quantities, max_overhead)
    with _Recording(estimator, recorder, reference).hooked():
        yield recorder


@dataclass
class _Pass:
    """One forward pass of dp with an estimator's weights."""

    weights: list[dp.Node]
    inputs: list[dp.Node]  # of every layer
    pre_activations: list[dp.Node]
    activations: list[dp.Node]  # the last is the output


class _Recording:
    """Stands between an estimator and its optimiser while it trains."""

    def __init__(
        self, estimator: Any, recorder: Recorder, reference: tuple[Any, Any] | None
    ) -> None:
        _check_estimator(estimator)
        self.estimator, self.recorder = estimator, recorder
        self.reference = None if reference is None else _checked_reference(reference)
        self.done = 0  # updates
        self._calls = 0  # of the backward pass
        self._hooks: list[tuple[Any, str, Any]] = []
        self._optimizer: Any = None
        self._trusted = False  # whether its gradients were compared with ours
        self._step: dict[str, Any] | None = None  # what belongs to the weights before the update
        self._ready: Any = None  # what an interrupt kept from being added
        self._reference: tuple[dp.Node, Array | None] | None = None  # as the estimator has it

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Let the estimator's own methods report to this object inside the block."""
        backward, signature = self.estimator._backprop, _signature()

        def _backprop(*args: Any, **kwargs: Any) -> Any:
            found = backward(*args, **kwargs)
            given = signature.bind(self.estimator, *args, **kwargs).arguments
            self._calls += 1
            with self._timed():
                self._before_update(given["X"], given["y"], given.get("sample_weight"), found)
            return found

        try:
            self._hook(self.estimator, "_backprop", _backprop)
            self.recorder.turn(on=True)
            yield
        finally:
            self.recorder.turn(on=False)
            try:
                self._add()
            finally:
                while self._hooks:
                    self._unhook()

    def check_hooks(self) -> None:
        """Raise RecordingError if an estimator was fitted past this object."""
        if not self._calls or (self._calls > 1 and not self.done):
            raise _unknown_internals(
                "its fit did not call _backprop and then the optimiser's update_params"
            )

    def _hook(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        self._hooks.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, function)

    def _unhook(self) -> None:
        owner, name, before = self._hooks[-1]
        if before is None:
            vars(owner).pop(name, None)
        else:  # of a block around this one
            setattr(owner, name, before)
        self._hooks.pop()

    def _watch_optimizer(self) -> None:
        optimizer: Any = getattr(self.estimator, "_optimizer", None)
        if optimizer is self._optimizer and optimizer is not None:
            return
        if not hasattr(optimizer, "update_params"):
            raise _unknown_internals("it has no _optimizer with update_params")
        if self._optimizer is not None:
            self._unhook()
        update = optimizer.update_params

        def update_params(*args: Any, **kwargs: Any) -> Any:
            found = update(*args, **kwargs)
            with self._timed():
                self._after_update(args)
            return found

        self._hook(optimizer, "update_params", update_params)
        self._optimizer, self._trusted, self._reference = optimizer, False, None

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        with np.errstate(all="ignore"):
            yield
        self.recorder.spent(time.perf_counter() - started)

    # --- one update -------------------------------------------------------------------------------

    def _before_update(self, X: Any, y: Any, sample_weight: Any, found: Any) -> None:
        estimator, needs = self.estimator, self.recorder.needs
        _check_solver(estimator)
        self._watch_optimizer()
        self._add()
        self._step = None
        if not self.recorder.wants(self.done + 1):
            return
        try:
            loss, theirs, _ = found
            live = list(estimator.coefs_)
            ending = _ending(estimator)
        except (AttributeError, TypeError, ValueError) as error:
            raise _unknown_internals(str(error)) from error
        self._begin(live, ending)
        layers: list[dict[str, Any]] = [{} for _ in live]
        accuracy = math.nan
        if needs(*_FROM_PASS):
            accuracy = self._passed(layers, ending, X, y, sample_weight, theirs)
        if needs(*_FROM_WEIGHTS):
            for layer, weight in zip(layers, live, strict=True):
                layer["weight"] = weight.copy()
        self._step = {"layers": layers, "live": live, "loss": float(loss), "accuracy": accuracy}

    def _after_update(self, args: tuple[Any, ...]) -> None:
        step, self._step = self._step, None
        number = self.done + 1
        if step is not None:
            live = step["live"]
            changed = list(args[0])[: len(live)] if args else []
            if len(changed) != len(live) or any(
                a is not b for a, b in zip(changed, live, strict=True)
            ):
                raise _unknown_internals("its optimiser updates other arrays than coefs_")
            groups = [
                (
                    [position],
                    # one step and one layer, as leading axes
                    LayerArrays(**{name: x[None, None] for name, x in layer.items()}),
                )
                for position, layer in enumerate(step["layers"])
            ]
            for (_, arrays), weight in zip(groups, live, strict=True):
                arrays.weight_after = weight[None, None]
            numbers = (np.array([step[name]]) for name in ("loss", "accuracy"))
            self._ready = ([number], groups, *numbers)
        self.done = number
        self._add()

    def _add(self) -> None:
        if self._ready is not None:
            self.recorder.add(*self._ready)
            self._ready = None

    def _begin(self, weights: list[Array], ending: _Ending) -> None:
        shapes = [(int(fan_in), int(fan_out)) for fan_in, fan_out in (w.shape for w in weights)]
        hidden = _HIDDEN[self.estimator.activation]
        names = _names(len(weights))
        infos = tuple(
            LayerInfo(name, *shape, ending.name if name == "out" else hidden)
            for name, shape in zip(names, shapes, strict=True)
        )
        if not self.recorder.layers:
            self.recorder.begin(infos, self._add)
        elif tuple(self.recorder.layers) != infos:
            raise RecordingError(
                f"the estimator was fitted anew with other layers inside one block: "
                f"{_sizes(infos)}, but {_sizes(self.recorder.layers)} before; record each fit in a "
                "block of its own"
            )

    def _passed(
        self,
        layers: list[dict[str, Any]],
        ending: _Ending,
        X: Any,
        y: Any,
        sample_weight: Any,
        theirs: Any,
    ) -> float:
        """Fill in what dp finds on the batch; gives the accuracy on the reference batch."""
        estimator, needs = self.estimator, self.recorder.needs
        if not mode().recording:
            raise RecordingError(
                "inside dp.no_grad() nothing is remembered, so no gradient can be recorded"
            )
        x, y = dp.Node(_dense(X)), _dense(y)
        passed = _forward(estimator, x, ending)
        # the labels of a classifier are booleans, a regressor's targets may be integers
        kind = x.dtype if y.dtype.kind == "b" else np.float64 if y.dtype.kind != "f" else y.dtype
        targets = dp.Node(y.astype(kind, copy=False))
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        share = weights.reshape(-1, 1)
        total = float(share.sum())
        per_sample = ending.loss(passed.pre_activations[-1], targets).sum(axis=1)
        if sample_weight is not None:
            per_sample = per_sample * share.astype(per_sample.dtype, copy=False)
        loss = per_sample.sum() / total
        if estimator.alpha:
            for weight in passed.weights:
                loss = loss + weight.square().sum() * (0.5 * float(estimator.alpha) / total)
        found = dp.gradients(loss, [*passed.weights, *passed.pre_activations])
        gradients, deltas = found[: len(layers)], found[len(layers) :]
        if not self._trusted:
            _compare(estimator, gradients, theirs, passed, targets.value, share / total)
            self._trusted = True
        for i, layer in enumerate(layers):
            layer["gradient"], layer["delta"] = gradients[i], deltas[i]
            layer["activation"] = passed.activations[i].value
            function = _function(estimator, ending, i == len(layers) - 1)
            if function is not None and needs("saturated_fraction"):
                layer["saturated"] = function.saturated(passed.pre_activations[i].value)
        labels: Any = targets.value
        if self.reference is not None and needs("dead_fraction", "accuracy"):
            with dp.no_grad():
                given, labels = self._on_reference(x.dtype)
                passed = _forward(estimator, given, ending)
        for layer, activation in zip(layers, passed.activations, strict=True):
            layer["reference_activation"] = activation.value
        return _accuracy(passed.activations[-1].value, labels, ending)

    def _on_reference(self, dtype: Any) -> tuple[dp.Node, Array | None]:
        """The reference batch, and its labels as the estimator encodes them."""
        if self._reference is None:
            assert self.reference is not None
            X, y, columns = self.reference
            features = self.estimator.coefs_[0].shape[0]
            if X.shape[1] != features:
                raise ValueError(
                    f"the reference batch has {X.shape[1]} features, the estimator is fitted to "
                    f"{features}"
                )
            fitted = getattr(self.estimator, "feature_names_in_", None)
            if columns is not None and fitted is not None and list(columns) != list(fitted):
                raise ValueError(
                    f"the reference batch has the columns {', '.join(map(str, columns))}, the "
                    f"estimator is fitted to {', '.join(map(str, fitted))}"
                )
            classifies = hasattr(self.estimator, "classes_") and self.recorder.needs("accuracy")
            encoded = _encoded(self.estimator, y) if classifies else None
            self._reference = dp.Node(_dense(X).astype(dtype, copy=False)), encoded
        return self._reference


def _forward(estimator: Any, x: dp.Node, ending: _Ending) -> _Pass:
    last = len(estimator.coefs_) - 1
    passed = _Pass([], [], [], [])
    for i, (weight, bias) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        passed.inputs.append(x)
        passed.weights.append(dp.Node(weight))
        h = x.dot(passed.weights[-1]) + bias[None, :]
        passed.pre_activations.append(h)
        x = ending.output(h) if i == last else activations.get(_HIDDEN[estimator.activation])(h)
        passed.activations.append(x)
    return passed


def _ending(estimator: Any) -> _Ending:
    key = (estimator.loss, estimator.out_activation_)
    if key not in _ENDINGS or estimator.activation not in _HIDDEN:
        raise RecordingError(
            f"the estimator has loss {key[0]!r} with output activation {key[1]!r}, and hidden "
            f"activation {estimator.activation!r}; those known are "
            f"{', '.join(f'{loss} with {output}' for loss, output in _ENDINGS)}, and hidden "
            f"{', '.join(_HIDDEN)}"
        )
    return _ENDINGS[key]


def _function(estimator: Any, ending: _Ending, last: bool) -> activations.Activation | None:
    return ending.function if last else activations.get(_HIDDEN[estimator.activation])


def _accuracy(output: Array, labels: Array | None, ending: _Ending) -> float:
    if labels is None or ending.name not in ("sigmoid", "softmax"):
        return math.nan
    if ending.name == "sigmoid" and output.shape[1] > 1:
        # every label of a sample must be right, as scikit-learn counts
        right = ((output > 0.5) == (labels > 0.5)).all(axis=1) & np.isfinite(output).all(axis=1)
        return float(right.mean())
    return float(q.accuracy(output, labels))


def _compare(
    estimator: Any, ours: list[Array], theirs: Any, passed: _Pass, targets: Array, share: Array
) -> None:
    """Raise RecordingError unless the gradients are the same but for rounding.

    Where units saturate, rounding is large beside the gradient, but not beside `size`: the largest
    that a sample's deltas could be if no activation function had made them smaller.
    """
    names = _names(len(ours))
    output = passed.activations[-1].value
    size = share * (np.abs(output) + np.abs(targets)).max(axis=1, keepdims=True)
    function = activations.get(_HIDDEN[estimator.activation])
    epsilon = np.finfo(output.dtype).eps
    for i in reversed(range(len(ours))):
        if ours[i].shape != np.shape(theirs[i]):
            raise _unknown_internals(
                f"its gradient of layer {names[i]!r} has shape {np.shape(theirs[i])}, the weight "
                f"{ours[i].shape}"
            )
        weight = np.abs(passed.weights[i].value)
        bound = size.sum() * np.abs(passed.inputs[i].value).max() + estimator.alpha * weight.max()
        difference = np.abs(ours[i] - theirs[i]).max()
        if np.isfinite(bound) and difference > np.sqrt(epsilon) * bound:
            raise _unknown_internals(
                f"its gradient of layer {names[i]!r} differs from dp's by {difference:.3g}, where "
                f"{epsilon * bound:.1g} would be rounding"
            )
        if i:
            h = np.abs(passed.pre_activations[i - 1].value)
            if function.name == "relu" and (h <= 100 * epsilon * h.max()).any():
                return  # rounding may decide on which side of the kink it lies
            size = size * weight.sum(axis=1).max() * function.max_slope


def _names(layers: int) -> list[str]:
    return [*(f"h{number}" for number in range(1, layers)), "out"]


def _sizes(layers: Collection[LayerInfo]) -> str:
    return ", ".join(
        f"{info.name} {info.fan_in} -> {info.fan_out} {info.activation}" for info in layers
    )


def _dense(matrix: Any) -> Array:
    found: Array = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return found


# --- what is given --------------------------------------------------------------------------------


def _check_estimator(estimator: Any) -> None:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if not isinstance(estimator, MLPClassifier | MLPRegressor):
        what = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(
            f"estimator must be an MLPClassifier or MLPRegressor of scikit-learn, got "
            f"{'the class ' if isinstance(estimator, type) else ''}{what}; the last step of a "
            "pipeline can be recorded by record_sklearn(pipeline[-1])"
        )
    _check_solver(estimator)
    signature = _signature()
    if not callable(getattr(estimator, "_backprop", None)) or not (
        {"X", "y"} <= set(signature.parameters)
    ):
        raise _unknown_internals("it has no _backprop(X, y, …)")


def _signature() -> inspect.Signature:
    """Of the backward pass; older versions have no sample_weight there."""
    from sklearn.neural_network import MLPClassifier

    return inspect.signature(getattr(MLPClassifier, "_backprop", lambda: None))


def _check_solver(estimator: Any) -> None:
    if estimator.solver == "lbfgs":
        raise RecordingError(
            "solver 'lbfgs' makes no updates that could be recorded: it tries weights along a line "
            "before it takes a step, and does not tell which it took; accepted are solver='adam' "
            "and solver='sgd'"
        )


def _unknown_internals(what: str) -> RecordingError:
    import sklearn

    return RecordingError(
        f"scikit-learn {sklearn.__version__} trains in another way than is known here: {what}; "
        "nothing can be recorded with it"
    )


def _checked_reference(reference: Any) -> tuple[Any, Any, Any]:
    """X, y, and the names of X's columns if there are any."""
    from sklearn.utils import check_array

    if not isinstance(reference, tuple | list) or len(reference) != 2:
        raise TypeError(
            f"reference must be a pair (X, y) of samples and labels, got {type(reference).__name__}"
        )
    X, y = reference
    columns = getattr(X, "columns", None)
    X = check_array(X, accept_sparse=("csr", "csc"), dtype=(np.float64, np.float32))
    labels = X.shape[0] if y is None else np.shape(y)[0]
    if labels != X.shape[0]:
        raise ValueError(
            f"the reference batch has {X.shape[0]} samples, but {labels} labels; they must be as "
            "many"
        )
    return X, y, columns


def _encoded(estimator: Any, y: Any) -> Array:
    """Labels as the estimator encodes them, (samples, outputs)."""
    if y is None:
        raise ValueError(
            "the reference batch of a classifier needs labels, got None; give (X, y), or leave "
            "the quantity 'accuracy' out"
        )
    y = np.asarray(_dense(y))
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    known = estimator.classes_
    strange = np.setdiff1d(np.unique(y), known if y.ndim == 1 else [0, 1])
    if len(strange):
        raise ValueError(
            f"the reference batch has the label {strange.tolist()[0]!r}, which the estimator does "
            f"not know; its classes are {', '.join(map(str, known))}"
        )
    encoded: Array = estimator._label_binarizer.transform(y).astype(float)
    return encoded


def _facts(estimator: Any) -> dict[str, str]:
    import sklearn

    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
    with contextlib.suppress(PackageNotFoundError):  # running from a source tree
        versions["gradlab"] = version("gradlab")
    return {
        "framework": "scikit-learn",
        "framework_version": sklearn.__version__,
        "estimator": type(estimator).__name__,
        "parameters": json.dumps(_plain(estimator.get_params()), sort_keys=True),
        "dtype": estimator.coefs_[0].dtype.name,
        "versions": json.dumps(versions),
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
