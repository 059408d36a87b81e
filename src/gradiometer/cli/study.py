"""`gradiometer study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradiometer.cli.app import errors_in_words
from gradiometer.cli.paths import PATH
from gradiometer.cli.printer import Printer
from gradiometer.events import Begun, Event, Interrupted, Result

if TYPE_CHECKING:
    from rich.console import Console

    from gradiometer.studies import ExperimentEvent, ExperimentFailed, StudyResults
    from gradiometer.studies.progress import Tally

MOST_ROWS = 60  # experiments in the table; the file lists all of them
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
        int, typer.Option(help="Attempts at an experiment whose worker crashes.")
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
    """Run many experiments with many seeds; without a study, list the ready ones."""
    with errors_in_words(), StudyPrinter() as printer:
        if study is None:
            _list()
            return
        from gradiometer.studies import ExperimentsFailedError
        from gradiometer.verbs import study as verb

        if describe:
            typer.echo(verb.describe(study, out, members)[0].to_toml(), nl=False)
            return
        try:
            verb.study(
                study,
                out=out,
                resume=resume,
                members=members,
                workers=workers,
                cluster=cluster,
                at_once=at_once,
                attempts=attempts,
                timeout=timeout,
                on_event=printer,
            )
        except ExperimentsFailedError as error:
            printer.tell_failures(error.failures)


def _list() -> None:
    from gradiometer.studies.ready import READY, question

    typer.echo("Ready studies; `gradiometer study NAME` runs one, with --describe prints it:")
    for name in READY:
        typer.echo(f"  {name:<13} {question(name)}")


class StudyPrinter(Printer):
    """Prints what happens in a study.

    Parameters
    ----------
    console : rich.console.Console, optional
        For the progress bar; the standard error stream by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console
        self._tally: Tally | None = None
        self._results: StudyResults | None = None

    def show(self, event: Event) -> None:
        """Print an event."""
        match event:
            case Begun(_, described):
                from gradiometer.studies.progress import Tally

                self._tally = Tally(described)
            case Result(results):
                self._results = results
                self.stop_bar()
                if results.finished:
                    _report(results)
            case Interrupted():
                super().show(event)
                self._say_what_is_saved(event)
            case _:
                from gradiometer.studies import ExperimentEvent

                if isinstance(event, ExperimentEvent):
                    self._count(event)
                else:
                    super().show(event)

    def _count(self, event: ExperimentEvent) -> None:
        assert self._tally is not None
        if self._bar is None:  # not before there is anything to show
            self._start(self._tally)
        words = self._tally.add(event)
        # work counts, not experiments: deep nets take longer
        self.move_bar(
            self._tally.work_done,
            total=self._tally.work,
            counts=self._tally.counts,
            rate=self._tally.rate,
        )
        if words and self._bar is not None:
            self._bar.console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _start(self, tally: Tally) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

        self.start_bar(
            TextColumn("{task.fields[counts]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            total=tally.work,
            counts=tally.counts,
            rate="",
        )

    def _say_what_is_saved(self, event: Interrupted) -> None:
        if event.doing == "drawing":
            typer.echo("Interrupted while drawing; --resume draws the other figures.", err=True)
        elif self._results is not None:
            typer.echo(
                f"Interrupted; {event.done} of {event.total} experiments are saved in "
                f"{self._results.folder.path}, --resume runs the others.",
                err=True,
            )

    def tell_failures(self, failures: list[ExperimentFailed]) -> None:
        """Say which experiments failed, and why."""
        self.status = self.status or 1
        for failure in failures[:MOST_CAUSES]:
            typer.echo(f"failed: {failure.experiment.title}: {failure.cause}", err=True)
        count = "1 experiment" if len(failures) == 1 else f"{len(failures)} experiments"
        place = "" if self._results is None else f"{self._results.folder.failed} "
        typer.echo(
            f"{count} failed; {place}has the traceback of each, and --resume tries again.", err=True
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
