"""How a command ends after a signal: its exit status, and the forced end after a second one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

LEFT = 30.0  # seconds after the second signal, enough to save finished results to a slow disk
_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")


_ours = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _ours:  # Ctrl-C while the rest of the command line loads ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def exit_status(number: int) -> int:
    """Exit status of a command that a signal ended, as of a shell: 130 after Ctrl-C."""
    return 128 + number


def loaded() -> None:
    """Note that the command line is loaded: from now on Ctrl-C raises an exception again."""
    if _ours and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_if_asked_twice() -> None:
    """Watch the signals of this process from a thread, in addition to their handlers.

    Python runs signal handlers between two of its own instructions, so not while a library computes
    or waits. Where handlers run, a second signal (Ctrl-C, SIGTERM) takes effect at once. Otherwise
    the process ends half a minute later, and the worker processes with it. While no verb runs,
    SIGTERM has no handler, and ends the process by itself.
    """
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        return
    numbers = {int(getattr(signal, name)) for name in _STOPPING}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, numbers), daemon=True).start()


def _watch(reading: int, numbers: set[int]) -> None:
    came = 0
    while True:
        for number in os.read(reading, 64):
            came += number in numbers
            if came == 2:
                time.sleep(LEFT)
                _end_workers()
                os._exit(exit_status(number))


def _end_workers() -> None:
    """End worker processes, also stopped ones, which would not notice our end by themselves."""
    module = sys.modules.get("gradiometer.studies.processes")
    for processes in [*module.LocalProcesses.living] if module is not None else ():
        processes.kill()
