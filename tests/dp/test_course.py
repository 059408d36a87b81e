"""The course's programs, run as they are written: only the course's names."""

import contextlib
import io

import numpy as np
import pytest

import dp
import gradiometer
from gradiometer import data

LESSON = """
import numpy as np
import dp
from dp import Model, Node


class Net(Model):
    def __init__(self):
        super().__init__()
        self.h0 = self.Linear_Layer(4, 10, "h0")
        self.h1 = self.Linear_Layer(10, 1, "h1")

    def forward(self, x):
        if not type(x) == Node:
            x = Node(x)
        x = self.h0(x).tanh()
        out = self.h1(x).sigmoid()
        return out

    def loss(self, x, y):
        if not type(y) == Node:
            y = Node(y)
        p = self.forward(x)
        loss = -1 * (y * p.log() + (1 - y) * (1 - p).log())
        return loss.sum()


class Optimizer:
    def __init__(self, model, x_train=None, y_train=None, hyperparam=dict(), batch_size=128):
        self.model = model
        self.x_train = x_train
        self.y_train = y_train
        self.batch_size = batch_size
        self.hyperparam = hyperparam
        self._set_param()
        self.grad_stores = []

    def random_batch(self):
        picked = np.random.randint(0, self.x_train.shape[0], size=self.batch_size)
        return self.x_train[picked], self.y_train[picked]

    def train(self, steps=1000, print_each=100):
        return self._train(steps, 0, print_each)

    def _train(self, steps, num_grad_stores, print_each):
        param = self.model.get_param()
        self.grad_stores = [
            {name: np.zeros_like(param[name]) for name in param} for _ in range(num_grad_stores)
        ]
        print("iteration\\tloss")
        for i in range(1, steps + 1):
            x, y = self.random_batch()
            grad, loss = self.model.get_grad(x, y)
            if i == 1 or i % print_each == 0:
                print(i, "\\t", loss.value[0, 0])
            for g in grad:
                self._update(param, grad, g, i)
            self.model.set_param(param)
        return loss.value[0, 0]


class SGD(Optimizer):
    def _set_param(self):
        self.alpha = self.hyperparam.get("alpha", 0.001)

    def _update(self, param, grad, g, i):
        param[g] = param[g] - self.alpha * grad[g]


net = Net()
optimiser = SGD(net, x_train=X, y_train=Y)
last = optimiser.train(steps=100, print_each=10)
accuracy = np.mean((net.forward(X).value > 0.5) == Y)
"""


