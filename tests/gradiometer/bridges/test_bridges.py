"""Nets carried to PyTorch and back: the same weights, outputs, losses, gradients and training."""

import copy
import importlib
import os
import pickle
import sys

import numpy as np
import pytest

import dp
from dp import activations
from gradiometer.bridges import Affine, Sequential_Net, copy_weights, from_torch, to_torch

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import torch
else:
    torch = pytest.importorskip("torch")

F, nn = torch.nn.functional, torch.nn
pytestmark = pytest.mark.frameworks

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
FUNCTIONS = {
    name: function for name, function in activations.ACTIVATIONS.items() if name != "lecun_tanh"
} | {
    "clipped at 2": activations.clipped_relu(2.0),
    "leaky 0.3": activations.leaky_relu(0.3),
    "elu 1.5": activations.elu(1.5),
}
RNG = np.random.default_rng(0)
X = RNG.normal(scale=2.0, size=(30, 4))
BINARY = (X[:, :1] > X[:, 1:2]).astype(float)
CLASSES = np.eye(3)[RNG.integers(0, 3, size=30)]
TARGETS = RNG.normal(size=(30, 2))

every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])


def close(ours, theirs, tolerance):
    theirs = theirs.detach().numpy()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale)


def loss_of(sequential, x, y, kind):
    """The loss of a Sequential that gives logits, or values, as a dp net has it."""
    dtype = next(sequential.parameters()).dtype
    out, y = sequential(torch.tensor(x, dtype=dtype)), torch.tensor(y, dtype=dtype)
    if kind == "values":
        return 0.5 * ((out - y) ** 2).sum()
    if y.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(out, y, reduction="sum")
    return F.cross_entropy(out, y, reduction="sum")


def agree(net, sequential, y, tolerance, kind="logits"):
    """Loss and every gradient; the Sequential gives logits or values."""
    sequential.zero_grad()
    loss = loss_of(sequential, X, y, kind)
    loss.backward()
    gradients, own = net.get_grad(X, y)
    close(own.value, loss.reshape(1, 1), tolerance)
    linears = [module for module in sequential.modules() if isinstance(module, nn.Linear)]
    assert len(gradients) == 2 * len(linears)
    for name, linear in zip(net.layers, linears, strict=True):
        close(gradients[f"{name}_weight"], linear.weight.grad.T, tolerance)
        close(gradients[f"{name}_bias"], linear.bias.grad[None], tolerance)


def same_weights(one, other):
    mine, yours = one.get_param(), other.get_param()
    assert list(mine) == list(yours)
    for name, value in mine.items():
        assert value.dtype == yours[name].dtype
        np.testing.assert_array_equal(value, yours[name])


