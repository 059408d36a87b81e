"""The adapter for dp: where its models keep weights, gradients, deltas and activations."""

# training.py  where a step begins and ends
# callback.py  what the library's own loop calls in every step
# watch.py     what dp tells of a model: passes, updates, loops
# steps.py     a step put together from its passes
# forward.py   a forward pass for the recorder alone
# layers.py    what is recorded as a layer, and the function after it
# program.py   compiled steps, read from their buffers

from gradiometer.recording.adapters.dp.training import recorder_of

__all__ = ["recorder_of"]
