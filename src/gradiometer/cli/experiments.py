"""`gradiometer run`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradiometer.cli.app import errors_in_words, fail, heard_or_not
from gradiometer.cli.paths import PATH
from gradiometer.cli.settings import Settings, chosen, flag_for_each_setting
from gradiometer.cli.tables import print_report

if TYPE_CHECKING:
    from gradiometer.experiment import Progress
    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace


@flag_for_each_setting
def run(
    experiment: Annotated[
        Path | None, typer.Argument(**PATH, help="A TOML file; flags take precedence over it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="Folder for the trace, figures and TOML. [runs/<title>]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another experiment in that folder.")
    ] = False,
    theory: Annotated[
        bool, typer.Option("--theory", help="Show the prediction behind heatmap and profile.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop the training after this time."),
    ] = None,
    *,
    settings: Settings,
) -> None:
    """Train one net and show where its gradient goes."""
    with errors_in_words():
        from gradiometer.interrupts import Interrupts, check_time_limit
        from gradiometer.memory import check_memory
        from gradiometer.verbs import experiments as verb

        described = verb.describe(experiment, **chosen(settings))
        check_time_limit(timeout)
        check_memory(described)
        if theory:  # said before anything is trained, if it cannot be had
            verb.check_theory(described)
        wanted = Path("runs") / described.title if out is None else out
        folder = verb.prepare_folder(wanted, described, overwrite)
        trace, saved, failure = None, folder, ""
        with Interrupts() as interrupts:
            try:
                with _progress_bar(described.steps) as progress:
                    trace = described.run(progress, timeout=timeout)
                interrupts.finish()
                saved = verb.save(trace, described, folder, overwrite)
            except KeyboardInterrupt:
                pass  # before the first step
            except OSError as error:
                failure = str(error)  # said below what was found, which would be lost with it
        if trace is None:
            if failure:
                fail(failure)
            typer.echo(
                "gradiometer: interrupted before the first step; nothing was recorded", err=True
            )
            raise typer.Exit(128 + (interrupts.signal or signal.SIGINT))
        with heard_or_not():
            print_report(trace)
        if failure:
            fail(failure)
        late = "time_limit" in trace.attrs
        interrupted = trace.attrs["interrupted"] and not late
        stopped = interrupts.signal or (signal.SIGINT if interrupted else None)
        behind = None
        if not stopped:
            behind, stopped = _compare(trace, theory)
        with heard_or_not():
            _print_saved(trace, described.steps, folder, saved)
        if not interrupts.again:
            stopped = _draw(trace, saved, behind) or stopped
        if stopped:
            raise typer.Exit(128 + stopped)
        if late:
            raise typer.Exit(1)


def _print_saved(trace: Trace, steps: int, folder: Path, saved: Path) -> None:
    """Say how far the training came, and where its trace and description are."""
    from gradiometer.verbs.output import DESCRIPTION, TRACE

    if trace.attrs["interrupted"]:
        word = "Ended by the time limit" if "time_limit" in trace.attrs else "Interrupted"
        typer.echo(
            f"{word} after step {trace.attrs['steps_done']} of {steps}; what was recorded is saved."
        )
    if saved != folder:
        typer.echo(f"{folder} holds other results, which stay; these are in {saved}.")
    for name in (TRACE, DESCRIPTION):
        typer.echo(f"  {saved / name}")


def _compare(trace: Trace, theory: bool) -> tuple[Prediction | None, int | None]:
    """Say how the run compares with theory.

    Gives the prediction, if it is to be drawn, and the signal that came meanwhile, if one did.
    """
    from gradiometer.interrupts import Interrupts
    from gradiometer.verbs import experiments as verb

    with Interrupts() as interrupts:
        try:
            predicted = verb.predict_first_step(trace, insist=theory)
            interrupts.check()
        except KeyboardInterrupt:
            return None, interrupts.signal or signal.SIGINT
    if predicted is None:
        if trace.experiment["layers"] > verb.COMPARED:
            with heard_or_not():
                typer.echo(
                    "Not compared with the prediction, which is slow for more than "
                    f"{verb.COMPARED} layers: add --theory to compare."
                )
        return None, None
    prediction, comparison = predicted
    with heard_or_not():
        typer.echo(comparison.sentence())
    return prediction if theory else None, None


def _draw(trace: Trace, folder: Path, theory: Prediction | None) -> int | None:
    """Draw the figures of a run; gives the signal that stopped it, if one did."""
    from gradiometer.interrupts import Interrupts
    from gradiometer.verbs import experiments as verb

    with Interrupts() as interrupts:
        try:
            for file in verb.draw(trace, folder, theory):
                with heard_or_not():
                    typer.echo(f"  {file}")
                interrupts.check()
        except KeyboardInterrupt:
            typer.echo("Interrupted while drawing; `gradiometer plot` draws the other figures.")
            return interrupts.signal or signal.SIGINT
    return None


@contextmanager
def _progress_bar(steps: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}  accuracy {task.fields[accuracy]:.3f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("training", total=steps, loss=float("nan"), accuracy=float("nan"))

        def progress(step: int, _total: int, loss: float, accuracy: float) -> None:
            bar.update(task, completed=step, loss=loss, accuracy=accuracy)

        yield progress
