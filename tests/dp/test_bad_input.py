"""Every mistake gets an error that names the value, and what would be accepted."""

import re

import numpy as np
import pytest
from tests.dp.cases import refused

import dp
from dp import Model, Net, Node

X = np.linspace(-1.0, 1.0, 24).reshape(6, 4)
Y = np.array([[0.0], [1.0], [0.0], [1.0], [1.0], [0.0]])
FIVE = Node(np.ones((5, 1)))


def net():
    return Net(4, 3, 2, "tanh", seed=0)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suggested"), [("sigmoyd", "sigmoid"), ("Tanh", "tanh"), ("leaky-relu", "leaky_relu")]
)
def test_unknown_activation(name, suggested):
    for ask in (lambda: Net(4, 3, 2, name), lambda: dp.activations.get(name)):
        with refused(ValueError, f"'{name}'", f"did you mean '{suggested}'", "Known:.*gelu"):
            ask()


@pytest.mark.parametrize("name", ["qqq", None, 3])
def test_activation_like_nothing_known(name):
    with refused(ValueError, f"unknown activation {name!r}", "Known:.*identity.*softplus") as _:
        dp.activations.get(name)


@pytest.mark.parametrize(
    ("name", "suggested"), [("he_nromal", "he_normal"), ("xavier_glorot_uniform", "glorot_uniform")]
)
def test_unknown_initializer(name, suggested):
    for ask in (
        lambda: Net(4, 3, 2, init=name),
        lambda: Model().Linear_Layer(2, 2, "h", init=name),
        lambda: dp.initializers.get(name),
    ):
        with refused(ValueError, f"'{name}'", f"did you mean '{suggested}'", "Known:.*orthogonal"):
            ask()


@pytest.mark.parametrize(
    ("option", "value", "suggested"),
    [
        ("normalisation", "batc", "batch"),
        ("loss", "cross-entropy", "cross_entropy"),
        ("reduction", "means", "mean"),
    ],
)
def test_unknown_options_of_a_net(option, value, suggested):
    with refused(ValueError, option, f"'{value}'", f"did you mean '{suggested}'"):
        Net(4, 3, 2, **{option: value})


def test_unknown_reduction_of_a_loss():
    with refused(ValueError, "reduction must be 'sum' or 'mean', got 'max'"):
        dp.binary_cross_entropy(Node(Y), Y, "max")


def test_ceilings():
    with refused(ValueError, "ceiling", "above 0", "-1"):
        dp.activations.clipped_relu(-1)
    with refused(ValueError, "ceiling", "got 0"):
        dp.activations.get("relu", ceiling=0)
    with refused(ValueError, "nan"):
        dp.activations.clipped_relu(float("nan"))
    with refused(ValueError, "only relu", "'tanh'"):
        dp.activations.get("tanh", ceiling=6)


def test_duplicate_layer_names():
    model = Model()
    model.Linear_Layer(4, 3, "h0")
    model.ReLu_Layer(3, 3, "h1")
    for layer in (model.Linear_Layer, model.ReLu_Layer):
        with refused(ValueError, "layer name 'h1' is taken", "h0, h1"):
            layer(3, 3, "h1")


@pytest.mark.parametrize("name", ["", None, 3])
def test_layers_need_names(name):
    with refused(TypeError, "needs a name", repr(name)):
        Model().Linear_Layer(2, 2, name)


# --- numbers --------------------------------------------------------------------------------------

NOT_COUNTS = [0, -1, 2.0, "3", True, None]


@pytest.mark.parametrize("number", NOT_COUNTS)
@pytest.mark.parametrize("what", ["n_features", "n_hidden_neurons", "n_layers", "n_outputs"])
def test_sizes_of_a_net(what, number):
    sizes = {"n_features": 4, "n_hidden_neurons": 3, "n_layers": 2, what: number}
    with refused(ValueError, f"{what} must be an integer of at least 1", repr(number)):
        Net(**sizes)


@pytest.mark.parametrize("number", NOT_COUNTS)
def test_widths_of_a_layer(number):
    with refused(ValueError, "fan_in must be an integer of at least 1", repr(number)):
        Model().Linear_Layer(number, 3, "h")
    with refused(ValueError, "fan_out must be an integer of at least 1", repr(number)):
        Model().ReLu_Layer(3, number, "h")