@every_dtype
@pytest.mark.parametrize("y", [BINARY, CLASSES], ids=["binary", "classes"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_there_and_back(name, y, dtype):
    net = dp.Net(4, 7, 3, FUNCTIONS[name], n_outputs=y.shape[1], seed=0, dtype=dtype)
    for layer in net.layers.values():  # well into both arms, and saturation
        layer.weight.value *= 2
    tolerance = TOLERANCE[dtype]
    sequential = to_torch(net)
    close(net.forward(X).value, sequential(torch.tensor(X.astype(dtype))), tolerance)
    logits = to_torch(net, logits=True)
    close(net.logits(X).value, logits(torch.tensor(X.astype(dtype))), tolerance)
    agree(net, logits, y, tolerance * (1 if dtype == np.float64 else 5))
    for theirs in (sequential, logits):
        back = from_torch(theirs)
        same_weights(net, back)
        np.testing.assert_array_equal(back.forward(X).value, net.forward(X).value)
        assert back.activation == FUNCTIONS[name]
        assert back.dtype == dtype


@every_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_training_steps(name, dtype):
    net = dp.Net(4, 6, 2, FUNCTIONS[name], n_outputs=3, seed=1, dtype=dtype)
    sequential = to_torch(net, logits=True)
    descent = torch.optim.SGD(sequential.parameters(), lr=0.01)
    batches = []
    ours = dp.SGD(
        net,
        X,
        CLASSES,
        {"alpha": 0.01},
        16,
        seed=0,
        callbacks=[lambda step: batches.append((step.x.value, step.y.value))],
    )
    ours.train(10, print_each=None)
    for x, y in batches:
        descent.zero_grad()
        loss_of(sequential, x, y, "logits").backward()
        descent.step()
    assert len(batches) == 10
    for layer, linear in zip(net.layers.values(), sequential[::2], strict=True):
        tolerance = TOLERANCE[dtype] * 10
        close(layer.weight.value, linear.weight.T, tolerance)
        close(layer.bias.value, linear.bias[None], tolerance)


def uneven(*ending, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 9),
        nn.Tanh(),
        nn.Sequential(nn.Linear(9, 2), nn.LeakyReLU(0.2), nn.Linear(2, 5)),
        nn.Linear(5, 3),
        nn.ReLU(inplace=True),
        *ending,
    ).to(dtype)


@every_dtype
def test_uneven_widths_and_functions(dtype):
    kind = torch.float64 if dtype == np.float64 else torch.float32
    sequential = uneven(nn.Linear(3, 3), dtype=kind)
    net = from_torch(sequential)
    assert isinstance(net, dp.Net)
    assert [repr(layer) for layer in net.layers.values()] == [
        "<layer 'h1' 4 -> 9>",
        "<layer 'h2' 9 -> 2>",
        "<layer 'h3' 2 -> 5>",
        "<layer 'h4' 5 -> 3>",
        "<layer 'out' 3 -> 3>",
    ]
    names = [layer.activation.name for layer in net.layers.values() if layer.activation]
    assert names == ["tanh", "leaky_relu", "identity", "relu"]
    close(net.logits(X).value, sequential(torch.tensor(X, dtype=kind)), TOLERANCE[dtype])
    agree(net, sequential, CLASSES, 5 * TOLERANCE[dtype])
    again = from_torch(to_torch(net))
    same_weights(net, again)
    for twin in (again, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(twin.forward(X).value, net.forward(X).value)


def test_values_for_regression():
    sequential = uneven(nn.Linear(3, 2))
    net = from_torch(sequential, loss="squared_error")
    close(net.forward(X).value, sequential(torch.tensor(X)), 1e-12)
    agree(net, sequential, TARGETS, 1e-12, "values")
    again = to_torch(net)
    assert isinstance(again[-1], nn.Linear)
    close(net.forward(X).value, again(torch.tensor(X)), 1e-12)
    out = Affine(np.ones((4, 2)), np.zeros((1, 2)), activations.get("identity"))
    with pytest.raises(ValueError, match=r"loss 'cross_entropy'.*squared_error"):
        Sequential_Net([], out, outputs="values")


def test_compiled_training_is_the_same():
    nets = [from_torch(uneven(nn.Linear(3, 3))) for _ in range(2)]
    for net, compiled in zip(nets, (False, True), strict=True):
        dp.SGD(net, X, CLASSES, {"alpha": 0.01}, 16, seed=0, compile=compiled).train(
            9, print_each=None
        )
    for name, value in nets[0].get_param().items():
        np.testing.assert_allclose(value, nets[1].get_param()[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("last", "y"),
    [
        ((nn.Linear(4, 1), nn.Sigmoid()), BINARY),
        ((nn.Linear(4, 3), nn.Softmax(dim=-1)), CLASSES),
        ((nn.Linear(4, 3), nn.Softmax(dim=1)), CLASSES),
        ((nn.Linear(4, 3), nn.Identity()), CLASSES),
        ((nn.Linear(4, 1),), BINARY),
    ],
)
def test_without_hidden_layers(last, y):
    sequential = nn.Sequential(*last).double()
    net = from_torch(sequential, reduction="mean")
    assert list(net.layers) == ["out"]
    ends = isinstance(sequential[-1], nn.Linear | nn.Identity)
    out = net.logits(X) if ends else net.forward(X)
    close(out.value, sequential(torch.tensor(X)), 1e-12)
    squared = from_torch(sequential, loss="squared_error").loss(X, y).value
    expected = 0.5 * ((sequential(torch.tensor(X)) - torch.tensor(y)) ** 2).sum()
    np.testing.assert_allclose(squared, expected.item(), rtol=1e-12)
    # the gradient's mean over the batch
    total, mean = (
        from_torch(sequential, reduction=reduction).get_grad(X, y)[0]["out_weight"]
        for reduction in ("sum", "mean")
    )
    np.testing.assert_allclose(total, 30 * mean, rtol=1e-12)


def test_weights_are_copies_and_no_random_number_is_drawn():
    net = dp.Net(4, 5, 1, "relu", seed=0)
    np.random.seed(3)
    torch.manual_seed(3)
    sequential = to_torch(net)
    back = from_torch(sequential)
    after = np.random.rand(), torch.rand(1).item()
    np.random.seed(3)
    torch.manual_seed(3)
    assert after == (np.random.rand(), torch.rand(1).item())
    before = net.forward(X).value
    with torch.no_grad():
        for parameter in sequential.parameters():
            assert parameter.requires_grad
            parameter += 1
    back.get_param()["h1_weight"][:] = 7
    np.testing.assert_array_equal(net.forward(X).value, before)
    assert list(dict(sequential.named_children())) == [
        "h1",
        "h1_activation",
        "out",
        "out_activation",
    ]


class Student(dp.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.first = self.ReLu_Layer(4, 5, "first")
        self.second = self.Linear_Layer(5, 1, "second")


class Own_Forward(dp.Net):
    def forward(self, x, like=None):
        return super().forward(x, like) * 2


class Own_Loss(dp.Net):
    def loss(self, x, y):
        return self.forward(x).sum()


def test_copy_weights():
    net = dp.Net(4, 5, 1, "relu", seed=0)
    student = Student(seed=1)
    sequential = nn.Sequential(nn.Linear(4, 5), nn.Dropout(), nn.ReLU(), nn.Linear(5, 1)).double()
    copy_weights(net, sequential)
    sequential.eval()
    close(net.logits(X).value, sequential(torch.tensor(X)), 1e-12)
    with torch.no_grad():
        sequential[0].weight[0, 0] = 12.5
    copy_weights(sequential, student)
    assert student.get_param()["first_weight"][0, 0] == 12.5
    copy_weights(student, net)
    assert net.get_param()["h1_weight"][0, 0] == 12.5
    same = dp.Net(4, 5, 1, "tanh", seed=5)
    copy_weights(net, same)
    same_weights(net, same)


def test_copy_weights_refuses_what_differs():
    net = dp.Net(4, 5, 1, seed=0)
    before = copy.deepcopy(net.get_param())
    wrong = [
        (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).double(), ValueError, "'out'.*5 -> 1"),
        (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), TypeError, "float64.*float32.*double"),
        (nn.Sequential(nn.Linear(4, 1)).double(), ValueError, "2 layers.*target 1"),
        (nn.Linear(4, 5), TypeError, "dp.Model or a torch.nn.Sequential, got Linear"),
        (nn.Sequential(nn.Linear(4, 5, bias=False)), ValueError, "position '0' has no bias"),
        (
            nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 1)).double(),
            ValueError,
            "'1.weight' is none of a Linear",
        ),
        (dp.Net(4, 5, 1, seed=[0, 1]), ValueError, "2 members"),
        (dp.Net(4, 5, 1, normalisation="layer", seed=0), ValueError, "'h1_gain'"),
        (dp.Model(), ValueError, "no layers"),
    ]
    for other, error, words in wrong:
        with pytest.raises(error, match=words):
            copy_weights(net, other)
        with pytest.raises(error):
            copy_weights(other, net)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("net", "error", "words"),
    [
        (lambda: dp.Net(4, 5, 2, "lecun_tanh", seed=0), ValueError, "'h1' is lecun_tanh.*accepted"),
        (lambda: dp.Net(4, 5, 2, lambda h: h.tanh(), seed=0), ValueError, "'h1' is one of your"),
        (lambda: dp.Net(4, 5, 2, normalisation="batch", seed=0), ValueError, "'h1' has batch"),
        (lambda: dp.Net(4, 5, 2, residual=True, seed=0), ValueError, "'h1'.*residual=False"),
        (lambda: dp.Net(4, 5, 2, seed=[0, 1, 2]), ValueError, "'h1' holds 3 members"),
        (lambda: dp.Net(4, 5, 2, seed=0, dtype=np.longdouble), ValueError, "longdouble|float128"),
        (lambda: Student(seed=0), TypeError, "a dp.Net, got Student.*copy_weights"),
        (lambda: Own_Forward(4, 5, 2, seed=0), TypeError, "Own_Forward has a forward of its own"),
        (lambda: np.eye(3), TypeError, "got ndarray"),
    ],
)
def test_what_does_not_go_to_torch(net, error, words):
    with pytest.raises(error, match=words):
        to_torch(net())


