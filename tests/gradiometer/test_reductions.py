"""Means and sizes of entries: of any size, not finite, and with leading axes."""

import numpy as np
import pytest

from gradiometer import reductions


@pytest.fixture
def quiet():
    with np.errstate(all="ignore"):
        yield


def test_rms_neither_overflows_nor_underflows(quiet):
    for size in [1e-200, 1.0, 1e200]:
        np.testing.assert_allclose(reductions.rms(np.full(12, size)), size, rtol=1e-15)
    small = np.full((3, 4), 1e-30, dtype=np.float32)
    np.testing.assert_allclose(reductions.rms(small.ravel()), 1e-30, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_entries_are_never_dropped(value, quiet):
    matrix = np.ones(6)
    matrix[4] = value
    assert not np.isfinite(reductions.mean_abs(matrix))
    assert not np.isfinite(reductions.rms(matrix))
    assert not np.isfinite(reductions.mean(matrix))
    assert not np.isfinite(reductions.std(matrix))
    assert reductions.nonfinite_count(matrix) == 1


LENGTHS = [1, 37, 1 << 16, (1 << 17) + 3]  # within a part, a whole one, several


SIZES = [(size, dtype) for size in (1e-30, 1.0, 1e30, 3e38) for dtype in (np.float32, np.float64)]
SIZES += [(size, np.float64) for size in (1e-200, 1e200, 1e307)]


@pytest.mark.parametrize(("size", "dtype"), SIZES)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_vector_of_any_size_gives_no_warnings(length, size, dtype):
    x = (np.random.default_rng(0).standard_normal(length) * size / 10).astype(dtype)
    exact = x.astype(np.longdouble)
    near = pytest.approx
    tolerance = {"rel": 1e-5 if dtype == np.float32 else 1e-12}
    assert reductions.mean_abs(x) == near(float(np.abs(exact).mean()), **tolerance)
    assert reductions.rms(x) == near(float(np.sqrt((exact**2).mean())), **tolerance)
    assert reductions.std(x) == near(float(exact.std()), **tolerance, abs=1e-5 * size)
    assert reductions.mean(x) == near(float(exact.mean()), abs=1e-5 * size)
    assert reductions.nonfinite_count(x) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("length", LENGTHS)
def test_entries_of_a_vector_that_are_not_finite_give_no_warnings(length, bad):
    x = np.ones(length, np.float32)
    x[length // 2] = bad
    for quantity in (reductions.mean_abs, reductions.mean, reductions.rms, reductions.std):
        assert not np.isfinite(quantity(x)), quantity.__name__
    assert reductions.nonfinite_count(x) == 1


@pytest.mark.parametrize("length", [7, 9000])
def test_leading_axes_give_what_their_vectors_give_one_by_one(length, quiet):
    x = np.random.default_rng(1).standard_normal((3, 5, length)).astype(np.float32)
    x[0, 1] = 3e38
    x[2, 2, 3] = np.nan
    for quantity in (reductions.mean_abs, reductions.mean, reductions.rms, reductions.std):
        single = [[quantity(vector) for vector in vectors] for vectors in x]
        np.testing.assert_allclose(quantity(x), single, rtol=1e-5, err_msg=quantity.__name__)
