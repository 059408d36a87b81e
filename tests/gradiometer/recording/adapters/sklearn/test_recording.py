"""What is recorded of scikit-learn's nets is what they compute, and they train as if unrecorded."""

import copy
import gc
import inspect
import json
import pickle
import weakref

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dp
import gradiometer
from gradiometer.quantities import PER_LAYER
from gradiometer.recording import assembly
from gradiometer.recording.adapters.sklearn import from_sklearn, record_sklearn, updates
from gradiometer.recording.adapters.sklearn.network import ENDINGS, Network
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4))
SUM = X @ RNG.normal(size=(4, 3)) + RNG.normal(size=(50, 3))
WEIGHTED = "sample_weight" in inspect.signature(MLPClassifier.fit).parameters
KINDS = {
    "binary": (MLPClassifier, np.where(SUM[:, 0] > 0, "yes", "no"), {}),
    "classes": (MLPClassifier, SUM.argmax(axis=1) + 3, {}),
    "multilabel": (MLPClassifier, (SUM > 0).astype(int), {}),
    "values": (MLPRegressor, SUM[:, 0], {}),
    "several values": (MLPRegressor, SUM, {}),
}
if "loss" in inspect.signature(MLPRegressor.__init__).parameters:
    KINDS["counts"] = MLPRegressor, RNG.poisson(np.exp(SUM[:, 0])), {"loss": "poisson"}
ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
OUTPUTS = {
    "binary": "sigmoid",
    "classes": "softmax",
    "multilabel": "sigmoid",
    "values": "identity",
    "several values": "identity",
    "counts": "exp",
}


def make(kind, **settings):
    cls, y, own = KINDS[kind]
    settings = {"hidden_layer_sizes": (7, 5), "batch_size": 16, "max_iter": 4} | own | settings
    return cls(random_state=3, **settings), y


def watched(estimator):
    """The same estimator, which notes what it computes."""

    class Watched(type(estimator)):
        def _backprop(self, X, y, *rest):
            before = [w.copy() for w in self.coefs_]
            loss, gradients, biases = super()._backprop(X, y, *rest)
            *_, activations, deltas, _, _ = rest
            samples = len(y) if len(rest) == 4 or rest[0] is None else rest[0].sum()
            self.seen.append(
                {
                    "weight": before,
                    "gradient": [g.copy() for g in gradients],
                    "delta": [d / samples for d in deltas],
                    "activation": [a.copy() for a in activations[1:]],
                    "loss": loss,
                    "y": y,
                }
            )
            return loss, gradients, biases

    twin = Watched(**{k: v for k, v in estimator.get_params().items() if k != "loss"})
    twin.loss = estimator.loss
    twin.seen = []
    return twin


def added(monkeypatch):
    """What the recorder is given, step by step."""
    steps = []
    original = updates.add_arrays

    def add(session, numbers, groups, loss, accuracy, **more):
        layers = [
            {name: x[0, 0].copy() for name, x in vars(arrays).items() if isinstance(x, np.ndarray)}
            for _, arrays in groups
        ]
        steps.append({"layers": layers, "loss": loss[0], "accuracy": accuracy[0]})
        original(session, numbers, groups, loss, accuracy, **more)

    monkeypatch.setattr(updates, "add_arrays", add)
    return steps


