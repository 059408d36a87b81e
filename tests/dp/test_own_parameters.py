"""Parameters of your own, made with Parameter or by hand: none is ignored silently."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from tests.dp.cases import refused

import dp
from dp import Model, Node

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 2))
Y = X.sum(axis=1, keepdims=True)
OPTIMISERS = [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam]


class Linear(Model):
    """A weight of your own, and no layer."""

    def __init__(self, first=None, **options):
        super().__init__(**options)
        self.w = self.Parameter(np.zeros((2, 1)) if first is None else first, "w")

    def loss(self, x, y):
        return (x @ self.w - y).square().mean()


class Scaled(Model):
    """A layer, and a gain of your own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.a = self.Linear_Layer(2, 3, "a")
        self.gamma = self.Parameter(np.ones((1, 3)), "gamma")
        self.b = self.Linear_Layer(3, 1, "b")

    def forward(self, x):
        return self.b((self.a(x) * self.gamma).tanh())

    def loss(self, x, y):
        return (self.forward(x) - y).square().mean()


def trained(model, kind=dp.SGD, steps=30, **options):
    kind(model, X, Y, {"alpha": 0.1}, 16, seed=options.pop("seed", 0), **options).train(
        steps, print_each=None
    )
    return {name: value.copy() for name, value in model.get_param().items()}


# --- Parameter ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_it_is_trained(kind, compiled):
    model = Linear()
    first = model.loss(X, Y).item()
    trained(model, kind, 100, compile=compiled)
    assert model.loss(X, Y).item() < 0.1 * first
    assert model.w.value is model.get_param()["w"]


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_compiled_and_eager_agree(kind):
    eager, compiled = Scaled(seed=1), Scaled(seed=1)
    right = trained(eager, kind)
    for name, value in trained(compiled, kind, compile=True).items():
        np.testing.assert_allclose(value, right[name], rtol=1e-9, atol=1e-12)


def test_it_is_listed_in_the_order_of_making_and_its_gradient_is_right():
    model = Scaled(seed=0)
    names = ["a_weight", "a_bias", "gamma", "b_weight", "b_bias"]
    assert list(model.get_param()) == list(model.parameters) == names
    assert model.parameters["gamma"] is model.gamma
    gradients, _ = model.get_grad(X, Y)
    assert list(gradients) == names
    live = model.get_param()["gamma"]
    for index in np.ndindex(live.shape):
        at = live[index]
        live[index] = at + 1e-6
        above = model.loss(X, Y).item()
        live[index] = at - 1e-6
        below = model.loss(X, Y).item()
        live[index] = at
        assert gradients["gamma"][index] == pytest.approx((above - below) / 2e-6, rel=1e-6)
    assert "gamma" in repr(model)


