"""The folder of a study: a file for each finished experiment, and who is working on which.

study.toml           the description
results/<hash>.nc    the trace of each finished experiment
failed/<hash>.txt    why an experiment failed, with its traceback
aside/               files that stood where a result should, but were damaged or another's
.locks/              empty files, locked by the driver that works on the experiment
experiments.csv      which hash is which experiment, and how far it is
"""

from __future__ import annotations

import csv
import errno
import io
import itertools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from gradiometer.experiment import Experiment
from gradiometer.files import (
    check_path,
    keep_elsewhere,
    make_writable,
    remove_leftovers,
    spreadsheet_text,
    why,
    write_atomically,
)
from gradiometer.locks import Lock
from gradiometer.regular import NotRegularError, read_regular
from gradiometer.seal import DamagedError, owner_of, sealed
from gradiometer.trace import TraceError

DESCRIPTION, INDEX = "study.toml", "experiments.csv"


OPENING = "opening"  # among the locks: of the driver that is writing the description
PATIENCE = 30.0  # seconds for another driver to write it
HALF_WRITTEN = re.compile(r"\.([0-9a-f]{16})\.nc\..*")  # see `files.replacing`


class FolderError(OSError):
    """A folder that cannot be written to, or holds what must not be replaced."""


class Described(Protocol):
    """What a folder asks of the study whose results it keeps; see `Study`."""

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """All of them, finished or not."""

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The settings that differ, with their values."""

    def varied(self, experiment: Experiment) -> dict[str, Any]:
        """The settings of one experiment that differ between experiments."""

    def save(self, path: Path) -> None:
        """Write the description."""

    def load(self, path: Path) -> Described:
        """Read the description of another study; raises ValueError if it is none."""


class StudyFolder:
    """Where a study's results are kept; several drivers may work in it at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_path(path, "out must be the path of a folder")
        if not os.fspath(path):
            raise FolderError("out must be the name of a folder, got an empty one")
        self.path = Path(path)
        self.results = self.path / "results"
        self.failed = self.path / "failed"
        self.aside = self.path / "aside"
        self.locks = self.path / ".locks"

    # --- beginning --------------------------------------------------------------------------------

    def check(self, study: Described, resume: bool) -> None:
        """Check that the folder may be used; nothing is written.

        Raises
        ------
        FolderError
            If it cannot be read; if it has results of a study that is not to be resumed; if it is
            to be, but is another study, of which this one is no extension.
        """
        try:
            described = (self.path / DESCRIPTION).exists()
            results = self.files()
        except OSError as error:
            raise self._cannot_be_written(error) from None
        if described:
            self._check_same(study, resume)
        elif results and not resume:
            raise FolderError(
                f"{self.path}: holds results, but no {DESCRIPTION}; choose another folder, or pass "
                "--resume to use those that are of this study"
            )

    def open(self, study: Described, resume: bool = False) -> None:
        """Make the folder, check it again, and write the description.

        Of several drivers that begin at the same time one does this after the other: a folder never
        gets two studies.

        Raises
        ------
        FolderError
            If it cannot be written to, or `check` refuses it.
        """
        try:
            for folder in (self.path, self.results, self.locks):
                make_writable(folder)
            lock = Lock.take(self.locks / OPENING, PATIENCE)
            if lock is None:
                raise FolderError(
                    f"{self.path}: another driver has been writing there for {PATIENCE:.0f} "
                    "seconds; try again, or choose another folder"
                )
            with lock:
                self.check(study, resume)
                self._remove_leftovers()
                study.save(self.path / DESCRIPTION)
        except FolderError:
            raise
        except OSError as error:
            raise self._cannot_be_written(error) from None

    def _remove_leftovers(self) -> None:
        """Remove what drivers that were killed have half written."""
        remove_leftovers(self.path, [DESCRIPTION])
        with os.scandir(self.results) as entries:
            halves = [match for entry in entries if (match := HALF_WRITTEN.match(entry.name))]
        for match in halves:
            lock = Lock.take(self.locks / match[1])
            if lock is not None:  # or somebody is writing it just now
                with lock:
                    (self.results / match[0]).unlink(missing_ok=True)

    def _cannot_be_written(self, error: OSError) -> FolderError:
        return FolderError(
            f"{error.filename or self.path}: cannot be written to ({error.strerror}); choose "
            "a folder that can, with --out"
        )

    def _check_same(self, study: Described, resume: bool) -> None:
        try:
            found = study.load(self.path / DESCRIPTION)
        except ValueError as error:
            raise FolderError(
                f"{error}; choose another folder, or remove that file so that it is written again"
            ) from None
        if not resume and self.files():
            raise FolderError(
                f"{self.path}: holds a study already ({len(self.files())} results); choose another "
                "folder, or pass --resume to run what is missing"
            )
        lost = {e.hash for e in found.experiments}.difference(e.hash for e in study.experiments)
        if lost:
            raise FolderError(
                f"{self.path}: holds another study, {found!r}, of which {len(lost)} experiments "
                "are not in this one; choose another folder (a study may be resumed as it is, or "
                "extended)"
            )

    # --- results ----------------------------------------------------------------------------------

    def path_of(self, experiment: Experiment) -> Path:
        """The file of an experiment's trace, there or not."""
        return self.results / f"{experiment.hash}.nc"

    def files(self) -> set[str]:
        """Hashes of the experiments of which there is a file, whole or not."""
        if not self.results.is_dir():
            return set()
        with os.scandir(self.results) as entries:
            names = [entry.name for entry in entries]
        # what is being written has a name that begins with a dot
        return {name[:-3] for name in names if name.endswith(".nc") and not name.startswith(".")}

    def is_done(self, experiment: Experiment) -> bool:
        """Whether there is a file, whole, and of this experiment."""
        return self.fault(experiment) is None

    def fault(self, experiment: Experiment) -> str | None:
        """What is wrong with an experiment's file, or that there is none; None if all is well.

        Raises
        ------
        OSError
            If the file cannot be read, whatever is in it.
        """
        try:
            content = read_regular(self.path_of(experiment), None)
        except FileNotFoundError:
            return "it is a broken link" if self.path_of(experiment).is_symlink() else "missing"
        except NotRegularError as error:
            return str(error)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return "it is a link that leads to itself"
            raise
        return _fault(content, experiment)

    def read(self, experiment: Experiment) -> bytes:
        """The content of an experiment's file, verified.

        Raises
        ------
        TraceError
            If it is missing, damaged, another's, or cannot be read.
        """
        path = self.path_of(experiment)
        try:
            content = read_regular(path, None)
        except FileNotFoundError:
            raise TraceError(f"{path}: no such file; its experiment is not finished") from None
        except OSError as error:
            raise TraceError(f"{path}: cannot be read ({error.strerror or error})") from None
        fault = _fault(content, experiment)
        if fault is not None:
            raise TraceError(
                f"{path}: {fault}; run the study again with --resume to compute it again"
            )
        return content

    def write(self, experiment: Experiment, content: bytes) -> None:
        """Keep the trace of an experiment, atomically; forget an earlier failure.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_atomically(self.path_of(experiment), sealed(content, experiment.hash))
        self._failure(experiment).unlink(missing_ok=True)

    def keep(
        self, error: BaseException, results: Sequence[tuple[Experiment, bytes]]
    ) -> FolderError:
        """Keep results that cannot be written somewhere else; gives the error that says where."""
        path = getattr(error, "filename", None) or self.path
        reason = f"{path}: cannot be written to ({why(error)})"
        kept: Path | None = None
        lost = 0
        for experiment, content in results:
            name, whole = f"{experiment.hash}.nc", sealed(content, experiment.hash)
            file = keep_elsewhere(name, whole, kept and kept.parent)
            lost += file is None
            kept = file or kept
        count = len(results) - lost
        words = []
        if kept is not None:
            what = "a finished result is" if count == 1 else f"{count} finished results are"
            words.append(
                f"{what} kept in {kept.parent}; free some space, move the .nc files into "
                f"{self.results} and continue with --resume"
            )
        if lost:
            words.append(
                f"{lost} could not be kept anywhere; free some space and continue with --resume"
            )
        return FolderError("; ".join([reason, *words]))

    def set_aside(self, experiment: Experiment) -> str | None:
        """Move away a file that is not this experiment's trace; says what was done, if anything."""
        fault = self.fault(experiment)
        path = self.path_of(experiment)
        if fault in (None, "missing"):
            return None
        self.aside.mkdir(exist_ok=True)
        for number in itertools.count(1):
            target = self.aside / f"{path.stem}-{number}{path.suffix}"
            if not os.path.lexists(target):
                break
        path.rename(target)
        return f"{path}: {fault}; moved to {target}, the experiment is run again"

    # --- failures ---------------------------------------------------------------------------------

    def _failure(self, experiment: Experiment) -> Path:
        return self.failed / f"{experiment.hash}.txt"

    def note_failure(self, experiment: Experiment, text: str) -> None:
        """Write down why an experiment failed, below its description."""
        self.failed.mkdir(exist_ok=True)
        settings = "".join(f"{k} = {v!r}\n" for k, v in experiment.model_dump().items())
        write_atomically(
            self._failure(experiment), f"{experiment.title}\n\n{settings}\n{text}\n".encode()
        )

    def has_failed(self, experiment: Experiment) -> bool:
        """Whether it failed when it was tried last."""
        return self._failure(experiment).exists()

    # --- who works on what ------------------------------------------------------------------------

    def lock(self, experiment: Experiment) -> Lock | None:
        """Keep an experiment from other drivers; None if one of them has it.

        Raises
        ------
        FolderError
            If it is this process that has it, in another loop, for which one might wait for ever.
        """
        path = self.locks.resolve() / experiment.hash
        lock = Lock.take(path)
        if lock is None and Lock.is_here(path):
            raise FolderError(
                f"{self.path}: this process is running a study there already, in a loop that "
                "was not left; close it, or restart Python"
            )
        return lock

    # --- what is where ----------------------------------------------------------------------------

    def write_index(self, study: Described, finished: Collection[Experiment]) -> Path:
        """Write which file is which experiment, and whether it is done: `experiments.csv`."""
        there = {experiment.hash for experiment in finished}
        table = io.StringIO()
        columns = ["hash", "state", *study.axes]
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        for experiment in study.experiments:
            state = "finished" if experiment.hash in there else "missing"
            if state == "missing" and self.has_failed(experiment):
                state = "failed"
            elif state == "missing" and self.fault(experiment) not in (None, "missing"):
                state = "damaged"
            varied = {
                name: spreadsheet_text(value) if isinstance(value, str) else value
                for name, value in study.varied(experiment).items()
            }
            writer.writerow({"hash": experiment.hash, "state": state, **varied})
        path = self.path / INDEX
        write_atomically(path, table.getvalue().encode())
        return path


def _fault(content: bytes, experiment: Experiment) -> str | None:
    """What is wrong with a file's content; seen without HDF5, which damage can send in circles."""
    try:
        owner = owner_of(content)
    except DamagedError:
        return "it is damaged"
    if owner is None:
        return "it is truncated, or was not written by a study"
    return None if owner == experiment.hash else f"it is of another experiment ({owner})"
