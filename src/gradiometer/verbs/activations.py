"""`activations`: the gallery of activation functions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradiometer.verbs.output import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    from gradiometer import plots

    figure = plots.activations(names or None)
    if out is not None:
        save_figure(figure, out)
    return figure
