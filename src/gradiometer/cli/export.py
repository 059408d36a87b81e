"""`gradiometer export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words
from gradiometer.cli.paths import PATH


def export(
    trace: Annotated[
        Path, typer.Argument(**PATH, help="A trace.nc written by `gradiometer run`, or its folder.")
    ],
    to: Annotated[
        str | None,
        typer.Option(help="csv, parquet or tensorboard. [as the ending of --out says]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="File, or folder for TensorBoard. [beside the trace]"),
    ] = None,
) -> None:
    """Write a saved trace for other tools: CSV, Parquet, TensorBoard."""
    with errors_in_words():
        from gradiometer.verbs import export as verb

        typer.echo(verb.export(trace, to, out))
