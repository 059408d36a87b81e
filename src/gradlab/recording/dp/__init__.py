"""The adapter for dp: where its models keep weights, gradients, deltas and activations."""

# record.py   steps that run eagerly
# program.py  compiled steps, read from their buffers
# layers.py   what both need to know of the layers

from gradlab.recording.dp.record import record

__all__ = ["record"]
