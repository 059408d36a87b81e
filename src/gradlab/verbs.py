"""The verbs, such as `run` and `plot`, as Python functions; the command line calls these."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp.validation import unknown
from gradlab.files import replacing
from gradlab.interrupts import Interrupts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradlab.experiment import Experiment, Progress
    from gradlab.trace import Trace

TRACE, DESCRIPTION = "trace.nc", "experiment.toml"
# named here too, so that a folder can be checked without loading matplotlib
FIGURE_NAMES = ("gradients", "panels", "heatmap", "profile", "learning", "decision")


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
        If `out` cannot be written to, or holds something else: before training.

    Examples
    --------
    >>> import gradlab
    >>> trace = gradlab.run(layers=3, activation="tanh", steps=5)
    >>> trace["grad_mean_abs"].sizes["layer"]
    4
    """
    described = describe(experiment, **settings)
    if out is None:
        return described.run(progress)
    folder = prepare_folder(out, described, overwrite)
    with Interrupts():
        trace = described.run(progress)
        folder = save(trace, described, folder, overwrite)
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
    if isinstance(experiment, (bool, int, float)):
        raise TypeError(
            f"an experiment is an Experiment or the path of a TOML file, got {experiment!r}; "
            "settings go by name, such as layers=5"
        )
    if isinstance(experiment, Experiment):
        return Experiment.of(**{**experiment.model_dump(exclude_unset=True), **settings})
    return Experiment.load(experiment, **settings)


def prepare_folder(
    out: str | os.PathLike[str], experiment: Experiment, overwrite: bool = False
) -> Path:
    """Make the folder and check that it can be written to, and that nothing would be lost.

    Raises
    ------
    OutputError
        If it cannot be written to, holds another experiment, or holds files of the names to be
        written that are of no experiment.
    """
    if not os.fspath(out):
        raise OutputError("out must be the name of a folder, got an empty one")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"gradlab")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({error.strerror}); choose a folder that can, with "
            "--out"
        ) from None
    if not overwrite:
        _refuse_to_replace(folder, experiment)
    return folder


def _refuse_to_replace(folder: Path, experiment: Experiment) -> None:
    """Raise OutputError if the folder holds anything but earlier results of this experiment."""
    from gradlab.experiment import Experiment, ExperimentError

    present = [name for name in _file_names() if (folder / name).exists()]
    if not present:
        return
    found = None
    if DESCRIPTION in present:
        try:
            found = Experiment.load(folder / DESCRIPTION)
        except ExperimentError:
            present = [DESCRIPTION]
    if found == experiment:
        return
    holds = (
        f"the trace of another experiment ({found.title})"
        if found is not None
        else f"files of no known experiment ({', '.join(present)})"
    )
    raise OutputError(
        f"{folder}: holds {holds}; choose another folder, or pass --overwrite to replace them"
    )


def _file_names() -> list[str]:
    return [TRACE, DESCRIPTION, *(f"{name}.png" for name in FIGURE_NAMES)]


