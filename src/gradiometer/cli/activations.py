"""`gradiometer activations`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words
from gradiometer.cli.paths import PATH


def activations(
    names: Annotated[
        list[str] | None, typer.Argument(help="Of {activation}; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(**PATH, help="File for the figure.")] = Path(
        "activations.png"
    ),
) -> None:
    """Draw activation functions and their derivatives."""
    with errors_in_words():
        from gradiometer.verbs import activations as verb

        verb.activations(names, out)
        typer.echo(out)
