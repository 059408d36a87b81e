"""`run`: one experiment, its trace, figures and description in a folder."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradiometer.files import FAILURES, keep_elsewhere, remove_leftovers, why
from gradiometer.interrupts import Interrupts, check_time_limit
from gradiometer.locks import IN_FOLDER, Lock
from gradiometer.memory import check_memory
from gradiometer.verbs.figures import WITH_THEORY
from gradiometer.verbs.output import (
    DESCRIPTION,
    TRACE,
    OutputError,
    save_figure,
    writable_folder,
)

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment, Progress
    from gradiometer.theory import Comparison, Prediction
    from gradiometer.trace import Trace

PATIENCE = 60.0  # seconds for another run to write its result into the same folder
COMPARED = 20  # hidden layers: the time for a prediction grows with their square
# named here too, so that a folder can be checked without loading matplotlib
FIGURE_NAMES = ("gradients", "panels", "heatmap", "profile", "learning", "decision")


def run(
    experiment: Experiment | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    timeout: float | None = None,
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
    timeout : float, optional
        Seconds after which the training ends; what was recorded until then is given, and saved.
    **settings
        Fields of `Experiment`, such as layers=3 or activation="tanh"; they take precedence.

    Returns
    -------
    Trace

    Raises
    ------
    ExperimentError
        If the description is not valid.
    TooLargeError
        If it needs more memory than there is: before anything is made.
    OutputError
        If `out` cannot be written to, or holds something else: before training. If the result
        cannot be written: its `trace` has it, and so has a file elsewhere, which the error names.

    Examples
    --------
    >>> import gradiometer
    >>> trace = gradiometer.run(layers=3, activation="tanh", steps=5)
    >>> trace["grad_mean_abs"].sizes["layer"]
    4
    """
    described = describe(experiment, **settings)
    check_time_limit(timeout)
    check_memory(described)
    if out is None:
        return described.run(progress, timeout=timeout)
    folder = prepare_folder(out, described, overwrite)
    with Interrupts():
        trace = described.run(progress, timeout=timeout)
        folder = save(trace, described, folder, overwrite)
    for _ in draw(trace, folder):
        pass
    return trace


def describe(
    experiment: Experiment | str | os.PathLike[str] | None = None, **settings: Any
) -> Experiment:
    """Combine an experiment, or a TOML file, with settings that take precedence over it."""
    from gradiometer.experiment import Experiment

    if experiment is None:
        return Experiment.of(**settings)
    if isinstance(experiment, (bool, int, float)):
        raise TypeError(
            f"an experiment is an Experiment or the path of a TOML file, got {experiment!r}; "
            "settings go by name, such as layers=5"
        )
    if isinstance(experiment, Experiment):
        return Experiment.of(**{**experiment.given(), **settings})
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
    folder = writable_folder(out)
    if not overwrite:
        _refuse_to_replace(folder, experiment)
    remove_leftovers(folder, _file_names())
    return folder


def _refuse_to_replace(folder: Path, experiment: Experiment) -> None:
    """Raise OutputError if the folder holds anything but earlier results of this experiment."""
    present = [name for name in _file_names() if (folder / name).exists()]
    if not present:
        return
    found = [e for e in (_described(folder), _recorded(folder)) if e is not None]
    others = [e for e in found if e != experiment]
    if found and not others:
        return
    holds = (
        f"the trace of another experiment ({others[0].title})"
        if others
        else f"files of no known experiment ({', '.join(present)})"
    )
    raise OutputError(
        f"{folder}: holds {holds}; choose another folder, or pass --overwrite to replace them"
    )


def _described(folder: Path) -> Experiment | None:
    """The experiment that the folder's description tells of."""
    from gradiometer.experiment import Experiment, ExperimentError

    try:
        return Experiment.load(folder / DESCRIPTION)
    except ExperimentError:
        return None


def _recorded(folder: Path) -> Experiment | None:
    """The experiment of the folder's trace, which may be there without a description."""
    from gradiometer.experiment import Experiment, ExperimentError
    from gradiometer.trace import Trace, TraceError

    if not (folder / TRACE).is_file():
        return None
    try:
        fields = Trace.load(folder / TRACE).experiment
        return Experiment.of(**fields) if fields else None
    except (TraceError, ExperimentError):
        return None


