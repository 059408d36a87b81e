"""Which model's training is recorded, and what of it: parameters, layers, what cannot be had."""

import threading

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.dp.ways_to_train import (
    RATE,
    Copied,
    Extended,
    Own_Init,
    Plain,
    Recurrent,
    X,
    Y,
    all_told,
    one_step,
)

import dp
from gradiometer import record
from gradiometer.recording import RecordingError


def test_another_models_optimizer_is_refused():
    one, other = Plain(), Plain(7)
    for optimizer in (dp.SGD(other, X, Y), Copied(other), Own_Init(other)):
        with pytest.raises(RecordingError, match="given trains another model than this Plain"):
            record(one, optimizer)
    for wrong in ("sgd", 3, dp.Adam, [dp.SGD(one, X, Y)]):
        with pytest.raises(TypeError, match=r"leave it out: record\(model\)"):
            record(one, wrong)


class Pair:
    """A maker and its critic, whose losses depend on each other."""

    def __init__(self):
        pair = self

        class Critic(dp.Model):
            def __init__(self):
                super().__init__(seed=1)
                self.judge = self.Linear_Layer(4, 1, "judge")

            def loss(self, x, y):
                return self.judge(x).square().mean() - self.judge(pair.maker.make(x)).mean()

        class Maker(dp.Model):
            def __init__(self):
                super().__init__(seed=0)
                self.draw = self.Linear_Layer(4, 4, "draw")

            def make(self, x):
                return self.draw(x).tanh()

            def loss(self, x, y):
                return pair.critic.judge(self.make(x)).mean()

        self.maker, self.critic = Maker(), Critic()

    def train(self, model):
        grad = model.loss(X, Y).grad()
        for name, value in model.get_param().items():
            value -= RATE * grad[name]


def test_two_models_that_train_each_other_are_told_apart_by_steps():
    pair = Pair()
    recorders = record(pair.maker), record(pair.critic)
    for _ in range(3):
        for model, recorder in zip((pair.maker, pair.critic), recorders, strict=True):
            recorder.before_step()
            pair.train(model)
            recorder.after_step()
    assert [recorder.trace.layers for recorder in recorders] == [["draw"], ["judge"]]
    assert [recorder.n_steps for recorder in recorders] == [3, 3]


def test_a_gradient_that_passes_through_a_model_may_be_another_models():
    pair = Pair()
    with pytest.raises(RecordingError, match="several times before"), record(pair.maker):  # noqa: PT012
        for _ in range(3):
            pair.train(pair.critic)
            pair.train(pair.maker)


def test_two_recorders_of_one_model():
    model = Plain()
    sgd = dp.SGD(model, X, Y, seed=0)
    with record(model, sgd) as outer, record(model, every=2) as inner:
        sgd.train(3, print_each=None)
        one_step(model)
    assert outer.n_steps == 4
    np.testing.assert_array_equal(inner["grad_rms"], outer["grad_rms"][::2])


def test_optimizers_that_are_made_anew_are_seen():
    model = Plain()
    first = dp.SGD(model, X, Y, seed=0)
    with record(model, first) as recorder:
        first.train(2, print_each=None)
        dp.Adam(model, X, Y, seed=0).train(2, print_each=None)
    assert list(recorder.trace["step"].values) == [1, 2, 3, 4]


class By_Get_Param(Extended):
    """The same as with the first dp."""

    def make(self, value):
        return dp.Node(value, "gamma")

    def get_param(self):
        return {**super().get_param(), "gamma": self.gamma.value}


@pytest.mark.parametrize("kind", [Extended, By_Get_Param])
def test_parameters_that_are_no_layers_and_layers_that_are_not_used(kind):
    model, grads = kind(), []
    with record(model, reference=(X, Y)) as recorder:
        for _ in range(2):
            grad, _ = model.get_grad(X, Y)
            grads.append(grad)
            for name in grad:
                model.get_param()[name][...] -= RATE * grad[name]
    trace = recorder.trace
    assert trace.layers == ["a", "b", "c", "spare", "gamma"]
    assert list(trace["role"].values) == ["trained"] * 3 + ["outside"] * 2
    found = trace["grad_mean_abs"].sel(layer="gamma").values
    np.testing.assert_array_equal(found, [np.abs(g["gamma"]).mean() for g in grads])
    assert np.isfinite(trace["update_ratio"].sel(layer="gamma")).all()
    assert np.isfinite(trace["weight_rms"]).all()
    all_told(trace, recorder)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_of_parameters_alone(compiled):
    class Line(dp.Model):
        def __init__(self):
            super().__init__(0)
            self.w = self.Parameter(np.full((4, 1), 0.1), "w")

        def loss(self, x, y):
            return (x @ self.w - y).square().mean()

    model = Line()
    sgd = dp.SGD(model, X, Y, batch_size=16, seed=0, compile=compiled)
    grads = []
    with record(model, sgd) as recorder:
        sgd.callbacks.append(lambda step: grads.append(np.abs(step.grad["w"]).mean()))
        sgd.train(3, print_each=None)
    np.testing.assert_allclose(recorder.trace["grad_mean_abs"].values[:, 0], grads, rtol=1e-9)
    all_told(recorder.trace, recorder)
    assert recorder.trace.sentence() == (
        "There are no layers to compare: gradients are known only for 'w', and the delta is not "
        "known there."
    )


