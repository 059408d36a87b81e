"""Recording: what is measured of each layer, defined once; one thin adapter per framework.

record.py      `record`, which chooses the adapter
recorder.py    what users hold: the trace, events, how a recording ends
adapters/      where each framework keeps weights, gradients, deltas and activations
requires.py    which arrays the wanted quantities need
measure.py     the quantities of a layer, from its arrays
quantities.py  the functions that compute them; their table is `gradiometer.quantities`
calls.py       the calls of a layer in a step, as one batch
assembly.py    a step, put together from all layers
session.py     one recording: its layers, steps, and reasons for what is missing
functions.py   activation functions, by their names in each framework
reference.py   the reference batch, on which dead units and accuracy are measured
restore.py     attributes and random streams, put back after a while
nonfinite.py   where the first number came up that is not finite
origin.py      what began it; from place.py, what its step's record says, and looking.py, its arrays
live.py        a run is diagnosed while it is recorded, and stopped if that is wanted
chains.py      which layers lead to which
schedule.py    which steps are recorded
clock.py       how much of the time recording takes
errors.py      what cannot be recorded, what is warned of, and what stops a training
"""

from gradiometer.recording.errors import GradientWarning, RecordingError, TrainingStopped
from gradiometer.recording.record import record
from gradiometer.recording.recorder import Recorder

__all__ = ["GradientWarning", "Recorder", "RecordingError", "TrainingStopped", "record"]
