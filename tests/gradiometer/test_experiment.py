"""A description: what it accepts, how it is named and kept, and that each field does something."""

import copy
import itertools
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dp
from dp.optimizers import OPTIMIZERS
from gradiometer import experiment
from gradiometer.data import DATASETS
from gradiometer.events import ListenerWarning, StepRecorded
from gradiometer.experiment import Experiment, ExperimentError

SMALL = {"layers": 2, "width": 4, "steps": 3, "batch_size": 16, "activation": "tanh"}


def test_numbers_of_numpy_are_settings_as_those_of_python_are():
    plain = Experiment.of(
        layers=2, seed=3, init_scale=0.5, learning_rate=2, residual=True, scaling=0.25,
        optimizer="adam", hyperparameters={"beta1": 0.5}, quantities=["grad_rms", "delta_rms"],
    )  # fmt: skip
    given = Experiment.of(
        layers=np.int64(2), seed=np.uint8(3), init_scale=np.float32(0.5), learning_rate=np.int16(2),
        residual=np.bool_(True), scaling=np.float64(0.25), optimizer=np.str_("adam"),
        hyperparameters={"beta1": np.longdouble(0.5)},
        quantities=np.array(["grad_rms", "delta_rms"]).tolist(),
    )  # fmt: skip
    assert given == plain
    assert given.hash == plain.hash
    assert given.model_dump_json() == plain.model_dump_json()
    for value in given.model_dump().values():
        assert not isinstance(value, np.generic)
    with pytest.raises(ExperimentError, match=r"layers: .*got 2.5"):
        Experiment.of(layers=np.float64(2.5))


def test_the_same_description_gives_the_same_numbers():
    first, second = Experiment.of(**SMALL), Experiment.of(**SMALL)
    assert first == second
    assert first.hash == second.hash
    one, two = first.run(), second.run()
    for name in one.dataset.data_vars:
        np.testing.assert_array_equal(one[name], two[name])


OTHERS = {
    "data": "iris",
    "scaling": "raw",
    "layers": 3,
    "width": 5,
    "activation": "relu",
    "init": "glorot_uniform",
    "init_scale": 2.0,
    "normalisation": "layer",
    "residual": True,
    "loss": "squared_error",
    "reduction": "mean",
    "optimizer": "adam",
    "learning_rate": 0.01,
    "steps": 4,
    "batch_size": 32,
    "seed": 1,
    "members": 2,
    "dtype": "float32",
    "every": 2,
    "quantities": ["grad_rms", "delta_rms"],
    "histograms": True,
    "decision": False,
}


def test_every_field_is_tried():
    assert set(OTHERS) | {"clip", "hyperparameters"} == set(Experiment.model_fields)


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_changes_name_and_result(field):
    base, changed = Experiment.of(**SMALL), Experiment.of(**{**SMALL, field: OTHERS[field]})
    assert base.hash != changed.hash
    assert base.title != changed.title
    one, two = base.run().dataset, changed.run().dataset
    last = -1, 0
    assert (
        dict(one.sizes) != dict(two.sizes)
        or set(one.data_vars) != set(two.data_vars)
        or not np.array_equal(one["grad_rms"][last], two["grad_rms"][last])
    )


def test_clip_is_the_ceiling_of_the_relu():
    trace = Experiment.of(**{**SMALL, "activation": "relu", "clip": 0.5}).run()
    free = Experiment.of(**{**SMALL, "activation": "relu"}).run()
    assert (trace["activation_mean"].sel(layer="h1") <= 0.5).all()
    assert (trace["activation_mean"] < free["activation_mean"]).sel(layer="h1").all()
    assert (trace["saturated_fraction"] > free["saturated_fraction"]).sel(layer="h1").any()


def test_hyperparameters_reach_the_optimiser():
    settings = {**SMALL, "optimizer": "momentum"}
    slow = Experiment.of(**settings, hyperparameters={"beta": 0.999}).run()
    fast = Experiment.of(**settings, hyperparameters={"beta": 0.1}).run()
    assert (slow["update_ratio"] < fast["update_ratio"]).all()


@pytest.mark.parametrize("data", DATASETS)
def test_every_data_set_can_be_learned_from(data):
    trace = Experiment.of(
        data=data, layers=1, activation="tanh", steps=300, learning_rate=0.01
    ).run()
    classes = {"iris": 3, "digits": 10}.get(data, 2)
    assert trace["accuracy"].values[-1] > 0.8 > 1 / classes
    assert trace["loss"].values[-20:].mean() < 0.7 * trace["loss"].values[:20].mean()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("normalisation", ["none", "layer", "batch"])
def test_every_optimiser_learns_under_every_normalisation(optimizer, normalisation):
    trace = Experiment.of(
        layers=3,
        activation="tanh",
        residual=True,
        optimizer=optimizer,
        normalisation=normalisation,
        learning_rate=0.01,
        steps=200,
    ).run()
    assert trace["accuracy"].values[-1] == 1.0


