"""Hooks are where they are needed, beside those of others, and none stays behind."""

import contextlib
import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import (
    F,
    Net,
    nn,
    nothing_is_left,
    same,
    torch,
    train,
)

from gradiometer import record

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


def test_modules_are_watched_only_for_what_needs_them(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    hooks = torch.nn.modules.module._global_forward_hooks

    def watched(*quantities):
        with record(net, sgd, quantities=("grad_rms", *quantities)) as recorder:
            for _ in range(3):
                sgd.zero_grad()
                F.cross_entropy(net(batch[0]), batch[1]).backward()
                sgd.step()
            still = bool(hooks)
        assert nothing_is_left(net)
        return still, list(recorder.trace["layer"].values)

    with_deltas, order = watched("delta_rms")
    assert with_deltas
    assert watched("activation_mean") == (True, order)
    assert watched("update_ratio") == (False, order)  # the first step has shown the order


def test_nothing_stays_behind(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    outputs = []
    with record(net, sgd, reference=batch) as recorder:
        for _ in range(2):
            sgd.zero_grad()
            out = net(batch[0])
            outputs.append(weakref.ref(out))
            F.cross_entropy(out, batch[1]).backward()
            sgd.step()
        assert not nothing_is_left(net)
        held = net(batch[0])  # a pass that never gets a backward pass
        outputs.append(weakref.ref(held))
    assert nothing_is_left(net)
    assert not held.grad_fn.metadata
    references = [weakref.ref(net), *map(weakref.ref, net.parameters()), *outputs]
    trace = recorder.trace
    del net, sgd, out, held, recorder
    gc.collect()
    assert [r() for r in references] == [None] * len(references)
    assert trace["loss"].shape == (2,)


def test_without_garbage_collection_a_step_keeps_no_tensor(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    gc.collect()
    gc.disable()
    try:
        with record(net, sgd):
            sgd.zero_grad()
            out = net(batch[0])
            alive = weakref.ref(out)
            F.cross_entropy(out, batch[1]).backward()
            sgd.step()
            del out
            assert alive() is None
    finally:
        gc.enable()


def test_detach_and_attach_again(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    def steps(count):
        for _ in range(count):
            sgd.zero_grad()
            F.cross_entropy(net(batch[0]), batch[1]).backward()
            sgd.step()

    recorder = record(net, sgd)
    recorder.attach()
    steps(2)
    recorder.detach()
    steps(3)
    recorder.detach()  # a second time does no harm
    recorder.attach()
    steps(1)
    with pytest.raises(RuntimeError, match="recording already"):
        recorder.attach()
    recorder.detach()
    assert recorder.trace["step"].values.tolist() == [1, 2, 3]
    torch.manual_seed(0)
    whole = train(Net(nn.ReLU()), batch, steps=6)
    np.testing.assert_allclose(recorder["grad_rms"], whole["grad_rms"][[0, 1, 5]])


def test_two_recorders_at_once_ended_in_any_order(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    one, two = record(net, sgd), record(net, sgd, every=2)
    one.attach()
    two.attach()
    for _ in range(3):
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
    one.detach()
    assert not nothing_is_left(net)
    two.detach()
    assert nothing_is_left(net)
    np.testing.assert_array_equal(one["grad_rms"][::2], two["grad_rms"])


def test_copies_and_pickles_of_a_recorded_model(batch, tmp_path):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd) as recorder:
        copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        torch.save(net, tmp_path / "net.pt")
        loaded = torch.load(tmp_path / "net.pt", weights_only=False)
        for other in (copied, pickled, loaded):  # used beside it, they are not mixed up with it
            F.cross_entropy(other(50 * batch[0]), batch[1]).backward()
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
    torch.manual_seed(0)
    same(train(Net(nn.ReLU()), batch, steps=1), recorder, but=["loss"])
    for other in (copied, pickled, loaded):
        assert nothing_is_left(other)


def test_models_that_are_trained_in_threads_at_once(batch):
    plain = train(Net(nn.ReLU()), batch, steps=40)
    torch.manual_seed(0)
    nets = [Net(nn.ReLU())]
    nets += [copy.deepcopy(nets[0]) for _ in range(3)]
    found = {}

    def run(i):
        found[i] = train(nets[i], batch, steps=40)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for recorder in found.values():
        same(plain, recorder)
        assert recorder.missing == {}
    assert nothing_is_left(nets[0])


@pytest.mark.parametrize("inside", ["nothing", "outer", "inner"])
def test_an_interrupt_leaves_no_mode_behind(batch, inside):
    class Interrupts(nn.Module):
        def forward(self, x):
            with torch.device("cpu") if inside == "inner" else contextlib.nullcontext():
                raise KeyboardInterrupt

    net = nn.Sequential(nn.Linear(4, 6), Interrupts())
    with pytest.raises(KeyboardInterrupt), record(net):  # noqa: SIM117
        with torch.device("cpu") if inside == "outer" else contextlib.nullcontext():
            net(batch[0])
    assert torch.overrides._get_current_function_mode_stack() == []
    assert nothing_is_left(net)


@pytest.mark.parametrize("everywhere", [False, True])
def test_backward_hooks_of_the_user(batch, everywhere):
    """They hand a view of each output on."""
    plain = train(Net(nn.ReLU()), batch)
    torch.manual_seed(0)
    net = Net(nn.ReLU())
    if everywhere:
        handle = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    else:
        handle = net.second.register_full_backward_hook(lambda *_: None)
    x = batch[0].clone().requires_grad_()
    try:
        same(plain, train(net, (x, batch[1])))
    finally:
        handle.remove()


def test_a_function_on_top_of_backward(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    original = torch.autograd.backward
    recorder = record(net, sgd)
    recorder.attach()
    below = torch.autograd.backward
    torch.autograd.backward = lambda *args, **kwargs: below(*args, **kwargs)
    try:
        recorder.detach()
        recorder.attach()
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
        assert np.isfinite(recorder["loss"]).all()
    finally:
        torch.autograd.backward = below
        recorder.detach()
    assert torch.autograd.backward is original


def test_a_recorder_that_is_forgotten_while_it_is_attached(batch):
    net = Net(nn.ReLU())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    record(net, sgd).attach()
    gc.collect()
    assert nothing_is_left(net)
    for _ in range(2):
        sgd.zero_grad()
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        sgd.step()