def _file_names() -> list[str]:
    return [TRACE, DESCRIPTION, *(f"{name}.png" for name in FIGURE_NAMES)]


def save(trace: Trace, experiment: Experiment, folder: Path, overwrite: bool = False) -> Path:
    """Write the trace and the description; returns the folder they are in.

    What came into the folder meanwhile stays: the result of another experiment, and the complete
    trace of the same one if this one was interrupted. The result then goes into a folder beside it.

    Raises
    ------
    OutputError
        If a file cannot be written. A trace is then kept in another folder, which the error names;
        and in the error's `trace`.
    """
    try:
        # one after the other: nobody writes between the look and the writing
        with _lock(folder):
            if not overwrite and not _may_replace(folder, experiment, trace):
                folder = _beside(folder)
            trace.save(folder / TRACE)
    except FAILURES as error:
        raise _kept(trace, folder, error) from None
    try:
        experiment.save(folder / DESCRIPTION)
    except FAILURES as error:
        raise _failure(
            f"{folder / DESCRIPTION}: cannot be written ({why(error)}); the trace is saved, in "
            f"{folder / TRACE}",
            trace,
        ) from None
    return folder


def _lock(folder: Path) -> Lock:
    lock = Lock.take(folder / IN_FOLDER, PATIENCE)
    if lock is None:
        words = f"another gradiometer has been writing there for {PATIENCE:.0f} seconds"
        raise OSError(errno.EBUSY, words, str(folder))
    return lock


def _kept(trace: Trace, folder: Path, error: BaseException) -> OutputError:
    """Keep a training that cannot be written in its folder; gives the error that says where."""
    reason = f"{getattr(error, 'filename', None) or folder}: cannot be written ({why(error)})"
    gc.collect()
    try:
        file = keep_elsewhere(TRACE, trace.to_bytes())
    except MemoryError:
        return _failure(
            f"{reason}, and the trace cannot be kept elsewhere, for lack of memory", trace
        )
    where = (
        f"the trace is kept in {file}; free some space, and move it"
        if file is not None
        else "nor can the trace be kept in any other folder"
    )
    return _failure(f"{reason}; {where}", trace)


def _failure(message: str, trace: Trace) -> OutputError:
    failure = OutputError(message)
    failure.trace = trace
    return failure


def _beside(folder: Path) -> Path:
    for number in itertools.count(2):
        other = folder.with_name(f"{folder.name}-{number}")
        with contextlib.suppress(FileExistsError):
            other.mkdir()
            return other
    raise AssertionError


def _may_replace(folder: Path, experiment: Experiment, trace: Trace) -> bool:
    from gradiometer.trace import Trace, TraceError

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


def check_theory(experiment: Experiment) -> None:
    """Raise ValueError for an experiment that the theory does not cover, or that is too deep."""
    from gradiometer.theory.prediction import check
    from gradiometer.verbs.predictions import check_depth

    check(experiment)
    check_depth(experiment)


def predict_first_step(trace: Trace, insist: bool = False) -> tuple[Prediction, Comparison] | None:
    """The prediction of a run's first step, and how the run compares.

    None if the theory does not cover it, or if the prediction would take longer than the run,
    unless `insist` is true.
    """
    from gradiometer.theory import TheoryError, compare
    from gradiometer.verbs.figures import predicted

    if not insist and trace.experiment["layers"] > COMPARED:
        return None
    try:
        prediction = predicted(trace)
        return prediction, compare(prediction, trace)
    except TheoryError:
        if insist:
            raise
        return None


def draw(trace: Trace, folder: Path, theory: Prediction | None = None) -> Iterator[Path]:
    """Write the figures of a run, one by one; gives the file of each.

    A prediction is shown behind those that can.
    """
    for name in FIGURE_NAMES:
        if name == "decision" and "points" not in trace.dataset:
            continue
        file = folder / f"{name}.png"
        behind = {"theory": theory} if theory is not None and name in WITH_THEORY else {}
        save_figure(getattr(trace.plot, name)(**behind), file)
        yield file
