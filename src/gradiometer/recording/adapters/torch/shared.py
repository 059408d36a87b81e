"""What PyTorch has once for the whole process, hooked once on behalf of all who want to know."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any


class Shared:
    """Installed for the first member, and undone after the last one, in whatever order they leave.

    Global hooks may be neither added nor removed while another thread goes through them: in that
    thread the training would fail. So each recorder can't have hooks of its own.

    Parameters
    ----------
    install : callable
        Installs it, and leaves in an `ExitStack` how it is undone.
    """

    def __init__(self, install: Callable[[contextlib.ExitStack], object]) -> None:
        self._install = install
        self._lock = threading.Lock()
        self._undo = contextlib.ExitStack()
        self.members: tuple[Any, ...] = ()

    def join(self, member: Any, undo: contextlib.ExitStack) -> None:
        """Add a member; closing `undo` removes it."""
        with self._lock:
            if not self.members:
                self._install(self._undo)
            self.members = (*self.members, member)
        undo.callback(self._leave, member)

    def _leave(self, member: Any) -> None:
        with self._lock:
            self.members = tuple(other for other in self.members if other is not member)
            if not self.members:
                self._undo.close()
