"""A run is diagnosed while it is recorded, and stopped if that is wanted."""

import warnings

import numpy as np
import pytest

import dp
import gradiometer
from gradiometer import record
from gradiometer.data import load
from gradiometer.diagnosis import Diagnosis, Kind, Verdict
from gradiometer.events import ListenerWarning
from gradiometer.recording import Recorder
from gradiometer.recording.live import Live, checked_kinds

DATA = load("iris2")
compiled = pytest.mark.parametrize("compile", [False, True])


def said(*kinds, cause=None, nets=1, total=1):
    found = [
        Verdict(Kind(kind), cause, None, (), kind, "", "", None, nets, total) for kind in kinds
    ]
    return Diagnosis(tuple(found), (), ("h1",), (1, 2))


def told(looks, stop_on=()):
    """What is told at looks: (diagnosis, recorded steps[, whether all is finite])."""
    found = []
    live = Live(stop_on, lambda verdict: found.append((step, str(verdict.kind))))
    for diagnosis, step, *nonfinite in looks:
        assert live.is_due(step, bool(nonfinite))
        live.look(diagnosis, step, step, bool(nonfinite))
    return found, live


# --- which verdicts count -------------------------------------------------------------------------


def test_a_verdict_counts_when_two_looks_in_a_row_say_it():
    found, live = told(
        [
            (said("vanishing"), 10), (said("healthy"), 20), (said("vanishing"), 40),
            (said("vanishing", "dead"), 80), (said("vanishing", "dead"), 160),
        ]
    )  # fmt: skip
    assert found == [(80, "vanishing"), (160, "dead")]
    assert live.stopped is None


def test_what_is_not_finite_counts_at_once_and_confirms_nothing_else():
    looks = [(said("saturated"), 10), (said("non-finite", "saturated"), 13, True)]
    found, live = told(looks, ["non-finite"])
    assert found == [(13, "non-finite")]
    assert str(live.stopped.kind) == "non-finite"
    assert not live.is_due(1000, nonfinite=True)


def test_stalled_counts_from_step_40_on_and_never_for_too_few_steps():
    steps = [10, 20, 40, 80, 160]
    assert told([(said("stalled", cause="targets"), n) for n in steps])[0] == [(80, "stalled")]
    assert told([(said("stalled", cause="too few steps"), n) for n in steps])[0] == []


def test_half_of_an_ensemble_must_have_it():
    assert told([(said("dead", nets=4, total=10), n) for n in (10, 20)])[0] == []
    assert told([(said("dead", nets=5, total=10), n) for n in (10, 20)])[0] == [(20, "dead")]


def test_unknown_kinds_are_refused():
    for kind in ("healthy", "wrong"):
        with pytest.raises(ValueError, match=rf"'{kind}'.*vanishing, exploding, dead, saturated"):
            record(dp.Net(4, 5, 2, "tanh"), stop_on=["vanishing", kind])
    with pytest.raises(TypeError, match="on_verdict must be a function"):
        record(dp.Net(4, 5, 2, "tanh"), on_verdict="print")


# --- training -------------------------------------------------------------------------------------


def vanishing(compile=False, seed=0):  # noqa: A002
    net = dp.Net(4, 10, 10, "sigmoid", seed=seed)
    return net, dp.SGD(net, DATA.x, DATA.y, seed=seed, compile=compile)


def step_by_hand(net):
    (grad, _), own = net.get_grad(DATA.x, DATA.y), net.get_param()
    net.set_param({name: own[name] - 0.1 * grad[name] for name in own})


@compiled
def test_the_librarys_loop_is_stopped_and_all_of_it_is_as_without(compile):  # noqa: A002
    net, sgd = vanishing(compile)
    recorder, after = record(net, sgd, stop_on=["vanishing"]), []

    def train():
        with recorder:
            sgd.train(200, print_each=None)
            after.append("not reached")

    with pytest.warns(gradiometer.GradientWarning, match="after step 20: "):
        train()
    assert not after
    assert recorder.n_steps == 20
    assert recorder.stopped.kind == "vanishing"
    assert recorder.trace.attrs["stopped_on"] == "vanishing"
    assert sgd.callbacks == []
    other, again = vanishing(compile)
    again.train(20, print_each=None)
    for name, value in other.get_param().items():
        np.testing.assert_array_equal(net.get_param()[name], value)


@compiled
def test_every_callback_hears_of_the_last_step(compile):  # noqa: A002
    class Counts(dp.ProgramCallback):
        only_reads, reads_loss, done = True, False, 0

        def after_update(self, step):
            self.done = step.number

        def after_program_update(self, number, _):
            self.done = number

    net, sgd = vanishing(compile)
    sgd.callbacks.append(counts := Counts())
    with record(net, sgd, stop_on=["vanishing"], on_verdict=lambda _: None):
        sgd.train(200, print_each=None)
    assert counts.done == 20


