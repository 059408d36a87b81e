"""Recording of JAX programs: the same numbers as dp's own, whatever JAX does to the function."""

import functools
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import dp
import gradiometer
from gradiometer.quantities import PER_LAYER, PER_STEP
from gradiometer.recording import RecordingError

if os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1":
    import equinox as eqx
    import flax.linen as nn
    import jax
    from flax import nnx
else:
    jax = pytest.importorskip("jax")
    eqx = pytest.importorskip("equinox")
    nn = pytest.importorskip("flax.linen")
    nnx = pytest.importorskip("flax.nnx")

import jax.numpy as jnp
from jax import lax

import gradiometer.jax as recording
from gradiometer.jax import record, tap, tap_step
from gradiometer.recording.adapters.jax import functions, transport
from gradiometer.recording.adapters.jax.recorder import Steps

pytestmark = pytest.mark.frameworks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4))
Y = (X[:, :1] > X[:, 1:2]).astype(float)
RATE, STEPS = 0.002, 3
NAMES = ["h1", "h2", "h3", "out"]


@pytest.fixture(autouse=True)
def double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


# --- the net of dp, written in JAX ----------------------------------------------------------------


def hidden(name):
    """φ of dp's table, in JAX's own functions."""
    return {
        "identity": jax.nn.identity,
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "lecun_tanh": lambda h: 1.7159 * jnp.tanh(h * (2.0 / 3.0)),
        "relu": jax.nn.relu,
        "clipped_relu": jax.nn.relu6,
        "leaky_relu": jax.nn.leaky_relu,
        "elu": jax.nn.elu,
        "selu": jax.nn.selu,
        "gelu": functools.partial(jax.nn.gelu, approximate=False),
        "silu": jax.nn.silu,
        "softplus": jax.nn.softplus,
    }[name]


def logits(w, x, name, tap=tap, **options):
    for layer in NAMES[:-1]:
        h = x @ w[f"{layer}_weight"] + w[f"{layer}_bias"]
        x = hidden(name)(tap(h, layer, activation=name, **options))
    return tap(x @ w["out_weight"] + w["out_bias"], "out", activation="sigmoid", **options)


def loss_of(w, x, y, name="relu", **options):
    z = logits(w, x, name, **options)
    # without its axis, for batches of one example
    return jnp.sum(jnp.logaddexp(0.0, z) - y * z), jnp.mean(1.0 * ((z > 0) == (y > 0.5)))


def weights(w):
    return {name: w[f"{name}_weight"] for name in NAMES}


def step(w, x, y, name="relu", loss=loss_of, number=None):
    (value, accuracy), g = jax.value_and_grad(loss, has_aux=True)(w, x, y, name, step=number)
    updated = jax.tree.map(lambda p, g: p - RATE * g, w, g)
    tap_step(w, g, updated, loss=value, accuracy=accuracy, layers=weights, step=number)
    return updated


def parameters(seed, name="relu"):
    net = dp.Net(4, 7, 3, name, seed=seed)
    param = net.get_param()
    # a unit that is dead, and one that is saturated, whatever the input
    param["h1_bias"][..., 0, :2] = -15, 15
    return net, {k: jnp.array(v) for k, v in param.items()}


class Whole_Batch(dp.SGD):
    def random_batch(self):
        return dp.Node(self.x_train), dp.Node(self.y_train)


def by_dp(seed, name="relu", steps=STEPS, **settings):
    net, _ = parameters(seed, name)
    sgd = Whole_Batch(net, X, Y, {"alpha": RATE})
    with gradiometer.record(net, sgd, **settings) as recorder:
        sgd.train(steps, print_each=None)
    return recorder.trace


def same(ours, theirs, quantities=(*PER_LAYER, *PER_STEP), rtol=1e-7):
    assert list(ours["layer"].values) == list(theirs["layer"].values)
    for name in quantities:
        if name != "clip_factor":
            np.testing.assert_allclose(
                ours[name].values, theirs[name].values, rtol=rtol, atol=1e-14, err_msg=name
            )


def by_steps(train, w, name="relu", steps=STEPS, **settings):
    with record(**settings) as recorder:
        for _ in range(steps):
            w = train(w, X, Y, name)
    return recorder.trace


def scanned(w, x, y, name="relu", steps=STEPS, numbered=False, step=step):
    def one(w, number):
        return step(w, x, y, name, number=number if numbered else None), None

    return lax.scan(one, w, jnp.arange(steps))[0]


def train_eagerly(w, name):
    return by_steps(step, w, name)


