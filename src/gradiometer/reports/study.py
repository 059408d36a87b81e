"""The report of a study: its sentence, its experiments, its figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gradiometer.reports.figures import Shown
from gradiometer.reports.page import render
from gradiometer.settings import SETTINGS
from gradiometer.versions import versions

if TYPE_CHECKING:
    from gradiometer.studies import StudyResults

MOST_ROWS = 500  # experiments in the table; summary.csv lists all of them
MOST_LETTERS = 20_000  # of the description
COLUMNS = {
    "accuracy": "accuracy",
    "delta_decades": "fall of the delta (decades)",
    "gradient_decades": "fall of |dL/dW| (decades)",
    "diverged": "diverged",
}
MISSING = "–"
FIGURES = {
    "outcome": ("What becomes of the nets", "Final accuracy and falls over a setting"),
    "slopes": ("How fast the gradient falls", "Falls from layer to layer over depth"),
    "heatmaps": ("Where the gradient goes", "A heatmap of depth × step for each net"),
    "trainability": ("Which nets can be trained", "Maps of depth × scale of the weights"),
}


def page(results: StudyResults) -> str:
    """The report as HTML."""
    summary = results.summary()
    axes = list(results.study.axes)
    shown = [name for name in COLUMNS if name in summary]
    table = [
        ([SETTINGS[name].label(row[name]) for name in axes], [_cell(row, name) for name in shown])
        for _, row in summary.head(MOST_ROWS).iterrows()
    ]
    toml = results.study.to_toml()
    return render(
        "study.html",
        name=results.study.name,
        sentence=results.sentence(),
        facts=[*_facts(results)],
        axes=[SETTINGS[name].word for name in axes],
        headings=[COLUMNS[name] for name in shown],
        rows=table,
        left_out=len(summary) - len(table),
        figures=[*_figures(results)],
        description=toml if len(toml) <= MOST_LETTERS else f"{toml[:MOST_LETTERS]}…",
        version=versions().get("gradiometer", ""),
    )


def _facts(results: StudyResults) -> Iterator[tuple[str, str]]:
    study = results.study
    yield "Experiments", f"{len(results.finished)} of {len(study.experiments)} are finished"
    yield "Nets", f"{study.members} for each experiment"
    yield "Numbers", "medians over the nets; where six or more finish, with 95 % intervals"
    if results.damaged:
        yield "Damaged", results.damage()


def _figures(results: StudyResults) -> Iterator[Shown]:
    """Those that the study has the axes for."""
    from gradiometer.plots import STUDY_FIGURES, NotForThisStudyError

    if not results.finished:
        return
    for name, draw in STUDY_FIGURES.items():
        title, alt = FIGURES[name]
        try:
            yield Shown(title, draw(results), alt, "")
        except NotForThisStudyError:
            continue


def _cell(row: Any, name: str) -> str:
    """A median with its interval, where there is one."""
    middle = row[name]
    if middle != middle:
        return MISSING
    if name == "diverged":
        return f"{100 * middle:.0f} %"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{middle:.2f}" if low != low else f"{middle:.2f} [{low:.2f}, {high:.2f}]"
