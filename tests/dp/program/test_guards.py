"""A compiled training is the eager one, or is refused: whatever changes, and whatever is looked at.

Each test stands for a way in which a loss, a callback or an optimiser can do something else later
than what was captured.
"""

import itertools
import random
import sys
import types

import numpy as np
import pytest
from tests.dp.cases import refused
from tests.dp.eager import Small, X, Y, alike, same, trained

import dp
from dp import Node
from dp import primitives as p
from dp.net import chain_of, set_chain
from dp.program import reads
from dp.program.guards import Guard
from gradiometer import record

EACH_OPTIMISER = pytest.mark.parametrize(
    "optimiser", [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam]
)


# --- gradients that callbacks change --------------------------------------------------------------


def delete(step):
    del step.grad["a_weight"]


def delete_sometimes(step):
    if step.number in (3, 4, 9):
        step.grad.pop("a_bias")


def clear(step):
    if step.number > 7:
        step.grad.clear()


def replace(step):
    step.grad["a_weight"] = np.full((4, 3), 0.25)


def replace_by_a_number(step):
    step.grad["out_weight"] = 0.125


def replace_by_another_dtype(step):
    step.grad["out_weight"] = step.grad["out_weight"].astype(np.float32)


def replace_by_a_row(step):
    step.grad["a_weight"] = step.grad["a_weight"][:1]


def in_place(step):
    for gradient in step.grad.values():
        np.clip(gradient, -0.01, 0.01, out=gradient)


def of_none(step):
    step.grad["side_weight"] = np.ones((4, 1))
    step.grad["nobody's"] = np.ones((4, 1))


def another_order(step):
    last = step.grad.pop("a_weight")
    step.grad["a_weight"] = last


def another_parameter_array(step):
    if step.number == 5:
        step.param["a_weight"] = step.param["a_weight"] * 0.5


def no_parameter(step):
    if step.number == 5:
        del step.param["a_weight"]


def a_parameter_in_place(step):
    step.param["a_weight"] *= 0.99


class Beside(Small):
    def __init__(self):
        super().__init__()
        self.side = self.Linear_Layer(4, 1, "side")


class Before(dp.Callback):
    def __init__(self, change):
        self.before_update = change


@pytest.mark.parametrize(
    "change",
    [
        delete, delete_sometimes, clear, replace, replace_by_a_number, replace_by_another_dtype,
        replace_by_a_row, in_place, of_none, another_order, another_parameter_array, no_parameter,
        a_parameter_in_place,
    ],
)  # fmt: skip
@EACH_OPTIMISER
def test_gradients_that_a_callback_changes(optimiser, change):
    right = alike(Beside, lambda sgd: [Before(change)], optimiser)
    plain = trained(False, Beside, optimiser=optimiser)
    assert change is another_order or any(
        not np.array_equal(right[0][name], plain[0][name]) for name in plain[0]
    )


# --- what changes between the steps ---------------------------------------------------------------

FACTOR = 1.0
settings_module = types.ModuleType("settings_of_a_student")
settings_module.factor = 1.0
settings_module.nested = types.SimpleNamespace(factor=1.0)


class Config:
    factor = 1.0

    def __init__(self):
        self.own, self.parts, self.by_name = 1.0, [1.0, [1.0]], {"factor": 1.0}
        self.row, self.large = np.ones((1, 1)), np.ones((500, 1))
        self.node = Node(1.0)

    @property
    def doubled(self):
        return 2.0 * self.own


class Slotted:
    __slots__ = ("factor",)

    def __init__(self):
        self.factor = 1.0


CONFIG, SLOTTED = Config(), Slotted()


def by_default(x, factor=1.0):
    return x * factor


def make_closure():
    factor = 1.0

    def scaled(x):
        return x * factor

    def change():
        nonlocal factor
        factor = 0.25

    return scaled, change


scaled, change_closure = make_closure()


def set_global():
    global FACTOR
    FACTOR = 0.25


def error(m, x, y):
    return (m.forward(x) - y).square().mean()


