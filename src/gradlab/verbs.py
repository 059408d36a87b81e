"""The verbs: `run`, `activations` and `plot`, as Python functions; the command line calls these."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.validation import unknown
from gradlab.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradlab.experiment import Experiment, Progress
    from gradlab.trace import Trace

# The gradient "does not reach" the first layer if it is below a thousandth of the output layer's.
REACHES_WITHIN_DECADES = 3.0
RUN_FIGURES = ("gradients", "panels", "heatmap", "profile", "learning", "decision")


class OutputError(OSError):
    """A folder or file that cannot be written, said before any work is done."""


def run(
    experiment: Experiment | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Trace:
    """Train one net and record the flow of its gradient.

    Parameters
    ----------
    experiment : Experiment or path of a TOML file, optional
        What to run; by default the net of ten sigmoid layers that does not learn.
    out : path, optional
        Folder for trace.nc, experiment.toml and the figures. Nothing is written without it.
    overwrite : bool
        Replace another experiment's trace in `out`.
    progress : callable, optional
        `progress(step, steps, loss, accuracy)`.
    **settings
        Fields of `Experiment`, such as layers=3 or activation="tanh"; they take precedence.

    Returns
    -------
    Trace

    Raises
    ------
    ExperimentError
        If the description is not valid.
    OutputError
        If `out` cannot be written to, or holds another experiment's trace: before training.

    Examples
    --------
    >>> import gradlab
    >>> trace = gradlab.run(layers=3, activation="tanh", steps=5)
    >>> trace["grad_mean_abs"].sizes["layer"]
    4
    """
    described = describe(experiment, **settings)
    folder = None if out is None else prepare_folder(out, described, overwrite)
    trace = described.run(progress)
    if folder is not None:
        save(trace, described, folder)
        for _ in draw(trace, folder):
            pass
    return trace


def describe(
    experiment: Experiment | str | os.PathLike[str] | None = None, **settings: Any
) -> Experiment:
    """Combine an experiment, or a TOML file, with settings that take precedence over it."""
    from gradlab.experiment import Experiment

    if experiment is None:
        return Experiment.of(**settings)
    if isinstance(experiment, Experiment):
        return Experiment.of(**{**experiment.model_dump(exclude_unset=True), **settings})
    return Experiment.load(experiment, **settings)


def prepare_folder(
    out: str | os.PathLike[str], experiment: Experiment, overwrite: bool = False
) -> Path:
    """Make the folder and check that it can be written to, and that nothing would be lost."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / ".gradlab-probe") as probe:
            probe.write_bytes(b"gradlab")
        (folder / ".gradlab-probe").unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({error.strerror}); choose a folder that can, with "
            "--out"
        ) from None
    toml = folder / "experiment.toml"
    if not overwrite and (toml.exists() or (folder / "trace.nc").exists()):
        from gradlab.experiment import Experiment, ExperimentError

        try:
            other = Experiment.load(toml)
        except ExperimentError:
            other = None
        if other != experiment:
            raise OutputError(
                f"{folder}: holds the trace of another experiment"
                + (f" ({other.title})" if other is not None else "")
                + "; choose another folder, or pass --overwrite to replace it"
            )
    return folder


def save(trace: Trace, experiment: Experiment, folder: Path) -> list[Path]:
    """Write the trace and the description; returns their files."""
    files = [folder / "trace.nc", folder / "experiment.toml"]
    trace.save(files[0])
    experiment.save(files[1])
    return files


def draw(trace: Trace, folder: Path) -> Iterator[Path]:
    """Write the figures of a run, one by one; gives the file of each."""
    for name in RUN_FIGURES:
        if name == "decision" and "points" not in trace.dataset:
            continue
        file = folder / f"{name}.png"
        _save_figure(getattr(trace.plot, name)(), file)
        yield file


