"""Capturing and training in one thread is invisible to another, and two at once do not mix."""

import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.dp.cases import refused
from tests.dp.eager import Small, X, Y, trained

import dp
from dp import Node
from dp.mode import Mode, mode
from dp.program import reads


@pytest.fixture
def often():
    """Let threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


class Meeting:
    """Stops a function in one thread while another one looks around."""

    def __init__(self):
        self.inside, self.go_on = threading.Event(), threading.Event()

    def wait(self):
        self.inside.set()
        assert self.go_on.wait(20)


@pytest.fixture
def library(monkeypatch):
    """A module that counts as an installed library: a guard does not look into it."""
    module = types.ModuleType("a_library")
    module.__file__ = "/site-packages/a_library.py"
    exec(compile("def pause():\n    hook()\n", module.__file__, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "a_library", module)
    return module


@pytest.mark.parametrize("run", [1, 2, 3])
def test_what_another_thread_sees_while_one_captures(run, library):
    """In each of the three runs of a function that is captured."""
    meeting, calls = Meeting(), []

    def hook():
        if threading.current_thread() is not threading.main_thread():
            calls.append(1)
            if len(calls) == run:
                meeting.wait()

    library.hook = hook

    def loss(m, x, y):
        library.pause()
        return (m.forward(x) - y).square().mean()

    model = Small(loss)
    before = {name: value.copy() for name, value in model.get_param().items()}
    with ThreadPoolExecutor(1) as pool:
        capturing = pool.submit(dp.capture, model.loss, X, Y)
        assert meeting.inside.wait(20)
        try:
            assert mode() == Mode()
            assert reads._WATCHING.get() is None
            # the very model that is captured, and Nodes of one's own
            for name, value in model.get_param().items():
                np.testing.assert_array_equal(value, before[name])
                assert model.parameters[name].value is value
            x = Node([[2.0]], "x")
            assert float(x.square()) == 4.0
            assert x > 1.0
            x.value = np.array([[3.0]])
            np.testing.assert_array_equal(x.square().grad()["x"], [[6.0]])
            with dp.watch_layers() as watch:
                model.get_grad(X, Y)
            assert [call.name for call in watch.calls] == ["a", "out"]
            found, right = (trained(compiled) for compiled in (True, False))
            for name in right[0]:
                np.testing.assert_allclose(found[0][name], right[0][name], rtol=1e-9)
        finally:
            meeting.go_on.set()
        program = capturing.result(20)
    gradients, loss = program(X, Y)
    right, value = model.get_grad(X, Y)
    np.testing.assert_allclose(loss, value.value, rtol=1e-12)
    for name in right:
        np.testing.assert_allclose(gradients[name], right[name], rtol=1e-9, atol=1e-12)
    assert isinstance(Node.__dict__["value"], types.MemberDescriptorType)


def looking(m, x, y):
    return m.forward(x).square().mean() * (0.5 if x.value.max() > 100.0 else 1.0)


def test_captures_at_once(often):
    """Each sees its own function's looks, and no other's."""

    def clean(seed):
        model = Small(seed=seed)
        program = dp.capture(model.loss, X, Y)
        right, _ = model.get_grad(X, Y)
        found, _ = program(X, Y)
        for name in right:
            np.testing.assert_allclose(found[name], right[name], rtol=1e-9, atol=1e-12)
        return True

    def wrong(seed):
        with refused(dp.CaptureError, "were looked at"):
            dp.capture(Small(looking, seed=seed).loss, X, Y)
        return True

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit((clean, wrong)[seed % 2], seed) for seed in range(24)]
        assert all(one.result(60) for one in work)
    assert isinstance(Node.__dict__["value"], types.MemberDescriptorType)


def test_trainings_at_once(often):
    kinds = [(dp.SGD, False), (dp.Adam, True), (dp.SGD_Momentum, True), (dp.RMS_Prop, True)]

    def train(seed):
        optimiser, compiled = kinds[seed % 4]
        return trained(compiled, lambda: Small(seed=seed), optimiser=optimiser, steps=70)

    alone = [train(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(train, range(8)))
    for found, right in zip(together, alone, strict=True):
        for name in right[0]:
            np.testing.assert_array_equal(found[0][name], right[0][name])


def test_random_numbers_that_another_thread_draws(often):
    stop = threading.Event()

    def draw():
        while not stop.wait(1e-4):
            np.random.rand()

    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        for seed in range(5):
            dp.capture(Small(seed=seed).loss, X, Y)
        with refused(dp.CaptureError, "draws random numbers"):
            dp.capture(
                Small(lambda m, x, y: m.forward(x).sum() * (np.random.rand() < 2.0)).loss, X, Y
            )
    finally:
        stop.set()
        drawing.join()