CHANGES = {
    "attribute": (lambda m, x, y: error(m, x, y) * m.c, lambda m: setattr(m, "c", 0.25)),
    "class": (lambda m, x, y: error(m, x, y) * Config.factor,
              lambda m: setattr(Config, "factor", 0.25)),
    "hides the class's": (lambda m, x, y: error(m, x, y) * CONFIG.factor,
                          lambda m: setattr(CONFIG, "factor", 0.25)),
    "of an object": (lambda m, x, y: error(m, x, y) * CONFIG.own,
                     lambda m: setattr(CONFIG, "own", 0.25)),
    "property": (lambda m, x, y: error(m, x, y) * CONFIG.doubled,
                 lambda m: setattr(CONFIG, "own", 0.25)),
    "slot": (lambda m, x, y: error(m, x, y) * SLOTTED.factor,
             lambda m: setattr(SLOTTED, "factor", 0.25)),
    "list": (lambda m, x, y: error(m, x, y) * CONFIG.parts[0],
             lambda m: CONFIG.parts.__setitem__(0, 0.25)),
    "list in a list": (lambda m, x, y: error(m, x, y) * CONFIG.parts[1][0],
                       lambda m: CONFIG.parts[1].__setitem__(0, 0.25)),
    "dict": (lambda m, x, y: error(m, x, y) * CONFIG.by_name["factor"],
             lambda m: CONFIG.by_name.update(factor=0.25)),
    "new key": (lambda m, x, y: error(m, x, y) * CONFIG.by_name.get("other", 1.0),
                lambda m: CONFIG.by_name.update(other=0.25)),
    "array": (lambda m, x, y: error(m, x, y) * CONFIG.row,
              lambda m: CONFIG.row.__imul__(0.25)),
    "large array": (lambda m, x, y: error(m, x, y) * (Node(CONFIG.large).sum() / 500),
                    lambda m: CONFIG.large.__imul__(0.25)),
    "node": (lambda m, x, y: error(m, x, y) * CONFIG.node,
             lambda m: CONFIG.node.value.__imul__(0.25)),
    "global": (lambda m, x, y: error(m, x, y) * FACTOR, lambda m: set_global()),
    "closure": (lambda m, x, y: scaled(error(m, x, y)), lambda m: change_closure()),
    "default": (lambda m, x, y: by_default(error(m, x, y)),
                lambda m: setattr(by_default, "__defaults__", (0.25,))),
    "code": (lambda m, x, y: by_default(error(m, x, y)),
             lambda m: setattr(by_default, "__code__",
                               (lambda x, factor=1.0: x * 0.25).__code__)),
    "module": (lambda m, x, y: error(m, x, y) * settings_module.factor,
               lambda m: setattr(settings_module, "factor", 0.25)),
    "in a module": (lambda m, x, y: error(m, x, y) * settings_module.nested.factor,
                    lambda m: setattr(settings_module.nested, "factor", 0.25)),
    "getattr": (lambda m, x, y: error(m, x, y) * getattr(CONFIG, "o" + "wn"),
                lambda m: setattr(CONFIG, "own", 0.25)),
    "hasattr": (lambda m, x, y: error(m, x, y) * (0.25 if hasattr(m, "later") else 1.0),
                lambda m: setattr(m, "later", True)),
    "vars": (lambda m, x, y: error(m, x, y) * vars(m)["c"], lambda m: setattr(m, "c", 0.25)),
    "method": (lambda m, x, y: error(m, x, y),
               lambda m: setattr(m, "forward", lambda x: m.out(m.a(x)))),
    "loss": (None, lambda m: setattr(m, "loss", lambda x, y: m.forward(x).square().mean())),
    "own loss": (lambda m, x, y: error(m, x, y),
                 lambda m: setattr(m, "own", lambda m, x, y: m.forward(x).square().mean())),
    "activation": (lambda m, x, y: error(m, x, y), lambda m: setattr(m.a, "activation", Node.relu)),
    "layer by name": (lambda m, x, y: (m.out(m.layers["a"](x)) - y).square().mean(),
                      lambda m: setattr(m.a, "activation", Node.relu)),
    "layer": (lambda m, x, y: (m.out(m.a(x)) - y).square().mean(),
              lambda m: setattr(m, "a", m.b)),
    "flag": (lambda m, x, y: error(m, x, y) if m.c else m.out(m.a(x)).square().mean(),
             lambda m: setattr(m, "c", 0)),
    "every step": (lambda m, x, y: error(m, x, y) * m.c, lambda m: setattr(m, "c", m.c * 0.9)),
}  # fmt: skip