def train_by_compiled_steps(w, name):
    return by_steps(jax.jit(step, static_argnums=3), w, name)


def train_in_one_loop(w, name):
    with record() as recorder:
        jax.jit(scanned, static_argnums=3)(w, X, Y, name)
    return recorder.trace


@pytest.mark.parametrize("name", dp.activations.ACTIVATIONS)
@pytest.mark.parametrize("train", [train_by_compiled_steps, train_in_one_loop])
def test_the_numbers_of_dp(train, name):
    trace = train(parameters(1, name)[1], name)
    theirs = by_dp(1, name)
    same(trace, theirs)
    for coordinate in ["fan_in", "fan_out", "activation", "step"]:
        assert list(trace[coordinate].values) == list(theirs[coordinate].values)
    if name == "relu":
        assert (trace["dead_fraction"].sel(layer="h1") >= 1 / 7).all()


def test_the_numbers_of_dp_without_compiling():
    same(by_steps(step, parameters(1)[1]), by_dp(1))


@pytest.mark.parametrize("train", [step, scanned])
def test_an_ensemble_is_the_ensemble_of_dp(train):
    seeds = [3, 4, 5]
    w = parameters(seeds, "tanh")[1]
    mapped = jax.jit(jax.vmap(functools.partial(train, name="tanh"), in_axes=(0, None, None)))
    with record() as recorder:
        for _ in range(STEPS if train is step else 1):
            w = mapped(w, X, Y)
    trace = recorder.to_trace(members=seeds)
    assert list(trace["member"].values) == seeds
    same(trace, by_dp(seeds, "tanh"))


def test_examples_mapped_over_are_samples():
    def mapped(w, x, y, name, **options):
        of_one = functools.partial(loss_of, name=name, **options)
        losses, right = jax.vmap(of_one, in_axes=(None, 0, 0))(w, x, y)
        return losses.sum(), right.mean()

    train = jax.jit(functools.partial(step, loss=mapped), static_argnums=3)
    same(by_steps(train, parameters(1)[1]), by_dp(1))


def test_examples_within_members_within_learning_rates():
    def mapped(w, x, y, name, **options):
        of_one = functools.partial(loss_of, name=name, **options)
        losses, right = jax.vmap(of_one, in_axes=(None, 0, 0))(w, x, y)
        return losses.sum(), right.mean()

    def train(w, rate):
        def one(w, _):
            (value, accuracy), g = jax.value_and_grad(mapped, has_aux=True)(w, X, Y, "relu")
            updated = jax.tree.map(lambda p, g: p - rate * g, w, g)
            tap_step(w, g, updated, loss=value, accuracy=accuracy, layers=weights)
            return updated, None

        return lax.scan(one, w, None, length=STEPS)[0]

    seeds, rates = [3, 4], jnp.array([RATE, 10 * RATE, 0.0])
    w = parameters(seeds)[1]
    members = jax.vmap(train, in_axes=(0, None))
    with record() as recorder:
        jax.jit(jax.vmap(members, in_axes=(None, 0)))(w, rates)
    trace = recorder.trace
    assert trace.dataset.sizes["member"] == 6
    usual = by_dp(seeds)
    for name in PER_LAYER:
        if name != "clip_factor":
            ours = trace[name].values
            np.testing.assert_allclose(ours[..., :2], usual[name], 1e-7, 1e-14, err_msg=name)
            np.testing.assert_array_equal(ours[0, ..., 4:], ours[1, ..., 4:])  # at rate 0
    np.testing.assert_array_equal(trace["update_ratio"][..., 4:], 0)


@pytest.mark.parametrize(
    "transformed",
    [
        jax.checkpoint,
        functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable),
        jax.jit,
        lambda f: jax.jit(jax.checkpoint(jax.jit(f))),
        lambda f: lambda *args: lax.cond(args[1].sum() > 1e9, f, lambda *a: f(*a), *args),
    ],
    ids=["remat", "remat but for dots", "nested jit", "both", "cond"],
)
def test_nothing_is_counted_twice(transformed):
    def loss(w, x, y, name, step):
        return transformed(lambda w, x, y: loss_of(w, x, y, name))(w, x, y)

    seen = by_steps(jax.jit(functools.partial(step, loss=loss), static_argnums=3), parameters(1)[1])
    same(seen, by_dp(1))


def test_a_pass_without_derivative_is_not_counted():
    def watched(w, x, y, name):
        loss_of(w, -x, y, name)
        return step(w, x, y, name)

    same(by_steps(jax.jit(watched, static_argnums=3), parameters(1)[1]), by_dp(1))


