"""The verbs as Python functions: what they take, what they write, what they refuse to lose."""

import numpy as np
import pytest

import gradiometer
from gradiometer.experiment import Experiment


def test_run_takes_an_experiment_a_file_or_settings(tmp_path):
    described = Experiment.of(layers=1, steps=2)
    described.save(tmp_path / "e.toml")
    losses = [
        gradiometer.run(described)["loss"],
        gradiometer.run(tmp_path / "e.toml")["loss"],
        gradiometer.run(layers=1, steps=2)["loss"],
        gradiometer.run(Experiment.of(layers=5), layers=1, steps=2)["loss"],
    ]
    for loss in losses[1:]:
        np.testing.assert_array_equal(loss, losses[0])


def test_figures_can_be_drawn_from_a_trace_or_its_file(tmp_path):
    trace = gradiometer.run(layers=1, steps=2, out=tmp_path)
    for source in [trace, tmp_path / "trace.nc"]:
        drawn = gradiometer.plot(source, "profile", out=tmp_path / "again.png")
        assert len(drawn.axes) == 2
        assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"unknown figure 'profil'; did you mean 'profile'\?"):
        gradiometer.plot(trace, "profil")