class Two(Small):
    def __init__(self, loss):
        super().__init__(loss)
        self.b = self.Linear_Layer(4, 3, "b")


@pytest.fixture
def anew(monkeypatch):
    """What the tests change is put back before each training."""

    def put_back():
        global FACTOR, CONFIG, SLOTTED, scaled, change_closure
        FACTOR, CONFIG, SLOTTED = 1.0, Config(), Slotted()
        Config.factor = settings_module.factor = settings_module.nested.factor = 1.0
        by_default.__defaults__ = (1.0,)
        by_default.__code__ = original
        scaled, change_closure = make_closure()

    original = by_default.__code__
    monkeypatch.setitem(sys.modules, settings_module.__name__, settings_module)
    yield put_back
    put_back()


@pytest.mark.parametrize("optimiser", [dp.SGD, dp.Adam])
@pytest.mark.parametrize("name", CHANGES)
def test_what_a_callback_changes_late(name, optimiser, anew):
    loss, change = CHANGES[name]

    def callbacks(sgd):
        return [
            lambda step: change(sgd.model) if step.number == 9 or name == "every step" else None
        ]

    def make():
        anew()
        return Two(loss)

    right = alike(make, callbacks, optimiser)
    plain = trained(False, make, optimiser=optimiser)
    assert any(not np.allclose(right[0][k], plain[0][k], rtol=1e-6) for k in plain[0])


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "every step"])
def test_a_program_whose_function_has_changed_is_refused(name, anew):
    loss, change = CHANGES[name]
    anew()
    model = Two(loss)
    program, step = dp.capture(model.loss, X, Y), dp.capture(dp.SGD(model, X, Y, batch_size=40))
    program(X, Y)
    change(model)
    if name == "loss":  # the program is of the function that was there
        program(X, Y)
        return
    for again in (program, step):
        with refused(dp.CaptureError, "has changed since .* was captured"):
            again(X, Y)


def test_a_large_array_that_changes_is_noticed_before_the_end():
    large = np.ones((20000, 1))

    def loss(m, x, y):
        return error(m, x, y) * (Node(large).sum() / 20000)

    def callbacks(sgd):
        return [at(9, lambda: large.fill(0.25))]

    with refused(dp.CaptureError, "in step 15, large is not what it was", "after step 7 again"):
        trained(True, lambda: Small(loss), callbacks)


def test_code_without_a_module_is_watched():
    """As `exec` runs it."""
    text = """
class Page(dp.Model):
    factor = 1.0
    def __init__(self):
        super().__init__(seed=0)
        self.a = self.Linear_Layer(4, 1, "a")
    def loss(self, x, y):
        return (self.a(x) - y).square().mean() * self.factor
"""
    space = {"dp": dp}
    exec(text, space)
    page = space["Page"]
    assert page.__module__ == "builtins"

    def make():
        page.factor = 1.0
        return page()

    alike(make, lambda sgd: [at(9, lambda: setattr(page, "factor", 0.25))])


def hidden_of(net):
    return chain_of(net)[:-1]


NET_CHANGES = {
    "reduction": lambda net: setattr(net, "reduction", "mean"),
    "loss": lambda net: setattr(net, "loss_name", "squared_error"),
    "residual": lambda net: setattr(net, "residual", True),
    "activation": lambda net: [
        setattr(layer, "activation", dp.activations.get("relu")) for layer in hidden_of(net)
    ],
    "a layer less": lambda net: set_chain(net, [*chain_of(net)[:-2], chain_of(net)[-1]]),
    "a forward of its own": lambda net: setattr(
        net, "logits", lambda x, like=None: net.layers["out"](x)
    ),
}


@pytest.mark.parametrize("name", NET_CHANGES)
def test_what_a_callback_changes_in_a_net(name):
    def callbacks(sgd):
        return [lambda step: NET_CHANGES[name](sgd.model) if step.number == 9 else None]

    alike(lambda: dp.Net(4, 4, 3, "tanh", seed=0), callbacks, dp.SGD_Momentum)


def at(number, change):
    return lambda step: change() if step.number == number else None


