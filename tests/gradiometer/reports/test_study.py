"""The report of a study."""

import pytest
from tests.gradiometer.reports.reading import check_page
from tests.gradiometer.studies.helpers import drain, small

from gradiometer.reports.study import page
from gradiometer.studies import Study, load


@pytest.fixture
def results(tmp_path, threads):
    drain(small(layers=(1, 2), activation=("sigmoid", "relu")).events(tmp_path, executor=threads))
    return load(tmp_path)


def test_it_has_the_sentence_every_experiment_and_the_figures(results):
    text = page(results)
    read = check_page(text)
    assert results.sentence() in read.text
    assert "4 of 4 are finished" in read.text
    assert len(read.all("tr")) == 1 + 4
    assert len(read.all("img")) >= 2
    assert "over" in read.text
    assert not [link for link in read.all("a") if link["href"] != "#content"]
    assert len(text.encode()) < 1_500_000


def test_a_study_of_which_nothing_is_finished(tmp_path):
    base = {"steps": 2, "width": 4}
    study = Study(base, over={"layers": (1, 2)}, members=2, name="not begun")
    (tmp_path / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    read = check_page(page(load(tmp_path)))
    assert "No experiment is finished." in read.text
    assert study.name in read.text
    assert read.all("img") == []
