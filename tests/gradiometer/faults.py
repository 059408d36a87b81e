"""Faults injected one after the other: the first write fails, then the second, until none is left.

As SQLite is tested: an operation is repeated, and the n-th time that it writes, makes, renames,
opens, flushes or allocates anything, that fails. After each attempt the caller checks what is left.
The sweep ends with the first attempt in which there was nothing left to fail.
"""

import builtins
import contextlib
import errno
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

# what may fail, and with which error
KINDS = {
    "open": errno.EMFILE,
    "write": errno.ENOSPC,
    "fsync": errno.EIO,
    "replace": errno.EACCES,
    "mkdir": errno.ENOSPC,
    "memory": None,  # MemoryError, where something is written or made
}
MOST = 300  # faults of a kind: more than any operation here has


class Fault:
    """Makes the n-th action of a kind below `root` fail; `happened` tells whether there was one.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    n : int
        From 1.
    root : path
        Only what concerns files below it counts.
    lasting : bool
        Whether all later actions of the kind fail too, as on a full disk.
    """

    def __init__(self, kind: str, n: int, root: Path, lasting: bool = False) -> None:
        self.kind, self.n, self.root, self.lasting = kind, n, root.resolve(), lasting
        self.count = 0
        self.happened = False

    def act(self, kind: str, path: object) -> None:
        """Fail, if it is time."""
        if kind != self.kind or not self._below(path):
            return
        self.count += 1
        if self.count == self.n or (self.lasting and self.count > self.n):
            self.happened = True
            number = KINDS[kind]
            if number is None:
                raise MemoryError("injected")
            raise OSError(number, os.strerror(number), str(path))

    def _below(self, path: object) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        with contextlib.suppress(TypeError):
            return Path(os.path.abspath(os.fsdecode(path))).is_relative_to(self.root)
        return False


class _Failing:
    """A file whose writes may fail: what is written before stays, a half of it."""

    def __init__(self, file, fault: Fault, path) -> None:
        self._file, self._fault, self._path = file, fault, path

    def write(self, content):
        self._fault.act("memory", self._path)
        try:
            self._fault.act("write", self._path)
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return self._file.write(content)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __iter__(self):
        return iter(self._file)

    def __getattr__(self, name):
        return getattr(self._file, name)


@contextlib.contextmanager
def injected(fault: Fault, monkeypatch):
    """Let the fault happen inside the block."""

    def opening(real):
        def opened(file, mode="r", *args, **kwargs):
            writes = not set(mode).isdisjoint("wax+")
            if writes:
                fault.act("open", file)
            made = real(file, mode, *args, **kwargs)
            return _Failing(made, fault, file) if writes else made

        return opened

    def before(kind, real):
        def done(path, *args, **kwargs):
            fault.act(kind, path)
            return real(path, *args, **kwargs)

        return done

    def raw_open(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR):
            fault.act("open", path)
        return real_open(path, flags, *args, **kwargs)

    def allocating(real):
        def made(*args, **kwargs):
            fault.act("memory", fault.root)
            return real(*args, **kwargs)

        return made

    real_open = os.open
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opening(builtins.open))
        patch.setattr(io, "open", opening(io.open))
        patch.setattr(os, "open", raw_open)
        patch.setattr(os, "fsync", before("fsync", os.fsync))
        patch.setattr(os, "replace", before("replace", os.replace))
        patch.setattr(os, "rename", before("replace", os.rename))
        patch.setattr(os, "mkdir", before("mkdir", os.mkdir))
        # what takes most memory; wherever it goes to, it counts
        for owner, name in ((xr.Dataset, "to_netcdf"), (Figure, "savefig")):
            patch.setattr(owner, name, allocating(getattr(owner, name)))
        yield


def sweep(
    operation: Callable[[Path], object],
    check: Callable[[Path, Fault, BaseException | None], None],
    monkeypatch,
    tmp_path: Path,
    kinds=tuple(KINDS),
    every: int = 1,
    lasting: bool = False,
) -> int:
    """Let each action of each kind fail in turn; gives how many faults were injected.

    Parameters
    ----------
    operation : callable
        Works below the folder that it is given; may raise.
    check : callable
        Called with the folder, the fault, and what was raised.
    kinds : sequence of str
    every : int
        Let only every so many-th fail, for a sample.
    lasting : bool
        Whether all later actions fail too.
    """
    injections = 0
    for kind in kinds:
        for n in range(1, MOST, every):
            root = tmp_path / f"{kind}-{n}-{lasting}" / "there"
            root.mkdir(parents=True)
            elsewhere = root.parent / "elsewhere"
            elsewhere.mkdir()
            monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
            fault = Fault(kind, n, root, lasting)
            raised = None
            with injected(fault, monkeypatch):
                try:
                    operation(root)
                except Exception as error:
                    raised = error
            if not fault.happened:
                assert raised is None, f"{kind} {n}: {raised!r} without a fault"
                check(root, fault, None)
                break
            injections += 1
            check(root, fault, raised)
        else:
            raise AssertionError(f"{kind}: no end of it after {MOST}")
    return injections