OPTIMISER_CHANGES = {
    "alpha": lambda sgd: setattr(sgd, "alpha", 0.001),
    "beta": lambda sgd: setattr(sgd, "beta", 0.5),
    "batch size": lambda sgd: setattr(sgd, "batch_size", 3),
    "data": lambda sgd: setattr(sgd, "x_train", X[::-1] * 2.0),
    "data in place": lambda sgd: setattr(sgd, "y_train", 1.0 - Y),
    "stores": lambda sgd: setattr(
        sgd, "grad_stores", [{k: np.zeros_like(v) for k, v in s.items()} for s in sgd.grad_stores]
    ),
    "a store": lambda sgd: [s.update(a_weight=np.ones((4, 3))) for s in sgd.grad_stores],
    "stores in place": lambda sgd: [v.fill(0.0) for s in sgd.grad_stores for v in s.values()],
    "update": lambda sgd: setattr(sgd, "_update", lambda param, grad, g, i: param[g].fill(0.5)),
    "batches": lambda sgd: setattr(sgd, "random_batch", lambda: (Node(X[:8]), Node(Y[:8]))),
    "another model": lambda sgd: setattr(sgd, "model", Small(seed=5)),
    "another callback": lambda sgd: sgd.callbacks.append(
        at(11, lambda: sgd.model.get_param()["a_weight"].fill(0.0))
    ),
    "no callback": lambda sgd: sgd.callbacks.pop(),
}


@pytest.mark.parametrize("name", OPTIMISER_CHANGES)
def test_what_a_callback_changes_in_the_optimiser(name):
    def callbacks(sgd):
        return [
            at(9, lambda: OPTIMISER_CHANGES[name](sgd)),
            Before(lambda step: step.grad.pop("out_bias")),
        ]

    alike(Small, callbacks, dp.SGD_Momentum)


class Curriculum(dp.SGD):
    """Its batches change what the loss reads: from another step on, or in each."""

    every = False

    def random_batch(self):
        self.calls = getattr(self, "calls", 0) + 1
        if self.every or self.calls == 9:
            self.model.c = 0.5 / self.calls
        return super().random_batch()


class Each(Curriculum):
    every = True


class Updating(dp.SGD):
    def _update(self, param, grad, g, i):
        super()._update(param, grad, g, i)
        self.model.c = 1.0 if i < 9 else 0.25


class Decaying(dp.Adam):
    """A rate that shrinks whenever it is asked for."""

    asked = 0

    @property
    def alpha(self):
        self.asked += 1
        return 0.1 / self.asked

    @alpha.setter
    def alpha(self, value):
        pass


class Augmenting(dp.SGD_Momentum):
    """Changes the data in place."""

    def _update(self, param, grad, g, i):
        super()._update(param, grad, g, i)
        self.x_train += 0.001


class Alternating(Curriculum):
    """Batches of several shapes, for which there are several programs."""

    def random_batch(self):
        x, y = super().random_batch()
        rows = 3 + self.calls % 3
        return x[:rows], y[:rows]


class Reader(dp.ProgramCallback):
    """Changes the model from a callback that reads buffers."""

    def __init__(self, sgd):
        self.model = sgd.model

    def after_program_update(self, number, step):
        if number == 9:
            self.model.c = 0.25

    def after_update(self, step):
        self.after_program_update(step.number, None)


def test_what_other_code_between_the_steps_changes():
    for optimiser in (Curriculum, Each, Updating, Alternating):
        alike(Small, optimiser=optimiser)
    alike(Small, lambda sgd: [Reader(sgd)], dp.Adam)
    alike(Small, optimiser=Decaying)
    results = []
    for compiled in (False, True):
        model = Small()
        Augmenting(model, X.copy(), Y, seed=0, compile=compiled).train(20, print_each=None)
        results.append(model.get_param())
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-9)


@pytest.mark.parametrize("name", OPTIMISER_CHANGES)
def test_what_changes_just_before_a_batch_of_another_shape(name):
    class Shrinking(dp.SGD_Momentum):
        def random_batch(self):
            self.calls = getattr(self, "calls", 0) + 1
            x, y = super().random_batch()
            return (x[:3], y[:3]) if self.calls >= 10 else (x, y)

    def callbacks(sgd):
        return [
            at(9, lambda: OPTIMISER_CHANGES[name](sgd)),
            Before(lambda step: step.grad.pop("out_bias")),
        ]

    alike(Small, callbacks, Shrinking)


