"""`gradiometer study`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradiometer.cli.app import errors_in_words, fail, heard_or_not
from gradiometer.cli.paths import PATH

if TYPE_CHECKING:
    from gradiometer.studies import Failed, StudyResults

MOST_ROWS = 60  # experiments in the table: of more, the file tells
MOST_CAUSES = 5


def study(
    study: Annotated[
        str | None,
        typer.Argument(help="A TOML file, a study's folder, or the name of a ready study."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(**PATH, help="Folder for results, tables, figures. [runs/<name>]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Run what is missing in that folder.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine. [one for each core]")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler, tcp://host:8786.")
    ] = None,
    members: Annotated[
        int | None, typer.Option(help="Nets per experiment. [as the study says]")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(help="Nets trained at once, to save memory. [all]")
    ] = None,
    attempts: Annotated[
        int, typer.Option(help="Attempts per experiment if its worker crashes.")
    ] = 3,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Stop experiments that take longer. [as the study says]"
        ),
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Print the study as TOML, and run nothing.")
    ] = False,
) -> None:
    """Run many experiments with many seeds; without a study, list those that are ready."""
    with errors_in_words():
        from gradiometer.optional import MissingLibraryError
        from gradiometer.verbs import studies as verb

        if study is None:
            _list()
            return
        described, folder = verb.describe(study, out, members)
        if describe:
            typer.echo(described.to_toml(), nl=False)
            return
        try:
            _carry_out(
                described,
                folder,
                resume=resume,
                workers=workers,
                cluster=cluster,
                at_once=at_once,
                attempts=attempts,
                timeout=timeout,
            )
        except MissingLibraryError as error:
            fail(str(error))


def _list() -> None:
    from gradiometer.studies.ready import READY, question

    typer.echo("Ready studies; `gradiometer study NAME` runs one, with --describe prints it:")
    for name in READY:
        typer.echo(f"  {name:<13} {question(name)}")


def _carry_out(described: Any, folder: Path, **options: Any) -> None:
    from gradiometer.interrupts import Interrupts
    from gradiometer.studies import Failed, load
    from gradiometer.studies.progress import display

    failures: list[Failed] = []
    stopped = None
    with Interrupts() as interrupts:
        interrupts.finish()  # the driver's loop looks at what came
        try:
            with display(described) as saw:
                for event in described.events(folder, **options):
                    saw(event)
                    if isinstance(event, Failed):
                        failures.append(event)
        except KeyboardInterrupt:
            stopped = 128 + (interrupts.signal or signal.SIGINT)
    results = load(folder)
    if results.finished:
        with heard_or_not():
            _report(results)
    _tell_failures(failures, results)
    if stopped:
        done, total = len(results.finished), len(described.experiments)
        typer.echo(
            f"Interrupted; {done} of {total} experiments are saved in {folder}, "
            "--resume runs the others.",
            err=True,
        )
    if not interrupts.again:
        stopped = _write(results) or stopped
    if stopped or failures:
        raise typer.Exit(stopped or 1)


def _write(results: StudyResults) -> int | None:
    """Write tables and figures; gives the signal that stopped it, if one did."""
    from gradiometer.interrupts import Interrupts
    from gradiometer.verbs import studies as verb

    with Interrupts() as interrupts:
        try:
            for file in verb.write(results):
                with heard_or_not():
                    typer.echo(f"  {file}")
                interrupts.check()
        except KeyboardInterrupt:
            typer.echo("Interrupted while drawing; --resume draws the other figures.", err=True)
            return 128 + (interrupts.signal or signal.SIGINT)
    return None


def _tell_failures(failures: list[Failed], results: StudyResults) -> None:
    for failure in failures[:MOST_CAUSES]:
        typer.echo(f"failed: {failure.experiment.title}: {failure.cause}", err=True)
    if failures:
        count = "1 experiment" if len(failures) == 1 else f"{len(failures)} experiments"
        typer.echo(
            f"{count} failed; {results.folder.failed} has the traceback of each, and --resume "
            "tries again.",
            err=True,
        )


def _report(results: StudyResults) -> None:
    from gradiometer.cli.tables import console, study_table

    screen = console()
    summary = results.summary()
    shown = summary.head(MOST_ROWS)
    screen.print(study_table(shown, list(results.study.axes)), crop=False)
    if len(shown) < len(summary):
        screen.print(f"… and {len(summary) - len(shown)} more rows, in summary.csv.")
    screen.print(results.sentence(), highlight=False, style="bold", soft_wrap=True)
