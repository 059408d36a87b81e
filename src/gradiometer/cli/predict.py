"""`gradiometer predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words, heard_or_not
from gradiometer.cli.paths import PATH
from gradiometer.cli.settings import Given, chosen, flag_for_each_setting


@flag_for_each_setting
def predict(
    experiment: Annotated[
        Path | None, typer.Argument(**PATH, help="A TOML file; flags take precedence over it.")
    ] = None,
    out: Annotated[Path, typer.Option(**PATH, help="File for the figure.")] = Path(
        "prediction.png"
    ),
    *,
    settings: Given,
) -> None:
    """Predict each layer's gradient before training."""
    with errors_in_words():
        from gradiometer.cli.tables import console, prediction_table
        from gradiometer.verbs import predict as verb

        prediction = verb.predict(experiment, out=out, **chosen(settings))
        with heard_or_not():
            screen = console()
            screen.print(prediction_table(prediction), crop=False)
            screen.print(prediction.basis, highlight=False, soft_wrap=True)
            screen.print(prediction.sentence(), highlight=False, style="bold", soft_wrap=True)
            typer.echo(f"  {out}")
