"""Accuracy on the reference batch, from whatever the model gives."""

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import nn, torch, train

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


@pytest.mark.parametrize("quantities", [None, ["accuracy"], ["accuracy", "grad_rms"]])
@pytest.mark.parametrize(
    "end",
    [
        [nn.Sigmoid()],
        [nn.Sigmoid(), nn.Flatten(0)],
        [],
        [nn.Flatten(0)],
        [nn.Flatten(0), nn.Sigmoid()],
    ],
)
def test_accuracy_of_probabilities_and_of_logits(batch, quantities, end):
    """All are above 0, so that a logit is class 1, and a probability below 0.5 class 0."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1), *end)
    probabilities = any(isinstance(module, nn.Sigmoid) for module in end)
    with torch.no_grad():
        net[2].weight *= 0.01
        net[2].bias[:] = -0.3 if probabilities else 0.3
    y = (batch[1] > 0).double()
    recorder = train(
        net, batch, steps=2, loss=lambda out, _: out.sum() * 0, reference=(batch[0], y),
        quantities=quantities,
    )  # fmt: skip
    share = float((y == (0 if probabilities else 1)).double().mean())
    np.testing.assert_allclose(recorder["accuracy"], share)


@pytest.mark.parametrize("out", [lambda h: h.mean(), lambda h: {"h": h}, lambda h: h[:3]])
def test_outputs_that_have_no_accuracy(batch, out):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            return out(self.layer(x))

    def loss(given, _):
        return (given["h"] if isinstance(given, dict) else given).sum()

    recorder = train(Odd(), batch, loss=loss, reference=(batch[0], batch[1] > 0))
    assert np.isnan(recorder["accuracy"]).all()


def test_a_look_at_the_reference_batch_calls_no_eval(batch):
    class Merges(nn.Linear):
        """As adapters of low rank do."""

        def train(self, mode=True):
            if self.training and not mode:
                self.weight.data += 1
            return super().train(mode)

    net = nn.Sequential(Merges(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    before = net[0].weight.detach().clone()
    sgd = torch.optim.SGD(net.parameters(), lr=0.0)
    train(net, batch, optimizer=sgd, reference=batch)
    assert torch.equal(net[0].weight, before)
    assert all(module.training for module in net.modules())
