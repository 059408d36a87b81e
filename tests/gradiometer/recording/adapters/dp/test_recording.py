"""What the recorder reports is what plain NumPy finds with the derivatives written out by hand."""

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.data import load
from gradiometer.experiment import Experiment
from gradiometer.quantities import PER_LAYER

IRIS = load("iris2")
NAMES = ["h1", "h2", "out"]


def rms(values):
    return np.sqrt(np.mean(values**2))


def by_hand(weights, biases, x, y, reference, rate, phi, slope, saturated):
    """One SGD step of two hidden layers and a sigmoid output; every quantity of design section 4.

    The loss is the cross-entropy summed over the batch, so that the delta of the last layer is
    p - y, that of the layer below it delta W' φ'(h), and dL/dW = x' delta.
    """
    inputs, pre = [x], []
    for w, b in zip(weights, biases, strict=True):
        pre.append(inputs[-1] @ w + b)
        inputs.append(phi(pre[-1]))
    p = 1 / (1 + np.exp(-pre[-1]))
    inputs[-1] = p
    deltas = [p - y]
    for w, h in zip(weights[:0:-1], pre[-2::-1], strict=True):
        deltas.insert(0, deltas[0] @ w.T * slope(h))
    far = reference
    found = {name: [] for name in PER_LAYER}
    for i, (w, b, delta, h) in enumerate(zip(weights, biases, deltas, pre, strict=True)):
        gradient = inputs[i].T @ delta
        last = i == len(weights) - 1
        far = far @ w + b
        far = 1 / (1 + np.exp(-far)) if last else phi(far)
        found["grad_mean_abs"].append(np.mean(np.abs(gradient)))
        found["grad_rms"].append(rms(gradient))
        found["grad_zero_fraction"].append(np.mean(gradient == 0))
        found["clip_factor"].append(1)
        found["delta_rms"].append(rms(delta))
        found["activation_mean"].append(np.mean(inputs[i + 1]))
        found["activation_std"].append(np.std(inputs[i + 1]))
        found["saturated_fraction"].append(
            np.mean(p * (1 - p) < 0.05 * 0.25 if last else saturated(h))
        )
        found["dead_fraction"].append(np.mean((far == 0).all(axis=0)))
        found["weight_rms"].append(rms(w))
        found["update_ratio"].append(rms(rate * gradient) / rms(w))
        found["nonfinite_count"].append(0)
        w -= rate * gradient
        b -= rate * delta.sum(axis=0)
    loss = np.sum(np.logaddexp(0, pre[-1]) - y * pre[-1])
    return found, loss, np.mean((far > 0.5) == (IRIS.y > 0.5))


FUNCTIONS = {
    "tanh": (
        np.tanh,
        lambda h: 1 - np.tanh(h) ** 2,
        lambda h: 1 - np.tanh(h) ** 2 < 0.05,
    ),
    "relu": (lambda h: np.maximum(h, 0), lambda h: h > 0, lambda h: h <= 0),
    "sigmoid": (
        lambda h: 1 / (1 + np.exp(-h)),
        lambda h: np.exp(-h) / (1 + np.exp(-h)) ** 2,
        lambda h: np.exp(-h) / (1 + np.exp(-h)) ** 2 < 0.0125,
    ),
}


class Fixed_Batches(dp.SGD):
    def random_batch(self):
        rows = self.batches.pop(0)
        return dp.Node(self.x_train[rows]), dp.Node(self.y_train[rows])


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_every_quantity_against_numpy(activation):
    net = dp.Net(4, 6, 2, activation, seed=1)
    # one unit that is dead, and one that is saturated, whatever the input
    param = net.get_param()
    param["h1_bias"][0, :2] = -15, 15
    weights = [param[f"{name}_weight"].copy() for name in NAMES]
    biases = [param[f"{name}_bias"].copy() for name in NAMES]
    batches = [np.random.default_rng(i).integers(0, 100, 16) for i in range(4)]
    sgd = Fixed_Batches(net, IRIS.x, IRIS.y, {"alpha": 0.02})
    sgd.batches = list(batches)
    with record(net, sgd, reference=(IRIS.x, IRIS.y)) as recorder:
        sgd.train(4, print_each=None)
    trace = recorder.trace
    assert list(trace["layer"].values) == NAMES
    assert list(trace["activation"].values) == [activation, activation, "sigmoid"]
    assert (list(trace["fan_in"].values), list(trace["fan_out"].values)) == ([4, 6, 6], [6, 6, 1])
    for i, rows in enumerate(batches):
        found, loss, accuracy = by_hand(
            weights, biases, IRIS.x[rows], IRIS.y[rows], IRIS.x, 0.02, *FUNCTIONS[activation]
        )
        for name, values in found.items():
            np.testing.assert_allclose(
                trace[name][i], values, rtol=1e-9, atol=1e-12, err_msg=f"{name}, step {i + 1}"
            )
        np.testing.assert_allclose(trace["loss"][i], loss, rtol=1e-10)
        assert trace["accuracy"][i] == accuracy
    if activation == "relu":
        assert (trace["dead_fraction"].sel(layer="h1") >= 1 / 6).all()


