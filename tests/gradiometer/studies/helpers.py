"""Small studies, and how their results are compared."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gradiometer.studies import Study, load

ROOT = Path(__file__).parents[3]
HEAD = """import sys
from tests.gradiometer.studies.helpers import *
from tests.gradiometer.studies.deadly import *
"""
BASE = {"steps": 4, "width": 4, "quantities": ["grad_mean_abs", "delta_rms"]}


def small(layers=(1, 2, 3, 4), activation=("sigmoid", "relu"), members=3, **base):
    return Study(
        {**BASE, **base}, over={"layers": layers, "activation": activation}, members=members
    )


def drain(events):
    return [*events]


def undisturbed_study(folder):
    """Compute `small()` in this process, for comparison; gives the folder."""
    with ThreadPoolExecutor(1) as thread:
        drain(small().events(folder, executor=thread))
    return folder


def assert_complete(study, folder, reference=None, tolerance=0.0):
    """Every experiment is there once; its numbers are those of an undisturbed run."""
    results = load(folder)
    assert len(results.finished) == len(study.experiments)
    files = {path.name for path in results.folder.results.iterdir()}
    assert files == {f"{e.hash}.nc" for e in study.experiments}
    if reference is not None:
        expected = load(reference)
        for experiment, trace in results.traces():
            same(trace, expected.trace(experiment), tolerance)


def same(one, other, tolerance=0.0):
    assert set(one.dataset.data_vars) == set(other.dataset.data_vars)
    for name in one.dataset.data_vars:
        a, b = one[name], other[name]
        assert a.dims == b.dims
        assert a.dtype == b.dtype
        if tolerance:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)
    for name in one.dataset.coords:
        np.testing.assert_array_equal(one.dataset[name], other.dataset[name])


def write_driver(script, folder, above=""):
    """A file of Python: `above`, which workers run too, and `script`, which they do not."""
    guarded = "if __name__ == '__main__':\n" + "\n".join(
        f"    {line}" for line in script.strip().splitlines()
    )
    path = folder / "driver.py"
    path.write_text(above + HEAD + guarded)
    return path


def start_driver(script, *arguments, log, above="", **options):
    """A driver in a process of its own; see `write_driver`."""
    path = write_driver(script, log.parent, above)
    environment = {
        **os.environ,
        # beside what is there, so that drivers import the package that is tested
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "GRADIOMETER_TEST_LOG": str(log),
    }
    return subprocess.Popen(
        [sys.executable, path, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
