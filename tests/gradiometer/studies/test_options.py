"""How a study is run: checked before anything begins."""

import dataclasses

import pytest

import gradiometer
from gradiometer.studies import RunOptions, Study, StudyError

WRONG = [
    ({"workers": 0}, StudyError, "workers must be an integer of at least 1, got 0"),
    ({"workers": 1001}, StudyError, "workers must be at most 1000, got 1001"),
    ({"attempts": 1.5}, StudyError, "attempts must be an integer of at least 1, got 1.5"),
    ({"timeout": -1}, StudyError, "timeout must be a number of seconds above 0, got -1"),
    ({"worker": 2}, TypeError, "unknown option 'worker'; did you mean 'workers'"),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG)
def test_wrong_options_are_refused_before_anything_begins(options, error, words, tmp_path):
    told = []
    with pytest.raises(error, match=words):
        gradiometer.study(
            Study({"steps": 1}), out=tmp_path / "out", on_event=told.append, **options
        )
    assert not told
    assert not (tmp_path / "out").exists()
    with pytest.raises(error, match=words):
        next(Study({"steps": 1}).run(**options))


def test_options_are_a_value():
    options = RunOptions.of({"workers": 2, "resume": True})
    assert options == RunOptions(resume=True, workers=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.workers = 3
