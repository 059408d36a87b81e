"""Which weights of a PyTorch model are layers: each once, with its role and its true fans."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from gradiometer import record
from gradiometer.recording import RecordingError

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn

F = nn.functional
pytestmark = pytest.mark.frameworks


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def train(net, features=6, steps=2, **settings):
    x, y = torch.randn(16, features), torch.randint(0, 3, (16,))
    sgd = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    with record(net, sgd, **settings) as recorder:
        for _ in range(steps):
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    return recorder


def facts(recorder):
    """Layer -> (role, fan_in, fan_out), in the recorded order."""
    return {info.name: (info.role, info.fan_in, info.fan_out) for info in recorder.layers}


# --- fans -----------------------------------------------------------------------------------------


class Matrix(nn.Module):
    """A matrix of one's own from 6 to 8 units, used as the test says."""

    def __init__(self, shape, use):
        super().__init__()
        self.weight, self.use = nn.Parameter(torch.randn(shape)), use

    def forward(self, x):
        return self.use(self, x)


USES = {
    "x @ W": ((6, 8), lambda m, x: x @ m.weight),
    "matmul": ((6, 8), lambda m, x: torch.matmul(x, m.weight)),
    "mm": ((6, 8), lambda m, x: x.mm(m.weight)),
    "addmm": ((6, 8), lambda m, x: torch.addmm(torch.zeros(8), x, m.weight)),
    "linear": ((8, 6), lambda m, x: F.linear(x, m.weight)),
    "linear, transposed": ((6, 8), lambda m, x: F.linear(x, m.weight.t())),
    "x @ W.T": ((8, 6), lambda m, x: x @ m.weight.T),
    "W @ x": ((8, 6), lambda m, x: (m.weight @ x.t()).t()),
    "bmm": ((2, 6, 8), lambda m, x: torch.bmm(x.view(2, 8, 6), m.weight).view(16, 8)),
    "conv1d": ((8, 6, 1), lambda m, x: F.conv1d(x[..., None], m.weight)[..., 0]),
}


@pytest.mark.parametrize("function", ["relu", "none"])
@pytest.mark.parametrize("case", USES)
def test_fans_are_those_of_the_product_a_weight_is_used_in(case, function):
    shape, use = USES[case]
    phi = nn.ReLU() if function == "relu" else nn.Identity()
    recorder = train(nn.Sequential(Matrix(shape, use), phi, nn.Linear(8, 3)))
    assert facts(recorder) == {"0": ("trained", 6, 8), "2": ("trained", 8, 3)}


@pytest.mark.parametrize(
    ("shape", "use"),
    [
        ((6, 8), lambda m, x: torch.einsum("bi,io->bo", x, m.weight)),
        ((8, 6), lambda m, x: F.linear(x, m.weight * 1.0)),
        ((8, 6), lambda m, x: (x[:, None] * m.weight).sum(-1)),
    ],
)
def test_fans_that_are_not_known_are_not_claimed(shape, use):
    recorder = train(nn.Sequential(Matrix(shape, use), nn.ReLU(), nn.Linear(8, 3)))
    assert facts(recorder) == {"0": ("trained", 0, 0), "2": ("trained", 8, 3)}


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (nn.Linear(6, 8), (6, 8)),
        (nn.Bilinear(6, 6, 8), (36, 48)),
        (nn.LSTMCell(6, 8), (6, 32)),
    ],
)
def test_fans_of_pytorchs_layers(layer, fans):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = layer, nn.Linear(8, 3)

        def forward(self, x):
            h = self.a(x, x) if isinstance(self.a, nn.Bilinear) else self.a(x)
            return self.b(h[0] if isinstance(h, tuple) else h)

    assert next(iter(facts(train(Net())).values()))[1:] == fans


# --- parameters beside modules --------------------------------------------------------------------


