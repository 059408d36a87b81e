"""A step put together from parts: what was not put is missing, in that layer and step alone."""

import numpy as np
import pytest

from gradiometer import reductions
from gradiometer.recording.assembly import (
    REFERENCE,
    Assembly,
    Measured,
    add_arrays,
    join,
    one_step,
    pooled,
)
from gradiometer.recording.measure import LayerArrays
from gradiometer.recording.recorder import Recorder
from gradiometer.recording.session import LayerInfo, Session


def recorder_of(*names, **settings):
    recorder = Recorder(Session(**settings))
    recorder.session.begin([LayerInfo(name, 2, 3) for name in names])
    return recorder


def test_what_was_not_put_is_missing_and_what_is_not_finite_is_not():
    recorder = recorder_of("h1", "out", quantities=["grad_rms", "delta_rms", "loss"])
    step = Assembly(recorder.session)
    step.put(0, Measured({"grad_rms": 1.0}))
    step.put(1, Measured({"grad_rms": np.nan}, {"gradient": 3}))
    step.add(1, loss=0.5)
    step = Assembly(recorder.session)
    step.put(1, Measured({"grad_rms": 2.0}))
    step.add(2)
    np.testing.assert_array_equal(recorder["grad_rms"], [[1, np.nan], [np.nan, 2]])
    np.testing.assert_array_equal(recorder.session.mask("grad_rms"), [[0, 0], [1, 0]])
    assert recorder.session.mask("delta_rms").all()
    np.testing.assert_array_equal(recorder.session.mask("loss"), [False, True])


@pytest.mark.parametrize("members", [(), (2,)])
def test_arrays_of_some_layers_leave_the_others_missing(members):
    recorder = recorder_of("h1", "out", histograms=True, quantities=["grad_rms"])
    gradient = np.ones((*members, 2, 3))
    zero = np.zeros(members)
    add_arrays(recorder.session, *one_step(1, [LayerArrays(), LayerArrays(gradient)], zero, zero))
    for name in ("grad_rms", "grad_log10_histogram"):
        mask = recorder.session.mask(name)
        assert mask.shape == (1, 2, *members)
        assert mask[0, 0].all()
        assert not mask[0, 1].any()


def test_a_clip_factor_that_is_not_known_is_missing():
    recorder = recorder_of("h1", quantities=["clip_factor"])
    arrays = LayerArrays(np.ones((2, 3)), used_known=False)
    add_arrays(recorder.session, *one_step(1, [arrays], 0.0, 0.0))
    assert recorder.session.mask("clip_factor").all()


def test_a_unit_is_dead_if_it_is_zero_in_every_part():
    recorder = recorder_of("h1", quantities=["dead_fraction"])
    parts = [
        Measured(counts={REFERENCE: 0}, zero_units=np.array(zero), size=6)
        for zero in ([True, True, False], [True, False, False])
    ]
    step = Assembly(recorder.session)
    step.put(0, join(parts))
    step.add(1)
    assert recorder["dead_fraction"][0, 0] == pytest.approx(1 / 3)


def test_steps_that_were_undone_leave_no_mask():
    recorder = recorder_of("h1", quantities=["grad_rms"])
    for number in (1, 2):
        Assembly(recorder.session).add(number)
    recorder.session.forget_after(1)
    assert recorder.session.steps == [1]
    assert recorder.session.mask("grad_rms").shape == (1, 1)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1.0, 1e200, 1e307])
def test_batches_that_are_joined_are_as_one_batch_of_any_size(size):
    parts = [np.random.default_rng(i).standard_normal(10 * (i + 1)) * size for i in range(3)]
    measured = [
        {
            "delta_rms": reductions.rms(part),
            "activation_mean": reductions.mean(part),
            "activation_std": reductions.std(part),
        }
        for part in parts
    ]
    whole = np.concatenate(parts)
    found = pooled(measured, [len(part) for part in parts])
    for name, right in (
        ("delta_rms", reductions.rms(whole)),
        ("activation_mean", reductions.mean(whole)),
        ("activation_std", reductions.std(whole)),
    ):
        assert found[name] == pytest.approx(right, rel=1e-12), name