@pytest.mark.parametrize("number", NOT_COUNTS)
def test_steps_and_batch_sizes(number):
    with refused(ValueError, "batch_size must be an integer of at least 1", repr(number)):
        dp.SGD(net(), X, Y, batch_size=number)
    with refused(ValueError, "steps must be an integer of at least 1", repr(number)):
        dp.SGD(net(), X, Y).train(number, print_each=None)


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam])
def test_rates(kind, rate):
    with refused(ValueError, "alpha must be a number above 0", repr(rate)):
        kind(net(), X, Y, {"alpha": rate})


@pytest.mark.parametrize("rate", ["0.1", None, [0.1]])
def test_rates_that_are_not_numbers(rate):
    with refused((TypeError, ValueError), "alpha must be a number above 0", re.escape(repr(rate))):
        dp.SGD(net(), X, Y, {"alpha": rate})


def test_data_without_rows():
    with refused(ValueError, "x_train", "row"):
        dp.SGD(net(), X[:0], Y[:0]).train(1, print_each=None)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan")])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(dp.SGD_Momentum, "beta"), (dp.RMS_Prop, "beta2"), (dp.Adam, "beta1"), (dp.Adam, "beta2")],
)
def test_decays(kind, name, value):
    with refused(ValueError, rf"{name} must lie in \[0, 1\)", repr(value)):
        kind(net(), X, Y, {name: value})


@pytest.mark.parametrize("seed", [[], ()])
def test_an_ensemble_of_nothing(seed):
    with refused(ValueError, "at least one seed"):
        Model(seed=seed)


def test_numbers_of_seeds():
    with refused(ValueError, r"2 member\(s\)", r"3 seed\(s\)"):
        dp.SGD(Net(4, 3, 1, seed=[0, 1]), X, Y, seed=[0, 1, 2])
    with refused(ValueError, r"1 member\(s\)", r"2 seed\(s\)"):
        dp.SGD(net(), X, Y, seed=[0, 1])


@pytest.mark.parametrize("dtype", [int, np.complex128, bool])
def test_dtypes(dtype):
    with refused(TypeError, "floating type such as float32"):
        Model(dtype=dtype)


# --- shapes ---------------------------------------------------------------------------------------


def test_dot_names_the_layer():
    with refused(dp.ShapeError, "layer 'h1'", r"\(6, 3\)", r"\(4, 3\)", "must have 4 entries"):
        net().forward(X[:, :3])
    a, w = Node(np.ones((2, 3))), Node(np.ones((4, 5)), "h7_weight")
    with refused(dp.ShapeError, "dot", r"\(2, 3\)", r"\(4, 5\) 'h7_weight'", "3 columns", "4 rows"):
        a.dot(w)
    with refused(dp.ShapeError, "dot", "nearest parameter: 'h7_weight'"):
        w.tanh() @ a


@pytest.mark.parametrize(
    "operate",
    [
        lambda c, r: c + r,
        lambda c, r: r - c,
        lambda c, r: c * r,
        lambda c, r: r / c,
        lambda c, r: c.value * r,
        lambda c, r: r > c,
        lambda c, r: c**r,
        lambda c, r: dp.squared_error(c, r),
    ],
)
def test_a_column_with_a_row(operate):
    column, row = Node(np.ones((5, 1))), Node(np.ones((1, 5)))
    with refused(dp.ShapeError, r"\(5, 1\)", r"\(1, 5\)", r"reshape\(-1, 1\)"):
        operate(column, row)


def test_the_classic_mistake_in_a_loss():
    class Line(Model):
        def __init__(self):
            super().__init__(seed=0)
            self.out = self.Linear_Layer(4, 1, "out")

        def loss(self, x, y):
            return (self.out(x) - y).square().mean()

    with refused(dp.ShapeError, "a column meets a row", "6×6", "'out_"):
        Line().get_grad(X, Y.reshape(1, -1))


def test_shapes_that_do_not_broadcast():
    with refused(dp.ShapeError, r"add of \(2, 3\) and \(2, 4\) 'b'"):
        Node(np.ones((2, 3))) + Node(np.ones((2, 4)), "b")
    with refused(dp.ShapeError, r"concatenate of \(2, 3\) and \(2, 4\)"):
        Node(np.ones((2, 3))).concatenate(np.ones((2, 4)))
    with refused(dp.ShapeError, r"reshape of \(2, 3\)", r"\(4, 2\)"):
        Node(np.ones((2, 3))).reshape(4, 2)
    with refused(dp.ShapeError, "two sides of a matrix"):
        Node(np.ones((2, 3))).reshape(1, 2, 3)


