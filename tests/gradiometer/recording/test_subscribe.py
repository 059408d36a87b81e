"""A listener is told of every recorded step, by every framework, and never changes the training."""

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import dp
from gradiometer import State, record, record_sklearn
from gradiometer.events import ListenerWarning, StepRecorded

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 4)), RNG.integers(0, 2, (20, 1)).astype(float)


def trained(listener=None, compiled=False, steps=70, seed=0):
    net = dp.Net(4, 5, 2, "tanh", seed=seed)
    sgd = dp.SGD(net, X, Y, batch_size=5, seed=seed, compile=compiled)
    with record(net, sgd, histograms=True, every=2) as recorder:
        if listener is not None:
            recorder.subscribe(listener)
        sgd.train(steps, print_each=None)
        recorder.n_steps  # noqa: B018  (what waits is measured)
    return net, recorder


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["one", "two"])
def test_every_step_is_told_once_and_in_order(compiled, seed):
    told = []
    _, recorder = trained(told.append, compiled, seed=seed)
    trace = recorder.trace
    assert all(isinstance(event, StepRecorded) for event in told)
    assert [event.step for event in told] == trace["step"].values.tolist() == [*range(1, 71, 2)]
    assert {event.layers for event in told} == {("h1", "h2", "out")}
    for i, event in enumerate(told):
        assert event.loss == pytest.approx(trace["loss"].values[i].mean())
        assert event.accuracy == pytest.approx(trace["accuracy"].values[i].mean())
        for name, values in event.quantities.items():
            np.testing.assert_array_equal(values, trace[name].values[i])
            assert not values.flags.writeable
    assert "delta_rms" in told[0].quantities


def test_what_is_missing_is_told():
    class Softmax(dp.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = self.Linear_Layer(4, 5, "a"), self.Linear_Layer(5, 2, "b")

        def forward(self, x):
            return self.b(self.a(x).tanh()).softmax()

        def loss(self, x, y):
            return (self.forward(x) - y).square().sum()

    model, told = Softmax(), []
    with record(model, dp.SGD(model, X, np.eye(2)[Y[:, 0].astype(int)])) as recorder:
        recorder.subscribe(told.append)
        for _ in range(2):
            model.get_grad(X, np.eye(2)[Y[:, 0].astype(int)])
            for value in model.get_param().values():
                value -= 0.01
    trace = recorder.trace
    for i, event in enumerate(told):
        for name in event.quantities:
            missing = trace.status(name).values[i] == State.MISSING
            np.testing.assert_array_equal(event.missing.get(name, np.zeros(2, bool)), missing)
    assert told[0].missing["saturated_fraction"].tolist() == [False, True]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_listener_that_fails_is_told_nothing_more_and_the_training_goes_on(compiled):
    def fails(event):
        told.append(event)
        raise OSError("no page")

    told = []
    with pytest.warns(ListenerWarning, match="no page"):
        net, recorder = trained(fails, compiled)
    assert len(told) == 1
    assert recorder.n_steps == 35
    plain, _ = trained(None, compiled)
    for name, value in plain.get_param().items():
        np.testing.assert_array_equal(net.get_param()[name], value)


def test_scikit_learn_tells_them_too():
    told = []
    net = MLPClassifier((5,), random_state=0)
    with record_sklearn(net) as recorder:
        recorder.subscribe(told.append)
        for _ in range(3):
            net.partial_fit(X, Y[:, 0], classes=[0, 1])
    assert [event.step for event in told] == [1, 2, 3]
    assert told[-1].layers == ("h1", "out")
    assert recorder.trace.attrs["optimizer"] == "AdamOptimizer"
    assert recorder.trace.attrs["learning_rate"] == 0.001


@pytest.mark.parametrize("compiled", [False, True])
def test_a_listener_that_subscribes_another_does_so_once(compiled):
    def again(event):
        told.append(event.step)
        if len(told) == 1:
            recorders[0].subscribe(again)

    told, recorders = [], []
    net = dp.Net(4, 5, 2, "tanh", seed=0)
    sgd = dp.SGD(net, X, Y, batch_size=5, seed=0, compile=compiled)
    with record(net, sgd) as recorder:
        recorders.append(recorder)
        recorder.subscribe(again)
        sgd.train(3, print_each=None)
        assert recorder.n_steps == 3
    assert told == [1, 2, 2, 3, 3]


def test_a_listener_cannot_write_into_what_is_missing():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Mish(), torch.nn.Linear(5, 2))
    told = []
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    with record(net, sgd) as recorder:
        recorder.subscribe(told.append)
        net(torch.ones(3, 4)).square().sum().backward()
        sgd.step()
    mask = told[0].missing["saturated_fraction"]
    assert mask.tolist() == [True, False]
    assert not mask.flags.writeable
