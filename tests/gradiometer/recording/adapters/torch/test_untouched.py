"""Watching changes nothing: recorded and unrecorded trainings end in the same bits."""

import os
import random

import numpy as np
import pytest

from gradiometer import record

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

F = nn.functional
pytestmark = pytest.mark.frameworks

OLD = "ignore:.*(weight_norm|spectral_norm).*deprecated:FutureWarning"


def same_bits(one, other):
    """Whether two states are equal, NaNs and signs of zeros included."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            there = other[name]
            assert (value.dtype, value.shape) == (there.dtype, there.shape), name
            assert value.numpy(force=True).tobytes() == there.numpy(force=True).tobytes(), name
        else:
            assert repr(value) == repr(other[name]), name


def streams():
    """Where all random streams are."""
    return {
        "torch": torch.random.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def seeded(seed=0):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def attributes(model):
    """Numbers that modules count in, beside parameters and buffers."""
    return {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | torch.Tensor)
    }


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.05, momentum=0.9)


def usual(model, optimizer, batch, loss):
    optimizer.zero_grad()
    loss(model(*batch)).backward()
    optimizer.step()


def score(out):
    """A loss of whatever a module gives."""
    out = out[0] if isinstance(out, tuple) else out
    return (out.double() * torch.linspace(-1, 1, out.numel()).view(out.shape)).square().mean()


def untouched(make, make_batch, *, optimizer=sgd, step=usual, loss=score, steps=3, **settings):
    """Train the same model three times: unrecorded, recorded, with a reference batch; compare."""
    ends = []
    for how in ("plain", "recorded", "reference"):
        seeded()
        model = make()
        batch = make_batch()
        updates = optimizer(model.parameters())
        seeded(1)

        def train(model=model, updates=updates, batch=batch):
            for _ in range(steps):
                step(model, updates, batch, loss)

        if how == "plain":
            train()
        else:
            reference = (batch, None) if how == "reference" else None
            with record(model, reference=reference, **settings):
                train()
        state = {f"state {k}": v for k, v in model.state_dict().items()}
        buffers = {f"buffer {k}": v for k, v in model.named_buffers()}
        moments = {
            f"moment {i} {k}": v for i, s in enumerate(updates.state.values()) for k, v in s.items()
        }
        ends.append(state | buffers | moments | streams() | attributes(model))
    same_bits(ends[0], ends[1])
    same_bits(ends[0], ends[2])


# --- weights that are computed from others --------------------------------------------------------


class DropConnect(nn.Module):
    """Draws random numbers each time the weight is computed."""

    def forward(self, weight):
        return weight * (torch.rand_like(weight) > 0.3)


class Counting(nn.Module):
    """Moves a state of its own each time the weight is computed."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.count = 0

    def forward(self, weight):
        self.count += 1
        self.calls += 1
        return weight * (1 + 0.01 * self.calls) * (1 + 0.001 * np.random.rand())


