"""The delta at every place between two layers; plain code computes the same derivatives."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gradiometer.recording.adapters.torch.torch_nets import F, nn, rms, torch

from gradiometer import record
from gradiometer.decomposition import GAIN, NEEDED, TERMS, decompose

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]

PHI = {
    "relu": F.relu,
    "relu_": F.relu_,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "leaky_relu": F.leaky_relu,
}
FIRST, LAST = 4, 3


class Net(nn.Module):
    """Layers x -> φ(norm(x W + b)), plus x where there is a skip; keeps what it computes."""

    def __init__(self, phi, depth, width, norm, skip, scale=1.0, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        sizes = [FIRST, *[width] * depth]
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.norms = nn.ModuleList([NORMS[norm](width) for _ in range(depth)])
        self.out = nn.Linear(width, LAST)
        self.phi, self.skip, self.kept = PHI[phi], skip, []
        with torch.no_grad():
            for layer in self.layers:
                layer.weight *= scale

    def forward(self, x):
        self.kept = []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            affine = layer(x)
            h = norm(affine)
            out = self.phi(h)
            self.kept.append((affine, h, out))
            x = x + out if self.skip and i else out
        return self.out(x)


NORMS = {
    "none": lambda _: nn.Identity(),
    "batch": lambda width: nn.BatchNorm1d(width, affine=False),
    "layer": lambda width: nn.LayerNorm(width, elementwise_affine=False),
}


def batch(rows=10):
    torch.manual_seed(7)
    return torch.randn(rows, FIRST), torch.randint(0, LAST, (rows,))


def trained(net, x, y, steps=2, loss=F.cross_entropy, quantities=(*NEEDED, "loss")):
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd, quantities=quantities) as recorder:
        for _ in range(steps):
            sgd.zero_grad()
            loss(net(x), y).backward()
            sgd.step()
    return recorder.trace


def by_hand(net, x, y):
    """The terms of every layer but the last."""
    if net.phi is F.relu_:  # what it overwrites is wanted here
        net.phi = F.relu
    loss = F.cross_entropy(net(x), y)
    weights = [*(layer.weight for layer in net.layers), net.out.weight]
    found = []
    for i, (affine, h, out) in enumerate(net.kept):
        if i + 1 < len(net.kept):
            of_above = torch.autograd.grad(loss, net.kept[i + 1][0], retain_graph=True)[0]
        else:
            of_above = None
        at_affine, delta, arriving = torch.autograd.grad(loss, [affine, h, out], retain_graph=True)
        live = ~((out == 0).all(0) & (delta == 0).all(0))
        found.append((of_above, weights[i + 1], arriving, arriving * live, delta, at_affine))
    logits = net(x)
    of_logits = torch.autograd.grad(F.cross_entropy(logits, y), logits)[0]
    terms = []
    for of_above, weight, arriving, of_live, delta, at_affine in found:
        above = of_logits if of_above is None else of_above
        places = [above, above @ weight, arriving, of_live, delta, at_affine]
        terms.append(np.diff(np.log10([rms(place.detach()) for place in places])))
    return np.array(terms)


def total(parts):
    every = parts[[*TERMS]].to_array("term")
    return every.sum("term", skipna=True).where(parts["slope"].notnull())


NETS = st.fixed_dictionaries(
    {
        "phi": st.sampled_from(sorted(PHI)),
        "depth": st.integers(1, 6),
        "width": st.integers(2, 8),
        "norm": st.sampled_from(sorted(NORMS)),
        "skip": st.booleans(),
        "scale": st.sampled_from([0.1, 1.0, 2.0]),
        "seed": st.integers(0, 99),
    }
)


@settings(max_examples=25, deadline=None)
@given(NETS)
def test_the_terms_are_what_they_are_called(options):
    net = Net(**options)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = by_hand(copy.deepcopy(net), *batch())
    trace = trained(net, *batch())
    parts = decompose(trace)
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)
    known = parts["slope"].notnull().values[0, :-1]
    assert (known == np.isfinite(expected[:, [0, 1, 2, 3]]).all(axis=1)).all()
    for i, term in enumerate(TERMS):
        values = parts[term].values[0, :-1]
        right = np.where(known, expected[:, i], np.nan)
        np.testing.assert_allclose(values, right, atol=1e-9, err_msg=term)
    aligned = parts["alignment"].values
    assert (aligned[np.isfinite(aligned)] <= 1e-9).all()


# --- nets whose cause is known --------------------------------------------------------------------


def sums(parts):
    return {term: float(parts[term].isel(step=0).sum()) for term in TERMS}


def test_a_sigmoid_net_loses_by_its_slope():
    parts = decompose(trained(Net("sigmoid", 6, 16, "none", False), *batch()))
    assert (parts["slope"][:, :-1] <= np.log10(0.25) + 1e-12).all()
    assert min(sums(parts), key=sums(parts).get) == "slope"


def test_a_net_of_small_weights_loses_by_them():
    parts = decompose(trained(Net("tanh", 6, 16, "none", False, scale=0.2), *batch()))
    assert min(sums(parts), key=sums(parts).get) == "weight"


def test_a_dying_net_loses_by_dead_units():
    net = Net("relu", 5, 16, "none", False, scale=2.0)
    for layer in net.layers:
        layer.bias.data[:] = torch.where(torch.arange(16) < 14, -100.0, 1.0)
    parts = decompose(trained(net, *batch()))
    assert min(sums(parts), key=sums(parts).get) == "dead"


# --- layers of other kinds ------------------------------------------------------------------------


def why(parts, layer, term):
    return json.loads(parts.attrs["missing"])[layer][term]


def test_a_normalisation_with_weights_is_a_layer_of_its_own():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    trace = trained(net, *batch())
    assert list(trace.dataset["kind"].values) == ["affine", "normalisation", "affine"]
    parts = decompose(trace)
    ratio = trace["delta_rms"].sel(layer="0") / trace["delta_rms"].sel(layer="1")
    np.testing.assert_allclose(parts["normalisation"][:, 0], np.log10(ratio), atol=1e-9)
    np.testing.assert_allclose(parts["slope"][:, 0], 0, atol=1e-12)
    assert why(parts, "0", "weight") == "'1' is a normalisation"
    assert parts["weight"][:, 1].notnull().all()
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)


def test_what_is_overwritten_is_seen_before():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    twin = copy.deepcopy(net)
    twin[2], twin[4] = nn.ReLU(), nn.ReLU()
    x, y = torch.randn(9, 1, 8, 8), torch.randint(0, 3, (9,))
    one, other = (trained(each, x, y) for each in (net, twin))
    for name in NEEDED:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12, err_msg=name)
    assert decompose(one)["slope"][:, :-1].notnull().all()


def test_a_convolution_has_a_gain_too_and_pooling_is_between():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip
    x, y = torch.randn(9, 1, 8, 8), torch.randint(0, 3, (9,))
    twin = copy.deepcopy(net)
    parts = decompose(trained(net, x, y)).isel(step=0)
    pooled = twin[:3](x).detach().requires_grad_()
    h = twin[3](pooled)
    loss = F.cross_entropy(twin[4:](h), y)
    back, delta = torch.autograd.grad(loss, [pooled, h])
    assert float(parts["weight"][0]) == pytest.approx(np.log10(rms(back) / rms(delta)), abs=1e-9)
    assert float(parts["skip"][0]) == pytest.approx(np.log10(0.5), abs=1e-9)  # 1 of 4 entries
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)
    assert "rows" in why(parts, "0", "alignment")


def test_a_function_of_a_part_has_no_slope_of_its_own():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(4, 8), nn.Linear(4, 3)

        def forward(self, x):
            a, b = self.first(x).chunk(2, -1)
            return self.out(a * torch.sigmoid(b))

    parts = decompose(trained(Gated(), *batch()))
    assert "chunk" in why(parts, "first", "skip")
    assert "part of the slope" in why(parts, "first", "skip")
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)


def test_an_output_that_goes_into_two_functions_has_none():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = self.first(x)
            return self.out(torch.tanh(h) + torch.relu(h))

    parts = decompose(trained(Two(), *batch()))
    assert "several functions" in why(parts, "first", "skip")


def test_branches_do_not_follow_each_other():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            x = torch.tanh(self.first(x))
            weights = torch.softmax(self.query(x) @ self.key(x).mT, -1)
            return self.out(torch.tanh(weights @ self.value(x)))

    trace = trained(Attention(), *batch())
    parts = decompose(trace)
    assert list(parts["above"].values) == ["query", "out", "out", "out", ""]
    np.testing.assert_allclose(total(parts), parts[GAIN], atol=1e-9)
    back = np.log10(trace["backward_rms"] / trace["delta_rms"])
    for branch in ("query", "key", "value"):
        gain = parts["weight"].sel(layer=branch)
        np.testing.assert_allclose(gain, back.sel(layer="out"), atol=1e-9)


def test_a_layer_called_twice_is_one_batch():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.tanh(self.first(x))
            return self.out(torch.tanh(self.again(torch.tanh(self.again(x)))))

    trace = trained(Twice(), *batch(rows=10))
    assert (trace["rows"].sel(layer="again") == 20).all()
    assert (trace["rows"].sel(layer="first") == 10).all()
    assert np.isfinite(trace["arriving_live_rms"]).all()
    np.testing.assert_allclose(total(decompose(trace)), decompose(trace)[GAIN], atol=1e-9)


def test_the_factor_of_a_scaler_is_taken_out():
    net = Net("relu", 3, 6, "batch", True)
    plain = trained(copy.deepcopy(net), *batch(), steps=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd, quantities=[*NEEDED, "loss"]) as recorder:
        scaler.scale(F.cross_entropy(net(batch()[0]), batch()[1])).backward()
        scaler.step(sgd)
    for name in NEEDED:
        np.testing.assert_allclose(recorder.trace[name], plain[name], rtol=1e-9, err_msg=name)


def test_gradients_that_were_thrown_away_leave_nothing():
    net = Net("relu", 3, 6, "batch", True)
    plain = trained(copy.deepcopy(net), *batch(), steps=1)
    x, y = batch()
    for norm in net.norms:
        norm.track_running_stats = False
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd, quantities=[*NEEDED, "loss"]) as recorder:
        F.cross_entropy(net(100 * x), y).backward()
        sgd.zero_grad()
        F.cross_entropy(net(x), y).backward()
        sgd.step()
    for name in NEEDED:
        np.testing.assert_allclose(recorder.trace[name], plain[name], rtol=1e-9, err_msg=name)


def test_two_passes_through_one_call_are_not_told():
    net = Net("relu", 2, 6, "none", False)
    x, y = batch()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, sgd, quantities=[*NEEDED, "loss"]) as recorder:
        loss = F.cross_entropy(net(x), y)
        loss.backward(retain_graph=True)
        loss.backward()
        sgd.step()
    trace = recorder.trace
    assert trace["arriving_rms"].isnull().all()
    assert "two backward passes" in trace.why("arriving_rms", "layers.0")


@pytest.mark.parametrize("phi", ["relu_", "gelu"])
def test_it_changes_no_bit_of_the_training(phi):
    net, twin = (Net(phi, 4, 6, "layer", True) for _ in range(2))
    trained(net, *batch(), steps=3)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        sgd.zero_grad()
        F.cross_entropy(twin(batch()[0]), batch()[1]).backward()
        sgd.step()
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NEEDED)
def test_each_can_be_had_alone(name):
    net = Net("relu", 3, 6, "layer", True)
    alone = trained(copy.deepcopy(net), *batch(), quantities=[name])
    both = trained(net, *batch())
    np.testing.assert_array_equal(alone[name], both[name])


def test_no_hook_stays_behind():
    net = Net("relu", 3, 6, "batch", True)
    trained(net, *batch())
    out = net(batch()[0])
    assert not out._backward_hooks
    assert all(not tensor._backward_hooks for kept in net.kept for tensor in kept)