@pytest.mark.parametrize("scan", [True, False])
def test_parts_of_a_batch_are_pooled(scan):
    def loss(w, x, y, name, step):
        parts = [(x[:12], y[:12]), (x[12:], y[12:])] if scan else [(x[:5], y[:5]), (x[5:], y[5:])]
        if scan:
            xs = jax.tree.map(lambda *parts: jnp.stack(parts), *parts)
            both = lax.map(lambda part: loss_of(w, *part, name), xs)
            return both[0].sum(), both[1].mean()
        losses = [loss_of(w, *part, name) for part in parts]
        return losses[0][0] + losses[1][0], (5 * losses[0][1] + 19 * losses[1][1]) / 24

    for seeds in (1, [1, 2]):
        train = functools.partial(step, loss=loss)
        train = jax.vmap(train, (0, None, None, None)) if seeds != 1 else train
        w = parameters(seeds, "tanh")[1]
        same(by_steps(jax.jit(train, static_argnums=3), w, "tanh"), by_dp(seeds, "tanh"))


def test_a_recurrent_layer_is_one_layer():
    def forward(w, xs, mark):
        def cell(h, x):
            return jnp.tanh(mark(h @ w["recurrent"] + x @ w["input"], "recurrent")), None

        return lax.scan(cell, jnp.zeros((6, 3)), xs)[0]

    xs = jnp.array(RNG.normal(size=(5, 6, 4)))
    w = {"recurrent": jnp.array(RNG.normal(size=(3, 3))), "input": jnp.ones((4, 3))}
    with record() as recorder:
        g = jax.grad(lambda w: (forward(w, xs, tap) ** 2).sum())(w)
        tap_step(w, g)
    trace = recorder.trace
    assert list(trace["layer"].values) == ["input", "recurrent"]

    def unrolled(offsets):
        h, seen = jnp.zeros((6, 3)), []
        for x, offset in zip(xs, offsets, strict=True):
            seen.append(h @ w["recurrent"] + x @ w["input"] + offset)
            h = jnp.tanh(seen[-1])
        return (h**2).sum(), jnp.stack(seen)

    deltas, seen = jax.grad(unrolled, has_aux=True)(jnp.zeros((5, 6, 3)))
    there = trace.dataset.sel(layer="recurrent")
    np.testing.assert_allclose(there["delta_rms"][0], np.sqrt(np.mean(deltas**2)))
    np.testing.assert_allclose(there["activation_mean"][0], seen.mean())
    np.testing.assert_allclose(there["activation_std"][0], seen.std())


# --- a tap is the identity ------------------------------------------------------------------------


def untapped(x, name, **options):
    return x


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_taps_change_no_number(jit, name):
    w = parameters(1, name)[1]

    def gradient(w, tap):
        value = lambda w: (logits(w, X, name, tap) ** 2).sum()  # noqa: E731
        return jax.value_and_grad(value)(w)

    if jit:
        gradient = jax.jit(gradient, static_argnums=1)
    with record():
        watched = gradient(w, tap)
    jax.tree.map(np.testing.assert_array_equal, watched, gradient(w, untapped))


def test_a_tap_keeps_every_bit():
    x = jnp.array([-0.0, 0.0, jnp.nan, jnp.inf, 5e-324, -1.5])
    with record():
        value, back = jax.vjp(lambda x: tap(x, "h", activation="relu"), x)
        (delta,) = back(x)
    for y in (value, delta):
        assert np.asarray(y).tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_every_precision_is_kept(dtype):
    w = {"h1": jnp.full((4, 3), 0.5, dtype)}
    x = jnp.array(X, dtype)

    def loss(w):
        h = tap(x @ w["h1"], "h1", activation=jnp.tanh)
        assert h.dtype == dtype
        return jnp.tanh(h).astype(jnp.float32).sum()

    with record() as recorder:
        g = jax.jit(jax.grad(loss))(w)
        tap_step(w, g, w)
    assert g["h1"].dtype == dtype
    expected = np.tanh(np.asarray(x @ w["h1"], np.float64))
    np.testing.assert_allclose(recorder.trace["activation_mean"][0, 0], expected.mean(), rtol=3e-2)
    assert recorder.trace["weight_rms"][0, 0] == 0.5


