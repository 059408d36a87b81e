"""Any way in which students train a model of dp is recorded rightly, and none is changed by it."""

import random
import threading

import numpy as np
import pytest

import dp
from gradlab import record
from gradlab.data import load
from gradlab.recording import RecordingError
from gradlab.recording.measure import PER_LAYER

IRIS = load("iris2")
X, Y = IRIS.x, IRIS.y
RATE, STEPS = 0.01, 6
GLOBAL = np.random.default_rng(5)


# --- models ---------------------------------------------------------------------------------------


class Plain(dp.Model):
    """The course's way: layers, functions as methods, the loss from log."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.a = self.Linear_Layer(4, 5, "a")
        self.b = self.ReLu_Layer(5, 3, "b")
        self.c = self.Linear_Layer(3, 1, "c")

    def forward(self, x):
        return self.c(self.b(self.a(x).tanh())).sigmoid()

    def loss(self, x, y):
        p = self.forward(x)
        return -(y * p.log() + (1 - y) * (1 - p).log()).sum()


class Only_Loss(Plain):
    """Without a forward pass of its own."""

    forward = dp.Model.forward

    def loss(self, x, y):
        return (self.c(self.b(self.a(x).tanh())) - y).square().mean()


class Dropout(Plain):
    """Draws random numbers in its forward pass: from every place that there is."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.own = np.random.default_rng(3)

    def forward(self, x):
        x = self.a(x).tanh()
        x = x * (np.random.rand(*x.shape) > 0.1) * (self.own.random(x.shape) > 0.1)
        x = x * (GLOBAL.random(x.shape) > 0.1) * random.uniform(0.9, 1.1)
        return self.c(self.b(x)).sigmoid()


class Averaging(Plain):
    """Keeps running statistics, counts and notes, as an own batch normalisation does."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.mean, self.calls, self.notes = np.zeros((1, 5)), 0, []

    def forward(self, x):
        h = self.a(x)
        self.mean *= 0.9
        self.mean += 0.1 * h.value.mean(axis=0)
        self.calls += 1
        self.notes.append(self.calls)
        return self.c(self.b((h - self.mean).tanh())).sigmoid() * (1 - 0.001 * self.calls)


class Recurrent(dp.Model):
    """Uses one layer three times."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.step = self.Linear_Layer(4, 4, "step")
        self.out = self.Linear_Layer(4, 1, "out")

    def forward(self, x):
        for _ in range(3):
            x = self.step(x).tanh()
        return self.out(x).sigmoid()

    def loss(self, x, y):
        return dp.squared_error(self.forward(x), y)


class Changing(Plain):
    """Leaves a layer out in every other step."""

    calls = 0

    def loss(self, x, y):
        self.calls += 1
        h = self.a(x).tanh()
        h = self.b(h) if self.calls % 2 else h[:, :3]
        return dp.squared_error(self.c(h).sigmoid(), y)

    def forward(self, x):
        return self.c(self.b(self.a(x).tanh())).sigmoid()


def net(seed=0):
    return dp.Net(4, 5, 2, "tanh", seed=seed)


def ensemble():
    return dp.Net(4, 5, 2, "relu", seed=[0, 1])


MODELS = [net, ensemble, Plain, Only_Loss, Dropout, Averaging, Recurrent, Changing]


# --- ways to train, each of which notes mean |dL/dW| of the layers as it goes ---------------------


def noted(model, gradients):
    weights = [name for name in model.get_param() if name.endswith("_weight")]
    return [np.abs(gradients[w]).mean(axis=(-2, -1)) if w in gradients else np.nan for w in weights]


class Own_Train(dp.SGD):
    """The lesson's exercise: `_train` written again."""

    def _train(self, steps=1000, num_grad_stores=0, print_each=100):
        self.grad_w = []
        param = self.model.get_param()
        for i in range(1, steps + 1):
            grad, loss = self.model.get_grad(*self.random_batch())
            self.grad_w.append(noted(self.model, grad))
            for g in grad:
                self._update(param, grad, g, i)
        return loss.value


class Copied:
    """The lesson's optimizer, copied into the notebook."""

    def __init__(self, model):
        self.model, self.grad_w = model, []

    def train(self, steps):
        for _ in range(steps):
            rows = np.random.randint(0, len(X), 16)
            grad, _ = self.model.get_grad(dp.Node(X[rows]), dp.Node(Y[rows]))
            self.grad_w.append(noted(self.model, grad))
            param = self.model.get_param()
            for k in grad:
                param[k] -= RATE * grad[k]
            self.model.set_param(param)


