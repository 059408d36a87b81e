"""Models and ways to train them, as students write them, for the tests of recording."""

import random
import threading

import numpy as np

import dp
from gradiometer import record
from gradiometer.data import load
from gradiometer.quantities import PER_LAYER

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


def all_told(trace, recorder):
    """Whatever is NaN has a reason."""
    for name in PER_LAYER:
        values = trace[name].values
        for i, layer in enumerate(trace.layers):
            if np.isnan(values[:, i]).any():
                assert recorder.missing[layer][name], (name, layer)
    for name in ("loss", "accuracy"):
        if np.isnan(trace[name].values).any():
            assert recorder.missing["(model)"][name], name


def one_step(model, rate=RATE):
    grad, _ = model.get_grad(X, Y)
    for name, value in model.get_param().items():
        value -= rate * grad[name]
    return grad
