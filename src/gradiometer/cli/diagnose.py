"""`gradiometer diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words, heard_or_not
from gradiometer.cli.paths import PATH


def diagnose(
    trace: Annotated[
        Path, typer.Argument(**PATH, help="A trace.nc written by `gradiometer run`, or its folder.")
    ],
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the diagnosis as JSON, at most 32 KB."),
    ] = False,
) -> None:
    """Say what is wrong with a net, in which layer, and why."""
    with errors_in_words():
        from gradiometer.verbs import diagnose as verb

        found = verb.diagnose(trace)
        with heard_or_not():
            if json:
                typer.echo(found.to_json())
            else:
                from gradiometer.cli.tables import print_diagnosis

                print_diagnosis(found)
