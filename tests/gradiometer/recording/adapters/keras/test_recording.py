"""What is recorded of models that Keras trains, or why not."""

import os

import numpy as np
import pytest

if os.environ.get("GRADIOMETER_KERAS_TESTS") != "1":
    pytest.skip("test_backends.py runs this with each backend", allow_module_level=True)

import keras
from keras import layers as kl

from gradiometer import record
from gradiometer.quantities import PER_LAYER
from gradiometer.recording.errors import RecordingError

X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.sin(X.sum(axis=1, keepdims=True))


def compiled(*layers, optimizer="sgd", loss="mse", shape=(6,)):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input(shape), *layers])
    net.compile(optimizer, loss)
    return net


def recorded(net, x=X, y=Y, steps=1, **options):
    with record(net, **options) as recorder:
        for _ in range(steps):
            net.train_on_batch(x, y)
    return recorder


def functional(body, shape=(6,)):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape)
    net = keras.Model(x, body(x))
    net.compile("sgd", "mse")
    return net


# --- layers ---------------------------------------------------------------------------------------


def test_some_layers_are_recorded_as_if_all_were():
    def trained(layers):
        keras.utils.set_random_seed(0)
        hidden = [kl.Dense(5, "tanh", name=f"h{i}") for i in (1, 2, 3)]
        return recorded(compiled(*hidden, kl.Dense(1, name="out")), steps=2, layers=layers).trace

    whole, part = trained(None), trained(["h3", "h1", "out"])
    assert part.layers == ["h1", "h3", "out"]
    for name in PER_LAYER:
        np.testing.assert_array_equal(part[name], whole[name].sel(layer=part.layers), err_msg=name)
    assert part.attrs["above"] == "[-1, 2, -1]"
    with pytest.raises(ValueError, match=r"unknown layer 'h4'.*h1, h2, h3, out"):
        trained(["h4"])


# --- live -----------------------------------------------------------------------------------------


def deep():
    keras.utils.set_random_seed(0)
    hidden = [kl.Dense(10, "sigmoid", name=f"h{i}") for i in range(8)]
    return compiled(*hidden, kl.Dense(2, "softmax"), loss="sparse_categorical_crossentropy")


def test_fit_is_stopped_by_a_verdict_and_so_is_a_loop_of_ones_own():
    classes = (X[:, 0] > 0).astype("int32")
    stop = {"stop_on": ["vanishing", "stalled", "saturated"], "on_verdict": lambda _: None}
    net = deep()
    with record(net, **stop) as recorder:
        net.fit(X, classes, epochs=200, batch_size=12, verbose=0)
    assert recorder.stopped is not None
    assert recorder.n_steps in (20, 80)
    fitted, net, done = net.get_weights(), deep(), 0
    with record(net, **stop) as again:
        for _ in range(200):
            net.train_on_batch(X, classes)
            done += 1
    assert done == again.n_steps == recorder.n_steps
    for mine, expected in zip(net.get_weights(), fitted, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)


# --- numbers --------------------------------------------------------------------------------------


def test_by_hand():
    """A hidden tanh layer, by NumPy."""
    net = compiled(kl.Dense(5, "tanh", name="h1"), kl.Dense(1, name="out"))
    w1, b1, w2, b2 = net.get_weights()
    found = recorded(net, quantities=[*PER_LAYER, "loss", "grad_norm", "input_rms",
                     "preactivation_mean", "backward_rms", "backward_live_rms"])  # fmt: skip
    h = X @ w1 + b1
    a = np.tanh(h)
    error = a @ w2 + b2 - Y
    d2 = 2 * error / len(X)
    back = d2 @ w2.T
    d1 = back * (1 - a**2)
    g1, g2 = X.T @ d1, a.T @ d2

    def rms(x):
        return np.sqrt((x**2).mean())

    expected = {
        "grad_mean_abs": [abs(g1).mean(), abs(g2).mean()], "grad_rms": [rms(g1), rms(g2)],
        "delta_rms": [rms(d1), rms(d2)], "activation_mean": [a.mean(), (error + Y).mean()],
        "weight_rms": [rms(w1), rms(w2)], "clip_factor": [1, 1],
        "update_ratio": [0.01 * rms(g1) / rms(w1), 0.01 * rms(g2) / rms(w2)],
        "input_rms": [rms(X), rms(a)], "preactivation_mean": [h.mean(), (error + Y).mean()],
        "backward_rms": [rms(d1 @ w1.T), rms(back)],
        "backward_live_rms": [rms(d1 @ w1.T), rms(back)],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][0], values, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(found["loss"][0], (error**2).mean(), rtol=1e-5)
    parts = [g1, d1.sum(0), g2, d2.sum(0)]
    norm = np.sqrt(sum((part**2).sum() for part in parts))
    np.testing.assert_allclose(found["grad_norm"][0], norm, rtol=1e-5)
    assert not found.missing.get("h1")
    assert found.trace.attrs["optimizer"] == "SGD"


