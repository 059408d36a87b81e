"""Nets that are trained and recorded, and what plain code finds for them."""

import copy
import os
import sys

import numpy as np
import pytest

import dp
from gradiometer import record
from gradiometer.quantities import PER_LAYER

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

nn = torch.nn
F = nn.functional

X = np.random.default_rng(0).normal(size=(24, 4))
Y = np.random.default_rng(1).integers(0, 3, 24)


def rms(values):
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def found_by_hand(h, x, delta, gradient, before, after, saturated, units=-1):
    """Every quantity of one layer, from its arrays, by the words of their definitions."""
    h, x, delta, gradient, before, after = (
        np.asarray(t.detach()) for t in (h, x, delta, gradient, before, after)
    )
    per_unit = np.moveaxis(x, units, -1).reshape(-1, x.shape[units])
    return {
        "grad_mean_abs": np.mean(np.abs(gradient)),
        "grad_rms": rms(gradient),
        "grad_zero_fraction": np.mean(gradient == 0),
        "clip_factor": 1,
        "delta_rms": rms(delta),
        "activation_mean": np.mean(x),
        "activation_std": np.std(x),
        "saturated_fraction": np.mean(saturated(h)),
        "dead_fraction": np.mean((per_unit == 0).all(axis=0)),
        "weight_rms": rms(before),
        "update_ratio": rms(after - before) / rms(before),
        "nonfinite_count": 0,
    }


def agree(recorder, step, expected, layers=None, rtol=1e-9):
    """Compare a recorded step with quantities by layer."""
    trace = recorder.trace
    for layer, quantities in expected.items():
        if layers is None or layer in layers:
            for name, value in quantities.items():
                np.testing.assert_allclose(
                    trace[name].sel(step=step, layer=layer),
                    value,
                    rtol=rtol,
                    atol=1e-14,
                    err_msg=f"{name} of {layer}, step {step}",
                )


def same(one, other, names=PER_LAYER, rtol=1e-9, but=()):
    """Compare two recorders, or traces."""
    one, other = (getattr(found, "trace", found) for found in (one, other))
    assert list(one["step"].values) == list(other["step"].values)
    for name in (*names, "loss"):
        if name not in but:
            np.testing.assert_allclose(
                one[name].values, other[name].values, rtol=rtol, atol=1e-13, err_msg=name
            )


SLOPES = {
    "sigmoid": lambda h: np.exp(-h) / (1 + np.exp(-h)) ** 2 < 0.0125,
    "tanh": lambda h: 1 - np.tanh(h) ** 2 < 0.05,
    "relu": lambda h: h <= 0,
    "clipped_relu": lambda h: (h <= 0) | (h >= 6),
    "leaky_relu": lambda h: h <= 0,
    "elu": lambda h: (h < 0) & (np.exp(h) < 0.05),
    "selu": lambda h: (h < 0) & (np.exp(h) < 0.05),
    "silu": lambda h: dp.activations.get("silu").saturated(h),
    "gelu": lambda h: dp.activations.get("gelu").saturated(h),
    "softplus": lambda h: 1 / (1 + np.exp(-h)) < 0.05,
    "identity": lambda h: np.zeros(h.shape, bool),
}
WAYS = {
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit],
    "tanh": [nn.Tanh(), torch.tanh, F.tanh, torch.Tensor.tanh],
    "relu": [
        nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.relu_, torch.Tensor.relu,
        lambda h: F.relu(h, inplace=True), lambda h: h.clamp(min=0),
        lambda h: torch.clamp_min(h, 0),
    ],
    "clipped_relu": [nn.ReLU6(), nn.Hardtanh(0, 6), F.relu6, lambda h: h.clamp(0, 6)],
    "leaky_relu": [nn.LeakyReLU(), nn.LeakyReLU(inplace=True), F.leaky_relu],
    "elu": [nn.ELU(), F.elu],
    "selu": [nn.SELU(), F.selu, torch.selu],
    "silu": [nn.SiLU(), F.silu],
    "gelu": [nn.GELU(), F.gelu],
    "softplus": [nn.Softplus(), F.softplus],
    "identity": [nn.Identity(), lambda h: h],
}  # fmt: skip


class Net(nn.Module):
    """Two hidden layers and an output of logits; φ is a module or a function."""

    def __init__(self, phi, width=6):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)
        self.phi = phi

    def forward(self, x):
        return self.last(self.phi(self.second(self.phi(self.first(x)))))


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x):
        return self.head(self.features(x))


NAMES = ["first", "second", "last"]


def step_by_hand(net, x, y, rate, saturated, reduction="mean"):
    """One step of SGD, without gradiometer, on a copy of the net's parameters."""
    w = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    phi = copy.deepcopy(net.phi)
    if isinstance(phi, nn.Module) and getattr(phi, "inplace", False):
        phi.inplace = False
    h, x_of, below = {}, {}, x
    for name in NAMES:
        h[name] = below @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        x_of[name] = below = phi(h[name].clone()) if name != "last" else h[name]
    loss = F.cross_entropy(h["last"], y, reduction=reduction)
    deltas = torch.autograd.grad(loss, list(h.values()), retain_graph=True)
    gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))
    after = {name: w[name] - rate * gradients[name] for name in w}
    return loss.item(), {
        name: found_by_hand(
            h[name], x_of[name], delta, gradients[key := f"{name}.weight"], w[key], after[key],
            saturated if name != "last" else SLOPES["identity"],
        )
        for name, delta in zip(NAMES, deltas, strict=True)
    }  # fmt: skip


def train(net, batch, steps=3, optimizer=None, loop=None, loss=F.cross_entropy, **settings):
    """Train and record; `loop(net, optimizer, batch)` makes one step."""
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=0.1)

    def usual(net, optimizer, batch):
        optimizer.zero_grad()
        loss(net(batch[0]), batch[1]).backward()
        optimizer.step()

    with record(net, optimizer, **settings) as recorder:
        for _ in range(steps):
            (loop or usual)(net, optimizer, batch)
    return recorder


def weights_of(net):
    return [net.first.weight, net.second.weight, net.last.weight]


def clipped(net, optimizer, batch):
    optimizer.zero_grad()
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    seen = [rms(p.grad) if p.grad is not None else np.nan for p in weights_of(net)]
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)
    optimizer.step()
    return seen


def nothing_is_left(net):
    module = torch.nn.modules.module
    optimizer = sys.modules["torch.optim.optimizer"]
    hooks = [
        module._global_forward_hooks, module._global_forward_pre_hooks,
        module._global_forward_hooks_always_called,
        optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks,
        *(m._forward_hooks for m in net.modules()), *(m._backward_hooks for m in net.modules()),
        *(p._backward_hooks or {} for p in net.parameters()),
        *(p._post_accumulate_grad_hooks or {} for p in net.parameters()),
    ]  # fmt: skip
    untouched = torch.autograd.backward.__module__ == "torch.autograd"
    return untouched and not any(hooks)
