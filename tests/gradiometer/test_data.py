import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_iris

from gradiometer.data import DATASETS, Data, DataError, load


def test_iris_is_the_published_one():
    x, y = load_iris(return_X_y=True)
    three, two = load("iris", "raw"), load("iris2", "raw")
    np.testing.assert_array_equal(three.x, x)
    np.testing.assert_array_equal(three.labels, y)
    np.testing.assert_array_equal(two.x, x[:100])
    np.testing.assert_array_equal(two.y, y[:100, None])


@pytest.mark.parametrize("name", DATASETS)
def test_shapes_and_labels(name):
    data = load(name)
    assert data.x.shape == (len(data.labels), data.n_features)
    assert data.y.shape == (len(data.labels), data.n_outputs)
    assert len(data.class_names) == len(np.unique(data.labels))
    assert len(data.feature_names) == data.n_features
    varies = load(name, "raw").x.std(axis=0) > 0
    np.testing.assert_allclose(data.x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(data.x.std(axis=0)[varies], 1)
    assert (data.x[:, ~varies] == 0).all()


@pytest.mark.parametrize("name", DATASETS)
def test_sizes(name):
    samples, features, outputs = (
        getattr(DATASETS[name], size) for size in ("rows", "features", "outputs")
    )
    data = load(name)
    assert data.x.dtype == data.y.dtype == np.float64
    assert data.labels.dtype == np.int64
    assert (data.x.shape, data.y.shape) == ((samples, features), (samples, outputs))
    assert data.name == name
    np.testing.assert_array_equal(data.y.sum(axis=1), data.labels if outputs == 1 else 1)
    assert np.isfinite(data.x).all()


@pytest.mark.parametrize("name", ["moons", "circles"])
def test_drawn_sets_follow_their_seed(name):
    np.testing.assert_array_equal(load(name, seed=3).x, load(name, seed=3).x)
    assert not np.array_equal(load(name, seed=3).x, load(name, seed=4).x)


@pytest.mark.parametrize("unit", [1e-300, 1e-13, 1.0, 1e300])
def test_standardising_does_not_depend_on_the_unit(unit):
    x = np.array([[1.0], [2.0], [4.0]])
    expected = Data.from_arrays(x, [0, 1, 1]).scaled("standardise").x
    scaled = Data.from_arrays(x * unit, [0, 1, 1]).scaled("standardise").x
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3, 1e300])
def test_a_constant_feature_becomes_zero(constant):
    x = np.column_stack([np.full(7, constant), np.arange(7)])
    scaled = Data.from_arrays(x, [0, 1] * 3 + [1]).scaled("standardise").x
    assert (scaled[:, 0] == 0).all()
    np.testing.assert_allclose(scaled[:, 1].std(), 1.0)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1, 0],
        [0.0, 2.0, 1.0, 0.0],
        np.array([0, 2, 1, 0], dtype=object),
        [[0], [2], [1], [0]],
        [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]],
        np.eye(3, dtype=bool)[[0, 2, 1, 0]],
    ],
)
def test_labels_come_as_classes_or_one_hot(labels):
    data = Data.from_arrays(np.ones((4, 2)), labels)
    np.testing.assert_array_equal(data.labels, [0, 2, 1, 0])
    np.testing.assert_array_equal(data.y, np.eye(3)[[0, 2, 1, 0]])


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [[1, 0], [0, 1]]])
def test_two_classes_make_one_column(labels):
    data = Data.from_arrays([[1.0], [2.0]], labels)
    np.testing.assert_array_equal(data.y, [[0.0], [1.0]])
    assert data.n_outputs == 1


def test_given_arrays_are_copied():
    x = np.zeros((2, 1))
    data = Data.from_arrays(x, [0, 1])
    x[:] = 5
    assert (data.x == 0).all()


def test_names_are_kept_or_numbered():
    data = Data.from_arrays([[1.0], [2.0]], [0, 1], class_names=["low", "high"])
    assert data.feature_names == ("feature 1",)
    assert data.class_names == ("low", "high")


def test_a_factor_scales_raw_features():
    np.testing.assert_array_equal(load("iris2", 10.0).x, 10 * load("iris2", "raw").x)


def test_iris_needs_no_heavy_import():
    code = (
        "import sys, gradiometer.data as d; d.load('iris2'); d.load('iris'); "
        "print(sorted({'sklearn', 'xarray', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8"
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: load("irs"), "unknown data set 'irs'; did you mean 'iris'"),
        (lambda: load("iris", "normalise"), "'normalise'"),
        (lambda: load("spam"), "Known: iris2, iris, digits, moons, circles"),
        (lambda: load(None), "unknown data set None"),
        (lambda: load("moons", seed=-1), r"from 0 up to 2\*\*32 - 1, got -1"),
        (lambda: load("moons", seed=0.5), "got 0.5"),
        (lambda: load("iris", -2.0), "above 0, got -2.0"),
        (lambda: load("iris", 0), "above 0, got 0"),
        (lambda: load("iris", np.nan), "got nan"),
        (lambda: load("iris", np.inf), "got inf"),
        (lambda: load("iris", True), "'standardise', 'raw' or a number above 0, got True"),
        (lambda: load("iris", None), "got None"),
        (lambda: load("iris", 1e308), "overflows: the largest value is 7.9"),
        (lambda: Data.from_arrays([[1.0], [np.nan]], [0, 1]), "nan at row 1, column 0"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, 0.5]), "label 0.5"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, 2]), "without gaps"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0]), r"labels have shape \(1,\)"),
        (lambda: Data.from_arrays([1.0, 2.0], [0, 1]), "samples × features"),
        (lambda: Data.from_arrays(np.ones((0, 3)), []), r"got shape \(0, 3\)"),
        (lambda: Data.from_arrays([[1, 2], [-np.inf, np.nan]], [0, 1]), r"-inf at row 1.*\(2 val"),
        (lambda: Data.from_arrays([["a"], ["b"]], [0, 1]), "table of numbers: .*'a'"),
        (lambda: Data.from_arrays([[1.0], [2.0, 3.0]], [0, 1]), "table of numbers"),
        (lambda: Data.from_arrays([[1j], [2.0]], [0, 1]), "complex"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [[0], [1, 2]]), "labels must be an array"),
        (lambda: Data.from_arrays([[1.0], [2.0]], 1), r"labels have shape \(\)"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [1, -1]), "label -1 at row 1 is not a class"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, np.nan]), "label nan at row 1"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, np.inf]), "label inf at row 1"),
        (lambda: Data.from_arrays([[1.0], [2.0]], ["no", "yes"]), "label 'no' at row 0.*class_na"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, None]), "label None at row 1"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [1, 1]), "at least two classes"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, 1e300]), "without gaps"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [[1, 0], [1, 1]]), r"label \[1, 1\] at row 1"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [[1, 0], [0, 0.5]]), r"\[0.0, 0.5\] at row 1"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [[1, 0], [1, 0]]), "no label is of class 1"),
        (lambda: Data.from_arrays([[1.0]] * 2, [0, 1], class_names=["a"]), "class_names .* of 2"),
        (lambda: Data.from_arrays([[1.0]] * 2, [0, 1], feature_names="x"), "feature_names"),
        (lambda: Data.from_arrays([[1.0]] * 2, [0, 1], name="mine").scaled("x"), "got 'x'"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(DataError, match=words):
        make()