@pytest.mark.parametrize("method", ["sum", "mean", "max"])
def test_axes_of_reductions(method):
    with refused(ValueError, "axis must be None, 0 or 1", "got 2"):
        getattr(FIVE, method)(axis=2)


@pytest.mark.parametrize("method", ["softmax", "log_softmax"])
def test_axes_of_the_softmax(method):
    with refused(
        ValueError, r"axis must be 0 \(over the rows\) or 1 \(over the columns\)", "got None"
    ):
        getattr(FIVE, method)(axis=None)
    with refused(ValueError, "got 2"):
        FIVE.concatenate(FIVE, axis=2)


def test_the_list_of_wrt():
    x = Node(np.ones((2, 2)))
    with refused(TypeError, "wrt must be a list of Nodes"):
        dp.gradients((x * x).sum(), x)
    with refused(TypeError, "wrt must be a list of Nodes", "'x'"):
        dp.gradients((x * x).sum(), ["x"])
    with refused(TypeError, "only a Node has a gradient", "float"):
        dp.gradients(3.0, [x])


def test_a_net_without_gradients():
    net = dp.Net(4, 3, 2, seed=0)
    with dp.no_grad(), refused(ValueError, "depends on none", "inside no_grad"):
        net.get_grad(X, Y)
    with dp.no_grad(), refused(ValueError, "create_graph=True", "no_grad"):
        dp.gradients(Node(1.0), [Node(1.0)], create_graph=True)
    with refused(TypeError, "layer 'h1' must give a Node", "ndarray"):
        dp.Net(4, 3, 2, lambda h: np.tanh(h.value), seed=0).forward(X)


@pytest.mark.parametrize(
    ("loss", "kind", "words"),
    [
        (lambda p, y: (p - y).square(), dp.ShapeError, r"\(6, 1\); add .sum\(\) or .mean\(\)"),
        (lambda p, y: p.value, TypeError, "must give a Node, got ndarray"),
        (lambda p, y: None, TypeError, "must give a Node, got NoneType"),
    ],
)
def test_losses_that_are_not_a_number(loss, kind, words):
    class Line(Model):
        def __init__(self):
            super().__init__(seed=0)
            self.out = self.Linear_Layer(4, 1, "out")

        def loss(self, x, y):
            return loss(self.out(x), y)

    with refused(kind, words):
        Line().get_grad(X, Y)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, [1, None], []])
def test_seeds(seed):
    with refused(ValueError, "seed"):
        Model(seed=seed)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "a", True])
def test_init_scale(scale):
    with refused(ValueError, "init_scale must be a number above 0"):
        dp.Net(4, 3, 2, init_scale=scale)


def test_a_model_that_forgot_super():
    class Forgetful(Model):
        def __init__(self):
            self.out = self.Linear_Layer(4, 1, "out")

    with refused(RuntimeError, r"Forgetful.__init__ must call super\(\).__init__\(\)"):
        Forgetful()


def test_set_param_changes_all_or_nothing():
    net = dp.Net(4, 3, 1, seed=0)
    before = {name: value.copy() for name, value in net.get_param().items()}
    with refused(ValueError):
        net.set_param({"h1_bias": np.zeros((1, 3)), "out_bias": [["a"]]})
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    "x",
    [X.astype(str), X + 1j, X.astype(object), np.ma.array(X, mask=X > 0)],
    ids=["str", "complex", "object", "masked"],
)
def test_data_that_are_not_real_numbers(x):
    with refused(TypeError, "x_train must be a plain array of real numbers"):
        dp.SGD(dp.Net(4, 3, 1), x, Y)


def test_data_that_overflows_the_nets_dtype():
    with refused(ValueError, "must be finite", "float32"):
        dp.SGD(dp.Net(4, 3, 1, dtype=np.float32), X + 1e300, Y)


def test_an_empty_batch():
    with refused(ValueError, "the batch is empty", r"\(0, 4\)"):
        dp.Net(4, 3, 1).loss(X[:0], Y[:0])
    for reduce in (Node.mean, Node.max):
        with refused(ValueError, "at least one entry"):
            reduce(Node(X[:0]))


