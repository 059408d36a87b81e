"""Arrays of any library: the entries of a matrix."""

import numpy as np

from gradiometer.arrays import entries


def test_all_axes_are_read_in_the_order_of_memory():
    kernel = np.arange(120.0).reshape(2, 3, 4, 5)
    for array in (kernel, kernel.T, kernel[::-1, :, ::2], kernel.astype(np.float16)):
        found = entries(array, None)
        assert sorted(found) == sorted(array.ravel())
        assert found.dtype in (np.float32, np.float64)
    assert np.shares_memory(entries(kernel.transpose(0, 2, 3, 1), None), kernel)
