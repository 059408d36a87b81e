import io

import numpy as np
import pytest

from gradlab import plots
from gradlab.experiment import Experiment

RUNS = {
    "single": {"layers": 10},
    "one layer": {"layers": 1, "steps": 1},
    "deep": {"layers": 30, "width": 4},
    "ensemble": {"layers": 3, "members": 4, "activation": "tanh"},
    "three classes": {"data": "iris", "layers": 2, "activation": "relu"},
    "diverged": {"activation": "relu", "learning_rate": 1e6},
    "no gradient": {"init": "zeros", "activation": "relu", "layers": 3},
}


@pytest.fixture(scope="module", params=RUNS)
def trace(request):
    return Experiment.of(**{"steps": 8, **RUNS[request.param]}).run()


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_of_every_kind_of_run(trace, name):
    figure = getattr(trace.plot, name)()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=40)
    assert drawn.getvalue().startswith(b"\x89PNG")
    assert len(drawn.getvalue()) > 2000


def test_panels_have_one_axes_per_layer_titled_by_it():
    trace = Experiment.of(layers=4, steps=3).run()
    titles = [a.get_title() for a in trace.plot.panels().axes if a.get_visible()]
    assert titles == ["1: h1", "2: h2", "3: h3", "4: h4", "5: out"]


def test_gradients_share_a_log_axis():
    axes = Experiment.of(layers=2, steps=3).run().plot.gradients().axes[0]
    assert axes.get_yscale() == "log"


def _marks(figure, gid):
    return [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]


def test_zero_and_non_finite_values_are_marked():
    zero = Experiment.of(init="zeros", activation="relu", layers=3, steps=3).run()
    assert _marks(zero.plot.profile(), "zero")
    assert not _marks(zero.plot.profile(), "nonfinite")
    diverged = Experiment.of(activation="relu", learning_rate=1e6, steps=8).run()
    for name in ("panels", "gradients", "profile", "learning"):
        assert _marks(getattr(diverged.plot, name)(), "nonfinite"), name


def test_profile_refuses_a_step_that_was_not_recorded():
    trace = Experiment.of(layers=2, steps=9, every=4).run()
    with pytest.raises(ValueError, match="step 2 was not recorded; the trace has 3 steps from 1"):
        trace.plot.profile(steps=[2])


def test_decision_of_a_member():
    trace = Experiment.of(layers=2, steps=2, members=2, seed=5).run()
    trace.plot.decision(member=6)
    with pytest.raises(ValueError, match=r"no member 1 in this trace; it has \[5, 6\]"):
        trace.plot.decision(member=1)


def test_gallery():
    figure = plots.activations(["sigmoid", "relu"])
    visible = [a for a in figure.axes if a.get_visible()]
    assert len(visible) == 2
    sigmoid = visible[0].lines[0].get_ydata()
    np.testing.assert_allclose(sigmoid[[0, -1]], [1 / (1 + np.exp(6)), 1 / (1 + np.exp(-6))])
    with pytest.raises(ValueError, match="unknown activation 'relo'; did you mean 'relu'"):
        plots.activations(["relo"])
