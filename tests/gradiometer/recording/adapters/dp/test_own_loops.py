"""Any way in which students train a model of dp is recorded rightly, and none is changed by it."""

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.dp.ways_to_train import (
    MODELS,
    RATE,
    REFERENCE,
    STEPS,
    STYLES,
    Extended,
    Only_Loss,
    Plain,
    Recurrent,
    X,
    Y,
    adam,
    all_told,
    by_callback,
    ensemble,
    net,
    one_step,
    trained,
)

import dp
from gradiometer import record
from gradiometer.quantities import PER_LAYER


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
        all_told(trace, recorder)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_gives_what_the_librarys_loop_gives(style):
    _, _, right = trained(Plain, by_callback, {"reference": (X, Y)})
    _, _, found = trained(Plain, style, {"reference": (X, Y)})
    if style is adam:
        return
    for name in (*PER_LAYER, "loss", "accuracy"):
        if name != "clip_factor":  # unknown of a loop of one's own
            np.testing.assert_array_equal(found.trace[name], right.trace[name], err_msg=name)


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
            all_told(recorder.trace, recorder)
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