class Own_Init(dp.Optimizer):
    """An `__init__` without super."""

    def __init__(self, model):
        self.model, self.x_train, self.y_train = model, X, Y
        self.batch_size, self.grad_w = 16, []

    def _update(self, param, grad, g, i):
        if g == next(iter(grad)):
            self.grad_w.append(noted(self.model, grad))
        param[g] -= RATE * grad[g]


def own_train(model):
    optimizer = Own_Train(model, X, Y, {"alpha": RATE}, 16)
    return optimizer, lambda: (optimizer.train(STEPS), optimizer.grad_w)[1]


def copied(model):
    optimizer = Copied(model)
    return optimizer, lambda: (optimizer.train(STEPS), optimizer.grad_w)[1]


def own_init(model):
    optimizer = Own_Init(model)
    return optimizer, lambda: (optimizer.train(STEPS, print_each=None), optimizer.grad_w)[1]


def by_callback(model, kind=dp.SGD, steps=(STEPS,)):
    seen = []
    note = lambda step: seen.append(noted(model, step.grad))  # noqa: E731
    optimizer = kind(model, X, Y, {"alpha": RATE}, 16, callbacks=[note])

    def train():
        for count in steps:
            optimizer.train(count, print_each=None)
        return seen

    return optimizer, train


def adam(model):
    return by_callback(model, dp.Adam)


def trained_twice(model):
    return by_callback(model, steps=(2, STEPS - 2))


def replaced_train(model):
    """An optimizer whose `train` somebody replaced."""
    optimizer, train = own_train(model)
    optimizer.train = lambda steps: optimizer._train(steps)
    return optimizer, train


def by_hand(model):
    """A loop of one's own, in place, without an optimizer."""

    def train():
        seen = []
        for _ in range(STEPS):
            rows = np.random.randint(0, len(X), 16)
            grad, _ = model.get_grad(X[rows], Y[rows])
            seen.append(noted(model, grad))
            for name, value in model.get_param().items():
                if name in grad:
                    value -= RATE * grad[name]
        return seen

    return None, train


def gradient_of_the_loss(model):
    """As in the course's first notebooks: `loss.grad()`, and values that are replaced."""

    def train():
        seen = []
        for _ in range(STEPS):
            rows = np.random.randint(0, len(X), 16)
            grad = model.loss(dp.Node(X[rows]), dp.Node(Y[rows])).grad()
            seen.append(noted(model, grad))
            model.set_param(
                {k: v - RATE * grad[k] for k, v in model.get_param().items() if k in grad}
            )
        return seen

    return None, train


def one_by_one(model):
    """A `set_param` for every parameter; and the loss is looked at in between."""

    def train():
        seen = []
        for _ in range(STEPS):
            rows = np.random.randint(0, len(X), 16)
            grad, _ = model.get_grad(X[rows], Y[rows])
            seen.append(noted(model, grad))
            for name in grad:
                model.set_param({name: model.get_param()[name] - RATE * grad[name]})
            model.loss(X, Y)
        return seen

    return None, train


def in_another_thread(model):
    optimizer, train = by_hand(model)

    def run():
        seen = []
        thread = threading.Thread(target=lambda: seen.extend(train()))
        thread.start()
        thread.join()
        return seen

    return optimizer, run


STYLES = [
    own_train, copied, own_init, by_callback, adam, trained_twice, replaced_train, by_hand,
    gradient_of_the_loss, one_by_one, in_another_thread,
]  # fmt: skip


def trained(make_model, style, recording):
    """A training; gives what it left behind, what it noted, and the recorder."""
    global GLOBAL
    np.random.seed(1)
    random.seed(1)
    GLOBAL = np.random.default_rng(5)
    model = make_model()
    optimizer, train = style(model)
    if recording is None:
        seen, recorder = train(), None
    else:
        with record(model, optimizer, **recording) as recorder:
            seen = train()
    left = {name: value.tobytes() for name, value in model.get_param().items()}
    state = np.random.get_state()
    left["random"] = (
        state[1].tobytes(),
        state[2],
        random.getstate(),
        str(GLOBAL.bit_generator.state),
    )
    for name, value in vars(model).items():
        if isinstance(value, np.random.Generator):
            left[name] = str(value.bit_generator.state)
        elif name in ("mean", "calls", "notes"):
            left[name] = str(value)
    left["callbacks"] = list(getattr(optimizer, "callbacks", ["none"]))[1:]
    return left, seen, recorder