class Vision(nn.Module):
    """Raw parameters beside layers: tokens, positions, a gain, and a product of the parent's."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 3, 8))
        self.into = nn.Parameter(torch.randn(3, 8))
        self.body = nn.Linear(8, 8)
        self.gain = nn.Parameter(torch.full((1, 1, 8), 0.1))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        z = x.view(-1, 2, 3) @ self.into
        z = torch.cat([self.token.expand(len(z), -1, -1), z], 1) + self.position
        return self.head((z + self.gain * torch.tanh(self.body(z))).mean(1))


def test_raw_parameters_beside_layers():
    recorder = train(Vision())
    assert facts(recorder) == {
        "into": ("trained", 3, 8),
        "body": ("trained", 8, 8),
        "head": ("trained", 8, 3),
        "token": ("outside", 0, 0),
        "position": ("outside", 0, 0),
        "gain": ("outside", 0, 0),
    }
    # of the first one, the delta is not known
    assert recorder.chains == [[0, 1, 2]]
    assert "from 'head' to 'body'" in recorder.trace.sentence()
    assert np.isfinite(recorder["grad_rms"]).all()


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 8))

    def forward(self, x):
        return self.gamma * x


def test_a_module_that_owns_a_parameter_alone_has_its_place():
    recorder = train(nn.Sequential(nn.Linear(6, 8), Scale(), nn.ReLU(), nn.Linear(8, 3)))
    assert list(facts(recorder)) == ["0", "1", "3"]
    assert facts(recorder)["1"] == ("trained", 0, 0)


@pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated, and says so
def test_quantisation_aware_modules_are_trained():
    from torch.ao.nn import qat
    from torch.ao.quantization import get_default_qat_qconfig

    config = get_default_qat_qconfig("fbgemm")
    net = nn.Sequential(qat.Linear(6, 8, qconfig=config), nn.ReLU(), nn.Linear(8, 3))
    recorder = train(net)
    assert facts(recorder) == {"0": ("trained", 6, 8), "2": ("trained", 8, 3)}
    assert "reaches '2', the only layer whose delta is known" in recorder.trace.sentence()
    assert "cannot be seen" in recorder.missing["0"]["delta_rms"]


def test_lists_and_dicts_of_parameters():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.ws = nn.ParameterList([torch.randn(6, 8), torch.randn(8, 8)])
            self.by_name = nn.ParameterDict({"out": torch.randn(3, 8), "unused": torch.ones(2, 2)})

        def forward(self, x):
            for w in self.ws:
                x = torch.tanh(x @ w)
            return F.linear(x, self.by_name["out"])

    recorder = train(Net())
    assert facts(recorder) == {
        "ws.0": ("trained", 6, 8),
        "ws.1": ("trained", 8, 8),
        "by_name.out": ("trained", 8, 3),
        "by_name.unused": ("unreached", 0, 0),
    }


# --- each weight once -----------------------------------------------------------------------------


def test_a_weight_that_its_parent_holds_too_is_one_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
            self.alias = self.a.weight
            self.again = self.b
            self.every = nn.ParameterList([self.a.weight, self.b.weight])

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    assert list(facts(train(Net()))) == ["a", "b"]


def test_layers_that_share_a_weight_both_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))

    recorder = train(Net())
    assert list(facts(recorder)) == ["a", "b", "c"]
    np.testing.assert_array_equal(recorder["grad_rms"][:, 0], recorder["grad_rms"][:, 1])


# --- layers that PyTorch does not see -------------------------------------------------------------


class Listed(nn.Module):
    """Layers in a list of Python's."""

    def __init__(self, hold, frozen=False):
        super().__init__()
        layers = [nn.Linear(6, 6).requires_grad_(not frozen) for _ in range(2)]
        self.blocks, self.out = hold(layers), nn.Linear(6, 3)

    @property
    def dangerous(self):
        raise AssertionError("no property is read")

    def forward(self, x):
        held = self.blocks
        for block in held.values() if isinstance(held, dict) else held:
            for layer in block if isinstance(block, list) else [block]:
                x = torch.tanh(layer(x))
        return self.out(x)