@pytest.mark.parametrize("clip", [{"clipnorm": 1e-3}, {"global_clipnorm": 1e-3}])
def test_clipping(clip):
    optimizer = keras.optimizers.SGD(1.0, **clip)
    net = compiled(kl.Dense(5, use_bias=False), kl.Dense(1, use_bias=False), optimizer=optimizer)
    found = recorded(net)
    moved = found["update_ratio"] * found["weight_rms"]
    np.testing.assert_allclose(moved, found["clip_factor"] * found["grad_rms"], rtol=1e-3)
    assert (found["clip_factor"] < 0.1).all()


def test_a_shared_layer_is_measured_over_its_calls():
    shared = kl.Dense(6, "tanh", name="shared")
    net = functional(lambda x: kl.Dense(1)(shared(shared(x))))
    w, b = net.get_weights()[:2]
    found = recorded(net)
    first = np.tanh(X @ w + b)
    both = np.concatenate([first, np.tanh(first @ w + b)])
    assert found["activation_mean"][0, 0] == pytest.approx(both.mean(), rel=1e-4)
    assert found["delta_rms"][0, 0] > 0


def test_regularisation_is_part_of_loss_and_gradient():
    net = compiled(kl.Dense(1, kernel_regularizer=keras.regularizers.L2(10.0)))
    w, b = net.get_weights()
    error = X @ w + b - Y
    found = recorded(net)
    expected = X.T @ (2 * error / len(X)) + 20 * w
    assert found["grad_mean_abs"][0, 0] == pytest.approx(abs(expected).mean(), rel=1e-4)
    assert found["loss"][0] == pytest.approx((error**2).mean() + 10 * (w**2).sum(), rel=1e-4)


def test_accuracy_on_the_reference_batch():
    labels = (X[:, 0] > 0).astype(int)
    net = compiled(kl.Dense(8, "relu"), kl.Dense(2, "softmax", name="out"),
                   loss="sparse_categorical_crossentropy")  # fmt: skip
    expected = (net.predict(X, verbose=0).argmax(axis=1) == labels).mean()
    found = recorded(net, X, labels, reference=(X, labels))
    assert found.trace["accuracy"][0] == pytest.approx(expected)
    assert found.accuracy == pytest.approx(expected)
    assert [info.activation for info in found.layers] == ["relu", "softmax"]
    assert "softmax" in found.missing["out"]["saturated_fraction"]


def test_convolutions_embeddings_and_norms():
    net = compiled(
        kl.Embedding(10, 6, name="table"), kl.Conv1D(4, 3, name="conv"),
        kl.BatchNormalization(name="norm"), kl.ReLU(), kl.Flatten(), kl.Dense(1, name="out"),
    )  # fmt: skip
    found = recorded(net, np.random.default_rng(0).integers(0, 10, (12, 6)))
    assert [info.name for info in found.layers] == ["table", "conv", "norm", "out"]
    assert [info.activation for info in found.layers] == ["identity", "identity", "relu",
                                                          "identity"]  # fmt: skip
    assert [(info.fan_in, info.fan_out) for info in found.layers] == [
        (10, 6), (18, 4), (0, 0), (16, 1),
    ]  # fmt: skip
    for name in ("grad_rms", "delta_rms", "activation_std", "dead_fraction"):
        assert np.isfinite(found[name]).all()


# --- what cannot be had ---------------------------------------------------------------------------


def test_frozen_layers_and_layers_in_loops():
    net = compiled(kl.Reshape((3, 2)), kl.LSTM(4, name="lstm"), kl.Dense(3, name="fixed"),
                   kl.Dense(1, name="out"))  # fmt: skip
    net.get_layer("fixed").trainable = False
    net.compile("sgd", "mse")
    found = recorded(net)
    roles = {info.name: info.role for info in found.layers}
    assert roles["fixed"] == "frozen"
    assert found.missing["fixed"]["grad_rms"] == "it is frozen"
    cells = [name for name in roles if name.startswith("lstm_cell/")]
    assert len(cells) == 2
    for name in cells:
        assert found.missing[name]["delta_rms"] == "it is called inside the loop of 'lstm'"
    trace = found.trace
    assert np.isfinite(trace["grad_rms"].sel(layer=cells)).all()
    for name in PER_LAYER:  # every NaN has a reason
        for i, info in enumerate(found.layers):
            if np.isnan(found[name][0, i]):
                assert trace.why(name, info.name)


