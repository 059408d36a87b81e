"""An interrupt leaves a whole number of steps: in capture, loop, update and storing back.

Ctrl-C comes between two lines of Python. So a training is run again and again, and is interrupted
before its n-th line, for every n. Afterwards parameters and stores must be those after some whole
number of steps, nothing may be left switched, and training must go on from there.
"""

import contextlib
import sys

import numpy as np
import pytest
from tests.dp.eager import Small, X, Y

import dp
from dp import Node
from dp.mode import Mode, mode
from dp.program import reads, update

STEPS = 4
FILES = ("/dp/", "contextlib.py", "/numpy/")


class Whole(dp.SGD):
    """Every batch is all the data, so that it does not matter which were drawn."""

    def random_batch(self):
        return Node(X), Node(Y)


class Interrupter:
    """Raises KeyboardInterrupt before the n-th line that the library executes; counts them."""

    def __init__(self, at=0):
        self.at, self.count, self.where = at, 0, ""
        self.places = {}  # file and line -> when it was executed

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *error):
        sys.settrace(self.before)

    def _call(self, frame, event, argument):
        file = frame.f_code.co_filename.replace("\\", "/")
        if any(part in file for part in FILES) and "/tests/" not in file:
            return self._line
        return None

    def _line(self, frame, event, argument):
        if event == "line":
            self.count += 1
            place = frame.f_code.co_filename, frame.f_lineno
            self.places.setdefault(place, []).append(self.count)
            if self.count == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._line


def state(model, sgd):
    """Parameters and stores as one vector each."""
    param = np.concatenate([value.ravel() for value in model.get_param().values()])
    stores = [v.ravel() for store in sgd.grad_stores for v in store.values()]
    return param, np.concatenate(stores) if stores else np.zeros(0)


class Nothing(dp.Callback):
    pass


class OwnUpdate(dp.SGD_Momentum):
    def _update(self, param, grad, g, i):
        self.grad_stores[0][g] = self.grad_stores[0][g] * 0.5 + grad[g]
        param[g] = param[g] - self.alpha * self.grad_stores[0][g]


KINDS = {
    "net": (lambda: dp.Net(4, 3, 2, "sigmoid", seed=0), dp.SGD, {}),
    "net, momentum": (lambda: dp.Net(4, 3, 2, "sigmoid", seed=0), dp.SGD_Momentum, {}),
    "net, Adam": (lambda: dp.Net(4, 3, 2, "relu", seed=0), dp.Adam, {}),
    "own": (Small, dp.SGD, {}),
    "own, Adam": (Small, dp.Adam, {}),
    "own update": (Small, OwnUpdate, {}),
    "callbacks": (Small, dp.RMS_Prop, {"callbacks": [Nothing(), lambda step: None]}),
    "pieces": (Small, dp.Adam, {"pieces": 5}),
    "pieces, SGD": (Small, dp.SGD, {"pieces": 5}),
}


@pytest.fixture
def chunk(monkeypatch):
    """Let updates be made in pieces of so many numbers."""
    return lambda size: monkeypatch.setattr(update, "CHUNK", size)


def begun(kind, compiled, whole=False):
    make, optimiser, options = KINDS[kind]
    options = dict(options)
    options.pop("pieces", None)
    model = make()
    if whole:
        optimiser = type("Whole", (Whole, optimiser), {})
    return model, optimiser(model, X, Y, {"alpha": 0.1}, 8, seed=0, compile=compiled, **options)


def states_by_step(kind, compiled):
    """What an uninterrupted training holds after 0, 1, 2, … steps."""
    found = []
    for steps in range(1, STEPS + 1):
        model, sgd = begun(kind, compiled)
        if not found:
            param, _ = state(model, sgd)
            found.append((param, None))
        sgd.train(steps, print_each=None)
        found.append(state(model, sgd))
    found[0] = (found[0][0], np.zeros_like(found[1][1]))
    return found


def whole_step(found, expected, where):
    """Which step a state is that after; fails if it is none."""
    for number, (param, stores) in enumerate(expected):
        alike = np.allclose(found[0], param, rtol=1e-9, atol=1e-12)
        if alike and (not found[1].size or np.allclose(found[1], stores, rtol=1e-9, atol=1e-12)):
            return number
    raise AssertionError(f"interrupted at {where}, the training is after no whole step")


def places_of(kind, compiled):
    """Every line that a training executes -> when."""
    for _ in range(2):  # the second time nothing is loaded, or kept for later, any more
        _, sgd = begun(kind, compiled)
        with Interrupter() as watch:
            sgd.train(STEPS, print_each=None)
    return watch


