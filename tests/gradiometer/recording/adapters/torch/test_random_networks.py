"""Networks drawn at random: no number is wrong."""

import copy

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import WAYS, F, nn, rms, torch
from torch.utils.checkpoint import checkpoint

from gradiometer import record

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


OF_ONE_PASS = ["grad_rms", "delta_rms", "activation_mean", "activation_std", "dead_fraction"]


class Drawn(nn.Module):
    """Layers in a row, some shared, repeated, frozen, or checkpointed; some are left out later."""

    def __init__(self, seed):
        super().__init__()
        draw = np.random.default_rng(seed)
        self.into, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
        self.layers, self.functions, self.plan = nn.ModuleList(), nn.ModuleDict(), []
        for i in range(draw.integers(1, 6)):
            kind = draw.choice(["linear", "linear", "norm", "batch norm", "again", "shared"])
            if kind != "again" or not i:
                made = {"norm": nn.LayerNorm, "batch norm": nn.BatchNorm1d}.get(kind)
                layer = made(6) if made else nn.Linear(6, 6)
                if kind == "shared" and i and isinstance(self.layers[0], nn.Linear):
                    layer.weight = self.layers[0].weight
                self.layers.append(layer.requires_grad_(bool(draw.random() > 0.2)))
            phi = draw.choice(["relu", "tanh", "sigmoid", "identity"])
            way = draw.choice(["module", "function", "in place"]) if phi != "identity" else "module"
            if way == "module":
                self.functions[str(i)] = copy.deepcopy(WAYS[phi][0])
            after = draw.choice(["", "residual", "added in place", "branch", "checkpoint"])
            j = int(draw.integers(i + 1)) if kind == "again" else len(self.layers) - 1
            self.plan.append((min(j, len(self.layers) - 1), phi, way, after, draw.random() < 0.3))

    def forward(self, x, step, calls=None):
        """With `calls`, of plain code: (name, h, x) of each call of a layer."""

        def through(name, phi, z):
            h = self.get_submodule(name)(z)
            if calls is None:
                return phi(h)
            if h.requires_grad:
                h.retain_grad()
            x = phi(h.clone())
            calls.append((name, h, x.detach().clone()))
            return x

        z = through("into", torch.sin, x)
        for i, (j, phi, way, after, only_first) in enumerate(self.plan):
            if only_first and step >= 2:
                continue
            of = self.functions[str(i)] if way == "module" else WAYS[phi][1]
            of = getattr(torch, f"{phi}_") if way == "in place" else of
            if after == "checkpoint" and calls is None:
                y = checkpoint(through, f"layers.{j}", of, z, use_reentrant=False)
            else:
                y = through(f"layers.{j}", of, z)
            if after == "residual":
                y = y * 1.0 + z
            elif after == "added in place":
                y = y * 2
                y += z
            elif after == "branch":
                y = y * 1.0 + 0.3 * torch.cos(z)
            z = y * 1.5
        return through("out", lambda h: h, z)


@pytest.mark.parametrize("seed", range(20))
def test_networks_drawn_at_random(seed):
    """No number is wrong; some may be missing."""
    draw = np.random.default_rng(seed + 1000)
    torch.manual_seed(seed)
    net = Drawn(seed)
    twin = copy.deepcopy(net)
    sgd, plain = (torch.optim.SGD(n.parameters(), lr=0.05, momentum=0.9) for n in (net, twin))
    parts, clip, to_none, look = draw.integers(1, 3), *(draw.random(3) < 0.5)
    every, expected, known = int(draw.integers(1, 3)), [], 0
    with record(net, sgd, every=every) as recorder:
        for step in range(5):
            batches = [(torch.randn(5, 4), torch.randint(0, 3, (5,))) for _ in range(parts)]
            calls, loss = [], 0.0
            for optimizer, model, kept in ((plain, twin, calls), (sgd, net, None)):
                optimizer.zero_grad(set_to_none=bool(to_none) or model is twin)
                for x, y in batches:
                    if look:
                        model.eval()
                        with torch.no_grad():
                            model(x, step)
                        model.train()
                    part = F.cross_entropy(model(x, step, kept), y)
                    part.backward()
                    loss += part.item() / 2
                if model is twin:
                    named = twin.named_parameters(remove_duplicate=False)
                    gradients = {key: p.grad.clone() for key, p in named if p.grad is not None}
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.05)
                optimizer.step()
            expected.append((loss, gradients, calls))
    np.testing.assert_allclose(recorder["loss"], [loss for loss, *_ in expected[::every]])
    for row, (_, gradients, calls) in enumerate(expected[::every]):
        for i, name in enumerate(info.name for info in recorder.layers):
            mine = [(h, x) for key, h, x in calls if key == name]
            deltas = [h.grad for h, _ in mine if h.grad is not None]
            true = {}
            if f"{name}.weight" in gradients:
                true["grad_rms"] = rms(gradients[f"{name}.weight"])
            if deltas:
                true["delta_rms"] = rms(torch.cat(deltas))
            if mine:
                x = torch.cat([x for _, x in mine]).numpy()
                true |= {"activation_mean": x.mean(), "activation_std": x.std()}
                true["dead_fraction"] = (x == 0).all(axis=0).mean()
            for what in OF_ONE_PASS:
                found = recorder[what][row, i]
                if not np.isnan(found):
                    known += 1
                    np.testing.assert_allclose(
                        found, true[what], rtol=1e-9, atol=1e-12, err_msg=f"{what} of {name}"
                    )
    assert known > 8
