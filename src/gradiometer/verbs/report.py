"""`report`: all there is to say of a run, or of a study, in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradiometer.files import check_path, write_atomically
from gradiometer.verbs.output import REPORT, OutputError, errors_of, file_of, loaded, named
from gradiometer.verbs.plot import is_study
from gradiometer.verbs.predict import COMPARED, predicted

if TYPE_CHECKING:
    from gradiometer.remedies import Remedies
    from gradiometer.studies import StudyResults
    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace

ENDINGS = (".html", ".htm")


def report(
    trace: Trace | StudyResults | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    theory: bool = False,
    remedies: Remedies | None = None,
) -> Path:
    """Write a report of a trace, or of a study: one HTML file that needs no network.

    That of a trace has its diagnosis with the evidence, its figures, a table of the layers, and how
    it was measured; that of a study its sentence, its figures and its experiments.

    Parameters
    ----------
    trace : Trace, StudyResults, or path of a saved trace or of a study's folder
    out : path, optional
        The file, which ends in .html or .htm. By default report.html beside a saved trace, or in
        the study's folder.
    theory : bool
        Insist on the prediction of the first step in the heatmap. Otherwise it is shown if theory
        covers the experiment, and it has at most 20 hidden layers: of more it takes long.
    remedies : Remedies, optional
        What `try_remedies` gave for this trace, to be shown with it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        If it is neither a trace, a study's results, nor a path; or `remedies` are something else.
    ValueError
        If `out` is missing for a trace that was not saved; if `theory` is true, and theory does not
        cover the experiment; if `theory` or `remedies` is given for a study.
    TraceError, StudyError
        If the file is not a trace, or the folder not that of a study.
    OutputError
        If the report cannot be written, or would replace the trace itself.
    """
    if is_study(trace):
        if theory or remedies is not None:
            raise ValueError("theory and remedies are for a trace; this is a study")
        return _of_study(trace, out)
    given, source = _given(trace)
    file = _file(out, None if source is None else source.parent)
    if source is not None and file.exists() and file.samefile(source):
        raise OutputError(f"{file}: is the trace itself; choose another file, with --out")
    return write(given, file, predicted(given) if theory else None, remedies)


def write(
    trace: Trace,
    file: Path,
    theory: Prediction | None = None,
    remedies: Remedies | None = None,
) -> Path:
    """Write the report of a trace; see `report`.

    Parameters
    ----------
    trace : Trace
    file : Path
    theory : Prediction, optional
        By default it is made, unless theory does not cover the experiment, or it takes long.
    remedies : Remedies, optional

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from gradiometer.remedies import Remedies
    from gradiometer.reports.trace import page

    if not isinstance(remedies, Remedies | None):
        raise TypeError(f"remedies are what try_remedies gave, got {type(remedies).__name__}")
    why_not = ""
    if theory is None:
        theory, why_not = _prediction(trace)
    return _written(file, page(trace, theory=theory, why_no_theory=why_not, remedies=remedies))


def _of_study(given: Any, out: str | os.PathLike[str] | None) -> Path:
    from gradiometer.reports.study import page
    from gradiometer.studies import StudyResults, load

    results = given if isinstance(given, StudyResults) else load(given)
    file = _file(out, results.folder.path)
    return _written(file, page(results))


def _given(trace: Any) -> tuple[Trace, Path | None]:
    """The trace, and the file that it is from."""
    from gradiometer.trace import Trace

    if isinstance(trace, Trace):
        return trace, None
    check_path(trace, "expected a trace, the path of its file or folder, or a study")
    return loaded(trace), file_of(trace)


def _file(out: str | os.PathLike[str] | None, folder: Path | None) -> Path:
    if out is None:
        if folder is None:
            raise ValueError(
                "out must be given for a trace that was not saved: the path to write to"
            )
        return folder / REPORT
    file = named(out, "a file")
    if file.suffix.lower() not in ENDINGS:
        raise OutputError(f"{file}: a report's file must end in {' or '.join(ENDINGS)}")
    return file


def _prediction(trace: Trace) -> tuple[Prediction | None, str]:
    """What theory says of the first step, or why it is not shown."""
    if not trace.experiment:
        return None, "Without theory: the trace was recorded without an experiment."
    if trace.experiment.get("layers", 0) > COMPARED:
        return None, (
            f"Without theory: the prediction is slow for more than {COMPARED} layers; add --theory "
            "to show it."
        )
    try:
        return predicted(trace), ""
    except ValueError as error:
        return None, f"Without theory: {error}."


def _written(file: Path, text: str) -> Path:
    with errors_of(file):
        write_atomically(file, text.encode("utf-8", errors="backslashreplace"))
    return file
