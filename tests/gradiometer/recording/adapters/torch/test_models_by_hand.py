"""Models drawn at random from what people write: plain autograd finds the same numbers."""

import copy
import os

import numpy as np
import pytest

from gradiometer import record

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

F = nn.functional
pytestmark = pytest.mark.frameworks

WIDTH = 8


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        torch.sigmoid(h)  # no part of it
        return h**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


def looked_at(h):
    with torch.no_grad():
        torch.sigmoid(h)
    return torch.tanh(h)


def in_halves(h):
    a, b = h.chunk(2, -1)
    return torch.cat([a * torch.sigmoid(b), b], -1)


def same(h):
    return h


# what follows a layer's output h and the block's input z, and φ; None where it must be missing
IDIOMS = {
    "relu": (lambda h, z: torch.relu(h), torch.relu),
    "in place": (lambda h, z: torch.relu_(h), torch.relu),
    "tanh": (lambda h, z: h.tanh(), torch.tanh),
    "looked at": (lambda h, z: looked_at(h), torch.tanh),
    "nothing": (lambda h, z: h, same),
    "periodic": (lambda h, z: torch.sin(h), torch.sin),
    "mish": (lambda h, z: F.mish(h), F.mish),
    "clamp": (lambda h, z: h.clamp(-0.5, 0.5), lambda h: h.clamp(-0.5, 0.5)),
    "viewed": (lambda h, z: F.relu(h.view(-1, 2, 4)).flatten(1), torch.relu),
    "transposed": (lambda h, z: F.relu(h.t()).t(), torch.relu),
    "permuted": (lambda h, z: F.relu(h.view(-1, 2, 4).permute(2, 0, 1)).permute(1, 2, 0).reshape(
        -1, WIDTH), torch.relu),
    "a view in place": (lambda h, z: h.view(-1).relu_().view(-1, WIDTH), torch.relu),
    "residual": (lambda h, z: z + torch.tanh(h), torch.tanh),
    "residual before": (lambda h, z: torch.relu(z + h), same),
    "residual in place": (lambda h, z: torch.relu((z * 1.0).add_(h)), same),
    "checkpointed": (lambda h, z: checkpoint(torch.tanh, h, use_reentrant=False), torch.tanh),
    "product": (lambda h, z: torch.tanh(h @ torch.eye(WIDTH)), same),
    "joined": (lambda h, z: torch.relu(torch.cat([h, z], -1))[:, :WIDTH], same),
    "swish": (lambda h, z: h * torch.sigmoid(h), None),
    "where": (lambda h, z: torch.where(h > 0, h, 0.2 * h), None),
    "masked": (lambda h, z: h * (h > 0), None),
    "maximum": (lambda h, z: torch.maximum(h, torch.zeros_like(h)), None),
    "scaled": (lambda h, z: torch.sin(3 * h), None),
    "gates": (lambda h, z: in_halves(h), None),
    "pooled": (lambda h, z: F.relu(F.avg_pool1d(h, 3, 1, 1)), None),
    "normalised": (lambda h, z: F.relu(F.layer_norm(h, (WIDTH,))), None),
    "a Function": (lambda h, z: Cube.apply(h), None),
    "two": (lambda h, z: torch.relu(h) + 0.1 * torch.tanh(h), None),
    "written to": (lambda h, z: h.index_fill(0, torch.tensor([0]), 0.0), None),
}  # fmt: skip


class Drawn(nn.Module):
    def __init__(self, seed):
        super().__init__()
        draw = np.random.default_rng(seed)
        count = int(draw.integers(2, 6))
        self.layers = nn.ModuleList(
            nn.LayerNorm(WIDTH) if draw.random() < 0.15 else nn.Linear(WIDTH, WIDTH)
            for _ in range(count)
        )
        self.out = nn.Linear(WIDTH, 3)
        self.idioms = [str(draw.choice(list(IDIOMS))) for _ in range(count)]
        for layer in self.layers:
            layer.requires_grad_(bool(draw.random() > 0.15))

    def forward(self, z, calls=None):
        for i, (layer, idiom) in enumerate(zip(self.layers, self.idioms, strict=True)):
            h = layer(z)
            if calls is not None:
                if h.requires_grad:
                    h.retain_grad()
                calls[f"layers.{i}"] = h
                h = h.clone()  # may be written into
            z = IDIOMS[idiom][0](h, z)
        z = self.out(z)
        if calls is not None:
            z.retain_grad()
            calls["out"] = z
        return z


def rms(values):
    return float(values.detach().square().mean().sqrt())


def by_hand(net, x, y, sgd):
    """One step of plain code: layer -> quantity -> number, or None where it must be missing."""
    calls, found = {}, {}
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    sgd.zero_grad()
    F.cross_entropy(net(x, calls), y).backward()
    gradients = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    sgd.step()
    after = dict(net.named_parameters())
    for name, h in calls.items():
        weight = f"{name}.weight"
        phi = same if name == "out" else IDIOMS[net.idioms[int(name[7:])]][1]
        true = found[name] = {"weight_rms": rms(before[weight])}
        change = rms(after[weight] - before[weight])
        true["update_ratio"] = change / true["weight_rms"]
        true["delta_rms"] = None if h.grad is None else rms(h.grad)
        true["grad_rms"] = rms(gradients[weight]) if weight in gradients else None
        moved = None if phi is None else phi(h.detach().clone())
        for quantity, of in {
            "activation_mean": torch.mean,
            "activation_std": lambda v: v.std(correction=0),
            "dead_fraction": lambda v: (v == 0).all(dim=0).double().mean(),
        }.items():
            true[quantity] = None if moved is None else float(of(moved))
    return found


def compare(seed):
    torch.manual_seed(seed)
    net = Drawn(seed)
    twin = copy.deepcopy(net)
    sgd, plain = (
        torch.optim.SGD([p for p in n.parameters() if p.requires_grad], lr=0.05)
        for n in (net, twin)
    )
    batches = [(torch.randn(6, WIDTH), torch.randint(0, 3, (6,))) for _ in range(3)]
    expected = [by_hand(twin, x, y, plain) for x, y in batches]
    with record(net, sgd) as recorder:
        for x, y in batches:
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    for row, layers in enumerate(expected):
        for i, info in enumerate(recorder.layers):
            for name, value in layers[info.name].items():
                where = f"{name} of {info.name} in step {row + 1}: {net.idioms}"
                found = recorder[name][row, i]
                if value is None:
                    assert np.isnan(found), where
                    assert recorder.missing[info.name][name], where
                else:
                    np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-14, err_msg=where)


@pytest.fixture
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("seed", range(12))
def test_models_drawn_at_random(seed):
    compare(seed)


@pytest.mark.long
@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("seed", range(100, 500))
def test_many_models_drawn_at_random(seed):
    compare(seed)
