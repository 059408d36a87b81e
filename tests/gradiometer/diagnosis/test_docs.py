"""The table of causes in the docs is the table in the code."""

from pathlib import Path

from gradiometer.diagnosis import CAUSES, Kind

PAGE = Path(__file__).parents[3] / "docs" / "diagnosis.md"


def test_the_page_has_every_cause_with_its_kinds():
    text = PAGE.read_text(encoding="utf-8")
    for cause in CAUSES.values():
        assert f"| {cause.name} | {', '.join(cause.kinds)} | {cause.meaning} |" in text


def test_the_page_explains_every_kind():
    text = PAGE.read_text(encoding="utf-8")
    for kind in Kind:
        assert f"| {kind} |" in text or f"{kind}, " in text or f", {kind} |" in text