REFERENCE = {"reference": (X, Y), "histograms": True}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("style", STYLES)
def test_what_is_recorded_is_right_and_changes_nothing(style, model):
    left, seen, _ = trained(model, style, None)
    for recording in ({}, REFERENCE, {"every": 3}):
        again, right, recorder = trained(model, style, recording)
        assert again == left, recording
        np.testing.assert_array_equal(np.array(right), np.array(seen))
        trace = recorder.trace
        every = recording.get("every", 1)
        assert list(trace["step"].values) == list(range(1, STEPS + 1, every))
        np.testing.assert_array_equal(trace["grad_mean_abs"].values, np.array(seen)[::every])
        _all_told(trace, recorder)


def _all_told(trace, recorder):
    """Whatever is NaN has a reason."""
    for name in PER_LAYER:
        values = trace[name].values
        for i, layer in enumerate(trace.layers):
            if np.isnan(values[:, i]).any():
                assert recorder.missing[layer][name], (name, layer)
    for name in ("loss", "accuracy"):
        if np.isnan(trace[name].values).any():
            assert recorder.missing["(model)"][name], name


@pytest.mark.parametrize("style", STYLES)
def test_every_style_gives_what_the_librarys_loop_gives(style):
    _, _, right = trained(Plain, by_callback, {"reference": (X, Y)})
    _, _, found = trained(Plain, style, {"reference": (X, Y)})
    if style is adam:
        return
    for name in (*PER_LAYER, "loss", "accuracy"):
        if name != "clip_factor":  # unknown of a loop of one's own
            np.testing.assert_array_equal(found.trace[name], right.trace[name], err_msg=name)


def one_step(model, rate=RATE):
    grad, _ = model.get_grad(X, Y)
    for name, value in model.get_param().items():
        value -= rate * grad[name]
    return grad


# --- where a step ends ----------------------------------------------------------------------------


def accumulated(model, told=None, parts=2):
    """Two batches' gradients added up for one update."""
    for i in range(4):
        if told is not None:
            told.before_step()
        batches = [slice(i + 25 * k, i + 25 * k + 10) for k in range(parts)]
        grads = [model.get_grad(X[rows], Y[rows])[0] for rows in batches]
        model.set_param(
            {k: v - RATE * sum(g[k] for g in grads) for k, v in model.get_param().items()}
        )
        if told is not None:
            told.after_step()


def test_several_gradients_before_an_update_are_refused_and_the_error_shows_the_way():
    model = Plain()
    with pytest.raises(RecordingError, match=r"recorder\.before_step\(\)"), record(model):
        accumulated(model)
    once = Plain()  # also if the training is over before the next gradient would tell
    with pytest.raises(RecordingError, match="several times before"), record(once):  # noqa: PT012
        once.get_grad(X, Y)
        one_step(once)
    one_step(once)  # nothing stays behind


def test_told_where_a_step_ends_they_are_one_large_batch():
    models = Plain(), Plain()
    recorder = record(models[0])
    accumulated(models[0], recorder)
    whole = record(models[1])
    for i in range(4):
        rows = [*range(i, i + 10), *range(i + 25, i + 35)]
        whole.before_step()
        grad, _ = models[1].get_grad(X[rows], Y[rows])
        for name, value in models[1].get_param().items():
            value -= RATE * grad[name]
        whole.after_step()
    assert recorder.n_steps == whole.n_steps == 4
    for name in (*PER_LAYER, "loss"):
        np.testing.assert_allclose(recorder[name], whole[name], rtol=1e-9, err_msg=name)
    assert np.isnan(recorder["clip_factor"]).all()


def test_a_loop_that_is_told_and_one_that_is_seen_give_the_same():
    seen_model, told_model = Plain(), Plain()
    with record(seen_model) as seen:
        for _ in range(3):
            one_step(seen_model)
    told = record(told_model, every=2)
    for _ in range(3):
        told.before_step()
        one_step(told_model)
        told.after_step()
        told_model.get_grad(X[:5], Y[:5])  # outside of a step: not recorded
    assert list(told.trace["step"].values) == [1, 3]
    for name in PER_LAYER:
        np.testing.assert_array_equal(told[name], seen[name][::2], err_msg=name)


def test_a_loss_of_ones_own_may_be_told():
    model = Plain()
    recorder = record(model)
    recorder.before_step()
    one_step(model)
    recorder.after_step(loss=7.5)
    assert recorder.trace["loss"].values.tolist() == [7.5]


