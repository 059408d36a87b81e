"""`plot` and `activations`: single figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dp.validation import unknown
from gradlab.verbs.output import file_of, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradlab.trace import Trace


def activations(
    names: Sequence[str] | None = None, out: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw activation functions and their derivatives.

    Parameters
    ----------
    names : sequence of str, optional
        Names in `dp.activations.ACTIVATIONS`; all of them by default.
    out : path, optional
        File for the figure; its ending chooses the format.

    Raises
    ------
    ValueError
        For an unknown name, naming those there are.
    OutputError
        If the file cannot be written.
    """
    from gradlab import plots

    figure = plots.activations(names or None)
    if out is not None:
        save_figure(figure, Path(out))
    return figure


def plot(
    trace: Trace | str | os.PathLike[str],
    figure: str = "heatmap",
    out: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw one figure of a trace.

    Parameters
    ----------
    trace : Trace or path of a saved one
    figure : str
        A name in `gradlab.plots.FIGURES`.
    out : path, optional
        File for the figure; its ending chooses the format.

    Raises
    ------
    ValueError
        For an unknown figure, naming those there are.
    TraceError
        If the file is no trace.
    OutputError
        If the figure cannot be written.
    """
    from gradlab.plots import FIGURES
    from gradlab.trace import Trace

    if figure not in FIGURES:
        raise ValueError(unknown("figure", figure, FIGURES))
    if not isinstance(trace, Trace):
        trace = Trace.load(file_of(trace))
    drawn = FIGURES[figure](trace)
    if out is not None:
        save_figure(drawn, Path(out))
    return drawn
