"""Events are values, and a listener that fails does not end the work."""

import subprocess
import sys
import warnings
from dataclasses import FrozenInstanceError

import pytest

from gradiometer.events import Event, Finished, Guarded, Interrupted, ListenerWarning


def test_events_are_frozen_values():
    event = Interrupted(2, "drawing")
    assert event == Interrupted(2, "drawing", 0, 0)
    with pytest.raises((FrozenInstanceError, TypeError)):
        event.signal = 3
    assert isinstance(event, Event)


def test_an_error_of_the_listener_is_told_once_and_ends_nothing():
    heard = []

    def listener(event):
        heard.append(event)
        raise ValueError("no room on the page")

    tell = Guarded(listener)
    assert tell
    with pytest.warns(ListenerWarning, match=r"ValueError \(no room on the page\) at Finished"):
        tell(Finished("run"))
    tell(Finished("run"))
    assert len(heard) == 1
    assert not tell


def test_nor_where_warnings_are_errors(capsys):
    def listener(event):
        raise ValueError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Guarded(listener)(Finished("run"))
    assert "the listener raised ValueError" in capsys.readouterr().err


def test_an_interrupt_in_the_listener_goes_up():
    def listener(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(listener)(Finished("run"))


def test_nobody_needs_to_listen():
    tell = Guarded()
    assert not tell
    tell(Finished("run"))


def test_events_load_nothing_of_the_rest():
    code = (
        "import sys, gradiometer.events; "
        "print([n for n in sys.modules if n.split('.')[0] in ('gradiometer', 'dp', 'xarray')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['gradiometer', 'gradiometer.events']"