def test_it_is_set_and_copied():
    model, first = Linear(), np.ones((2, 1))
    model.set_param({"w": [[3], [4]]})
    np.testing.assert_array_equal(model.w.value, [[3.0], [4.0]])
    other = Linear(first)
    first[:] = 9.0
    np.testing.assert_array_equal(other.w.value, np.ones((2, 1)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        trained(twin)
        np.testing.assert_array_equal(model.w.value, [[3.0], [4.0]])
        assert not np.array_equal(twin.w.value, model.w.value)
        assert twin.parameters["w"] is twin.w


@pytest.mark.parametrize(
    ("value", "shape"),
    [(2, (1, 1)), ([1, 2, 3], (3, 1)), ([[1.0, 2.0]], (1, 2)), (Node([[1.0]]), (1, 1))],
)
def test_first_values(value, shape):
    model = Model(dtype=np.float32)
    node = model.Parameter(value, "p")
    assert node.shape == shape
    assert node.dtype == np.float32
    assert node.name == "p"


def test_drawn_first_values_are_those_of_the_models_stream():
    model = Model(seed=3)
    node = model.Parameter(lambda stream: stream.normal(size=(2, 2)), "p")
    np.testing.assert_array_equal(node.value, np.random.default_rng(3).normal(size=(2, 2)))
    np.random.seed(5)
    node = Model().Parameter(lambda stream: stream.normal(size=(2, 2)), "p")
    np.random.seed(5)
    np.testing.assert_array_equal(node.value, np.random.normal(size=(2, 2)))


@pytest.mark.parametrize("compiled", [False, True])
def test_an_ensemble_is_its_members(compiled):
    seeds = [4, 0, 7]
    ensemble = Scaled(seed=seeds)
    assert ensemble.gamma.shape == (3, 1, 3)
    together = trained(ensemble, seed=seeds, compile=compiled)
    for member, seed in enumerate(seeds):
        for name, value in trained(Scaled(seed=seed), seed=seed).items():
            np.testing.assert_allclose(together[name][member], value, rtol=1e-10, atol=1e-12)


def test_first_values_of_an_ensemble():
    model = Model(seed=[1, 2])
    each = np.arange(4.0).reshape(2, 2, 1)
    np.testing.assert_array_equal(model.Parameter(each, "each").value, each)
    np.testing.assert_array_equal(model.Parameter([[5.0]], "same").value, [[[5.0]], [[5.0]]])
    drawn = model.Parameter(lambda stream: stream.normal(size=(2, 2)), "drawn").value
    for member, seed in enumerate((1, 2)):
        np.testing.assert_array_equal(
            drawn[member], np.random.default_rng(seed).normal(size=(2, 2))
        )
    with refused(dp.ShapeError, r"\(3, 2, 1\)", "2 members"):
        model.Parameter(np.ones((3, 2, 1)), "three")


@pytest.mark.parametrize("name", ["", None, 3, np.zeros((2, 1))])
def test_names_that_are_none(name):
    with refused(TypeError, r'self.Parameter\(value, "gamma"\)'):
        Model().Parameter(np.zeros((2, 1)), name)


def test_names_that_are_taken():
    model = Scaled()
    with refused(ValueError, "'gamma' is taken", "a_weight"):
        model.Parameter([[1.0]], "gamma")
    with refused(ValueError, "'a_bias' is taken"):
        model.Parameter([[1.0]], "a_bias")
    model.Parameter([[1.0]], "c_weight")
    with refused(ValueError, "'c_weight' is taken"):
        model.Linear_Layer(2, 2, "c")
    assert "c_bias" not in model.get_param()


def test_a_model_that_forgot_super():
    class Forgetful(Model):
        def __init__(self):
            self.w = self.Parameter([[1.0]], "w")

    class Silent(Model):
        def __init__(self):
            pass

    for ask in (Forgetful, Silent().get_param, lambda: Silent().parameters):
        with refused(RuntimeError, r"__init__ must call super\(\).__init__\(\)"):
            ask()


# --- numbers that are none ------------------------------------------------------------------------

NONE = {
    "text": "nan",
    "texts": [["1.0"], ["2.0"]],
    "None": None,
    "Nones": [[None], [1.0]],
    "complex": np.ones((2, 1)) * 1j,
    "masked": np.ma.array([[1.0], [2.0]], mask=[[True], [False]]),
    "a list of masked": [np.ma.array([1.0], mask=[True]), [2.0]],
    "a list with masked": [[np.ma.masked], [2.0]],
    "objects": np.array([[object()], [1.0]]),
    "dates": np.array([["2020-01-01"], ["2020-01-02"]], "M8[D]"),
    "ragged": [[1.0], [2.0, 3.0]],
    "a function's name": np.array([["inf"], ["1"]]),
}


@pytest.mark.parametrize("what", NONE)
def test_set_param_refuses_values_that_are_not_numbers(what):
    model = Linear()
    with refused(ValueError, "parameter 'w'", "number|masked|rectangular"):
        model.set_param({"w": NONE[what]})
    np.testing.assert_array_equal(model.w.value, np.zeros((2, 1)))
    with refused(TypeError, "parameter 'v'", "number|masked|rectangular"):
        model.Parameter(NONE[what], "v")
    with refused(TypeError, "number|masked|rectangular"):
        Node(NONE[what])
    assert "v" not in model.get_param()


def test_set_param_refuses_nodes_and_what_overflows():
    model = Linear(dtype=np.float32)
    with refused(ValueError, "parameter 'w'", "node.value"):
        model.set_param({"w": Node(np.ones((2, 1)))})
    with refused(ValueError, "parameter 'w'", "too large for float32", "1e\\+300"):
        model.set_param({"w": np.array([[1.0], [1e300]])})
    with refused(ValueError, "parameter 'w'"):
        model.set_param({"w": [[1], [10**400]]})


def test_what_training_may_end_in_is_set():
    model = Linear(dtype=np.float32)
    model.set_param({"w": np.array([[np.nan], [np.inf]])})
    np.testing.assert_array_equal(model.w.value, [[np.nan], [np.inf]])
    model.set_param({"w": [[True], [2]]})
    np.testing.assert_array_equal(model.w.value, [[1.0], [2.0]])


@pytest.mark.parametrize("value", [np.nan, [[np.inf]], lambda stream: np.full((2, 2), -np.inf)])
def test_first_values_are_finite(value):
    with refused(ValueError, "first value of parameter 'p'", "finite"):
        Model().Parameter(value, "p")


def test_a_computed_node_cannot_be_a_first_value():
    with refused(TypeError, "computed Node", "node.value"):
        Model().Parameter(Node(1.0, "x") * 2, "p")


# --- named Nodes of one's own ---------------------------------------------------------------------


def model_with(attribute, loss, **methods):
    """A model whose __init__ keeps a Node, made by hand."""

    def __init__(self):  # noqa: N807
        Model.__init__(self, seed=0)
        self.a = self.Linear_Layer(2, 1, "a")
        self.kept = attribute()

    return type("Own", (Model,), {"__init__": __init__, "loss": loss, **methods})()


def uses_kept(self, x, y):
    return (self.a(x) + x @ self.kept - y).square().mean()


def uses_list(self, x, y):
    return (self.a(x) + x @ self.kept[0] - y).square().mean()


def makes_anew(self, x, y):
    return (self.a(x) + x @ Node(np.zeros((2, 1)), "w") - y).square().mean()


GLOBAL = Node(np.zeros((2, 1)), "w")


@pytest.mark.parametrize(
    ("attribute", "loss"),
    [
        (lambda: Node(np.zeros((2, 1)), "w"), uses_kept),
        (lambda: [Node(np.zeros((2, 1)), "w")], uses_list),
        (list, makes_anew),
        (list, lambda self, x, y: (self.a(x) + x @ GLOBAL - y).square().mean()),
    ],
    ids=["attribute", "list", "made anew", "global"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_named_node_that_would_not_be_trained_is_refused(attribute, loss, compiled):
    model = model_with(attribute, loss)
    with refused(ValueError, r"self.Parameter\(value, \"w\"\)"):
        dp.SGD(model, X, Y, compile=compiled).train(3, print_each=None)
    with refused(ValueError, "the Node 'w'", r"self.w = self.Parameter\(value, \"w\"\)"):
        model.get_grad(X, Y)


def test_a_node_that_is_named_as_a_parameter_is_not_taken_for_it():
    for loss in (
        lambda self, x, y: (x @ self.kept - y).square().mean(),
        lambda self, x, y: (self.a(x) * self.kept.sum() - y).square().mean(),
    ):
        model = model_with(lambda: Node(np.zeros((2, 1)), "a_weight"), loss)
        with refused(ValueError, "'a_weight'"):
            model.get_grad(X, Y)
        with refused(ValueError, "a_weight"):
            dp.SGD(model, X, Y, compile=True).train(1, print_each=None)


def test_a_layer_whose_node_was_replaced():
    model = Scaled(seed=0)
    model.a.weight = Node(np.ones((2, 3)), "a_weight")
    with refused(ValueError, "'a_weight' that is not the model's parameter", "set_param"):
        model.get_grad(X, Y)


class Named_Inputs(Scaled):
    def loss(self, x, y):
        return super().loss(x, Node(y, "labels") * Node(1.0))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (Node(X, "data"), Y),
        (Node(X, "data") * 1.0, Node(Y)),
        (X[:, ::-1], Y),
        (X.tolist(), Y.astype(int)),
    ],
    ids=["named", "computed", "arrays", "lists"],
)
def test_named_data_are_not_a_parameter(x, y):
    class Keeps(Named_Inputs):
        def loss(self, x, y):
            y = y.value if isinstance(y, Node) else y
            return super().loss(x if isinstance(x, Node) else Node(x, "x"), y)

    found, _ = Keeps(seed=0).get_grad(x, y)
    assert {"gamma", "labels"} <= set(found)
    assert {"data", "x"} & set(found)


class Inner(Model):
    def __init__(self):
        super().__init__(seed=0)
        self.inner = self.Linear_Layer(2, 3, "inner")

    def forward(self, x):
        return self.inner(x).tanh()


class Outer(Model):
    """A model within a model: its parameters are another model's."""

    def __init__(self):
        super().__init__(seed=0)
        self.within, self.outer = Inner(), self.Linear_Layer(3, 1, "outer")

    def loss(self, x, y):
        return (self.outer(self.within.forward(x)) - y).square().mean()


@pytest.mark.parametrize(
    "twin", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_parameters_of_another_model_are_left_alone_with_a_warning(twin):
    model = twin(Outer())
    before = {name: value.copy() for name, value in model.within.get_param().items()}
    with pytest.warns(UserWarning, match="Outer depends on parameters of another model") as said:
        trained(model)
    assert len(said) == 1
    assert "inner_weight" in str(said[0].message)
    for name, value in model.within.get_param().items():
        np.testing.assert_array_equal(value, before[name])
    assert {"inner_weight", "outer_weight"} <= set(model.get_grad(X, Y)[0])  # told once


def test_parameters_of_another_model_are_trained_if_they_are_listed():
    class Whole(Outer):
        def get_param(self):
            return {**super().get_param(), **self.within.get_param()}

    model = Whole()
    before = {name: value.copy() for name, value in model.get_param().items()}
    after = trained(model)
    assert not any(np.array_equal(after[name], before[name]) for name in before)


def test_a_constant_kept_without_a_name_is_a_constant():
    model = model_with(lambda: Node(np.ones((2, 1))), uses_kept)
    assert set(model.get_grad(X, Y)[0]) == {"a_weight", "a_bias"}


def test_a_model_without_parameters_is_not_trained_in_silence():
    class Nothing(Model):
        def __init__(self):
            super().__init__()
            self.w = Node(np.zeros((2, 1)))

        def loss(self, x, y):
            return (x @ self.w - y).square().mean()

    with refused(ValueError, "Nothing has no parameters to train", "self.Parameter"):
        dp.SGD(Nothing(), X, Y).train(3, print_each=None)


# --- the ways of the first dp ---------------------------------------------------------------------


def gamma():
    return Node(np.ones((1, 1)), "gamma")


def with_gamma(self):
    return {**Model.get_param(self), "gamma": self.kept.value}


def scaled(self, x, y):
    return (self.a(x) * self.kept - y).square().mean()


class Replacing(dp.SGD):
    """An update that replaces the arrays of the dictionary."""

    def _update(self, param, grad, g, i):
        param[g] = param[g] - self.alpha * grad[g]


@pytest.mark.parametrize("kind", [*OPTIMISERS, Replacing])
def test_get_param_may_be_extended(kind):
    model = model_with(gamma, scaled, get_param=with_gamma)
    twin = Model(seed=0)
    layer, gain = twin.Linear_Layer(2, 1, "a"), twin.Parameter([[1.0]], "gamma")
    twin.loss = lambda x, y: (layer(x) * gain - y).square().mean()
    right = trained(twin, kind)
    found = trained(model, kind)
    assert not np.array_equal(found["gamma"], [[1.0]])
    for name, value in found.items():
        np.testing.assert_allclose(value, right[name], rtol=1e-9, err_msg=name)
    with refused(dp.CaptureError, "has its own get_param", "without compile=True"):
        trained(model, kind, compile=True)


def test_set_param_writes_into_what_get_param_gives():
    model = model_with(gamma, scaled, get_param=with_gamma)
    model.set_param({"gamma": [[5.0]]})
    np.testing.assert_array_equal(model.kept.value, [[5.0]])
    with refused(KeyError, "'gama'", "did you mean 'gamma'"):
        model.set_param({"gama": [[5.0]]})
    with refused(dp.ShapeError, "'gamma'", r"\(1, 1\)", r"\(1, 2\)"):
        model.set_param({"gamma": [[5.0, 5.0]]})


def test_a_copy_that_get_param_gives_is_not_written_into():
    model = model_with(
        gamma, scaled, get_param=lambda self: {"gamma": self.kept.value.copy(), "a": 1.0}
    )
    with refused(ValueError, "gives a copy of 'gamma'", "self.Parameter"):
        model.set_param({"gamma": [[5.0]]})
    with refused(ValueError, "gives a copy of 'gamma'"):
        trained(model)


def test_set_param_may_be_overridden_too():
    def set_param(self, param):
        self.kept.value[...] = param["gamma"]

    model = model_with(
        gamma,
        scaled,
        get_param=lambda self: {"gamma": self.kept.value.copy()},
        set_param=set_param,
    )
    assert trained(model)["gamma"] != 1.0


def test_a_listed_node_without_a_name_is_refused():
    model = model_with(lambda: Node(np.ones((1, 1))), scaled, get_param=with_gamma)
    with refused(ValueError, "lists 'gamma', but its Node has no name", 'Node.value, "gamma"'):
        model.get_grad(X, Y)


def test_layers_are_frozen_by_leaving_them_out_of_get_param():
    class Frozen(Scaled):
        def get_param(self):
            return {k: v for k, v in super().get_param().items() if k[0] == "b"}

    model = Frozen(seed=0)
    before = {name: node.value.copy() for name, node in model.parameters.items()}
    trained(model)
    for name, node in model.parameters.items():
        assert np.array_equal(node.value, before[name]) == (name[0] != "b")


def test_get_param_gives_arrays_and_set_param_takes_a_dict():
    model = model_with(gamma, scaled, get_param=lambda self: {"gamma": self.kept})
    with refused(TypeError, "gives 'gamma' as a Node", "node.value"):
        model.set_param({"gamma": [[1.0]]})
    with refused(TypeError, "gives 'gamma' as a Node", "node.value"):
        trained(model)
    for given in (None, [1.0], "w"):
        with refused(TypeError, "set_param takes a dict"):
            Linear().set_param(given)


def test_a_parameter_is_not_rebound_in_silence():
    model, step = Linear(), np.ones((2, 1))
    for change in (
        lambda w: w.__isub__(step),
        lambda w: w.__iadd__(step),
        lambda w: w.__imul__(2.0),
        lambda w: w.__itruediv__(2.0),
        lambda w: w.__ipow__(2.0),
        lambda w: w.__imatmul__(np.ones((1, 1))),
    ):
        with refused(TypeError, "parameter 'w' cannot be changed", r"w\.value -= "):
            change(model.w)
    model.w.value -= step
    np.testing.assert_array_equal(model.get_param()["w"], -step)
    loss = Node(1.0)
    loss += model.w.square().sum()
    loss -= 1.0
    loss *= 2.0
    loss /= 4.0
    loss **= 2.0
    loss @= np.ones((1, 1))
    assert loss.item() == 1.0
    np.testing.assert_array_equal(loss.grad()["w"], -2 * step)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_copies_have_their_own_normalisation(twin, normalisation):
    labels = (Y > 0).astype(float)
    net = dp.Net(2, 3, 2, normalisation=normalisation, seed=0)
    other = twin(net)
    for part in (net, other):
        dp.SGD(part, X, labels, {"alpha": 0.1}, seed=0).train(5, print_each=None)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(other.get_param()[name], value)
        assert not np.shares_memory(other.get_param()[name], value)


def test_first_weights_are_numbers():
    how = dp.initializers.Initializer
    for bad in (
        np.ones((2, 2)) * 1j,
        np.full((2, 2), "1"),
        np.ma.array(np.ones((2, 2)), mask=True),
    ):
        with refused(ValueError, "parameter 'a_weight'", "number|masked"):
            Model().Linear_Layer(2, 2, "a", how("own", "", lambda *_, b=bad: b, lambda *_: 0.0))


def test_get_grad_may_be_overridden():
    class Decayed(Scaled):
        def get_grad(self, x, y):
            grad, loss = super().get_grad(x, y)
            return {name: grad[name] + 0.1 * self.get_param()[name] for name in grad}, loss

    plain, decayed = Scaled(seed=0), Decayed(seed=0)
    grad, _ = plain.get_grad(X, Y)
    dp.SGD(decayed, X, Y, {"alpha": 0.5}).train(1, print_each=None)
    assert set(grad) == set(plain.get_param())

    class Alone(Model):
        def __init__(self):
            super().__init__()
            self.a = self.Linear_Layer(2, 1, "a")
            self.w = Node(np.zeros((2, 1)), "w")

        def get_grad(self, x, y):
            loss = (self.a(x) + x @ self.w - y).square().mean()
            return loss.grad(), loss

    with refused(ValueError, "gradient of self.w", "get_param does not list 'w'"):
        dp.SGD(Alone(), X, Y).train(1, print_each=None)


# --- attributes of one's own ----------------------------------------------------------------------

NAMES = [
    "_layers",
    "_parameters",
    "_streams",
    "_layer",
    "_stacked",
    "_parameter",
    "_hidden",
    "_out",
]
NAMES += [
    "members",
    "layers",
    "parameters",
    "seed",
    "dtype",
    "rng",
    "steps",
    "_check_loss",
    "_kept",
]
NAMES += ["_normalisation", "streams", "name", "grad", "value", "_check_trained", "registered"]


def own(base, name, before, first):
    class Own(base):
        def __init__(self):
            if before:
                setattr(self, name, ["mine"])
            first(self)
            if not before:
                setattr(self, name, ["mine"])

    return Own()


@pytest.mark.parametrize("before", [False, True], ids=["after super", "before super"])
@pytest.mark.parametrize("name", NAMES)
def test_attributes_do_not_collide(name, before):
    plain, model = (
        Scaled(seed=[0, 1]),
        own(Scaled, name, before, lambda m: Scaled.__init__(m, seed=[0, 1])),
    )
    right = trained(plain, seed=[0, 1])
    for part, value in trained(model, seed=[0, 1]).items():
        np.testing.assert_array_equal(value, right[part])
    assert getattr(model, name) == ["mine"]
    for part, value in trained(model, seed=[0, 1], compile=True, steps=3).items():
        assert value.shape == right[part].shape
    model.Linear_Layer(2, 2, "more")
    assert model.get_param()["more_weight"].shape == (2, 2, 2)
    copy.deepcopy(model).get_grad(X, Y)
    repr(model)


@pytest.mark.parametrize("name", NAMES)
def test_attributes_of_a_net_do_not_collide(name):
    options = {"normalisation": "batch", "residual": True, "seed": [0, 1]}
    labels = (Y > 0).astype(float)

    def first(net):
        dp.Net.__init__(net, 2, 3, 2, **options)

    def after(net):
        dp.SGD(net, X, labels, seed=[0, 1]).train(3, print_each=None)
        return net.get_param()

    right = after(dp.Net(2, 3, 2, **options))
    for part, value in after(own(dp.Net, name, False, first)).items():
        np.testing.assert_array_equal(value, right[part])


def test_a_loss_that_was_overwritten_is_named():
    model = Scaled(seed=0)
    model.loss = 0.25
    with refused(TypeError, "Scaled has set self.loss to 0.25", "another name"):
        model.get_grad(X, Y)


def test_settings_of_a_net():
    net = dp.Net(2, 3, 1, "tanh", seed=0)
    for name, value in (("activation", "relu"), ("n_outputs", 3), ("normalisation", "batch")):
        with refused(AttributeError, name, "settled when it is made"):
            setattr(net, name, value)
    with refused(ValueError, "reduction", "'means'", "did you mean 'mean'"):
        net.reduction = "means"
    labels = (Y > 0).astype(float)
    total = net.loss(X, labels).item()
    net.reduction = "mean"
    assert net.loss(X, labels).item() == pytest.approx(total / 50)

    class Own(dp.Net):
        def __init__(self):
            self.activation = "tanh"  # as a student may write it
            super().__init__(2, 3, 1, self.activation, seed=0)

    np.testing.assert_array_equal(
        Own().forward(X).value, dp.Net(2, 3, 1, "tanh", seed=0).forward(X).value
    )


# --- a parameter whose Node the loss does not use ------------------------------------------------


class Severed(Model):
    """One layer; `how` says what stands in the place of its weight's Node."""

    def __init__(self, how):
        super().__init__(seed=0)
        self.how = how
        self.out = self.Linear_Layer(2, 1, "out")

    def loss(self, x, y):
        penalty = {
            "array": lambda: Node(self.out.weight.value).square().sum(),
            "get_param": lambda: Node(self.get_param()["out_weight"]).square().sum(),
            "transposed": lambda: np.ones((1, 1)) * Node(self.out.weight.value.T).norm(),
            "copy": lambda: Node(self.out.weight.value.copy()).square().sum(),
            "Node": lambda: self.out.weight.square().sum(),
        }[self.how]()
        return (self.out(x) - y).square().mean() + penalty


@pytest.mark.parametrize("how", ["array", "get_param", "transposed"])
def test_a_parameters_array_as_a_constant_is_warned_of_once(how):
    model = Severed(how)
    with pytest.warns(UserWarning, match="array of the parameter 'out_weight' for a constant"):
        model.get_grad(np.ones((3, 2)), np.ones((3, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.get_grad(np.ones((3, 2)), np.ones((3, 1)))


@pytest.mark.parametrize("how", ["copy", "Node"])
def test_copies_and_nodes_of_parameters_are_not_warned_of(how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Severed(how).get_grad(np.ones((3, 2)), np.ones((3, 1)))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_layers_node_replaced_by_one_without_a_name_is_refused(part):
    model = Severed("copy")
    setattr(model.out, part, Node(np.zeros(getattr(model.out, part).shape)))
    with pytest.raises(ValueError, match=rf"the {part} of layer 'out' of Severed was replaced"):
        dp.SGD(model, np.ones((3, 2)), np.ones((3, 1))).train(1, print_each=None)


# --- one loss, not one per matrix of a stack ------------------------------------------------------


class Bag(Model):
    """The mean of a sentence's embeddings; `how` says how they are picked."""

    def __init__(self, how):
        super().__init__(seed=0)
        self.how = how
        self.table = self.Parameter(lambda stream: stream.normal(size=(7, 3)), "table")
        self.out = self.Linear_Layer(3, 1, "out")

    def loss(self, words, y):
        if self.how == "stack":
            mean = self.table[words].mean(axis=0)  # one matrix per sentence
        else:
            mean = sum(self.table[words[:, i]] for i in range(4)) / 4
        return (self.out(mean) - y).square().mean()


WORDS = RNG.integers(0, 7, size=(20, 4))


def test_a_stack_of_losses_with_shared_parameters_is_refused():
    with pytest.raises(dp.ShapeError, match=r"Bag\.loss must give one number, got a stack.*ravel"):
        Bag("stack").get_grad(WORDS, Y[:20])

    class Deep_Data(Model):
        def __init__(self):
            super().__init__(seed=0)
            self.out = self.Linear_Layer(2, 1, "out")

        def loss(self, x, y):
            return (self.out(x) - y).square().mean()

    x = np.stack([X, 2 * X], axis=1)
    for compiled in (False, True):
        with pytest.raises(dp.ShapeError, match=r"'out_weight' has shape \(2, 1\)"):
            dp.SGD(Deep_Data(), x, np.stack([Y, Y], axis=1), compile=compiled).train(1, None)


def test_embeddings_by_columns_have_the_right_gradient():
    model = Bag("columns")
    grad, _ = model.get_grad(WORDS, Y[:20])
    table, step = model.get_param()["table"], 1e-6
    for at in [(0, 0), (3, 2), (6, 1)]:
        old = table[at]
        both = []
        for sign in (1, -1):
            table[at] = old + sign * step
            both.append(float(model.loss(WORDS, Y[:20])))
        table[at] = old
        assert np.isclose(grad["table"][at], (both[0] - both[1]) / (2 * step), rtol=1e-6)


def test_a_program_says_that_parameters_are_another_models():
    class Upon(Model):
        def __init__(self):
            super().__init__(seed=0)
            self.encoder = Scaled()
            self.last = self.Linear_Layer(3, 1, "last")

        def loss(self, x, y):
            return (self.last((x @ np.ones((2, 3))) * self.encoder.gamma) - y).square().mean()

    with pytest.raises(dp.CaptureError, match=r"parameters of another model \(gamma\)"):
        dp.SGD(Upon(), X, Y, compile=True).train(1, None)
