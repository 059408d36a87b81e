"""`gradiometer plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words
from gradiometer.cli.paths import PATH


def plot(
    trace: Annotated[
        Path,
        typer.Argument(
            **PATH, help="A trace.nc written by `gradiometer run`, its folder, or a study's folder."
        ),
    ],
    figure: Annotated[
        str | None,
        typer.Option(
            help="gradients, panels, heatmap, profile, waterfall, learning or decision [heatmap]; "
            "for a study outcome, slopes, heatmaps or trainability [outcome]."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="File for the figure. [<figure>.png beside the trace]"),
    ] = None,
    theory: Annotated[
        bool, typer.Option("--theory", help="Show the prediction in a heatmap or profile.")
    ] = False,
) -> None:
    """Draw one figure of a saved trace, or of a study."""
    with errors_in_words():
        from gradiometer.verbs import plot as verb

        folder = trace if trace.is_dir() else trace.parent
        file = folder / f"{figure or verb.default_figure(trace)}.png" if out is None else out
        verb.plot(trace, figure, file, theory=theory)
        typer.echo(file)
