"""The studies that come with gradiometer; each is a file here that can be copied and changed."""

from __future__ import annotations

from pathlib import Path

from dp.validation import unknown
from gradiometer.studies.description import StudyError
from gradiometer.studies.study import Study

_FOLDER = Path(__file__).parent
# the main one first
READY = ("lesson", "initialisers", "widths", "clipping", "scaling", "trainability")


def ready(name: str, members: int | None = None) -> Study:
    """Give a study that comes with gradiometer.

    Raises
    ------
    StudyError
        If there is none of that name, naming those there are.
    """
    return Study.load(path_of(name), members)


def question(name: str) -> str:
    """What it asks, in a line."""
    return path_of(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def path_of(name: str) -> Path:
    """The file that describes it."""
    if name not in READY:
        raise StudyError(unknown("study", name, READY))
    return _FOLDER / f"{name}.toml"