def activations(
    names: Sequence[str] | None = None, out: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw activation functions and their derivatives.

    Parameters
    ----------
    names : sequence of str, optional
        Names in `dp.activations.ACTIVATIONS`; all of them by default.
    out : path, optional
        File for the figure; its ending chooses the format.

    Raises
    ------
    ValueError
        For an unknown name, naming those there are.
    OutputError
        If the file cannot be written.
    """
    from gradlab import plots

    figure = plots.activations(names or None)
    if out is not None:
        _save_figure(figure, Path(out))
    return figure


def plot(
    trace: Trace | str | os.PathLike[str],
    figure: str = "heatmap",
    out: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw one figure of a trace.

    Parameters
    ----------
    trace : Trace or path of a saved one
    figure : str
        A name in `gradlab.plots.FIGURES`.
    out : path, optional
        File for the figure; its ending chooses the format.

    Raises
    ------
    ValueError
        For an unknown figure, naming those there are.
    TraceError
        If the file is no trace.
    OutputError
        If the figure cannot be written.
    """
    from gradlab.plots import FIGURES
    from gradlab.trace import Trace

    if figure not in FIGURES:
        raise ValueError(unknown("figure", figure, FIGURES))
    loaded = trace if isinstance(trace, Trace) else Trace.load(trace)
    drawn = FIGURES[figure](loaded)
    if out is not None:
        _save_figure(drawn, Path(out))
    return drawn


def _save_figure(figure: Figure, path: Path) -> None:
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None


# --- what a trace says, in numbers and in one sentence --------------------------------------------


def layer_table(trace: Trace) -> list[dict[str, Any]]:
    """One row per layer: its gradient at the first and last step, delta, dead and saturated share.

    Medians over the members of an ensemble. The delta is that of the first step, the shares are
    those of the last.
    """
    rows = []
    for i, name in enumerate(trace.dataset["layer"].values):
        row: dict[str, Any] = {"layer": str(name), "depth": i + 1}
        for key, quantity, step in (
            ("first", "grad_mean_abs", 0),
            ("last", "grad_mean_abs", -1),
            ("delta", "delta_rms", 0),
            ("dead", "dead_fraction", -1),
            ("saturated", "saturated_fraction", -1),
        ):
            row[key] = float(np.median(trace[quantity].values[step, i]))
        rows.append(row)
    return rows


def decades_lost(trace: Trace, quantity: str = "grad_mean_abs", step: int = 0) -> float:
    """Decades by which a quantity falls from the output layer to the first, at a step.

    The median over members is taken first. Infinite if the first layer's is exactly zero; negative
    if it grows; NaN if either is not finite.
    """
    values = trace[quantity].values[step]
    first, output = (float(np.median(values[i])) for i in (0, -1))
    with np.errstate(all="ignore"):
        if not np.isfinite([first, output]).all():
            return float("nan")
        return float(np.log10(np.divide(output, first)))


def sentence(trace: Trace) -> str:
    """Say in one sentence whether the gradient reaches the first layer."""
    if trace.attrs.get("nonfinite"):
        return f"The run diverged: {trace.attrs['nonfinite']}."
    rows = layer_table(trace)
    zero = [row["layer"] for row in rows if row["first"] == 0.0]
    if rows[0]["first"] == 0.0:
        # beyond the first layer whose gradient is not zero there may be others
        count = next((i for i, row in enumerate(rows) if row["first"] != 0.0), len(rows))
        where = zero[0] if count == 1 else f"{zero[0]} to {zero[count - 1]}"
        return f"The gradient does not reach the first layer: it is exactly zero in {where}."
    lost, delta = decades_lost(trace), decades_lost(trace, "delta_rms")
    reaches = lost < REACHES_WITHIN_DECADES
    if lost <= -REACHES_WITHIN_DECADES:
        verdict = "explodes on its way to the first layer"
    else:
        verdict = f"{'reaches' if reaches else 'does not reach'} the first layer"
    text = (
        f"The gradient {verdict}: at the first step mean |dL/dW| "
        f"{'falls' if lost >= 0 else 'grows'} by {abs(lost):.1f} decades from the output layer to "
        "layer 1"
    )
    if np.isfinite(delta):
        change = f"the delta {'falls' if delta >= 0 else 'grows'} by {abs(delta):.1f}"
        hidden = reaches and delta >= REACHES_WITHIN_DECADES
        text += f", but {change}: only the layers' inputs hold it up" if hidden else f" ({change})"
    return text + "."
