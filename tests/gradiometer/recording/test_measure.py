"""What is measured of a layer's arrays: a row of the table is enough for one array."""

import numpy as np
import pytest

from gradiometer.quantities import HISTOGRAM, OF_LAYERS, QUANTITIES
from gradiometer.recording import measure
from gradiometer.reductions import mean

RNG = np.random.default_rng(0)
SHAPES = {
    "input": (7, 3),
    "pre_activation": (7, 4),
    "activation": (7, 4),
    "delta": (7, 4),
    "affine_delta": (7, 4),
    "phi_delta": (7, 4),
    "arriving": (7, 4),
    "gradient": (3, 4),
    "weight": (3, 4),
    "weight_after": (3, 4),
}


@pytest.mark.parametrize("array", SHAPES)
def test_a_quantity_of_one_array_needs_a_row_of_the_table_alone(array, monkeypatch):
    """As `of` of `Quantity` promises."""
    monkeypatch.setattr(
        measure, "measured_alone", lambda name: (("new", mean),) if name == array else ()
    )
    values = RNG.normal(size=SHAPES[array])
    found, _ = measure.measure(measure.LayerArrays(**{array: values}), ["new"])
    assert found["new"] == pytest.approx(values.mean())


def test_rows_that_name_a_function_are_of_these_arrays():
    assert {row.needs for row in QUANTITIES.values() if row.of} <= {(array,) for array in SHAPES}


def test_every_quantity_of_layers_is_measured():
    """Where all arrays are there; a new one that nothing measures is found here."""
    arrays = measure.LayerArrays(
        **{name: RNG.normal(size=shape) for name, shape in SHAPES.items()},
        saturated=np.zeros((7, 4), bool),
        reference_activation=RNG.normal(size=(5, 4)),
    )
    found, counts = measure.measure(arrays, [*OF_LAYERS, HISTOGRAM])
    assert {*found} == {*OF_LAYERS, HISTOGRAM} - {"nonfinite_count"}  # their sum, kept by kinds
    assert len(counts) == 4


def test_update_ratio_of_zero_weights():
    zero, one = np.zeros(4), np.ones(4)

    def update_ratio(before, after):
        with np.errstate(all="ignore"):
            found = measure.of_weights(before, after, ["update_ratio"], {}, axes=(-1,))
        return found["update_ratio"]

    assert update_ratio(zero, zero) == 0
    assert update_ratio(zero, one) == np.inf
    assert update_ratio(one, zero) == 1
