"""What cannot be recorded."""


class RecordingError(RuntimeError):
    """A model whose layers cannot be recorded without reporting a wrong number."""
