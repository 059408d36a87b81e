"""The tests beside this one, with each backend in a process of its own.

Keras chooses its backend when it is imported.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.frameworks

HERE = Path(__file__).parent
DEFINITION = HERE.parents[1] / "test_one_definition.py"
# Keras's own arrays give that warning
QUIET = ("-p", "no:cacheprovider", "-W", "ignore:__array__ implementation:DeprecationWarning")
REQUIRED = os.environ.get("GRADIOMETER_REQUIRE_FRAMEWORKS") == "1"


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_with_each_backend(backend):
    files = [HERE / "test_recording.py", f"{HERE / 'test_untouched.py'}::test_dropout_and_norms"]
    if backend == "jax":  # with PyTorch it runs by itself
        files.append(f"{DEFINITION}::test_the_same_trace_in_keras[tanh]")
    passes(backend, *files)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_all_with_each_backend(backend):
    files = [HERE / "test_untouched.py"]
    if backend == "jax":
        files.append(f"{DEFINITION}::test_the_same_trace_in_keras")
    passes(backend, *files)


def passes(backend, *files):
    if not REQUIRED and not all(map(importlib.util.find_spec, ("keras", backend))):
        pytest.skip(f"keras or {backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *QUIET, *map(str, files)],
        cwd=HERE.parents[4],
        env={**os.environ, "KERAS_BACKEND": backend, "GRADIOMETER_KERAS_TESTS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
