"""What cannot be measured is missing, with the reason, and never guessed."""

import contextlib
import copy

import numpy as np
import pytest
from tests.gradiometer.recording.adapters.torch.torch_nets import F, Net, nn, torch, train

from gradiometer import record
from gradiometer.recording import RecordingError

pytestmark = [pytest.mark.frameworks, pytest.mark.usefixtures("double_precision")]


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return torch.relu(x @ self.matrix)


def test_modules_whose_inside_cannot_be_seen(batch):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 8)
            self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            z = self.lstm(self.embed(x))[0]
            return self.out(self.norm(z + self.attention(z, z, z)[0])[:, -1])

    net = Sequence()
    recorder = train(net, (torch.randint(0, 10, (5, 7)), torch.randint(0, 3, (5,))), steps=2)
    trace = recorder.trace
    assert list(trace["layer"].values) == [
        "embed", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l1",
        "lstm.weight_hh_l1", "attention", "attention.out_proj", "norm", "out",
    ]  # fmt: skip
    assert np.isfinite(trace["grad_rms"]).all()
    assert np.isfinite(trace["update_ratio"]).all()
    hidden = [name for name in trace["layer"].values if "lstm" in name or name == "attention"]
    for layer in trace["layer"].values:
        for name in ["delta_rms", "activation_std"]:
            assert np.isnan(trace[name].sel(layer=layer)).all() == (layer in hidden), layer
    assert recorder.missing["lstm.weight_ih_l0"]["delta_rms"] == (
        "what LSTM computes inside cannot be seen"
    )
    assert "lstm" in trace.attrs["missing"]


def test_modules_of_ones_own_are_not_guessed_at(batch):
    net = nn.Sequential(Custom(), nn.Linear(6, 3))
    recorder = train(net, batch, steps=1)
    assert np.isfinite(recorder["grad_rms"]).all()
    assert np.isnan(recorder["delta_rms"][0]).tolist() == [True, False]
    assert "Custom" in recorder.missing["0"]["delta_rms"]


@pytest.mark.parametrize("kind", ["parametrizations", "old"])
def test_parametrized_weights(batch, kind):
    norm = nn.utils.parametrizations.weight_norm if kind == "parametrizations" else None
    with contextlib.nullcontext() if norm else pytest.warns(FutureWarning):
        norm = norm or nn.utils.weight_norm
        net = nn.Sequential(norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3))
    recorder = train(net, batch, steps=1)
    assert list(recorder.trace["layer"].values) == ["0", "2"]
    assert np.isnan(recorder["grad_rms"][0]).tolist() == [True, False]
    assert np.isfinite(recorder["delta_rms"]).all()
    assert np.isfinite(recorder["activation_std"]).all()
    assert "parametrized" in recorder.missing["0"]["grad_rms"]


def test_an_output_that_is_changed_in_place(batch):
    """Measured before it is changed where that is seen, and refused where it is not."""

    class Residual(Net):
        def forward(self, x):
            below = F.relu(self.first(x))
            h = self.second(below)
            h += below
            z = self.last(F.relu(h))
            z[:, 0] = 0
            return z

    torch.manual_seed(0)
    net = Residual(nn.ReLU())
    twin = copy.deepcopy(net)
    recorder = train(net, batch, steps=1)
    h = twin.second(F.relu(twin.first(batch[0])))
    np.testing.assert_allclose(recorder["activation_std"][0, 1], h.detach().numpy().std())
    assert np.isnan(recorder["activation_std"][0, 2])
    assert "changed in place" in recorder.missing["last"]["activation_std"]
    assert list(recorder.trace["activation"].values) == ["relu", "identity", "unknown"]


def test_functions_that_the_table_does_not_know(batch):
    recorder = train(Net(nn.Mish()), batch, steps=1)
    assert list(recorder.trace["activation"].values) == ["mish", "mish", "identity"]
    assert np.isnan(recorder["saturated_fraction"][0]).tolist() == [True, True, False]
    assert np.isfinite(recorder["activation_std"]).all()


class Branches(nn.Module):
    """What becomes of the first layer's output is for the test to say."""

    def __init__(self, branch):
        super().__init__()
        self.first, self.last, self.phi = nn.Linear(4, 6), nn.Linear(6, 3), nn.ReLU()
        self.branch = branch

    def forward(self, x):
        return self.last(self.branch(self.first(x), self.phi))


class Unseen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        with torch._C.DisableTorchFunction():
            return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    ("branch", "why"),
    [
        (lambda h, phi: 2 * h + phi(h), "goes into several functions"),
        (lambda h, phi: phi(h) + h, "goes into several functions"),
        (lambda h, phi: F.relu(h) * torch.sigmoid(h), "goes into several functions"),
        (lambda h, _: Unseen.apply(h), "what takes its output cannot be seen"),
    ],
)
def test_outputs_whose_activation_function_is_not_one_that_is_seen(batch, branch, why):
    recorder = train(Branches(branch), batch)
    assert np.isnan(recorder["activation_mean"][:, 0]).all()
    assert np.isfinite(recorder["delta_rms"]).all()
    assert why in recorder.missing["first"]["activation_mean"]


def test_modules_that_apply_a_function(batch):
    """Also those with a weight, and through nn.Identity, which is no function."""
    for phi in (nn.PReLU(), nn.Threshold(0.1, 0.2), nn.Sequential(nn.Identity(), nn.Tanh())):
        net = nn.Sequential(nn.Linear(4, 6), phi, nn.Linear(6, 3))
        x = net[:2](batch[0]).detach().numpy()
        trace = train(net, batch, steps=1).trace.dataset.sel(step=1, layer="0")
        np.testing.assert_allclose(trace["activation_mean"], x.mean())
        np.testing.assert_allclose(trace["activation_std"], x.std())
        assert trace["activation"] == {"Sequential": "tanh"}.get(
            type(phi).__name__, type(phi).__name__.lower()
        )