def test_a_reader_behind_a_callback_that_changes_gradients_sees_them_changed():
    class Norms(dp.ProgramCallback):
        def __init__(self):
            self.seen = []

        def before_update(self, step):
            self.seen.append(np.abs(step.grad["a_weight"]).max())

        def before_program_update(self, number, step):
            self.seen.append(np.abs(step.gradients["a_weight"]).max())

    norms = [Norms(), Norms()]
    for compiled, one in zip((False, True), norms, strict=True):
        trained(compiled, Small, lambda sgd, one=one: [Before(in_place), one])
    np.testing.assert_allclose(norms[0].seen, norms[1].seen)
    assert max(norms[0].seen) <= 0.01


# --- what is looked at ----------------------------------------------------------------------------


def rare_branch(m, x, y):
    loss = error(m, x, y)
    return loss * 0.1 if x.value[0, 0] > 50.0 else loss


def rare_branch_on_a_parameter(m, x, y):
    return error(m, x, y) * (0.1 if abs(m.a.weight.value).max() > 50.0 else 1.0)


def rare_branch_on_get_param(m, x, y):
    return error(m, x, y) * (0.1 if abs(m.get_param()["a_weight"]).max() > 50.0 else 1.0)


def rare_branch_in_no_grad(m, x, y):
    with dp.no_grad():
        big = m.a(x) > 50.0
    return error(m, x, y) + big.sum()


def rare_branch_on_a_result(m, x, y):
    h = m.a(x)
    return (m.out(h if np.isfinite(h.value).all() else h * 0.0) - y).square().mean()


def printed(m, x, y):
    loss = error(m, x, y)
    print(loss)
    return loss


def kept_in_a_list(m, x, y, kept=[]):  # noqa: B006
    loss = error(m, x, y)
    kept.append(loss.value)
    return loss


def set_value(m, x, y):
    h = m.a(x)
    h.value = h.value.clip(-50.0, 50.0)
    return (m.out(h) - y).square().mean()


def swallowed(m, x, y):
    loss = error(m, x, y)
    try:
        return loss * 0.1 if loss > 50.0 else loss
    except Exception:
        return loss


def comprehension(m, x, y):
    return error(m, x, y) * (0.5 if any(v > 50.0 for v in x.value.flat) else 1.0)


LOOKS = {
    rare_branch: "the numbers of a Node of shape .* were looked at in .*, line .*x.value",
    rare_branch_on_a_parameter: "a Node 'a_weight' of shape 4×3 were looked at",
    rare_branch_on_get_param: "were looked at in .*: return error.*get_param",
    rare_branch_in_no_grad: "computed within no_grad in .*: big = m.a",
    rare_branch_on_a_result: "a Node from affine of shape .*np.isfinite",
    printed: r"were looked at in .*print\(loss\)",
    kept_in_a_list: r"kept.append\(loss.value\)",
    set_value: "were looked at",
    swallowed: "the truth of .* was asked for|looked at",
    comprehension: "x.value.flat",
}


@pytest.mark.parametrize("loss", LOOKS, ids=lambda loss: loss.__name__)
def test_losses_that_read_numbers_are_refused(loss, capsys):
    with refused(dp.CaptureError, LOOKS[loss]):
        dp.capture(Small(loss).loss, X, Y)
    with refused(dp.CaptureError, LOOKS[loss]):
        trained(True, lambda: Small(loss))
    assert isinstance(Node.__dict__["value"], types.MemberDescriptorType)
    assert not reads._ACTIVE


ANSWERS = {
    "argmax": lambda x: x.argmax() > 1000,
    "item": lambda x: x.sum().item() > 1000.0,
    "tolist": lambda x: x.tolist()[0][0] > 1000.0,
    "any": lambda x: (x > 1000.0).any(),
    "all": lambda x: (x > 1000.0).all(),
    "int": lambda x: int(x.sum()) > 1000,
    "round": lambda x: round(x.sum(), 2) > 1000.0,
    "format": lambda x: f"{x.sum():.2f}" == "1000.00",
    "str": lambda x: str(x) == "1000",
    "in": lambda x: 1000.0 in x,
    "numbers in a list": lambda x: max(x[:, 0].tolist()) > [1000.0],
    "mask": lambda x: x[x > 1000.0].shape[0] > 0,
    "astype": lambda x: x.astype(int).max() > 1000,
}


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_decisions_by_what_a_node_answers_are_refused(name, swallowed):
    def decides(x):
        try:
            return bool(ANSWERS[name](x))
        except dp.CaptureError:
            if swallowed:
                return False
            raise

    with refused(dp.CaptureError, "was asked for|were looked at"):
        trained(True, lambda: Small(lambda m, x, y: error(m, x, y) * (0.1 if decides(x) else 1.0)))


