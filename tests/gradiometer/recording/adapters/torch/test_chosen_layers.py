"""Recording some layers of a PyTorch model."""

import json

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import nn, torch

from gradiometer import record
from gradiometer.quantities import ON_REQUEST, PER_LAYER, PER_STEP

pytestmark = pytest.mark.frameworks
ALL = [*PER_LAYER, *PER_STEP, *ON_REQUEST]


class Branches(nn.Module):
    """Two ways from the first layer to the last."""

    def __init__(self):
        super().__init__()
        self.first, self.left = nn.Linear(4, 6), nn.Linear(6, 6)
        self.right, self.norm, self.last = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 1)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(self.norm(torch.tanh(self.left(x)) + torch.sigmoid(self.right(x))))


def trained(make, layers):
    torch.manual_seed(0)
    net, x = make(), torch.randn(20, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, optimizer, layers=layers, quantities=ALL) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    return recorder.trace


def chain():
    return nn.Sequential(
        *(m for _ in range(4) for m in (nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 1)
    )


@pytest.mark.parametrize(
    ("make", "layers", "above"),
    [
        (chain, ["2", "6", "8"], [-1, 2, -1]),
        (Branches, ["first", "right", "last"], [-1, -1, -1]),
        (Branches, ["norm"], [-1]),
    ],
)
def test_they_are_recorded_as_if_all_were(make, layers, above):
    whole, part = trained(make, None), trained(make, layers)
    assert part.layers == layers
    for name in ALL:
        there = whole[name]
        expected = there.sel(layer=layers) if "layer" in there.dims else there
        np.testing.assert_array_equal(part[name], expected, err_msg=name)
    assert list(part["activation"].values) == list(whole["activation"].sel(layer=layers).values)
    assert json.loads(part.attrs["above"]) == above


def test_unknown_ones_are_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"unknown layer 'middle'.*first, left, right, norm, last"):
        trained(Branches, ["middle"])
