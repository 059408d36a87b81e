"""`gradlab run`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.app import errors_in_words, fail, heard_or_not
from gradlab.cli.tables import print_report

if TYPE_CHECKING:
    from gradlab.experiment import Progress
    from gradlab.trace import Trace


def run(
    experiment: Annotated[
        Path | None, typer.Argument(help="A TOML file; flags take precedence over it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the trace, figures and TOML. [runs/<title>]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another experiment in that folder.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="iris2, iris, digits, moons or circles. [iris2]")
    ] = None,
    scaling: Annotated[
        str | None, typer.Option(help="standardise, raw, or a factor. [standardise]")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Number of hidden layers. [10]")] = None,
    width: Annotated[int | None, typer.Option(help="Units per hidden layer. [10]")] = None,
    activation: Annotated[
        str | None, typer.Option(help="Activation of the hidden layers. [sigmoid]")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Ceiling of a clipped relu.")] = None,
    init: Annotated[str | None, typer.Option(help="Initialiser. [dp]")] = None,
    init_scale: Annotated[
        float | None, typer.Option(help="Factor on the first weights. [1]")
    ] = None,
    normalisation: Annotated[str | None, typer.Option(help="none, layer or batch. [none]")] = None,
    residual: Annotated[
        bool | None, typer.Option("--residual/--no-residual", help="Skip connections. [no]")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="cross_entropy or squared_error. [cross_entropy]")
    ] = None,
    reduction: Annotated[str | None, typer.Option(help="sum or mean over the batch. [sum]")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, momentum, rmsprop or adam. [sgd]")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate. [0.001]")] = None,
    hyperparameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Another one of the optimiser, such as beta=0.5."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of updates. [100]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step. [128]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches. [0]")] = None,
    members: Annotated[
        int | None, typer.Option(help="Nets side by side: seeds seed, seed+1, … [1]")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64. [float64]")] = None,
    every: Annotated[int | None, typer.Option(help="Record every k-th step. [1]")] = None,
    quantity: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Record this one of every layer, and others so named."),
    ] = None,
    histograms: Annotated[
        bool | None, typer.Option("--histograms/--no-histograms", help="Gradient histograms. [no]")
    ] = None,
    decision: Annotated[
        bool | None, typer.Option("--decision/--no-decision", help="Keep what it decides. [yes]")
    ] = None,
) -> None:
    """Train one net and show where its gradient goes."""
    with errors_in_words():
        from gradlab.interrupts import Interrupts
        from gradlab.verbs import experiments as verb
        from gradlab.verbs.output import DESCRIPTION, TRACE

        given = {
            "data": data, "scaling": _number_or_word(scaling), "layers": layers, "width": width,
            "activation": activation, "clip": clip, "init": init, "init_scale": init_scale,
            "normalisation": normalisation, "residual": residual, "loss": loss,
            "reduction": reduction, "optimizer": optimizer, "learning_rate": learning_rate,
            "hyperparameters": _hyperparameters(hyperparameter), "steps": steps,
            "batch_size": batch_size, "seed": seed, "members": members, "dtype": dtype,
            "every": every, "quantities": quantity or None, "histograms": histograms,
            "decision": decision,
        }  # fmt: skip
        described = verb.describe(experiment, **{k: v for k, v in given.items() if v is not None})
        wanted = Path("runs") / described.title if out is None else out
        folder = verb.prepare_folder(wanted, described, overwrite)
        trace, saved, failure = None, folder, ""
        with Interrupts() as interrupts:
            try:
                with _progress_bar(described.steps) as progress:
                    trace = described.run(progress)
                interrupts.finish()
                saved = verb.save(trace, described, folder, overwrite)
            except KeyboardInterrupt:
                pass  # before the first step
            except OSError as error:
                failure = str(error)  # said below what was found, which would be lost with it
        if trace is None:
            typer.echo("gradlab: interrupted before the first step; nothing was recorded", err=True)
            raise typer.Exit(128 + (interrupts.signal or signal.SIGINT))
        with heard_or_not():
            print_report(trace)
        if failure:
            fail(failure)
        with heard_or_not():
            if trace.attrs["interrupted"]:
                typer.echo(
                    f"Interrupted after step {trace.attrs['steps_done']} of {described.steps}; "
                    "what was recorded is saved."
                )
            if saved != folder:
                typer.echo(f"{folder} holds other results, which stay; these are in {saved}.")
            for name in (TRACE, DESCRIPTION):
                typer.echo(f"  {saved / name}")
        stopped = interrupts.signal or (signal.SIGINT if trace.attrs["interrupted"] else None)
        if not interrupts.again:
            stopped = _draw(trace, saved) or stopped
        if stopped:
            raise typer.Exit(128 + stopped)


def _hyperparameters(pairs: list[str] | None) -> dict[str, float] | None:
    """From "beta=0.5" and the like."""
    if not pairs:
        return None
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise ValueError(
                f"a hyperparameter is given as NAME=NUMBER, such as beta=0.5, got {pair!r}"
            ) from None
    return found


def _number_or_word(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _draw(trace: Trace, folder: Path) -> int | None:
    """Draw the figures of a run; gives the signal that stopped it, if one did."""
    from gradlab.interrupts import Interrupts
    from gradlab.verbs import experiments as verb

    with Interrupts() as interrupts:
        try:
            for file in verb.draw(trace, folder):
                with heard_or_not():
                    typer.echo(f"  {file}")
        except KeyboardInterrupt:
            typer.echo("Interrupted while drawing; `gradlab plot` draws the other figures.")
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
