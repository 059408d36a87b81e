"""The command line: a thin skin over `gradlab.verbs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from gradlab.experiment import Progress
    from gradlab.trace import Trace

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="See, predict, explain and repair the flow of gradients through a deep network.",
)

BAR_WIDTH = 14
INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Turn an error the user can mend into one line and exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"gradlab: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("gradlab: interrupted before the first step; nothing was recorded", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C end the training, and no further one what is saved after it."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _number_or_word(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


@app.command()
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
    steps: Annotated[int | None, typer.Option(help="Number of updates. [100]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step. [128]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches. [0]")] = None,
    members: Annotated[
        int | None, typer.Option(help="Nets side by side: seeds seed, seed+1, … [1]")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64. [float64]")] = None,
    every: Annotated[int | None, typer.Option(help="Record every k-th step. [1]")] = None,
    histograms: Annotated[
        bool | None, typer.Option("--histograms/--no-histograms", help="Gradient histograms. [no]")
    ] = None,
) -> None:
    """Train one net and show where its gradient goes."""
    given = {
        "data": data, "scaling": _number_or_word(scaling), "layers": layers, "width": width,
        "activation": activation, "clip": clip, "init": init, "init_scale": init_scale,
        "normalisation": normalisation, "residual": residual, "loss": loss,
        "reduction": reduction, "optimizer": optimizer, "learning_rate": learning_rate,
        "steps": steps, "batch_size": batch_size, "seed": seed, "members": members,
        "dtype": dtype, "every": every, "histograms": histograms,
    }  # fmt: skip
    with _errors_in_words():
        from gradlab import verbs

        described = verbs.describe(experiment, **{k: v for k, v in given.items() if v is not None})
        folder = verbs.prepare_folder(out or Path("runs") / described.title, described, overwrite)
        with _one_interrupt():
            with _progress_bar(described.steps) as progress:
                trace = described.run(progress)
            files = verbs.save(trace, described, folder)
        _report(trace)
        interrupted = bool(trace.attrs["interrupted"])
        if interrupted:
            last = int(trace.dataset["step"][-1])
            typer.echo(
                f"Interrupted after step {last} of {described.steps}; what was recorded is saved."
            )
        for file in files:
            typer.echo(f"  {file}")
        try:
            for file in verbs.draw(trace, folder):
                typer.echo(f"  {file}")
        except KeyboardInterrupt:
            typer.echo("Interrupted while drawing; `gradlab plot` draws the other figures.")
            interrupted = True
        if interrupted:
            raise typer.Exit(INTERRUPTED)


@app.command()
def activations(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names such as sigmoid tanh relu; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File for the figure.")] = Path("activations.png"),
) -> None:
    """Draw activation functions and their derivatives."""
    with _errors_in_words():
        from gradlab import verbs

        verbs.activations(names, out)
        typer.echo(out)


@app.command()
def plot(
    trace: Annotated[Path, typer.Argument(help="A trace.nc written by `gradlab run`.")],
    figure: Annotated[
        str,
        typer.Option(help="gradients, panels, heatmap, profile, learning or decision."),
    ] = "heatmap",
    out: Annotated[
        Path | None, typer.Option(help="File for the figure. [<figure>.png beside the trace]")
    ] = None,
) -> None:
    """Draw one figure of a saved trace."""
    with _errors_in_words():
        from gradlab import verbs

        file = out or trace.with_name(f"{figure}.png")
        verbs.plot(trace, figure, file)
        typer.echo(file)


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


def _report(trace: Trace) -> None:
    import numpy as np
    from rich.console import Console

    from gradlab import verbs

    # a pipe has no width of its own, and the table must not be cut off in it
    console = Console() if sys.stdout.isatty() else Console(width=110)
    rows = verbs.layer_table(trace)
    console.print(_table(rows, trace))
    final = trace["accuracy"].values[-1]
    members = f" (median of {final.size} nets)" if final.size > 1 else ""
    console.print(f"Accuracy {np.median(final):.3f}{members}.", highlight=False)
    console.print(verbs.sentence(trace), highlight=False, style="bold")


def _table(rows: list[dict[str, Any]], trace: Trace) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    steps = trace.dataset["step"].values
    # narrow enough for 80 columns
    table = Table(
        title="Where the gradient goes", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("layer", justify="right")
    first, last = f"step {steps[0]}", f"step {steps[-1]}"
    for heading, step in (
        ("mean\n|dL/dW|", first),
        ("mean\n|dL/dW|", last),
        ("delta\nrms", first),
        ("dead\nunits", last),
        ("satu-\nrated", last),
    ):
        table.add_column(f"{heading}\n{step}", justify="right")
    table.add_column(f"mean |dL/dW|\non a log scale\n{first}")
    bars = log_bars([row["first"] for row in rows])
    for row, bar in zip(rows, bars, strict=True):
        table.add_row(
            f"{row['depth']} {row['layer']}",
            *(f"{row[key]:.2e}" for key in ("first", "last", "delta")),
            *(_share(row[key]) for key in ("dead", "saturated")),
            bar,
        )
    return table


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.0%}"


def log_bars(values: list[float], width: int = BAR_WIDTH) -> list[str]:
    """Bars on a common log scale, from the smallest value (one cell) to the largest (`width`)."""
    import math

    logs = [math.log10(v) if math.isfinite(v) and v > 0 else None for v in values]
    present = [x for x in logs if x is not None]
    if not present:
        return ["0" if v == 0 else "not finite" for v in values]
    low, span = min(present), max(max(present) - min(present), 1.0)
    bars = []
    for value, log in zip(values, logs, strict=True):
        if log is None:
            bars.append("0" if value == 0 else "not finite")
        else:
            bars.append("█" * (1 + round((width - 1) * (log - low) / span)))
    return bars


def main() -> None:
    """Entry point of the `gradlab` command."""
    app()
