"""Models, nets, ensembles, initialisers and optimisers."""

import math

import numpy as np
import pytest

import dp
from dp import Model, Net, Node

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4))
Y = (X[:, :1] + 0.5 * X[:, 1:2] > 0).astype(float)
ONE_HOT = np.eye(3)[RNG.integers(0, 3, size=40)]
OPTIMISERS = [dp.SGD, dp.SGD_Momentum, dp.RMS_Prop, dp.Adam]
every_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda kind: kind.__name__)


class Two(Model):
    """As a student writes it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.a = self.Linear_Layer(4, 6, "a")
        self.b = self.ReLu_Layer(6, 5, name="b")
        self.c = self.Linear_Layer(5, 1, "c")

    def forward(self, x):
        return self.c(self.b(self.a(x).tanh())).sigmoid()

    def loss(self, x, y):
        p = self.forward(x)
        return -(Node(y) * p.log() + (1 - Node(y)) * (1 - p).log()).sum()


# --- the contract of Model ------------------------------------------------------------------------


def test_names_and_shapes():
    model = Two()
    shapes = {name: value.shape for name, value in model.get_param().items()}
    assert shapes == {
        "a_weight": (4, 6),
        "a_bias": (1, 6),
        "b_weight": (6, 5),
        "b_bias": (1, 5),
        "c_weight": (5, 1),
        "c_bias": (1, 1),
    }
    grad, loss = model.get_grad(X, Y)
    assert {name: value.shape for name, value in grad.items()} == shapes
    assert list(grad) == list(shapes)
    assert isinstance(loss, Node)
    assert loss.shape == (1, 1)
    assert (model.a.fan_in, model.a.fan_out) == (4, 6)
    assert (model.b(model.a(X)).value >= 0).all()


def test_gradients_of_a_model_against_differences():
    model = Two(seed=1)
    grad, loss = model.get_grad(X, Y)
    for name, live in model.get_param().items():
        for index in list(np.ndindex(live.shape))[:4]:
            at = live[index]
            live[index] = at + 1e-6
            above = model.loss(X, Y).value.item()
            live[index] = at - 1e-6
            below = model.loss(X, Y).value.item()
            live[index] = at
            assert grad[name][index] == pytest.approx((above - below) / 2e-6, rel=1e-6, abs=1e-6)
    assert model.loss(X, Y).value == loss.value


def test_parameters_are_live():
    model = Two(seed=0)
    before = model.forward(X).value
    model.get_param()["a_weight"] *= 2
    assert not np.allclose(model.forward(X).value, before)
    assert model.get_param()["a_weight"] is model.get_param()["a_weight"]


def test_set_param_copies():
    model, other = Two(seed=0), Two(seed=1)
    live = model.get_param()
    given = {name: value.copy() for name, value in other.get_param().items()}
    model.set_param(given)
    np.testing.assert_array_equal(model.forward(X).value, other.forward(X).value)
    given["a_weight"][:] = 0
    np.testing.assert_array_equal(model.forward(X).value, other.forward(X).value)
    assert all(model.get_param()[name] is live[name] for name in live)
    model.set_param({"c_bias": [[9]]})
    assert model.get_param()["c_bias"] == 9


def test_gradients_do_not_alias_parameters_or_each_other():
    model = Two(seed=0)
    first, _ = model.get_grad(X, Y)
    kept = {name: value.copy() for name, value in first.items()}
    second, _ = model.get_grad(X, Y)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        first[name] += 1
        np.testing.assert_array_equal(second[name], kept[name])
        assert not np.shares_memory(first[name], model.get_param()[name])


def test_forward_and_loss_are_the_subclasss():
    with pytest.raises(NotImplementedError, match="Model does not define forward"):
        Model().forward(X)
    with pytest.raises(NotImplementedError, match="Model does not define loss"):
        Model().loss(X, Y)


def test_only_what_the_loss_depends_on():
    model = Two(seed=0)
    model.Linear_Layer(3, 3, "unused")
    grad, _ = model.get_grad(X, Y)
    assert "unused_weight" not in grad
    assert "unused_weight" in model.get_param()


# --- initial weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0])
def test_bounds_of_first_weights(seed):
    np.random.seed(0)
    model = Model(seed=seed)
    model.Linear_Layer(50, 400, "wide")
    weight, bias = model.get_param().values()
    bound = math.sqrt(2) * math.sqrt(3 / 50)
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert 0.95 / math.sqrt(50) < np.abs(bias).max() <= 1 / math.sqrt(50)
    assert weight.mean() == pytest.approx(0, abs=0.01)
    assert weight.var() == pytest.approx(bound**2 / 3, rel=0.03)


def same(a, b):
    a, b = a.get_param(), b.get_param()
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_reproducible_by_the_global_seed():
    np.random.seed(5)
    a = Two()
    np.random.seed(5)
    b, c = Two(), Two()
    assert same(a, b)
    assert not same(a, c)
    np.random.seed(5)
    bound = math.sqrt(2) * math.sqrt(3 / 4)
    np.testing.assert_array_equal(
        a.get_param()["a_weight"], np.random.uniform(-bound, bound, (4, 6))
    )


def test_reproducible_by_a_seed_of_its_own():
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    assert same(Two(seed=3), Two(seed=3))
    assert same(Two(seed=3), Two(seed=np.int64(3)))
    assert not same(Two(seed=3), Two(seed=4))
    np.testing.assert_array_equal(np.random.get_state()[1], state)


VARIANCES = {
    "dp": (2 / 60, 1 / (3 * 60)),
    "pytorch": (1 / (3 * 60), 1 / (3 * 60)),
    "he_uniform": (2 / 60, 0),
    "he_normal": (2 / 60, 0),
    "glorot_uniform": (2 / 360, 0),
    "glorot_normal": (2 / 360, 0),
    "lecun_uniform": (1 / 60, 0),
    "lecun_normal": (1 / 60, 0),
    "orthogonal": (1 / 300, 0),
    "normal": (1, 0),
    "uniform": (1 / 3, 0),
    "zeros": (0, 0),
}


def test_every_initializer_is_checked():
    assert set(VARIANCES) == set(dp.initializers.INITIALIZERS)


@pytest.mark.parametrize("name", VARIANCES)
def test_variances_of_initializers(name):
    model = Model(seed=0)
    model.Linear_Layer(60, 300, "h", init=name)
    weight, bias = model.get_param().values()
    of_weight, of_bias = VARIANCES[name]
    assert weight.shape == (60, 300)
    assert weight.var() == pytest.approx(of_weight, rel=0.03)
    assert abs(weight.mean()) < 4 * math.sqrt(of_weight / weight.size) + 1e-15
    assert bias.var() == pytest.approx(of_bias, rel=0.2)
    if "uniform" in name:
        assert np.abs(weight).max() <= math.sqrt(3 * of_weight)
    if name.endswith("normal"):
        assert np.abs(weight).max() > 3 * math.sqrt(of_weight)
    initializer = dp.initializers.get(name)
    assert initializer.name == name
    assert initializer.source
    assert dp.initializers.get(initializer) is initializer


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_orthogonal_means_orthogonal(shape):
    model = Model(seed=0)
    model.Linear_Layer(*shape, "h", init="orthogonal")
    w = model.get_param()["h_weight"]
    small = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-12)


# --- Net ------------------------------------------------------------------------------------------


def reference_net(param, n_layers, function, x):
    for number in range(1, n_layers + 1):
        x = function(x @ param[f"h{number}_weight"] + param[f"h{number}_bias"])
    return x @ param["out_weight"] + param["out_bias"]


@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
def test_every_activation(name):
    net = Net(4, 5, 3, name, seed=2)
    assert list(net.layers) == ["h1", "h2", "h3", "out"]
    logits = reference_net(net.get_param(), 3, dp.activations.get(name), X)
    np.testing.assert_allclose(net.logits(X).value, logits, rtol=1e-13)
    np.testing.assert_allclose(net.forward(X).value, 1 / (1 + np.exp(-logits)), rtol=1e-12)
    grad, loss = net.get_grad(X, Y)
    expected = (np.logaddexp(0, logits) - Y * logits).sum()
    np.testing.assert_allclose(loss.value, expected, rtol=1e-12)
    assert set(grad) == set(net.get_param())
    error = 1 / (1 + np.exp(-logits)) - Y
    np.testing.assert_allclose(grad["out_bias"], error.sum(axis=0, keepdims=True), rtol=1e-10)
    check_net(net, X[:6], Y[:6])


def check_net(net, x, y):
    """Its gradients against central differences, in a few entries of every parameter."""
    grad, _ = net.get_grad(x, y)
    for name, live in net.get_param().items():
        index = (0, min(1, live.shape[1] - 1))
        at = live[index]
        live[index] = at + 1e-6
        above = net.loss(x, y).value.item()
        live[index] = at - 1e-6
        below = net.loss(x, y).value.item()
        live[index] = at
        assert grad[name][index] == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-6)


def test_a_function_as_activation():
    np.testing.assert_array_equal(
        Net(4, 5, 2, lambda h: h.tanh(), seed=2).forward(X).value,
        Net(4, 5, 2, "tanh", seed=2).forward(X).value,
    )
    clipped = Net(4, 5, 2, dp.activations.get("relu", ceiling=0.3), seed=2)
    assert (clipped.layers["out"].weight.value.shape) == (5, 1)
    check_net(clipped, X, Y)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_losses_and_outputs(loss, reduction, n_outputs):
    net = Net(4, 5, 2, "tanh", n_outputs=n_outputs, loss=loss, reduction=reduction, seed=0)
    y = Y if n_outputs == 1 else ONE_HOT
    p = net.forward(X).value
    assert p.shape == (40, n_outputs)
    if n_outputs > 1:
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    if loss == "squared_error":
        per_sample = 0.5 * ((p - y) ** 2).sum(axis=1)
    elif n_outputs == 1:
        per_sample = -np.log(np.where(y == 1, p, 1 - p))[:, 0]
    else:
        per_sample = -np.log((p * y).sum(axis=1))
    expected = per_sample.sum() if reduction == "sum" else per_sample.mean()
    np.testing.assert_allclose(net.loss(X, y).value, expected, rtol=1e-12)
    check_net(net, X, y)


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_normalisation(normalisation):
    net = Net(4, 6, 3, "tanh", normalisation=normalisation, seed=0)
    assert {"h2_gain", "h2_shift"} <= set(net.get_param())
    assert "out_gain" not in net.get_param()
    with dp.watch_layers() as watch:
        net.get_grad(X, Y)
    for call in watch.calls[:-1]:
        h = call.pre_activation.value
        axis = 1 if normalisation == "layer" else 0
        np.testing.assert_allclose(h.mean(axis), 0, atol=1e-12)
        np.testing.assert_allclose(h.var(axis), 1, rtol=0.1)
    check_net(net, X, Y)


def test_residual():
    net = Net(4, 6, 3, "tanh", residual=True, seed=0)
    param = net.get_param()
    x = np.tanh(X @ param["h1_weight"] + param["h1_bias"])  # 4 -> 6: nothing to add
    for name in ("h2", "h3"):
        x = x + np.tanh(x @ param[f"{name}_weight"] + param[f"{name}_bias"])
    logits = x @ param["out_weight"] + param["out_bias"]
    np.testing.assert_allclose(net.logits(X).value, logits, rtol=1e-13)
    check_net(net, X, Y)


def test_init_scale():
    plain, scaled = Net(4, 6, 2, "tanh", seed=0), Net(4, 6, 2, "tanh", seed=0, init_scale=0.1)
    for name, value in plain.get_param().items():
        factor = 0.1 if name.endswith("weight") else 1.0
        np.testing.assert_allclose(scaled.get_param()[name], factor * value, rtol=1e-15)


def test_watched_layers_have_deltas():
    net = Net(4, 5, 2, "tanh", seed=0)
    with dp.watch_layers() as watch:
        grad, _ = net.get_grad(X, Y)
        assert [call.name for call in watch.calls] == ["h1", "h2", "out"]
        net.get_grad(X, Y)
        assert len(watch.calls) == 3
    for call in watch.calls:
        np.testing.assert_allclose(
            call.input.value.T @ call.delta, grad[f"{call.name}_weight"], rtol=1e-12, atol=1e-14
        )
    net.get_grad(X[:3], Y[:3])
    assert watch.calls[0].delta.shape == (40, 5)


# --- float32 --------------------------------------------------------------------------------------


@every_optimiser
@pytest.mark.parametrize("options", [{}, {"normalisation": "batch"}, {"n_outputs": 3}])
def test_float32_stays_float32(optimiser, options):
    net = Net(4, 5, 2, "gelu", seed=0, dtype=np.float32, **options)
    y = ONE_HOT if "n_outputs" in options else Y
    wide = Net(4, 5, 2, "gelu", seed=0, **options)
    for name, value in net.get_param().items():
        np.testing.assert_array_equal(value, wide.get_param()[name].astype(np.float32))
    grad, loss = net.get_grad(X, y)
    assert loss.dtype == net.forward(X).dtype == np.float32
    assert all(g.dtype == np.float32 for g in grad.values())
    steps = []
    training = optimiser(net, X, y, seed=0, callbacks=[steps.append])
    assert training.train(5, print_each=None).dtype == np.float32
    assert steps[0].x.dtype == np.float32
    arrays = [*net.get_param().values(), *steps[-1].grad.values()]
    arrays += [a for store in training.grad_stores for a in store.values()]
    assert all(a.dtype == np.float32 for a in arrays)


# --- ensembles ------------------------------------------------------------------------------------

SEEDS = [3, 0, 11]
KINDS = {
    "plain": {},
    "relu, orthogonal": {"act_func": "relu", "init": "orthogonal"},
    "classes": {"n_outputs": 3, "act_func": "gelu"},
    "layer norm, residual": {"normalisation": "layer", "residual": True},
    "batch norm, mean": {"normalisation": "batch", "reduction": "mean", "init_scale": 0.5},
    "squared error": {"loss": "squared_error", "init": "he_normal"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_is_its_members(kind):
    options = KINDS[kind]
    y = ONE_HOT if "n_outputs" in options else Y
    ensemble = Net(4, 5, 3, seed=SEEDS, **options)
    assert ensemble.members == 3
    grad, loss = ensemble.get_grad(X, y)
    output = ensemble.forward(X)
    assert output.shape == (3, 40, y.shape[1])
    assert loss.shape == (3, 1, 1)
    for member, seed in enumerate(SEEDS):
        alone = Net(4, 5, 3, seed=seed, **options)
        own_grad, own_loss = alone.get_grad(X, y)
        np.testing.assert_allclose(output.value[member], alone.forward(X).value, rtol=1e-12)
        np.testing.assert_allclose(loss.value[member], own_loss.value, rtol=1e-12)
        for name, value in alone.get_param().items():
            np.testing.assert_array_equal(ensemble.get_param()[name][member], value)
            np.testing.assert_allclose(
                grad[name][member], own_grad[name], rtol=1e-12, atol=1e-12, err_msg=name
            )


@every_optimiser
@pytest.mark.parametrize("y", [Y, Y[:, 0]], ids=["column", "1-D labels"])
def test_a_training_run_of_an_ensemble_is_its_members(optimiser, y):
    def trained(seed):
        net = Net(4, 5, 3, "tanh", seed=seed)
        last = optimiser(net, X, y, {"alpha": 0.01}, 16, seed=seed).train(40, print_each=None)
        return net, last

    ensemble, last = trained(SEEDS)
    assert last.shape == (3, 1, 1)
    for member, seed in enumerate(SEEDS):
        alone, own_last = trained(seed)
        np.testing.assert_allclose(last[member], own_last, rtol=1e-10)
        for name, value in alone.get_param().items():
            np.testing.assert_allclose(
                ensemble.get_param()[name][member], value, rtol=1e-12, atol=1e-12
            )


def test_a_students_model_is_an_ensemble_too():
    ensemble = Two(seed=SEEDS)
    grad, loss = ensemble.get_grad(X, Y)
    for member, seed in enumerate(SEEDS):
        own_grad, own_loss = Two(seed=seed).get_grad(X, Y)
        np.testing.assert_allclose(loss.value[member], own_loss.value, rtol=1e-12)
        for name, value in own_grad.items():
            np.testing.assert_allclose(grad[name][member], value, rtol=1e-11, atol=1e-12)


def test_batches_from_the_global_stream(monkeypatch):
    np.random.seed(4)
    x, y = dp.SGD(Net(4, 5, 1, seed=0), X, Y, batch_size=7).random_batch()
    np.random.seed(4)
    rows = np.random.randint(0, 40, size=7)
    np.testing.assert_array_equal(x.value, X[rows])
    np.testing.assert_array_equal(y.value, Y[rows])
    x, y = dp.SGD(Net(4, 5, 1, seed=SEEDS), X, Y, batch_size=100).random_batch()
    assert x.shape == (3, 100, 4)
    assert y.shape == (3, 100, 1)
    assert not np.array_equal(x.value[0], x.value[1])


# --- optimisers against rules written by hand -----------------------------------------------------


def by_hand(kind, net, batches, alpha, beta, beta2, epsilon):
    """Textbook rules, one parameter after another, with nothing shared with the library."""
    w = {name: value.copy() for name, value in net.get_param().items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    s = {name: np.zeros_like(value) for name, value in w.items()}
    for t, (x, y) in enumerate(batches, start=1):
        net.set_param(w)
        grad, _ = net.get_grad(x, y)
        for name, g in grad.items():
            v[name] = beta * v[name] + (1 - beta) * g
            s[name] = beta2 * s[name] + (1 - beta2) * g * g
            v_hat, s_hat = v[name] / (1 - beta**t), s[name] / (1 - beta2**t)
            direction = {
                "SGD": g,
                "SGD_Momentum": v[name],
                "RMS_Prop": g / (np.sqrt(s_hat) + epsilon),
                "Adam": v_hat / (np.sqrt(s_hat) + epsilon),
            }[kind]
            w[name] = w[name] - alpha * direction
    return w


@every_optimiser
@pytest.mark.parametrize("given", [False, True], ids=["defaults", "given"])
def test_optimisers_against_rules_written_by_hand(optimiser, given):
    kind = optimiser.__name__
    values = {"alpha": 0.001, "beta": 0.9, "beta2": 0.99, "epsilon": 1e-8}
    if kind == "Adam":
        values["beta2"] = 0.999
    if given:
        values = {"alpha": 0.02, "beta": 0.8, "beta2": 0.95, "epsilon": 1e-3}
    names = {"beta": "beta1"} if kind == "Adam" else {}
    known = {names.get(name, name): value for name, value in values.items()}
    hyperparam = {k: v for k, v in known.items() if k in optimiser.defaults} if given else {}
    batches = []
    net = Net(4, 5, 2, "tanh", seed=0)
    training = optimiser(
        net, X, Y, hyperparam, 8, seed=1, callbacks=[lambda s: batches.append((s.x, s.y))]
    )
    training.train(25, print_each=None)
    expected = by_hand(kind, Net(4, 5, 2, "tanh", seed=0), batches, **values)
    for name, value in net.get_param().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-11, atol=1e-13)
    assert len(training.grad_stores) == optimiser.num_grad_stores


@every_optimiser
def test_optimisers_learn_and_can_be_restarted(optimiser):
    net = Net(4, 8, 1, "tanh", seed=0)
    training = optimiser(net, X, Y, {"alpha": 0.02}, seed=0)
    first = net.loss(X, Y).value.item()
    training.train(200, print_each=None)
    assert net.loss(X, Y).value.item() < 0.5 * first
    stores = training.grad_stores
    training.train(1, print_each=None)
    assert training.grad_stores is not stores or not stores


def test_hyperparameters():
    default = dp.Adam(Net(4, 3, 1, seed=0), X, Y)
    assert (default.alpha, default.beta1, default.beta2, default.epsilon) == (
        0.001,
        0.9,
        0.999,
        1e-8,
    )
    assert default.hyperparam is not dp.Adam(Net(4, 3, 1, seed=0), X, Y).hyperparam
    assert dp.SGD(Net(4, 3, 1, seed=0), X, Y).batch_size == 128
    with pytest.warns(UserWarning, match="unknown hyperparameter 'alhpa'; did you mean 'alpha'"):
        dp.SGD(Net(4, 3, 1, seed=0), X, Y, {"alhpa": 1.0})


def test_stores_are_not_aliased():
    net = Net(4, 3, 1, seed=0)
    adam = dp.Adam(net, X, Y, seed=0)
    adam.train(2, print_each=None)
    arrays = [a for store in adam.grad_stores for a in store.values()]
    arrays += net.get_param().values()
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[i + 1 :])


# --- the training loop ----------------------------------------------------------------------------


def test_the_printed_table(capsys):
    training = dp.SGD(Net(4, 3, 1, seed=0), X, Y, seed=0)
    last = training.train(steps=25, print_each=10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "iteration\tloss"
    assert [int(line.split("\t")[0]) for line in lines[1:]] == [1, 10, 20]
    assert all(math.isfinite(float(line.split("\t")[1])) for line in lines[1:])
    assert last.shape == (1, 1)
    last = training.train(steps=10, print_each=10)
    assert float(capsys.readouterr().out.splitlines()[-1].split("\t")[1]) == last[0, 0]
    for silent in (None, 0):
        training.train(3, print_each=silent)
        assert capsys.readouterr().out == ""
    training.train(100)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_table_of_an_ensemble_prints_the_mean(capsys):
    last = dp.SGD(Net(4, 3, 1, seed=[0, 1]), X, Y, seed=[0, 1]).train(10, 10)
    printed = float(capsys.readouterr().out.splitlines()[-1].split("\t")[1])
    assert printed == pytest.approx(last.mean())


class Noting(dp.Callback):
    def __init__(self, notes):
        self.notes = notes

    def before_update(self, step):
        self.notes.append(("before", step.number, step.param["h1_weight"].copy()))

    def after_update(self, step):
        self.notes.append(("after", step.number, step.param["h1_weight"].copy()))


def test_callbacks_in_order():
    notes = []
    net = Net(4, 3, 1, seed=0)
    start = net.get_param()["h1_weight"].copy()

    def function(step):
        notes.append(("function", step.number, step.param["h1_weight"].copy()))
        assert step.loss.shape == (1, 1)
        assert step.x.shape == (6, 4)
        assert set(step.grad) == set(step.param)

    sgd = dp.SGD(net, X, Y, {"alpha": 0.1}, 6, seed=0, callbacks=[Noting(notes), function])
    sgd.train(2, print_each=None)
    assert [(what, number) for what, number, _ in notes] == [
        ("before", 1),
        ("after", 1),
        ("function", 1),
        ("before", 2),
        ("after", 2),
        ("function", 2),
    ]
    np.testing.assert_array_equal(notes[0][2], start)
    assert not np.array_equal(notes[1][2], start)
    np.testing.assert_array_equal(notes[1][2], notes[2][2])
    np.testing.assert_array_equal(notes[2][2], notes[3][2])


def test_a_callback_may_stop_the_training():
    class Enough(Exception):  # noqa: N818
        pass

    def stop(step):
        if step.number == 3:
            raise Enough

    net = Net(4, 3, 1, seed=0)
    with pytest.raises(Enough):
        dp.SGD(net, X, Y, seed=0, callbacks=[stop]).train(100, print_each=None)
    other = Net(4, 3, 1, seed=0)
    dp.SGD(other, X, Y, seed=0).train(3, print_each=None)
    assert same(net, other)


def test_a_loss_that_is_no_longer_finite_goes_on():
    net = Net(4, 3, 2, "relu", loss="squared_error", seed=0)
    net.get_param()["h1_weight"][0, 0] = np.inf
    with np.errstate(all="ignore"):
        last = dp.SGD(net, X, Y, seed=0).train(3, print_each=None)
    assert last.shape == (1, 1)


def test_batch_seeds_are_apart_from_weight_seeds_and_reproducible():
    def rows(seed):
        x, _ = dp.SGD(Net(4, 3, 1, seed=0), X, Y, seed=seed).random_batch()
        return x.value

    np.testing.assert_array_equal(rows(1), rows(1))
    assert not np.array_equal(rows(1), rows(2))
    plain = X[np.random.default_rng(1).integers(0, 40, size=128)]
    assert not np.array_equal(rows(1), plain)