@pytest.mark.parametrize("hyperparam", [[0.1], "alpha", 0.1])
def test_hyperparameters_that_are_not_a_dict(hyperparam):
    with refused(TypeError, "hyperparam must be a dict"):
        dp.SGD(dp.Net(4, 3, 1), X, Y, hyperparam)


@pytest.mark.parametrize("print_each", [-5, 2.5, float("nan"), "a"])
def test_print_each(print_each):
    with refused(ValueError, "print_each must be an integer of at least 1"):
        dp.SGD(dp.Net(4, 3, 1), X, Y).train(1, print_each)


def test_numpy_functions_on_stacks_mean_other_axes():
    stack = Node(np.ones((2, 3, 4)))
    for function in (np.sum, np.mean, np.transpose):
        with refused(TypeError, "different axes in a stack"):
            function(stack)
    with refused(TypeError, "np.linalg.inv"):
        np.linalg.inv(stack)
    with refused(TypeError, "np.sum"):
        np.sum(a=Node(1.0))


def test_clip_the_wrong_way_round():
    with refused(ValueError, "low <= high", "low=2", "high=1"):
        FIVE.clip(2, 1)


def test_set_param():
    with refused(KeyError, "'h1_wieght'", "did you mean 'h1_weight'"):
        net().set_param({"h1_wieght": np.ones((4, 3))})
    model = net()
    before = model.get_param()["out_bias"].copy()
    with refused(dp.ShapeError, "'h1_weight'", r"\(4, 3\)", r"\(3, 4\)"):
        model.set_param({"out_bias": [[5.0]], "h1_weight": np.ones((3, 4))})
    np.testing.assert_array_equal(model.get_param()["out_bias"], before)


# --- data and labels ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [2.0, -1.0, 0.5, np.nan])
def test_labels_of_the_binary_loss(bad):
    y = Y.copy()
    y[2] = bad
    with refused(ValueError, "must be 0 or 1", f"got {bad:g}"):
        dp.binary_cross_entropy(Node(Y), y)
    with refused(ValueError, "must be 0 or 1", f"got {bad:g}"):
        net().get_grad(X, y)


def test_shape_of_labels():
    with refused(dp.ShapeError, r"\(1, 6\)", r"\(6, 1\)", r"reshape\(-1, 1\)"):
        net().get_grad(X, Y.T)
    with refused(dp.ShapeError, r"\(5, 1\)", r"\(6, 1\)"):
        net().get_grad(X, Y[:5])
    assert net().loss(X, Y[:, 0]).shape == (1, 1)  # a 1-D array is a column


@pytest.mark.parametrize("row", [[0, 0, 0], [1, 1, 0], [2, -1, 0], [np.nan, 0, 1]])
def test_labels_of_the_categorical_loss(row):
    with refused(ValueError, "one-hot"):
        dp.categorical_cross_entropy(Node(np.ones((1, 3))), [row])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_data_that_is_not_finite(bad):
    x, y = X.copy(), Y.copy()
    x[3, 1] = bad
    y[4, 0] = bad
    with refused(ValueError, f"x_train has {bad} at \\(3, 1\\)", "must be finite"):
        dp.SGD(net(), x, Y)
    with refused(ValueError, f"y_train has {bad} at \\(4, 0\\)", "must be finite"):
        dp.Adam(net(), X, y)


def test_data_of_another_kind():
    with refused(ValueError, "x_train has 6 rows, y_train 5"):
        dp.SGD(net(), X, Y[:5])
    with refused(TypeError, "x_train must be a NumPy array, got list"):
        dp.SGD(net(), X.tolist(), Y)
    with refused(ValueError, "x_train and y_train are needed"):
        dp.SGD(net()).train(3)


def test_the_base_optimizer_does_not_train():
    with refused(NotImplementedError, "Optimizer does not define _update"):
        dp.Optimizer(net(), X, Y).train(1, print_each=None)


def test_recording_nothing_wrong_when_refused():
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    with refused(ValueError, "steps"):
        dp.SGD(net(), X, Y).train(0)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("name", sorted(dp.__all__))
def test_every_public_name_is_there(name):
    assert getattr(dp, name).__doc__
