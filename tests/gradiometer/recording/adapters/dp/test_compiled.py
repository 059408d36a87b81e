"""Recorded from compiled steps, every quantity is what eager steps give."""

import itertools

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.data import load
from gradiometer.experiment import Experiment
from gradiometer.quantities import PER_LAYER
from gradiometer.recording import RecordingError
from gradiometer.recording import assembly as assembly_module
from gradiometer.recording.adapters.dp import program

IRIS = {name: load(name) for name in ("iris2", "iris")}


def recorded(compiled, data="iris2", steps=70, model=dp.Net, optimiser=dp.SGD, options=None, **net):
    """A trace of more steps than are measured at once."""
    data = IRIS[data]
    net = model(data.n_features, 5, 3, n_outputs=data.n_outputs, **net)
    sgd = optimiser(net, data.x, data.y, batch_size=16, seed=net.seed, compile=compiled)
    with np.errstate(all="ignore"), record(net, sgd, **(options or {})) as recorder:
        sgd.train(steps, print_each=None)
    return recorder.trace.dataset


def same(found, right, tolerance=1e-7):
    assert set(found) == set(right)
    assert list(found["activation"].values) == list(right["activation"].values)
    for name in right:
        scale = float(np.nanmax(np.abs(right[name].values), initial=0.0))
        np.testing.assert_allclose(
            found[name], right[name], rtol=tolerance, atol=tolerance * scale, err_msg=name
        )


@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["one", "two"])
@pytest.mark.parametrize("activation", dp.activations.ACTIVATIONS)
def test_every_activation(activation, seed):
    iris = IRIS["iris2"]
    options = {"reference": (iris.x, iris.y), "histograms": True}
    found, right = (
        recorded(compiled, act_func=activation, seed=seed, options=options)
        for compiled in (True, False)
    )
    same(found, right)


@pytest.mark.parametrize(
    ("normalisation", "residual", "every", "own"),
    list(itertools.product(["none", "layer", "batch"], [False, True], [1, 3], [False, True])),
)
def test_every_net(normalisation, residual, every, own):
    iris = IRIS["iris"]
    options = {"every": every, "reference": None if own else (iris.x, iris.y)}
    net = {"act_func": "tanh", "normalisation": normalisation, "residual": residual, "seed": 0}
    found, right = (recorded(c, "iris", options=options, **net) for c in (True, False))
    same(found, right, 1e-6)


def test_a_layer_by_another_name_and_an_unknown_function():
    net = {"act_func": lambda h: h * h.sigmoid() * 0.5, "seed": 0}
    found, right = (recorded(compiled, **net) for compiled in (True, False))
    assert list(found["activation"].values) == ["unknown"] * 3 + ["sigmoid"]
    assert np.isnan(found["activation_mean"].sel(layer="h1")).all()
    same(found, right)


def test_quantities_can_be_chosen():
    everything = recorded(True, act_func="tanh", seed=0)
    chosen_ones = (["grad_mean_abs"], ["clip_factor"], ["delta_rms", "accuracy"], ["dead_fraction"])
    for chosen in chosen_ones:
        for compiled in (True, False):
            found = recorded(compiled, act_func="tanh", seed=0, options={"quantities": chosen})
            assert set(found.data_vars) == set(chosen)
            for name in found.data_vars:
                np.testing.assert_allclose(found[name], everything[name], rtol=1e-9)
    with pytest.raises(ValueError, match="unknown quantity 'grad_mean'; did you mean"):
        recorded(True, seed=0, options={"quantities": ["grad_mean"]})


def test_divergence_is_found_where_it_came_up():
    found, right = (
        Experiment.of(
            activation="relu", learning_rate=0.05, scaling=30.0, dtype="float32", steps=20
        )
        for _ in range(2)
    )
    trace = found.run()
    step = trace.attrs["nonfinite_step"]
    counts = trace["nonfinite_count"].values.any(axis=1)
    assert trace["step"].values[counts.argmax()] == step
    assert trace.attrs["nonfinite_in"] in ("activation", "delta", "gradient", "loss")
    assert right.run().attrs["nonfinite_layer"] == trace.attrs["nonfinite_layer"]


class Thrice(dp.Model):
    """A layer used three times, one that is only made, a loss without forward, or with it."""

    def __init__(self, *_, **__):
        super().__init__(seed=0)
        self.hidden = self.Linear_Layer(4, 4, "hidden")
        self.out = self.Linear_Layer(4, 1, "out")
        self.spare = self.Linear_Layer(2, 2, "spare")

    def forward(self, x):
        for _ in range(3):
            x = self.hidden(x).tanh()
        return self.out(x).sigmoid()

    def loss(self, x, y):
        return dp.squared_error(self.forward(x), y)


class Unforeseen(Thrice):
    forward = dp.Model.forward

    def loss(self, x, y):
        return dp.squared_error(Thrice.forward(self, x), y)


class Mixed(Thrice):
    def forward(self, x):
        return self.out(self.hidden(self.hidden(x).relu()).tanh()).sigmoid()


@pytest.mark.parametrize("model", [Thrice, Unforeseen, Mixed])
@pytest.mark.parametrize("reference", [False, True])
def test_layers_used_several_times_or_not_at_all(model, reference):
    iris = IRIS["iris2"]
    options = {"reference": (iris.x, iris.y)} if reference else {}
    found, right = (recorded(c, model=model, options=options) for c in (True, False))
    for name in ("weight_rms", "update_ratio"):  # a compiled step does not hold what it never uses
        assert found[f"{name}_missing"].sel(layer="spare").all()
        assert np.isnan(found[name].sel(layer="spare")).all()
        found = found.drop_vars(f"{name}_missing")
        right[name].loc[{"layer": "spare"}] = np.nan
    same(found, right)
    assert np.isfinite(found["delta_rms"].sel(layer="hidden")).all()
    assert np.isnan(found["activation_std"].sel(layer="hidden")).all() == (model is Mixed)