def test_complex_weights_are_missing(batch):
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6, dtype=torch.complex128)
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.first(x.to(torch.complex128)).abs())

    recorder = train(Complex(), batch)
    trace = recorder.trace
    for name in ["grad_rms", "weight_rms", "update_ratio", "delta_rms", "activation_mean"]:
        assert np.isnan(trace[name].sel(layer="first")).all()
        assert np.isfinite(trace[name].sel(layer="last")).all()
        assert "complex" in recorder.missing["first"][name]


def test_shapes_of_nothing_and_of_one_sample(batch):
    empty = train(Net(nn.ReLU()), (batch[0][:0], batch[1][:0]), loss=lambda out, _: out.sum())
    assert np.isnan(empty["activation_mean"]).all()
    assert (empty["grad_rms"] == 0).all()
    with pytest.warns(UserWarning, match="zero-element"):
        net = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 3))
    recorder = train(net, (batch[0][:, :0], batch[1]))
    assert list(recorder.trace["layer"].values) == ["1"]
    net = nn.Sequential(nn.InstanceNorm1d(4, affine=True), nn.ReLU())
    with torch.no_grad():
        net[0].bias[1] = -100
    recorder = train(net, (torch.randn(4, 9), None), loss=lambda out, _: out.sum())
    assert recorder["dead_fraction"][0, 0] == 0.25  # without a batch axis


def test_bad_input(batch):
    net = Net(nn.ReLU())
    with pytest.raises(TypeError, match=r"cannot record int; expected a dp\.Model, a torch"):
        record(3)
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, got str; .*before_step"):
        record(net, "sgd")
    with pytest.raises(RecordingError, match="updates none of the weights of this Net"):
        record(net, torch.optim.SGD(Net(nn.ReLU()).parameters(), lr=0.1))
    with pytest.raises(RecordingError, match="ReLU owns no weights"):
        record(nn.ReLU())
    with pytest.raises(RecordingError, match="module '0' has no shape yet; call the model"):
        record(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match=r"max_overhead must be a share of the time.*got 5"):
        record(net, max_overhead=5)
    with record(net) as recorder:
        pass
    with pytest.raises(ValueError, match="nothing has been recorded yet"):
        _ = recorder.trace


class Parts(nn.Module):
    """Layers whose part in the training is not the usual one."""

    def __init__(self, cut=False):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4))
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.pooler = nn.Linear(6, 6)
        self.cut = cut

    def forward(self, x):
        h = torch.tanh(self.first(x + self.position))
        return self.head(torch.tanh(self.second(h.detach() if self.cut else h)))


def test_layers_outside_the_forward_pass_are_not_its_ends(batch):
    trace = train(Parts(), batch, steps=1).trace
    roles = dict(zip(trace["layer"].values, trace["role"].values, strict=True))
    assert roles == {
        "first": "trained", "second": "trained", "head": "trained",
        "position": "outside", "pooler": "outside",
    }  # fmt: skip
    assert "from 'head' to 'first'" in trace.sentence()


def test_a_cut_graph_and_frozen_layers_are_told(batch):
    recorder = train(Parts(cut=True), batch, steps=1)
    assert recorder.trace.sentence() == (
        "No gradient reaches 'first': the first layer that gets one is 'second'."
    )
    assert "no backward pass reached it" in recorder.missing["first"]["grad_rms"]
    net = Parts()
    net.first.requires_grad_(False)
    net.position.requires_grad_(False)
    recorder = train(net, batch, steps=1)
    assert "from 'head' to 'second'" in recorder.trace.sentence()
    assert recorder.missing["first"]["grad_rms"] == "it is frozen"


@pytest.mark.parametrize("how", ["forgotten", "no_grad", "by hand", "no number"])
def test_a_loss_that_was_not_told_is_no_divergence(batch, how):
    net = Net(nn.Tanh())

    def loop(net, optimizer, batch):
        optimizer.zero_grad()
        with torch.set_grad_enabled(how != "no_grad"):
            out = net(batch[0])
        if how == "by hand":
            loss = F.cross_entropy(out, batch[1])
            for p, g in zip(
                net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
            ):
                p.grad = g
        if how == "no number":
            out.backward(torch.ones_like(out))
        optimizer.step()

    recorder = train(net, batch, steps=2, loop=loop)
    trace = recorder.trace
    assert np.isnan(trace["loss"]).all()
    assert "nonfinite_step" not in trace.attrs
    assert "loss" in recorder.missing["(model)"]
    if how in ("forgotten", "no_grad"):
        assert "was backward() called" in trace.sentence()
    else:
        assert "from 'last' to 'first'" in trace.sentence()


def test_gradients_that_were_cleared_before_the_step(batch):
    def loop(net, optimizer, batch):
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimizer.zero_grad()
        optimizer.step()

    recorder = train(Net(nn.Tanh()), batch, steps=2, loop=loop)
    assert "cleared before the optimizer's step" in recorder.missing["first"]["clip_factor"]
    assert (recorder["update_ratio"] == 0).all()


def test_backward_passes_without_a_step_are_told(batch):
    net = Net(nn.Tanh())
    with record(net) as recorder:
        F.cross_entropy(net(batch[0]), batch[1]).backward()
    with pytest.raises(ValueError, match=r"no step of an optimizer .* call before_step\(\)"):
        _ = recorder.trace
