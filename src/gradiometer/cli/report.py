"""`gradiometer report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words
from gradiometer.cli.paths import PATH


def report(
    trace: Annotated[
        Path,
        typer.Argument(
            **PATH, help="A trace.nc written by `gradiometer run`, its folder, or a study's folder."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", **PATH, help="The file. [report.html beside the trace]"),
    ] = None,
    theory: Annotated[
        bool,
        typer.Option("--theory", help="Show the prediction, also of a net of many layers."),
    ] = False,
) -> None:
    """Write all there is to say of a trace, or of a study, into one HTML file."""
    with errors_in_words():
        from gradiometer.verbs import report as verb

        typer.echo(verb.report(trace, out, theory=theory))