class Handmade(nn.Module):
    """Spectral norm as in many older repositories: u is a parameter, and moves in every mode."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        weight = module.weight
        del module._parameters["weight"]
        module.register_parameter("weight_bar", nn.Parameter(weight.data))
        u = torch.randn(weight.shape[0])
        module.register_parameter("weight_u", nn.Parameter(u, requires_grad=False))

    def forward(self, x):
        weight, u = self.module.weight_bar, self.module.weight_u
        matrix = weight.flatten(1)
        v = F.normalize(matrix.data.T @ u.data, dim=0)
        u.data = F.normalize(matrix.data @ v, dim=0)
        self.module.weight = weight / (u @ matrix @ v)
        return self.module(x)


PARAMETRIZATIONS = {
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "old spectral norm": nn.utils.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "pruned": lambda m: prune.random_unstructured(m, "weight", 0.4),
    "drop connect": lambda m: parametrize.register_parametrization(m, "weight", DropConnect()),
    "counting": lambda m: parametrize.register_parametrization(m, "weight", Counting()),
    "two": lambda m: parametrize.register_parametrization(
        parametrizations.spectral_norm(m), "weight", DropConnect()
    ),
    "handmade": Handmade,
}
PARAMETRIZED = {
    "linear": (lambda: nn.Linear(6, 6), lambda: (torch.randn(5, 6),)),
    "convolution": (lambda: nn.Conv2d(2, 4, 3), lambda: (torch.randn(3, 2, 6, 6),)),
    "transposed": (lambda: nn.ConvTranspose1d(3, 3, 2), lambda: (torch.randn(3, 3, 5),)),
    "embedding": (lambda: nn.Embedding(9, 4), lambda: (torch.randint(0, 9, (6,)),)),
}


def a_net(first):
    return lambda: nn.Sequential(first(), nn.Tanh(), nn.Dropout(0.2))


@pytest.mark.filterwarnings(OLD)
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_parametrized_weights_are_never_computed_once_more(name):
    make, batch = PARAMETRIZED["linear"]
    untouched(a_net(lambda: PARAMETRIZATIONS[name](make())), batch)


@pytest.mark.long
@pytest.mark.filterwarnings(OLD)
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("kind", ["convolution", "transposed", "embedding"])
def test_parametrized_weights_of_every_kind(name, kind):
    make, batch = PARAMETRIZED[kind]
    untouched(a_net(lambda: PARAMETRIZATIONS[name](make())), batch)


def test_parametrized_weights_have_the_shape_they_are_used_in():
    class Wide(nn.Module):
        def forward(self, weight):
            return torch.cat([weight, weight], dim=1)

    model = nn.Linear(3, 5)
    parametrize.register_parametrization(model, "weight", Wide(), unsafe=True)
    with record(nn.Sequential(model)) as recorder:
        optimizer = sgd(model.parameters())
        usual(model, optimizer, (torch.randn(4, 6),), score)
    assert recorder.layers[0].fan_out == 5 or recorder.layers[0].fan_in == 0


@pytest.mark.filterwarnings(OLD)
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_parametrized_weights_of_a_recurrent_net_are_listed(norm):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = norm(nn.LSTM(6, 8, batch_first=True), "weight_hh_l0")
            self.o = nn.Linear(8, 3)

        def forward(self, x):
            return self.o(self.l(x)[0][:, -1])

    model = Recurrent()
    with record(model) as recorder:
        usual(model, sgd(model.parameters()), (torch.randn(4, 3, 6),), score)
    found = {info.name: info for info in recorder.layers}
    assert set(found) == {"l.weight_ih_l0", "l.weight_hh_l0", "o"}
    assert (found["l.weight_hh_l0"].fan_in, found["l.weight_hh_l0"].fan_out) == (8, 32)
    assert {info.role for info in recorder.layers} == {"trained"}
    for name in ["grad_rms", "weight_rms", "update_ratio"]:
        assert "parametrized" in recorder.missing["l.weight_hh_l0"][name]
        assert name not in recorder.missing["l.weight_ih_l0"]


# --- the reference batch --------------------------------------------------------------------------


class Odd(nn.Module):
    """Keeps count, remembers, and draws numbers of all kinds in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.count, self.kept = 0, None
        self.own = torch.Generator().manual_seed(3)

    def forward(self, x):
        self.count += 1
        h = self.linear(x)
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)  # a new buffer
        if self.kept is not None:
            h = h + 0.1 * self.kept
        self.kept = h.detach()
        h = h * (1 + 0.01 * random.random() + 0.01 * np.random.rand())
        h = h + 0.01 * torch.rand(4) + 0.01 * torch.rand(4, generator=self.own)
        return h * (2 if self.count % 3 else 1)


def test_a_look_at_the_reference_batch_leaves_nothing_behind():
    untouched(lambda: nn.Sequential(Odd(), nn.Tanh()), lambda: (torch.randn(5, 6),), steps=5)


# --- every kind of layer --------------------------------------------------------------------------