def same(one, other):
    """Everything that a fit leaves behind."""
    assert set(vars(one)) - {"seen"} == set(vars(other)) - {"seen"}
    for name in ("coefs_", "intercepts_", "_best_coefs", "_best_intercepts"):
        # older versions keep the best weights with early stopping alone
        for a, b in zip(getattr(one, name, []), getattr(other, name, []), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    names = "loss_ loss_curve_ n_iter_ t_ best_loss_ validation_scores_ best_validation_score_"
    for name in names.split():
        assert getattr(one, name) == getattr(other, name), name
    state, right = vars(one._optimizer), vars(other._optimizer)
    assert list(state) == list(right)
    for name, value in state.items():
        if isinstance(value, list):
            for a, b in zip(value, right[name], strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            assert value == right[name]


def near(ours, theirs, tolerance):
    scale = float(np.abs(theirs).max()) or 1.0
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale)


def check_steps(steps, seen, tolerance):
    assert len(steps) == len(seen)
    for step, right in zip(steps, seen, strict=True):
        assert step["loss"] == right["loss"]
        for i, layer in enumerate(step["layers"]):
            np.testing.assert_array_equal(layer["weight"], right["weight"][i])
            for name in ("gradient", "delta", "activation"):
                near(layer[name], right[name][i], tolerance)
            np.testing.assert_array_equal(layer["reference_activation"], layer["activation"])
    for step, following in zip(steps, seen[1:], strict=False):
        for layer, weight in zip(step["layers"], following["weight"], strict=True):
            np.testing.assert_array_equal(layer["weight_after"], weight)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_scikit_learns_own(kind, activation, monkeypatch):
    steps = added(monkeypatch)
    plain, y = make(kind, activation=activation, alpha=0.1)
    estimator = watched(plain)
    trace = from_sklearn(estimator, X, y)
    same(estimator, plain.fit(X, y))
    check_steps(steps, estimator.seen, 1e-10)
    assert list(trace["step"].values) == list(range(1, 17))  # batches of 16, 16, 16 and 2
    assert list(trace["layer"].values) == ["h1", "h2", "out"]
    names = [ACTIVATIONS[activation]] * 2 + [OUTPUTS[kind]]
    assert list(trace["activation"].values) == names
    assert (list(trace["fan_in"].values), list(trace["fan_out"].values)) == (
        [4, 7, 5],
        [7, 5, estimator.n_outputs_],
    )
    for step, right, found in zip(steps, estimator.seen, trace["accuracy"].values, strict=True):
        out = right["activation"][-1]
        if kind == "classes":
            expected = np.mean(out.argmax(axis=1) == right["y"].argmax(axis=1))
        elif kind in ("binary", "multilabel"):
            expected = np.mean(((out > 0.5) == right["y"]).all(axis=1))
        else:
            expected = np.nan
        np.testing.assert_array_equal([step["accuracy"], found], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_float32(kind, monkeypatch):
    steps = added(monkeypatch)
    plain, y = make(kind, activation="tanh")
    estimator = watched(plain)
    trace = from_sklearn(estimator, X.astype(np.float32), y)
    same(estimator, plain.fit(X.astype(np.float32), y))
    check_steps(steps, estimator.seen, 1e-5)
    assert trace.attrs["dtype"] == "float32"
    assert {layer["gradient"].dtype for step in steps for layer in step["layers"]} == {
        np.dtype(np.float32)
    }


@pytest.mark.skipif(not WEIGHTED, reason="this scikit-learn has no sample_weight")
@pytest.mark.parametrize("kind", KINDS)
def test_sample_weight(kind, monkeypatch):
    steps = added(monkeypatch)
    weights = RNG.uniform(0, 3, size=50)
    plain, y = make(kind, alpha=0.2)
    estimator = watched(plain)
    from_sklearn(estimator, X, y, sample_weight=weights)
    same(estimator, plain.fit(X, y, sample_weight=weights))
    check_steps(steps, estimator.seen, 1e-10)


def test_every_quantity_against_numpy():
    plain, y = make("classes", activation="relu", alpha=0.3, learning_rate_init=0.05)
    estimator = watched(plain)
    trace = from_sklearn(estimator, X, y)

    def rms(values):
        return np.sqrt(np.mean(values**2))

    last = estimator.seen.pop()
    for i, (now, after) in enumerate(zip(estimator.seen, [*estimator.seen[1:], last], strict=True)):
        found = {name: trace[name].values[i] for name in PER_LAYER}
        for layer in range(3):
            gradient, delta, weight, x = (
                now[name][layer] for name in ("gradient", "delta", "weight", "activation")
            )
            right = {
                "grad_mean_abs": np.abs(gradient).mean(),
                "grad_rms": rms(gradient),
                "grad_zero_fraction": np.mean(gradient == 0),
                "clip_factor": 1.0,
                "delta_rms": rms(delta),
                "activation_mean": x.mean(),
                "activation_std": x.std(),
                "saturated_fraction": np.mean(x == 0) if layer < 2 else np.nan,
                "dead_fraction": np.mean((x == 0).all(axis=0)),
                "weight_rms": rms(weight),
                "update_ratio": rms(after["weight"][layer] - weight) / rms(weight),
                "nonfinite_count": 0,
            }
            for name, value in right.items():
                np.testing.assert_allclose(found[name][layer], value, rtol=1e-9, err_msg=name)


# --- ways to train --------------------------------------------------------------------------------

WAYS = [
    {"solver": "adam"},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1},
    {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
    {"early_stopping": True, "max_iter": 12, "n_iter_no_change": 2},
    {"shuffle": False, "hidden_layer_sizes": 3},
    {"hidden_layer_sizes": ()},
    {"batch_size": "auto", "alpha": 0},
]


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_the_fit_is_the_same(kind, settings):
    (estimator, y), (plain, _) = make(kind, **settings), make(kind, **settings)
    np.random.seed(0)
    trace = from_sklearn(estimator, X, y)
    after = np.random.rand()
    np.random.seed(0)
    same(estimator, plain.fit(X, y))
    assert after == np.random.rand()
    assert trace.attrs["steps_done"] == trace.dataset.sizes["step"]


def test_a_global_random_state():
    cls, y, _ = KINDS["classes"]
    estimator, plain = cls(max_iter=3), cls(max_iter=3)
    np.random.seed(1)
    from_sklearn(estimator, X, y)
    np.random.seed(1)
    same(estimator, plain.fit(X, y))


def test_training_that_continues():
    (estimator, y), (plain, _) = make("classes", max_iter=2), make("classes", max_iter=2)
    with record_sklearn(estimator) as recording:
        for net in (estimator, plain):
            for part in (slice(30), slice(30, 50)):
                net.partial_fit(X[part], y[part], classes=[3, 4, 5])
    same(estimator, plain)
    assert recording.n_steps == 4
    assert list(recording.trace["step"].values) == [1, 2, 3, 4]
    for net in (estimator, plain):
        net.set_params(warm_start=True)
    trace = from_sklearn(estimator, X, y)
    same(estimator, plain.fit(X, y))
    again = from_sklearn(estimator, X, y)
    same(estimator, plain.fit(X, y))
    assert trace.attrs["steps_done"] == again.attrs["steps_done"] == 8
    assert again["loss"][0] != trace["loss"][0]


def test_several_fits_in_one_block():
    estimator, y = make("classes", max_iter=1)
    with record_sklearn(estimator) as recording:
        estimator.fit(X, y)
        estimator.fit(X, y)
        assert recording.n_steps == 8
        np.testing.assert_array_equal(recording["loss"][:4], recording["loss"][4:])
        estimator.set_params(hidden_layer_sizes=(3,))
        with pytest.raises(RecordingError, match=r"h1 4 -> 3 relu, .*before"):
            estimator.fit(X, y)
    assert recording.trace.dataset.sizes["step"] == 8


def test_the_last_step_of_a_pipeline():
    estimator, y = make("classes", max_iter=1)
    pipeline = make_pipeline(StandardScaler(), estimator)
    with record_sklearn(pipeline[-1]) as recording:
        pipeline.fit(X, y)
    assert recording.n_steps == 4


@pytest.mark.parametrize("kind", ["binary", "values"])
def test_sparse_samples(kind):
    dense = np.where(RNG.random((50, 4)) < 0.5, 0, X)
    (estimator, y), (plain, _) = make(kind), make(kind)
    samples = scipy.sparse.csr_matrix(dense)
    trace = from_sklearn(estimator, samples, y, reference=(samples, y))
    same(estimator, plain.fit(samples, y))
    right = from_sklearn(plain, dense, y)
    near(trace["grad_rms"].values, right["grad_rms"].values, 1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saturated_and_deep_nets_are_no_reason_to_complain(activation, dtype):
    for scale, sizes in ((1e3, (6, 6)), (1e-3, (6,) * 12), (1.0, (6,) * 40)):
        for kind in KINDS if scale <= 1 else ("classes", "values"):
            estimator, y = make(kind, activation=activation, hidden_layer_sizes=sizes, max_iter=1)
            trace = from_sklearn(estimator, (scale * X).astype(dtype), y)
            assert not trace["nonfinite_count"].values.any()


# --- what is recorded -----------------------------------------------------------------------------


def test_reference_batch():
    estimator, y = make("classes", max_iter=2, shuffle=False, batch_size=25, activation="relu")
    far = np.full((3, 4), -30.0) * np.sign(X[:1])
    labels = np.array([3, 5, 3])
    trace = from_sklearn(estimator, X, y, reference=(far, labels))
    replay = make("classes", max_iter=1, shuffle=False, batch_size=25)[0]
    replay.partial_fit(X[:25], y[:25], classes=[3, 4, 5])  # the weights of step 2
    units = np.maximum(far @ replay.coefs_[0] + replay.intercepts_[0], 0)
    assert trace["dead_fraction"].sel(layer="h1")[1] == np.mean((units == 0).all(axis=0)) > 0
    assert trace["accuracy"][1] == replay.score(far, labels)
    column = from_sklearn(estimator, X, y, reference=(far.tolist(), labels[:, None].tolist()))
    np.testing.assert_array_equal(column["accuracy"], trace["accuracy"])


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_on_the_reference_batch_is_the_score(kind):
    estimator, y = make(kind, max_iter=1, batch_size=50, learning_rate_init=0.1)
    estimator.warm_start = True
    estimator.fit(X, y)
    score = estimator.score(X, y) if isinstance(estimator, MLPClassifier) else np.nan
    trace = from_sklearn(estimator, X, y, reference=(X, y))
    np.testing.assert_array_equal(trace["accuracy"].values, [score])
    if isinstance(estimator, MLPRegressor):
        assert np.isfinite(
            from_sklearn(estimator, X, y, reference=(X, None))["dead_fraction"]
        ).all()


def test_part_of_the_steps_and_quantities():
    (estimator, y), (plain, _) = make("classes"), make("classes")
    full = from_sklearn(plain, X, y)
    for names in (["loss"], ["update_ratio"], ["delta_rms", "accuracy"], ["nonfinite_count"]):
        trace = from_sklearn(estimator, X, y, every=3, quantities=names)
        same(estimator, plain)
        assert list(trace["step"].values) == [1, 4, 7, 10, 13, 16]
        assert set(trace.dataset.data_vars) == set(names)
        for name in names:
            np.testing.assert_array_equal(trace[name], full[name].sel(step=trace["step"]))
    counted = from_sklearn(estimator, X, y, histograms=True, quantities=["loss"])
    assert (counted["grad_log10_histogram"].sum("bin") == [[28, 35, 15]] * 16).all()
    assert from_sklearn(estimator, X, y, max_overhead=1e-9).dataset.sizes["step"] == 1
    with pytest.raises(ValueError, match="unknown quantity 'gradients'"):
        from_sklearn(estimator, X, y, quantities=["gradients"])


def test_facts_and_files(tmp_path):
    estimator, y = make("classes", n_iter_no_change=np.inf, hidden_layer_sizes=np.array([3, 2]))
    estimator.random_state = np.random.RandomState(0)
    trace = from_sklearn(estimator, X, y)
    trace.save(tmp_path / "trace.nc")
    attrs = gradiometer.Trace.load(tmp_path / "trace.nc").attrs
    assert (attrs["framework"], attrs["estimator"]) == ("scikit-learn", "MLPClassifier")
    assert json.loads(attrs["versions"])["scikit-learn"] == attrs["framework_version"]
    parameters = json.loads(attrs["parameters"], parse_constant=lambda _: 1 / 0)
    assert set(parameters) == set(estimator.get_params())
    assert (parameters["hidden_layer_sizes"], parameters["n_iter_no_change"]) == ([3, 2], "inf")
    assert parameters["random_state"].startswith("RandomState")
    assert trace.experiment == {}
    assert "reaches the first layer" in trace.sentence()
    assert trace.plot.gradients().axes


def test_nothing_is_left_behind():
    estimator, y = make("classes", early_stopping=True)
    with record_sklearn(estimator) as recording:
        estimator.fit(X, y)
        assert "_backprop" in vars(estimator)
    assert "_backprop" not in vars(estimator)
    assert "update_params" not in vars(estimator._optimizer)
    twin = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(twin.predict_proba(X), estimator.predict_proba(X))
    copy.deepcopy(estimator).fit(X, y)
    assert clone(estimator).get_params() == estimator.get_params()
    reference = weakref.ref(recording)
    del recording
    gc.collect()
    assert reference() is None


def test_blocks_inside_each_other():
    estimator, y = make("classes", max_iter=1)
    with record_sklearn(estimator) as outer:
        estimator.fit(X, y)
        with record_sklearn(estimator) as inner:
            estimator.fit(X, y)
        estimator.fit(X, y)
    assert (outer.n_steps, inner.n_steps) == (12, 4)
    np.testing.assert_array_equal(outer["grad_rms"][4:8], inner["grad_rms"])
    assert "_backprop" not in vars(estimator)
    assert "update_params" not in vars(estimator._optimizer)


# --- interrupts and errors ------------------------------------------------------------------------


def interrupting(function, call):
    """Raise KeyboardInterrupt in a certain call, once the function has done its work."""
    calls = []

    def wrapper(*args, **kwargs):
        found = function(*args, **kwargs)
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return found

    return wrapper


@pytest.mark.parametrize(
    ("owner", "name", "call", "steps"),
    [
        (Network, "accuracy", 6, 5),
        (AdamOptimizer, "_get_updates", 6, 5),
        (assembly, "measure", 3 * 5 + 2, 6),
        (Session, "_look_for_nonfinite", 6, 6),
        (AdamOptimizer, "iteration_ends", 2, 8),
    ],
)
def test_an_interrupt_keeps_what_there_was(owner, name, call, steps, monkeypatch):
    (estimator, y), (plain, _) = make("classes"), make("classes")
    full = from_sklearn(plain, X, y)
    monkeypatch.setattr(owner, name, interrupting(getattr(owner, name), call))
    with pytest.warns(UserWarning, match="interrupted by user"):
        trace = from_sklearn(estimator, X, y)
    assert trace.attrs["steps_done"] == steps
    assert list(trace["step"].values) == list(range(1, steps + 1))
    for variable in trace.dataset.data_vars:
        np.testing.assert_array_equal(trace[variable], full[variable][:steps], err_msg=variable)
    assert "_backprop" not in vars(estimator)
    assert "update_params" not in vars(estimator._optimizer)


def test_an_interrupt_in_the_first_step_leaves_nothing(monkeypatch):
    estimator, y = make("classes")
    monkeypatch.setattr(Network, "compare", interrupting(Network.compare, 1))
    with (
        pytest.warns(UserWarning, match="interrupted by user"),
        pytest.raises(ValueError, match="nothing has been recorded yet"),
    ):
        from_sklearn(estimator, X, y)


def test_what_fit_raises_is_passed_on():
    for settings, samples, labels in (
        ({}, X[:, :, None], KINDS["classes"][1]),
        ({}, X, KINDS["classes"][1][:-1]),
        ({}, np.where(X > 2, np.nan, X), KINDS["classes"][1]),
        ({"hidden_layer_sizes": (3, 0)}, X, KINDS["classes"][1]),
        ({"activation": "sigmoid"}, X, KINDS["classes"][1]),
        ({"solver": "newton"}, X, KINDS["classes"][1]),
    ):
        (estimator, _), (plain, _) = make("classes", **settings), make("classes", **settings)
        with pytest.raises(Exception) as right:
            plain.fit(samples, labels)
        with pytest.raises(type(right.value)) as found:
            from_sklearn(estimator, samples, labels)
        assert str(found.value) == str(right.value)
        assert not getattr(found.value, "__notes__", None)
        assert "_backprop" not in vars(estimator)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_recorded():
    estimator, y = make("several values", solver="sgd", learning_rate_init=1e3, max_iter=40)
    with pytest.raises(ValueError, match="non-finite parameter weights") as error:
        from_sklearn(estimator, X, y)
    assert "160 steps had been recorded" in error.value.__notes__[0]
    with (
        record_sklearn(estimator) as recording,
        pytest.raises(ValueError, match="non-finite parameter weights"),
    ):
        estimator.fit(X, y)
    assert recording.n_steps == 160
    assert "diverged" in recording.trace.sentence()


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
def test_what_cannot_be_recorded():
    for wrong in (LogisticRegression(), make_pipeline(MLPClassifier()), None):
        with pytest.raises(TypeError, match=f"MLPRegressor of .*, got {type(wrong).__name__};"):
            from_sklearn(wrong, X, KINDS["classes"][1])
    with pytest.raises(TypeError, match="got the class MLPClassifier"):
        from_sklearn(MLPClassifier, X, KINDS["classes"][1])
    estimator, y = make("classes", solver="lbfgs")
    with pytest.raises(RecordingError, match=r"'lbfgs'.*accepted are solver='adam'"):
        from_sklearn(estimator, X, y)
    assert not hasattr(estimator, "coefs_")
    estimator.set_params(solver="adam")
    with (
        record_sklearn(estimator),
        pytest.raises(RecordingError, match="'lbfgs'"),
    ):
        estimator.set_params(solver="lbfgs").fit(X, y)
    estimator.set_params(solver="adam")
    with dp.no_grad(), pytest.raises(RecordingError, match=r"inside dp.no_grad\(\)"):
        from_sklearn(estimator, X, y)


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        (X, TypeError, r"a pair \(x, y\).*got ndarray"),
        ((X, KINDS["classes"][1][:3]), ValueError, "50 samples, but 3 labels"),
        ((X[:, :3], KINDS["classes"][1]), ValueError, "3 features, .* fitted to 4"),
        ((X[:2], [3, 9]), ValueError, "label 9, .* classes are 3, 4, 5"),
        ((X, None), ValueError, "needs labels, got None"),
        ((X * np.nan, KINDS["classes"][1]), ValueError, "NaN"),
    ],
)
def test_reference_batches_that_do_not_fit(reference, error, words):
    estimator, y = make("classes")
    with pytest.raises(error, match=words):
        from_sklearn(estimator, X, y, reference=reference)
    assert "_backprop" not in vars(estimator)


def test_columns_in_another_order():
    frame = pd.DataFrame(X, columns=list("abcd"))
    estimator, y = make("classes")
    from_sklearn(estimator, frame, y, reference=(frame, y))
    with pytest.raises(ValueError, match=r"columns d, c, b, a, the estimator .* a, b, c, d"):
        from_sklearn(estimator, frame, y, reference=(frame[list("dcba")], y))


# --- other versions of scikit-learn ---------------------------------------------------------------


class Scaled(MLPClassifier):
    def _backprop(self, *args):
        loss, gradients, biases = super()._backprop(*args)
        gradients[self.at] *= self.factor
        return loss, gradients, biases


class Sharper(MLPClassifier):
    """Computes the penalty without dividing it by the number of samples."""

    def _backprop(self, *args):
        loss, gradients, biases = super()._backprop(*args)
        gradients = [
            g + self.alpha * w * (1 - 1 / len(args[0]))
            for g, w in zip(gradients, self.coefs_, strict=True)
        ]
        return loss, gradients, biases


class No_Backward(MLPClassifier):
    _backprop = None


class Pair(MLPClassifier):
    def _backprop(self, *args):
        return super()._backprop(*args)[:2]


class Own_Fit(MLPClassifier):
    def fit(self, X, y):
        return self


class Other_Arrays(MLPClassifier):
    def _backprop(self, *args):
        found = super()._backprop(*args)
        self.coefs_ = [w.copy() for w in self.coefs_]
        return found


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_other_gradients_are_found(activation, at, dtype):
    estimator = Scaled((7, 5), activation=activation, random_state=3, max_iter=1)
    estimator.at = at
    for factor in (0.9, 1.1, -1.0):
        estimator.factor = factor
        with pytest.raises(RecordingError, match=rf"another way .* {['h1', 'h2', 'out'][at]!r}"):
            from_sklearn(estimator, X.astype(dtype), KINDS["classes"][1])


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Sharper, "'out' differs"),
        (No_Backward, "no _backprop"),
        (Pair, "not enough values to unpack"),
        (Other_Arrays, "updates other arrays than coefs_"),
        (Own_Fit, "did not call _backprop"),
    ],
)
def test_other_internals_are_found(cls, words):
    estimator = cls((7, 5), alpha=0.1, random_state=3, max_iter=2)
    with pytest.raises(RecordingError, match=rf"scikit-learn \d.* trains in another way.*{words}"):
        from_sklearn(estimator, X, KINDS["classes"][1])


def test_other_optimisers_are_found(monkeypatch):
    estimator, y = make("classes")
    monkeypatch.setattr(inspect.getmodule(MLPClassifier), "AdamOptimizer", lambda *_: object())
    with pytest.raises(RecordingError, match="no _optimizer with update_params"):
        from_sklearn(estimator, X, y)


def test_another_backward_pass_is_found(monkeypatch):
    estimator, y = make("classes")
    monkeypatch.setattr(MLPClassifier, "_backprop", lambda self, batch: None)
    with pytest.raises(RecordingError, match=r"no _backprop\(X, y"):
        from_sklearn(estimator, X, y)


def test_other_losses_are_found(monkeypatch):
    estimator, y = make("classes")
    monkeypatch.delitem(ENDINGS, ("log_loss", "softmax"))
    with pytest.raises(RecordingError, match=r"'log_loss' with .* 'softmax'.*those known are"):
        from_sklearn(estimator, X, y)