def shapes(m, x, y):
    rows, (columns, size) = x.value.shape[0], (x.value.ndim, x.value.size)
    if y.value.dtype != np.float64:
        raise TypeError
    return (m.forward(x) - y).square().sum() / (rows * columns * size / x.shape[1])


def labels(m, x, y):
    return dp.binary_cross_entropy(m.forward(x), y)


MASK = Node(np.array([[1.0, 0.0, 1.0, 1.0]]))


def a_constant(m, x, y):
    return error(m, x * MASK, y) * (2.0 if MASK.value[0, 1] == 0.0 else 1.0)


def stash(m, x, y):
    m.hidden = m.a(x)
    m.all = {"hidden": [m.hidden]}
    return (m.out(m.hidden.tanh()) - y).square().mean() + m.all["hidden"][0].sum() * 0.01


def cached(m, x, y, cache={}):  # noqa: B006
    if x.shape not in cache:
        cache[x.shape] = np.linspace(0.0, 1.0, x.shape[0])[:, None]
    return ((m.forward(x) - y).square() * cache[x.shape]).mean()


@pytest.mark.parametrize("loss", [shapes, labels, a_constant, stash, cached])
def test_what_looks_like_it_but_is_harmless(loss):
    alike(lambda: Small(loss), optimiser=dp.Adam, steps=40)


def test_labels_that_a_loss_of_the_librarys_own_would_refuse_later():
    y = Y.copy()
    y[7] = 0.5
    for compiled, callbacks in ((False, ()), (True, ()), (True, [lambda step: None])):
        sgd = dp.SGD(Small(labels), X, y, batch_size=4, seed=0, compile=compiled)
        sgd.callbacks = list(callbacks)
        with refused(ValueError, "labels of the binary cross-entropy must be 0 or 1, got 0.5"):
            sgd.train(100, print_each=None)


# --- what a function remembers, or draws ----------------------------------------------------------


def counting(m, x, y):
    m.calls = getattr(m, "calls", 0) + 1
    return error(m, x, y) * (0.1 if m.calls > 50 else 1.0)


def counting_in_a_list(m, x, y, calls=[]):  # noqa: B006
    calls.append(1)
    return error(m, x, y) * (0.1 if len(calls) > 50 else 1.0)


def running_mean(m, x, y):
    m.mean = m.mean * 0.9 + m.a(x).mean() * 0.1 if hasattr(m, "mean") else Node(0.0)
    return error(m, x, y)


def normal(m, x, y):
    return error(m, x, y) * (0.1 if np.random.normal() > 50.0 else 1.0)


def python_random(m, x, y):
    return error(m, x, y) * (0.1 if random.random() > 2.0 else 1.0)


GENERATOR, OLD, OWN = np.random.default_rng(0), np.random.RandomState(0), random.Random(0)
CYCLE = itertools.cycle([1.0] * 50 + [0.5])


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (counting, "changes self.calls when it is called"),
        (counting_in_a_list, "changes .* when it is called"),
        (running_mean, "changes self.mean when it is called|differ"),
        (normal, "draws random numbers"),
        (python_random, "draws random numbers from random"),
        (lambda m, x, y: error(m, x, y) * (GENERATOR.random() < 2.0), "draws .* from GENERATOR"),
        (lambda m, x, y: error(m, x, y) * (OLD.rand() < 2.0), "draws random numbers from OLD"),
        (lambda m, x, y: error(m, x, y) * (OWN.random() < 2.0), "draws random numbers from OWN"),
        (lambda m, x, y: error(m, x, y) * next(CYCLE), "CYCLE, an iterator"),
    ],
)
def test_what_a_function_remembers_or_draws_is_refused(loss, words):
    with refused(dp.CaptureError, words):
        trained(True, lambda: Small(loss))


