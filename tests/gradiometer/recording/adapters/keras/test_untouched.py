"""Watching changes nothing: recorded and unrecorded trainings of Keras end in the same bits."""

import os
import random

import numpy as np
import pytest

if os.environ.get("GRADIOMETER_KERAS_TESTS") != "1":
    pytest.skip("test_backends.py runs this with each backend", allow_module_level=True)

import keras
from keras import layers as kl

from gradiometer import record

ON_JAX = keras.backend.backend() == "jax"
X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
Y = np.sin(X.sum(axis=1, keepdims=True))


class Noisy(kl.Layer):
    """Draws from the streams of a layer of one's own, NumPy and Python."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(3)

    def call(self, x):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seed)
        return x + 0.1 * noise + 0.01 * np.random.rand() + 0.01 * random.random()


def everything():
    return [
        kl.Dense(8, "tanh", kernel_regularizer="l2"), kl.Dropout(0.3), kl.Dense(8),
        kl.BatchNormalization(), kl.ReLU(), kl.GaussianNoise(0.1),
        kl.Dense(8, activity_regularizer="l2", kernel_constraint="max_norm"),
    ]  # fmt: skip


MODELS = {
    "layer of one's own": (lambda: [kl.Dense(4), Noisy()], {}),
    "recurrent": (lambda: [kl.Reshape((3, 2)), kl.LSTM(4, dropout=0.2)], {}),
    "bfloat16": (lambda: [kl.Dense(8, "relu", dtype="mixed_bfloat16")], {}),
    "clipped": (lambda: [kl.Dense(8, "relu")], {"optimizer": keras.optimizers.Adam(clipnorm=0.1)}),
}
if ON_JAX:
    MODELS["two steps per execution"] = (
        lambda: [kl.Dense(8, "tanh"), kl.Dropout(0.3)], {"steps_per_execution": 2},
    )  # fmt: skip


def trained(layers, options, recording):
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((6,)), *layers(), kl.Dense(1)])
    options = {"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **options}
    if not isinstance(options["optimizer"], str):
        options["optimizer"] = options["optimizer"].from_config(options["optimizer"].get_config())
    net.compile(**options)

    def train():
        fit = net.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y))
        return [fit.history, net.train_on_batch(X, Y, return_dict=True)]

    if recording:
        with record(net, reference=(X, Y), histograms=True) as recorder:
            logs = train()
        assert recorder.n_steps == 7
    else:
        logs = train()
    logs.append(net.train_on_batch(X, Y, return_dict=True))  # after the block
    variables = [*net.variables, *net.optimizer.variables, *net.metrics_variables]
    return [keras.ops.convert_to_numpy(v.value) for v in variables], logs, random.random(), net


def test_dropout_and_norms():
    check(everything, {})


@pytest.mark.parametrize("name", MODELS)
def test_other_models(name):
    check(*MODELS[name])


def check(layers, options):
    plain, logs, drawn, _ = trained(layers, options, recording=False)
    found, found_logs, found_drawn, net = trained(layers, options, recording=True)
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found_logs == logs
    assert found_drawn == drawn
    for part in net._flatten_layers():
        assert "call" not in vars(part)
    assert "make_train_function" not in vars(net)


def test_nothing_stays_after_an_error():
    net = keras.Sequential([keras.Input((6,)), kl.Dense(4, "relu"), kl.Dense(1)])
    net.compile("sgd", "mse")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    recorder = record(net)
    with pytest.raises(KeyboardInterrupt), recorder:
        net.fit(X, Y, batch_size=4, verbose=0, callbacks=[Stop()])
    assert recorder.n_steps == 2
    assert recorder.trace["loss"].shape == (2,)
    assert "make_train_function" not in vars(net)