def test_outside_of_a_recording_nothing_is_left_of_a_tap():
    def f(x):
        return (tap(jnp.sin(x), "h", activation="relu") ** 2).sum()

    x = jnp.arange(3.0)
    bare = str(jax.make_jaxpr(jax.grad(lambda x: (jnp.sin(x) ** 2).sum()))(x))
    assert str(jax.make_jaxpr(jax.grad(f))(x)) == bare
    with record():
        assert "callback" in str(jax.make_jaxpr(jax.grad(f))(x))
    assert str(jax.make_jaxpr(jax.grad(f))(x)) == bare
    jax.jvp(f, (x,), (x,))
    assert tap_step({}, {}) is None


def test_what_jax_keeps_compiled_is_right_inside_and_outside(monkeypatch):
    traced, sent = [], []
    take = Steps.take
    monkeypatch.setattr(Steps, "take", lambda self, *a: (sent.append(a), take(self, *a)))

    @jax.jit
    def train(w):
        traced.append(1)
        return step(w, X, Y)

    w = parameters(1)[1]
    train(w)
    assert not sent
    for times in (1, 2):
        with record() as recorder:
            train(w)
            train(w)
        assert recorder.n_steps == 2
        assert len(sent) == times * 2 * 5
        train(w)
        jax.effects_barrier()
        assert len(sent) == times * 2 * 5
        assert recorder.n_steps == 2
    assert len(traced) == 2  # once with, once without taps
    with record(quantities=["loss"]) as recorder:
        train(w)
    assert recorder.n_steps == 1
    assert len(traced) == 3


def test_what_was_compiled_ahead_of_time_inside_is_deaf_outside():
    w = parameters(1)[1]
    with record() as recorder:
        compiled = jax.jit(step).lower(w, X, Y).compile()
        compiled(w, X, Y)
    compiled(w, X, Y)
    assert recorder.n_steps == 1


def test_blocks_within_blocks_record_what_is_theirs():
    w, train = parameters(1)[1], jax.jit(step)
    with record() as outer:
        train(w, X, Y)
        with record() as inner:
            train(w, X, Y)
            train(w, X, Y)
        train(w, X, Y)
        train(w, X, Y)
    assert (outer.n_steps, inner.n_steps) == (3, 2)
    assert not transport._receivers


def test_the_overhead_is_a_share_of_the_time():
    with record() as recorder:
        jax.jit(step)(parameters(1)[1], X, Y)
    assert 0 < recorder.trace.attrs["recording_overhead"] < 1


def test_a_histogram_without_gradients_counts_nothing():
    with record(histograms=True) as recorder:
        tap_step({"w": jnp.ones((4, 3))}, None)
    assert not recorder.trace["grad_log10_histogram"].any()


def test_pooling_what_is_not_finite_warns_of_nothing():
    def loss(x):
        with np.errstate(all="raise"):
            return (tap(x, "h") ** 2).sum() + tap(x[:1] * jnp.inf, "h").sum()

    with record() as recorder:
        jax.jit(jax.grad(loss))(jnp.ones((2, 3)))
        tap_step({}, {})
    assert np.isnan(recorder.trace["activation_std"]).all()
    assert recorder.trace.attrs["nonfinite_in"] == "activation"


def test_what_was_recorded_survives_an_exception():
    def fail():
        jax.jit(step)(parameters(1)[1], X, Y)
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"), record() as recorder:
        fail()
    assert recorder.trace.dataset.sizes["step"] == 1
    assert not transport._receivers


def test_a_gradient_of_a_training_step_is_no_training_step():
    def after(w, x):
        return sum((p**2).sum() for p in jax.tree.leaves(step(w, x, Y, "tanh")))

    w = parameters(1, "tanh")[1]
    expected = jax.jit(jax.grad(after, argnums=1))(w, X)
    with record() as recorder:
        found = jax.jit(jax.grad(after, argnums=1))(w, X)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert recorder.n_steps == 1


# --- which steps, which quantities ----------------------------------------------------------------


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_every_kth_step(every, numbered, monkeypatch):
    sent = []
    take = Steps.take
    monkeypatch.setattr(Steps, "take", lambda self, *a: (sent.append(a), take(self, *a)))
    w = parameters(1)[1]
    train = jax.jit(scanned, static_argnums=(3, 4, 5))
    with record(every=every) as recorder:
        train(w, X, Y, "relu", 7, numbered)
    trace = recorder.trace
    assert list(trace["step"].values) == list(range(1, 8, every))
    same(trace, by_dp(1, steps=7, every=every))
    assert len(sent) == 5 * (len(range(0, 7, every)) if numbered else 7)


