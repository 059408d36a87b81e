"""The folder of a study: a file for each finished experiment, and who is working on which.

study.toml           the description
results/<hash>.nc    the trace of each finished experiment
failed/<hash>.txt    why an experiment failed, with its traceback
aside/               files that stood where a result should, but were damaged or another's
.claims/             empty files, locked by the driver that works on the experiment
experiments.csv      which hash is which experiment, and how far it is
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from filelock import FileLock, Timeout

from gradlab.experiment import Experiment
from gradlab.files import make_writable, write_atomically
from gradlab.regular import NotRegularError, check_regular

if TYPE_CHECKING:
    from gradlab.study.study import Study

DESCRIPTION, INDEX = "study.toml", "experiments.csv"


# What follows the netCDF content of a result, where HDF5 does not look: whose it is, and a digest.
SEAL = re.compile(rb"\ngradlab result ([0-9a-f]{16}) ([0-9a-f]{32})\n\Z")
HALF_WRITTEN = re.compile(r"\.([0-9a-f]{16})\.nc\..*")  # see `files.replacing`
SEAL_LENGTH = len("\ngradlab result  \n") + 16 + 32


class FolderError(OSError):
    """A folder that cannot be written to, or holds what must not be replaced."""


def sealed(content: bytes, experiment: Experiment) -> bytes:
    """A trace's content, followed by what tells later whether it is whole, and whose."""
    name = experiment.hash.encode()
    return content + b"\ngradlab result %b %b\n" % (name, _digest(content, name))


def _digest(content: bytes, name: bytes) -> bytes:
    return hashlib.blake2b(content + name, digest_size=16).hexdigest().encode()


class Claim:
    """The right to work on an experiment; it ends with its holder, whatever ends that."""

    _here: ClassVar[set[str]] = set()  # those of this process

    def __init__(self, lock: FileLock | None) -> None:
        self._lock = lock
        if lock is not None:
            self._here.add(lock.lock_file)

    @classmethod
    def is_here(cls, path: Path) -> bool:
        """Whether it is this very process that holds it."""
        return str(path) in cls._here

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._lock is None:
            return
        # Somebody may get a lock on the removed file: so, after a claim, look for results first.
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._here.discard(self._lock.lock_file)
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

    def check(self, study: Study, resume: bool) -> None:
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

    def open(self, study: Study) -> None:
        """Make the folder, and write the description.

        Raises
        ------
        FolderError
            If it cannot be written to.
        """
        try:
            for folder in (self.path, self.results, self.claims):
                make_writable(folder)
            self._remove_leftovers()
            study.save(self.path / DESCRIPTION)
        except OSError as error:
            raise self._cannot_be_written(error) from None

    def _remove_leftovers(self) -> None:
        """Remove what drivers that were killed have half written."""
        with os.scandir(self.results) as entries:
            halves = [match for entry in entries if (match := HALF_WRITTEN.match(entry.name))]
        for match in halves:
            lock = FileLock(self.claims / match[1], thread_local=False)
            with contextlib.suppress(Timeout, NotImplementedError):
                lock.acquire(blocking=False)  # or somebody is writing it just now
                (self.results / match[0]).unlink(missing_ok=True)
                Claim(lock).release()

    def _cannot_be_written(self, error: OSError) -> FolderError:
        return FolderError(
            f"{error.filename or self.path}: cannot be written to ({error.strerror}); choose "
            "a folder that can, with --out"
        )

    def _check_same(self, study: Study, resume: bool) -> None:
        from gradlab.study.study import Study, StudyError

        try:
            found = Study.load(self.path / DESCRIPTION)
        except StudyError as error:
            raise FolderError(
                f"{error}; choose another folder, or remove that file to have it written anew"
            ) from None
        if not resume and self.files():
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
        """What is wrong with an experiment's file, or that there is none; None if all is well.

        Raises
        ------
        OSError
            If the file cannot be read, whatever is in it.
        """
        try:
            check_regular(self.path_of(experiment))  # a pipe would keep us waiting
            # not with HDF5, which damage can send round in circles
            content = self.path_of(experiment).read_bytes()
        except FileNotFoundError:
            return "missing"
        except NotRegularError as error:
            return str(error)
        found = SEAL.search(content[-SEAL_LENGTH:])
        if found is None:
            return "it is truncated, or was not written by a study"
        if found[2] != _digest(content[:-SEAL_LENGTH], found[1]):
            return "it is damaged"
        if found[1] != experiment.hash.encode():
            return f"it is of another experiment ({found[1].decode()})"
        return None

    def write(self, experiment: Experiment, content: bytes) -> None:
        """Keep the trace of an experiment, atomically; forget an earlier failure.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_atomically(self.path_of(experiment), sealed(content, experiment))
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
        """Keep an experiment from other drivers; None if one of them has it.

        Raises
        ------
        FolderError
            If it is this process that has it, in another loop, for which one might wait for ever.
        """
        path = self.claims.resolve() / experiment.hash
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if Claim.is_here(path):
                raise FolderError(
                    f"{self.path}: this process is running a study there already, in a loop that "
                    "was not left; close it, or start Python anew"
                ) from None
            return None
        except NotImplementedError:  # a file system without locks: work may be done twice
            return Claim(None)
        return Claim(lock)

    # --- what is where ----------------------------------------------------------------------------

    def write_index(self, study: Study, finished: Collection[Experiment]) -> Path:
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
            writer.writerow({"hash": experiment.hash, "state": state, **study.varied(experiment)})
        path = self.path / INDEX
        write_atomically(path, table.getvalue().encode())
        return path
