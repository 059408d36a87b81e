"""Locks on a file or a folder. A lock ends with the process that holds it, even if it is killed."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from types import TracebackType

    from filelock import FileLock

IN_FOLDER = ".gradiometer.lock"  # in a folder that is being written
LOOK_AGAIN = 0.05  # seconds
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # the errors of such a file system


class Lock:
    """An exclusive lock on an empty file, which exists as long as the lock is held.

    The operating system holds it for the process, so a process that is killed leaves at most an
    empty file, which keeps nobody out. On a file system without locks everybody gets one.
    """

    _here: ClassVar[set[str]] = set()  # the locks of this process

    def __init__(self, lock: FileLock | None) -> None:
        self._lock = lock
        if lock is not None:
            self._here.add(lock.lock_file)

    @classmethod
    def take(cls, path: Path, wait: float = 0.0) -> Lock | None:
        """Take the lock; None if another process holds it for the next `wait` seconds.

        Raises
        ------
        OSError
            If the file cannot be made.
        """
        from filelock import Timeout

        path = path.absolute()
        end = time.monotonic() + wait
        while True:
            made = _made(path)
            file = _identity(path)
            lock = _new_lock(path)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                if time.monotonic() >= end:
                    return None
                time.sleep(LOOK_AGAIN)
                continue
            except NotImplementedError:
                return cls._without_locks(path)
            except OSError as error:
                if error.errno in WITHOUT_LOCKS:
                    return cls._without_locks(path)
                if made:
                    path.unlink(missing_ok=True)
                raise
            # the last holder may have removed the file meanwhile: then this lock is useless
            if file is not None and file == _identity(path):
                return cls(lock)
            lock.release()

    @classmethod
    def _without_locks(cls, path: Path) -> Lock:
        path.unlink(missing_ok=True)
        return cls(None)

    @classmethod
    def is_here(cls, path: Path) -> bool:
        """Whether this process holds it."""
        return str(path.absolute()) in cls._here

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._lock is None:
            return
        # while it is held: afterwards it may be another's
        with contextlib.suppress(OSError):
            os.unlink(self._lock.lock_file)
        self._here.discard(self._lock.lock_file)
        self._lock.release()
        self._lock = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _new_lock(path: Path) -> FileLock:
    from filelock import FileLock

    options: dict[str, Any] = {"thread_local": False}
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:
        options["fallback_to_soft"] = (
            False  # a lock that is only a file would outlive a killed holder
        )
    return FileLock(path, **options)


def _made(path: Path) -> bool:
    """Create an empty file; return whether it is new."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