def test_a_parameter_of_several_axes_is_measured_as_a_whole():
    class Stacked(Plain):
        def __init__(self):
            super().__init__(0)
            self.cube = self.Parameter(np.arange(1.0, 25).reshape(2, 3, 4), "cube")

        def loss(self, x, y):
            return super().loss(x, y) * 1.0

    model = Stacked()
    with record(model) as recorder:
        grad, _ = model.get_grad(X, Y)
        for name in grad:
            model.get_param()[name][...] -= RATE * grad[name]
    found = recorder.trace["weight_rms"].sel(layer="cube").values
    np.testing.assert_allclose(found, np.sqrt(np.mean(np.arange(1.0, 25) ** 2)))


def test_a_layer_used_several_times_has_the_deltas_of_all_its_calls():
    model = Recurrent()
    with record(model, reference=(X, Y)) as recorder:
        with dp.watch_layers() as watch:
            model.get_grad(X, Y)
            calls = [call for call in watch.calls if call.name == "step"]
        model.get_param()["out_weight"][...] *= 0.9
    delta = np.concatenate([call.delta for call in calls])
    activation = np.tanh(np.concatenate([call.pre_activation.value for call in calls]))
    trace = recorder.trace
    np.testing.assert_allclose(trace["delta_rms"].values[0, 0], np.sqrt(np.mean(delta**2)))
    np.testing.assert_allclose(trace["activation_mean"].values[0, 0], activation.mean())
    np.testing.assert_allclose(trace["activation_std"].values[0, 0], activation.std())
    assert list(trace["activation"].values) == ["tanh", "sigmoid"]


def test_what_callbacks_did_to_the_gradient_is_the_clip_factor():
    class Halve(dp.Callback):
        def before_update(self, step):
            step.grad["a_weight"] *= 0.5
            step.grad["b_weight"] = step.grad["b_weight"] * 0.25
            del step.grad["c_weight"]

    model = Plain()
    sgd = dp.SGD(model, X, Y, seed=0, callbacks=[Halve()])
    with record(model, sgd) as recorder:
        sgd.train(2, print_each=None)
    np.testing.assert_allclose(recorder["clip_factor"][:, :2], [[0.5, 0.25]] * 2)
    assert np.isnan(recorder["clip_factor"][:, 2]).all()
    assert "deleted" in recorder.missing["c"]["clip_factor"]


@pytest.mark.parametrize("normalisation", ["none", "layer"])
def test_graphs_of_evaluations_are_not_kept(normalisation):
    import gc
    import weakref

    model = dp.Net(X.shape[1], 5, 2, "tanh", normalisation=normalisation, seed=0)
    with record(model, quantities=["affine_delta_rms", "arriving_rms"]):
        one_step(model)
        with dp.watch_layers() as watch:
            output = model.forward(dp.Node(X))
        left = [weakref.ref(node) for node in (output, *(c.pre_activation for c in watch.calls))]
        watch.clear()
        del output, watch
        gc.collect()
        assert [node() for node in left] == [None] * 4


def test_a_recorder_that_is_forgotten_is_gone():
    import gc

    from dp.watching import watchers

    before = watchers()
    record(Plain()).attach()
    gc.collect()
    assert watchers() == before


class With_State(Plain):
    """Its forward pass takes two arguments, so that the recorder cannot make one."""

    def forward(self, x, h):
        return self.c(self.b((self.a(x) + h).tanh())).sigmoid()

    def loss(self, x, y):
        return dp.squared_error(self.forward(x, 0.1), y)


class Locked(Plain):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Two_Parts(Plain):
    """Takes a batch that is no matrix."""

    def loss(self, x, y):
        return super().loss(x[0], y)


class By_Formula(Plain):
    """Does not compute its gradient by a reverse sweep."""

    def get_grad(self, x, y):
        return {k: np.full_like(v, 0.5) for k, v in self.get_param().items()}, dp.Node(2.0)


class Decaying(Plain):
    """Adds to the gradient that the sweep gave, in place."""

    def get_grad(self, x, y):
        grad, loss = super().get_grad(x, y)
        for name in grad:
            grad[name] *= 0.5
        return grad, loss


@pytest.mark.parametrize("kind", [With_State, Locked, Two_Parts, By_Formula, Decaying])
def test_what_cannot_be_had_is_missing_with_a_reason(kind):
    class Batches(dp.SGD):
        def random_batch(self):
            x, y = super().random_batch()
            return ((x, x), y) if kind is Two_Parts else (x, y)

    left = []
    for recording in (False, True):
        model = kind()
        sgd = Batches(model, X, Y, {"alpha": RATE}, 16, seed=0)
        if recording:
            with record(model, sgd) as recorder:
                sgd.train(3, print_each=None)
        else:
            sgd.train(3, print_each=None)
        left.append({name: value.tobytes() for name, value in model.get_param().items()})
    assert left[0] == left[1]
    assert np.isfinite(recorder["grad_mean_abs"]).all()
    all_told(recorder.trace, recorder)
    assert np.isnan(recorder["accuracy"]).all() == (kind not in (By_Formula, Decaying))
    if kind is Decaying:
        np.testing.assert_allclose(recorder["clip_factor"], 0.5)