@pytest.mark.parametrize(
    ("hold", "instead"),
    [
        (list, "nn.ModuleList"),
        (tuple, "nn.ModuleList"),
        (lambda layers: [layers], "nn.ModuleList"),
        (lambda layers: dict(zip("ab", layers, strict=True)), "nn.ModuleDict"),
    ],
)
def test_layers_in_a_plain_list_are_told(hold, instead):
    with pytest.warns(UserWarning, match=rf"'1.blocks' is a plain .*{instead}"):
        recorder = train(nn.Sequential(nn.Linear(6, 6), Listed(hold)))
    assert list(facts(recorder)) == ["0", "1.out"]
    assert "does not see" in recorder.missing["1.blocks"]["grad_rms"]
    assert recorder.trace.attrs["missing"]


def test_frozen_layers_in_a_list_give_no_warning():
    recorder = train(Listed(list, frozen=True))
    assert "does not see" in recorder.missing["blocks"]["grad_rms"]


def test_lists_of_layers_that_are_the_models_are_nothing_to_tell():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)
            self.in_order = [self.a, nn.ReLU(), self.b]

        def forward(self, x):
            for part in self.in_order:
                x = part(x)
            return x

    assert "in_order" not in train(Net()).missing


def test_a_model_whose_layers_are_all_in_a_list_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(6, 3)]

    with pytest.raises(RecordingError, match=r"'layers' is a plain list.*nn\.ModuleList"):
        record(Net())


# --- roles ----------------------------------------------------------------------------------------


def test_low_rank_updates_of_a_frozen_layer():
    """B starts at zero: then A's gradient is exactly zero, and B's is not."""

    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(6, 3).requires_grad_(False)
            self.A, self.B = nn.Linear(6, 2, bias=False), nn.Linear(2, 3, bias=False)
            nn.init.zeros_(self.B.weight)

        def forward(self, x):
            return self.base(x) + self.B(self.A(x))

    recorder = train(Lora(), steps=1)
    assert facts(recorder) == {
        "base": ("frozen", 6, 3), "A": ("trained", 6, 2), "B": ("trained", 2, 3),
    }  # fmt: skip
    zero, above = (recorder.layers[i].name for i in (1, 2))
    rms = dict(zip(("base", zero, above), recorder["grad_rms"][0], strict=True))
    assert np.isnan(rms["base"])
    assert rms["A"] == 0
    assert rms["B"] > 0
    assert recorder.missing["base"]["grad_rms"] == "it is frozen"


# --- Keras ----------------------------------------------------------------------------------------

KERAS = """
    import keras, torch
    from gradiometer import record

    def trained(net):
        net.build((None, 6))
        x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
        sgd = torch.optim.SGD(net.parameters(), 0.1)
        with record(net, sgd) as recorder:
            for _ in range(2):
                sgd.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
                sgd.step()
        return recorder

    class Deep(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.a, self.b = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)

        def build(self, shape):
            self.a.build(shape)
            self.b.build((None, 8))

        def call(self, x):
            return self.b(self.a(x))

    keras.utils.set_random_seed(0)  # else the two gradients may be of about the same size
    flat = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    for net in (flat, Deep()):
        recorder = trained(net)
        assert len(recorder.layers) == 2, recorder.layers
        assert [(i.fan_in, i.fan_out) for i in recorder.layers] == [(6, 8), (8, 3)]
        assert {i.role for i in recorder.layers} == {"trained"}
        assert (recorder["grad_rms"] > 0).all()
        assert recorder["delta_rms"].shape == (2, 2)
        assert all("delta_rms" in recorder.missing[i.name] for i in recorder.layers)
        first, last = (i.name for i in recorder.layers)
        assert f"from {last!r} to {first!r}" in recorder.trace.sentence()
"""


def test_layers_of_keras():
    if importlib.util.find_spec("keras") is None:  # importing it here would choose a backend
        pytest.skip("keras is not installed")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KERAS)],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
