"""The training of a PyTorch model is stopped by a verdict."""

import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import nn, torch

from gradiometer import TrainingStopped, record

pytestmark = pytest.mark.frameworks


def made():
    torch.manual_seed(0)
    layers = [m for _ in range(10) for m in (nn.Linear(10, 10), nn.Sigmoid())]
    net = nn.Sequential(nn.Linear(4, 10), *layers, nn.Linear(10, 2))
    x = torch.randn(64, 4)
    return net, torch.optim.SGD(net.parameters(), lr=0.1), x, (x[:, 0] > 0).long()


def step(net, optimizer, x, y):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()


def test_it_is_stopped_and_its_weights_are_those_of_as_many_steps():
    net, optimizer, x, y = made()
    verdicts = []
    stop = {"stop_on": ["vanishing"], "on_verdict": verdicts.append}
    with record(net, optimizer, **stop) as recorder:
        for _ in range(100):
            step(net, optimizer, x, y)
    assert recorder.n_steps == 20
    assert recorder.stopped.kind == "vanishing"
    assert recorder.stopped in verdicts
    other, again, x, y = made()
    for _ in range(20):
        step(other, again, x, y)
    for mine, expected in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in net.modules())
    step(net, optimizer, x, y)  # goes on as usual


def test_by_hand_it_is_raised():
    net, optimizer, x, y = made()
    recorder = record(net, optimizer, stop_on="vanishing", on_verdict=lambda _: None)

    def train():
        for _ in range(100):
            recorder.before_step()
            step(net, optimizer, x, y)
            recorder.after_step()

    with pytest.raises(TrainingStopped):
        train()
    assert recorder.n_steps == 20


def test_what_is_not_finite_stops_at_once():
    net, optimizer, x, y = made()
    with record(net, optimizer, stop_on="non-finite", on_verdict=lambda _: None) as recorder:
        for i in range(100):
            step(net, optimizer, x * (float("nan") if i == 6 else 1), y)
    assert recorder.n_steps == 7
    assert recorder.trace.attrs["nonfinite_began_in"] == "inputs"
