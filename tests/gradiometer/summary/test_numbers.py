"""What a trace says in numbers."""

import numpy as np
import pytest

from gradiometer.summary import decades


@pytest.mark.parametrize(
    ("first", "output", "fall"),
    [
        (1e-3, 10.0, 4.0),
        (10.0, 1e-3, -4.0),
        (1e-200, 1e200, 400.0),
        (0.0, 1.0, np.inf),
        (1.0, 0.0, -np.inf),
        (0.0, 0.0, np.nan),
        (np.nan, 1.0, np.nan),
        (1.0, np.inf, np.nan),
    ],
)
def test_decades_between_layers(first, output, fall):
    np.testing.assert_allclose(decades(first, output), fall, rtol=1e-12)
    np.testing.assert_allclose(
        decades(np.array([first, 1.0]), np.array([output, 1.0])), [fall, 0.0], rtol=1e-12
    )
