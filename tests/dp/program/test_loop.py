"""Training with compile=True: the same numbers, callbacks and streams as without."""

import numpy as np
import pytest
from tests.dp.program.programs import (
    EACH_OPTIMISER,
    Layers,
    Weights_Only,
    X,
    Y,
    alike,
    close,
    trained,
)

import dp
from dp import Node


def test_it_prints_what_eager_training_prints(capsys):
    printed = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 1, "tanh", seed=0)
        dp.SGD(net, X, Y, seed=0, compile=compiled).train(30, print_each=10)
        printed.append(capsys.readouterr().out.split())
    assert [float(a) for a in printed[0][2:]] == pytest.approx([float(b) for b in printed[1][2:]])
    assert printed[0][:2] == printed[1][:2] == ["iteration", "loss"]


class Watching(dp.Callback):
    def __init__(self):
        self.seen = []

    def before_update(self, step):
        self.seen.append({name: value.copy() for name, value in step.param.items()})

    def after_update(self, step):
        self.seen.append(step)


@EACH_OPTIMISER
def test_callbacks_see_the_same(optimiser):
    runs = []
    for compiled in (False, True):
        net, watching = dp.Net(4, 3, 2, "tanh", seed=0), Watching()
        kept = []
        optimiser(
            net, X, Y, batch_size=8, seed=0, compile=compiled, callbacks=[watching, kept.append]
        ).train(5, print_each=None)
        assert kept == watching.seen[1::2]
        runs.append(watching.seen)
    for right, found in zip(*runs, strict=True):
        if isinstance(right, dict):
            for name in right:
                close(found[name], right[name])
        else:
            assert found.number == right.number
            for part in ("x", "y", "loss"):
                close(getattr(found, part).value, getattr(right, part).value)
            for name in right.grad:  # of every step, so they were copies
                close(found.grad[name], right.grad[name])


def test_a_callback_may_change_the_parameters():
    results = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 2, "tanh", seed=0)

        def clip(step, net=net):
            for value in net.get_param().values():
                np.clip(value, -0.1, 0.1, out=value)

        dp.SGD(net, X, Y, {"alpha": 0.1}, seed=0, compile=compiled, callbacks=[clip]).train(5, None)
        results.append(net.get_param())
    for name, value in results[0].items():
        assert np.abs(value).max() <= 0.1
        close(results[1][name], value)


class Interrupted(dp.Callback):
    def before_update(self, step):
        if step.number == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize("seed", [None, 0, [0, 1]])
def test_an_interrupt_leaves_everything_as_eager_training_would(seed):
    results = []
    for compiled in (False, True):
        np.random.seed(0)
        net = dp.Net(4, 3, 2, "tanh", seed=seed)
        adam = dp.Adam(net, X, Y, seed=seed, compile=compiled, callbacks=[Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            adam.train(10, print_each=None)
        adam.callbacks.clear()
        adam.train(5, print_each=None)  # with the batches that come next
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)


class Growing_Batches(dp.Adam):
    def random_batch(self):
        self.calls = getattr(self, "calls", 0) + 1
        rows = np.arange(4 + self.calls % 3)
        return Node(self.x_train[rows]), self.y_train[rows]


def test_each_shape_of_batch_is_captured():
    results = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 2, "tanh", seed=0)
        Growing_Batches(net, X, Y, compile=compiled).train(9, print_each=None)
        results.append(net.get_param())
    for name, value in results[0].items():
        close(results[1][name], value)