def test_more_layers_than_the_nets_own_are_refused():
    net = Own_Loss(4, 5, 1, seed=0)
    assert to_torch(net)(torch.tensor(X)).shape == (30, 1)
    net.Linear_Layer(3, 3, "extra")
    with pytest.raises(ValueError, match="layer 'extra' was added"):
        to_torch(net)


SHARED = nn.Linear(4, 4)
TIED = nn.Linear(4, 4)
TIED.weight = SHARED.weight


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 1)], "Dropout at position '1'.*accepted"),
        ([nn.Linear(4, 3), nn.ReLU(), nn.Dropout()], r"Dropout at position '2' .* is not carried"),
        ([nn.Flatten(), nn.Linear(4, 3)], "Flatten at position '0' has no Linear before it"),
        ([nn.ReLU(), nn.Linear(4, 3)], "ReLU at position '0' has no Linear before it"),
        ([nn.Linear(4, 3), nn.ReLU(), nn.Tanh()], "Tanh at position '2' follows ReLU"),
        ([nn.Linear(4, 3), nn.Linear(4, 3)], "'1' takes 4 inputs, .*'0' gives 3"),
        ([nn.Linear(4, 3, bias=False)], "Linear at position '0' has no bias"),
        ([nn.Linear(4, 3), nn.Tanh()], "ends in Tanh at position '1', with 3 outputs"),
        ([nn.Linear(4, 3), nn.Sigmoid()], "ends in Sigmoid .*may end in a Linear"),
        ([nn.Linear(4, 1), nn.Softmax(-1)], "ends in Softmax at position '1', with 1 output;"),
        ([nn.Linear(4, 3), nn.Softmax(0)], r"Softmax\(dim=0\).* is not carried"),
        ([nn.Linear(4, 3), nn.Softmax(-1), nn.Linear(3, 1)], "only the last module may be"),
        ([nn.Linear(4, 3), nn.Softmax(-1), nn.ReLU()], "'2' follows Softmax"),
        ([nn.Linear(4, 3), nn.GELU("tanh"), nn.Linear(3, 1)], "GELU at position '1'"),
        ([nn.Linear(4, 3), nn.Softplus(2.0), nn.Linear(3, 1)], "Softplus at position '1'"),
        ([nn.Linear(4, 3), nn.Hardtanh(), nn.Linear(3, 1)], "Hardtanh at position '1'"),
        ([nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 1)], "PReLU at position '1'"),
        ([nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))], "BatchNorm1d at position '0.1'"),
        ([SHARED, SHARED], "'1' shares its weights with the one at position '0'"),
        ([SHARED, nn.ReLU(), TIED], "'2' shares its weights with the one at position '0'"),
        ([nn.Linear(4, 3), nn.Linear(3, 1).double()], "'1' is float64, .*'0' torch.float32"),
        ([nn.Linear(4, 3).bfloat16()], "'0' is bfloat16; accepted"),
        ([], "no Linear"),
    ],
)
def test_what_does_not_come_from_torch(modules, words):
    with pytest.raises(ValueError, match=words):
        from_torch(nn.Sequential(*modules))