def test_every_kth_step_of_an_ensemble():
    w = parameters([1, 2])[1]
    with record(every=2) as recorder:
        jax.jit(
            jax.vmap(lambda w: scanned(w, X, Y, steps=5, numbered=True)),
        )(w)
    same(recorder.trace, by_dp([1, 2], steps=5, every=2))


def test_some_quantities():
    wanted = ["activation_std", "loss", "update_ratio"]
    trace = by_steps(jax.jit(step, static_argnums=3), parameters(1)[1], quantities=wanted)
    assert set(trace.dataset.data_vars) == set(wanted)
    same(trace, by_dp(1), wanted)


def test_what_cannot_be_had_alone():
    with record(quantities="saturated_fraction") as recorder:
        tap_step(W, jax.grad(tapped)(W))
    assert np.isnan(recorder.trace["saturated_fraction"]).all()


def test_histograms():
    trace = by_steps(jax.jit(step, static_argnums=3), parameters(1)[1], histograms=True)
    theirs = by_dp(1, histograms=True)
    np.testing.assert_array_equal(trace["grad_log10_histogram"], theirs["grad_log10_histogram"])


def test_clipped_gradients():
    w = {"h1": jnp.ones((4, 3))}
    with record() as recorder:
        g = jax.grad(lambda w: (tap(X @ w["h1"], "h1") ** 2).sum())(w)
        tap_step(w, g, clipped=jax.tree.map(lambda g: g / 4, g))
    np.testing.assert_allclose(recorder.trace["clip_factor"], [[0.25]])
    assert np.isnan(recorder.trace["update_ratio"]).all()


def test_the_first_layer_that_is_not_finite_is_named():
    w = parameters(1)[1]
    w["h2_weight"] = w["h2_weight"].at[0, 0].set(jnp.nan)
    trace = by_steps(jax.jit(step, static_argnums=3), w)
    assert trace.attrs["nonfinite_layer"] == "h2"
    assert trace.attrs["nonfinite_in"] == "activation"
    assert trace.attrs["nonfinite_step"] == 1
    for name in ["saturated_fraction", "dead_fraction"]:
        assert np.isnan(trace[name].sel(layer="h2")).all(), name
    assert np.isnan(trace["grad_zero_fraction"].sel(layer="h3")).all()
    assert np.isfinite(trace["dead_fraction"].sel(layer="h1", step=1))
    assert (trace["nonfinite_count"].sel(layer="h2") > 0).all()


# --- layers and their names -----------------------------------------------------------------------


def missing(trace):
    return json.loads(trace.attrs["missing"])


def test_a_net_that_is_one_matrix():
    w = jnp.ones((4, 3))
    with record() as recorder:
        g = jax.grad(lambda w: tap(X @ w, "w", activation="softmax").sum())(w)
        tap_step(w, g)
    assert list(recorder.trace["layer"].values) == ["w"]
    assert list(recorder.trace["activation"].values) == ["softmax"]
    np.testing.assert_allclose(recorder.trace["activation_mean"], [[1 / 3]])


def test_a_net_written_by_hand():
    net = [(jnp.ones((4, 3)), jnp.zeros(3)), (jnp.ones((3, 2)), jnp.zeros(2))]

    def loss(net):
        (w1, b1), (w2, b2) = net
        h = jnp.tanh(tap(X @ w1 + b1, "0", activation=jnp.tanh))
        return (tap(h @ w2 + b2, "1") ** 2).sum()

    with record() as recorder:
        g = jax.grad(loss)(net)
        tap_step(net, g, jax.tree.map(lambda p, g: p - g, net, g))
    trace = recorder.trace
    assert list(trace["layer"].values) == ["0", "1"]
    assert list(trace["activation"].values) == ["tanh", "unknown"]
    assert np.isnan(trace["saturated_fraction"].values).tolist() == [[False, True]]
    assert missing(trace)["1"]["saturated_fraction"] == "the tap was given no activation"
    np.testing.assert_allclose(trace["grad_rms"][0, 0], np.sqrt(np.mean(g[0][0] ** 2)))


