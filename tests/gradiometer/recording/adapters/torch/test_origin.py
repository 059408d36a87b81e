"""What began it, where the first value of a PyTorch model came up that is not finite."""

import json

import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import nn, torch

from gradiometer import record

pytestmark = pytest.mark.frameworks


class Exp(nn.Module):
    """An activation function that overflows."""

    def forward(self, x):
        return torch.exp(x)


def began(spoil=None, act=nn.Tanh, x=None, loss=nn.functional.mse_loss, rate=0.1, steps=4):
    """The attributes of a short training, spoilt before it begins."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 10), act(), nn.Linear(10, 10), act(), nn.Linear(10, 1))
    x, y = torch.randn(20, 4) if x is None else x, torch.randn(20, 1)
    if spoil is not None:
        with torch.no_grad():
            spoil(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    with record(net, optimizer) as recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()
    return recorder.trace.attrs


def told(attrs):
    return tuple(attrs.get(f"nonfinite_{name}") for name in ("layer", "began_in", "operation"))


def test_inputs():
    x = torch.ones(20, 4)
    x[3, 1] = torch.inf
    attrs = began(act=nn.ReLU, x=x)
    assert told(attrs) == ("0", "inputs", None)
    assert json.loads(attrs["nonfinite_shape"]) == [20, 10]
    assert attrs["nonfinite_share"] == attrs["nonfinite_values"] / 200
    assert attrs["nonfinite_nan"] == 0


def test_weights_and_biases():
    assert told(began(lambda net: net[2].weight.fill_(torch.nan))) == ("2", "weights", None)
    assert told(began(lambda net: net[2].bias.fill_(torch.nan))) == ("2", "weights", None)
    # tanh of Inf is 1: only the backward pass shows it
    assert told(began(lambda net: net[2].weight[0].fill_(torch.inf)))[1] == "weights"


def test_the_activation_function_and_the_product():
    assert told(began(lambda net: net[2].weight.mul_(100), Exp)) == ("2", "activation", "exp")

    def large(net):
        net[0].weight.mul_(1e20)
        net[2].weight.mul_(1e20)

    assert told(began(large, nn.ReLU)) == ("2", "activation", "product with the weights")


def test_a_function_that_writes_into_its_operand():
    class Relu(nn.ReLU):
        def __init__(self):
            super().__init__(inplace=True)

    def large(net):
        net[0].weight.mul_(1e20)
        net[2].weight.mul_(1e20)

    layer, origin, operation = told(began(large, Relu))
    assert (layer, origin) == ("2", "activation")
    assert operation in (None, "product with the weights")


def test_the_loss_and_its_derivative():
    attrs = began(loss=lambda p, _: torch.log(p - 100).mean())
    assert told(attrs) == (None, "loss", "loss")
    attrs = began(loss=lambda p, _: torch.sqrt(0 * p).mean())
    assert told(attrs) == ("4", "loss derivative", "derivative of the loss")
    assert attrs["nonfinite_in"] == "delta"


def test_the_update():
    attrs = began(loss=lambda p, _: 1e30 * p.mean(), rate=1e20)
    assert told(attrs)[1:] == ("update", "update")


def test_a_product_in_the_backward_pass():
    def loss(p, _):
        return 1e30 * (p - p.detach()).mean()

    attrs = began(loss=loss, spoil=lambda net: net[4].weight.fill_(1e20))
    assert told(attrs) == ("2", "backward pass", "backward pass")


def test_a_function_between_layers_is_not_blamed_on_the_inputs():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 10), nn.Linear(10, 1)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)) / 0)

    torch.manual_seed(0)
    net, x = Halves(), torch.randn(20, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, optimizer) as recorder:
        net(x).sum().backward()
        optimizer.step()
    assert told(recorder.trace.attrs) == ("second", None, None)
