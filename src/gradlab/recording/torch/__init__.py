"""The adapter for PyTorch: where its models keep weights, gradients, deltas and activations."""

# layers.py     which modules own weights, and what is known of their outputs
# functions.py  PyTorch's activation functions, as dp knows them
# computed.py   weights that are computed from other parameters, which are never computed once more
# unseen.py     layers in plain lists, which PyTorch does not see
# fans.py       fan_in and fan_out, by the kind of layer or by the product a weight is used in
# uses.py       what a function does with a layer's output
# outputs.py    what becomes of layers' outputs: the activation function of each
# calls.py      calls of layers, and what a thread is in the middle of
# backward.py   backward passes
# arrivals.py   hooks for what arrives in them
# expected.py   which passes are probably trained; what is measured of the others can wait
# watch.py      the hooks: tells a listener of calls, activations, deltas, gradients
# shared.py     hooks of which PyTorch has one for the whole process
# scaling.py    losses scaled by a GradScaler
# updates.py    steps of optimizers: which of them belong together as one step
# gradients.py  dL/dW as backward computed it, and as an optimizer was given it
# reference.py  a look at the reference batch
# untouched.py  that a look leaves everything as it was
# dispatch.py   what recording takes beside what its own code does
# step.py       what is known of a step so far
# assembly.py   a step put together
# recorder.py   the recorder: when a step begins and ends, and what is measured when
# arrays.py     tensors as arrays

from gradlab.recording.torch.recorder import TorchRecorder

__all__ = ["TorchRecorder"]