class Flax(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(11):
            x = nn.relu(tap(nn.Dense(5)(x), f"Dense_{i}", activation=nn.relu))
        return nn.Dense(1)(x)


@pytest.mark.parametrize("whole", [True, False])
def test_flax_linen(whole):
    model = Flax()
    params = model.init(jax.random.key(0), X)
    inner = (lambda p: p) if whole else (lambda p: {"params": p})
    params = params if whole else params["params"]

    @jax.jit
    def train(p):
        value, g = jax.value_and_grad(lambda p: (model.apply(inner(p), X) ** 2).mean())(p)
        updated = jax.tree.map(lambda p, g: p - 0.1 * g, p, g)
        tap_step(p, g, updated, loss=value)
        return updated

    with record() as recorder:
        train(train(params))
    trace = recorder.trace
    names = [f"Dense_{i}" for i in range(12)]
    assert list(trace["layer"].values) == names
    assert list(trace["fan_in"].values) == [4] + [5] * 11
    assert list(trace["fan_out"].values) == [5] * 11 + [1]
    assert np.isfinite(trace["update_ratio"]).all()
    assert np.isfinite(trace["delta_rms"][:, :11]).all()
    assert missing(trace)["Dense_11"]["delta_rms"].startswith("no tap has this name; taps: Dense_0")


class Flax_NNX(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 6, rngs=rngs)])
        self.out = nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x):
        for i, layer in enumerate(self.layers):
            x = nnx.relu(tap(layer(x), f"layers/{i}", activation=nnx.relu))
        return tap(self.out(x), "out")


@pytest.mark.parametrize("functional", [True, False])
def test_flax_nnx(functional):
    model = Flax_NNX()

    def loss(model):
        return (model(jnp.array(X)) ** 2).mean()

    @nnx.jit
    def train(model):
        value, g = nnx.value_and_grad(loss)(model)
        before = nnx.state(model, nnx.Param)
        updated = jax.tree.map(lambda p, g: p - 0.1 * g, before, g)
        tap_step(before, g, updated, loss=value)
        nnx.update(model, updated)

    @jax.jit
    def train_functional(params):
        value, g = jax.value_and_grad(lambda p: loss(nnx.merge(graph, p)))(params)
        updated = jax.tree.map(lambda p, g: p - 0.1 * g, params, g)
        tap_step(params, g, updated, loss=value)
        return updated

    with record() as recorder:
        if functional:
            graph, params = nnx.split(model)
            train_functional(train_functional(params))
        else:
            train(model)
            train(model)
    trace = recorder.trace
    assert list(trace["layer"].values) == ["layers/0", "layers/1", "out"]
    assert list(trace["fan_out"].values) == [5, 6, 1]
    assert (np.diff(trace["loss"]) < 0).all()
    for name in ["grad_rms", "delta_rms", "weight_rms", "update_ratio"]:
        assert (trace[name] > 0).all(), name


class Equinox(eqx.Module):
    layers: list
    conv: eqx.nn.Conv1d

    def __init__(self):
        keys = jax.random.split(jax.random.key(0), 3)
        self.conv = eqx.nn.Conv1d(1, 3, 2, key=keys[2])
        self.layers = [eqx.nn.Linear(9, 5, key=keys[0]), eqx.nn.Linear(5, 1, key=keys[1])]

    def __call__(self, x):
        x = jax.nn.relu(tap(self.conv(x[None]), "conv", activation=jax.nn.relu, axis=0)).ravel()
        x = jnp.tanh(tap(self.layers[0](x), "layers/0", activation=jnp.tanh))
        return tap(self.layers[1](x), "layers/1", activation="sigmoid")


def test_equinox():
    model = Equinox()

    @eqx.filter_jit
    def train(model):
        def loss(model):
            return (jax.vmap(model)(jnp.array(X)) ** 2).mean()

        value, g = eqx.filter_value_and_grad(loss)(model)
        updated = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, g))
        tap_step(model, g, updated, loss=value)
        return updated

    with record() as recorder:
        train(train(model))
    trace = recorder.trace
    assert list(trace["layer"].values) == ["conv", "layers/0", "layers/1"]
    assert list(trace["fan_in"].values) == [2, 9, 5]
    assert list(trace["fan_out"].values) == [3, 5, 1]
    assert set(trace["dead_fraction"].values[:, 0]) <= {0, 1 / 3, 2 / 3, 1}
    for name in ["grad_rms", "delta_rms", "weight_rms", "update_ratio", "activation_std"]:
        assert (trace[name] > 0).all(), name
    h = jax.vmap(model.layers[0])(
        jax.vmap(lambda x: jax.nn.relu(model.conv(x[None])).ravel())(jnp.array(X))
    )
    there = trace.dataset.sel(layer="layers/0", step=1)
    np.testing.assert_allclose(there["activation_mean"], jnp.tanh(h).mean(), rtol=1e-6)
    np.testing.assert_allclose(there["activation_std"], jnp.tanh(h).std(), rtol=1e-6)


