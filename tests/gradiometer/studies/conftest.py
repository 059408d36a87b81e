"""Fixtures of the studies' tests."""

from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture
def threads():
    """An executor that needs no processes, which take a second each to start."""
    with ThreadPoolExecutor(1) as pool:
        yield pool