FOLLOWED = {
    "relu in a graph": (lambda h: keras.ops.relu(h), "relu", None),
    "layer": (lambda h: kl.LeakyReLU(negative_slope=0.1)(h), "leaky_relu", None),
    "after a pooling": (lambda h: kl.ReLU()(kl.Dropout(0.5)(h)), "unknown", "after a Dropout"),
    "its own": (lambda h: kl.Lambda(lambda x: x * x)(h), "unknown", "Lambda"),
    "two": (lambda h: kl.Concatenate()([kl.ReLU()(h), kl.Activation("tanh")(h)]), "unknown",
            "several functions"),
    "a product with itself": (lambda h: h * keras.ops.sigmoid(h), "unknown", "several"),
    "sine": (lambda h: keras.ops.sin(h), "unknown", "Sin"),
    "skip": (lambda h: kl.Add()([h, h]), "identity", None),
}  # fmt: skip


@pytest.mark.parametrize("what", FOLLOWED)
def test_what_is_applied_to_a_layers_output(what):
    after, activation, why = FOLLOWED[what]
    net = functional(lambda x: kl.Dense(1)(after(kl.Dense(5, name="h1")(x))))
    found = recorded(net)
    assert found.layers[0].activation == activation
    missing = found.missing.get("h1", {}).get("activation_mean")
    assert missing is None if why is None else why in missing
    assert np.isnan(found["activation_mean"][0, 0]) == (why is not None)
    assert np.isfinite(found["delta_rms"]).all()


def test_a_model_of_ones_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = kl.Dense(4, "tanh"), kl.Dense(4), kl.Dense(1)

        def call(self, x):
            return self.c(keras.ops.square(self.b(self.a(x))))

    keras.utils.set_random_seed(0)
    net = Own()  # built by fit
    net.compile("sgd", "mse")
    with record(net) as recorder:
        net.fit(X, Y, batch_size=4, verbose=0)
    assert recorder.n_steps == 3
    assert [info.activation for info in recorder.layers] == ["tanh", "unknown", "identity"]
    why = recorder.missing[recorder.layers[1].name]["activation_mean"]
    assert why == "it is not seen what becomes of its output"


# --- steps and errors -----------------------------------------------------------------------------


def test_every_and_validation():
    net = compiled(kl.Dense(4, "relu"), kl.Dense(1))
    with record(net, every=2) as recorder:
        net.fit(X, Y, batch_size=5, epochs=2, validation_data=(X, Y), verbose=0)
    np.testing.assert_array_equal(recorder.trace["step"], [1, 3, 5])


def test_refused():
    class Own(keras.Sequential):
        def train_step(self, *args):
            return super().train_step(*args)

    with pytest.raises(RecordingError, match="train_step of its own"):
        record(Own([kl.Dense(1)]))
    net = compiled(kl.Dense(1), optimizer=keras.optimizers.SGD(gradient_accumulation_steps=2))
    with pytest.raises(RecordingError, match="accumulates gradients over 2 batches"):
        recorded(net)
    net = compiled(
        kl.Dense(1), optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    )
    with pytest.raises(RecordingError, match="mixed_bfloat16"):
        recorded(net)
    net = compiled(kl.Dense(1))
    with pytest.raises(RecordingError, match="seen by themselves; train inside a with block"):
        record(net).before_step()
    with pytest.raises(TypeError, match="reference must be a pair"):
        record(net, reference=X)


def test_nothing_recorded():
    net = keras.Sequential([kl.Dense(1)])
    with pytest.raises(ValueError, match="compile"), record(net) as recorder:
        net.fit(X, Y)
    with pytest.raises(ValueError, match="no step of fit or train_on_batch"):
        _ = recorder.trace
    net.compile("sgd")
    with pytest.raises((RecordingError, ValueError), match=r"[Ll]oss"):
        recorded(net)


def test_unknown_backend(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(RecordingError, match=r"Keras runs on numpy.*torch or jax"):
        record(compiled(kl.Dense(1)))