def test_weights_without_taps_and_taps_without_weights():
    w = {"embedding": jnp.ones((4, 3)), "w": {"q": jnp.ones((3, 3)), "k": jnp.ones((3, 2))}}

    def loss(w):
        x = tap(X @ w["embedding"], "sum", activation=lambda h: h**2)
        return (x @ w["w"]["q"] @ w["w"]["k"]).sum()

    with record() as recorder:
        g = jax.grad(loss)(w)
        g["w"]["k"] = None  # a weight that is not trained
        tap_step(w, g, w)
    trace = recorder.trace
    assert list(trace["layer"].values) == ["embedding", "w/k", "w/q", "sum"]
    assert np.isnan(trace["grad_rms"].values).tolist() == [[False, True, False, True]]
    assert np.isnan(trace["delta_rms"].values).tolist() == [[True, True, True, False]]
    assert (trace["nonfinite_count"] == 0).all()
    assert missing(trace)["sum"]["grad_rms"] == (
        "no weight has this name; weights: embedding, w/k, w/q"
    )


# --- what cannot be recorded ----------------------------------------------------------------------


def test_nothing_recorded_is_said():
    with record() as recorder:
        pass
    with pytest.raises(ValueError, match="nothing has been recorded yet"):
        recorder.trace  # noqa: B018
    with record() as recorder:
        jax.grad(lambda x: tap(x, "h").sum())(jnp.ones(3))
    with pytest.raises(RecordingError, match=r"taps were met \(h\), but no step was ended"):
        recorder.trace  # noqa: B018


def test_an_activation_function_of_dp_that_jax_is_not_told_of_is_refused_by_name(monkeypatch):
    monkeypatch.delitem(functions._APPLY, "silu")
    with pytest.raises(ValueError, match="tap 'h': silu cannot be given by its name; pass the"):
        functions.function_of("silu", "h")


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda: tap(jnp.arange(3), "h"), TypeError, "tap 'h': expected an array of real floating"),
        (lambda: tap(jnp.ones(3) * 1j, "h"), TypeError, "got complex128 of shape"),
        (lambda: tap(jnp.ones(3), 3), TypeError, "must be a string, such as 'h1', got 3"),
        (lambda: tap(jnp.ones(3), "h", activation="thanh"), ValueError, "thanh"),
        (lambda: tap(jnp.ones(3), "h", activation=[1]), TypeError, "activation must be a name"),
        (lambda: tap(jnp.ones(3), "h", axis=1), ValueError, "no axis 1 in an array of"),
        (lambda: tap(jnp.ones(3), "h", step=0.5), TypeError, "step must be one integer"),
        (lambda: tap_step({"w": jnp.ones((2, 2))}, {}), ValueError, "has none of the weights"),
        (
            lambda: tap_step({"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 3))}),
            ValueError,
            "grads of 'w' has the shape",
        ),
        (lambda: tap_step({}, {}, loss=jnp.ones(2)), ValueError, "loss must be one number"),
        (lambda: record(every=0).__enter__(), ValueError, "every must be an integer"),
        (lambda: record(quantities=["los"]).__enter__(), ValueError, "los"),
    ],
)
def test_bad_input(bad, error, message):
    with record(), pytest.raises(error, match=message):
        bad()


W = {"h": jnp.ones((4, 3))}


def tapped(w, name="h", units=3, **options):
    return tap((X @ w["h"])[:, :units], name, **options).sum()


def wrong(case):
    """Training steps that would give a wrong number."""
    if case == "two layers of one name":
        g = jax.grad(lambda w: tapped(w) + tapped(w, units=2))(W)
        tap_step(W, g)
    elif case == "a new layer":
        tap_step(W, jax.grad(tapped)(W))
        tap_step(W, jax.grad(functools.partial(tapped, name="k"))(W))
    elif case == "different steps":
        tap_step(W, jax.grad(functools.partial(tapped, step=2))(W), step=4)
    elif case == "a tap without its step":
        tap_step(W, jax.grad(tapped)(W), step=4)
    elif case == "back in time":
        tap_step(W, W, step=4)
        tap_step(W, W, step=0)
    elif case == "other members":
        tap_step(W, W)
        jax.vmap(tap_step)({"h": jnp.ones((2, 4, 3))}, {"h": jnp.ones((2, 4, 3))})
    elif case == "members at different steps":
        jax.vmap(lambda i: tap_step(W, W, step=i))(jnp.array([0, 2]))
    elif case == "members without weights":

        def train(rate):
            h = X @ W["h"]
            g = jax.vmap(jax.grad(lambda h: tap(h, "h").sum()))(h)
            tap_step(W, {"h": X.T @ g}, {"h": W["h"] - rate})

        jax.vmap(train)(jnp.ones(len(X)))
    elif case == "mapped otherwise":
        g = jax.vmap(jax.grad(tapped))({"h": jnp.ones((2, 4, 3))})
        jax.vmap(lambda g: tap_step(W, g))({"h": jnp.concatenate([g["h"], g["h"]])})


