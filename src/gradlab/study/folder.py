"""The folder of a study: a file for each finished experiment, and who is working on which.

study.toml           the description
results/<hash>.nc    the trace of each finished experiment
failed/<hash>.txt    why an experiment failed, with its traceback
aside/               files that stood where a result should, but were damaged or another's
claims/              empty files, locked by the driver that works on the experiment
experiments.csv      which hash is which experiment, and how far it is
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from gradlab.experiment import Experiment
from gradlab.files import write_atomically

if TYPE_CHECKING:
    from gradlab.study.study import Study

DESCRIPTION, INDEX = "study.toml", "experiments.csv"


class FolderError(OSError):
    """A folder that cannot be written to, or holds what must not be replaced."""


class Claim:
    """The right to work on an experiment; it ends with its holder, whatever ends that."""

    def __init__(self, lock: FileLock | None) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._lock is None:
            return
        # Somebody may get a lock on the removed file: so, after a claim, look for results first.
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()
        self._lock = None


class StudyFolder:
    """Where a study's results are kept; several drivers may work in it at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path):
            raise FolderError("out must be the name of a folder, got an empty one")
        self.path = Path(path)
        self.results = self.path / "results"
        self.failed = self.path / "failed"
        self.aside = self.path / "aside"
        self.claims = self.path / ".claims"

    # --- beginning --------------------------------------------------------------------------------

    def open(self, study: Study, resume: bool) -> None:
        """Make the folder, or check that the one there may be used; write the description.

        Raises
        ------
        FolderError
            If it cannot be written to; if it has a study and is not to be resumed; if it is to be,
            but has another study, of which this one is no extension.
        """
        if (self.path / DESCRIPTION).exists():
            self._check_same(study, resume)
        elif self.results.is_dir() and any(self.results.iterdir()) and not resume:
            raise FolderError(
                f"{self.path}: holds results, but no {DESCRIPTION}; choose another folder, or pass "
                "--resume to use those that are of this study"
            )
        try:
            for folder in (self.path, self.results, self.claims):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"gradlab")
            study.save(self.path / DESCRIPTION)
        except OSError as error:
            raise FolderError(
                f"{error.filename or self.path}: cannot be written to ({error.strerror}); choose "
                "a folder that can, with --out"
            ) from None

    def _check_same(self, study: Study, resume: bool) -> None:
        from gradlab.study.study import Study, StudyError

        try:
            found = Study.load(self.path / DESCRIPTION)
        except StudyError as error:
            raise FolderError(
                f"{error}; choose another folder, or remove that file to have it written anew"
            ) from None
        if not resume:
            raise FolderError(
                f"{self.path}: holds a study already ({len(self.files())} results); choose another "
                "folder, or pass --resume to go on with what is missing"
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
            return {entry.name[:-3] for entry in entries if entry.name.endswith(".nc")}

    def is_done(self, experiment: Experiment) -> bool:
        """Whether there is a file, whole, and of this experiment."""
        return self.fault(experiment) is None

    def fault(self, experiment: Experiment) -> str | None:
        """What is wrong with an experiment's file, or that there is none; None if all is well."""
        import h5py

        path = self.path_of(experiment)
        try:
            # not with xarray, which takes thirty times as long
            with h5py.File(path, "r") as file:
                found = file.attrs.get("experiment_hash")
        except FileNotFoundError:
            return "missing"
        except OSError as error:  # HDF5 compares the file's length with the one it was written with
            return f"it cannot be read, and is perhaps truncated ({error})"
        if found != experiment.hash:
            what = f"of another experiment ({found})" if found else "no trace of an experiment"
            return f"it is {what}"
        return None

    def write(self, experiment: Experiment, content: bytes) -> None:
        """Keep the trace of an experiment, atomically; forget an earlier failure.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_atomically(self.path_of(experiment), content)
        self._failure(experiment).unlink(missing_ok=True)

    def set_aside(self, experiment: Experiment) -> str | None:
        """Move away a file that is not this experiment's trace; says what was done, if anything."""
        fault = self.fault(experiment)
        path = self.path_of(experiment)
        if fault in (None, "missing"):
            return None
        self.aside.mkdir(exist_ok=True)
        for number in itertools.count(1):
            target = self.aside / f"{path.stem}-{number}{path.suffix}"
            if not target.exists():
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

    def claim(self, experiment: Experiment) -> Claim | None:
        """Keep an experiment from other drivers; None if one of them has it."""
        lock = FileLock(self.claims / experiment.hash, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except NotImplementedError:  # a file system without locks: work may be done twice
            return Claim(None)
        return Claim(lock)

    # --- what is where ----------------------------------------------------------------------------

    def write_index(self, study: Study) -> Path:
        """Write which file is which experiment, and whether it is done: `experiments.csv`."""
        there = self.files()
        table = io.StringIO()
        columns = ["hash", "state", *study.axes]
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        for experiment in study.experiments:
            state = "finished" if experiment.hash in there else "missing"
            if state == "missing" and self.has_failed(experiment):
                state = "failed"
            writer.writerow({"hash": experiment.hash, "state": state, **study.varied(experiment)})
        path = self.path / INDEX
        write_atomically(path, table.getvalue().encode())
        return path
