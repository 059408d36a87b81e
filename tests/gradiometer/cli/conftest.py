import pytest

from gradiometer.verbs import run_folder


@pytest.fixture(autouse=True)
def one_figure(request, monkeypatch):
    """One figure of each run instead of six, which are drawn in tests of their own.

    A test that is about all of them takes `every_figure`.
    """
    if "every_figure" not in request.fixturenames:
        monkeypatch.setattr(run_folder, "FIGURE_NAMES", ("gradients",))


@pytest.fixture
def every_figure():
    """Ask for all figures of a run."""
