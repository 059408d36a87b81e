"""What is measured per layer, once; and one thin adapter per framework."""

from gradlab.recording.errors import RecordingError
from gradlab.recording.record import record
from gradlab.recording.recorder import Recorder

__all__ = ["Recorder", "RecordingError", "record"]
