"""Fixtures of tests of several folders."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gradiometer.verbs import run_folder


@pytest.fixture
def one_figure(monkeypatch):
    """One figure of each run instead of six, which are drawn in tests of their own."""
    monkeypatch.setattr(run_folder, "FIGURE_NAMES", ("gradients",))


@pytest.fixture
def threads():
    """An executor that needs no processes, which take a second each to start."""
    with ThreadPoolExecutor(1) as pool:
        yield pool
