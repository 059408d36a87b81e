"""`study`: many experiments, their traces, tables and figures in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from gradiometer.events import (
    Begun,
    FileWritten,
    Finished,
    Guarded,
    Interrupted,
    Listener,
    Result,
)
from gradiometer.exports import without_formulas
from gradiometer.files import check_path, remove_leftovers, replacing
from gradiometer.interrupts import Interrupts
from gradiometer.verbs.output import errors_of, named, save_figure
from gradiometer.verbs.telling import interruptible

if TYPE_CHECKING:
    from gradiometer.studies import ExperimentFailed, RunOptions, Study, StudyResults

SUMMARY, NETS = "summary.csv", "nets.csv"


def study(
    study: Study | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    members: int | None = None,
    on_event: Listener | None = None,
    **options: Any,
) -> StudyResults:
    """Run what is missing of a study, and draw its figures.

    Parameters
    ----------
    study : Study, str or path
        What to run: the name of a ready study, a TOML file, or a study's folder.
    out : path, optional
        Folder for results, tables and figures; `runs/<name>` by default, or the folder given.
    members : int, optional
        Nets per experiment, instead of the number in the description.
    on_event : callable, optional
        Called with everything that happens: `Begun`, the events of `gradiometer.studies`, `Result`,
        `FileWritten`, `Interrupted`, `Finished`; see `gradiometer.events`.
    **options
        `resume`, `workers`, `cluster`, `executor`, `at_once`, `attempts`, `timeout`: see
        `gradiometer.studies.RunOptions`.

    Returns
    -------
    StudyResults

    Raises
    ------
    StudyError
        If the description is not valid.
    OSError
        If the folder cannot be written to, or holds something else.
    ExperimentsFailedError
        After all others are done, if experiments failed; tables and figures show the others.
    KeyboardInterrupt
        After an interrupt, when running experiments are finished, and tables and figures show them.
    """
    from gradiometer.studies import ExperimentsFailedError, RunOptions, load

    how = RunOptions.of(options)
    described, folder = describe(study, out, members)
    tell = Guarded(on_event)
    tell(Begun("study", described, len(described.experiments)))
    failures, interrupts, stopped = _carry_out(described, folder, tell, how)
    results = load(folder)
    tell(Result(results))
    if stopped is not None:
        tell(Interrupted(stopped, "running", len(results.finished), len(described.experiments)))
    with interruptible(tell, "drawing") as drawing:
        for file in () if interrupts.again else write(results):
            tell(FileWritten(file))
            drawing.check()
    if failures:
        raise ExperimentsFailedError(failures)
    if stopped is not None or drawing.raised:
        raise KeyboardInterrupt
    tell(Finished("study"))
    return results


def _carry_out(
    study: Study, folder: Path, tell: Guarded, how: RunOptions
) -> tuple[list[ExperimentFailed], Interrupts, int | None]:
    """Run experiments; returns those that failed, and the signal that ended it, if one did."""
    from gradiometer.studies import ExperimentFailed

    failures: list[ExperimentFailed] = []
    with Interrupts() as interrupts:
        interrupts.finish()  # the driver's loop handles the signals
        try:
            for event in study.events(folder, **vars(how)):
                tell(event)
                if isinstance(event, ExperimentFailed):
                    failures.append(event)
        except KeyboardInterrupt:
            return failures, interrupts, interrupts.signal or SIGINT
    return failures, interrupts, None


def describe(
    study: Study | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    members: int | None = None,
) -> tuple[Study, Path]:
    """Find the study, and the folder for it.

    Raises
    ------
    StudyError
        If there is no such study.
    """
    from gradiometer.studies import Study, StudyError
    from gradiometer.studies.folder import DESCRIPTION
    from gradiometer.studies.ready import READY, ready

    if out is not None:
        out = named(out)
    if isinstance(study, Study):
        if members is not None:
            raise StudyError("members is for descriptions; write Study(…, members=20)")
        return study, Path("runs") / study.name if out is None else Path(out)
    check_path(study, "expected a Study, the name of a ready one, a TOML file or a study's folder")
    path = Path(study)
    if os.fspath(study) in READY:
        found = ready(os.fspath(study), members)
    elif (path / DESCRIPTION).is_file():
        found = Study.load(path / DESCRIPTION, members)
        out = path if out is None else out
    elif path.is_dir():
        raise StudyError(f"{path}: not the folder of a study: it has no {DESCRIPTION}")
    elif path.suffix or os.path.lexists(path):
        found = Study.load(path, members)
    else:
        raise StudyError(
            f"{path}: neither a file, nor a study's folder, nor a ready study of "
            f"gradiometer: {', '.join(READY)}"
        )
    return found, Path("runs") / found.name if out is None else Path(out)


def write(results: StudyResults) -> Iterator[Path]:
    """Write tables and figures one by one; gives the file of each."""
    from gradiometer.plots import STUDY_FIGURES
    from gradiometer.studies.folder import INDEX

    figures = [f"{name}.png" for name in STUDY_FIGURES]
    remove_leftovers(results.folder.path, [INDEX, SUMMARY, NETS, *figures])
    yield from _write_tables(results)
    if results.finished:
        yield from _draw(results)


def _write_tables(results: StudyResults) -> Iterator[Path]:
    """Write tables: the file of each experiment, medians over seeds, the outcome of each net."""
    from gradiometer.studies.folder import INDEX

    with errors_of(results.folder.path / INDEX):
        index = results.folder.write_index(results.study, results.finished)
    yield index
    if not results.finished:
        return
    for name, table in ((SUMMARY, results.summary()), (NETS, results.outcomes)):
        path = results.folder.path / name
        with errors_of(path), replacing(path) as temporary:
            without_formulas(table).to_csv(temporary, index=False, lineterminator="\n")
        yield path


def _draw(results: StudyResults) -> Iterator[Path]:
    """Write those figures that the study has the axes for, one by one; gives the file of each."""
    from gradiometer.plots import STUDY_FIGURES, NotForThisStudyError

    for name, figure in STUDY_FIGURES.items():
        try:
            drawn = figure(results)
        except NotForThisStudyError:
            continue
        path = results.folder.path / f"{name}.png"
        save_figure(drawn, path)
        yield path