def floats(*shape):
    return lambda: (torch.randn(*shape),)


def numbers(*shape):
    return lambda: (torch.randint(0, 9, shape),)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), floats(5, 6)),
    "bilinear": (lambda: nn.Bilinear(6, 6, 4), lambda: (torch.randn(5, 6), torch.randn(5, 6))),
    "embedding": (lambda: nn.Embedding(9, 4, max_norm=0.5), numbers(5, 3)),
    "sparse embedding": (lambda: nn.Embedding(9, 4), numbers(5, 3)),
    "embedding bag": (lambda: nn.EmbeddingBag(9, 4), numbers(5, 3)),
    **{
        f"conv{d}d": (lambda d=d: getattr(nn, f"Conv{d}d")(4, 4, 2, groups=2),
                      floats(3, 4, *[5] * d))
        for d in (1, 2, 3)
    },
    **{
        f"transposed{d}d": (lambda d=d: getattr(nn, f"ConvTranspose{d}d")(4, 4, 2),
                            floats(3, 4, *[4] * d))
        for d in (1, 2, 3)
    },
    **{
        f"batch norm {d}d": (lambda d=d: getattr(nn, f"BatchNorm{d}d")(4), floats(3, 4, *[4] * d))
        for d in (1, 2, 3)
    },
    "sync-free batch norm": (
        lambda: nn.BatchNorm1d(4, track_running_stats=False, momentum=None), floats(6, 4)
    ),
    "instance norm": (
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), floats(3, 4, 4, 4)
    ),
    "group norm": (lambda: nn.GroupNorm(2, 4), floats(3, 4, 5)),
    "layer norm": (lambda: nn.LayerNorm(4), floats(3, 4)),
    "rms norm": (lambda: nn.RMSNorm(4), floats(3, 4)),
    "local response norm": (
        lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.LocalResponseNorm(2)), floats(3, 4, 5)
    ),
    **{
        f"{kind} of {layers}": (
            lambda kind=kind, layers=layers: getattr(nn, kind)(
                4, 5, layers, dropout=0.3 if layers > 1 else 0, bidirectional=layers > 1
            ),
            floats(3, 2, 4),
        )
        for kind in ("RNN", "LSTM", "GRU")
        for layers in (1, 2)
    },
    **{
        kind: (lambda kind=kind: getattr(nn, kind)(4, 5), floats(3, 4))
        for kind in ("RNNCell", "LSTMCell", "GRUCell")
    },
    "attention": (
        lambda: nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True),
        lambda: (x := torch.randn(2, 3, 4), x, x),
    ),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), floats(2, 3, 4)
    ),
    "decoder layer": (
        lambda: nn.TransformerDecoderLayer(4, 2, 8, batch_first=True),
        lambda: (torch.randn(2, 3, 4), torch.randn(2, 3, 4)),
    ),
    "transformer": (
        lambda: nn.Transformer(4, 2, 1, 1, 8, batch_first=True),
        lambda: (torch.randn(2, 3, 4), torch.randn(2, 3, 4)),
    ),
    "frozen": (
        lambda: nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 3)),
        floats(5, 4),
    ),
}  # fmt: skip