def test_members_that_share_their_weights_still():
    def train(rate):
        g = jax.grad(tapped)(W)
        tap_step(W, g, jax.tree.map(lambda p, g: p - rate * g, W, g))

    with record() as recorder:
        jax.vmap(train)(jnp.array([0.0, 0.5, 1.0]))
    trace = recorder.trace
    for name in ["delta_rms", "grad_rms", "activation_mean"]:
        assert (trace[name] == trace[name][0, 0, 0]).all(), name
    np.testing.assert_allclose(trace["update_ratio"][0, 0], trace["grad_rms"][0, 0] * [0, 0.5, 1])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("members without weights", "members and samples cannot be told apart"),
        ("two layers of one name", r"'h' was called with 3 units .* and with 2"),
        ("a new layer", "step 3 has a layer 'k'"),
        ("different steps", "tap 'h' was given step=2, tap_step step=4"),
        ("a tap without its step", "tap 'h' was given step=None, tap_step step=4"),
        ("back in time", "step 1 was ended after step 5"),
        ("other members", r"step 3 has members of shape \(2,\), the steps before it \(\)"),
        ("members at different steps", "different steps, \\[0, 2\\]"),
        ("mapped otherwise", r"mapped over axes of \(2,\), tap_step over \(4,\)"),
    ],
)
def test_a_wrong_number_is_refused(case, message):
    every = 2 if "step" in case or "time" in case else 1
    with record(every=every) as recorder:
        wrong(case)
    message = message.replace("step 3 has", "step 2 has")
    with pytest.raises(RecordingError, match=message):
        recorder.trace  # noqa: B018


def test_several_devices():
    program = """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        from gradiometer.jax import record, tap, tap_step
        from gradiometer.recording import RecordingError

        mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
        w = {"h": jnp.arange(12.0).reshape(4, 3)}
        x = jnp.sin(jnp.arange(32.0)).reshape(8, 4)

        def loss(w, x):
            return (tap(x @ w["h"], "h", activation="tanh") ** 2).sum()

        @jax.jit
        def train(w, x):
            g = jax.grad(loss)(w, x)
            tap_step(w, g, jax.tree.map(lambda p, g: p - 0.01 * g, w, g))

        seen = []
        for spec in (P("batch"), P()):
            with record() as recorder:
                for _ in range(3):
                    train(w, jax.device_put(x, NamedSharding(mesh, spec)))
            seen.append(recorder.trace)
        for name in seen[0].dataset.data_vars:
            np.testing.assert_allclose(seen[0][name], seen[1][name], rtol=1e-5, err_msg=name)
        assert seen[0]["delta_rms"].shape == (3, 1)

        try:
            with record():
                jax.shard_map(
                    lambda x: jax.grad(lambda x: loss(w, x))(x),
                    mesh=mesh, in_specs=P("batch"), out_specs=P("batch"),
                )(x)
        except RecordingError as error:
            assert "stands inside shard_map or pmap" in str(error)
        else:
            raise AssertionError("not refused")
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_jax_the_error_says_what_to_install():
    program = "import sys; sys.modules['jax'] = None; import gradiometer.jax"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("ImportError: gradiometer.jax needs JAX (")
    assert done.stderr.splitlines()[-1].endswith("install it: pip install 'gradiometer[jax]'")


def test_the_public_face():
    assert set(recording.__all__) == {"record", "tap", "tap_step"}


def test_a_loss_that_was_not_told_is_no_divergence():
    with record() as recorder:
        jax.grad(lambda w: jnp.sum(tap(jnp.ones((3, 2)) @ w, "w", activation="tanh")))(
            jnp.ones((2, 2))
        )
        tap_step({"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 2))}, {"w": jnp.zeros((2, 2))})
    trace = recorder.trace
    assert np.isnan(trace["loss"]).all()
    assert "nonfinite_step" not in trace.attrs


def test_tap_step_wants_weights_first():
    with record(), pytest.raises(ValueError, match="params has no weight matrix"):
        tap_step(jnp.asarray(0.5), {"w": jnp.ones((2, 2))})