def test_a_parameters_live_array_as_a_constant_is_refused():
    class Detached(Small):
        def __init__(self, how):
            super().__init__()
            self.w, self.how = self.a.weight.value, how

        def loss(self, x, y):
            return (self.out(x @ self.how(self.w)) - y).square().mean()

    for how in (lambda w: w, lambda w: w * 0.5, lambda w: Node(w)):
        with refused(dp.CaptureError, "is the array of the parameter 'a_weight'|differs"):
            trained(True, lambda how=how: Detached(how))


# --- what no guard can see ------------------------------------------------------------------------


@pytest.fixture
def hidden_state(monkeypatch):
    """Pretend that a module is an installed library: nobody looks into it."""
    module = types.ModuleType("a_library")
    module.__file__ = "/site-packages/a_library.py"
    module.factor = 1.0
    exec(
        compile("def scale(x):\n    return x * factor\n", module.__file__, "exec"), module.__dict__
    )
    monkeypatch.setitem(sys.modules, "a_library", module)
    return module


class Late(dp.ProgramCallback):
    only_reads = True  # or so it says

    def __init__(self, number, module):
        self.number, self.module = number, module

    def after_program_update(self, number, step):
        if number == self.number:
            self.module.factor = 0.5


@pytest.mark.parametrize(
    ("when", "noticed", "back"), [(9, 16, 7), (17, 30, 15), (29, 30, 15), (1, 2, 0)]
)
def test_a_change_that_no_guard_sees_is_noticed_before_the_end(when, noticed, back, hidden_state):
    library = hidden_state

    def make():
        return Small(lambda m, x, y: library.scale(error(m, x, y)))

    model, twin = make(), make()
    sgd = dp.Adam(model, X, Y, {"alpha": 0.05}, 8, seed=0, compile=True)
    sgd.callbacks = [Late(when, library)]
    with (
        record(model, sgd) as recorder,
        refused(
            dp.CaptureError,
            f"in step {noticed} the model gives another",
            f"after step {back} again",
        ),
    ):
        sgd.train(30, print_each=None)
    assert recorder.n_steps == back
    library.factor = 1.0
    if back:
        other = dp.Adam(twin, X, Y, {"alpha": 0.05}, 8, seed=0)
        other.train(back, print_each=None)
        same((model.get_param(), sgd.grad_stores, 0), (twin.get_param(), other.grad_stores, 0))
        assert list(recorder.trace["step"].values) == list(range(1, back + 1))


def test_the_last_step_is_compared_too(hidden_state):
    library = hidden_state
    sgd = dp.SGD(
        Small(lambda m, x, y: error(m, x, y) + (library.factor - 1.0)), X, Y, seed=0, compile=True
    )
    sgd.callbacks = [Late(20, library)]
    with refused(dp.CaptureError, "in step 21 the model gives another loss than its program"):
        sgd.train(21, print_each=None)


# --- recording ------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_a_record_that_goes_on_eagerly(every):
    traces = []
    for compiled in (False, True):
        model = Small()
        sgd = dp.SGD(model, X, Y, {"alpha": 0.05}, 8, seed=0, compile=compiled)
        sgd.callbacks = [at(9, lambda model=model: setattr(model, "c", 0.25))]
        with record(model, sgd, every=every) as recorder:
            sgd.train(20, print_each=None)
        traces.append(recorder.trace.dataset)
    assert list(traces[1]["step"].values) == list(range(1, 21, every))
    for name in traces[0]:
        np.testing.assert_allclose(traces[1][name], traces[0][name], rtol=1e-9, atol=1e-12)


# --- operations of one's own ----------------------------------------------------------------------


def test_the_kernel_of_an_own_operation_is_watched():
    strength = [1.0]
    kernel = p.Primitive(
        "own_scale", lambda x: x * strength[0], (lambda g, y, x: g * strength[0],), True
    )
    p.TABLE[kernel.name] = kernel
    try:

        def callbacks(sgd):
            return [at(9, lambda: strength.__setitem__(0, 0.25))]

        def make():
            strength[0] = 1.0
            return Small(lambda m, x, y: (m.out(kernel(m.a(x))) - y).square().mean())

        alike(make, callbacks)
    finally:
        del p.TABLE[kernel.name]


def test_a_guard_is_cheap():
    """It compares references: no more of them than the model has attributes that the loss names."""
    guard = Guard(dp.Net(4, 10, 10, "sigmoid", seed=0).loss)
    assert len(guard._checks) < 120
    assert not guard._large
    assert guard.changed() == ""
