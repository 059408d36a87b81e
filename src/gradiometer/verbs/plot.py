"""`plot`: one figure of a run, or of a study."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp.validation import unknown
from gradiometer.verbs.output import WITH_THEORY, loaded, save_figure
from gradiometer.verbs.predict import predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.studies import StudyResults
    from gradiometer.trace import Trace

STUDY = "study.toml"  # identifies the folder of a study, without loading the module that reads it


def plot(
    trace: Trace | StudyResults | str | os.PathLike[str],
    figure: str | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    theory: bool = False,
) -> Figure:
    """Draw one figure of a trace, or of a study.

    Parameters
    ----------
    trace : Trace, StudyResults, or path of a saved trace or of a study's folder
    figure : str, optional
        A name in `gradiometer.plots.FIGURES`, for a study in `STUDY_FIGURES`; by default the
        heatmap, or a study's outcome.
    out : path, optional
        File for the figure; its ending chooses the format.
    theory : bool
        Show the prediction of the first step in a heatmap or profile of a trace.

    Raises
    ------
    ValueError
        For an unknown figure, listing the known ones; for a figure of axes that the study lacks; if
        `theory` is true for another figure, or theory does not cover the experiment.
    TraceError
        If the file is not a trace.
    OutputError
        If the figure cannot be written.
    """
    from gradiometer.plots import FIGURES, STUDY_FIGURES

    of_study = is_study(trace)
    known: Collection[str] = STUDY_FIGURES if of_study else FIGURES
    chosen = figure or default_figure(trace)
    if chosen not in known:
        raise ValueError(unknown("figure", chosen, known))
    if theory and chosen not in WITH_THEORY:
        raise ValueError(f"theory can be shown in {' and '.join(WITH_THEORY)}, got {chosen!r}")
    if of_study:
        drawn = STUDY_FIGURES[chosen](_loaded_study(trace))
    else:
        loaded = _loaded_trace(trace)
        drawn = FIGURES[chosen](loaded, **({"theory": predicted(loaded)} if theory else {}))
    if out is not None:
        save_figure(drawn, out)
    return drawn


def default_figure(trace: object) -> str:
    """The figure that is drawn if none is named."""
    return "outcome" if is_study(trace) else "heatmap"


def is_study(given: Any) -> bool:
    """Whether it is the results of a study, or the folder that they are in."""
    if isinstance(given, (str, os.PathLike)):
        return bool(os.fspath(given)) and (Path(given) / STUDY).is_file()
    return hasattr(given, "study")


def _loaded_trace(given: Any) -> Trace:
    from gradiometer.trace import Trace

    return given if isinstance(given, Trace) else loaded(given)


def _loaded_study(given: Any) -> StudyResults:
    from gradiometer.studies import StudyResults, load

    return given if isinstance(given, StudyResults) else load(given)
