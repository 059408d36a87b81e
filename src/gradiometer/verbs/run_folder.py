"""The folder of a run: only its own earlier results are replaced, and no training is lost."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gradiometer.events import FileWritten, KeptElsewhere, Listener
from gradiometer.files import FAILURES, keep_elsewhere, remove_leftovers, why
from gradiometer.locks import IN_FOLDER, Lock
from gradiometer.verbs.output import (
    DESCRIPTION,
    FIGURE_NAMES,
    REPORT,
    TRACE,
    WITH_THEORY,
    OutputError,
    named,
    save_figure,
    writable_folder,
)
from gradiometer.verbs.report import write

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment
    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace

FILE_NAMES = [TRACE, DESCRIPTION, *(f"{name}.png" for name in FIGURE_NAMES)]
PATIENCE = 60.0  # seconds for another run to write its result into the same folder


class RunFolder:
    """Where the trace, the description and the figures of one run go.

    It is made, and checked that it can be written to and that nothing would be lost.

    Parameters
    ----------
    out : path
        {title} in it is replaced by the experiment's title.
    experiment : Experiment
        The experiment that is run.
    overwrite : bool
        Replace files of other experiments.
    report : bool
        Whether a report is written, too.

    Attributes
    ----------
    path : Path
        The folder. After `save` perhaps another one, beside the one given.

    Raises
    ------
    OutputError
        If it cannot be written to, holds another experiment, or holds files of the names to be
        written that belong to no experiment.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        experiment: Experiment,
        overwrite: bool = False,
        report: bool = False,
    ) -> None:
        self._wanted = self.path = writable_folder(
            str(named(out)).replace("{title}", experiment.title)
        )
        self._experiment, self._overwrite, self._report = experiment, overwrite, report
        names = [*FILE_NAMES, REPORT] if report else FILE_NAMES
        if not overwrite:
            _refuse_to_replace(self.path, experiment, names)
        remove_leftovers(self.path, names)

    def save(self, trace: Trace) -> None:
        """Write the trace and the description.

        Files written into the folder meanwhile stay: the result of another experiment, and the
        complete trace of the same one if this one was interrupted. The result then goes into a
        folder beside it.

        Raises
        ------
        OutputError
            If a file cannot be written. A trace is then kept in another folder, which the error
            names; and in the error's `trace`.
        """
        try:
            # under a lock: nobody writes between the check and the writing
            with _lock(self.path):
                if not (self._overwrite or _may_replace(self.path, self._experiment, trace)):
                    self.path = _beside(self.path)
                trace.save(self.path / TRACE)
        except FAILURES as error:
            raise _kept(trace, self.path, error) from None
        try:
            self._experiment.save(self.path / DESCRIPTION)
        except FAILURES as error:
            raise _failure(
                f"{self.path / DESCRIPTION}: cannot be written ({why(error)}); the trace is saved, "
                f"in {self.path / TRACE}",
                trace,
            ) from None

    def draw(
        self, trace: Trace, theory: Prediction | None = None, show: bool = False
    ) -> Iterator[Path]:
        """Write the figures and the report, one by one; yields the file of each.

        The report shows the prediction, if there is one; with `show`, figures that can do, too.
        """
        from gradiometer.plots import FIGURES

        for name in FIGURE_NAMES:
            if name == "decision" and "points" not in trace.dataset:
                continue
            file = self.path / f"{name}.png"
            behind = {"theory": theory} if show and name in WITH_THEORY else {}
            save_figure(FIGURES[name](trace, **behind), file)
            yield file
        if self._report:
            yield write(trace, self.path / REPORT, theory)

    def tell_files(self, tell: Listener) -> None:
        """Report where the trace and the description are."""
        if self.path != self._wanted:
            tell(KeptElsewhere(self._wanted, self.path))
        for name in (TRACE, DESCRIPTION):
            tell(FileWritten(self.path / name))


def _refuse_to_replace(
    folder: Path, experiment: Experiment, names: Collection[str] = FILE_NAMES
) -> None:
    """Raise OutputError if the folder holds anything but earlier results of this experiment."""
    present = [name for name in names if (folder / name).exists()]
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
    """The experiment in the folder's description."""
    from gradiometer.experiment import Experiment, ExperimentError

    try:
        return Experiment.load(folder / DESCRIPTION)
    except ExperimentError:
        return None


def _recorded(folder: Path) -> Experiment | None:
    """The experiment of the folder's trace, which may have no description beside it."""
    from gradiometer.experiment import Experiment, ExperimentError
    from gradiometer.trace import Trace, TraceError

    if not (folder / TRACE).is_file():
        return None
    try:
        fields = Trace.load(folder / TRACE).experiment
        return Experiment.of(**fields) if fields else None
    except (TraceError, ExperimentError):
        return None


def _lock(folder: Path) -> Lock:
    lock = Lock.take(folder / IN_FOLDER, PATIENCE)
    if lock is None:
        words = f"another gradiometer has been writing there for {PATIENCE:.0f} seconds"
        raise OSError(errno.EBUSY, words, str(folder))
    return lock


def _kept(trace: Trace, folder: Path, error: BaseException) -> OutputError:
    """Keep a training that cannot be written in its folder; returns the error that says where."""
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
