import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_iris

from gradlab.data import DATASETS, Data, DataError, load


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


def test_a_factor_scales_raw_features():
    np.testing.assert_array_equal(load("iris2", 10.0).x, 10 * load("iris2", "raw").x)


def test_iris_needs_no_scikit_learn():
    code = "import sys, gradlab.data as d; d.load('iris2'); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: load("irs"), "unknown data set 'irs'; did you mean 'iris'"),
        (lambda: load("iris", "normalise"), "'normalise'"),
        (lambda: load("iris", -2.0), "above 0, got -2.0"),
        (lambda: Data.from_arrays([[1.0], [np.nan]], [0, 1]), "nan at row 1, column 0"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, 0.5]), "label 0.5"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0, 2]), "without gaps"),
        (lambda: Data.from_arrays([[1.0], [2.0]], [0]), r"labels have shape \(1,\)"),
        (lambda: Data.from_arrays([1.0, 2.0], [0, 1]), "samples × features"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(DataError, match=words):
        make()
