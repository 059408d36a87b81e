"""The waterfall: bars that lead from one measured delta to the next."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from gradiometer.decomposition import NEEDED, TERMS, decompose
from gradiometer.experiment import Experiment
from gradiometer.trace import Trace
from gradiometer.verbs.plot import plot


def run(quantities=NEEDED, **settings):
    return Experiment.of(
        **{"steps": 2, "layers": 4, "width": 12, "quantities": quantities, **settings}
    ).run()


def bars(axes):
    """Term -> its bars, (bars, 4 corners, x and y)."""
    return {
        drawn.get_gid(): np.array([path.vertices[:4] for path in drawn.get_paths()])
        for drawn in axes.collections
        if isinstance(drawn, PolyCollection)
    }


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_bars_lead_from_each_delta_to_the_next():
    trace = run(activation="sigmoid")
    axes = trace.plot.waterfall(step=1).axes[0]
    drawn = bars(axes)
    assert [*drawn] == ["weight", "slope"]  # there are no others
    deltas = trace["delta_rms"].values[0][::-1]
    np.testing.assert_allclose(drawn["weight"][:, 0, 1], deltas[:-1])
    np.testing.assert_allclose(drawn["weight"][:, 2, 1], drawn["slope"][:, 0, 1])
    np.testing.assert_allclose(drawn["slope"][:, 2, 1], deltas[1:])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), deltas)
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "5: out", "4: h4", "3: h3", "2: h2", "1: h1",
    ]  # fmt: skip


def test_the_legend_has_the_sums():
    trace = run(activation="relu", normalisation="layer", residual=True)
    told = " ".join(legend(trace.plot.waterfall(step=2)))
    parts = decompose(trace, [2])
    for term, word in zip(TERMS, ("weights", "skips", "dead", "slope", "norm"), strict=True):
        assert word in told
        total = f"{float(parts[term].sum()):+.2f} decades".replace("-", "−")
        assert total in told


def test_a_deep_net_has_several_layers_in_a_column():
    trace = run(activation="tanh", layers=50, width=5)
    axes = trace.plot.waterfall().axes[0]
    deltas = trace["delta_rms"].values[-1][::-1]
    found = bars(axes)
    assert len(found["weight"]) == 17
    np.testing.assert_allclose(found["slope"][-1, 2, 1], deltas[-1])
    np.testing.assert_allclose(found["slope"][0, 2, 1], deltas[3])


def test_bars_are_drawn_however_small_the_delta_is():
    trace = run(activation="sigmoid", layers=100, init="normal", scaling=1e-3)
    found = bars(trace.plot.waterfall(step=1).axes[0])
    assert found["slope"][-1, 2, 1] == pytest.approx(
        trace["delta_rms"].values[0, 0], rel=1e-9, abs=0
    )
    assert found["slope"][-1, 2, 1] < 1e-25


def test_an_ensemble_has_medians_and_a_range():
    trace = run(activation="tanh", members=5)
    figure = trace.plot.waterfall(step=1)
    assert "medians and 10–90 % of 5 nets" in figure.get_suptitle().replace("\n", " ")
    (ranges,) = (one for one in figure.axes[0].collections if one.get_gid() == "range")
    low, high = np.quantile(trace["delta_rms"].values[0][::-1], [0.1, 0.9], axis=1)
    found = np.array([path.vertices[:, 1] for path in ranges.get_paths()])
    np.testing.assert_allclose(found, np.stack([low, high], axis=1))
    middle = np.median(trace["delta_rms"].values[0][::-1], axis=1)
    np.testing.assert_allclose(bars(figure.axes[0])["slope"][:, 2, 1], middle[1:])


def test_without_the_quantities_it_is_an_estimate_and_says_so():
    trace = run(None, activation="sigmoid")
    figure = trace.plot.waterfall()
    assert [*bars(figure.axes[0])] == ["estimated_weight", "estimated_rest"]
    assert all("estimated" in text for text in legend(figure))


def test_what_has_no_term_has_no_bar():
    dead = run(activation="relu", init="zeros").plot.waterfall()
    assert all(len(found) == 0 for found in bars(dead.axes[0]).values())
    assert any("exactly zero" in text for text in legend(dead))
    told = " ".join(legend(dead)).replace("\n", " ")
    assert "no bars: the delta of 'h4' is exactly zero" in told
    diverged = run(activation="relu", learning_rate=1e200, steps=6)
    axes = diverged.plot.waterfall(step=6).axes[0]
    assert [line for line in axes.lines if line.get_gid() == "nonfinite"]
    assert len(bars(diverged.plot.waterfall().axes[0])["weight"]) == 4  # the last sound step


def test_it_draws_where_it_is_told():
    trace = run(activation="tanh")
    figure = Figure()
    axes = figure.subplots()
    assert trace.plot.waterfall(ax=axes) is figure
    assert bars(axes)
    assert "decades" in axes.get_legend().get_texts()[0].get_text()


def test_wrong_steps_and_a_trace_without_deltas():
    trace = run(activation="tanh")
    with pytest.raises(ValueError, match="step 9 was not recorded; there are 1 to 2"):
        trace.plot.waterfall(step=9)
    with pytest.raises(ValueError, match="delta_rms"):
        run(["grad_rms"]).plot.waterfall()


def test_a_run_of_one_layer(tmp_path):
    trace = run(activation="tanh", layers=1)
    one = Trace(trace.dataset.isel(layer=[1]).assign_attrs(chains="[[0]]"))
    one.plot.waterfall().savefig(tmp_path / "one.png")


def test_the_command_draws_it(tmp_path):
    plot(run(activation="tanh"), "waterfall", tmp_path / "w.png")
    assert (tmp_path / "w.png").stat().st_size > 2000