def test_parameters_that_change_between_two_gradients_of_a_step_are_told():
    model = Plain()
    recorder = record(model)
    recorder.before_step()
    before = model.get_param()["a_weight"].copy()
    one_step(model)
    one_step(model)
    recorder.after_step()
    change = np.sqrt(np.mean((model.get_param()["a_weight"] - before) ** 2))
    size = np.sqrt(np.mean(before**2))
    np.testing.assert_allclose(recorder["update_ratio"][0, 0], change / size)
    assert np.isnan(recorder["grad_mean_abs"]).all()
    assert "changed between two" in recorder.missing["a"]["grad_mean_abs"]


def test_the_contract_of_before_and_after():
    model = Plain()
    recorder = record(model)
    with pytest.raises(RuntimeError, match="after_step\\(\\) without before_step"):
        recorder.after_step()
    recorder.before_step()
    with pytest.raises(RuntimeError, match="recording already"):
        recorder.attach()
    recorder.after_step()
    with pytest.raises(ValueError, match="no gradient of a loss that depends on the model"):
        _ = recorder.trace
    recorder.before_step()  # a step that something interrupted
    model.get_grad(X, Y)
    recorder.before_step()
    one_step(model)
    recorder.after_step()
    assert recorder.n_steps == 1
    with record(model) as other, pytest.raises(RuntimeError, match="sees the steps by itself"):
        other.before_step()


def test_gradients_that_nothing_follows_are_no_steps():
    model = Plain()
    with record(model) as recorder:
        model.get_grad(X, Y)
    with pytest.raises(ValueError, match=r"no parameter .* changed(.|\n)*before_step"):
        _ = recorder.trace
    with record(model) as recorder:
        one_step(model)
        one_step(model)
        assert recorder.n_steps == 2  # may be asked at any time
        model.get_grad(X, Y)
    assert recorder.n_steps == 2


def test_other_gradients_in_the_librarys_loop_are_no_part_of_it():
    def look(step):
        for rows in (slice(0, 5), slice(5, 9)):
            step.loss.grad()
            model.get_grad(X[rows], Y[rows])

    class Batches(dp.SGD):
        def random_batch(self):
            self.model.get_grad(X[:3], Y[:3])
            return super().random_batch()

    traces = []
    for kind, callbacks in ((dp.SGD, []), (Batches, [look])):
        model = Plain()
        sgd = kind(model, X, Y, seed=0, callbacks=callbacks)
        with record(model, sgd) as recorder:
            sgd.train(5, print_each=None)
        traces.append(recorder.trace.dataset)
    for name in PER_LAYER:
        np.testing.assert_array_equal(traces[1][name], traces[0][name], err_msg=name)


@pytest.mark.parametrize("style", [by_hand, copied, own_train, by_callback])
def test_a_net_that_diverged_is_recorded_to_the_end(style):
    def broken():
        model = net()
        model.get_param()["h1_weight"][:] = np.nan
        return model

    with np.errstate(all="ignore"):
        _, _, recorder = trained(broken, style, {})
    assert recorder.n_steps == STEPS
    assert (recorder["nonfinite_count"] > 0).all()


def test_an_update_that_rounding_swallows_is_a_step():
    class Flat(Plain):
        def loss(self, x, y):
            return super().loss(x, y) * 1e-300

    _, _, recorder = trained(Flat, by_hand, {})
    assert recorder.n_steps == STEPS
    assert (recorder["update_ratio"] == 0).all()


# --- what ends a training early -------------------------------------------------------------------


def stopped_by(error, at, style):
    """A training that an exception ends in the loss of step `at`."""

    class Failing(Plain):
        calls = 0

        def loss(self, x, y):
            self.calls += 1
            if self.calls == at:
                raise error
            return super().loss(x, y)

    model = Failing()
    optimizer, train = style(model)
    np.random.seed(0)
    with pytest.raises(type(error)), record(model, optimizer) as recorder:
        train()
    return model, recorder


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("the student's own")])
@pytest.mark.parametrize("style", [by_callback, own_train, copied, by_hand, own_init])
def test_an_interrupted_training_keeps_its_steps_and_goes_on(style, error):
    model, recorder = stopped_by(error, 4, style)
    # of a loop of one's own it is not known whether the update before was complete
    assert recorder.n_steps in ((3,) if style in (by_callback, own_init) else (2, 3))
    assert np.isfinite(recorder["grad_mean_abs"]).all()
    again = style(model)[1]
    again()
    assert recorder.n_steps in (2, 3)