def test_batch_normalisation_brings_the_sigmoids_gradient_back():
    # over the batch a deep sigmoid layer hardly varies; dividing by that spread undoes the fading
    plain = Experiment.of(steps=1, members=5).run()
    normalised = Experiment.of(steps=1, members=5, normalisation="batch").run()

    def fall(trace):
        delta = np.median(trace["delta_rms"].values[0], axis=-1)
        return np.log10(delta[-1] / delta[0])

    assert fall(plain) > 4 > 1 > fall(normalised)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "layers": st.integers(1, 10**6),
            "init_scale": st.floats(1e-300, 1e300),
            "learning_rate": st.floats(1e-300, 1e300),
            "scaling": st.one_of(st.sampled_from(["raw", "standardise"]), st.floats(1e-9, 1e9)),
            "activation": st.sampled_from(sorted(dp.activations.ACTIVATIONS)),
            "init": st.sampled_from(sorted(dp.initializers.INITIALIZERS)),
            "residual": st.booleans(),
            "dtype": st.sampled_from(["float32", "float64"]),
        },
    )
)
def test_toml_keeps_a_description(tmp_path_factory, settings):
    path = tmp_path_factory.mktemp("toml") / "e.toml"
    described = Experiment.of(**settings)
    described.save(path)
    assert Experiment.load(path) == described
    assert Experiment.load(path).hash == described.hash


def test_toml_keeps_tables_and_optional_fields(tmp_path):
    path = tmp_path / "e.toml"
    described = Experiment.of(
        activation="relu", clip=6.0, optimizer="adam", hyperparameters={"beta1": 0.5}
    )
    described.save(path)
    assert Experiment.load(path) == described
    assert Experiment.load(path, layers=3).layers == 3
    assert os.listdir(tmp_path) == ["e.toml"]


def test_a_description_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Experiment.of(**SMALL).layers = 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": 3}, "unknown setting 'layer'; did you mean 'layers'?"),
        ({"layers": 2.5}, "layers: .*integer.* 2.5"),
        ({"seed": -1}, "seed: .*greater than or equal to 0, got -1"),
        ({"members": 0}, "members: .*greater than or equal to 1, got 0"),
        ({"every": 0}, "every: .*greater than or equal to 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: .*got nan"),
        ({"learning_rate": float("inf")}, "learning_rate: .*got inf"),
        ({"learning_rate": "fast"}, "learning_rate: .*number.*got 'fast'"),
        ({"init_scale": 0}, "init_scale: .*greater than 0, got 0"),
        ({"dtype": "float16"}, "dtype: .*'float32' or 'float64', got 'float16'"),
        ({"normalisation": "group"}, "normalisation: .*'none', 'layer' or 'batch', got 'group'"),
        ({"optimizer": "adm"}, "unknown optimiser 'adm'; did you mean 'adam'?"),
        ({"hyperparameters": {"alpha": 0.1}}, "alpha is the learning rate; set learning_rate"),
        ({"hyperparameters": {"beta": 0.1}}, "unknown hyperparameter of sgd 'beta'"),
        ({"activation": "relu", "clip": -1}, "clip: .*greater than 0, got -1"),
        ({"activation": "tanh", "clip": 1}, "only relu can be clipped"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ExperimentError, match=words):
        Experiment.of(**settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("layers: 3", "not a TOML file .*layers = 10"),
        ("layers = 3\nlayers = 4", "not a TOML file"),
        ("wdith = 3", "did you mean 'width'?"),
    ],
)
def test_bad_files_are_named(text, words, tmp_path):
    path = tmp_path / "e.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ExperimentError, match=f"e.toml.*{words}"):
        Experiment.load(path)


def test_every_step_is_told():
    told = []
    Experiment.of(**SMALL).run(on_event=told.append)
    assert [(event.step, event.steps) for event in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(np.isfinite(event.loss) and 0 <= event.accuracy <= 1 for event in told)


@pytest.mark.parametrize("members", [1, 2])
def test_what_is_told_of_a_step_is_what_the_trace_has(members):
    described = Experiment.of(**{**SMALL, "steps": 40, "every": 3, "members": members})
    heard = []
    trace = described.run(on_event=heard.append)
    told = [event for event in heard if isinstance(event, StepRecorded)]
    assert [event.step for event in told] == list(trace.dataset["step"].values)
    for row, event in enumerate(told):
        assert event.layers == tuple(trace.dataset["layer"].values)
        assert event.loss == pytest.approx(float(trace["loss"][row].mean()))
        for name, values in event.quantities.items():
            np.testing.assert_array_equal(values, trace[name][row])
            assert not values.flags.writeable
    assert "delta_rms" in told[0].quantities


def test_listening_changes_nothing():
    described = Experiment.of(**SMALL)
    alone, heard = described.run(), described.run(on_event=lambda event: None)
    for name in alone.dataset.data_vars:
        np.testing.assert_array_equal(alone[name], heard[name])


def test_a_listener_that_fails_loses_no_training():
    def fails(event):
        raise OSError("the page is gone")

    with pytest.warns(ListenerWarning, match="the page is gone"):
        trace = Experiment.of(**SMALL).run(on_event=fails)
    assert trace.attrs["steps_done"] == SMALL["steps"]


def test_a_trace_says_where_it_comes_from():
    described = Experiment.of(**SMALL, seed=7)
    attributes = described.run().dataset.attrs
    assert Experiment.model_validate_json(attributes["experiment"]) == described
    assert attributes["experiment_hash"] == described.hash
    assert (attributes["seed"], attributes["dtype"], attributes["interrupted"]) == (7, "float64", 0)
    assert attributes["wall_time_s"] > 0
    assert 0 < attributes["recording_overhead"] < 1


def test_titles_tell_ensembles_apart():
    titles = [
        Experiment.of(seed=seed, members=members).title
        for seed, members in itertools.product([0, 1], [1, 2])
    ]
    assert len(set(titles)) == 4
    assert titles[1].startswith("sigmoid-10x10-seed0-1-")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layers = true", "e.toml: layers: input should be a valid integer, got True"),
        ('layers = "3"', "e.toml: layers: input should be a valid integer, got '3'"),
        ("scaling = true", "e.toml: scaling: scaling must be .* got True"),
        (
            'optimizer = "adam"\n[hyperparameters]\nbeta1 = 2.0',
            r"beta1 must lie in \[0, 1\), got 2",
        ),
    ],
)
def test_types_in_files_are_not_guessed(text, words, tmp_path):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ExperimentError, match=words):
        Experiment.load(tmp_path / "e.toml")


