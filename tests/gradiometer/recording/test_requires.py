"""Only the arrays are fetched that the quantities wanted need."""

import numpy as np
import pytest

from gradiometer import quantities
from gradiometer.recording import requires
from gradiometer.recording.session import Session

ARRAYS = {
    "input", "pre_activation", "activation", "saturated", "delta", "gradient", "used", "weight",
    "weight_after", "reference_activation", "affine_delta", "phi_delta", "arriving",
}  # fmt: skip


def test_every_array_that_is_needed_is_one_of_those_named():
    for row in quantities.QUANTITIES.values():
        assert {*row.needs, *row.looks_at} <= ARRAYS
        assert row.of is None or len(row.needs) == 1
    assert all(f"`{name}`" in quantities.__doc__ for name in ARRAYS)


def test_the_function_of_a_row_is_found_by_its_array():
    ((name, rms),) = requires.measured_alone("input")  # not `rows`, which is no function of entries
    assert name == "input_rms"
    assert rms(np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))


@pytest.mark.parametrize(
    ("wanted", "arrays"),
    [
        (["loss", "accuracy"], set()),
        (["dead_fraction"], {"reference_activation"}),
        (["backward_live_rms"], {"delta", "affine_delta", "weight", "input"}),
        (["nonfinite_count"], {"activation", "delta", "gradient", "weight_after"}),
    ],
)
def test_arrays_of_quantities(wanted, arrays):
    assert Session(quantities=wanted).arrays == arrays


def test_what_is_on_request_is_not_recorded_by_default():
    assert not {*Session().quantities} & {*quantities.ON_REQUEST}
    assert Session(quantities=quantities.ON_REQUEST).quantities == quantities.ON_REQUEST