def test_other_objects_do_not_come_from_torch():
    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(x) * 2

    for wrong in (nn.Linear(4, 3), dp.Net(4, 5, 1, seed=0), None):
        with pytest.raises(TypeError, match=f"got {type(wrong).__name__}"):
            from_torch(wrong)
    with pytest.raises(TypeError, match="Twice has a forward of its own"):
        from_torch(Twice(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="unknown loss 'mse'"):
        from_torch(nn.Sequential(nn.Linear(4, 3)), loss="mse")


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for function in (lambda: to_torch(dp.Net(4, 5, 1, seed=0)), lambda: from_torch(None)):
        with pytest.raises(ImportError, match=r"^PyTorch is not installed; pip install"):
            function()


# --- nothing is dropped in silence ----------------------------------------------------------------


class Scaled_Loss(dp.Net):
    """Has a parameter that only its loss uses."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.gain = self.Parameter(2.0, "gain")

    def loss(self, x, y):
        return super().loss(x, y) * self.gain.exp()


class Hidden_Parameter(Scaled_Loss):
    """Leaves it out of `get_param`, so that it is frozen."""

    def get_param(self):
        return {name: value for name, value in super().get_param().items() if name != "gain"}


class Own_Attributes(dp.Net):
    """Has attributes with the names of the library's."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.layers, self.members, self.parameters = ["mine"], 3, None
        self.dtype = self.seed = "mine"


@pytest.mark.parametrize("kind", [Scaled_Loss, Hidden_Parameter])
def test_a_custom_parameter_is_refused(kind):
    net = kind(4, 5, 1, seed=0)
    like = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)).double()
    words = f"parameter 'gain' of the {kind.__name__} is neither weight nor bias"
    with pytest.raises(ValueError, match=words):
        to_torch(net)
    with pytest.raises(ValueError, match=words):
        copy_weights(net, like)
    with pytest.raises(ValueError, match=words):
        copy_weights(like, net)


