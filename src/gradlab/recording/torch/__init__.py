"""The adapter for PyTorch: where its models keep weights, gradients, deltas and activations."""

# layers.py     which modules own weights, and what is known of their outputs
# functions.py  PyTorch's activation functions, as dp knows them
# calls.py      calls of layers, and what a thread is in the middle of
# backward.py   backward passes
# arrivals.py   hooks for what arrives in them
# watch.py      the hooks: tells a listener of calls, activations, deltas, gradients
# shared.py     hooks of which PyTorch has one for the whole process
# scaling.py    losses scaled by a GradScaler
# reference.py  a look at the reference batch
# step.py       what is known of a step so far
# assembly.py   a step put together
# recorder.py   the recorder: when a step begins and ends, and what is measured when
# arrays.py     tensors as arrays

from gradlab.recording.torch.recorder import TorchRecorder

__all__ = ["TorchRecorder"]
