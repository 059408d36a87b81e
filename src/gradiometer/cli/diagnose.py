"""`gradiometer diagnose`."""

from __future__ import annotations

from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradiometer.cli.app import errors_in_words, heard_or_not
from gradiometer.cli.paths import PATH
from gradiometer.cli.remedies import Budget, RemediesPrinter, Try, check_budget

if TYPE_CHECKING:
    from gradiometer.diagnosis import Diagnosis
    from gradiometer.remedies import Remedies


def diagnose(
    trace: Annotated[
        Path, typer.Argument(**PATH, help="A trace.nc written by `gradiometer run`, or its folder.")
    ],
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the diagnosis as JSON, at most 32 KB."),
    ] = False,
    attempt: Try = False,
    budget: Budget = None,
) -> None:
    """Say what is wrong with a net, in which layer, and why."""
    with errors_in_words(), RemediesPrinter(shows_results=not json) as printer:
        check_budget(attempt, budget)
        from gradiometer.verbs import diagnose as verb
        from gradiometer.verbs.output import loaded

        run = loaded(trace)
        found = verb.diagnose(run)
        if not json:
            _print(found)
        tried = None
        if attempt:
            from gradiometer.remedies import try_remedies

            tried = try_remedies(run, budget=budget, on_event=printer)
        if json:
            _print_json(found, tried)


def _print(found: Diagnosis) -> None:
    from gradiometer.cli.tables import print_diagnosis

    with heard_or_not():
        print_diagnosis(found)


def _print_json(found: Diagnosis, tried: Remedies | None) -> None:
    """The diagnosis, and under "remedies" what was tried."""
    with heard_or_not():
        if tried is None:
            typer.echo(found.to_json())
        else:
            both = {**loads(found.to_json()), "remedies": tried.to_dict()}
            typer.echo(dumps(both, ensure_ascii=False, indent=1))