def check_interrupt(kind, compiled, at, expected):
    """Interrupt before line `at`, and look at what is left."""
    model, sgd = begun(kind, compiled)
    errors, callbacks = np.geterr(), list(sgd.callbacks)
    with contextlib.suppress(KeyboardInterrupt), Interrupter(at) as watch:
        sgd.train(STEPS, print_each=None)
    number = whole_step(state(model, sgd), expected, watch.where)
    assert np.geterr() == errors, watch.where
    assert mode() == Mode(), watch.where
    assert sgd.callbacks == callbacks
    assert reads._WATCHING.get() is None
    assert not reads._ACTIVE, watch.where
    assert not isinstance(Node.__dict__["value"], property), watch.where
    assert all(store.keys() == model.get_param().keys() for store in sgd.grad_stores)
    before = state(model, sgd)[0]
    loss = sgd.train(2, print_each=None)  # goes on
    assert np.isfinite(loss).all()
    assert not np.array_equal(state(model, sgd)[0], before)
    return number


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_before_some_lines(kind, compiled, chunk):
    """A spread of lines, and all of the last, which store the parameters back."""
    chunk(KINDS[kind][2].get("pieces", 1 << 17))
    expected, count = states_by_step(kind, compiled), places_of(kind, compiled).count
    spread = {*range(1, count, max(1, count // 6)), *range(count - 8, count + 1)}
    reached = {check_interrupt(kind, compiled, at, expected) for at in sorted(spread)}
    assert {0, STEPS} <= reached


LOOP = (
    *("/step.py", "/update.py", "/loop.py", "/reads.py", "/runs.py"),
    *("/optimizers.py", "/updates.py", "/batches.py", "/watching.py", "contextlib.py"),
)


@pytest.mark.long
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "kind", ["net, momentum", "own, Adam", "own update", "callbacks", "pieces"]
)
def test_an_interrupt_before_every_line(kind, compiled, chunk):
    """Those of the loop twice, and for one kind of training all others of dp."""
    chunk(KINDS[kind][2].get("pieces", 1 << 17))
    expected, watch = states_by_step(kind, compiled), places_of(kind, compiled)
    reached = set()
    for (file, _), times in watch.places.items():
        if file.endswith(LOOP):
            chosen = {times[0], times[-1]}
        else:
            whole = kind == "own, Adam" and "/dp/" in file
            chosen = {times[-1]} if whole else set()
        reached |= {check_interrupt(kind, compiled, at, expected) for at in chosen}
    assert {0, STEPS} <= reached


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", ["net", "own", "pieces, SGD"])
def test_going_on_after_an_interrupt_gives_the_uninterrupted_numbers(kind, compiled, chunk):
    """Where an optimiser keeps nothing from step to step, and the batches are the same."""
    chunk(KINDS[kind][2].get("pieces", 1 << 17))
    right = []
    for steps in range(STEPS + 1):
        model, sgd = begun(kind, compiled, whole=True)
        if steps:
            sgd.train(steps, print_each=None)
        right.append(state(model, sgd))
    model, sgd = begun(kind, compiled, whole=True)
    with Interrupter() as watch:
        sgd.train(STEPS, print_each=None)
    for at in range(1, watch.count + 1, max(1, watch.count // 25)):
        model, sgd = begun(kind, compiled, whole=True)
        with contextlib.suppress(KeyboardInterrupt), Interrupter(at) as broken:
            sgd.train(STEPS, print_each=None)
        done = whole_step(state(model, sgd), right, broken.where)
        if done < STEPS:
            sgd.train(STEPS - done, print_each=None)
        np.testing.assert_allclose(state(model, sgd)[0], right[-1][0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_update_that_fails_leaves_what_was_there(compiled):
    class Failing(dp.Adam):
        def _update(self, param, grad, g, i):
            super()._update(param, grad, g, i)
            if i == 3 and g == "out_weight":
                raise ZeroDivisionError

    model = Small()
    sgd = Failing(model, X, Y, {"alpha": 0.1}, 8, seed=0, compile=compiled)
    with pytest.raises(ZeroDivisionError):
        sgd.train(9, print_each=None)
    twin = Small()
    right = dp.Adam(twin, X, Y, {"alpha": 0.1}, 8, seed=0)
    right.train(2, print_each=None)
    for found, expected in zip(state(model, sgd), state(twin, right), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_step_made_by_hand_is_made_as_a_whole():
    def lines(at):
        model = Small()
        step = dp.capture(dp.Adam(model, X, Y, {"alpha": 0.1}, 40))
        with contextlib.suppress(KeyboardInterrupt), Interrupter(at) as watch:
            step(X, Y)
        param = np.concatenate([value.ravel() for value in model.get_param().values()])
        return param, watch

    before, after = (lines(at)[0] for at in (1, 0))
    assert not np.allclose(before, after)
    places = lines(0)[1].places  # every line that is executed, when it is for the last time
    for at in sorted({times[-1] for (file, _), times in places.items() if file.endswith(LOOP)}):
        param, watch = lines(at)
        assert np.array_equal(param, before) or np.allclose(param, after), watch.where
