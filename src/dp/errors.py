"""The errors that dp raises, besides Python's own."""


class ShapeError(ValueError):
    """Two operands whose shapes do not fit the operation."""


class AnomalyError(FloatingPointError):
    """A NaN or an infinity appeared while `detect_anomaly` was watching."""


class CaptureError(ValueError):
    """A function that cannot be captured as a program without a wrong number; see `dp.capture`."""


class NumbersError(TypeError, ValueError):
    """What should be numbers is something else: text, None, complex, masked, or too large."""


class GradientError(AssertionError):
    """The reverse sweep and the differences disagree."""