def test_a_layer_changed_by_hand_is_refused():
    net = dp.Net(4, 5, 1, seed=0)
    net.layers["h1"].normalise = lambda h: h * 2
    with pytest.raises(ValueError, match="layer 'h1' has a normalisation of its own"):
        to_torch(net)
    net = dp.Net(4, 5, 1, seed=0)
    net.layers["out"].activation = activations.get("relu")
    with pytest.raises(ValueError, match="output layer 'out' has an activation function"):
        to_torch(net)


def test_custom_attributes_change_nothing():
    net, plain = Own_Attributes(4, 5, 2, seed=0), dp.Net(4, 5, 2, seed=1)
    close(net.forward(X).value, to_torch(net)(torch.tensor(X)), 1e-12)
    copy_weights(net, plain)
    np.testing.assert_array_equal(net.forward(X).value, plain.forward(X).value)


def _pruned():
    linear = nn.Linear(4, 5)
    importlib.import_module("torch.nn.utils.prune").random_unstructured(linear, "weight", 0.5)
    return nn.Sequential(linear, nn.ReLU(), nn.Linear(5, 1))


def _with_a_parameter():
    sequential = nn.Sequential(nn.Linear(4, 5))
    sequential.register_parameter("gain", nn.Parameter(torch.ones(1)))
    return sequential


def _another_forward():
    sequential = nn.Sequential(nn.Linear(4, 5))
    sequential[0].forward = lambda x: 2 * nn.Linear.forward(sequential[0], x)
    return sequential


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_pruned, "parameter '0.weight_orig' is none of a Linear"),
        (_with_a_parameter, "parameter 'gain' is none of a Linear"),
        (_another_forward, "Linear at position '0' was given another forward"),
    ],
)
def test_what_a_sequential_has_besides_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        from_torch(make())
    with pytest.raises(ValueError, match=words):
        copy_weights(make(), dp.Net(4, 5, 1, seed=0))


def test_a_net_without_the_init_of_net_says_so():
    class Own(dp.Net):
        def __init__(self):
            dp.Model.__init__(self, seed=0)

    with pytest.raises(RuntimeError, match=r"Own.__init__ must call super"):
        Own().forward(X)