def save(trace: Trace, experiment: Experiment, folder: Path, overwrite: bool = False) -> Path:
    """Write the trace and the description; returns the folder they are in.

    What came into the folder meanwhile stays: the result of another experiment, and the complete
    trace of the same one if this one was interrupted. The result then goes into a folder beside it.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    if not overwrite and not _may_replace(folder, experiment, trace):
        folder = _beside(folder)
    try:
        trace.save(folder / TRACE)
        experiment.save(folder / DESCRIPTION)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error})"
        ) from None
    return folder


def _beside(folder: Path) -> Path:
    for number in itertools.count(2):
        other = folder.with_name(f"{folder.name}-{number}")
        with contextlib.suppress(FileExistsError):
            other.mkdir()
            return other
    raise AssertionError


def _may_replace(folder: Path, experiment: Experiment, trace: Trace) -> bool:
    from gradlab.trace import Trace, TraceError

    try:
        _refuse_to_replace(folder, experiment)
    except OutputError:
        return False
    if not trace.attrs.get("interrupted"):
        return True
    try:
        earlier = Trace.load(folder / TRACE)
    except TraceError:
        return True
    return earlier.dataset.sizes["step"] <= trace.dataset.sizes["step"]


def draw(trace: Trace, folder: Path) -> Iterator[Path]:
    """Write the figures of a run, one by one; gives the file of each."""
    for name in FIGURE_NAMES:
        if name == "decision" and "points" not in trace.dataset:
            continue
        file = folder / f"{name}.png"
        save_figure(getattr(trace.plot, name)(), file)
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
        save_figure(figure, Path(out))
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
    if not isinstance(trace, Trace):
        trace = Trace.load(_file_of(trace))
    drawn = FIGURES[figure](trace)
    if out is not None:
        save_figure(drawn, Path(out))
    return drawn


def _file_of(trace: str | os.PathLike[str]) -> Path:
    """Give the file of a saved trace, which may be named by its folder."""
    path = Path(trace)
    return path / TRACE if path.is_dir() else path


def export(
    trace: Trace | str | os.PathLike[str],
    to: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a trace for other tools: a table as CSV or Parquet, or a run for TensorBoard.

    Parameters
    ----------
    trace : Trace or path of a saved one
    to : str, optional
        "csv", "parquet" or "tensorboard"; by default what the ending of `out` says, .csv or
        .parquet.
    out : path, optional
        The file, or for TensorBoard the folder. By default it lies beside a saved trace: a file of
        its name, or the folder "tensorboard".

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ValueError
        For an unknown format, or one that the ending of `out` contradicts; and if `out` is missing
        for a trace that was not saved.
    TraceError
        If the file is no trace.
    OutputError
        If it cannot be written, or would replace the trace itself.
    MissingLibraryError
        If the library that the format needs is not installed.
    FileExistsError
        If the folder for TensorBoard holds anything.
    """
    from gradlab.exports import FORMATS
    from gradlab.trace import Trace

    chosen = _export_format(to, out, FORMATS)
    source = None
    if not isinstance(trace, Trace):
        source = _file_of(trace)
        trace = Trace.load(source)
    if out is not None:
        written = Path(out)
    elif source is not None:
        in_folder = chosen == "tensorboard"
        written = source.with_name(chosen) if in_folder else source.with_suffix(f".{chosen}")
    else:
        raise ValueError("out must be given for a trace that was not saved: the path to write to")
    if source is not None and written.exists() and written.samefile(source):
        raise OutputError(f"{written}: is the trace itself; choose another file, with --out")
    try:
        FORMATS[chosen](trace, written)
    except OSError as error:
        if error.errno is None:  # said in words already
            raise
        raise OutputError(f"{written}: cannot be written ({error.strerror})") from None
    return written


def _export_format(to: str | None, out: str | os.PathLike[str] | None, known: Iterable[str]) -> str:
    names = [*known]
    ending = "" if out is None else Path(out).suffix.lower()
    said = ending[1:] if ending in (".csv", ".parquet") else None
    if to is None and said is None:
        where = "nothing" if out is None else repr(os.fspath(out))
        raise ValueError(
            f"the format must be given: to one of {', '.join(names)}, or out with the ending .csv "
            f"or .parquet, got {where}"
        )
    chosen = to or said or ""
    if chosen not in names:
        raise ValueError(unknown("format", chosen, names))
    if said not in (None, chosen):
        raise ValueError(
            f"{os.fspath(out or '')}: the ending says {said}, but the format is to be {chosen}; "
            "give the one or the other"
        )
    return chosen


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the file's ending chooses the format.

    Raises
    ------
    OutputError
        If the ending is of no format that figures have, or the file cannot be written.
    """
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise OutputError(
            f"{path}: a figure's file must end in one of {', '.join(f'.{f}' for f in formats)}"
        )
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
