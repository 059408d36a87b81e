"""The command line: a thin skin over `gradlab.verbs`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

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
    help="See the flow of gradients through a deep network.",
)

BAR_WIDTH = 14
NARROW = 76  # columns that the table needs


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Turn an error the user can mend into one line and exit status 2."""
    try:
        yield
    except MemoryError as error:
        _fail(f"not enough memory ({error}); choose a smaller width, batch or number of members")
    except BrokenPipeError:
        raise  # typer's: whoever read our output has gone
    except (ValueError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"gradlab: {message}", err=True)
    raise typer.Exit(2) from None


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """Go on with the work where nobody reads what is printed (`gradlab run | head -1`)."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich turns the one into the other
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gradlab {version('gradlab')}")
        raise typer.Exit


@app.callback()
def _gradlab(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None: ...


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
    histograms: Annotated[
        bool | None, typer.Option("--histograms/--no-histograms", help="Gradient histograms. [no]")
    ] = None,
) -> None:
    """Train one net and show where its gradient goes."""
    with _errors_in_words():
        from gradlab import verbs
        from gradlab.interrupts import Interrupts

        given = {
            "data": data, "scaling": _number_or_word(scaling), "layers": layers, "width": width,
            "activation": activation, "clip": clip, "init": init, "init_scale": init_scale,
            "normalisation": normalisation, "residual": residual, "loss": loss,
            "reduction": reduction, "optimizer": optimizer, "learning_rate": learning_rate,
            "hyperparameters": _hyperparameters(hyperparameter), "steps": steps,
            "batch_size": batch_size, "seed": seed, "members": members, "dtype": dtype,
            "every": every, "histograms": histograms,
        }  # fmt: skip
        described = verbs.describe(experiment, **{k: v for k, v in given.items() if v is not None})
        wanted = Path("runs") / described.title if out is None else out
        folder = verbs.prepare_folder(wanted, described, overwrite)
        trace, saved, failure = None, folder, ""
        with Interrupts() as interrupts:
            try:
                with _progress_bar(described.steps) as progress:
                    trace = described.run(progress)
                interrupts.finish()
                saved = verbs.save(trace, described, folder, overwrite)
            except KeyboardInterrupt:
                pass  # before the first step
            except OSError as error:
                failure = str(error)  # said below what was found, which would be lost with it
        if trace is None:
            typer.echo("gradlab: interrupted before the first step; nothing was recorded", err=True)
            raise typer.Exit(128 + (interrupts.signal or signal.SIGINT))
        with _heard_or_not():
            _report(trace)
        if failure:
            _fail(failure)
        with _heard_or_not():
            if trace.attrs["interrupted"]:
                typer.echo(
                    f"Interrupted after step {trace.attrs['steps_done']} of {described.steps}; "
                    "what was recorded is saved."
                )
            if saved != folder:
                typer.echo(f"{folder} holds other results, which stay; these are in {saved}.")
            for name in (verbs.TRACE, verbs.DESCRIPTION):
                typer.echo(f"  {saved / name}")
        stopped = interrupts.signal or (signal.SIGINT if trace.attrs["interrupted"] else None)
        if not interrupts.again:
            stopped = _draw(trace, saved) or stopped
        if stopped:
            raise typer.Exit(128 + stopped)


def _draw(trace: Trace, folder: Path) -> int | None:
    """Draw the figures of a run; gives the signal that stopped it, if one did."""
    from gradlab import verbs
    from gradlab.interrupts import Interrupts

    with Interrupts() as interrupts:
        try:
            for file in verbs.draw(trace, folder):
                with _heard_or_not():
                    typer.echo(f"  {file}")
        except KeyboardInterrupt:
            typer.echo("Interrupted while drawing; `gradlab plot` draws the other figures.")
            return interrupts.signal or signal.SIGINT
    return None


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
    trace: Annotated[
        Path, typer.Argument(help="A trace.nc written by `gradlab run`, or its folder.")
    ],
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

        folder = trace if trace.is_dir() else trace.parent
        drawn = verbs.plot(trace, figure)
        file = folder / f"{figure}.png" if out is None else out
        verbs.save_figure(drawn, file)
        typer.echo(file)


@app.command()
def export(
    trace: Annotated[
        Path, typer.Argument(help="A trace.nc written by `gradlab run`, or its folder.")
    ],
    to: Annotated[
        str | None,
        typer.Option(help="csv, parquet or tensorboard. [as the ending of --out says]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File, or folder for TensorBoard. [beside the trace]")
    ] = None,
) -> None:
    """Write a saved trace for other tools: CSV, Parquet, TensorBoard."""
    with _errors_in_words():
        from gradlab import verbs
        from gradlab.exports import MissingLibraryError

        try:
            typer.echo(verbs.export(trace, to, out))
        except MissingLibraryError as error:
            _fail(str(error))


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

    # a pipe has no width of its own, and the table must not be cut off in it or squeezed
    console = Console() if sys.stdout.isatty() else Console(width=110)
    if console.width < NARROW:
        console = Console(width=NARROW)
    console.print(_table(trace.table(), trace), crop=False)
    final = trace["accuracy"].values[-1]
    members = f" (median of {final.size} nets)" if final.size > 1 else ""
    console.print(f"Accuracy {np.median(final):.3f}{members}.", highlight=False)
    console.print(trace.sentence(), highlight=False, style="bold", soft_wrap=True)


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
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no "█" shows "?"
    app()
