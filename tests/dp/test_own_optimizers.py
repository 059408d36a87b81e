"""Optimisers of your own: their hyperparameters, and their attributes."""

import collections
import copy
import warnings

import numpy as np
import pytest
from tests.dp.cases import refused

import dp

X = np.random.default_rng(0).normal(size=(40, 4))
Y = (X[:, :1] > 0).astype(float)


def net(seed=0):
    return dp.Net(4, 3, 1, "tanh", seed=seed)


def said_of(make):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = make()
    return made, [str(one.message) for one in said]


# --- hyperparameters ------------------------------------------------------------------------------


class By_Get(dp.SGD):
    def _set_param(self):
        super()._set_param()
        self.l2 = self.hyperparam.get("l2", 0.0)


class By_Item(dp.SGD):
    def _set_param(self):
        self.l2 = 0.0
        if "l2" in self.hyperparam:
            self.l2 = self.hyperparam["l2"]
        super()._set_param()


class By_A_Name_Made_Up(dp.SGD):
    def _set_param(self):
        super()._set_param()
        name = "l" + str(2)
        self.l2 = self.hyperparam.get(name)


class By_All(dp.SGD):
    def _set_param(self):
        super()._set_param()
        for name, value in self.hyperparam.items():
            setattr(self, name, value)


class By_Update(dp.SGD):
    def _set_param(self):
        super()._set_param()
        vars(self).update(self.hyperparam)


class By_Pop(dp.SGD):
    def _set_param(self):
        self.l2 = self.hyperparam.pop("l2", 0.0)
        super()._set_param()


class In_Init(dp.SGD):
    def __init__(self, model, x_train=None, y_train=None, hyperparam=None, **options):
        super().__init__(model, x_train, y_train, hyperparam, **options)
        self.l2 = hyperparam["l2"]


class In_Update(dp.SGD):
    l2 = 0.1

    def _update(self, param, grad, g, i):
        param[g] -= self.alpha * (grad[g] + self.hyperparam["l2"] * param[g])


class By_Defaults(dp.SGD):
    defaults = {"alpha": 0.001, "l2": 0.5}  # noqa: RUF012


class Further_Down(By_Get):
    pass


KINDS = [By_Get, By_Item, By_A_Name_Made_Up, By_All, By_Update, By_Pop, In_Init, In_Update]
KINDS += [By_Defaults, Further_Down]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_subclass_reads_is_not_called_ignored(kind):
    given = {"alpha": 0.02, "l2": 0.1}
    sgd, said = said_of(lambda: kind(net(), X, Y, given))
    assert said == []
    assert (sgd.l2, sgd.alpha) == (0.1, 0.02)
    assert sgd.hyperparam is given
    sgd.train(3, print_each=None)


@pytest.mark.parametrize("kind", [By_Get, By_Item, By_Pop, In_Init, In_Update, By_Defaults])
def test_unknown_hyperparameters_are_warned_of(kind):
    given = {"l2": 0.1, "l3": 0.1, "alhpa": 0.5}
    _, said = said_of(lambda: kind(net(), X, Y, given))
    assert len(said) == 2
    assert f"{kind.__name__}: unknown hyperparameter 'l3'" in said[0]
    assert "unknown hyperparameter 'alhpa'; did you mean 'alpha'" in said[1]


def test_a_dict_that_gives_defaults():
    class Given(dp.SGD):
        def _set_param(self):
            super()._set_param()
            self.l2 = self.hyperparam["l2"]

    sgd, said = said_of(lambda: Given(net(), X, Y, collections.defaultdict(lambda: 0.5)))
    assert (sgd.l2, said) == (0.5, [])


def test_a_known_one_that_a_subclass_does_not_read():
    class Fixed(dp.SGD):
        def _set_param(self):
            self.alpha = 0.1

    _, said = said_of(lambda: Fixed(net(), X, Y, {"alpha": 0.5}))
    assert len(said) == 1
    assert "'alpha'" in said[0]


def test_a_custom_init_is_warned_of_too():
    class Own(dp.SGD):
        def __init__(self, model, hyperparam):
            self.model, self.x_train, self.y_train = model, X, Y
            self.hyperparam = hyperparam
            self._set_param()

    assert said_of(lambda: Own(net(), {"alpha": 0.1}))[1] == []
    assert "'alhpa'" in said_of(lambda: Own(net(), {"alhpa": 0.1}))[1][0]


def test_the_warning_points_at_the_users_line():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dp.SGD(net(), X, Y, {"alhpa": 0.1})
    assert said[0].filename == __file__


# --- attributes -----------------------------------------------------------------------------------

NAMES = ["_streams", "rng", "seed", "steps", "members", "dtype", "layers", "_dp", "loss", "grad"]
NAMES += [
    "history",
    "param",
    "_rows",
    "_members",
    "streams",
    "name",
    "_kept",
    "losses",
    "_steps",
    "_update_all",
]


@pytest.mark.parametrize("before", [False, True], ids=["after super", "before super"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [3, [0, 1]], ids=["alone", "ensemble"])
def test_attributes_do_not_collide(name, before, seed):
    class Own(dp.SGD):
        def __init__(self, *args, **options):
            if before:
                setattr(self, name, ["mine"])
            super().__init__(*args, **options)
            if not before:
                setattr(self, name, ["mine"])

    found = []
    for kind, compiled in ((dp.SGD, False), (Own, False), (Own, True)):
        model = net(seed)
        sgd = kind(model, X, Y, batch_size=8, seed=seed, compile=compiled)
        copy.deepcopy(sgd).train(2, print_each=None)
        sgd.train(5, print_each=None)
        found.append(model.get_param())
    assert getattr(sgd, name) == ["mine"]
    for part, value in found[0].items():
        np.testing.assert_array_equal(found[1][part], value)
        np.testing.assert_allclose(found[2][part], value, rtol=1e-9)


@pytest.mark.parametrize(
    "name",
    ["_batch", "_print", "_callbacks", "draw_rows", "elementwise", "_update", "random_batch"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_an_attribute_that_hides_a_method_is_named(name, compiled):
    class Own(dp.SGD):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            setattr(self, name, 64)

    with refused(
        AttributeError, f"Own has set self.{name} to 64", "hides the method", "another name"
    ):
        Own(net(), X, Y, compile=compiled).train(3)


def test_a_model_of_another_kind_is_trained_whatever_its_attributes_are():
    class Plain:
        members, dtype, seed = ["Ann", "Bob"], "none", "no"

        def __init__(self):
            self.w = np.zeros((4, 1))

        def get_param(self):
            return {"w": self.w}

        def set_param(self, param):
            self.w = param["w"]

        def get_grad(self, x, y):
            w = dp.Node(self.w, "w")
            loss = (x @ w - y).square().mean()
            return loss.grad(), loss

    model = Plain()
    first = model.get_grad(X, Y)[1].item()
    dp.SGD(model, X, Y, {"alpha": 0.1}).train(50, print_each=None)
    assert model.get_grad(X, Y)[1].item() < 0.8 * first
