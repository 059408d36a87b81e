"""The report of a run: its diagnosis, what shows it, and how it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradiometer.remedies.results import number
from gradiometer.reports.figures import figures
from gradiometer.reports.layers import columns, rows
from gradiometer.reports.measuring import facts, missing, title_of
from gradiometer.reports.page import render
from gradiometer.versions import versions

if TYPE_CHECKING:
    from gradiometer.remedies import Remedies
    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace


def page(
    trace: Trace,
    *,
    theory: Prediction | None = None,
    why_no_theory: str = "",
    remedies: Remedies | None = None,
) -> str:
    """The report as HTML.

    Parameters
    ----------
    trace : Trace
    theory : Prediction, optional
        Shown in the heatmap.
    why_no_theory : str
        What to say where it is missing.
    remedies : Remedies, optional
        What came of trying to mend the net.
    """
    diagnosis = trace.diagnose()
    return render(
        "trace.html",
        title=title_of(trace),
        diagnosis=diagnosis,
        remedies=remedies,
        unchanged=_unchanged(remedies),
        figures=[*figures(trace, theory, why_no_theory)],
        headings=[heading for heading, _, _ in columns(trace)],
        rows=rows(trace, diagnosis),
        facts=[*facts(trace, diagnosis.verdict)],
        missing=missing(trace),
        version=versions().get("gradiometer", ""),
    )


def _unchanged(remedies: Remedies | None) -> str:
    """The mean outcome if nothing is changed."""
    if remedies is None or not remedies.unchanged:
        return ""
    return number(sum(remedies.unchanged) / len(remedies.unchanged), remedies.outcome)
