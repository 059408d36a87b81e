"""Functions of quantities: shares and histograms."""

import numpy as np
import pytest

from gradiometer import quantities


def test_a_unit_is_dead_only_if_no_sample_activates_it():
    activation = np.array([[0.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    assert quantities.dead_fraction(activation) == pytest.approx(1 / 3)


def test_histogram_bins():
    matrix = np.array([0.0, 1e-30, 0.5, 1.0, -1.5, np.inf])
    counts = quantities.log10_histogram(matrix)
    edges = quantities.HISTOGRAM_EDGES
    assert counts[0] == 2  # zero, and what is below the lowest edge
    assert counts[list(edges).index(-0.5)] == 1
    assert counts[list(edges).index(0.0)] == 2
    assert counts.sum() == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_share_of_zeros_is_nan_where_entries_are_not_finite(bad):
    assert quantities.zero_fraction(np.array([0.0, 1.0])) == 0.5
    assert np.isnan(quantities.zero_fraction(np.array([0.0, bad, 1.0])))
