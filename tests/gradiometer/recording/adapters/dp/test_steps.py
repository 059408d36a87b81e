"""Where a step of dp's training begins and ends, told or seen, and what ends a training early."""

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.dp.ways_to_train import (
    RATE,
    STEPS,
    Plain,
    X,
    Y,
    by_callback,
    by_hand,
    copied,
    net,
    one_step,
    own_init,
    own_train,
    trained,
)

import dp
from gradiometer import record
from gradiometer.quantities import PER_LAYER
from gradiometer.recording import RecordingError

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
