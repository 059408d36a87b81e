"""Only the arrays are fetched that the quantities wanted need."""

import pytest

from gradiometer.recording import requires
from gradiometer.recording.session import Session

ARRAYS = {
    "input", "pre_activation", "activation", "saturated", "delta", "gradient", "used", "weight",
    "weight_after", "reference_activation",
}  # fmt: skip


def test_every_array_that_is_needed_is_one_of_those_named():
    for row in requires.LAYER_QUANTITIES.values():
        assert {*row.needs, *row.looks_at} <= ARRAYS
        assert row.of is None or len(row.needs) == 1
    assert all(f"`{name}`" in requires.__doc__ for name in ARRAYS)


@pytest.mark.parametrize(
    ("quantities", "arrays"),
    [
        (["loss", "accuracy"], set()),
        (["dead_fraction"], {"reference_activation"}),
        (["backward_live_rms"], {"delta", "weight", "input"}),
        (["nonfinite_count"], {"activation", "delta", "gradient", "weight_after"}),
    ],
)
def test_arrays_of_quantities(quantities, arrays):
    assert Session(quantities=quantities).arrays == arrays


def test_what_is_on_request_is_not_recorded_by_default():
    assert not {*Session().quantities} & {*requires.ON_REQUEST}
    assert Session(quantities=requires.ON_REQUEST).quantities == requires.ON_REQUEST