AFTER = {
    **{
        kind: lambda kind=kind: getattr(nn, kind)()
        for kind in (
            "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU",
            "Mish", "Sigmoid", "Tanh", "Softplus", "Softsign", "Tanhshrink", "Hardtanh",
            "Hardswish", "Hardsigmoid", "Hardshrink", "Softshrink", "LogSigmoid", "Identity",
            "Dropout", "AlphaDropout", "FeatureAlphaDropout", "Dropout1d",
        )
    },
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "RReLU in place": lambda: nn.RReLU(inplace=True),
    "Dropout in place": lambda: nn.Dropout(inplace=True),
    "Threshold": lambda: nn.Threshold(0.1, 0.2),
    "GLU": lambda: nn.GLU(1),
    "Softmax": lambda: nn.Softmax(1),
    "LogSoftmax": lambda: nn.LogSoftmax(1),
    "max pooling": lambda: nn.MaxPool1d(2),
    "average pooling": lambda: nn.AvgPool1d(2),
    "adaptive pooling": lambda: nn.AdaptiveMaxPool1d(2),
    "fractional pooling": lambda: nn.Sequential(
        nn.Unflatten(2, (2, 2)), nn.FractionalMaxPool2d(1, 2)
    ),
    "power pooling": lambda: nn.Sequential(nn.Sigmoid(), nn.LPPool1d(2, 2)),
    "padding": lambda: nn.ReflectionPad1d(1),
    "upsampling": lambda: nn.Upsample(scale_factor=2),
    "flatten": lambda: nn.Flatten(),
    "function": lambda: Applies(torch.sigmoid),
    "in place by a function": lambda: Applies(lambda x: F.leaky_relu(x, inplace=True)),
    "functional dropout": lambda: Applies(lambda x: F.dropout(F.relu(x), 0.4)),
    "feature dropout": lambda: Applies(lambda x: F.feature_alpha_dropout(x, 0.4, True)),
    "noise": lambda: Applies(lambda x: x + torch.randn_like(x)),
    "gumbel softmax": lambda: Applies(lambda x: F.gumbel_softmax(x, hard=True)),
    "checkpointed": lambda: Applies(
        lambda x: checkpoint(lambda z: F.dropout(torch.tanh(z)), x, use_reentrant=False)
    ),
    "reentrant": lambda: Applies(
        lambda x: checkpoint(lambda z: F.dropout(torch.tanh(z)), x, use_reentrant=True)
    ),
}  # fmt: skip


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.long
@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer(kind):
    make, batch = LAYERS[kind]
    untouched(make, batch)
    untouched(make, batch, optimizer=lambda p: torch.optim.Adam(p, 0.01), histograms=True, every=2)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("kind", AFTER)
def test_everything_that_follows_a_layer(kind):
    def make():
        body = nn.Sequential(nn.Conv1d(2, 2, 2), AFTER[kind]())
        return nn.Sequential(body, nn.Flatten(), nn.LazyLinear(4), nn.Linear(4, 4))

    def made():
        model = make()
        model(torch.randn(3, 2, 5))
        return model

    untouched(made, floats(3, 2, 5))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


OPTIMIZERS = [
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax", "Rprop",
    "ASGD", "Adafactor",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer(kind):
    untouched(mlp, floats(5, 6), optimizer=lambda p: getattr(torch.optim, kind)(p, lr=0.01))


def scaled(model, optimizer, batch, loss):
    """Mixed precision, with a scaler."""
    scaler = model.__dict__.setdefault("scaler", torch.amp.GradScaler("cpu", init_scale=64.0))
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(model(*batch))
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()


def with_hooks(model, optimizer, batch, loss):
    handles = [p.register_hook(lambda g: g + 0.01 * torch.randn_like(g)) for p in
               model.parameters()]  # fmt: skip
    usual(model, optimizer, batch, loss)
    for handle in handles:
        handle.remove()


def gathered(model, optimizer, batch, loss):
    optimizer.zero_grad(set_to_none=False)
    for _ in range(3):
        loss(model(*batch)).backward()
    optimizer.step()


def evaluated(model, optimizer, batch, loss):
    usual(model, optimizer, batch, loss)
    for mode in (True, False):
        model.train(mode)
        for _ in range(3):
            model(*batch)
    with torch.no_grad():
        model(*batch)
    model.train()


def trained_in_evaluation_mode(model, optimizer, batch, loss):
    evaluated(model, optimizer, batch, loss)
    model.eval()
    usual(model, optimizer, batch, loss)
    model.train()


def by_closure(model, optimizer, batch, loss):
    def closure():
        optimizer.zero_grad()
        value = loss(model(*batch))
        value.backward()
        return value

    optimizer.step(closure)


def twice(model, optimizer, batch, loss):
    """The derivative's derivative."""
    optimizer.zero_grad()
    value = loss(model(*batch))
    slopes = torch.autograd.grad(value, list(model.parameters()), create_graph=True)
    (value + sum(slope.square().sum() for slope in slopes)).backward()
    optimizer.step()


LOOPS = [
    usual, scaled, with_hooks, gathered, evaluated, trained_in_evaluation_mode, by_closure, twice,
]  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_every_kind_of_loop(loop):
    untouched(mlp, floats(5, 6), step=loop)


@pytest.mark.long
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("quantities", [["loss"], ["delta_rms"], ["update_ratio", "dead_fraction"]])
def test_every_kind_of_loop_and_quantity(loop, quantities):
    def normalised():
        hidden = parametrizations.spectral_norm(nn.Linear(6, 8))
        return nn.Sequential(hidden, nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))

    untouched(normalised, floats(5, 6), step=loop, quantities=quantities, steps=4)