class Student(dp.Model):
    """The course's own way: functions as methods of Node, and the cross-entropy from log."""

    def __init__(self, last="sigmoid", **settings):
        super().__init__(**settings)
        self.first = self.Linear_Layer(4, 5, "first")
        self.second = self.ReLu_Layer(5, 3, "second")
        self.third = self.Linear_Layer(3, 1, "third")
        self.last = last

    def forward(self, x):
        x = x if isinstance(x, dp.Node) else dp.Node(x)
        return getattr(self.third(self.second(self.first(x).tanh())), self.last)()

    def loss(self, x, y):
        p = self.forward(x)
        return -(y * p.log() + (1 - y) * (1 - p).log()).sum()


def recorded(net, steps=2, **settings):
    sgd = dp.SGD(net, IRIS.x, IRIS.y, seed=0)
    with record(net, sgd, **settings) as recorder:
        sgd.train(steps, print_each=None)
    return recorder.trace


def test_functions_are_found_in_a_students_graph():
    trace = recorded(Student(seed=0))
    assert list(trace["layer"].values) == ["first", "second", "third"]
    assert list(trace["activation"].values) == ["tanh", "relu", "sigmoid"]
    assert np.isfinite(trace.dataset.to_dataframe()[list(PER_LAYER)]).all(axis=None)


class Squashed(Student):
    def loss(self, x, y):
        return ((self.forward(x) - y) ** 2).sum()


def test_a_function_that_is_not_in_the_table_is_missing_not_guessed():
    trace = recorded(Squashed(last="square", seed=0))
    assert trace["activation"].values[-1] == "unknown"
    for name in ["activation_mean", "activation_std", "saturated_fraction", "dead_fraction"]:
        assert np.isnan(trace[name].sel(layer="third")).all()
        assert np.isfinite(trace[name].sel(layer="first")).all()
    for name in ["grad_mean_abs", "delta_rms", "weight_rms", "update_ratio"]:
        assert np.isfinite(trace[name]).all()


class Twice(Student):
    def forward(self, x):
        x = x if isinstance(x, dp.Node) else dp.Node(x)
        hidden = self.second(self.first(x).tanh())
        return (self.third(hidden) + self.third(hidden)).sigmoid()


def test_a_layer_used_twice_is_recorded_with_all_its_calls():
    net = Twice(seed=0)
    sgd = dp.SGD(net, IRIS.x, IRIS.y, batch_size=7, seed=0)
    twins = []

    class Look(dp.Callback):
        def before_update(self, step):
            with dp.watch_layers() as watch:
                net.get_grad(step.x, step.y)
                twins.append([call.delta for call in watch.calls if call.name == "third"])

    sgd.callbacks.append(Look())
    with record(net, sgd) as recorder:
        sgd.train(2, print_each=None)
    deltas = [rms(np.concatenate(pair)) for pair in twins]
    np.testing.assert_allclose(recorder.trace["delta_rms"].sel(layer="third"), deltas)
    assert [len(pair) for pair in twins] == [2, 2]


class Bare(dp.Model):
    def __init__(self):
        super().__init__()
        self.w = dp.Node(np.ones((4, 1)), "w")

    def forward(self, x):
        return dp.Node(x) if not isinstance(x, dp.Node) else x

    def loss(self, x, y):
        return (self.forward(x).dot(self.w) - y).square().sum()


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="Bare has no parameters to train"):
        recorded(Bare())


def test_recording_changes_no_training_and_leaves_nothing_behind():
    plain, watched = (dp.Net(4, 5, 3, "tanh", seed=0) for _ in range(2))
    dp.SGD(plain, IRIS.x, IRIS.y, seed=0).train(5, print_each=None)
    sgd = dp.SGD(watched, IRIS.x, IRIS.y, seed=0)
    with record(watched, sgd) as recorder:
        sgd.train(5, print_each=None)
    for name, value in plain.get_param().items():
        np.testing.assert_array_equal(value, watched.get_param()[name])
    assert sgd.callbacks == []
    sgd.train(2, print_each=None)
    assert recorder.n_steps == 5


