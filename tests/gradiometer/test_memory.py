"""The estimate of memory is what runs take, and what cannot be made is refused beforehand."""

import json
import subprocess
import sys

import pytest

from dp.optimizers import OPTIMIZERS
from gradiometer import memory
from gradiometer.experiment import Experiment
from gradiometer.memory import TooLargeError, available, check_memory, estimate
from gradiometer.quantities import HISTOGRAM_EDGES
from gradiometer.studies import compute

MEASURE = """
import json, resource, sys
from gradiometer.experiment import Experiment
Experiment.of(layers=2, steps=2).run().to_bytes()  # what is loaded once
def peak():
    if sys.platform == "linux":  # there ru_maxrss begins with the peak of the parent process
        with open("/proc/self/status") as file:
            return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size
before = peak()
Experiment.of(**json.loads(sys.argv[1])).run().to_bytes()
print(peak() - before)
"""

# of each, one part is the largest: weights, the batch's activations, the reference batch's, the
# decision, the record, histograms, normalisation, members
CONFIGURATIONS = [
    {"layers": 5, "width": 1000, "steps": 2, "batch_size": 8, "decision": False},
    {"layers": 5, "width": 800, "steps": 2, "batch_size": 8, "optimizer": "adam",
     "decision": False, "dtype": "float32"},
    {"layers": 4, "width": 50, "steps": 2, "batch_size": 20_000, "decision": False},
    {"layers": 2, "width": 20, "steps": 2, "batch_size": 8, "decision": False, "members": 100,
     "data": "digits"},
    {"layers": 20, "width": 20, "steps": 2, "batch_size": 8, "members": 5},
    {"layers": 20, "width": 3, "steps": 1000, "batch_size": 8, "members": 10, "decision": False},
    {"layers": 5, "width": 3, "steps": 1000, "batch_size": 8, "members": 5, "histograms": True,
     "decision": False},
    {"layers": 5, "width": 200, "steps": 2, "batch_size": 2000, "normalisation": "batch",
     "decision": False},
    {"layers": 3, "width": 300, "steps": 2, "batch_size": 8, "members": 4, "residual": True,
     "normalisation": "layer"},
    {"layers": 4, "width": 30, "steps": 3, "members": 150, "optimizer": "momentum",
     "decision": False},
]  # fmt: skip


def measured(settings):
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout)


def within_a_factor_of_two(settings):
    found, expected = measured(settings), estimate(Experiment.of(**settings)).total
    assert expected / 2 < found < expected * 2, (found / 1e6, expected / 1e6)


@pytest.mark.parametrize("settings", CONFIGURATIONS[1:2])
def test_the_estimate_is_right_within_a_factor_of_two(settings):
    within_a_factor_of_two(settings)


@pytest.mark.long
@pytest.mark.parametrize("settings", [CONFIGURATIONS[0], *CONFIGURATIONS[2:]])
def test_the_estimate_is_right_of_every_part(settings):
    within_a_factor_of_two(settings)


def test_what_it_knows_of_optimisers_and_histograms_is_so():
    for name, optimizer in OPTIMIZERS.items():
        few, more = (
            estimate(Experiment.of(optimizer=each, width=100)).weights for each in ("sgd", name)
        )
        stores = round((more / few - 1) * memory._WEIGHTS)
        assert stores == optimizer.num_grad_stores
    assert len(HISTOGRAM_EDGES) == memory.BINS


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": 10**9}, "layers (1000000000)"),
        ({"width": 10**9}, "width (1000000000)"),
        ({"members": 10**9}, "members (1000000000)"),
        ({"batch_size": 10**9}, "batch_size (1000000000)"),
        ({"steps": 10**9}, "steps (1000000000)"),
        ({"steps": 10**9, "members": 10**6}, "steps (1000000000) or members (1000000)"),
        ({"steps": 10**9, "histograms": True}, "record less, with every"),
    ],
)
def test_what_cannot_be_made_is_refused(settings, words, monkeypatch):
    def made(*args):
        raise AssertionError("data were loaded")

    monkeypatch.setattr(Experiment, "load_data", made)
    experiment = Experiment.of(**settings)
    with pytest.raises(TooLargeError) as refused:
        experiment.run()
    assert words in str(refused.value)
    assert "would need about" in str(refused.value)


def test_what_is_recorded_seldom_is_not_refused():
    check_memory(Experiment.of(steps=10**9, every=10**6))


def test_what_there_is_decides(monkeypatch):
    experiment = Experiment.of(width=1000)
    check_memory(experiment)
    monkeypatch.setattr(memory, "available", lambda: 10e6)
    with pytest.raises(TooLargeError, match="but only 9 MB are free"):
        check_memory(experiment)


def test_members_that_are_trained_in_groups_need_less(monkeypatch):
    experiment = Experiment.of(width=10, members=1000, steps=2, decision=False)
    monkeypatch.setattr(memory, "available", lambda: estimate(experiment).total / 2)
    with pytest.raises(TooLargeError):
        check_memory(experiment)
    check_memory(experiment, at_once=10)
    with pytest.raises(TooLargeError):
        compute.run(experiment)
    assert compute.run(experiment, at_once=100).dataset.sizes["member"] == 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_limit_of_the_process_counts():
    code = (
        "import resource; from gradiometer.memory import available; free = available();"
        "resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9, 2 * 10**9));"
        "print(available() < 2 * 10**9, available() <= free)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "True"]
    assert available() > 10e6
