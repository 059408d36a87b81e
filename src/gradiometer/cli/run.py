"""`gradiometer run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradiometer.cli.app import errors_in_words
from gradiometer.cli.paths import PATH
from gradiometer.cli.remedies import Budget, RemediesPrinter, Try, check_budget
from gradiometer.cli.settings import Given, chosen, flag_for_each_setting
from gradiometer.events import (
    Begun,
    Compared,
    Event,
    FileWritten,
    Interrupted,
    KeptElsewhere,
    NotCompared,
    Progressed,
    Result,
    StepRecorded,
    StoppedOn,
    TimeLimitReached,
)


@flag_for_each_setting
def run(
    experiment: Annotated[
        Path | None, typer.Argument(**PATH, help="A TOML file; flags take precedence over it.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            **PATH,
            help="Folder for the trace, figures and TOML; {title} is the experiment's title.",
        ),
    ] = Path("runs/{title}"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another experiment in that folder.")
    ] = False,
    theory: Annotated[
        bool, typer.Option("--theory", help="Show the prediction in heatmap and profile.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write report.html, with all there is to say of it.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop the training after this time."),
    ] = None,
    stop_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Stop when the net is diagnosed with this (vanishing, exploding, dead, saturated, "
            "non-finite or stalled); may be repeated.",
        ),
    ] = None,
    attempt: Try = False,
    budget: Budget = None,
    *,
    settings: Given,
) -> None:
    """Train one net and show where its gradient goes."""
    with errors_in_words(), RunPrinter() as printer:
        check_budget(attempt, budget)
        from gradiometer.verbs import run as verb

        trace = verb.run(
            experiment,
            out=out,
            overwrite=overwrite,
            theory=theory,
            report=report,
            timeout=timeout,
            stop_on=stop_on or (),
            on_event=printer,
            **chosen(settings),
        )
        if attempt and printer.status and not printer.stopped:
            typer.echo("No remedies were tried, as the training did not come to its end.")
        elif attempt:
            from gradiometer.remedies import try_remedies

            found = try_remedies(trace, budget=budget, on_event=printer)
            if printer.report is not None:  # again, with what was found
                from gradiometer.verbs.report import report as write

                file = write(trace, printer.report, theory=theory, remedies=found)
                typer.echo(f"  {file}")


class RunPrinter(RemediesPrinter):
    """Prints what happens in a run.

    Attributes
    ----------
    report : Path or None
        Where the report is, once it was written.
    stopped : bool
        Whether a verdict stopped the training, which is no reason to try no remedies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.report: Path | None = None
        self.stopped = False
        self._done = 0  # steps; recorded ones are told late

    def show(self, event: Event) -> None:
        """Print an event."""
        match event:
            case Begun(_, _, steps):
                self._start(steps)
            case StepRecorded(step, _, loss, accuracy):
                self._done = max(self._done, step)
                self.move_bar(self._done, loss=loss, accuracy=accuracy)
            case Progressed(done):
                self._done = max(self._done, done)
                self.move_bar(self._done)
            case Result(trace):
                from gradiometer.cli.tables import print_report

                self.stop_bar()
                print_report(trace)
            case Compared(comparison):
                typer.echo(comparison.sentence())
            case NotCompared(why):
                typer.echo(f"Not compared with theory, because {why}; add --theory to compare.")
            case TimeLimitReached(_, done, steps):
                self.status = 1
                typer.echo(f"Stopped by the time limit after step {done} of {steps}; {SAVED}")
            case StoppedOn(kind, done, steps):
                self.status, self.stopped = 1, True
                typer.echo(f"Stopped on {kind} after step {done} of {steps}; {SAVED}")
            case Interrupted():
                super().show(event)
                _say_where_it_ended(event)
            case FileWritten(path) if path.suffix == ".html":
                self.report = path
                super().show(event)
            case KeptElsewhere(wanted, folder):
                typer.echo(
                    f"{wanted} holds other results, which are kept; these results are in {folder}."
                )
            case _:
                super().show(event)

    def _start(self, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        self.start_bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}  accuracy {task.fields[accuracy]:.3f}"),
            TimeRemainingColumn(),
            total=steps,
            loss=float("nan"),
            accuracy=float("nan"),
        )


SAVED = "what was recorded is saved."


def _say_where_it_ended(event: Interrupted) -> None:
    if event.doing == "drawing":
        typer.echo("Interrupted while drawing; `gradiometer plot` draws the other figures.")
    elif event.doing == "training" and not event.done:
        words = "gradiometer: interrupted before the first step; nothing was recorded"
        typer.echo(words, err=True)
    elif event.doing == "training" and event.done < event.total:
        typer.echo(f"Interrupted after step {event.done} of {event.total}; {SAVED}")