def test_a_second_block_records_a_second_training():
    net = dp.Net(4, 5, 1, "tanh", seed=0)
    sgd = dp.SGD(net, IRIS.x, IRIS.y, seed=0)
    with record(net, sgd) as first:
        sgd.train(2, print_each=None)
    with record(net, sgd) as second:
        sgd.train(3, print_each=None)
    assert (first.n_steps, second.n_steps) == (2, 3)
    loss = first.trace["loss"].values, second.trace["loss"].values
    assert not np.isin(loss[0], loss[1]).any()


def test_what_was_recorded_survives_an_exception():
    net = dp.Net(4, 5, 1, "tanh", seed=0)

    def fail(step):
        if step.number == 3:
            raise RuntimeError("the student's own")

    sgd = dp.SGD(net, IRIS.x, IRIS.y, seed=0, callbacks=[fail])
    with pytest.raises(RuntimeError, match="student's own"), record(net, sgd) as recorder:
        sgd.train(10, print_each=None)
    assert list(recorder.trace["step"].values) == [1, 2, 3]
    assert len(sgd.callbacks) == 1


def test_nothing_recorded_is_said():
    net = dp.Net(4, 5, 1, "tanh", seed=0)
    sgd = dp.SGD(net, IRIS.x, IRIS.y, seed=0)
    with record(net, sgd) as recorder:
        pass
    with pytest.raises(ValueError, match="nothing has been recorded yet"):
        _ = recorder.trace


@pytest.mark.parametrize("every", [2, 3, 100])
def test_every_kth_step(every):
    full = recorded(dp.Net(4, 5, 2, "tanh", seed=0), 7)
    thin = recorded(dp.Net(4, 5, 2, "tanh", seed=0), 7, every=every)
    steps = list(range(1, 8, every))
    assert list(thin["step"].values) == steps
    for name in PER_LAYER:
        np.testing.assert_array_equal(thin[name], full[name].sel(step=steps))


@pytest.mark.parametrize("every", [0, -1])
def test_every_is_at_least_one(every):
    with pytest.raises(ValueError, match=f"every must be an integer of at least 1, got {every}"):
        recorded(dp.Net(4, 5, 2, "tanh", seed=0), every=every)


def test_the_first_layer_that_is_not_finite_is_named():
    net = dp.Net(4, 5, 3, "relu", seed=0)
    net.get_param()["h2_weight"][0, 0] = np.nan
    with np.errstate(all="ignore"):
        trace = recorded(net, 3)
    assert (trace["nonfinite_count"] > 0).all()
    assert np.isnan(trace["grad_mean_abs"]).all()
    assert np.isnan(trace["loss"]).all()
    assert (trace["accuracy"] == 0).all()
    # h1's gradient, which comes through h2, is NaN too; but NaN came up in h2
    assert trace.attrs["nonfinite_layer"] == "h2"
    assert trace.attrs["nonfinite_in"] == "activation"
    assert trace.attrs["nonfinite_step"] == 1
    shares = ["grad_zero_fraction", "saturated_fraction", "dead_fraction"]
    for name in shares:
        assert np.isnan(trace[name].sel(layer="h2")).all(), name
    assert np.isfinite(trace["dead_fraction"].sel(layer="h1", step=1))


def test_what_becomes_infinite_in_the_update_is_found_there():
    trace = Experiment.of(activation="tanh", learning_rate=1e308, layers=2, steps=3).run()
    assert trace.attrs["nonfinite_step"] == 1
    assert trace.attrs["nonfinite_in"] == "weight after the update"


def test_an_ensemble_is_recorded_as_its_members():
    together = recorded_members([3, 4, 5])
    assert list(together["member"].values) == [3, 4, 5]
    for seed in [3, 4, 5]:
        alone = recorded_members(seed)
        for name in PER_LAYER:
            np.testing.assert_allclose(
                together[name].sel(member=seed), alone[name], rtol=1e-9, atol=1e-15, err_msg=name
            )


def recorded_members(seeds):
    net = dp.Net(4, 5, 2, "relu", seed=seeds)
    sgd = dp.SGD(net, IRIS.x, IRIS.y, seed=seeds)
    with record(net, sgd, reference=(IRIS.x, IRIS.y)) as recorder:
        sgd.train(3, print_each=None)
    return recorder.to_trace(members=seeds if isinstance(seeds, list) else None)