def test_an_interrupted_training_keeps_the_steps_that_wait():
    iris = IRIS["iris2"]

    class Stop(dp.ProgramCallback):
        def after_program_update(self, number, step):
            if number == 7:
                raise KeyboardInterrupt

    net = dp.Net(4, 5, 3, "tanh", seed=0)
    sgd = dp.SGD(net, iris.x, iris.y, seed=0, compile=True, callbacks=[Stop()])
    with pytest.raises(KeyboardInterrupt), record(net, sgd) as recorder:
        sgd.train(20, print_each=None)
    assert recorder.n_steps == 7
    assert set(PER_LAYER) <= set(recorder.trace.dataset)


def test_a_quantity_can_be_had_as_a_plain_array():
    iris = IRIS["iris2"]
    net = dp.Net(4, 5, 3, "tanh", seed=[0, 1])
    sgd = dp.SGD(net, iris.x, iris.y, seed=[0, 1], compile=True)
    with record(net, sgd, quantities=["grad_rms"]) as recorder:
        sgd.train(3, print_each=None)
    assert recorder["grad_rms"].shape == (3, 4, 2)
    np.testing.assert_array_equal(recorder["grad_rms"], recorder.trace["grad_rms"].values)
    with pytest.raises(KeyError, match="'loss' was not recorded; there are grad_rms"):
        recorder["loss"]


class Asking(dp.Callback):
    """Reads the record in the middle of every step."""

    def before_update(self, step):
        self.seen = self.recorder.n_steps


@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["one", "two"])
@pytest.mark.parametrize("every", [1, 3])
def test_large_steps_are_measured_one_by_one(every, seed, monkeypatch):
    options = {"every": every}
    right = recorded(True, act_func="relu", seed=seed, options=options)
    monkeypatch.setattr(program, "AT_MOST", 1)
    same(recorded(True, act_func="relu", seed=seed, options=options), right, 1e-12)


class Halving(dp.Callback):
    def before_update(self, step):
        for gradient in step.grad.values():
            gradient *= 0.5


def test_gradients_are_those_from_before_callbacks_change_them(monkeypatch):
    iris, traces = IRIS["iris2"], []
    for compiled, at_most in ((False, 1), (True, 1), (True, program.AT_MOST)):
        monkeypatch.setattr(program, "AT_MOST", at_most)
        net = dp.Net(4, 5, 3, "tanh", seed=0)
        sgd = dp.SGD(net, iris.x, iris.y, seed=0, compile=compiled, callbacks=[Halving()])
        with record(net, sgd) as recorder:
            sgd.train(20, print_each=None)
        traces.append(recorder.trace.dataset)
    for found in traces[1:]:
        same(found, traces[0])


@pytest.mark.parametrize("at_most", [1, program.AT_MOST])
def test_the_record_may_be_read_in_the_middle_of_a_step(at_most, monkeypatch):
    monkeypatch.setattr(program, "AT_MOST", at_most)
    iris, traces = IRIS["iris2"], []
    for callbacks in ([], [asking := Asking()]):
        net = dp.Net(4, 5, 3, "tanh", seed=0)
        sgd = dp.SGD(net, iris.x, iris.y, seed=0, compile=True, callbacks=callbacks)
        with record(net, sgd) as recorder:
            asking.recorder = recorder
            sgd.train(9, print_each=None)
        traces.append(recorder.trace.dataset)
    assert asking.seen == 8
    same(*traces)


class Aside(dp.Model):
    def __init__(self, *_, **__):
        super().__init__(seed=0)
        self.main = self.Linear_Layer(4, 1, "main")
        self.side = self.Linear_Layer(4, 1, "side")

    def forward(self, x):
        self.side(x)
        return self.main(x).sigmoid()

    def loss(self, x, y):
        return dp.squared_error(self.forward(x), y)


def test_a_layer_beside_the_loss_is_recorded_eagerly_and_refused_compiled():
    assert np.isnan(recorded(False, model=Aside, steps=2)["grad_rms"].sel(layer="side")).all()
    with pytest.raises(RecordingError, match="does not depend on layer 'side'"):
        recorded(True, model=Aside, steps=2)


class Deciding(Aside):
    def forward(self, x):
        h = self.main(x)
        return h.sigmoid() if h.value[0] != h.value[1] else h.tanh()

    def loss(self, x, y):
        return dp.squared_error(self.main(x).sigmoid(), y)


def test_a_forward_pass_that_decides_by_values_is_refused():
    with pytest.raises(RecordingError, match="forward of Deciding cannot be captured"):
        recorded(True, model=Deciding, steps=2)


def test_an_interrupt_while_measuring_loses_no_step(monkeypatch):
    iris, measure, pressed = IRIS["iris2"], assembly_module.measure, []

    def interrupted(*arguments):
        if not pressed:
            pressed.append(1)
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(assembly_module, "measure", interrupted)
    net = dp.Net(4, 5, 3, "tanh", seed=0)
    sgd = dp.SGD(net, iris.x, iris.y, seed=0, compile=True)
    with record(net, sgd) as recorder:
        with pytest.raises(KeyboardInterrupt):
            sgd.train(100, print_each=None)
        steps = recorder.n_steps
    assert pressed
    assert steps > 1
    trace = recorder.trace
    assert list(trace["step"].values) == list(range(1, steps + 1))
    assert np.isfinite(trace["grad_mean_abs"]).all()