def test_a_wrong_change_is_not_blamed_on_the_file(tmp_path):
    (tmp_path / "e.toml").write_text("layers = 3")
    with pytest.raises(ExperimentError, match=r"^activation: unknown"):
        Experiment.load(tmp_path / "e.toml", activation="foo")


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "e.toml").write_text("layers = 3", encoding="utf-8-sig")
    assert Experiment.load(tmp_path / "e.toml").layers == 3


def test_it_is_frozen_all_through():
    frozen = Experiment.of(optimizer="momentum", hyperparameters={"beta": 0.5})
    with pytest.raises(TypeError, match="an experiment is frozen"):
        frozen.hyperparameters["beta"] = 0.6
    with pytest.raises(TypeError, match="an experiment is frozen"):
        frozen.hyperparameters.update(beta=0.6)
    again = copy.deepcopy(pickle.loads(pickle.dumps(frozen)))
    assert again == frozen
    assert hash(again) == hash(frozen)
    assert Experiment.model_validate_json(frozen.model_dump_json()) == frozen


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_decision_of_a_batch_normalised_net_is_the_nets(activation):
    trace = Experiment.of(
        data="moons", normalisation="batch", activation=activation, layers=3, steps=100
    ).run()
    points, grid = trace["points"].values, trace.dataset
    nearest = [
        np.abs(grid[axis].values[:, None] - points[:, i]).argmin(axis=0)
        for i, axis in enumerate(["grid_x", "grid_y"])
    ]
    decided = trace["decision_class"].values[nearest[1], nearest[0]]
    shown = (decided == trace["label"].values).mean()
    assert shown == pytest.approx(trace["accuracy"].values[-1], abs=0.02)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.7681159316578168, 0.5529619443183824, 0.004976151926002902, 86.72067354008493]),
        (
            {"activation": "relu", "optimizer": "adam", "data": "moons"},
            [55.635605262236844, 1.1199715558961176, 0.0059368552511380405, 101.63843229154449],
        ),
    ],
)
def test_numbers_are_those_of_old(settings, expected):
    """Results on disk go by a hash: whoever changes these numbers raises `NUMBERS` as well."""
    assert experiment.NUMBERS == 1
    trace = Experiment.of(layers=3, steps=20, **settings).run()
    quantities = ("grad_mean_abs", "delta_rms", "update_ratio", "loss")
    found = [float(trace[name].values[-1].sum()) for name in quantities]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_settings_that_are_the_default_have_no_part_in_the_hash():
    assert Experiment.of(layers=10, clip=None).hash == Experiment().hash
    assert Experiment().chosen() == {}
    assert Experiment.of(width=3).chosen() == {"width": 3}


def test_numbers_of_another_version_have_another_hash(monkeypatch):
    before = Experiment().hash
    monkeypatch.setattr(experiment, "NUMBERS", 2)
    assert Experiment().hash != before


def test_quantities_are_chosen_by_name():
    chosen = Experiment.of(quantities=["delta_rms", "grad_rms"], **SMALL)
    assert chosen.quantities == ("grad_rms", "delta_rms")
    assert chosen.hash == Experiment.of(quantities=("grad_rms", "delta_rms"), **SMALL).hash
    of_layers = {n for n, v in chosen.run().dataset.items() if v.dims == ("step", "layer")}
    assert of_layers == {"grad_rms", "delta_rms"}
    with pytest.raises(ExperimentError, match="unknown quantity 'grad_rsm'; did you mean 'grad_rm"):
        Experiment.of(quantities=["grad_rsm"])
    with pytest.raises(ExperimentError, match="expected a list of names, got 'grad_rms'"):
        Experiment.of(quantities="grad_rms")
    with pytest.raises(ExperimentError, match="grad_mean_abs or grad_rms must be among them"):
        Experiment.of(quantities=["delta_rms"])
