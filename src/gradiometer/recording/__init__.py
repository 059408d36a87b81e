"""What is measured per layer, once; and one thin adapter per framework."""

from gradiometer.recording.errors import RecordingError
from gradiometer.recording.record import record
from gradiometer.recording.recorder import Recorder

__all__ = ["Recorder", "RecordingError", "record"]