@pytest.mark.parametrize("when", ["before_update", "after_update"])
def test_a_callback_that_raises(when):
    def fail(self, step):
        if step.number == 3:
            raise RuntimeError("mine")

    model = Plain()
    callback = type("Failing", (dp.Callback,), {when: fail})()
    sgd = dp.SGD(model, X, Y, seed=0, callbacks=[callback])
    with record(model, sgd) as recorder:
        with pytest.raises(RuntimeError, match="mine"):
            sgd.train(5, print_each=None)
        assert sgd.callbacks == [callback]
        callbacks, sgd.callbacks = sgd.callbacks, []
        sgd.train(2, print_each=None)
        sgd.callbacks = callbacks
    done = 2 if when == "before_update" else 3
    assert list(recorder.trace["step"].values) == list(range(1, done + 3))


# --- which model, and what of it ------------------------------------------------------------------


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


class Extended(Plain):
    """A parameter that is no layer's, and a layer that is not used."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.spare = self.Linear_Layer(2, 2, "spare")
        self.gamma = self.make(np.full((1, 5), 1.5))

    def make(self, value):
        return self.Parameter(value, "gamma")

    def forward(self, x):
        return self.c(self.b((self.a(x) * self.gamma).tanh())).sigmoid()


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
    _all_told(trace, recorder)


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
    _all_told(recorder.trace, recorder)
    assert recorder.trace.sentence() == (
        "There are no layers to compare: gradients are known of 'w' alone, where the delta is not."
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
    assert "taken away" in recorder.missing["c"]["clip_factor"]


def test_graphs_of_evaluations_are_not_kept():
    import gc
    import weakref

    model = Plain()
    with record(model):
        one_step(model)
        output = model.forward(dp.Node(X))
        left = weakref.ref(output)
        del output
        gc.collect()
        assert left() is None


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
    _all_told(recorder.trace, recorder)
    assert np.isnan(recorder["accuracy"]).all() == (kind not in (By_Formula, Decaying))
    if kind is Decaying:
        np.testing.assert_allclose(recorder["clip_factor"], 0.5)


# --- chains of layers -----------------------------------------------------------------------------


class Forked(dp.Model):
    """A trunk and two heads."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.trunk = self.Linear_Layer(4, 5, "trunk")
        self.left, self.right = self.Linear_Layer(5, 1, "left"), self.Linear_Layer(5, 1, "right")

    def forward(self, x):
        h = self.trunk(x).tanh()
        return self.left(h).sigmoid() * self.right(h).sigmoid()

    def loss(self, x, y):
        return dp.squared_error(self.forward(x), y)


@pytest.mark.parametrize("compiled", [False, True])
def test_layers_that_are_not_one_chain_are_not_compared(compiled):
    model = Forked()
    sgd = dp.SGD(model, X, Y, batch_size=16, seed=0, compile=compiled)
    with record(model, sgd) as recorder:
        sgd.train(3, print_each=None)
    assert recorder.chains == [[0, 1], [0, 2]]
    text = recorder.trace.sentence()
    assert "These are 2 chains of layers, each judged by itself." in text
    assert "right' to 'left" not in text
    one = net()
    sgd = dp.SGD(one, X, Y, seed=0, compile=compiled)
    with record(one, sgd) as recorder:
        sgd.train(1, print_each=None)
    assert recorder.chains == [[0, 1, 2]]
    assert "chains" not in recorder.trace.attrs


@pytest.mark.parametrize("kind", [dp.SGD, dp.Adam])
@pytest.mark.parametrize("make", [net, ensemble, Plain, Only_Loss, Recurrent, Forked, Extended])
def test_compiled_training_is_not_changed_either(make, kind):
    left = []
    for recording in (None, {}, REFERENCE, {"every": 3}):
        np.random.seed(1)
        model = make()
        optimizer = kind(model, X, Y, {"alpha": RATE}, 16, compile=True)
        if recording is None:
            optimizer.train(20, print_each=None)
        else:
            with record(model, optimizer, **recording) as recorder:
                optimizer.train(20, print_each=None)
            assert recorder.n_steps == len(range(0, 20, recording.get("every", 1)))
            _all_told(recorder.trace, recorder)
        param = {name: value.tobytes() for name, value in model.get_param().items()}
        left.append((param, np.random.get_state()[1].tobytes(), np.random.get_state()[2]))
    assert all(one == left[0] for one in left[1:])


def test_a_compiled_training_goes_on_counting():
    model = net()
    optimizer = dp.SGD(model, X, Y, seed=0, compile=True)
    with record(model, optimizer) as recorder:
        optimizer.train(3, print_each=None)
        optimizer.compile = False
        optimizer.train(2, print_each=None)
        optimizer.compile = True
        optimizer.train(3, print_each=None)
        one_step(model)
    assert list(recorder.trace["step"].values) == list(range(1, 10))
    assert np.isfinite(recorder["grad_mean_abs"]).all()