# --- evaluation passes ----------------------------------------------------------------------------


def quiet(batch, mode):
    """A training with looks at other data, and one without."""
    trained = []
    for looks in (0, 4):
        seeded()
        model = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 3))
        optimizer = sgd(model.parameters())
        with record(model) as recorder:
            for _ in range(4):
                model.train(mode != "always evaluation")
                usual(model, optimizer, batch, score)
                model.train(mode == "training")
                for _ in range(looks):
                    model(3 * batch[0])
        trained.append(recorder)
    return trained


@pytest.mark.parametrize("mode", ["training", "evaluation", "always evaluation"])
def test_numbers_beside_looks_at_other_data_without_no_grad(mode):
    alone, beside = quiet((torch.randn(5, 6),), mode)
    for name in ["grad_rms", "delta_rms", "activation_mean", "saturated_fraction", "loss"]:
        np.testing.assert_allclose(alone[name], beside[name], rtol=1e-6, err_msg=name)
    assert beside.missing == {}


def test_an_evaluation_that_is_trained_after_all_is_told_and_measured_from_then_on():
    seeded()
    model = mlp()
    optimizer, batch = sgd(model.parameters()), (torch.randn(5, 6),)
    with record(model) as recorder:
        for k in range(6):
            if k < 3:
                usual(model.train(), optimizer, batch, score)
                model.eval()
                for _ in range(4):
                    model(*batch)
            else:
                usual(model.eval(), optimizer, batch, score)
    for name in ["delta_rms", "activation_mean"]:
        assert np.isnan(recorder[name]).any(axis=1).tolist() == [False] * 3 + [True] + [False] * 2
        assert "taken for an evaluation" in recorder.missing["0"][name]
    assert np.isfinite(recorder["grad_rms"]).all()


def test_looks_keep_no_memory():
    """What is kept for later goes with the graph."""
    model = mlp()
    optimizer, batch = sgd(model.parameters()), (torch.randn(5, 6),)
    with record(model) as recorder:
        usual(model, optimizer, batch, score)
        for _ in range(5):
            model(*batch)
        out = model(*batch)
        held = recorder._training._watch.forward._hooks._all
        assert any(handle.hooks_dict_ref() is not None for handle, _ in held)
        del out
        assert all(handle.hooks_dict_ref() is None for handle, _ in held)


def test_overhead_counts_what_no_clock_within_a_hook_sees():
    """Announced modules, functions and gradients; and not those of evaluation passes."""
    seeded()
    model = nn.Sequential(nn.Linear(6, 8), Applies(torch.tanh), nn.Linear(8, 3))
    batch = (torch.randn(5, 6),)
    with record(model) as recorder:
        usual(model, sgd(model.parameters()), batch, score)
    clock = recorder.session.timed
    # the hooks of two outputs and two weights; each linear map is a function too
    assert (clock.modules, clock.functions, clock.hooks) == (4, 3, 4)
    assert clock.total >= clock.seconds > 0
    assert 0 < recorder.overhead <= 1
