"""Fixtures of the command line's tests."""

import pytest


@pytest.fixture(autouse=True)
def one_figure_unless_all_are_asked_for(request):
    """One figure of each run; a test that is about all of them takes `every_figure`."""
    if "every_figure" not in request.fixturenames:
        request.getfixturevalue("one_figure")


@pytest.fixture
def every_figure():
    """Ask for all figures of a run."""
