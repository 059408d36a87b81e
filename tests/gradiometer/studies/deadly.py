"""What workers do in these tests; imported by their processes by name."""

import os
import signal
import time
from pathlib import Path

from gradiometer.studies.compute import compute

LOG = "GRADIOMETER_TEST_LOG"


def note(word, expected):
    """Append a line in one write, so that those of several processes do not mix."""
    handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{word} {expected} {os.getpid()}\n".encode())
    os.close(handle)


def notes(path=None):
    """What was noted: (word, hash, pid)."""
    path = Path(path or os.environ[LOG])
    lines = path.read_text().splitlines() if path.exists() else []
    return [(word, name, int(pid)) for word, name, pid in (line.split() for line in lines)]


def slow(settings, expected, at_once):
    """The real thing, with time to be killed in its middle."""
    note("begin", expected)
    content = compute(settings, expected, at_once)
    time.sleep(0.25)
    note("end", expected)
    return content


def deadly(settings, expected, at_once):
    """Kills its own worker in nets of three layers."""
    note("begin", expected)
    if settings["layers"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(settings, expected, at_once)


def deadly_once(settings, expected, at_once):
    """Kills its own worker the first time."""
    before = [name for _, name, _ in notes()]
    note("begin", expected)
    if settings["layers"] == 3 and expected not in before:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(settings, expected, at_once)


def leaving(settings, expected, at_once):
    """Ends its own worker without a signal."""
    if settings["layers"] == 3:
        os._exit(7)
    return compute(settings, expected, at_once)


def failing(settings, expected, at_once):
    """Raises in nets of three layers."""
    if settings["layers"] == 3:
        raise ArithmeticError("three is\ntoo many")
    return compute(settings, expected, at_once)


def stopped_once(settings, expected, at_once):
    """Is asked to end (SIGTERM) in the middle of an experiment, the first time."""
    import threading

    before = [name for _, name, _ in notes()]
    note("begin", expected)
    if settings["layers"] == 3 and expected not in before:
        settings = {**settings, "steps": 10**6}
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        from gradiometer.experiment import Experiment

        expected = Experiment.of(**settings).hash
    return compute(settings, expected, at_once)


def sleeping(settings, expected, at_once):
    """Never ends in nets of three layers."""
    note("begin", expected)
    if settings["layers"] == 3:
        time.sleep(1000)
    return compute(settings, expected, at_once)


def stopped(settings, expected, at_once):
    """Stops its own worker (as Ctrl-Z does) in nets of three layers."""
    note("begin", expected)
    if settings["layers"] == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return compute(settings, expected, at_once)


def always_deadly(settings, expected, at_once):
    """Kills its own worker, whatever the net."""
    note("begin", expected)
    os._exit(9)


def deadly_if_deep(settings, expected, at_once):
    """Kills its own worker in all but nets of one layer."""
    note("begin", expected)
    if settings["layers"] > 1:
        os._exit(9)
    return compute(settings, expected, at_once)