def test_a_custom_update():
    results = []
    for compiled in (False, True):
        net = dp.Net(4, 3, 2, "tanh", seed=0)
        live = net.get_param()
        Weights_Only(net, X, Y, seed=0, compile=compiled).train(9, print_each=None)
        assert all(net.get_param()[name] is live[name] for name in live)
        results.append(live)
    for name, value in results[0].items():
        close(results[1][name], value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_anomalies_are_found_in_eager_steps():
    net = dp.Net(4, 3, 2, "tanh", seed=0)
    net.get_param()["h2_weight"][0, 0] = np.nan
    sgd = dp.SGD(net, X, Y, seed=0, compile=True)
    with dp.detect_anomaly(), pytest.raises(dp.AnomalyError, match="h2_weight"):
        sgd.train(1, print_each=None)
    with dp.no_grad(), pytest.raises(ValueError, match="inside no_grad"):
        sgd.train(1, print_each=None)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_the_same():
    found, right = (
        trained(compiled, steps=6, act_func="relu", rate=1e200) for compiled in (True, False)
    )
    np.testing.assert_array_equal(np.isnan(found[1]), np.isnan(right[1]))
    for name in right[0]:
        np.testing.assert_array_equal(np.isfinite(found[0][name]), np.isfinite(right[0][name]))


def test_many_steps_drawn_at_once_are_many_drawn_one_by_one():
    for seed in (0, [1, 2]):
        a, b = (dp.SGD(dp.Net(4, 3, 1, seed=seed), X, Y, seed=seed) for _ in range(2))
        at_once = a.draw_rows(7)
        for rows in at_once:
            np.testing.assert_array_equal(rows, b.draw_rows(1)[0])


class Clipping(dp.Callback):
    def before_update(self, step):
        for name in step.grad:
            step.grad[name] = np.clip(step.grad[name], -0.01, 0.01)


@pytest.mark.parametrize("optimiser", [dp.SGD, dp.Adam, Weights_Only])
def test_gradients_that_a_callback_clips(optimiser):
    alike(
        lambda: dp.Net(4, 3, 2, "tanh", seed=0),
        lambda opt: opt.train(9, print_each=None),
        optimiser,
        seed=0,
        callbacks=[Clipping()],
    )


class Best(dp.Callback):
    """Puts other parameters back, and stops."""

    def __init__(self, when):
        self.when = when

    def stop(self, step):
        if step.number == 3:
            for value in step.param.values():
                value[...] = 0.125
            raise StopIteration

    def before_update(self, step):
        if self.when == "before":
            self.stop(step)

    def after_update(self, step):
        if self.when == "after":
            self.stop(step)


@pytest.mark.parametrize("when", ["before", "after"])
def test_parameters_that_a_callback_puts_back_before_it_raises(when):
    def run(opt):
        with pytest.raises(StopIteration):
            opt.train(9, print_each=None)

    make = lambda: dp.Net(4, 3, 2, "tanh", seed=0)  # noqa: E731
    alike(make, run, seed=0, callbacks=[Best(when)])


@pytest.mark.parametrize("seed", [None, 0])
def test_streams_go_on_where_eager_training_leaves_them(seed):
    class Stop(dp.ProgramCallback):
        def before_update(self, step):
            if step.number == 5:
                raise KeyboardInterrupt

        def before_program_update(self, number, step):
            if number == 5:
                raise KeyboardInterrupt

    def run(opt):
        with pytest.raises(KeyboardInterrupt):
            opt.train(50, print_each=None)
        opt.callbacks.clear()
        opt.batch_size = 5
        opt.train(3, print_each=None)

    alike(lambda: dp.Net(4, 3, 2, "tanh", seed=0), run, seed=seed, callbacks=[Stop()])


def test_callbacks_that_draw_numbers_or_change_the_batch():
    def draw(step):
        np.random.rand()
        opt_of[0].batch_size = 3 + step.number % 2

    opt_of = []

    def run(opt):
        opt_of[:] = [opt]
        opt.train(6, print_each=None)

    alike(lambda: dp.Net(4, 3, 2, "tanh", seed=0), run, callbacks=[draw])


def test_stores_of_parameters_that_are_not_trained():
    class Partly(Layers):
        def __init__(self):
            super().__init__(lambda m, x, y: (m.out(m.a(x)) - y).square().sum())

    alike(Partly, lambda opt: opt.train(3, print_each=None), dp.Adam, seed=0)


class Annealed(Layers):
    def __init__(self):
        super().__init__(lambda m, x, y: ((m.out(m.a(x)) - y).square() * m.beta).sum())
        self.beta = 1.0


def test_what_changes_while_training_is_found():
    def run(opt):
        opt.callbacks.append(lambda step: setattr(opt.model, "beta", opt.model.beta * 0.5))
        opt.train(9, print_each=None)

    alike(Annealed, run, dp.Adam, seed=0)


def test_one_row_at_a_time():
    alike(
        lambda: dp.Net(4, 3, 2, "tanh", seed=0),
        lambda opt: (setattr(opt, "batch_size", 1), opt.train(9, print_each=None)),
        seed=0,
    )