def test_a_loop_of_ones_own():
    net, verdicts = vanishing()[0], []
    with record(net, stop_on=["vanishing"], on_verdict=verdicts.append) as recorder:
        for _ in range(200):
            step_by_hand(net)
    assert recorder.stopped.kind == "vanishing"
    assert recorder.n_steps == 20
    assert recorder.stopped in verdicts


def test_steps_that_are_told_by_hand_raise_it():
    net = vanishing()[0]
    recorder = record(net, stop_on=["vanishing"], on_verdict=lambda _: None)

    def train(steps):
        for _ in range(steps):
            recorder.before_step()
            step_by_hand(net)
            recorder.after_step()

    with pytest.raises(gradiometer.TrainingStopped, match="Vanishing") as raised:
        train(200)
    assert raised.value.verdict is recorder.stopped
    train(1)  # once is enough
    assert recorder.n_steps == 21


def test_it_only_ends_its_own_block():
    net = vanishing()[0]
    with record(net) as outer, record(net, stop_on="vanishing", on_verdict=lambda _: None) as inner:
        for _ in range(200):
            step_by_hand(net)
    assert inner.stopped is not None
    assert outer.stopped is None

    def others():
        with record(net, stop_on="dead"):
            raise gradiometer.TrainingStopped(inner.stopped)

    with pytest.raises(gradiometer.TrainingStopped):
        others()


@compiled
def test_what_is_not_finite_stops_soon(compile):  # noqa: A002
    net = dp.Net(4, 10, 3, "relu", seed=0)
    sgd = dp.SGD(net, DATA.x, DATA.y, seed=0, compile=compile)

    def spoil(step):
        if step.number == 5:
            net.get_param()["h2_weight"][0, 0] = np.nan

    if not compile:
        sgd.callbacks.append(spoil)
    else:
        net.get_param()["h2_weight"][0, 0] = np.nan
    with (
        np.errstate(all="ignore"),
        record(net, sgd, stop_on=["non-finite"], on_verdict=lambda _: None) as recorder,
    ):
        sgd.train(500, print_each=None)
    assert recorder.stopped.kind == "non-finite"
    assert recorder.n_steps == (1 if compile else 6)


def test_one_warning_and_no_flood():
    net, sgd = vanishing()
    with warnings.catch_warnings(record=True) as caught, record(net, sgd, stop_on=["dead"]):
        warnings.simplefilter("always")
        sgd.train(90, print_each=None)
    mine = [one for one in caught if one.category is gradiometer.GradientWarning]
    assert len(mine) == 1


def test_an_error_of_on_verdict_does_not_end_the_training():
    def wrong(_):
        raise ValueError("mine")

    net, sgd = vanishing()
    with (
        pytest.warns(ListenerWarning, match="ValueError .mine."),
        record(net, sgd, on_verdict=wrong) as recorder,
    ):
        sgd.train(30, print_each=None)
    assert recorder.n_steps == 30
    assert recorder.stopped is None


def test_nothing_is_diagnosed_unless_it_is_wanted(monkeypatch):
    def never(_):
        raise AssertionError

    monkeypatch.setattr(Recorder, "diagnose", never)
    net, sgd = vanishing(compile=True)
    with record(net, sgd) as recorder:
        sgd.train(90, print_each=None)
    assert recorder.stopped is None


# --- experiments ----------------------------------------------------------------------------------


def test_an_experiment_is_stopped_as_by_an_interrupt():
    events = []
    trace = gradiometer.run(steps=100, stop_on=["vanishing"], on_event=events.append)
    assert (trace.attrs["steps_done"], trace.attrs["stopped_on"]) == (20, "vanishing")
    assert trace.attrs["interrupted"] == 1
    names = [type(event).__name__ for event in events]
    assert "StoppedOn" in names
    assert "Interrupted" not in names
    whole = gradiometer.run(steps=100)
    assert whole.attrs["experiment_hash"] == trace.attrs["experiment_hash"]
    np.testing.assert_array_equal(whole["grad_rms"][:20], trace["grad_rms"])
    assert checked_kinds(kind for kind in ["dead"]) == ("dead",)
    with pytest.raises(TypeError, match="stop_on must be a list of kinds of verdicts, got 3"):
        checked_kinds(3)
    with pytest.raises(ValueError, match="unknown kind of verdict 'wrong'"):
        gradiometer.run(steps=5, stop_on=["wrong"])


def test_a_verdict_of_an_experiment_that_goes_on():
    verdicts = []
    trace = gradiometer.run(steps=45, on_verdict=verdicts.append)
    assert trace.attrs["steps_done"] == 45
    kinds = [verdict.kind for verdict in verdicts]
    assert "vanishing" in kinds
    assert len(set(kinds)) == len(kinds)  # each once
    assert "stopped_on" not in trace.attrs


@pytest.mark.parametrize(
    ("layers", "error"), [(3, TypeError), ([], ValueError), ([3], ValueError), ("", ValueError)]
)
def test_what_are_no_names_of_layers_is_refused(layers, error):
    with pytest.raises(error, match=r"layer"):
        record(dp.Net(4, 5, 1, seed=0), layers=layers)
