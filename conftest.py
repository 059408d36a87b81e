"""What all tests have in common."""

import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

# A shell that runs the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FRAMEWORKS = ("torch", "lightning", "jax", "keras")
SOURCES = Path(__file__).parent / "src"

# doctests of modules named after a framework are not collected without it
collect_ignore_glob = [
    f"src/gradiometer*/{framework}*" for framework in FRAMEWORKS if find_spec(framework) is None
]


def pytest_collection_modifyitems(items):
    """Doctests of a framework's modules are tests of frameworks."""
    for item in items:
        if SOURCES in item.path.parents and not {item.path.stem, *item.path.parts}.isdisjoint(
            FRAMEWORKS
        ):
            item.add_marker(pytest.mark.frameworks)