@pytest.fixture(scope="module")
def iris():
    loaded = data.load("iris2")
    assert loaded.x.shape == (100, 4)
    np.testing.assert_allclose(loaded.x.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(loaded.x.std(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(loaded.y, np.repeat([[0], [1]], 50, axis=0))
    return loaded


def run(script, iris):
    names = {"X": iris.x.copy(), "Y": iris.y.copy(), "__name__": "lesson"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(script, "lesson.py", "exec"), names)
    return names, printed.getvalue()


def check_table(printed, last):
    lines = printed.splitlines()
    assert lines[0] == "iteration\tloss"
    rows = [line.split("\t") for line in lines[1:]]
    assert [int(number) for number, _ in rows] == [1, *range(10, 101, 10)]
    losses = [float(loss) for _, loss in rows]
    assert losses[-1] < losses[0]
    assert losses[-1] == last


@pytest.mark.parametrize("seed", range(20))
def test_the_lesson(seed, iris):
    np.random.seed(seed)
    names, printed = run(LESSON, iris)
    assert names["accuracy"] == 1.0
    check_table(printed, names["last"])


OWN = LESSON[: LESSON.index("class Optimizer")]
LIBRARY = (
    OWN
    + """
net = Net()
optimiser = dp.optimizer.SGD(net, X, Y)
last = optimiser.train(steps=100, print_each=10)[0, 0]
accuracy = np.mean((net.forward(X).value > 0.5) == Y)
"""
)


def test_the_lesson_with_the_librarys_optimiser_gives_the_same_numbers(iris):
    np.random.seed(3)
    by_hand, printed_by_hand = run(LESSON, iris)
    np.random.seed(3)
    by_library, printed = run(LIBRARY, iris)
    assert printed == printed_by_hand
    check_table(printed, by_library["last"])
    for name, value in by_hand["net"].get_param().items():
        np.testing.assert_array_equal(by_library["net"].get_param()[name], value)


# --- a student's exercise: record grad_w ----------------------------------------------------------


class Recording_SGD(dp.SGD):
    """A student's solution: the training loop written anew, filling grad_w."""

    def _train(self, steps=1000, num_grad_stores=0, print_each=100):
        param = self.model.get_param()
        layers = [name for name in param if name.endswith("_weight")]
        self.grad_w = np.zeros((len(layers), steps))
        for i in range(1, steps + 1):
            x, y = self.random_batch()
            grad, loss = self.model.get_grad(x, y)
            for row, name in enumerate(layers):
                self.grad_w[row, i - 1] = np.mean(np.abs(grad[name]))
            for g in grad:
                self._update(param, grad, g, i)
            self.model.set_param(param)
        return loss.value


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_students_grad_w_is_what_the_recorder_gives(activation, iris):
    n_layers, n_epochs = 10, 30

    def trained(kind):
        np.random.seed(7)
        net = dp.Net(4, 10, n_layers, activation)
        return net, kind(net, iris.x, iris.y, {"alpha": 0.01}, batch_size=32)

    students_net, student = trained(Recording_SGD)
    student.train(n_epochs)

    net, sgd = trained(dp.SGD)
    with gradiometer.record(net, sgd) as recorder:
        sgd.train(n_epochs, print_each=None)

    assert student.grad_w.shape == (n_layers + 1, n_epochs)
    assert (student.grad_w > 0).all()
    np.testing.assert_array_equal(student.grad_w, recorder.trace.grad_w)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(students_net.get_param()[name], value)


def test_a_reference_batch_and_histograms_change_no_training(iris):
    def losses(**options):
        np.random.seed(1)
        net = dp.Net(4, 5, 3, "relu")
        sgd = dp.SGD(net, iris.x, iris.y, batch_size=16)
        if options:
            with gradiometer.record(net, sgd, **options):
                return sgd.train(10, print_each=None)
        return sgd.train(10, print_each=None)

    alone = losses()
    np.testing.assert_array_equal(losses(every=1), alone)
    np.testing.assert_array_equal(losses(reference=(iris.x, iris.y), histograms=True), alone)


# --- the names the course knows -------------------------------------------------------------------


def test_every_name_of_the_course():
    for name in ("SGD", "SGD_Momentum", "RMS_Prop", "Adam", "Optimizer"):
        assert getattr(dp.optimizer, name) is getattr(dp, name)
    x = dp.Node(np.full((2, 2), 0.5), name="x")
    for attribute in ("value", "shape", "dtype", "name"):
        assert hasattr(x, attribute)
    made = [x.exp(), x.log(), x.square(), x.sqrt(), x.relu(), x.tanh(), x.sigmoid(), x.softmax()]
    made += [x.sum(), x.sum(axis=0), x.sum(axis=1), x.transpose(), x.T, x.dot(x), x @ x, -x]
    made += [x.reshape(1, 4), x.reshape((4, 1)), x.concatenate(x), x.concatenate(x, 1)]
    made += [1 - x, 1 / x, 2 * x, x**2]
    assert all(isinstance(node, dp.Node) for node in made)


class Half_SGD(dp.SGD):
    """Overrides everything but `_train`."""

    def random_batch(self):
        return self.x_train[: self.batch_size], self.y_train[: self.batch_size]

    def _set_param(self):
        self.step = self.hyperparam.get("step", 0.5)

    def _update(self, param, grad, g, i):
        param[g] = param[g] - self.step * grad[g]


def test_each_method_of_the_optimiser_may_be_overridden(iris):
    net = dp.Net(4, 3, 1, "tanh", seed=0)
    before = {name: value.copy() for name, value in net.get_param().items()}
    live = net.get_param()
    grad, _ = net.get_grad(iris.x[:8], iris.y[:8])
    Half_SGD(net, iris.x, iris.y, {"step": 0.1}, 8).train(1, print_each=None)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(value, before[name] - 0.1 * grad[name])
        assert value is live[name]


class Course_Batches(dp.SGD):
    """Its batches are plain arrays, as the course's own optimiser gives them."""

    def random_batch(self):
        rows = np.random.randint(0, self.x_train.shape[0], size=self.batch_size)
        return self.x_train[rows], self.y_train[rows]


def test_batches_that_are_plain_arrays_are_recorded(iris):
    net = dp.Net(4, 3, 2, "tanh", seed=0)
    sgd = Course_Batches(net, iris.x, iris.y, batch_size=16)
    with gradiometer.record(net, sgd) as recorder:
        sgd.train(3, print_each=None)
    assert recorder.trace.grad_w.shape == (3, 3)


def test_a_net_of_configurable_depth_may_keep_its_layers_as_it_likes(iris):
    class Deep(dp.Model):
        def __init__(self, n_layers):
            super().__init__(seed=0)
            self.layers = []
            width = 4
            for i in range(n_layers):
                self.layers.append(self.Linear_Layer(width, 6, f"h{i}"))
                width = 6
            self.out = self.Linear_Layer(width, 1, "out")

        def forward(self, x):
            for layer in self.layers:
                x = layer(x).tanh()
            return self.out(x).sigmoid()

        def loss(self, x, y):
            return dp.squared_error(self.forward(x), y)

    net = Deep(3)
    with gradiometer.record(net, sgd := dp.SGD(net, iris.x, iris.y, seed=0)) as recorder:
        sgd.train(2, print_each=None)
    assert recorder.trace.grad_w.shape == (4, 2)


class Own_Init(dp.SGD):
    def __init__(self, model, x_train, y_train, alpha):
        self.model, self.x_train, self.y_train = model, x_train, y_train
        self.hyperparam = {"alpha": alpha}
        self._set_param()


def test_an_optimiser_with_its_own_init_trains(iris):
    net = dp.Net(4, 3, 1, "tanh", seed=0)
    first = Own_Init(net, iris.x, iris.y, 0.01).train(1, print_each=None)
    assert Own_Init(net, iris.x, iris.y, 0.01).train(50, print_each=None) < first


def test_a_named_input_is_not_a_parameter(iris):
    class Named(dp.Net):
        def loss(self, x, y):
            return super().loss(dp.Node(x.value, name="x"), y)

    net = Named(4, 3, 1, "tanh", seed=0)
    assert "x" in net.get_grad(dp.Node(iris.x), iris.y)[0]
    dp.SGD(net, iris.x, iris.y, seed=0).train(2, print_each=None)


def test_a_callback_may_set_parameters_whatever_the_update_does(iris):
    net = dp.Net(4, 3, 1, "tanh", seed=0)

    def zero(step):
        net.set_param({name: np.zeros_like(value) for name, value in step.param.items()})

    Half_SGD(net, iris.x, iris.y, batch_size=8, callbacks=[zero]).train(3, print_each=None)
    for value in net.get_param().values():
        np.testing.assert_array_equal(value, 0.0)
